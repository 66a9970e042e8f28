//! Plans written by hand, small enough to follow: between them they have all that lowering makes use of.

#![allow(dead_code, missing_docs, unreachable_pub)] // Each test uses its part.

pub mod devices;

use thalweg_graph::DType;
use thalweg_graph::kernel::build::{Axes, Expr, read, sum};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::plan::Plan;

pub fn f32s(shape: &[u64]) -> BufferType {
    BufferType { dtype: DType::F32, shape: shape.to_vec() }
}

/// Element by element over `shape`.
pub fn each(shape: &[u64], operands: usize, value: impl Fn(&dyn Fn(u16) -> Expr) -> Expr) -> Kernel {
    let mut axes = Axes::new();
    let at = axes.par_over(shape);
    let value = value(&|operand| read(operand, at.iter().copied()));
    axes.nest(&vec![f32s(shape); operands], &[f32s(shape)], [value])
}

fn matmul() -> Kernel {
    let mut axes = Axes::new();
    let ([i, j], [k]) = (axes.par([2, 2]), axes.fold([3]));
    axes.nest(&[f32s(&[2, 3]), f32s(&[3, 2])], &[f32s(&[2, 2])], [sum(read(0, [i, k]) * read(1, [k, j]))])
}

fn bias() -> Kernel {
    let mut axes = Axes::new();
    let [i, j] = axes.par([2, 2]);
    axes.nest(&[f32s(&[2, 2]), f32s(&[2])], &[f32s(&[2, 2])], [read(0, [i, j]) + read(1, [j])])
}

pub fn reverse() -> Kernel {
    let mut axes = Axes::new();
    let [i] = axes.par([4]);
    axes.nest(&[f32s(&[4])], &[f32s(&[4])], [read(0, [i * -1 + 3i64])])
}

/// The sum and the sum of squares of each row.
fn moments() -> Kernel {
    let mut axes = Axes::new();
    let ([i], [k]) = (axes.par([2]), axes.fold([2]));
    let x = || read(0, [i, k]);
    axes.nest(&[f32s(&[2, 2])], &[f32s(&[2]), f32s(&[2])], [sum(x()), sum(x() * x())])
}

/// Scratch is used again, in place and not; a value is read twice; a kernel has a workspace, another two results; one
/// tensor is empty and lies in the middle of another.
fn predict() -> String {
    let relu = each(&[4], 1, |x| x(0).max(0.0));
    let square = each(&[4], 2, |x| x(0) * x(1));
    let none = each(&[0], 1, |x| x(0).exp());
    format!(
        r#"plan "digits" program "predict" batch=2, n=3 {{
          k0 = {} k1 = {} k2 = {relu} k3 = {} k4 = {square} k5 = {} k6 = {none}
          #0: f32[2, 3] = driver -> device 0 "image"
          #1: f32[4] = device 0 -> driver "reversed"
          #2: f32[2] = device 0 -> driver "squares"
          #3: f32[0] = driver -> device 0 "nothing"
          #4: f32[0] = device 0 -> driver "still nothing"
          #5: f32[2] = device 0 -> driver "sums"
          device 0 "test" state 64 scratch 192 staging 64 {{
            b0: f32[2, 3] = staging at 0
            b1: f32[3, 2] = state at 0
            b2: f32[2] = state at 24
            b3: f32[2, 2] = scratch at 0
            b4: f32[2, 2] = scratch at 0
            b5: f32[4] = scratch at 0
            b6: f32[4] = scratch at 64
            b7: f32[2, 2] = scratch at 0
            b8: f32[2] = scratch at 128
            b9: f32[2] = scratch at 136
            b10: f32[0] = staging at 24
            b11: f32[0] = scratch at 68
            wait #0 b0
            wait #3 b10
            launch k0 b0, b1 -> b3 work 64 bytes at 64 "hidden: matmul"
            launch k1 b3, b2 -> b4 "hidden: add"
            launch k2 b4 -> b5 "relu"
            launch k3 b5 -> b6 "reverse"
            launch k4 b6, b6 -> b7 "square"
            launch k6 b10 -> b11 "nothing"
            launch k5 b7 -> b8, b9 work 32 bytes at 16 "moments"
            post #1 b6
            post #2 b9
            post #4 b11
            post #5 b8
          }}
        }}"#,
        matmul(),
        bias(),
        reverse(),
        moments()
    )
}

/// A step of training: gradients in a row, one update in place for both parameters, a counter.
fn train() -> String {
    let sub = each(&[2, 2], 2, |x| x(0) - x(1));
    let sgd = each(&[8], 2, |x| x(0) - x(1) * 0.5);
    let mut axes = Axes::new();
    let ([k, j], [i]) = (axes.par([3, 2]), axes.fold([2]));
    let weight = axes.nest(&[f32s(&[2, 3]), f32s(&[2, 2])], &[f32s(&[3, 2])], [sum(read(0, [i, k]) * read(1, [i, j]))]);
    let mut axes = Axes::new();
    let step = BufferType { dtype: DType::I64, shape: vec![] };
    axes.par([]);
    let count = axes.nest(std::slice::from_ref(&step), std::slice::from_ref(&step), [read(0, Vec::<i64>::new()) + 1.0]);
    format!(
        r#"plan "digits" program "train" {{
          k0 = {} k1 = {} k2 = {sub} k3 = {weight} k4 = {} k5 = {sgd} k6 = {count}
          #0: f32[2, 3] = driver -> device 0 "image"
          #1: f32[2, 2] = driver -> device 0 "target"
          #2: f32[2] = device 0 -> driver "loss"
          device 0 "test" state 128 scratch 192 staging 128 {{
            b0: f32[2, 3] = staging at 0
            b1: f32[2, 2] = staging at 64
            b2: f32[3, 2] = state at 0
            b3: f32[2] = state at 24
            b4: f32[8] = state at 0
            b5: i64[] = state at 64
            b6: f32[2, 2] = scratch at 0
            b7: f32[2, 2] = scratch at 0
            b8: f32[2, 2] = scratch at 0
            b9: f32[3, 2] = scratch at 64
            b10: f32[2] = scratch at 88
            b11: f32[8] = scratch at 64 of b9[0..6], b10[0..2]
            b12: f32[2] = scratch at 128
            wait #0 b0
            wait #1 b1
            launch k0 b0, b2 -> b6 work 32 bytes at 128 "matmul"
            launch k1 b6, b3 -> b7 "add"
            launch k2 b7, b1 -> b8 "sub"
            launch k4 b8 -> b10, b12 "moments"
            launch k3 b0, b8 -> b9 "matmul"
            post #2 b12
            commit
            launch k5 b4, b11 -> b4 work 16 bytes at 0 "weight: sgd … 2 updates"
            launch k6 b5 -> b5 "step: count"
          }}
        }}"#,
        matmul(),
        bias(),
        moments()
    )
}

/// Two variables change places, a third takes what one of them was, and that is fetched too.
fn swap() -> String {
    let add = each(&[4], 2, |x| x(0) + x(1));
    format!(
        r#"plan "swap" program "step" {{
          k0 = {add} k1 = {}
          #0: f32[4] = device 0 -> driver "was"
          device 0 "test" state 64 scratch 64 staging 0 {{
            b0: f32[4] = state at 0
            b1: f32[4] = state at 16
            b2: f32[2, 2] = state at 32
            b3: f32[4] = scratch at 0
            b4: f32[4] = scratch at 16
            copy b0 -> b3
            launch k1 b2 -> b4 "reverse"
            post #0 b0
            commit
            launch k0 b0, b4 -> b2 "add"
            copy b1 -> b0
            copy b3 -> b1
          }}
        }}"#,
        reverse()
    )
}

/// Chains whose lives cross, so that every place is used several times.
fn crossing() -> String {
    let (exp, add) = (each(&[4], 1, |x| x(0).exp()), each(&[4], 2, |x| x(0) + x(1)));
    format!(
        r#"plan "crossing" program "run" {{
          k0 = {exp} k1 = {add} k2 = {}
          #0: f32[4] = driver -> device 0 "x"
          #1: f32[4] = device 0 -> driver "y"
          device 0 "test" state 0 scratch 48 staging 16 {{
            b0: f32[4] = staging at 0
            b1: f32[4] = scratch at 0
            b2: f32[4] = scratch at 16
            b3: f32[4] = scratch at 32
            b4: f32[4] = scratch at 0
            b5: f32[4] = scratch at 16
            b6: f32[8] = scratch at 16 of b5[0..4], b7[0..4]
            b7: f32[4] = scratch at 32
            b8: f32[4] = scratch at 0
            wait #0 b0
            launch k0 b0 -> b1 "a"
            launch k2 b1 -> b2 "b"
            launch k1 b1, b2 -> b3 "c"
            launch k1 b2, b3 -> b4 "d"
            launch k2 b4 -> b5 "e"
            copy b4 -> b7
            launch k1 b5, b7 -> b8 work 0 bytes at 16 "f"
            post #1 b8
          }}
        }}"#,
        reverse()
    )
}

pub fn plans() -> Vec<(&'static str, Plan)> {
    [("predict", predict()), ("train", train()), ("swap", swap()), ("crossing", crossing())]
        .map(|(name, text)| (name, Plan::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"))))
        .into()
}
