//! What the verifier says of plans of several devices: a certificate for each of those written by hand, and for each
//! mistake made in them the fault that it is, with its place; circles by name. And that it is quick about it.

#![allow(missing_docs)]

mod plan;

use std::sync::Arc;
use std::time::{Duration, Instant};

use plan::devices::several;
use plan::{each, f32s};
use thalweg_graph::Site;
use thalweg_graph::id::{Arena, Id};
use thalweg_graph::plan::{
    Buffer, BufferId, Channel, ChannelId, DevicePlan, Endpoint, Fault, FaultKind, Instruction, KernelId, Launch,
    Memory, Place, Plan,
};

#[test]
fn sound_plans_have_certificates() {
    // All but the hashes, which are those of kernels too.
    let said = |plan: &Plan| {
        let text = plan.certify().expect("it is sound").to_string();
        let [_, rest] = text.split(" is sound: ").collect::<Vec<_>>()[..] else { panic!("{text}") };
        rest.rsplit_once("\norder ").expect("it names an order").0.to_string()
    };
    let all: Vec<String> = several().iter().map(|(_, plan)| said(plan)).collect();
    insta::assert_snapshot!(all.join("\n"), @r#"
    49 nodes, 64 edges, 4 of them into the next step, 10 channels
    cpu:0: state 40, scratch 144, staging 88 bytes
    cpu:1: state 40, scratch 144, staging 88 bytes
    47 nodes, 62 edges, 3 of them into the next step, 10 channels
    cpu:0: state 24, scratch 96, staging 64 bytes
    cpu:1: state 16, scratch 96, staging 64 bytes
    18 nodes, 29 edges, 6 of them into the next step, 5 channels
    cpu:0: state 0, scratch 16, staging 16 bytes
    cpu:1: state 0, scratch 16, staging 16 bytes
    cpu:2: state 0, scratch 16, staging 32 bytes
    "#);
    for (_, plan) in several() {
        let certificate = plan.certify().expect("it is sound");
        assert_eq!(certificate.plan, plan.hash());
        assert_eq!(plan.certify().as_ref(), Ok(&certificate));
    }
}

/// What is replaced by what.
type Changes = &'static [(&'static str, &'static str)];

/// The faults of a plan of the given name in which some text was replaced, once.
fn faults(of: &str, changes: Changes) -> Vec<Fault> {
    let (_, plan) = several().into_iter().find(|(name, _)| *name == of).expect("there is such a plan");
    // With lines of the source, and only the devices are changed.
    let mut text = format!("{plan:#}");
    for (from, to) in changes {
        assert!(text.contains(from), "{from} in\n{text}");
        text = text.replacen(from, to, 1);
    }
    Plan::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}")).certify().expect_err("it has a fault")
}

#[test]
fn faults_say_which_rule_where_and_from_which_line() {
    let cases: &[(&str, Changes)] = &[
        // Channels are used once, at their ends, in the body, whole.
        ("relay", &[("sent #3\n", "")]),
        ("relay", &[("grant #1\n", "")]),
        ("relay", &[("grant #1\n", "grant #1 grant #1\n")]),
        ("relay", &[("post #1 b1\n", "sent #1\n"), ("sent #1\n  }", "post #1 b1 }")]),
        ("relay", &[("grant #1\n", "grant #2\n")]),
        ("relay", &[("wait #0 b0\n", "wait #0 b0 sent #0\n")]),
        ("relay", &[("grant #1\n", "grant #9\n")]),
        ("relay", &[("device 1 -> device 2 \"b\"", "device 1 -> device 2 at 4 \"b\"")]),
        ("relay", &[("device 1 -> device 2 \"b\"", "device 1 -> device 3 \"b\"")]),
        ("relay", &[("wait #2 b0", "wait #2 b2")]),
        ("pipeline", &[("grant #6\n", ""), ("commit\n", "commit grant #6\n")]),
        ("pipeline", &[("device 1 -> driver at 1 \"loss\"", "device 1 -> driver \"loss\"")]),
        (
            "pipeline",
            &[(
                "#3: f32[2, 2] = driver -> device 1 at 4",
                "#3: f32[2, 2] = driver -> device 1 at 18446744073709551613",
            )],
        ),
        ("relay", &[("#2: f32[4]", "#2: f32[3]")]),
        // Slots: the first may not be read, then granted twice over, then written while it is the sender's.
        ("relay", &[("grant #1\n", ""), ("wait #1 b0\n", "wait #1 b0 grant #1\n")]),
        ("pipeline", &[("grant #7\n", ""), ("wait #6 b2\n", "grant #7 wait #6 b2\n")]),
        ("pipeline", &[("b12: f32[] = scratch at 20", "b12: f32[] = staging at 48")]),
        ("data parallel", &[("b2: f32[2, 2] = staging at 40", "b2: f32[2, 2] = staging at 24")]),
        // What is posted may still be read.
        ("pipeline", &[("b14: f32[2, 2] = scratch at 80", "b14: f32[2, 2] = scratch at 48")]),
        // Nothing is half there.
        ("relay", &[("wait #3 b1\n", "")]),
    ];
    let mut told = String::new();
    for (of, changes) in cases {
        for fault in faults(of, changes).iter().take(3) {
            told.push_str(&format!("{:?}: {fault}\n", fault.kind));
        }
        told.push('\n');
    }
    insta::assert_snapshot!(told, @r#"
    Channel: channel #3 (a, device 0 -> device 2) is taken back (`sent`) 0 times in a step, not once

    Channel: channel #1 (a, device 0 -> device 1) is granted 0 times in a step, not once

    Channel: channel #1 (a, device 0 -> device 1) is granted 2 times in a step, not once

    Channel: cpu:0: 2: `sent #1` stands before its `post`, which is 5

    Channel: cpu:1: 2: #2 is no channel that arrives here
    Channel: channel #1 (a, device 0 -> device 1) is granted 0 times in a step, not once

    Channel: cpu:0: 1: #0 is no channel that leaves here

    Missing: cpu:1: 2: there is no channel #9
    Channel: channel #1 (a, device 0 -> device 1) is granted 0 times in a step, not once

    Channel: channel #2 (b) starts at 4 between devices

    Channel: cpu:2: 1: #2 is no channel that arrives here
    Channel: cpu:2: 4: #2 is no channel that arrives here
    Missing: channel #2 does not join two ends that exist

    Unwritten: cpu:2: 2: reads b0, which is not whole there: never written, or written over (from relay.rs:3:1)
    Lent: cpu:2: 5: reads b2, whose bytes are the sender's from `grant #2` to its wait

    Channel: cpu:0: 19: a channel in the tail

    Channel: channels #8 and #9 both return loss from element 0 on

    Type: channel #3 (target) lies beyond any array

    Type: cpu:1: 3: channel #2 does not carry what b1 holds, f32[4]
    Type: cpu:2: 1: channel #2 does not carry what b0 holds, f32[4]

    Lent: cpu:1: 2: reads b0, whose bytes are the sender's from `grant #1` to its wait (from relay.rs:2:1)

    Lent: cpu:0: 8: grants b3, whose bytes are the sender's from `grant #6` to its wait
    Lent: cpu:0: 9: writes b2, whose bytes are the sender's from `grant #7` to its wait

    Unwritten: cpu:1: 17: reads b3, which is not whole there: never written, or written over (from pipe.rs:5:9)

    Lent: cpu:0: 2: writes b1, whose bytes are the sender's from `grant #8` to its wait

    Lent: cpu:1: 14: writes b14, whose bytes may not have been taken before `sent #6` (from pipe.rs:5:9)

    Channel: channel #3 (a, device 0 -> device 2) is waited for 0 times in a step, not once
    Unwritten: cpu:2: 1: reads b1, which is not whole there: never written, or written over (from relay.rs:3:1)
    "#);
}

#[test]
fn a_circle_is_named_from_device_to_device_with_the_lines_between() {
    // The first stage waits for a cotangent before it has sent what that is made of.
    let behind = faults("pipeline", &[("post #4 b6\n", ""), ("grant #7\n", "grant #7 post #4 b6\n")]);
    // Both wait for each other's gradient first.
    let mutual = faults(
        "data parallel",
        &[
            ("post #6 b12\n", ""),
            ("wait #8 b2\n", "wait #8 b2 post #6 b12\n"),
            ("post #8 b12\n", ""),
            ("wait #6 b2\n", "wait #6 b2 post #8 b12\n"),
        ],
    );
    // A slot is granted only behind a wait for what is posted later.
    let late = faults(
        "relay",
        &[
            ("grant #3\n", ""),
            ("wait #2 b0\n", ""),
            ("wait #3 b1\n", "wait #2 b0 grant #3 wait #3 b1\n"),
            ("post #1 b1\n", ""),
            ("post #3 b1\n", "post #3 b1 post #1 b1\n"),
        ],
    );
    let told: Vec<String> =
        [&behind, &mutual, &late].iter().flat_map(|list| list.iter()).map(|f| format!("{:?}: {f}", f.kind)).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    Hang: nobody can go on: cpu:1 4: `wait #4 b2`, which stands before 8: `post #6 b9` behind `out: matmul` from pipe.rs:5:9, `error: sub` from pipe.rs:6:9, which has to come before cpu:0 7: `wait #6 b2`, which stands before 10: `post #4 b6` behind `hidden: gradient of relu` from pipe.rs:4:20, which has to come before the first
    Hang: nobody can go on: cpu:1 13: `wait #6 b2`, which stands before 14: `post #8 b12`, which has to come before cpu:0 13: `wait #8 b2`, which stands before 14: `post #6 b12`, which has to come before the first
    Hang: nobody can go on: cpu:1 0: `wait #1 b0`, which stands before 3: `post #2 b1` behind `b` from relay.rs:2:1, which has to come before cpu:2 0: `wait #2 b0`, which stands before 1: `grant #3`, which has to come before cpu:0 2: `post #3 b1`, which stands before 3: `post #1 b1`, which has to come before the first
    "#);
    // The places are a circle: neighbours on one device, or joined by a channel; and it closes.
    for fault in behind.iter().chain(&mutual).chain(&late).filter(|f| f.kind == FaultKind::Hang) {
        assert!(fault.places.len() > 2 && fault.device.is_none());
        let devices: Vec<u16> = fault.places.iter().map(|p: &Place| p.device).collect();
        assert!(devices.iter().any(|d| *d != devices[0]), "{fault}");
    }
}

#[test]
fn what_comes_behind_many_faults_is_not_believed_either() {
    let text = several()[2].1.to_string();
    let many = "copy b70 -> b71 ".repeat(500);
    let text = text.replacen("wait #0 b0\n", &format!("wait #0 b0 {many}\n"), 1);
    let text = text.replace("staging at 16", "staging at 16 of b70[0..4], b2[9..3]");
    let faults = Plan::parse(&text).expect("it parses").certify().expect_err("it has faults");
    assert_eq!(faults.len(), 100);
}

/// `devices` that each do `launches` and hand something to the next one after every tenth.
fn large(devices: u16, launches: usize) -> Plan {
    let mut kernels = Arena::default();
    let exp: KernelId = kernels.push(each(&[4], 1, |x| x(0).exp()));
    let (mut channels, mut parts) = (Arena::default(), Vec::new());
    let meets = launches / 10;
    for from in 0..devices {
        for n in 0..meets {
            let (from, to) = (Endpoint::Device(from), Endpoint::Device((from + 1) % devices));
            channels.push(Channel { from, to, ty: f32s(&[4]), start: 0, label: format!("x{n}").into() });
        }
    }
    for me in 0..devices {
        let id = |from: u16, n: usize| ChannelId::new(usize::from(from) * meets + n);
        let before = (me + devices - 1) % devices;
        let mut buffers: Arena<BufferId, Buffer> = Arena::default();
        let mut buffer =
            |memory, n: u64| buffers.push(Buffer { memory, offset: 16 * n, ty: f32s(&[4]), pieces: vec![] });
        let scratch: Vec<BufferId> = (0..launches as u64 + 1).map(|n| buffer(Memory::Scratch, n)).collect();
        let slots: Vec<BufferId> = (0..meets as u64).map(|n| buffer(Memory::Staging, n)).collect();
        let launch = |from, to| {
            let (kernel, label, site) = (exp, Arc::from("exp"), Site::default());
            Instruction::Launch(Launch { kernel, reads: vec![from], writes: vec![to], workspace: (0, 0), label, site })
        };
        let state = buffers.push(Buffer { memory: Memory::State, offset: 0, ty: f32s(&[4]), pieces: vec![] });
        let mut instructions = vec![launch(state, scratch[0])];
        let mut last = scratch[0];
        for n in 0..meets {
            instructions.push(Instruction::Post { channel: id(me, n), buffer: last });
            instructions.push(Instruction::Wait { channel: id(before, n), buffer: slots[n] });
            let mut value = slots[n];
            for k in 1..10 {
                instructions.push(launch(value, scratch[10 * n + k]));
                value = scratch[10 * n + k];
            }
            instructions.push(Instruction::Grant(id(before, n)));
            last = value;
        }
        instructions.extend((0..meets).map(|n| Instruction::Sent(id(me, n))));
        instructions.push(Instruction::Commit);
        instructions.push(launch(last, state));
        let (scratch_bytes, staging_bytes) = (16 * (launches as u64 + 1), 16 * meets as u64);
        let device = format!("cpu:{me}").into();
        parts.push(DevicePlan { device, state_bytes: 16, scratch_bytes, staging_bytes, buffers, instructions });
    }
    let (graph, program) = (Arc::from("large"), Arc::from("run"));
    Plan { graph, program, bindings: Default::default(), kernels, channels, devices: parts }
}

#[test]
fn a_large_plan_is_verified_in_well_under_a_second() {
    let mut plan = large(8, 5_000);
    let begin = Instant::now();
    let certificate = plan.certify().unwrap_or_else(|faults| panic!("{}", faults[0]));
    let took = begin.elapsed();
    println!("{} nodes, {} edges, {} channels: {took:?}", certificate.nodes, certificate.edges, certificate.channels);
    assert!(certificate.nodes > 8 * 5_000 && took < Duration::from_secs(1), "{took:?}");
    // And one in which everybody waits first, which is all circles.
    for device in &mut plan.devices {
        let post = device.instructions.iter().position(|i| matches!(i, Instruction::Post { .. })).expect("it posts");
        device.instructions.swap(post, post + 1);
    }
    let begin = Instant::now();
    let faults = plan.certify().expect_err("it hangs");
    let took = begin.elapsed();
    println!("{took:?}: {}", faults[0]);
    assert!(faults.iter().all(|f| f.kind == FaultKind::Hang) && took < Duration::from_secs(2), "{took:?}");
}
