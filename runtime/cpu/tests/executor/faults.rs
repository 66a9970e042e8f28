//! Steps that go wrong: everybody ends, the cause is told, variables are untouched, and the next step is right.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use thalweg_graph::plan::{Instruction, Plan};
use thalweg_runtime::{AbortFlag, Device, DeviceError, Executor};

use crate::plans::*;

const N: u64 = 5;

/// Steps once, has `spoil` make the second step fail, and gives its error and when it came. Checks that nothing was updated and that the third
/// step is right.
#[track_caller]
fn fails(mut executor: Executor, plan: &Arc<Plan>, spoil: impl FnOnce(&mut Executor)) -> (DeviceError, Instant) {
    let state_bytes: Vec<u64> = plan.devices.iter().map(|d| d.state_bytes).collect();
    executor.reserve_state(&state_bytes).expect("room");
    let prepared = executor.load(plan).expect("room");
    assert_eq!(run(&mut executor, &prepared, N, 0), Ok(expected(N, 0)));
    let before = state(&mut executor, &prepared);
    spoil(&mut executor);
    let error = run(&mut executor, &prepared, N, 1).expect_err("it is spoilt");
    let ended = Instant::now();
    assert!(state(&mut executor, &prepared) == before, "nothing was updated: {error}");
    executor.abort_flag().clear();
    for k in 2..5 {
        assert_eq!(run(&mut executor, &prepared, N, k), Ok(expected(N, k)), "the next step is right: {error}");
    }
    (error, ended)
}

/// Devices of which number `which` does something when it comes to stretch `stretch` of the second step; each has three in its body and one in its tail.
fn spoilt(
    which: usize,
    stretch: usize,
    mut fault: impl FnMut(Option<&AbortFlag>) -> Result<(), DeviceError> + Send + 'static,
) -> Executor {
    let before = move |k: usize, abort: Option<&AbortFlag>| if k == 4 + stretch { fault(abort) } else { Ok(()) };
    let mut devices: Vec<Box<dyn Device>> = vec![cpu(0, 1), reference()];
    let device = devices.remove(which);
    devices.insert(which, odd(device, before));
    Executor::new(devices).expect("threads start")
}

fn launch_failed() -> DeviceError {
    DeviceError::Launch { device: "odd".into(), label: "work".into(), cause: "it is odd".into() }
}

#[test]
fn an_error_on_one_device_ends_the_step_on_all() {
    for (which, stretch) in (0..2).flat_map(|which| (0..3).map(move |stretch| (which, stretch))) {
        let happened = Arc::new(AtomicUsize::new(0));
        let seen = happened.clone();
        let executor = spoilt(which, stretch, move |_| {
            thread::sleep(Duration::from_millis(20));
            seen.fetch_add(1, Ordering::SeqCst);
            Err(launch_failed())
        });
        let (error, _) = fails(executor, &exchange(N), |_| {});
        assert_eq!((error, happened.load(Ordering::SeqCst)), (launch_failed(), 1), "device {which}, stretch {stretch}");
    }
}

#[test]
fn a_panic_on_a_device_is_an_error() {
    for which in 0..2 {
        let executor = spoilt(which, 1, |_| panic!("something odd"));
        let (error, _) = fails(executor, &exchange(N), |_| {});
        let DeviceError::Panicked { device, doing, message } = &error else { panic!("{error:?}") };
        assert_eq!((&**device, &**message), (["zero", "one"][which], "something odd"));
        assert!(doing.contains("launch"), "{error}");
    }
}

/// Device 0 waits for a channel, or for the others at the end of its body; device 1 would compute for a long time.
#[test]
fn an_abort_ends_devices_that_wait_and_devices_that_run() {
    for stretch in [0, 2] {
        let (told, heard) = mpsc::channel();
        let gone = Arc::new(AtomicBool::new(false));
        let (stopped, other) = (gone.clone(), gone.clone());
        let executor = spoilt(1, stretch, move |abort| {
            told.send(()).expect("somebody listens");
            let abort = abort.expect("a body");
            while !abort.is_raised() {
                thread::sleep(Duration::from_millis(1));
            }
            stopped.store(true, Ordering::SeqCst);
            Err(DeviceError::Aborted)
        });
        let raised = Arc::new(std::sync::Mutex::new(None));
        let when = raised.clone();
        let mut stopper = None;
        let (error, ended) = fails(executor, &exchange(N), |executor| {
            let flag = executor.abort_flag();
            stopper = Some(thread::spawn(move || {
                heard.recv().expect("it is told");
                // Long enough for device 0 to fall asleep.
                thread::sleep(Duration::from_millis(60));
                *when.lock().expect("no panic") = Some(Instant::now());
                flag.raise();
            }));
        });
        stopper.expect("it was started").join().expect("no panic");
        let raised = raised.lock().expect("no panic").expect("it was raised");
        let took = ended.saturating_duration_since(raised);
        println!("stretch {stretch}: the step ended {took:?} after the flag was raised");
        assert!(ended > raised && took < Duration::from_millis(100), "{took:?}");
        assert!(other.load(Ordering::SeqCst), "the fault has happened");
        assert_eq!(error, DeviceError::Aborted);
    }
}

#[test]
fn an_abort_before_the_step_ends_it() {
    let executor = Executor::new(vec![cpu(0, 1), cpu(1, 1)]).expect("threads start");
    assert_eq!(fails(executor, &exchange(N), |e| e.abort_flag().raise()).0, DeviceError::Aborted);
}

/// The body's last stretch of device 1 fails long after device 0 has come to its commit, also where device 1 has no tail.
#[test]
fn nobody_commits_before_all_bodies_have_ended() {
    let text = exchange(N).to_string();
    let (head, tail) = text.rsplit_once("commit").expect("device 1 commits");
    let without = parsed(&format!("{head} {}", &tail[tail.find('}').expect("it ends")..]));
    assert_eq!(without.devices[1].tail_start(), without.devices[1].instructions.len());
    for plan in [exchange(N), without] {
        let stretches = if plan.devices[1].instructions.contains(&Instruction::Commit) { 4 } else { 3 };
        let before = move |k: usize, _: Option<&AbortFlag>| {
            if k == stretches + 2 {
                thread::sleep(Duration::from_millis(60));
                return Err(launch_failed());
            }
            Ok(())
        };
        let executor = Executor::new(vec![cpu(0, 1), odd(reference(), before)]).expect("threads start");
        assert_eq!(fails(executor, &plan, |_| {}).0, launch_failed());
    }
}

#[test]
fn a_tail_that_fails_is_told_and_nothing_runs_until_variables_are_written() {
    for panics in [false, true] {
        let executor = spoilt(1, 3, move |abort| {
            assert!(abort.is_none(), "a tail is not given up");
            if panics { panic!("something odd") } else { Err(launch_failed()) }
        });
        let plan = exchange(N);
        let mut executor = executor;
        executor.reserve_state(&[plan.devices[0].state_bytes; 2]).expect("room");
        let prepared = executor.load(&plan).expect("room");
        run(&mut executor, &prepared, N, 0).expect("it runs");
        let error = run(&mut executor, &prepared, N, 1).expect_err("the tail fails");
        let DeviceError::Torn { cause } = &error else { panic!("{error:?}") };
        assert_eq!(matches!(**cause, DeviceError::Panicked { .. }), panics, "{error}");
        assert!(error.to_string().contains("checkpoint"), "{error}");
        assert_eq!(run(&mut executor, &prepared, N, 2), Err(error.clone()));
    }
}

/// Each device waits for what the other would send afterwards: a plan that no verifier should let pass.
fn stuck() -> Arc<Plan> {
    let mut plan = (*exchange(N)).clone();
    let waits = |i: &Instruction| matches!(i, Instruction::Wait { channel, .. } if channel.0 > 1);
    let posts = |i: &Instruction| matches!(i, Instruction::Post { .. });
    for device in &mut plan.devices {
        let list = &mut device.instructions;
        let wait = list.remove(list.iter().position(waits).expect("it waits"));
        list.insert(list.iter().position(posts).expect("it posts"), wait);
    }
    Arc::new(plan)
}

#[test]
fn a_plan_that_cannot_go_on_ends_with_what_everybody_waits_for() {
    let (mut executor, prepared) = loaded(vec![cpu(0, 1), cpu(1, 1)], &stuck());
    executor.set_wait_limit(Duration::from_millis(150));
    for _ in 0..2 {
        let started = Instant::now();
        let error = run(&mut executor, &prepared, N, 0).expect_err("it hangs");
        assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
        let DeviceError::Stalled { doing, others, .. } = &error else { panic!("{error:?}") };
        let both = format!("{doing}; {}", others.join("; "));
        assert!(both.contains("wait #2 \"left\"") && both.contains("wait #3 \"right\""), "{error}");
    }
}

/// Where everybody waits and nobody is there to see the flag but those who wait.
#[test]
fn an_abort_ends_a_step_in_which_all_wait() {
    let (mut executor, prepared) = loaded(vec![cpu(0, 1), cpu(1, 1)], &stuck());
    for _ in 0..2 {
        let flag = executor.abort_flag();
        let stopper = thread::spawn(move || {
            thread::sleep(Duration::from_millis(60));
            flag.raise();
            Instant::now()
        });
        assert_eq!(run(&mut executor, &prepared, N, 0), Err(DeviceError::Aborted));
        let (ended, raised) = (Instant::now(), stopper.join().expect("no panic"));
        let took = ended.saturating_duration_since(raised);
        println!("all wait: the step ended {took:?} after the flag was raised");
        assert!(took < Duration::from_millis(100), "{took:?}");
        executor.abort_flag().clear();
    }
}

#[test]
fn no_device_is_an_error() {
    assert!(matches!(Executor::new(vec![]).map(|_| ()), Err(DeviceError::Open { .. })));
}
