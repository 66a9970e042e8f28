//! What a loader promises: the same batches in the same order on any number of threads, threads that end with their
//! iterator, errors at the batch they belong to, and cursors that go on exactly where committed steps ended.

#![allow(missing_docs)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use thalweg_data::{At, DataError, Dataset, Loader, Source, Subset};
use thalweg_graph::{Array, TensorType};
use thalweg_runtime::{Cursor, Cursors};

fn numbers(n: i32) -> Dataset {
    let x: Vec<i32> = (0..n).collect();
    let y: Vec<f32> = (0..2 * n).map(|i| i as f32 / 2.0).collect();
    Dataset::new([("x", Array::from_slice(&[n as u64], &x)), ("y", Array::from_slice(&[n as u64, 2], &y))])
        .expect("this is sound")
}

fn rows(loader: &Loader) -> Vec<Vec<i32>> {
    loader.iter().map(|batch| batch.expect("this is sound")["x"].as_slice::<i32>().to_vec()).collect()
}

/// A source that fails, panics or waits where it is told to, and counts what it reads.
#[derive(Clone)]
struct Scripted {
    data: Dataset,
    bad: Option<usize>,
    panics: bool,
    reads: Arc<AtomicUsize>,
}

impl Scripted {
    fn new(n: i32, bad: Option<usize>, panics: bool) -> Self {
        Self { data: numbers(n), bad, panics, reads: Arc::default() }
    }
}

impl Source for Scripted {
    fn fields(&self) -> Vec<(String, TensorType)> {
        self.data.fields()
    }
    fn len(&self) -> usize {
        self.data.len()
    }
    fn fingerprint(&self) -> thalweg_data::Result<[u8; 32]> {
        self.data.fingerprint()
    }
    fn read(&self, rows: &[usize]) -> thalweg_data::Result<Dataset> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.bad.is_some_and(|bad| rows.contains(&bad)) {
            assert!(!self.panics, "sample {:?} is cursed", self.bad);
            return Err(DataError::Other(format!("sample {:?} cannot be read", self.bad)));
        }
        self.data.read(rows)
    }
}

#[test]
fn batches_are_the_same_on_any_number_of_threads() {
    // Early batches take longest, so that threads finish out of order.
    let loader = numbers(103).shuffle(7).batch(10).epochs(4).map(|batch, at| {
        (0..(40 - at.first.min(40)) * 2000).for_each(|_| std::hint::spin_loop());
        Ok(batch)
    });
    let bytes = |loader: &Loader| -> Vec<Vec<Vec<u8>>> {
        let all = |b: Dataset| b.feeds().iter().map(|(_, a)| a.bytes().to_vec()).collect();
        loader.iter().map(|batch| all(batch.unwrap())).collect()
    };
    let here = bytes(&loader);
    assert_eq!(here.len(), 44);
    for (threads, ahead) in [(1, 1), (2, 1), (3, 2), (8, 50)] {
        assert_eq!(bytes(&loader.clone().prefetch(threads).ahead(ahead)), here, "{threads} threads, {ahead} ahead");
    }
}

#[test]
fn the_order_is_that_of_a_plain_pass_and_differs_by_seed_and_pass() {
    let data = numbers(50);
    let passes: Vec<_> = (0..2).flat_map(|pass| data.batches(8, 3, pass)).map(|b| b["x"].clone()).collect();
    let loaded: Vec<_> = data.shuffle(3).batch(8).epochs(2).iter().map(|b| b.unwrap()["x"].clone()).collect();
    assert_eq!(passes, loaded);
    let (first, second) = (rows(&data.shuffle(3).batch(50)), rows(&data.shuffle(4).batch(50)));
    assert_ne!(first, second);
    assert_eq!(rows(&data.batch(20)), [(0..20).collect::<Vec<_>>(), (20..40).collect(), (40..50).collect()]);
    assert_eq!(rows(&data.batch(20).drop_last()).len(), 2);
    assert_eq!((data.batch(20).steps_per_pass(), data.batch(20).drop_last().steps_per_pass()), (3, 2));
}

#[test]
fn fields_stay_together() {
    for batch in numbers(31).shuffle(1).batch(4).prefetch(2).iter() {
        let batch = batch.unwrap();
        for (x, y) in batch["x"].as_slice::<i32>().iter().zip(batch["y"].as_slice::<f32>().chunks_exact(2)) {
            assert_eq!(y, [*x as f32, *x as f32 + 0.5]);
        }
    }
}

#[test]
fn an_error_comes_at_its_batch_and_ends_the_batches() {
    for threads in [0, 1, 4] {
        let source = Scripted::new(40, Some(25), false);
        let results: Vec<_> = source.batch(10).epochs(2).prefetch(threads).iter().collect();
        let good = results.iter().take_while(|r| r.is_ok()).count();
        assert_eq!((good, results.len()), (2, 3), "{threads} threads");
        assert_eq!(results[2].as_ref().unwrap_err().to_string(), "sample Some(25) cannot be read");
    }
}

#[test]
fn a_panic_comes_at_its_batch_and_never_hangs() {
    for threads in [0, 1, 4] {
        let source = Scripted::new(40, Some(25), true);
        let mut batches = source.batch(10).prefetch(threads).iter();
        assert!(batches.next().is_some_and(|b| b.is_ok()) && batches.next().is_some_and(|b| b.is_ok()));
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| batches.next())).unwrap_err();
        assert_eq!(panic.downcast_ref::<String>().unwrap(), "sample Some(25) is cursed", "{threads} threads");
        if threads > 0 {
            assert!(batches.by_ref().all(|b| b.is_ok()), "whoever goes on gets what was read, and an end");
        }
    }
}

/// A source that claims more samples than an order of them has room for.
#[derive(Clone)]
struct Endless(Dataset);

impl Source for Endless {
    fn fields(&self) -> Vec<(String, TensorType)> {
        self.0.fields()
    }
    fn len(&self) -> usize {
        usize::MAX
    }
    fn fingerprint(&self) -> thalweg_data::Result<[u8; 32]> {
        self.0.fingerprint()
    }
    fn read(&self, _: &[usize]) -> thalweg_data::Result<Dataset> {
        Ok(self.0.clone())
    }
}

#[test]
fn an_order_that_no_memory_holds_panics_in_the_caller_and_never_hangs() {
    let endless = Endless(numbers(1));
    assert_eq!(endless.batch(1).prefetch(2).iter().take(3).count(), 3, "in order there is no list");
    for threads in [0, 2] {
        let mut batches = endless.shuffle(1).batch(1).prefetch(threads).iter();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(batches.next()))).unwrap_err();
    }
}

/// Threads hold the source; once they have ended, only the test does.
#[test]
fn threads_end_with_their_iterator_and_read_no_further_ahead_than_told() {
    for threads in [1, 3] {
        let source = Scripted::new(1000, None, false);
        let loader = source.batch(1).prefetch(threads).ahead(5);
        let mut batches = loader.iter();
        (0..3).for_each(|_| drop(batches.next().unwrap().unwrap()));
        drop(batches);
        let reads = source.reads.load(Ordering::SeqCst);
        assert!((3..=8).contains(&reads), "three given, at most five more read: {reads}");
        drop(loader);
        assert_eq!(Arc::strong_count(&source.reads), 1, "no thread holds the source");
    }
}

/// Both threads are inside `map` at once, or the barrier would never open.
#[test]
fn threads_read_at_the_same_time() {
    let barrier = Arc::new(Barrier::new(2));
    let loader = numbers(8).batch(1).prefetch(2).map(move |batch, _| {
        barrier.wait();
        Ok(batch)
    });
    assert_eq!(loader.iter().count(), 8);
}

#[test]
fn maps_run_in_turn_and_know_their_place() {
    let loader = numbers(10).shuffle(5).batch(4).epochs(2);
    let places = loader.map(|batch, at| {
        let x = Array::from_slice(&[3], &[at.seed, at.pass, at.first].map(|n| n as i32));
        assert!(batch.len() <= 4);
        Dataset::new([("x", x)])
    });
    let doubled = places.clone().map(|batch, _| {
        let twice: Vec<i32> = batch["x"].as_slice::<i32>().iter().map(|x| 2 * x).collect();
        Dataset::new([("x", Array::from_slice(&[3], &twice))])
    });
    assert_eq!(rows(&places), [[5, 0, 0], [5, 0, 4], [5, 0, 8], [5, 1, 0], [5, 1, 4], [5, 1, 8]]);
    assert_eq!(rows(&doubled)[4], [10, 2, 8]);
}

fn cursor_after(loader: &Loader, batches: usize) -> Cursors {
    let cursors = Cursors::default();
    for batch in loader.resume(&cursors).take(batches) {
        batch.expect("this is sound");
        cursors.commit();
    }
    cursors
}

#[test]
fn from_any_cursor_the_rest_is_the_rest_with_threads_or_without() {
    let loader = numbers(23).shuffle(9).batch(5).epochs(3);
    let all = rows(&loader);
    for done in 0..=all.len() {
        for threads in [0, 2] {
            let loader = loader.clone().prefetch(threads);
            let cursors = cursor_after(&loader, done);
            let rest: Vec<_> = loader.resume(&cursors).map(|b| b.unwrap()["x"].as_slice::<i32>().to_vec()).collect();
            assert_eq!(rest, all[done..], "after {done}, {threads} threads");
        }
    }
}

/// Read ahead is not consumed, and neither is handed out.
#[test]
fn what_no_step_learned_from_comes_again() {
    let loader = numbers(20).batch(5).prefetch(2);
    let cursors = Cursors::default();
    let mut batches = loader.resume(&cursors);
    batches.next().unwrap().unwrap();
    cursors.commit();
    batches.next().unwrap().unwrap();
    drop(batches);
    let again = loader.resume(&cursors).next().unwrap().unwrap();
    assert_eq!(again["x"].as_slice::<i32>(), [5, 6, 7, 8, 9]);
}

#[test]
fn a_cursor_may_go_on_with_another_batch_size_or_more_passes() {
    let loader = numbers(20).shuffle(2).batch(5);
    let cursors = cursor_after(&loader, 3);
    let rest: Vec<i32> =
        loader.clone().batch(2).resume(&cursors).flat_map(|b| b.unwrap()["x"].as_slice::<i32>().to_vec()).collect();
    assert_eq!(rest, rows(&loader)[3]);
    let cursors = cursor_after(&loader, 4);
    assert_eq!(cursors.get("data").map(|c| (c.pass, c.next)), Some((1, 0)));
    assert_eq!(loader.resume(&cursors).count(), 0, "the one pass is over");
    assert_eq!(loader.epochs(3).resume(&cursors).count(), 8);
}

#[test]
fn cursors_of_other_data_or_another_order_are_refused_with_what_to_do() {
    let refused = |loader: &Loader, cursors: &Cursors| {
        let mut batches = loader.resume(cursors);
        let error = batches.next().unwrap().unwrap_err();
        assert!(batches.next().is_none() && matches!(error, DataError::Cursor { .. }));
        error.to_string()
    };
    let (data, other) = (numbers(20), numbers(21));
    let shuffled = cursor_after(&data.shuffle(4).batch(5).named("train"), 2);
    let plain = cursor_after(&data.batch(5).named("train"), 2);
    let start = "source `train` cannot go on from where it stood (pass 0, sample 10): ";
    let end = "or start afresh under another name";
    assert_eq!(
        refused(&data.shuffle(5).batch(5).named("train"), &shuffled),
        format!("{start}it was shuffled with seed 4, and now with 5: shuffle with seed 4, {end}")
    );
    assert_eq!(
        refused(&data.batch(5).named("train"), &shuffled),
        format!("{start}it was shuffled with seed 4, and now is not: shuffle with seed 4, {end}")
    );
    assert_eq!(
        refused(&data.shuffle(4).batch(5).named("train"), &plain),
        format!("{start}it was read in order, and now is shuffled: do not shuffle, {end}")
    );
    for (loader, cursors) in [(other.shuffle(4), &shuffled), (other.batch(5), &plain)] {
        let text = refused(&loader.batch(5).named("train"), cursors);
        assert!(text.starts_with(&format!("{start}the data is not the same (fingerprint ")), "{text}");
    }
    let beyond = Cursor { next: 21, ..shuffled.get("train").unwrap() };
    shuffled.restore([("train".to_string(), beyond)].into());
    let text = refused(&data.shuffle(4).batch(5).named("train"), &shuffled);
    assert!(text.ends_with("there are only 20 samples: the checkpoint is damaged"), "{text}");
}

#[test]
fn settings_that_make_no_sense_say_so() {
    let refused = |loader: Loader| loader.iter().next().unwrap().unwrap_err().to_string();
    assert_eq!(refused(numbers(5).shuffle(1)), "say how many samples a step takes, such as 64");
    assert_eq!(refused(numbers(5).batch(0)), "a batch needs samples: one of 0 has none");
    assert_eq!(refused(numbers(0).batch(2).epochs(u64::MAX)), "source `data` has no samples");
    assert_eq!(
        refused(numbers(5).batch(6).drop_last().epochs(u64::MAX)),
        "without what does not fill a batch of 6, nothing is left of 5 samples: take smaller batches, or keep the last"
    );
}

#[test]
fn fingerprints_tell_data_apart() {
    let print = |data: &dyn Source| data.fingerprint().unwrap();
    let data = numbers(6);
    assert_eq!(print(&data), print(&numbers(6)));
    let renamed = Dataset::new([("x", data["x"].clone()), ("z", data["y"].clone())]).unwrap();
    let reshaped = Dataset::new([("x", data["x"].clone()), ("y", data["y"].clone().reshaped(&[6, 2, 1]))]).unwrap();
    let mut one_bit = data["y"].clone();
    one_bit.bytes_mut()[3] ^= 1;
    let changed = Dataset::new([("x", data["x"].clone()), ("y", one_bit)]).unwrap();
    let subset = |rows: &[usize]| -> Subset { data.subset(rows.to_vec()).unwrap() };
    let all: Vec<[u8; 32]> = [
        &data as &dyn Source,
        &renamed,
        &reshaped,
        &changed,
        &data.pick(&["y", "x"]).unwrap(),
        &data.pick(&["x"]).unwrap(),
        &subset(&[0, 1, 2, 3, 4, 5]),
        &subset(&[1, 0]),
        &subset(&[0, 1]),
    ]
    .map(print)
    .to_vec();
    for (i, a) in all.iter().enumerate() {
        assert!(!all[..i].contains(a), "number {i}");
    }
}

#[test]
fn parts_share_nothing_and_leave_nothing_out() {
    let data = numbers(30);
    let (train, test) = data.split(24, 1).unwrap();
    let mut all = rows(&train.batch(24)).concat();
    assert_eq!((train.len(), test.len()), (24, 6));
    all.extend(rows(&test.batch(6)).concat());
    assert_ne!(all, (0..30).collect::<Vec<_>>(), "at random");
    all.sort_unstable();
    assert_eq!(all, (0..30).collect::<Vec<_>>());
    let error = |e: DataError| e.to_string();
    assert_eq!(error(data.split(31, 1).err().unwrap()), "cannot split off 31 samples: the source has 30");
    assert_eq!(error(data.subset(vec![30]).err().unwrap()), "there is no sample 30: the source has 30, counted from 0");
    assert_eq!(error(test.read(&[6]).err().unwrap()), "there is no sample 6: the source has 6, counted from 0");
    assert_eq!(error(data.read(&[30]).err().unwrap()), "there is no sample 30: the source has 30, counted from 0");
}

#[test]
fn fields_that_do_not_fit_together_are_refused() {
    let refused = |fields: Vec<(&str, Array)>| Dataset::new(fields).unwrap_err().to_string();
    let of = |n: usize| Array::from_slice(&[n as u64], &vec![0f32; n]);
    assert_eq!(
        refused(vec![("x", of(3)), ("y", of(4))]),
        "`y` has 4 rows, `x` has 3: the fields of a data set have as many"
    );
    assert_eq!(
        refused(vec![("x", Array::scalar(1f32))]),
        "`x` is a single number: a field needs a first axis, one entry per sample"
    );
    assert_eq!(refused(vec![("x", of(3)), ("x", of(3))]), "there are two fields `x`");
    assert_eq!(
        numbers(3).field("xx").unwrap_err().to_string(),
        "there is no field `xx`; there are `x`, `y`; did you mean `x`?"
    );
}

#[test]
fn an_error_of_the_users_own_comes_back_with_its_type() {
    #[derive(Debug, thiserror::Error)]
    #[error("batch at {0} is dull")]
    struct Dull(u64);
    for threads in [0, 2] {
        let dull = |batch, at: At| if at.first == 4 { Err(DataError::own(Dull(at.first))) } else { Ok(batch) };
        let mut batches = numbers(8).batch(2).prefetch(threads).map(dull).iter();
        assert!(batches.by_ref().take(2).all(|b| b.is_ok()));
        let error = batches.next().expect("the third").expect_err("it is dull");
        assert_eq!(error.to_string(), "batch at 4 is dull");
        let DataError::Own(own) = &error else { panic!("{error:?}") };
        assert_eq!(own.0.downcast_ref::<Dull>().map(|d| d.0), Some(4));
        assert!(error == error.clone() && error != DataError::own(Dull(4)) && batches.next().is_none());
    }
}
