//! Plans run on the simulator: what they come to, how long it takes, and the harm that broken ones come to, each kind of it.

#![allow(missing_docs)]

mod plan;

use std::time::Duration;

use plan::devices::several;
use plan::plans;
use thalweg_graph::plan::simulate::{Cost, Free, HarmKind, Options, Simulation, simulate};
use thalweg_graph::plan::{Channel, Instruction, Launch, Plan};

const US: Duration = Duration::from_micros(1);

/// A launch takes 10 µs, a channel between devices 1 µs and then 2 µs; the driver is near.
struct Even;

impl Cost for Even {
    fn launch(&self, _: u16, _: &Launch) -> Duration {
        10 * US
    }
    fn copy(&self, _: u16, bytes: u64) -> Duration {
        bytes as u32 * US
    }
    fn channel(&self, channel: &Channel) -> (Duration, Duration) {
        use thalweg_graph::plan::Endpoint::Driver;
        if channel.from == Driver || channel.to == Driver { (Duration::ZERO, Duration::ZERO) } else { (US, 2 * US) }
    }
}

fn many() -> Options {
    Options { steps: 4, seeds: 0..60, ..Options::default() }
}

fn named(name: &str) -> Plan {
    several().into_iter().find(|(of, _)| *of == name).expect("there is such a plan").1
}

fn run(plan: &Plan) -> Simulation {
    simulate(plan, &Even, &many()).unwrap_or_else(|harm| panic!("{harm}\n{plan}"))
}

#[test]
fn sound_plans_come_to_no_harm_whatever_the_timing() {
    for (name, plan) in plans().into_iter().chain(several()) {
        let simulation = run(&plan);
        assert_eq!(simulation.waste, [], "{name}");
        let updates = plan.devices.iter().any(|d| d.tail_start() < d.instructions.len());
        for pair in simulation.steps.windows(2) {
            // Every step is fed something else.
            assert_eq!(pair[0].state != pair[1].state, updates, "{name}");
            assert!(pair[0].returned != pair[1].returned || pair[0].returned.is_empty(), "{name}");
        }
        assert_eq!(simulation.timeline.len(), 4 * plan.devices.iter().map(|d| d.instructions.len()).sum::<usize>());
    }
}

#[test]
fn replicas_stay_replicas_if_they_add_in_one_order() {
    let options = Options { replicas: true, ..many() };
    let states = |plan: &Plan| -> Vec<bool> {
        let simulation = simulate(plan, &Free, &options).unwrap_or_else(|harm| panic!("{harm}"));
        simulation.steps.iter().map(|step| step.state[0] == step.state[1]).collect()
    };
    let plan = named("data parallel");
    assert_eq!(states(&plan), [true; 4]);
    let text = plan.to_string();
    assert!(text.contains("launch k9 b2, b12 ->"), "{text}");
    let other = Plan::parse(&text.replace("launch k9 b2, b12 ->", "launch k9 b12, b2 ->")).expect("it parses");
    assert!(other.certify().is_ok(), "it is sound: no two devices have to agree");
    assert_eq!(states(&other), [false; 4]);
}

#[test]
fn time_is_what_costs_add_up_to() {
    // Each device: 10 µs, then 3 µs on the way. The first posts to both others at once.
    let relay = run(&named("relay"));
    let ends: Vec<Duration> =
        relay.timeline.iter().filter(|i| i.place.device == 2 && i.place.instruction == 5).map(|i| i.end).collect();
    // The first result comes behind three launches and two channels, and the next ones sooner: steps overlap.
    assert_eq!(ends[0], 36 * US);
    let period = ends[3] - ends[2];
    assert!(period < 36 * US, "steps overlap: {ends:?}");
    let pipeline = run(&named("pipeline"));
    // The first stage computes 10 launches of a step, the second 12. What is left of the step is bubbles.
    let last = pipeline.timeline.iter().filter(|i| i.step == 0).map(|i| i.end).max().expect("it ran");
    let busy = |device| -> Duration {
        pipeline.timeline.iter().filter(|i| i.step == 0 && i.place.device == device).map(|i| i.end - i.begin).sum()
    };
    assert_eq!((busy(0), busy(1)), (100 * US, 120 * US));
    // The critical path: two launches of the first stage, eight of the second until it posts the second cotangent, three
    // of the first until all bodies have ended, and the update; and a channel there and one back.
    assert_eq!(last, (20 + 3 + 80 + 3 + 30 + 10) * US);
    let crossed: u64 = pipeline.transfers.iter().map(|t| t.bytes).sum();
    assert_eq!((crossed, pipeline.transfers.len()), (4 * 4 * 16, 16));
    assert!(pipeline.transfers.iter().all(|t| t.taken - t.posted == 2 * US && t.arrived - t.taken == US));
}

/// What is replaced by what.
type Changes = &'static [(&'static str, &'static str)];

/// The harm that a plan comes to, with some text replaced, once each.
fn harm(of: &str, changes: Changes) -> (HarmKind, String) {
    let mut text = named(of).to_string();
    for (from, to) in changes {
        assert!(text.contains(from), "{from} in\n{text}");
        text = text.replacen(from, to, 1);
    }
    let plan = Plan::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let harm = simulate(&plan, &Even, &many()).expect_err("it comes to harm");
    (harm.kind, harm.message.clone())
}

#[test]
fn every_kind_of_harm_is_seen() {
    use HarmKind::*;
    let cases: &[(&str, Changes, HarmKind)] = &[
        ("relay", &[("grant #1\n", "")], Hang),
        ("pipeline", &[("post #4 b6\n", ""), ("grant #7\n", "grant #7 post #4 b6\n")], Hang),
        ("relay", &[("wait #3 b1\n", "")], Poison),
        ("relay", &[("wait #3 b1\n", ""), ("b0, b1 -> b2", "b0, b0 -> b2")], Protocol),
        ("relay", &[("sent #3\n", "")], Protocol),
        ("relay", &[("grant #1\n", "grant #1 grant #1\n")], Protocol),
        ("relay", &[("grant #1\n", "grant #2\n")], Malformed),
        // Granted before it is read.
        ("relay", &[("grant #1\n", ""), ("wait #1 b0\n", "wait #1 b0 grant #1\n")], Poison),
        // Another tensor lies in the slot of the second hidden value while that is on its way.
        (
            "pipeline",
            &[(
                "b6: f32[2, 2] = scratch at 0\n    b7: f32[] = scratch at 16",
                "b6: f32[2, 2] = staging at 48\n b7: f32[] = scratch at 16",
            )],
            Overwritten,
        ),
        // Written over while it is being sent.
        ("pipeline", &[("b14: f32[2, 2] = scratch at 80", "b14: f32[2, 2] = scratch at 48")], Overwritten),
        // A product lies over its operand.
        ("pipeline", &[("b10: f32[2, 2] = scratch at 0", "b10: f32[2, 2] = staging at 48")], Overwritten),
        ("data parallel", &[("commit\n", ""), ("wait #8 b2\n", "commit wait #8 b2\n")], State),
        ("data parallel", &[("b18: f32[10] = scratch at 104", "b18: f32[10] = scratch at 100")], Overwritten),
    ];
    for (of, changes, kind) in cases {
        let (is, message) = harm(of, changes);
        println!("{is:?}: {message}");
        assert_eq!(is, *kind, "{changes:?}: {message}");
    }
}

#[test]
fn a_large_plan_is_simulated_in_milliseconds() {
    // Tensors of a gigabyte, and no byte is looked at by itself.
    let elements = 1u64 << 28;
    let mut text = named("relay").to_string().replace("f32[4]", &format!("f32[{elements}]"));
    text = text
        .replace("par a0: 4", &format!("par a0: {elements}"))
        .replace("staging 32", &format!("staging {}", 8 * elements));
    for name in ["scratch", "staging", "staging at"] {
        text = text.replace(&format!("{name} 16"), &format!("{name} {}", 4 * elements));
    }
    let plan = Plan::parse(&text).expect("it parses");
    assert_eq!(plan.verify(), [""; 0]);
    let begin = std::time::Instant::now();
    let simulation = simulate(&plan, &Even, &Options { steps: 300, seeds: 0..0, replicas: false });
    let took = begin.elapsed();
    let done = simulation.expect("no harm").timeline.len();
    println!("{done} instructions in {took:?}");
    assert!(done > 4_000 && took < Duration::from_secs(1));
}

#[test]
fn nothing_in_a_broken_plan_makes_it_panic() {
    for (_, mut plan) in several() {
        plan.devices[0].instructions.push(Instruction::Commit);
        plan.devices[1].scratch_bytes = u64::MAX;
        let _ = simulate(&plan, &Free, &Options::default());
        plan.channels = Default::default();
        assert!(simulate(&plan, &Free, &Options::default()).is_err());
    }
}
