//! A step allocates no buffer: in steady state a launch takes less than a page, in small pieces, however large its tensors
//! are, and the session a few small things beside the outputs that it returns.
//!
//! Alone in its file, as one test: the allocator counts for the whole process.

mod common;

use std::alloc::System;

use common::models::{ALL, Trained};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use thalweg::graph::plan::{Instruction, Memory};
use thalweg::{Array, Model};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Steps that are measured; one that allocates now and then is caught as well.
const STEPS: usize = 20;
/// What a launch may take, however large its tensors are: a table of registers for each of at most 64 pieces, together less
/// than a page, so that none of them is a buffer.
const PER_LAUNCH: Taken = Taken { calls: 64, bytes: 4095 };
/// What the session may take around the launches of a step, beside the outputs.
const PER_STEP: Taken = Taken { calls: 32, bytes: 2048 };
/// Now and then the queues between threads take a block more, and the harness, which has a thread of its own.
const QUEUES: Taken = Taken { calls: 8, bytes: 8192 };

/// Allocations of something: how many, and bytes in all.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct Taken {
    calls: usize,
    bytes: usize,
}

impl std::ops::Add for Taken {
    type Output = Taken;
    fn add(self, other: Taken) -> Taken {
        Taken { calls: self.calls + other.calls, bytes: self.bytes + other.bytes }
    }
}

fn taken(work: impl FnOnce()) -> Taken {
    let region = Region::new(GLOBAL);
    work();
    let change = region.change();
    let grown = usize::try_from(change.bytes_reallocated).unwrap_or(0);
    Taken { calls: change.allocations + change.reallocations, bytes: change.bytes_allocated + grown }
}

/// What each launch of a step takes in steady state, one by one on a device of their own.
fn launches(model: &mut Model, case: &Trained, threads: usize) -> Vec<(String, Taken)> {
    let bindings = if case.name == "digits" { [("batch".into(), 64)].into() } else { Default::default() };
    let plan = model.session().plan("train", &bindings).expect("it is there");
    let mut device = common::cpu(threads);
    device.reserve_state(plan.devices[0].bytes(Memory::State)).expect("room");
    let loaded = device.load(&plan, 0).expect("room");
    let mut all = vec![];
    for (i, instruction) in plan.devices[0].instructions.iter().enumerate() {
        let label = match instruction {
            Instruction::Launch(launch) => launch.label.to_string(),
            Instruction::Copy { .. } => "copy".into(),
            _ => continue,
        };
        // The least of a few runs: registers and queues have grown by then.
        let mut run = || taken(|| device.run(loaded, i..i + 1, None).expect("it runs"));
        let least = (0..5).map(|_| run()).min_by_key(|t| t.bytes).expect("some runs");
        all.push((label, least));
    }
    all
}

#[test]
fn a_step_allocates_no_buffer() {
    for (case, threads) in ALL.iter().flat_map(|case| [(case, 1), (case, 2)]) {
        let name = format!("{} on {threads} threads", case.name);
        let mut model = case.compile(threads);
        let feeds = case.feeds(0);
        let feeds: Vec<(&str, &Array)> = feeds.iter().map(|(n, a)| (*n, a)).collect();
        // The first makes the plan; in the next few, registers and queues grow.
        let outputs = (0..10).map(|_| model.run("train", &feeds).expect("it runs")).last().expect("some steps");
        let returned: usize = outputs.iter().map(|(_, a)| a.bytes().len()).sum();
        let all = launches(&mut model, case, threads);
        for (label, launch) in &all {
            let small = launch.calls <= PER_LAUNCH.calls && launch.bytes <= PER_LAUNCH.bytes;
            assert!(small, "{name}: {label} takes {launch:?}");
        }
        let count = all.len();
        let known = all.into_iter().fold(Taken::default(), |sum, (_, t)| sum + t);

        let steps = (0..STEPS).map(|_| taken(|| drop(model.run("train", &feeds).expect("it runs"))));
        let mut steps: Vec<Taken> = steps.collect();
        steps.sort_by_key(|t| t.bytes);
        for (step, more) in [(steps[STEPS / 2], Taken::default()), (steps[STEPS - 1], QUEUES)] {
            let most = known + PER_STEP + more;
            let fits = step.calls <= most.calls && step.bytes <= most.bytes + returned;
            assert!(fits, "{name}: a step takes {step:?}, its launches {known:?}, its outputs {returned} bytes");
        }
        let session = steps[STEPS / 2].calls - known.calls;
        println!(
            "{name}: session {session} allocations of {} bytes a step; {:.1} of {:.0} bytes a launch over {count} launches",
            steps[STEPS / 2].bytes - known.bytes,
            known.calls as f64 / count as f64,
            known.bytes as f64 / count as f64,
        );
    }
}
