//! Pictures of graphs: whole, of one program, and with names that mean something to the languages they are drawn in.

#![allow(missing_docs)]

mod common;

use common::digits;
use thalweg_graph::NodeId;
use thalweg_graph::draw::{dot, mermaid};

#[test]
fn a_graph_is_drawn_for_graphviz() {
    insta::assert_snapshot!(dot(&digits(), Some("train")), @r#"
    digraph {
      label="digits: train" labelloc=t fontname="sans-serif"
      node [fontname="sans-serif" fontsize=11 shape=box style=rounded]
      edge [fontname="monospace" fontsize=9]
      n0 [label="image" shape=invhouse style=solid]
      n3 [label="join"]
      n5 [label="mix\nto: bf16"]
      n6 [label="step" shape=cylinder style=solid]
      out0 [label="train\nloss" shape=house style=solid]
      out1 [label="train\nwhere" shape=house style=solid]
      subgraph cluster0 {
        label="body" color=gray
        n1 [label="body.weight" shape=cylinder style=solid]
        n2 [label="mix \"hid\\\"den\\n\"\npad: [1, 1]\nrate: 0.5\nflip: true\nshape: shape[batch]"]
        n4 [label="top"]
      }
      n0 -> n2 [label="f32[batch, 8]"]
      n1 -> n2 [label="f32[8, 8]"]
      n2 -> n3 [label="f32[batch, 8]"]
      n0 -> n3 [label="f32[batch, 8]"]
      n0 -> n3 [label="f32[batch, 8]"]
      n3 -> n4 [label="f32[3*batch, 8]"]
      n1 -> n5 [label="f32[8, 8]"]
      n0 -> n5 [label="f32[batch, 8]"]
      n4 -> out0 [label="f32[3*batch]"]
      n4 -> out1 [label=".1 i32[3*batch]"]
      n5 -> n1 [label="f32[8, 8]" style=dashed constraint=false]
      n6 -> n6 [label="i64[]" style=dashed constraint=false]
    }
    "#);
}

#[test]
fn a_graph_is_drawn_for_mermaid() {
    insta::assert_snapshot!(mermaid(&digits(), Some("train")), @r#"
    ---
    title: "digits: train"
    ---
    flowchart TD
      n0[/"image"/]
      n3["join"]
      n5["mix<br/>to: bf16"]
      n6[("step")]
      out0(["train<br/>loss"])
      out1(["train<br/>where"])
      subgraph s0 ["body"]
        n1[("body.weight")]
        n2["mix #34;hid#92;#34;den#92;n#34;<br/>pad: [1, 1]<br/>rate: 0.5<br/>flip: true<br/>shape: shape[batch]"]
        n4["top"]
      end
      n0 -->|"f32[batch, 8]"| n2
      n1 -->|"f32[8, 8]"| n2
      n2 -->|"f32[batch, 8]"| n3
      n0 -->|"f32[batch, 8]"| n3
      n0 -->|"f32[batch, 8]"| n3
      n3 -->|"f32[3*batch, 8]"| n4
      n1 -->|"f32[8, 8]"| n5
      n0 -->|"f32[batch, 8]"| n5
      n4 -->|"f32[3*batch]"| out0
      n4 -->|".1 i32[3*batch]"| out1
      n5 -.->|"f32[8, 8]"| n1
      n6 -.->|"i64[]"| n6
    "#);
}

#[test]
fn a_program_is_drawn_without_what_it_does_not_need() {
    let (whole, part) = (dot(&digits(), None), dot(&digits(), Some("predict")));
    assert!(whole.contains("n4") && !part.contains("n4"), "{part}");
    assert!(dot(&digits(), Some("nope")).contains("there is no program"));
}

#[test]
fn deep_scopes_are_frames_that_all_close() {
    let mut graph = digits();
    graph.nodes[NodeId(3)].scope = "x.".repeat(100_000).into();
    graph.nodes[NodeId(4)].scope = "body.a.b\"]; evil".into();
    for text in [dot(&graph, None), mermaid(&graph, None)] {
        let (opened, closed) =
            (text.matches("subgraph").count(), text.lines().filter(|l| matches!(l.trim(), "}" | "end")));
        let closed = closed.count() - usize::from(text.starts_with("digraph"));
        assert_eq!(opened, closed, "{text}");
        assert!(!text.contains("b\"]"), "{text}");
    }
}
