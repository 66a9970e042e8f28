//! Graphs: what is printed parses back to the same graph, bytes likewise, and whatever else is parsed is refused with
//! its place and never a panic.

#![allow(missing_docs)]

mod common;

use common::{Die, digits, registry};
use thalweg_graph::{Dim, Graph, ParseError, Pin, WireError};

fn refused(text: &str) -> ParseError {
    match Graph::parse(text, &registry()) {
        Ok(graph) => panic!("this should be refused:\n{text}\nbut is\n{graph}"),
        Err(error) => error,
    }
}

/// `digits` with `from` replaced, refused.
#[track_caller]
fn refused_with(from: &str, to: &str) -> String {
    let text = digits().to_string();
    assert!(text.contains(from), "{text}");
    refused(&text.replacen(from, to, 1)).to_string()
}

#[test]
fn a_graph_prints_as_expected() {
    insta::assert_snapshot!(digits(), @r#"
    graph "digits" seed 7 {
      dim batch 1..=512
      $0: f32[8, 8] = param "body.weight" uniform(-0.25, 0.25) in "adamw"
      $1: i64[] = counter "step" constant(-0.0)
      %0: f32[batch, 8] = input {name: "image"} "image"
      %1: f32[8, 8] = variable {variable: "body.weight"} @"body"
      %2: f32[batch, 8] = mix %0, %1 {pad: [1, 1], rate: 0.5, flip: true, shape: shape[batch]} @"body" "hid\"den\n"
      %3: f32[3*batch, 8] = join %2, %0, %0
      %4: f32[3*batch], i32[3*batch] = top %3 @"body" from "softmax"
      %5: f32[8, 8] = mix %1, %0 {to: bf16}
      %6: i64[] = variable {variable: "step"}
      program "train" {
        return "loss" = %4, "where" = %4.1
        update $0 = %5
        update $1 = %6
      }
      program "predict" {
        return "hidden" = %2
      }
    }
    "#);
}

#[test]
fn what_is_printed_parses_back() {
    let graph = digits();
    assert_eq!(Graph::parse(&graph.to_string(), &registry()), Ok(graph.clone()));
    let with_sites = Graph::parse(&format!("{graph:#}"), &registry()).expect("it parses");
    assert_eq!(with_sites, graph);
    assert!(with_sites.nodes.values().iter().zip(graph.nodes.values()).all(|(a, b)| a.site == b.site));
    let empty = Graph::default();
    assert_eq!(Graph::parse(&empty.to_string(), &registry()), Ok(empty));
}

#[test]
fn floats_of_any_bits_come_back() {
    for rate in ["nan", "nan(0xfff8000000000001)", "-0.0", "inf", "-inf", "5e-324", "-1e300"] {
        let text = digits().to_string().replace("rate: 0.5", &format!("rate: {rate}")).replace("(-0.0)", "(nan)");
        let graph = Graph::parse(&text, &registry()).expect("it parses");
        assert_eq!(graph.to_string(), text);
        assert_eq!(Graph::parse(&graph.to_string(), &registry()).as_ref(), Ok(&graph));
        assert_eq!(Graph::from_bytes(&graph.to_bytes(), &registry()), Ok(graph));
    }
}

#[test]
fn white_space_and_comments_mean_nothing() {
    let text = "// a comment\ngraph \"g\" seed 0x10{%0:f32[2,\n2]=input{name:\"x\"}// more\n%1:f32[2],i32[2]=top %0 program \"p\"{return\"i\"=%1.1}}";
    let graph = Graph::parse(text, &registry()).expect("it parses");
    assert_eq!((graph.seed, graph.nodes.len(), graph.programs.len()), (16, 2, 1));
}

#[test]
fn bytes_come_back_and_do_not_know_source_lines() {
    let graph = digits();
    let bytes = graph.to_bytes();
    assert_eq!(Graph::from_bytes(&bytes, &registry()), Ok(graph.clone()));
    let without_sites = Graph::parse(&graph.to_string(), &registry()).expect("it parses");
    assert_eq!(without_sites.hash(), graph.hash());
    assert_eq!(graph.hash().to_string().len(), 64);
    let other = Graph { seed: 8, ..graph.clone() };
    assert_ne!(other.hash(), graph.hash());
}

/// Where something runs, and how it is spread, is said in text and bytes, and is no part of what is computed.
#[test]
fn pins_come_back_and_do_not_change_the_name() {
    let mut graph = digits();
    let ids: Vec<_> = graph.nodes.ids().collect();
    graph.nodes[ids[1]].sharding = Some([Some("tp".into()), None].into());
    graph.nodes[ids[2]].pin = Some(Pin::Stage(3));
    graph.nodes[ids[4]].pin = Some(Pin::On("gpu:\"0\"".into()));
    let text = graph.to_string();
    assert!(text.contains("\"hid\\\"den\\n\" stage 3\n"), "{text}");
    assert!(text.contains("from \"softmax\" on \"gpu:\\\"0\\\"\"\n"), "{text}");
    assert_eq!(Graph::parse(&text, &registry()), Ok(graph.clone()));
    assert_eq!(Graph::from_bytes(&graph.to_bytes(), &registry()), Ok(graph.clone()));
    assert_ne!(graph, digits());
    assert_eq!(graph.hash(), digits().hash());
    assert!(refused(&text.replace("stage 3", "stage 70000")).to_string().contains("stage"));
    assert!(text.contains("@\"body\" shard [\"tp\", _]\n"), "{text}");
    for (wrong, says) in [
        ("[\"tp\"]", "1 axes are told how to be spread"),
        ("[\"tp\", \"tp\"]", "two axes cannot both"),
        ("[\"t p\", _]", "cannot be an axis of a mesh"),
        ("[tp, _]", "an axis of a mesh, quoted, or `_`"),
    ] {
        let error = refused(&text.replace("[\"tp\", _]", wrong)).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn mistakes_are_reported_at_their_place() {
    insta::assert_snapshot!(refused_with("batch, 8]", "batch, 8}"), @r#"
    line 5, column 19: expected `,` or `]`, found `}`
      |   %0: f32[batch, 8} = input {name: "image"} "image"
      |                   ^
    "#);
    insta::assert_snapshot!(refused_with("mix %0, %1", "mix %0, %7"), @r#"
    line 7, column 31: %7 has not been declared before this use
      |   %2: f32[batch, 8] = mix %0, %7 {pad: [1, 1], rate: 0.5, flip: true, shape: shape[batch]} @"body" "hid\"den\n"
      |                               ^
    "#);
    insta::assert_snapshot!(refused_with("top %3", "top %3.1"), @r#"
    line 9, column 40: there is no %3.1: %3 has 1 result
      |   %4: f32[3*batch], i32[3*batch] = top %3.1 @"body" from "softmax"
      |                                        ^
    "#);
    insta::assert_snapshot!(refused_with("= mix", "= mxi"), @r#"
    line 7, column 23: there is no op `mxi`; did you mean `mix`?
      |   %2: f32[batch, 8] = mxi %0, %1 {pad: [1, 1], rate: 0.5, flip: true, shape: shape[batch]} @"body" "hid\"den\n"
      |                       ^
    "#);
    insta::assert_snapshot!(refused_with("rate: 0.5", "raet: 0.5"), @r#"
    line 7, column 48: `mix` has no attribute `raet`; it has pad, rate, stream, label, flip, to, axes, shape; did you mean `rate`?
      |   %2: f32[batch, 8] = mix %0, %1 {pad: [1, 1], raet: 0.5, flip: true, shape: shape[batch]} @"body" "hid\"den\n"
      |                                                ^
    "#);
    insta::assert_snapshot!(refused_with("rate: 0.5", "rate: true"), @r#"
    line 7, column 48: attribute `rate` of `mix` cannot be true
      |   %2: f32[batch, 8] = mix %0, %1 {pad: [1, 1], rate: true, flip: true, shape: shape[batch]} @"body" "hid\"den\n"
      |                                                ^
    "#);
    insta::assert_snapshot!(refused_with("%3: f32[3*batch, 8]", "%3: f32[2*batch, 8]"), @r#"
    line 8, column 25: node %3: is stated as (f32[2*batch, 8]), but `join` of (f32[batch, 8], f32[batch, 8], f32[batch, 8]) gives (f32[3*batch, 8]) (and 1 more)
      |   %3: f32[2*batch, 8] = join %2, %0, %0
      |                         ^
    "#);
    insta::assert_snapshot!(refused_with("%4:", "%5:"), @r#"
    line 9, column 3: ids count up without a gap: expected `%4`, found `%5`
      |   %5: f32[3*batch], i32[3*batch] = top %3 @"body" from "softmax"
      |   ^
    "#);
    insta::assert_snapshot!(refused_with("update $0 = %5", "update $0 = %0"), @r#"
    line 12, column 3: program "train": $0 "body.weight" is f32[8, 8] but its update %0 is f32[batch, 8]
      |   program "train" {
      |   ^
    "#);
    insta::assert_snapshot!(refused_with("dim batch", "dim bunch"), @r#"
    line 5, column 23: node %0: there is no dimension `batch` (and 5 more)
      |   %0: f32[batch, 8] = input {name: "image"} "image"
      |                       ^
    "#);
}

#[test]
fn every_extent_prints_and_parses() {
    let named = |name: &str| Dim::named(name);
    let sum = Dim::from_terms([(8, vec!["batch".into()]), (-2, vec!["n".into(), "batch".into()]), (-1, vec![])]);
    for dim in [Dim::Fixed(0), named("batch"), sum.expect("named")] {
        let text = format!("graph \"\" seed 0 {{ dim batch 1..=2 dim n 0..=1 %0: u8[{dim}] = input {{name: \"x\"}} }}");
        let graph = Graph::parse(&text, &registry()).expect("it parses");
        assert_eq!(graph.nodes.values()[0].types[0].shape[0], dim);
    }
}

#[test]
fn mutated_text_never_panics_and_is_refused_with_its_place() {
    let (registry, mut die) = (registry(), Die(1));
    let text = format!("{:#}", digits());
    let cuts = text.char_indices().map(|(i, _)| text[..i].to_string());
    let mutants: Vec<String> = cuts.chain((0..20_000).map(|_| die.mutate_text(&text))).collect();
    let mut accepted = 0;
    for mutant in &mutants {
        match Graph::parse(mutant, &registry) {
            Ok(graph) => {
                accepted += 1;
                assert_eq!(Graph::parse(&graph.to_string(), &registry).as_ref(), Ok(&graph), "{mutant}");
                assert_eq!(Graph::from_bytes(&graph.to_bytes(), &registry).as_ref(), Ok(&graph), "{mutant}");
            }
            Err(error) => {
                assert!((1..=mutant.matches('\n').count() + 1).contains(&error.line), "{mutant}\n{error}");
                assert!(error.column >= 1 && !error.message.is_empty(), "{mutant}\n{error}");
            }
        }
    }
    assert!(accepted > 0 && accepted < mutants.len() / 2, "{accepted} of {}", mutants.len());
}

#[test]
fn mutated_bytes_never_panic_and_only_canonical_ones_are_accepted() {
    let (registry, mut die) = (registry(), Die(2));
    let bytes = digits().to_bytes();
    let cuts = (0..bytes.len()).map(|n| bytes[..n].to_vec());
    // A length of 2^63 wherever a length may stand: it must not be believed.
    let lengths = (12..bytes.len()).map(|n| [&bytes[..n], &[0x80; 9], &[1], &bytes[n..]].concat());
    let mutants: Vec<Vec<u8>> = cuts.chain(lengths).chain((0..20_000).map(|_| die.mutate_bytes(&bytes))).collect();
    let mut refused = 0;
    for mutant in &mutants {
        match Graph::from_bytes(mutant, &registry) {
            Ok(graph) => assert_eq!(&graph.to_bytes(), mutant),
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    assert!(refused > mutants.len() / 4, "{refused} of {}", mutants.len());
}

#[test]
fn bytes_that_are_something_else_are_named() {
    let (registry, bytes) = (registry(), digits().to_bytes());
    let read = |bytes: &[u8]| Graph::from_bytes(bytes, &registry).expect_err("it is refused");
    assert!(matches!(read(b"PNG or so, and long"), WireError::Magic { .. }));
    assert!(matches!(read(&bytes[..5]), WireError::Truncated(5)));
    assert!(matches!(read(&bytes[..bytes.len() - 1]), WireError::Truncated(_)));
    assert!(matches!(read(&[&bytes[..], &[0]].concat()), WireError::Trailing { count: 1, .. }));
    let mut newer = bytes.clone();
    newer[8] = 99;
    assert_eq!(read(&newer), WireError::Version { found: 99, expected: 4 });
}
