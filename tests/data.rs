//! Training from data, end to end: a model learns from files, stops anywhere, and a fresh one goes on from its cursor to
//! the same bits.

use std::path::PathBuf;

use thalweg::data::{Csv, DataError, Dataset, ImageFolder, Images, Loader, npz};
use thalweg::prelude::*;

/// A small network on the digits.
fn digits_net() -> Model {
    let g = Graph::new("net").seed(1);
    let batch = g.dim("batch", 1..=512);
    let (image, label) = (g.input("image", F32, shape![batch, 1, 8, 8]), g.input("label", I32, shape![batch]));
    let body =
        Sequential::new("body").flatten().push("a", Linear::new(16)).relu().dropout(0.2).push("b", Linear::new(10));
    let loss = cross_entropy(body.call(image), label).mean().named("loss");
    g.program("train").outputs([loss]).update(AdamW::new(3e-3).minimize(loss));
    g.program("eval").outputs([loss]);
    g.compile(&Cluster::cpu(1)).expect("it compiles")
}

fn digits() -> Dataset {
    thalweg::data::digits().expect("the file is sound").0
}

/// Variables and cursors, as a checkpoint holds them, in a fresh model.
fn restored(from: &mut Model) -> Model {
    let mut to = digits_net();
    let names: Vec<_> = to.session().graph().state.values().iter().map(|v| v.name.clone()).collect();
    for name in names {
        let value = from.get(&name).expect("both have it");
        to.set(&name, &value).expect("of the same type");
    }
    to.session().cursors().restore(from.session().cursors().committed());
    to
}

fn train(model: &mut Model, data: &Loader, steps: usize) {
    for batch in model.batches(data).take(steps) {
        model.run("train", &batch.expect("digits are sound").feeds()).expect("it runs");
    }
}

/// 1,437 samples, 100 a step: 15 steps a pass, the last of 37.
fn loader() -> Loader {
    digits().shuffle(5).batch(100).epochs(3)
}

#[test]
fn a_run_stopped_anywhere_goes_on_to_the_same_bits() {
    let mut whole = digits_net();
    train(&mut whole, &loader(), usize::MAX);
    assert_eq!(whole.step(), 45);
    let digest = whole.digest().expect("variables");
    for (steps, threads) in [(0, 0), (1, 2), (14, 1), (15, 2), (29, 0), (44, 3), (45, 2)] {
        let mut first = digits_net();
        train(&mut first, &loader().prefetch(threads), steps);
        let mut second = restored(&mut first);
        assert_eq!(second.step(), steps as u64);
        train(&mut second, &loader().prefetch(2), usize::MAX);
        assert_eq!(second.digest().expect("variables"), digest, "after {steps} steps, {threads} threads");
    }
    let mut other = digits_net();
    train(&mut other, &digits().shuffle(6).batch(100).epochs(3), usize::MAX);
    assert_ne!(other.digest().expect("variables"), digest, "another order is another model");
}

#[test]
fn a_step_given_up_gets_its_batch_again_and_looking_does_not_count() {
    let mut whole = digits_net();
    train(&mut whole, &loader(), usize::MAX);
    let mut model = digits_net();
    let (abort, data, mut given_up) = (model.abort_flag(), loader(), 0);
    while model.step() < 45 {
        for batch in model.batches(&data.clone().prefetch(2)) {
            let batch = batch.expect("digits are sound");
            model.run("eval", &batch.feeds()).expect("it runs");
            if model.step() % 7 == 3 && given_up * 7 < model.step() {
                abort.raise();
                model.run("train", &batch.feeds()).expect_err("it was given up");
                abort.clear();
                given_up += 1;
                break;
            }
            model.run("train", &batch.feeds()).expect("it runs");
        }
    }
    assert!(given_up >= 5, "{given_up}");
    assert_eq!(model.digest().expect("variables"), whole.digest().expect("variables"));
}

#[test]
fn a_checkpoint_of_other_data_is_refused_before_a_step() {
    let mut model = digits_net();
    train(&mut model, &loader(), 4);
    let other = thalweg::data::digits().expect("sound").1.shuffle(5).batch(100);
    let mut batches = model.batches(&other);
    assert!(matches!(batches.next(), Some(Err(DataError::Cursor { .. }))));
    let text = thalweg::Error::from(model.batches(&other).next().expect("an item").expect_err("refused")).to_string();
    assert!(
        text.starts_with("source `data` cannot go on from where it stood (pass 0, sample 400): the data is not"),
        "{text}"
    );
    assert!(model.batches(&other.named("test")).next().is_some_and(|b| b.is_ok()), "under another name it begins");
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("runtime/data/tests/fixtures").join(name)
}

#[test]
fn a_model_learns_from_a_table() -> thalweg::Result<()> {
    let rows: Vec<String> =
        (0..60).map(|i| format!("{},{},{}\n", i % 6, i % 10, if i % 6 > 2 { "up" } else { "down" })).collect();
    let table = format!("a,b,way\n{}", rows.concat());
    let data = Csv::new()
        .numbers("x", F32, ["a", "b"])
        .classes("y", "way", ["down", "up"])
        .parse("t.csv", table.as_bytes())?;
    let g = Graph::new("table").seed(0);
    let n = g.dim("n", 1..=64);
    let (x, y) = (g.input("x", F32, shape![n, 2]), g.input("y", I32, shape![n]));
    let logits = Sequential::new("body").push("a", Linear::new(16)).relu().push("b", Linear::new(2)).call(x);
    let loss = cross_entropy(logits, y).mean().named("loss");
    let accuracy = logits.argmax(-1).eq(y).mean().named("accuracy");
    g.program("train").outputs([loss]).update(AdamW::new(1e-2).minimize(loss));
    g.program("eval").outputs([accuracy]);
    let mut model = g.compile(&Cluster::cpu(1))?;
    for batch in model.batches(&data.shuffle(1).batch(16).epochs(100).prefetch(1)) {
        model.run("train", &batch?.feeds())?;
    }
    assert_eq!(model.step(), 400);
    let mut right = 0.0;
    for batch in data.batch(25).iter() {
        let batch = batch?;
        right += model.run("eval", &batch.feeds())?.item("accuracy") * batch.len() as f64;
    }
    assert!(right >= 59.0, "{right} of 60");
    Ok(())
}

#[test]
fn arrays_of_numpy_and_folders_of_pictures_are_fed_as_they_are() -> thalweg::Result<()> {
    let g = Graph::new("sums");
    let n = g.dim("n", 1..=8);
    let (x, y) = (g.input("x", F32, shape![n, 3]), g.input("y", I32, shape![n]));
    let (image, label) = (g.input("image", F32, shape![n, 3, 2, 3]), g.input("label", I32, shape![n]));
    g.program("arrays").inputs([x, y]).outputs([x.sum().named("x"), y.sum().named("y")]);
    g.program("pictures").inputs([image, label]).outputs([image.sum().named("image"), label.sum().named("label")]);
    let mut model = g.compile(&Cluster::cpu(1))?;
    let arrays = Dataset::new(npz::read(fixture("packed.npz"))?)?; // `y` is i64, and narrowed
    let out = model.run("arrays", &arrays.feeds())?;
    assert_eq!((out.item("x"), out.item("y")), (26.25, 2.0));
    let pictures = ImageFolder::open(fixture("pictures"), Images::rgb().resize(2, 3))?;
    for batch in pictures.batch(6).prefetch(1).iter() {
        let out = model.run("pictures", &batch?.feeds())?;
        assert_eq!(out.item("label"), 6.0);
        assert!(out.item("image") > 1.0);
    }
    Ok(())
}
