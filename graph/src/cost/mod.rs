//! What a launch takes on named hardware, in seconds, before it has run. A kernel's text gives its [`Work`], sort by sort;
//! a device's [`Rates`] say how much of each sort it does in a second. No constant here speaks of a machine: rates are
//! measured, or stated in a file; where there are none, [`Rates::DEFAULT`] stands in and [`CostModel::measured`] says so.

mod rates;
mod work;

use std::time::Duration;

pub use rates::Rates;
pub use work::Work;

use crate::cluster::{Cluster, DeviceSpec};
use crate::id::{Arena, Id};
use crate::plan::simulate::Cost;
use crate::plan::{Channel, Endpoint, KernelId, Launch, Plan};

/// What the launches, copies and channels of one plan take. Kernels are priced once, when it is made.
#[derive(Clone, Debug)]
pub struct CostModel {
    /// By device of the plan.
    rates: Vec<Rates>,
    /// By device, whether its rates were measured or stated.
    known: Vec<bool>,
    /// By device and kernel.
    launches: Vec<Arena<KernelId, Duration>>,
    cluster: Cluster,
}

impl CostModel {
    /// For a plan over the devices of `cluster`, in their order; a device of the plan that the cluster has not counts as
    /// one of which nothing is known.
    pub fn new(plan: &Plan, cluster: &Cluster) -> Self {
        let spec = |device: usize| cluster.devices.get(device);
        let rates: Vec<Rates> =
            (0..plan.devices.len()).map(|d| spec(d).map_or(Rates::DEFAULT, DeviceSpec::rates)).collect();
        let known = (0..plan.devices.len()).map(|d| spec(d).is_some_and(|s| s.rates.is_some())).collect();
        let work: Vec<Work> = plan.kernels.values().iter().map(Work::of).collect();
        let priced = |rates: &Rates| work.iter().map(|w| duration(w.seconds(rates))).collect();
        let launches = rates.iter().map(priced).collect();
        Self { known, launches, cluster: cluster.clone(), rates }
    }
    /// Whether the rates of a device were measured or stated; otherwise they are a default, and predictions are of their
    /// order alone.
    pub fn measured(&self, device: usize) -> bool {
        self.known.get(device).copied().unwrap_or(false)
    }
    /// What a step costs besides what it does: threads are woken, and meet where bodies end.
    pub fn step(&self) -> Duration {
        let several = self.rates.len() > 1;
        let most = self.rates.iter().map(|r| r.step_seconds).fold(0.0, f64::max);
        if several { duration(most) } else { Duration::ZERO }
    }
    fn rates(&self, device: u16) -> &Rates {
        self.rates.get(usize::from(device)).unwrap_or(&Rates::DEFAULT)
    }
}

/// Never negative, never more than a plan's clock holds.
fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::from_secs(u32::MAX.into()))
}

impl Cost for CostModel {
    fn launch(&self, device: u16, launch: &Launch) -> Duration {
        let priced = self.launches.get(usize::from(device)).and_then(|all| all.values().get(launch.kernel.index()));
        priced.copied().unwrap_or_default()
    }
    fn copy(&self, device: u16, bytes: u64) -> Duration {
        let rates = self.rates(device);
        duration(rates.launch_seconds + 2.0 * bytes as f64 / rates.bytes_per_second(2 * bytes))
    }
    fn channel(&self, channel: &Channel) -> (Duration, Duration) {
        let bytes = channel.ty.size_bytes() as f64;
        let end = |end| match end {
            Endpoint::Device(d) => Some(d),
            Endpoint::Driver => None,
        };
        match (end(channel.from), end(channel.to)) {
            (Some(from), Some(to)) => {
                let (latency, rate) = self.cluster.way(from, to);
                (duration(latency), duration(bytes / rate))
            }
            // The caller's: what is large is lent, what is small is copied in no time.
            (Some(one), None) | (None, Some(one)) => {
                let rates = self.rates(one);
                (duration(rates.feed_seconds), duration(bytes / rates.feed_bytes))
            }
            (None, None) => (Duration::ZERO, Duration::ZERO),
        }
    }
}
