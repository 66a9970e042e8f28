//! Data that workers read themselves: what each reads, and when; the numbers of what is fed; and what happens where it cannot be
//! read, or is not the same everywhere. What is read is made up here: files are the business of others.

#![allow(missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::*;
use thalweg_distributed::HostError;
use thalweg_graph::DType::{F32, I32};
use thalweg_graph::kernel::BufferType;
use thalweg_graph::{Array, Strategy};
use thalweg_runtime::source::{Below, Facts, Opened, Opener, Reader, Samples, SourceSpec};
use thalweg_runtime::{DeviceError, RunError, Session};

/// Samples of the model's batches, one batch after the other.
const BATCHES: u64 = 6;
/// No sample.
const NONE: u64 = u64::MAX;

/// A data set that notes what is read of it.
#[derive(Debug)]
struct Made {
    facts: Facts,
    /// Places, and fields.
    reads: Mutex<Vec<(Vec<u64>, Vec<usize>)>>,
    /// A sample that cannot be read, as long as it is here.
    broken: AtomicU64,
}

impl Made {
    fn new(fingerprint: u8) -> Arc<Self> {
        Self::of(fingerprint, 8 * BATCHES)
    }
    fn of(fingerprint: u8, len: u64) -> Arc<Self> {
        let field = |name: &str, dtype, shape: &[u64]| (name.to_string(), BufferType { dtype, shape: shape.into() });
        let fields = vec![field("x", F32, &[40]), field("label", I32, &[])];
        let facts = Facts { len, fingerprint: [fingerprint; 32], fields };
        Arc::new(Self { facts, reads: Mutex::default(), broken: AtomicU64::new(NONE) })
    }
    fn noted(&self) -> Vec<(Vec<u64>, Vec<usize>)> {
        self.reads.lock().expect("no panic").clone()
    }
}

impl Reader for Made {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(&self, _: Option<u64>, _: u64, places: &[Range<u64>], fields: &[usize]) -> Result<Vec<Array>, String> {
        let places: Vec<u64> = places.iter().cloned().flatten().collect();
        let broken = self.broken.load(Ordering::SeqCst);
        if places.contains(&broken) {
            return Err(format!("sample {broken} is cursed"));
        }
        self.reads.lock().expect("no panic").push((places.clone(), fields.to_vec()));
        let n = places.len() as u64;
        let one = |field: &usize| {
            let ty = &self.facts.fields[*field].1;
            let shape: Vec<u64> = std::iter::once(n).chain(ty.shape.iter().copied()).collect();
            let mut out = Array::zeros(ty.dtype, &shape);
            for (place, to) in places.iter().zip(out.bytes_mut().chunks_exact_mut(ty.size_bytes() as usize)) {
                let at = (place % 8) as usize * to.len();
                to.copy_from_slice(&batch(place / 8)[*field].bytes()[at..at + to.len()]);
            }
            out
        };
        Ok(fields.iter().map(one).collect())
    }
}

/// Opens it, whatever is asked for.
#[derive(Debug)]
struct Shelf(Arc<Made>);
impl Opener for Shelf {
    fn open(&self, _: Option<&Below>, how: &str) -> Result<Arc<dyn Reader>, String> {
        if how == "nothing" { Err("there is no such thing".into()) } else { Ok(self.0.clone()) }
    }
}

type Threads = Vec<JoinHandle<Result<(), HostError>>>;

/// A session over workers that read what is made up for each.
fn reading(strategy: &Strategy, made: &[Arc<Made>]) -> (Session, Threads) {
    let opener = |rank: usize| Some(Arc::new(Shelf(made[rank].clone())) as Arc<dyn Opener>);
    session_reading(made.len(), strategy, Arc::new(open), Box::new(|text| panic!("{text}")), &opener)
}

fn spec(how: &str) -> SourceSpec {
    SourceSpec { root: String::new(), path: how.into(), how: how.into() }
}

fn samples(k: u64) -> Samples {
    Samples { seed: None, pass: 0, first: 8 * k, count: 8 }
}

/// Batch `k`, as it is described.
fn drawn(session: &mut Session, opened: &Arc<Opened>, k: u64) -> Result<f64, RunError> {
    let next = (k + 1 < BATCHES).then(|| samples(k + 1));
    let batch = opened.batch(samples(k), next);
    session.run("train", &batch).map(|out| out.item("loss"))
}

/// The samples of each worker's leaves, once, and not one more.
#[test]
fn workers_read_the_samples_of_their_leaves() {
    let dp = Strategy::data_parallel().leaves(4);
    for (strategy, of_each) in [
        (dp.clone(), vec![(0..8, vec![0, 1])]),
        (dp.clone(), vec![(0..4, vec![0, 1]), (4..8, vec![0, 1])]),
        (dp.shard_state(), vec![(0..2, vec![0, 1]), (2..4, vec![0, 1]), (4..6, vec![0, 1]), (6..8, vec![0, 1])]),
        // The first stage has the input, the last one the label.
        (Strategy::pipeline(2), vec![(0..8, vec![0]), (0..8, vec![1])]),
    ] {
        let made: Vec<Arc<Made>> = of_each.iter().map(|_| Made::new(1)).collect();
        let (mut there, threads) = reading(&strategy, &made);
        let mut here = here(made.len(), &strategy);
        let opened = there.open_source(&spec("it")).expect("it opens");
        assert_eq!(opened.facts(), &made[0].facts);
        for k in 0..BATCHES {
            let (a, b) = (drawn(&mut there, &opened, k).expect("it runs"), step(&mut here, k).expect("it runs"));
            assert_eq!(a.to_bits(), b.to_bits(), "{strategy}, step {k}");
        }
        assert_eq!(there.digest(), here.digest(), "{strategy}");
        assert_eq!(there.fed_bytes(), 0, "{strategy}");
        for (made, (places, fields)) in made.iter().zip(&of_each) {
            let mut read: BTreeMap<(u64, usize), usize> = BTreeMap::new();
            for (places, fields) in made.noted() {
                let each = places.iter().flat_map(|place| fields.iter().map(move |field| (*place, *field)));
                each.for_each(|of| *read.entry(of).or_default() += 1);
            }
            let want = (0..BATCHES).flat_map(|k| places.clone().map(move |place| 8 * k + place));
            let want = want.flat_map(|place| fields.iter().map(move |field| ((place, *field), 1)));
            assert_eq!(read, want.collect(), "{strategy}");
        }
        // By arrays, all of it passes through here.
        step(&mut there, 0).expect("it runs");
        assert!(there.fed_bytes() >= 8 * 41 * 4, "{}", there.fed_bytes());
        leave(there, threads);
    }
}

/// What comes next is read while nothing is asked for, and a step costs what it costs.
#[test]
fn the_next_batch_is_read_ahead() {
    let made = [Made::new(1), Made::new(1)];
    let (mut session, threads) = reading(&Strategy::data_parallel(), &made);
    let opened = session.open_source(&spec("it")).expect("it opens");
    drawn(&mut session, &opened, 0).expect("it runs");
    let before = session.control_messages();
    for k in 1..BATCHES {
        let started = Instant::now();
        while made.iter().any(|made| made.noted().len() as u64 <= k) {
            assert!(started.elapsed() < Duration::from_secs(20), "batch {k} is not read ahead");
            std::thread::yield_now();
        }
        drawn(&mut session, &opened, k).expect("it runs");
    }
    let mut cost = session.control_messages().since(&before);
    cost.heard.remove("alive");
    let each = 2 * (BATCHES - 1);
    assert_eq!(cost.sent, [("run", each), ("decide", each)].into());
    assert_eq!(cost.heard, [("voted", each), ("done", each)].into());
    // Somewhere else than was announced: what was read ahead is of no use, and no harm.
    let mut fed = here(2, &Strategy::data_parallel());
    for k in [0, 3, 1, 1] {
        let batch = opened.batch(samples(k), Some(samples(5)));
        session.run("train", &batch).expect("it runs");
    }
    for k in (0..BATCHES).chain([0, 3, 1, 1]) {
        step(&mut fed, k).expect("it runs");
    }
    assert_eq!(session.digest(), fed.digest());
    leave(session, threads);
}

/// Some inputs are fed, others drawn.
#[test]
fn arrays_and_samples_are_fed_together() {
    let made = [Made::new(1), Made::new(1)];
    let (mut there, threads) = reading(&Strategy::data_parallel(), &made);
    let mut here = here(2, &Strategy::data_parallel());
    let opened = there.open_source(&spec("it")).expect("it opens");
    for k in 0..2 {
        let (described, [_, label]) = (opened.batch(samples(k), None), batch(k));
        let mut feeds = described.feeds();
        feeds.retain(|(name, _)| *name == "x");
        feeds.push(("label", (&label).into()));
        there.run("train", &feeds).expect("it runs");
        step(&mut here, k).expect("it runs");
    }
    assert_eq!(there.digest(), here.digest());
    assert!(made.iter().all(|made| made.noted().iter().all(|(_, fields)| *fields == [0])));
    assert_eq!(there.fed_bytes(), 2 * 8 * 4);
    leave(there, threads);
}

/// The step ends with that cause, nothing is updated anywhere, and what can be read is trained on.
#[test]
fn a_sample_that_cannot_be_read_ends_its_step_alone() {
    let made = [Made::new(1), Made::new(1)];
    let dp = Strategy::data_parallel();
    let (mut there, threads) = reading(&dp, &made);
    let mut here = here(2, &dp);
    let opened = there.open_source(&spec("it")).expect("it opens");
    for k in 0..2 {
        drawn(&mut there, &opened, k).expect("it runs");
        step(&mut here, k).expect("it runs");
    }
    // Of rank 1's leaf; also where batch 3 is read ahead.
    made[1].broken.store(8 * 3 + 5, Ordering::SeqCst);
    drawn(&mut there, &opened, 2).expect("it runs");
    step(&mut here, 2).expect("it runs");
    for _ in 0..2 {
        let error = drawn(&mut there, &opened, 3).expect_err("a sample is broken");
        assert!(matches!(&error, RunError::Device(DeviceError::Elsewhere { .. })), "{error:?}");
        let said = error.to_string();
        assert!(said.contains("rank 1: data set `it`: sample 29 is cursed"), "{said}");
        assert_eq!(there.digest(), here.digest(), "nothing was updated");
    }
    made[1].broken.store(NONE, Ordering::SeqCst);
    for k in 3..5 {
        drawn(&mut there, &opened, k).expect("it runs");
        step(&mut here, k).expect("it runs");
    }
    assert_eq!(there.digest(), here.digest());
    leave(there, threads);
}

/// What a worker has that is not what the others have, or has not at all, is said before anything is computed.
#[test]
fn data_that_is_not_the_same_everywhere_is_refused() {
    let dp = Strategy::data_parallel();
    for (other, says) in [
        (Made::new(2), "the content is not the same (fingerprint 02020202"),
        (Made::of(1, 40), "there are 40 samples here, and 48 elsewhere"),
    ] {
        let (mut session, threads) = reading(&dp, &[Made::new(1), other]);
        let (opened, before) = (session.open_source(&spec("it")).expect("it opens"), session.digest());
        for _ in 0..2 {
            let said = drawn(&mut session, &opened, 0).expect_err("they differ").to_string();
            assert!(said.contains("rank 1") && said.contains("data set `it`") && said.contains(says), "{said}");
        }
        assert_eq!(session.digest(), before);
        step(&mut session, 0).expect("what is fed is trained on");
        leave(session, threads);
    }
    let (mut session, threads) = reading(&dp, &[Made::new(1), Made::new(1)]);
    let said = session.open_source(&spec("nothing")).expect_err("there is none").to_string();
    assert!(said.contains("no worker can open the data: rank 0") && said.contains("no such thing"), "{said}");
    assert!(said.contains("nor can the other worker"), "{said}");
    // Described by what other workers have.
    let (mut other, others) = reading(&dp, &[Made::new(3), Made::new(3)]);
    let foreign = other.open_source(&spec("it")).expect("it opens");
    let own = session.open_source(&spec("it")).expect("it opens");
    for _ in 0..2 {
        let said = drawn(&mut session, &foreign, 0).expect_err("they differ").to_string();
        assert!(said.contains("rank 0") && said.contains("here, 03030303… elsewhere"), "{said}");
        drawn(&mut session, &own, 0).expect("this is its own");
    }
    leave(other, others);
    let below = SourceSpec { root: "data".into(), path: "a.npz".into(), how: String::new() };
    let said = session.open_source(&below).expect_err("there is no root").to_string();
    assert!(said.contains("`a.npz` below root `data`: there is no root `data` here; it has none"), "{said}");
    leave(session, threads);
    let (mut session, threads) = session_reading(1, &dp, Arc::new(open), Box::new(|_| ()), &|_| None);
    let said = session.open_source(&spec("it")).expect_err("nobody reads").to_string();
    assert!(said.contains("was given nothing that reads data"), "{said}");
    leave(session, threads);
}
