//! One model on one device and on several: data parallel, ZeRO-1, as a pipeline, and a checkpoint that moves between them. The
//! leaves of the strategy are fixed, the devices are not; so every run ends with the same bits, and a run that was begun on two
//! devices goes on on three as if nothing had happened.
//!
//! Run it: `cargo run --release --example several_devices`. It prints a line per run and ends with `the same bits everywhere`.

use thalweg::prelude::*;

const LEAVES: u16 = 6;

fn model(devices: usize, strategy: &Strategy) -> thalweg::Result<Model> {
    let g = Graph::new("digits").seed(0);
    let batch = g.dim("batch", 1..=512);
    let image = g.input("image", F32, shape![batch, 1, 8, 8]);
    let label = g.input("label", I32, shape![batch]);
    let logits = Sequential::new("body")
        .push("conv", Conv2d::new(16, 3).pad(1))
        .relu()
        .max_pool(2)
        .flatten()
        .dropout(0.3)
        .push("head", Linear::new(10))
        .call(image);
    let loss = cross_entropy(logits, label).mean().named("loss");
    g.program("train").outputs([loss]).update(AdamW::new(3e-3).minimize(loss));
    // One thread per device; `Cluster` may also name GPUs, and mix both.
    g.compile_with(&Cluster::cpus(devices), strategy)
}

fn main() -> thalweg::Result<()> {
    let (train, _) = thalweg::data::digits()?;
    let data = train.shuffle(0).batch(60).epochs(2);
    let mut digests = Vec::new();
    for name in ["data parallel", "ZeRO-1", "pipeline"] {
        for devices in [1, 2, 3] {
            let strategy = match name {
                "pipeline" => Strategy::pipeline(devices as u16),
                "ZeRO-1" => Strategy::data_parallel().shard_state(),
                _ => Strategy::data_parallel(),
            };
            let mut model = model(devices, &strategy.leaves(LEAVES))?;
            let mut loss = f64::NAN;
            for batch in model.batches(&data) {
                loss = model.run("train", &batch?.feeds())?.item("loss");
            }
            let (sent, digest) = (model.bytes_sent(), model.digest()?);
            println!(
                "{name:13} on {devices}: loss {loss:.4}, {:6.1} KB a step",
                sent as f64 / 1e3 / model.step() as f64
            );
            digests.push(digest);
        }
    }

    // Half of it on two devices, the rest on three: variables are saved whole, wherever they lie.
    let directory = std::env::temp_dir().join(format!("thalweg-several-{}", std::process::id()));
    let strategy = Strategy::data_parallel().leaves(LEAVES).shard_state();
    let mut half = model(2, &strategy)?;
    for batch in half.batches(&data).take(24) {
        half.run("train", &batch?.feeds())?;
    }
    half.save_and_wait(&directory)?;
    let mut rest = model(3, &strategy)?;
    rest.resume(&directory)?;
    for batch in rest.batches(&data) {
        rest.run("train", &batch?.feeds())?;
    }
    println!("begun on 2 and ended on 3, at step {}", rest.step());
    digests.push(rest.digest()?);
    std::fs::remove_dir_all(&directory).ok();

    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:#?}");
    println!("the same bits everywhere");
    Ok(())
}
