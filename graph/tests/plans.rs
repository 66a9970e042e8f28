//! Plans as text and bytes: any plan prints, parses and travels unchanged; whatever else is read is refused with its
//! place and never a panic, and no number in it is believed.

#![allow(missing_docs)]

mod common;
mod plan;

use common::Die;
use plan::devices::several;
use plan::{each, plans};
use thalweg_graph::plan::{BufferId, ChannelId, Instruction, Launch, Plan};
use thalweg_graph::{Site, WireError};

/// Nobody would verify it, but it shows everything that the text can say.
fn everything() -> String {
    let exp = each(&[4], 1, |x| x(0).exp());
    format!(
        r#"plan "a \"name\"\n" program "" "odd name"=18446744073709551615, n=0 {{
          k0 = {exp}
          #0: f32[] = device 65535 -> device 1 ""
          #1: bool[0, 18446744073709551615] = driver -> driver at 7 "é"
          device 0 "a" state 18446744073709551615 scratch 0 staging 1 {{ }}
          device 1 "b" state 0 scratch 0 staging 0 {{
            b0: bf16[7] = state at 18446744073709551615 of b0[0..3], b4294967295[18446744073709551615..0]
            launch k4294967295 -> "nothing to nothing"
            launch k0 b0, b0 -> work 18446744073709551615 bytes at 7 ""
            launch k0 -> b9, b0 work 0 bytes at 7 "b" at "a:b.rs:4294967295:0"
            grant #7 sent #4294967295 snapshot commit commit
            post #0 b1 wait #1 b2 copy b3 -> b4294967295
          }}
        }}"#
    )
}

#[test]
fn plans_print_as_expected() {
    insta::assert_snapshot!(Plan::parse(&everything()).expect("it parses"), @r#"
    plan "a \"name\"\n" program "" n=0, "odd name"=18446744073709551615 {
      k0 = nest (f32[4]) -> f32[4] {
        par a0: 4
        r0 = in0[a0]
        epilogue {
          v0: f32 = read r0
          v1: f32 = exp v0
        }
        out0[a0] = v1
      }
      #0: f32[] = device 65535 -> device 1 ""
      #1: bool[0, 18446744073709551615] = driver -> driver at 7 "é"
      device 0 "a" state 18446744073709551615 scratch 0 staging 1 {
      }
      device 1 "b" state 0 scratch 0 staging 0 {
        b0: bf16[7] = state at 18446744073709551615 of b0[0..3], b4294967295[18446744073709551615..0]
        launch k4294967295 -> "nothing to nothing"
        launch k0 b0, b0 -> work 18446744073709551615 bytes at 7 ""
        launch k0 -> b9, b0 work 0 bytes at 7 "b"
        grant #7
        sent #4294967295
        snapshot
        commit
        commit
        post #0 b1
        wait #1 b2
        copy b3 -> b4294967295
      }
    }
    "#);
}

#[test]
fn plans_round_trip() {
    for (name, plan) in plans().into_iter().chain(several()) {
        assert_eq!(plan.verify(), Vec::<String>::new(), "{name}");
        assert_eq!(Plan::parse(&plan.to_string()), Ok(plan.clone()), "{name}");
        assert_eq!(Plan::from_bytes(&plan.to_bytes()), Ok(plan.clone()), "{name}");
        assert_eq!(Plan::parse(&plan.to_string()).expect("it parses").hash(), plan.hash(), "{name}");
    }
    let odd = Plan::parse(&everything()).expect("it parses");
    assert_eq!(Plan::parse(&odd.to_string()), Ok(odd.clone()));
    assert!(matches!(Plan::from_bytes(&odd.to_bytes()), Err(WireError::UnsoundPlan(_))));
}

#[test]
fn source_lines_are_no_part_of_a_plan_but_labels_are() {
    let (_, plan) = plans().remove(0);
    let mut moved = plan.clone();
    let launch = |plan: &mut Plan, f: &dyn Fn(&mut Launch)| {
        plan.devices[0].instructions.iter_mut().for_each(|i| {
            if let Instruction::Launch(l) = i {
                f(l)
            }
        });
    };
    launch(&mut moved, &|l| l.site = Site { file: "a.rs".into(), line: 3, column: 9 });
    assert_eq!((&moved, moved.hash(), moved.to_string()), (&plan, plan.hash(), plan.to_string()));
    let lines = format!("{moved:#}");
    assert!(lines.contains(r#""relu" at "a.rs:3:9""#), "{lines}");
    assert_eq!(format!("{:#}", Plan::parse(&lines).expect("it parses")), lines);
    launch(&mut moved, &|l| l.label = "x".into());
    assert!(moved != plan && moved.hash() != plan.hash());
}

#[test]
fn mistakes_are_reported_at_their_place() {
    let refused = |from: &str, to: &str| {
        let text = plans()[1].1.to_string();
        assert!(text.contains(from), "{text}");
        Plan::parse(&text.replacen(from, to, 1)).expect_err("it is refused").to_string()
    };
    let all = [
        refused("b3: f32", "b4: f32"),
        refused("#1: f32", "#2: f32"),
        refused("device 0 \"test\"", "device 1 \"test\""),
        refused("staging 128", "stage 128"),
        refused("= state", "= stat"),
        refused("of b9[", "of k9["),
        refused("k1 = ", "k2 = "),
        refused("commit", "comit"),
        refused("-> b10, b12", "-> b10, b12,"),
        refused("driver -> device 0", "driver -> device 65536"),
        refused("program \"train\"", "program \"train\" n=1, n=2"),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    line 102, column 5: expected `b3`, the next in order, found `b4`
      |     b4: f32[2] = state at 24
      |     ^
    line 96, column 3: expected `#1`, the next in order, found `#2`
      |   #2: f32[2, 2] = driver -> device 0 "target"
      |   ^
    line 98, column 10: expected device 0, the next in order, found 1
      |   device 1 "test" state 128 scratch 192 staging 128 {
      |          ^
    line 98, column 41: expected `staging`, found `stage`
      |   device 0 "test" state 128 scratch 192 stage 128 {
      |                                         ^
    line 101, column 21: expected `state`, `scratch` or `staging`, found `stat`
      |     b2: f32[3, 2] = stat at 0
      |                     ^
    line 110, column 36: expected a buffer, like `b0`, found `k9`
      |     b11: f32[8] = scratch at 64 of k9[0..6], b10[0..2]
      |                                    ^
    line 18, column 3: expected `k1`, the next in order, found `k2`
      |   k2 = nest (f32[2, 2], f32[2]) -> f32[2, 2] {
      |   ^
    line 120, column 5: expected a buffer (`b0:`), an instruction or `}`, found `comit`
      |     comit
      |     ^
    line 117, column 31: expected a buffer, like `b0`, found `"moments"`
      |     launch k4 b8 -> b10, b12, "moments"
      |                               ^
    line 95, column 36: `65536` is out of range for a device's number
      |   #0: f32[2, 3] = driver -> device 65536 "image"
      |                                    ^
    line 1, column 36: dimension `n` is bound twice
      | plan "digits" program "train" n=1, n=2 {
      |                                    ^
    "#);
}

/// Parsing and verifying it ends, whatever it is; and what parses comes back.
fn survives(text: &str) {
    match Plan::parse(text) {
        Ok(plan) => {
            assert!(plan.verify().iter().all(|fault| !fault.is_empty()));
            assert_eq!(Plan::parse(&plan.to_string()), Ok(plan), "{text}");
        }
        Err(error) => {
            assert!((1..=text.matches('\n').count() + 1).contains(&error.line), "{text}\n{error}");
            assert!(error.column >= 1 && !error.message.is_empty(), "{text}\n{error}");
        }
    }
}

#[test]
fn mutated_text_never_panics_and_is_refused_with_its_place() {
    let mut die = Die(5);
    for (_, plan) in plans() {
        let text = plan.to_string();
        text.char_indices().step_by(3).for_each(|(i, _)| survives(&text[..i]));
        (0..6_000).for_each(|_| survives(&die.mutate_text(&text)));
    }
}

#[test]
fn no_number_is_believed() {
    const NUMBERS: [&str; 8] =
        ["0", "1", "65535", "65536", "4294967295", "281474976710656", "9223372036854775807", "18446744073709551615"];
    for (_, plan) in plans() {
        let text = plan.to_string();
        let mut at = 0;
        while let Some(start) = text[at..].find(|c: char| c.is_ascii_digit()).map(|i| at + i) {
            let end = text[start..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |i| start + i);
            NUMBERS.iter().for_each(|n| survives(&[&text[..start], n, &text[end..]].concat()));
            at = end;
        }
    }
}

#[test]
fn a_plan_of_one_mistake_has_a_short_list_of_faults() {
    let (_, mut plan) = plans().remove(3);
    let device = &mut plan.devices[0];
    device.instructions = (0..10_000).map(|i| Instruction::Grant(ChannelId(i))).collect();
    assert!((10..1000).contains(&plan.verify().len()));
}

#[test]
fn mutated_bytes_never_panic_and_only_canonical_ones_are_accepted() {
    let mut die = Die(6);
    for (_, plan) in plans() {
        let bytes = plan.to_bytes();
        let cuts = (0..bytes.len()).map(|n| bytes[..n].to_vec());
        let mutants: Vec<Vec<u8>> = cuts.chain((0..10_000).map(|_| die.mutate_bytes(&bytes))).collect();
        for mutant in &mutants {
            match Plan::from_bytes(mutant) {
                Ok(plan) => assert_eq!(&plan.to_bytes(), mutant),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

#[test]
fn arenas_have_no_room_to_overflow() {
    let (_, mut plan) = plans().remove(3);
    plan.devices[0].scratch_bytes = u64::MAX;
    plan.devices[0].buffers[BufferId(1)].offset = u64::MAX - 7;
    assert!(!plan.verify().is_empty());
}
