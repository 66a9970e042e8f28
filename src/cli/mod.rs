//! One verb of the command, one file.

pub(crate) mod allreduce;
pub(crate) mod demo;
pub(crate) mod devices;
pub(crate) mod doctor;
pub(crate) mod explain;
mod feeding;
pub(crate) mod graph;
pub(crate) mod inspect;
pub(crate) mod kit;
pub(crate) mod launch;
pub(crate) mod picture;
pub(crate) mod place;
pub(crate) mod plan;
pub(crate) mod profile;
pub(crate) mod trace;
pub(crate) mod verify;
pub(crate) mod worker;
mod workers;

use thalweg::prelude::*;

/// The demo's model: two convolutions, pooling, dropout and a linear layer; programs `train`, `eval` and `predict`.
pub(crate) fn digits_model(seed: u64, precision: Precision) -> Graph {
    let g = Graph::new("digits").seed(seed);
    let batch = g.dim("batch", 1..=512);
    let image = g.input("image", F32, shape![batch, 1, 8, 8]);
    let label = g.input("label", I32, shape![batch]);

    let body = Sequential::new("body")
        .push("conv1", Conv2d::new(16, 3).pad(1))
        .relu()
        .push("conv2", Conv2d::new(32, 3).pad(1))
        .relu()
        .max_pool(2)
        .flatten()
        .dropout(0.3)
        .push("head", Linear::new(10));
    let logits = body.call(image);
    let loss = cross_entropy(logits, label).mean().named("loss");
    let accuracy = logits.argmax(-1).eq(label).mean().named("accuracy");

    let mut optimizer = AdamW::new(3e-3);
    if precision == Precision::Mixed(F16) {
        optimizer = optimizer.loss_scale(LossScale::dynamic());
    }
    g.program("train").precision(precision).outputs([loss, accuracy]).update(optimizer.minimize(loss));
    g.program("eval").precision(precision).outputs([loss, accuracy]);
    g.program("predict").precision(precision).inputs([image]).outputs([logits.softmax(-1).named("probs")]);
    g
}
