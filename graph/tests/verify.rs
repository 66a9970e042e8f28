//! The verifier sees every fault of a graph, not only the first.

#![allow(missing_docs)]

mod common;

use common::digits;
use thalweg_graph::{DType, Dim, Graph, NodeId, TensorType, Value, VarId};

fn faults(spoil: impl FnOnce(&mut Graph)) -> String {
    let mut graph = digits();
    assert_eq!(graph.verify(), []);
    spoil(&mut graph);
    graph.verify().iter().map(|f| format!("{f}\n")).collect()
}

#[test]
fn operands_come_before_their_uses_and_exist() {
    insta::assert_snapshot!(faults(|g| {
        g.nodes[NodeId(2)].operands = vec![NodeId(2).into(), Value { node: NodeId(0), slot: 3 }];
        g.nodes[NodeId(4)].operands = vec![Value::POISON];
    }), @r#"
    node %2: operand `lhs` is %2, which does not come before it
    node %2: operand `rhs` is %0.3, but %0 has 1 result
    node %4: operand `rows` is %poison, which does not come before it
    "#);
}

#[test]
fn types_and_arity_are_what_the_op_says() {
    insta::assert_snapshot!(faults(|g| {
        g.nodes[NodeId(2)].operands.pop();
        g.nodes[NodeId(3)].types = vec![DType::F32.of([1])];
        g.nodes[NodeId(4)].types.pop();
        g.programs.clear();
    }), @r#"
    node %2: [arity] `mix` takes 2 operands (lhs, rhs), got 1
    node %3: is stated as (f32[1]), but `join` of (f32[batch, 8], f32[batch, 8], f32[batch, 8]) gives (f32[3*batch, 8])
    node %4: top: [top.C1] needs a matrix, got f32[1]
    "#);
}

#[test]
fn variables_dimensions_and_inputs_are_checked() {
    insta::assert_snapshot!(faults(|g| {
        g.state[VarId(1)].name = g.state[VarId(0)].name.clone();
        g.state[VarId(0)].ty = DType::F32.of([Dim::named("batch")]);
        g.dims.clear();
        g.dims.insert("a b".into(), (3, 2));
    }), @r#"
    dimension `a b`: is no name: letters, digits and underscores
    dimension `a b`: its bounds 3..=2 are empty or reach beyond 1099511627776
    variable $0: there is no dimension `batch`
    variable $0: "body.weight" is f32[batch], but a variable's extents are numbers of moderate product
    variable $1: there is an earlier variable "body.weight"
    node %0: there is no dimension `batch`
    node %1: reads f32[8, 8], but variable "body.weight" is i64[]
    node %2: there is no dimension `batch`
    node %2: there is no dimension `batch`
    node %3: there is no dimension `batch`
    node %4: there is no dimension `batch`
    node %4: there is no dimension `batch`
    node %6: there is no variable "step"
    program "train": $0 "body.weight" is f32[batch] but its update %5 is f32[8, 8]
    "#);
}

#[test]
fn programs_are_checked() {
    insta::assert_snapshot!(faults(|g| {
        g.programs[1].name = "train".into();
        g.programs[1].outputs.push(("hidden".into(), Value::POISON));
        g.programs[1].updates = vec![(VarId(9), NodeId(0).into()), (VarId(0), NodeId(1).into()), (VarId(0), NodeId(0).into())];
    }), @r#"
    program "train": there is an earlier program of that name
    program "train": returns two values as "hidden"
    program "train": returns "hidden" = %poison, which does not exist
    program "train": updates $9, which does not exist
    program "train": updates $0 twice
    program "train": $0 "body.weight" is f32[8, 8] but its update %0 is f32[batch, 8]
    "#);
}

#[test]
fn extents_have_one_spelling() {
    let odd = Dim::Poly(vec![(0, vec!["batch".into()]), (1, vec![])].into());
    let found = faults(|g| g.nodes[NodeId(0)].types = vec![TensorType { dtype: DType::F32, shape: vec![odd].into() }]);
    assert!(found.contains("normal form"), "{found}");
}

/// An epilogue runs even where the fold axes are empty: what only it reads must be inside all the same.
#[test]
fn an_empty_fold_excuses_no_read_of_the_epilogue() {
    use thalweg_graph::kernel::BufferType;
    use thalweg_graph::kernel::build::{Axes, read, sum};
    let f32s = |shape: &[u64]| BufferType { dtype: thalweg_graph::DType::F32, shape: shape.to_vec() };
    let kernel = |fold: u64, shift: i64| {
        let mut axes = Axes::new();
        let ([i], [k]) = (axes.par([4]), axes.fold([fold]));
        let value =
            sum(read(0, [i.into(), k.into()] as [thalweg_graph::kernel::build::Affine; 2])) + read(1, [i + shift]);
        axes.nest(&[f32s(&[4, fold]), f32s(&[4])], &[f32s(&[4])], [value])
    };
    assert_eq!(kernel(0, 0).verify(), Vec::<String>::new());
    assert_eq!(kernel(3, 0).verify(), Vec::<String>::new());
    assert_eq!(kernel(0, 1).verify().len(), 1);
    assert_eq!(kernel(3, -1).verify().len(), 1);
}
