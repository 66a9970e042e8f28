//! What the proof is for: three plans with a mistake that it refuses, run all the same. One ends because all wait for each
//! other, one computes something else, one changes variables in a step that was given up. The executor takes what it is
//! given; a session would not have given it.

use std::sync::Arc;
use std::time::Duration;

use thalweg::graph::init::initial_value;
use thalweg::graph::lower::StateLayout;
use thalweg::graph::plan::mutate::{Operator, mutants};
use thalweg::graph::plan::simulate::{Harm, HarmKind, Options};
use thalweg::graph::plan::trial::{Judge, Verdict};
use thalweg::graph::plan::{DevicePlan, Endpoint, Fault, FaultKind, Instruction, Memory, Place, Plan};
use thalweg::graph::wire::Hash;
use thalweg::runtime::DeviceError;
use thalweg::runtime::executor::{Exchange, Executor, Fetch, Prepared};

use crate::common::models;
use crate::plans::{BATCH, digits, threads};

const DEVICES: usize = 3;

/// Devices with the digits' model on them, and a plan.
struct Bench {
    executor: Executor,
    prepared: Prepared,
}

/// What a step returned and left in the variables: its hash.
type Digest = Hash;

impl Bench {
    /// Loads a plan, sound or not, over the initial variables.
    fn new(plan: &Arc<Plan>) -> Self {
        let model = digits(DEVICES, 4);
        let graph = model.graph();
        let layout = StateLayout::of(graph);
        let mut executor = Executor::new(threads(DEVICES)).expect("threads start");
        executor.set_wait_limit(Duration::from_millis(300));
        executor.reserve_state(&[layout.bytes; DEVICES]).expect("room");
        for device in 0..DEVICES {
            for (id, variable) in graph.state.iter() {
                let value = initial_value(variable, graph.seed);
                let offset = layout.slots[id].offset;
                executor.device_mut(device).write(Memory::State, offset, value.bytes()).expect("it is written");
            }
        }
        let prepared = executor.load(plan).expect("it is loaded");
        Self { executor, prepared }
    }
    fn state(&mut self) -> Vec<Vec<u8>> {
        let plan = self.prepared.plan().clone();
        let read = |(i, part): (usize, &DevicePlan)| {
            let mut bytes = vec![0; part.state_bytes as usize];
            self.executor.device_mut(i).read(Memory::State, 0, &mut bytes).expect("it is read");
            bytes
        };
        plan.devices.iter().enumerate().map(read).collect()
    }
    /// Runs step `i` and gives whether it went through, and what was returned.
    fn step(&mut self, i: usize, agrees: bool) -> Result<(bool, Vec<Vec<u8>>), DeviceError> {
        let plan = self.prepared.plan().clone();
        let arrays = models::ALL[0].feeds(i);
        let mut returned: Vec<Vec<u8>> = Vec::new();
        let mut feeds: Vec<&[u8]> = Vec::new();
        for channel in plan.channels.values() {
            let bytes = channel.ty.size_bytes() as usize;
            let from = channel.start as usize * channel.ty.dtype.size_bytes();
            let array = arrays.iter().find(|(name, _)| channel.from == Endpoint::Driver && **name == *channel.label);
            feeds.push(array.map_or(&[], |(_, array)| &array.bytes()[from..from + bytes]));
            returned.push(vec![0; if channel.to == Endpoint::Driver { bytes } else { 0 }]);
        }
        let fetches = returned.iter_mut().map(|into| match into.is_empty() {
            true => Fetch::Nothing,
            false => Fetch::Into(into),
        });
        let fetches = fetches.collect();
        let went =
            self.executor.run(&self.prepared, Exchange { feeds: &feeds, draws: &[], fetches, agrees: &|| agrees })?;
        Ok((went, returned))
    }
    /// Three steps.
    fn digest(mut self) -> Result<Digest, DeviceError> {
        let mut all = Vec::new();
        for i in 0..3 {
            let (went, returned) = self.step(i, true)?;
            assert!(went, "it was agreed to");
            returned.into_iter().for_each(|bytes| all.extend(bytes));
        }
        self.state().into_iter().for_each(|bytes| all.extend(bytes));
        Ok(Hash::of(&all))
    }
}

/// The plan of a training step.
fn sound() -> Arc<Plan> {
    digits(DEVICES, 4).session().plan("train", &[("batch".into(), BATCH)].into()).expect("it is planned")
}

/// A mutant of `plan` that does harm and is refused, both as `fits` wants it.
fn mutant(plan: &Plan, operators: &[Operator], mut fits: impl FnMut(&Plan, &Harm, &Fault) -> bool) -> Arc<Plan> {
    let judge = Judge::new(plan, Options { steps: 2, seeds: 0..2, replicas: true }).expect("no harm");
    for mutant in mutants(plan, 1, 6_000).filter(|m| operators.contains(&m.operator)) {
        let trial = judge.judge(&mutant.plan);
        if let (Verdict::Harmful(harm), Some(fault)) = (&trial.verdict, &trial.refused)
            && fits(&mutant.plan, harm, fault)
        {
            println!("{:?}: {}\n  verifier: {fault}\n  simulator: {harm}", mutant.operator, mutant.what);
            return Arc::new(mutant.plan);
        }
    }
    panic!("there is no such mutant");
}

#[test]
fn a_circle_of_waiting_ends_and_says_who_waits_for_what() {
    let plan = sound();
    let broken = mutant(&plan, &[Operator::Reorder, Operator::Move, Operator::Swap], |plan, harm, fault| {
        let at = |p: &Place| &plan.devices[usize::from(p.device)].instructions[p.instruction];
        // The executor takes what is posted at once: it never stands at a `sent`.
        let stands = !fault.places.iter().map(at).any(|i| matches!(i, Instruction::Sent(_)));
        harm.kind == HarmKind::Hang && fault.kind == FaultKind::Hang && stands
    });
    let mut bench = Bench::new(&broken);
    let before = bench.state();
    let error = bench.step(0, true).expect_err("nobody can go on");
    println!("{error}");
    let DeviceError::Stalled { device, doing, others, .. } = &error else { panic!("{error}") };
    let said = format!("{device} {doing} {}", others.concat());
    for part in &plan.devices {
        assert!(said.contains(&*part.device), "{} is not named: {error}", part.device);
    }
    assert!(said.contains("wait #") || said.contains("post #"), "{error}");
    assert!(bench.state() == before, "no variable was touched");
}

#[test]
fn bytes_written_over_are_another_result() {
    let plan = sound();
    let digest = Bench::new(&plan).digest().expect("it runs");
    assert_eq!(Bench::new(&plan).digest(), Ok(digest), "the sound plan gives the same twice");
    // Not within a launch: what a kernel does with operands over results is its own affair. A buffer for which the
    // caller's memory stands in lies nowhere, so that it may take more than one.
    let mut other = None;
    mutant(&plan, &[Operator::Shift], |plan, harm, fault| {
        let within = harm.message.contains("shares bytes") || fault.kind == FaultKind::Clash;
        if harm.kind != HarmKind::Overwritten || within || fault.kind != FaultKind::Unwritten {
            return false;
        }
        let got = Bench::new(&Arc::new(plan.clone())).digest().expect("it runs to its end");
        other = Some(got);
        got != digest
    });
    println!("  sound {digest}, broken {}", other.expect("one was run"));
}

#[test]
fn an_update_before_the_commit_survives_a_step_that_was_given_up() {
    let plan = sound();
    let given_up = |plan: &Arc<Plan>| {
        let mut bench = Bench::new(plan);
        let before = bench.state();
        let (went, _) = bench.step(0, false).expect("it runs");
        assert!(!went, "it was not agreed to");
        bench.state() == before
    };
    assert!(given_up(&plan), "a step that is given up leaves variables as they were");
    let broken = mutant(&plan, &[Operator::OverCommit], |_, harm, fault| {
        harm.kind == HarmKind::State && fault.kind == FaultKind::State && harm.message.contains("the body writes")
    });
    assert!(!given_up(&broken), "its variables are as they were");
}
