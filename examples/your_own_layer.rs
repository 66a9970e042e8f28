//! Layers of your own, beside the library's: squeeze-and-excitation (Hu et al., *Squeeze-and-Excitation Networks*, CVPR
//! 2018), which is made of other layers, and a residual branch whose channels are scaled by a parameter of its own
//! (LayerScale: Touvron et al., *Going deeper with Image Transformers*, ICCV 2021). A layer is a function of a tensor: it
//! has no name, no state and no backward pass; variables are named by the scopes it is called in.
//!
//! Run it: `cargo run --release --example your_own_layer`. It trains on handwritten digits and prints the variables, an
//! accuracy near 97 %, and how far the scales have moved.

use thalweg::prelude::*;

/// Weighs channels by what the whole image looks like: `x · sigmoid(expand(relu(squeeze(mean of each plane))))`, for images
/// `[N, C, H, W]`. Layers `squeeze` (to `C / narrower` channels) and `expand`, convolutions of images of one pixel.
struct SqueezeExcite {
    narrower: u64,
}

impl Layer for SqueezeExcite {
    // So that a mistake of a user of this layer is reported at the user's line.
    #[track_caller]
    fn call<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        let (g, wide) = (x.graph(), channels(x));
        let planes = x.mean_keep(&[-2, -1]);
        let narrow = g.scope("squeeze", || Conv2d::new((wide / self.narrower).max(1), 1).call(planes)).relu();
        x * g.scope("expand", || Conv2d::new(wide, 1).call(narrow)).sigmoid()
    }
}

/// `x + scale · branch(x)`, where the branch keeps the shape of images `[N, C, H, W]`. Parameter `scale` `[C, 1, 1]`, which
/// begins at 0.1: the branch joins as it learns to be useful.
struct ScaledResidual<L> {
    branch: L,
}

impl<L: Layer> Layer for ScaledResidual<L> {
    #[track_caller]
    fn call<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        let scale = x.parameter("scale", F32, [channels(x), 1, 1], Init::Constant(0.1));
        x + scale * self.branch.call(x)
    }
}

/// The extent of the axis of channels; 1 where there is none: the op that needs one says what is wrong.
fn channels(x: Tensor<'_>) -> u64 {
    x.shape().get(1).and_then(|c| c.fixed()).unwrap_or(1)
}

fn main() -> thalweg::Result<()> {
    let g = Graph::new("digits").seed(0);
    let batch = g.dim("batch", 1..=512);
    let image = g.input("image", F32, shape![batch, 1, 8, 8]);
    let label = g.input("label", I32, shape![batch]);

    let branch = Sequential::new("branch")
        .push("conv", Conv2d::new(16, 3).pad(1))
        .relu()
        .push("excite", SqueezeExcite { narrower: 4 });
    let body = Sequential::new("body")
        .push("conv", Conv2d::new(16, 3).pad(1))
        .relu()
        .push("block", ScaledResidual { branch })
        // What is used once needs no type: a closure with parameters is a layer, too.
        .push("gate", layer(|x| x * Conv2d::new(16, 1).call(x).sigmoid()))
        .max_pool(2)
        .flatten()
        .dropout(0.3)
        .push("head", Linear::new(10));
    let logits = body.call(image);
    let loss = cross_entropy(logits, label).mean().named("loss");
    let accuracy = logits.argmax(-1).eq(label).mean().named("accuracy");
    g.program("train").outputs([loss]).update(AdamW::new(3e-3).minimize(loss));
    g.program("eval").outputs([accuracy]);

    let mut model = g.compile(&Cluster::local())?;
    for variable in model.graph().state.values().iter().filter(|v| v.name.starts_with("body.")) {
        println!("{:40} {}", variable.name, variable.ty);
    }
    let (train, test) = thalweg::data::digits()?;
    for batch in model.batches(&train.shuffle(1).batch(64).epochs(30)) {
        model.run("train", &batch?.feeds())?;
    }
    let accuracy = model.run("eval", &test.feeds())?.item("accuracy");
    let scale = model.get("body.block.scale")?.to_f64();
    let (low, high) = scale.iter().fold((f64::MAX, f64::MIN), |(l, h), s| (l.min(*s), h.max(*s)));
    println!("accuracy {:.2} %; the scales, 0.1 at first, are between {low:.2} and {high:.2}", 100.0 * accuracy);
    assert!(accuracy >= 0.95 && high - low > 0.01);
    Ok(())
}
