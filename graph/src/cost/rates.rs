//! How fast a device is, sort of work by sort. Few numbers on purpose: each is what one small kernel does when it is run by
//! itself, so that anybody can measure them, and none is fitted to a model.

use serde::{Deserialize, Serialize};

/// What a device does in a second, and what things cost it that take no work.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Operations on f32 of a matrix product, a multiply-add being two.
    pub product_flops: f64,
    /// The same of a convolution, whose operand is gathered from an image.
    pub window_flops: f64,
    /// The same of a convolution's gradient by its image, whose windows are read backwards.
    pub back_flops: f64,
    /// The same of its gradient by the weights, which sums over images.
    pub weight_flops: f64,
    /// Instructions that run on each tile of a product's sums while it is at hand, each on one element.
    pub epilogue_ops: f64,
    /// Elements that a product packs before it multiplies them.
    pub packed: f64,
    /// Cheap instructions of scalar programs (add, multiply, select, load, store), each on one element.
    pub lane_ops: f64,
    /// Dear ones: exp, log, tanh, erf, sine, cosine, power, and words of Philox.
    pub heavy_ops: f64,
    /// Elements that are folded along what lies next to each other.
    pub folded: f64,
    /// Elements that are read otherwise than in the order in which they lie.
    pub strided: f64,
    /// Contributions that are scattered.
    pub scattered: f64,
    /// Operations of attention.
    pub attention_flops: f64,
    /// Bytes read and written, where all of them fit a core's own cache.
    pub near_bytes: f64,
    /// Where they fit the cache that cores share.
    pub shared_bytes: f64,
    /// Where they fit no cache.
    pub far_bytes: f64,
    /// Seconds of a launch, be it ever so small.
    pub launch_seconds: f64,
    /// Seconds that a value of a few bytes takes to a neighbour in the same process.
    pub hop_seconds: f64,
    /// Bytes per second to a neighbour in the same process.
    pub hop_bytes: f64,
    /// Seconds of a feed or a fetch of a few bytes.
    pub feed_seconds: f64,
    /// Bytes per second of large feeds and fetches.
    pub feed_bytes: f64,
    /// Seconds of a step over several devices in which nothing is done.
    pub step_seconds: f64,
}

/// Up to here all bytes of a launch lie in a core's own cache.
const NEAR: f64 = (1 << 20) as f64;
/// Up to here in the one that cores share, whatever else a step has put there.
const SHARED: f64 = (4 << 20) as f64;
/// From here on in none.
const FAR: f64 = (64 << 20) as f64;

impl Rates {
    /// What stands in for a CPU device of which nothing is known: one core of a few gigahertz with vectors of 256 bits.
    pub const DEFAULT: Rates = Rates {
        product_flops: 5e10,
        window_flops: 4e10,
        back_flops: 3e10,
        weight_flops: 3e10,
        epilogue_ops: 2e9,
        packed: 2e9,
        lane_ops: 8e9,
        heavy_ops: 1e9,
        folded: 4e9,
        strided: 1e9,
        scattered: 2e8,
        attention_flops: 3e10,
        near_bytes: 5e10,
        shared_bytes: 2e10,
        far_bytes: 1e10,
        launch_seconds: 5e-7,
        hop_seconds: 5e-6,
        hop_bytes: 1e10,
        feed_seconds: 5e-7,
        feed_bytes: 1e10,
        step_seconds: 2e-5,
    };
    /// What stands in for a GPU of which nothing is known: a small one behind a bus.
    pub const DEFAULT_GPU: Rates = Rates {
        product_flops: 1e12,
        window_flops: 5e11,
        back_flops: 5e11,
        weight_flops: 2e11,
        epilogue_ops: 1e12,
        packed: 1e12,
        lane_ops: 1e12,
        heavy_ops: 2.5e11,
        folded: 1e11,
        strided: 1e11,
        scattered: 1e9,
        attention_flops: 3e11,
        near_bytes: 2e11,
        shared_bytes: 2e11,
        far_bytes: 2e11,
        launch_seconds: 5e-6,
        hop_seconds: 1e-4,
        hop_bytes: 5e9,
        feed_seconds: 5e-5,
        feed_bytes: 1e10,
        step_seconds: 1e-4,
    };

    /// Bytes per second of a launch that reads and writes so many in all.
    pub fn bytes_per_second(&self, bytes: u64) -> f64 {
        let bytes = bytes as f64;
        if bytes <= NEAR {
            return self.near_bytes;
        }
        // The larger, the less of it is still in the cache: there is no edge.
        let part = ((bytes / SHARED).ln() / (FAR / SHARED).ln()).clamp(0.0, 1.0);
        self.shared_bytes * (self.far_bytes / self.shared_bytes).powf(part)
    }
    /// The name of a rate that is no positive number, if there is one.
    pub(crate) fn wrong(&self) -> Option<&'static str> {
        let all = [
            ("product_flops", self.product_flops),
            ("window_flops", self.window_flops),
            ("back_flops", self.back_flops),
            ("weight_flops", self.weight_flops),
            ("epilogue_ops", self.epilogue_ops),
            ("packed", self.packed),
            ("lane_ops", self.lane_ops),
            ("heavy_ops", self.heavy_ops),
            ("folded", self.folded),
            ("strided", self.strided),
            ("scattered", self.scattered),
            ("attention_flops", self.attention_flops),
            ("near_bytes", self.near_bytes),
            ("shared_bytes", self.shared_bytes),
            ("far_bytes", self.far_bytes),
            ("launch_seconds", self.launch_seconds),
            ("hop_seconds", self.hop_seconds),
            ("hop_bytes", self.hop_bytes),
            ("feed_seconds", self.feed_seconds),
            ("feed_bytes", self.feed_bytes),
            ("step_seconds", self.step_seconds),
        ];
        all.into_iter().find(|(_, x)| !(x.is_finite() && *x > 0.0)).map(|(name, _)| name)
    }
}
