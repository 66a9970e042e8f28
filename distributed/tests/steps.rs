//! Steps over workers: the numbers of one process, whoever fails or is stopped. Workers are threads of the test here; they
//! talk over the same sockets as processes do.

#![allow(missing_docs)]

mod common;
#[path = "../../runtime/cpu/tests/common/odd.rs"]
mod odd;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use thalweg_distributed::{Door, Encryption, Gathering, JobKey, Reach, Worker, serve};
use thalweg_graph::Strategy;
use thalweg_runtime::{AbortFlag, DeviceError, RunError, Session};

#[test]
fn several_processes_compute_what_one_does() {
    let dp = Strategy::data_parallel().leaves(4);
    for (strategy, worlds) in
        [(dp.clone(), vec![1, 2, 4]), (dp.shard_state(), vec![2]), (Strategy::pipeline(2), vec![2])]
    {
        for world in worlds {
            let (mut there, threads) = session(world, &strategy, Arc::new(open));
            let mut here = here(world, &strategy);
            for k in 0..5 {
                let (a, b) = (step(&mut there, k).expect("it runs"), step(&mut here, k).expect("it runs"));
                assert_eq!(a.to_bits(), b.to_bits(), "{strategy} on {world}, step {k}");
                let [x, _] = batch(k);
                let look = |s: &mut Session| s.run("look", &[("x", &x)]).expect("it runs");
                let (a, b) = (look(&mut there), look(&mut here));
                let bytes = |out: &thalweg_runtime::Outputs| out.get("hidden").expect("an output").bytes().to_vec();
                assert_eq!(bytes(&a), bytes(&b));
            }
            assert_eq!(there.digest(), here.digest(), "{strategy} on {world}");
            assert_eq!(there.bytes_sent(), here.bytes_sent(), "{strategy} on {world}");
            assert_eq!(there.bytes_sent() > 0, world > 1);
            leave(there, threads);
        }
    }
}

/// Nothing steers a worker within a step: fifty steps cost what begins and ends them, and not a message more.
#[test]
fn a_step_costs_four_messages_per_worker() {
    for (strategy, world) in
        [(Strategy::data_parallel(), 2), (Strategy::data_parallel().shard_state(), 4), (Strategy::pipeline(2), 2)]
    {
        let (mut there, threads) = session(world, &strategy, Arc::new(open));
        step(&mut there, 0).expect("it runs");
        let before = there.control_messages();
        assert!(before.sent["write"] > 0 && before.heard["answer"] > 0, "variables were written: {before:?}");
        for k in 1..=50 {
            step(&mut there, k).expect("it runs");
        }
        let mut cost = there.control_messages().since(&before);
        // By the clock, where steps take long.
        cost.heard.remove("alive");
        let each = 50 * world as u64;
        assert_eq!(cost.sent, [("run", each), ("decide", each)].into(), "{strategy} on {world}");
        assert_eq!(cost.heard, [("voted", each), ("done", each)].into(), "{strategy} on {world}");
        leave(there, threads);
    }
}

/// Rank 1's device (the one of that name) does `before` first.
fn odd<F>(before: F) -> Opens
where
    F: Fn(usize, Option<&AbortFlag>) -> Result<(), DeviceError> + Send + Sync + Clone + 'static,
{
    Arc::new(move |name, threads| {
        let (device, before) = (open(name, threads)?, before.clone());
        // Stretches are counted from 1 here.
        Ok(if name == "cpu:1" { odd::odd(device, move |k, abort| before(k + 1, abort)) } else { device })
    })
}

/// How many stretches rank 1 has in a step, and how many of them in its body.
fn stretches() -> (usize, usize) {
    let (count, in_tail) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, tails) = (count.clone(), in_tail.clone());
    let opens = odd(move |_, abort| {
        counted.fetch_add(1, Ordering::SeqCst);
        tails.fetch_add(usize::from(abort.is_none()), Ordering::SeqCst);
        Ok(())
    });
    let (mut session, threads) = session(2, &Strategy::data_parallel().leaves(4), opens);
    step(&mut session, 0).expect("it runs");
    leave(session, threads);
    let (all, tail) = (count.load(Ordering::SeqCst), in_tail.load(Ordering::SeqCst));
    assert!(tail > 0 && all > tail, "{all} stretches, {tail} of the tail");
    (all, all - tail)
}

/// Fails or panics at every stretch of the second step's body: nothing is updated anywhere, the cause is told, and the next
/// step is right.
#[test]
fn what_fails_on_a_worker_ends_the_step_everywhere() {
    let dp = Strategy::data_parallel().leaves(4);
    let (all, body) = stretches();
    for (at, panics) in (1..=body).flat_map(|at| [(at, false), (at, true)]) {
        let happened = Arc::new(AtomicUsize::new(0));
        let seen = happened.clone();
        let opens = odd(move |k, _| {
            if k != all + at {
                return Ok(());
            }
            seen.fetch_add(1, Ordering::SeqCst);
            assert!(!panics, "something odd");
            Err(DeviceError::Launch { device: "cpu:1".into(), label: "work".into(), cause: "something odd".into() })
        });
        let (mut there, threads) = session(2, &dp, opens);
        let mut here = here(2, &dp);
        for session in [&mut there, &mut here] {
            step(session, 0).expect("it runs");
        }
        let error = step(&mut there, 1).expect_err("it is spoilt").to_string();
        assert_eq!(happened.load(Ordering::SeqCst), 1, "the fault has happened");
        assert!(error.contains("step 2 of it: rank 1") && error.contains("something odd"), "{error}");
        assert_eq!(there.digest(), here.digest(), "nothing was updated");
        let again = [&mut there, &mut here].map(|session| step(session, 1).expect("the next step is right").to_bits());
        assert_eq!(again[0], again[1]);
        assert_eq!(there.digest(), here.digest());
        leave(there, threads);
    }
}

#[test]
fn a_tail_that_fails_tears_and_says_so() {
    let (all, body) = stretches();
    let opens = odd(move |k, _| {
        let fails = k == all + body + 1;
        let error = DeviceError::Launch { device: "cpu:1".into(), label: "work".into(), cause: "odd".into() };
        if fails { Err(error) } else { Ok(()) }
    });
    let (mut session, threads) = session(2, &Strategy::data_parallel().leaves(4), opens);
    step(&mut session, 0).expect("it runs");
    let error = step(&mut session, 1).expect_err("the tail fails");
    assert!(matches!(&error, RunError::Device(DeviceError::Torn { .. })), "{error}");
    assert_eq!(step(&mut session, 2).expect_err("nothing runs"), error);
    leave(session, threads);
}

/// A launch that takes six seconds: who is at it, and who waits for what.
#[test]
fn a_step_that_takes_long_is_explained() {
    let (all, _) = stretches();
    let opens = odd(move |k, _| {
        if k == all + 1 {
            thread::sleep(Duration::from_secs(6));
        }
        Ok(())
    });
    let said = Arc::new(std::sync::Mutex::new(String::new()));
    let (heard, dp) = (said.clone(), Strategy::data_parallel().leaves(4));
    let tell = Box::new(move |text: &str| heard.lock().expect("no panic").push_str(text));
    let (mut there, threads) = session_telling(2, &dp, opens, tell);
    for k in 0..2 {
        step(&mut there, k).expect("it runs, sooner or later");
    }
    let said = said.lock().expect("no panic").clone();
    assert!(said.contains("a step of `train` has taken 4.0 s so far"), "{said}");
    assert!(said.contains("rank 1") && said.contains("launch \""), "who is at it: {said}");
    assert!(said.contains("rank 0") && said.contains("wait #"), "who waits: {said}");
    leave(there, threads);
}

#[test]
fn an_abort_ends_a_step_on_all_workers() {
    let (all, _) = stretches();
    let (told, heard) = std::sync::mpsc::channel();
    let told = Arc::new(std::sync::Mutex::new(told));
    let opens = odd(move |k, abort| {
        if k != all + 1 {
            return Ok(());
        }
        told.lock().expect("no panic").send(()).expect("somebody listens");
        let abort = abort.expect("a body");
        while !abort.is_raised() {
            thread::sleep(Duration::from_millis(1));
        }
        Err(DeviceError::Aborted)
    });
    let dp = Strategy::data_parallel().leaves(4);
    let (mut there, threads) = session(2, &dp, opens);
    let mut here = here(2, &dp);
    for session in [&mut there, &mut here] {
        step(session, 0).expect("it runs");
    }
    let flag = there.abort_flag();
    let stopper = thread::spawn(move || {
        heard.recv().expect("it is told");
        flag.raise();
        Instant::now()
    });
    assert_eq!(step(&mut there, 1), Err(RunError::Device(DeviceError::Aborted)));
    let took = stopper.join().expect("no panic").elapsed();
    println!("the step ended {took:?} after the flag was raised");
    assert!(took < Duration::from_millis(500), "{took:?}");
    there.abort_flag().clear();
    assert_eq!(there.digest(), here.digest());
    assert_eq!(step(&mut there, 1), step(&mut here, 1));
    assert_eq!(there.digest(), here.digest());
    leave(there, threads);
}

#[test]
fn who_is_missing_and_who_has_another_key_is_said() {
    let (key, other) = (JobKey::random().expect("numbers"), JobKey::random().expect("numbers"));
    let mut gathering = Gathering::open(&key, Reach::default()).expect("a port");
    let join = Door::At(gathering.address(), other, Encryption::default());
    let worker = Worker { join, rank: None, patience: Duration::ZERO, listen: None, roots: vec![], opener: None };
    let stranger = thread::spawn(move || serve(&worker, &open));
    let error = gather(&mut gathering, 2, Duration::from_secs(1)).map(|_| ()).expect_err("nobody joins");
    let said = error.to_string();
    assert!(said.contains("0 of 2 workers joined within 1 s") && said.contains("another job"), "{said}");
    assert!(stranger.join().expect("no panic").is_err());
}
