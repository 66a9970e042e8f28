//! What a step costs beside its kernels: launches that were made ready, reads that travel together, the GPU's clock, and
//! limits that are lower than this machine's.

mod common;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Random, check, gpu, ty};
use thalweg_gpu::{GpuDevice, Limits, adapters};
use thalweg_graph::DType::F32;
use thalweg_graph::id::Arena;
use thalweg_graph::ir::Site;
use thalweg_graph::kernel::build::*;
use thalweg_graph::plan::{Buffer, DevicePlan, Instruction, Launch, Memory, Plan};
use thalweg_runtime::device::{AbortFlag, Device, DeviceError, ReadInto};

/// A plan of `n` launches, each of which adds 1 to what the one before it made.
fn counting(n: usize) -> Arc<Plan> {
    let mut axes = Axes::new();
    let [i] = axes.par([4]);
    let ty = ty(F32, &[4]);
    let kernel = axes.nest(std::slice::from_ref(&ty), std::slice::from_ref(&ty), [read(0, [i]) + lit(1.0)]);
    let (mut buffers, mut kernels) = (Arena::default(), Arena::default());
    let memory = Memory::Scratch;
    let places = [0, 64].map(|offset| buffers.push(Buffer { memory, offset, ty: ty.clone(), pieces: vec![] }));
    let kernel = kernels.push(kernel);
    let launch = |k: usize| Launch {
        kernel,
        reads: vec![places[k % 2]],
        writes: vec![places[(k + 1) % 2]],
        workspace: (0, 0),
        label: format!("launch {k}").into(),
        site: Site { file: "model.rs".into(), line: k as u32 + 1, ..Default::default() },
    };
    let instructions = (0..n).map(|k| Instruction::Launch(launch(k))).collect();
    let device = "gpu:0".into();
    let part = DevicePlan { device, state_bytes: 0, scratch_bytes: 128, staging_bytes: 0, buffers, instructions };
    let (graph, program, bindings) = ("counting".into(), "count".into(), Default::default());
    Arc::new(Plan { graph, program, bindings, kernels, channels: Arena::default(), devices: vec![part] })
}

fn number(device: &mut dyn Device, offset: u64) -> f32 {
    let mut bytes = [0; 4];
    device.read(Memory::Scratch, offset, &mut bytes).expect("it reads");
    f32::from_le_bytes(bytes)
}

#[test]
fn a_prepared_step_costs_a_fraction_of_its_launches_one_by_one() {
    const N: usize = 1000;
    const NAME: &str = "a_prepared_step_costs_a_fraction_of_its_launches_one_by_one";
    let Some(mut device) = gpu(NAME) else { return };
    if adapters()[0].kind == "software" && std::env::var_os("LP_NUM_THREADS").is_none() {
        // Mesa's adapter wakes its threads for every dispatch, which costs as much as ten launches: without them it can be
        // seen what a launch costs. It reads that when it is loaded, so in a process of its own.
        let mut again = Command::new(std::env::current_exe().expect("this test"));
        let status =
            again.args([NAME, "--exact", "--nocapture"]).env("LP_NUM_THREADS", "0").status().expect("it starts");
        assert!(status.success());
        return;
    }
    let loaded = device.load(&counting(N), 0).expect("it loads");
    let mut best = [Duration::MAX; 2];
    for _ in 0..5 {
        for (way, best) in best.iter_mut().enumerate() {
            device.write(Memory::Scratch, 0, &[0; 128]).expect("it writes");
            number(&mut device, 0);
            let (started, before) = (Instant::now(), device.watch().submissions());
            match way {
                0 => (0..N).for_each(|k| device.run(loaded, k..k + 1, None).expect("it runs")),
                _ => device.run(loaded, 0..N, None).expect("it runs"),
            }
            assert_eq!(number(&mut device, 0), N as f32);
            *best = started.elapsed().min(*best);
            let submissions = device.watch().submissions() - before;
            assert!(if way == 0 { submissions > N as u64 } else { submissions <= 3 }, "{submissions}");
        }
    }
    let [one_by_one, prepared] = best;
    let ratio = one_by_one.as_secs_f64() / prepared.as_secs_f64();
    println!("{N} launches: {one_by_one:?} one by one, {prepared:?} prepared: {ratio:.1} times cheaper");
    assert!(ratio >= 5.0, "{one_by_one:?} and {prepared:?}");
}

#[test]
fn what_is_read_together_is_one_submission_with_what_makes_it() {
    let Some(mut device) = gpu("what_is_read_together_is_one_submission_with_what_makes_it") else { return };
    let loaded = device.load(&counting(10), 0).expect("it loads");
    device.write(Memory::Scratch, 0, &[0; 128]).expect("it writes");
    let (watch, abort) = (device.watch(), AbortFlag::default());
    let before = watch.submissions();
    device.run(loaded, 0..10, Some(&abort)).expect("it runs");
    assert_eq!(watch.submissions(), before, "a body waits for what is read of it");
    let (mut even, mut odd, mut part) = ([0; 16], [0; 4], [0; 3]);
    let mut reads = [
        ReadInto { memory: Memory::Scratch, offset: 0, bytes: &mut even },
        ReadInto { memory: Memory::Scratch, offset: 68, bytes: &mut odd },
        ReadInto { memory: Memory::Scratch, offset: 65, bytes: &mut part },
    ];
    device.read_many(&mut reads).expect("it reads");
    assert_eq!(watch.submissions(), before + 1);
    assert_eq!(even, *[10f32.to_le_bytes(); 4].as_flattened());
    assert_eq!((odd, part), (9f32.to_le_bytes(), [0, 0x10, 0x41]));
}

#[test]
fn a_body_that_is_given_up_records_no_more() {
    let Some(mut device) = gpu("a_body_that_is_given_up_records_no_more") else { return };
    let loaded = device.load(&counting(10), 0).expect("it loads");
    device.write(Memory::Scratch, 0, &[0; 128]).expect("it writes");
    let abort = AbortFlag::default();
    abort.raise();
    assert_eq!(device.run(loaded, 0..10, Some(&abort)), Err(DeviceError::Aborted));
    assert_eq!([0, 64].map(|at| number(&mut device, at)), [0.0, 0.0]);
    device.run(loaded, 0..10, None).expect("a tail does not look");
    assert_eq!(number(&mut device, 0), 10.0);
}

#[test]
fn bytes_written_anywhere_leave_their_neighbours() {
    let Some(mut device) = gpu("bytes_written_anywhere_leave_their_neighbours") else { return };
    let loaded = device.load(&counting(1), 0).expect("it loads");
    let mut want = vec![0x5A; 128];
    for memory in [Memory::Scratch, Memory::Staging] {
        want.fill(0x5A);
        device.write(memory, 0, &want).expect("it writes");
        for (at, n) in [(0, 1), (3, 1), (5, 2), (6, 4), (9, 7), (17, 3), (20, 3), (33, 15), (50, 0), (127, 1)] {
            let bytes: Vec<u8> = (0..n).map(|i| (at + i) as u8).collect();
            device.write(memory, at as u64, &bytes).expect("it writes");
            want[at..at + n].copy_from_slice(&bytes);
        }
        let mut have = vec![0; 128];
        device.read(memory, 0, &mut have).expect("it reads");
        assert_eq!(have, want, "{}", memory.name());
    }
    device.unload(loaded);
}

/// By the GPU's clock and by the host's: all launches, in order, inside the time that the host saw.
#[test]
fn every_launch_is_timed_whatever_clock_there_is() {
    if gpu("every_launch_is_timed_whatever_clock_there_is").is_none() {
        return;
    }
    for no_timestamps in [false, true] {
        let lower = Limits { no_timestamps, ..Limits::default() };
        let mut device = GpuDevice::with_limits("gpu:0", 0, &lower).expect("it opens");
        // More than are read at once.
        let n = if no_timestamps { 50 } else { 5000 };
        let loaded = device.load(&counting(n), 0).expect("it loads");
        device.run(loaded, 0..n, None).expect("it runs");
        assert!(device.time(true).is_empty(), "nothing was timed before");
        for _ in 0..2 {
            let (from, before) = (device.now(), device.watch().submissions());
            device.run(loaded, 0..n, None).expect("it runs");
            let timings = device.time(true);
            let submissions = device.watch().submissions() - before;
            let to = device.now();
            assert_eq!(timings.iter().map(|t| t.instruction).collect::<Vec<_>>(), (0..n).collect::<Vec<_>>());
            let ends = timings.iter().map(|t| t.start + t.took);
            assert!(
                timings.iter().skip(1).zip(ends.clone()).all(|(t, before)| t.start >= before),
                "one after the other"
            );
            assert!(timings[0].start >= from && ends.max().expect("some") <= to, "{from:?} {to:?} {timings:?}");
            let inside: Duration = timings.iter().map(|t| t.took).sum();
            assert!(inside > Duration::ZERO && inside <= to - from);
            println!("{n} launches in {submissions} submissions, {inside:?} of {:?} in them", to - from);
            assert_eq!(
                submissions >= n as u64,
                no_timestamps || adapter_has_no_clock(),
                "together, where there is a clock"
            );
        }
        device.time(false);
    }
}

fn adapter_has_no_clock() -> bool {
    adapters()[0].disabled.iter().any(|(what, _)| what == "timestamps")
}

#[test]
fn more_workgroups_than_a_dimension_holds_go_along_others() {
    if gpu("more_workgroups_than_a_dimension_holds_go_along_others").is_none() {
        return;
    }
    let lower = Limits { groups: Some(15), ..Limits::default() };
    let mut device = GpuDevice::with_limits("gpu:0", 0, &lower).expect("it opens");
    let mut random = Random(7);
    let ty = ty(F32, &[100_003]);
    let mut axes = Axes::new();
    let [i] = axes.par([100_003]);
    let kernel = axes.nest(std::slice::from_ref(&ty), std::slice::from_ref(&ty), [read(0, [i]) * lit(3.0)]);
    check(&mut device, &kernel, &[random.values(&ty)], 0.0);
}

#[test]
fn what_does_not_fit_or_compile_names_launch_and_line() {
    if gpu("what_does_not_fit_or_compile_names_launch_and_line").is_none() {
        return;
    }
    // An adapter whose arenas are smaller than a plan's.
    let mut large = Arc::unwrap_or_clone(counting(3));
    large.devices[0].scratch_bytes = 1 << 20;
    let lower = Limits { buffer_bytes: Some(1 << 16), ..Limits::default() };
    let mut device = GpuDevice::with_limits("gpu:7", 0, &lower).expect("it opens");
    let error = device.load(&Arc::new(large), 0).expect_err("too large");
    assert!(matches!(error, DeviceError::OutOfMemory { needed: 1048576, .. }), "{error:?}");
    let said = error.to_string();
    for part in ["gpu:7", "1048576 bytes of scratch", "at most 65536", "`launch ", "model.rs:"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let loaded = device.load(&counting(3), 0).expect("all is as it was");
    device.run(loaded, 0..3, None).expect("it runs");

    // An adapter whose workgroups are smaller than our shaders ask for: its compiler refuses them.
    let lower = Limits { threads: Some(1), ..Limits::default() };
    let mut device = GpuDevice::with_limits("gpu:8", 0, &lower).expect("it opens");
    let error = device.load(&counting(3), 0).expect_err("it does not compile");
    let said = error.to_string();
    for part in ["gpu:8", "launch 0", "declared at model.rs:1", "shader"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_lost_device_says_what_ran_last_and_what_to_do_and_goes_on_saying_it() {
    if gpu("a_lost_device_says_what_ran_last_and_what_to_do_and_goes_on_saying_it").is_none() {
        return;
    }
    let mut device = GpuDevice::with_limits("gpu:3", 0, &Limits::default()).expect("it opens");
    let loaded = device.load(&counting(4), 0).expect("it loads");
    device.run(loaded, 0..4, None).expect("it runs");
    assert_eq!(device.read(Memory::Scratch, 0, &mut [0; 4]), Ok(()));
    device.watch().lose();
    let mut errors = vec![
        device.run(loaded, 1..3, None).expect_err("it is lost"),
        device.read(Memory::Scratch, 0, &mut [0; 4]).expect_err("it is lost"),
        device.write(Memory::Scratch, 0, &[0; 4]).expect_err("it is lost"),
        device.load(&counting(2), 0).expect_err("it is lost"),
        device.reserve_state(1 << 20).expect_err("it is lost"),
    ];
    assert!(device.time(true).is_empty() && device.time(false).is_empty());
    device.unload(loaded);
    println!("{}", errors[0]);
    errors.dedup();
    let [DeviceError::Lost { device: name, doing, .. }] = &errors[..] else { panic!("{errors:?}") };
    assert_eq!(&**name, "gpu:3");
    assert!(doing.contains("`launch 1` (declared at model.rs:2:0)") && doing.contains("`launch 2`"), "{doing}");
    assert!(errors[0].to_string().contains("open the device anew"));
}
