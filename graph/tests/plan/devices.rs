//! Plans of several devices written by hand: a perceptron trained on halves of a batch, one cut into two stages for two
//! microbatches, and a relay without state whose steps overlap. Between them: slots granted before their wait and
//! behind it, slots that share bytes in turn, gradients on their way while others are computed, two orders of a sum.

use super::{each, f32s};
use thalweg_graph::kernel::Kernel;
use thalweg_graph::kernel::build::{Axes, read, sum};
use thalweg_graph::plan::Plan;

/// `out[i, j] = Σₖ lhs · rhs`, of operands that may be turned round: (rows, columns, depth).
fn product([m, n, k]: [u64; 3], turn: [bool; 2]) -> Kernel {
    let mut axes = Axes::new();
    let ([i, j], [f]) = (axes.par([m, n]), axes.fold([k]));
    let (lhs, rhs) = (if turn[0] { [f, i] } else { [i, f] }, if turn[1] { [j, f] } else { [f, j] });
    let types = [f32s(&if turn[0] { [k, m] } else { [m, k] }), f32s(&if turn[1] { [n, k] } else { [k, n] })];
    axes.nest(&types, &[f32s(&[m, n])], [sum(read(0, lhs) * read(1, rhs))])
}

/// The sum of all squares.
fn loss() -> Kernel {
    let mut axes = Axes::new();
    let [i, j] = axes.fold([2, 2]);
    axes.nest(&[f32s(&[2, 2])], &[f32s(&[])], [sum(read(0, [i, j]) * read(0, [i, j]))])
}

/// What both perceptrons are made of: kernels 0 to 11.
fn kernels() -> String {
    let (add, sgd) = (|n| each(&[n], 2, |x| x(0) + x(1)), |n| each(&[n], 2, |x| x(0) - x(1) * 0.5));
    let all = [
        product([2, 2, 3], [false, false]),
        each(&[4], 1, |x| x(0).max(0.0)),
        product([2, 2, 2], [false, false]),
        each(&[4], 2, |x| x(0) - x(1)),
        loss(),
        product([2, 2, 2], [true, false]),
        product([2, 2, 2], [false, true]),
        each(&[4], 2, |x| x(0) * x(1)),
        product([3, 2, 2], [true, false]),
        add(4),
        add(6),
        sgd(10),
        sgd(6),
        sgd(4),
    ];
    all.iter().enumerate().map(|(i, kernel)| format!("k{i} = {kernel} ")).collect()
}

/// Two layers on halves of a batch. Each device sends its gradients, the later layer's while it computes the earlier's;
/// both add them in one order, so that both make the same update.
pub fn data_parallel() -> String {
    let device = |me: usize| {
        // What I send, what I receive, and whose gradient comes first in a sum.
        let (mine, theirs) = ([["#6", "#7"], ["#8", "#9"]][me], [["#8", "#9"], ["#6", "#7"]][me]);
        let ([w2, w1], [their_w2, their_w1]) = (mine, theirs);
        let (a, b) = (["b12, b2", "b2, b12"][me], ["b15, b3", "b3, b15"][me]);
        let (image, target, loss) = (["#0", "#1"][me], ["#2", "#3"][me], ["#4", "#5"][me]);
        format!(
            r#"device {me} "cpu:{me}" state 40 scratch 144 staging 88 {{
            b0: f32[2, 3] = staging at 0
            b1: f32[2, 2] = staging at 24
            b2: f32[2, 2] = staging at 40
            b3: f32[3, 2] = staging at 64
            b4: f32[3, 2] = state at 0
            b5: f32[2, 2] = state at 24
            b6: f32[10] = state at 0
            b7: f32[2, 2] = scratch at 0
            b8: f32[2, 2] = scratch at 0
            b9: f32[2, 2] = scratch at 16
            b10: f32[2, 2] = scratch at 16
            b11: f32[] = scratch at 32
            b12: f32[2, 2] = scratch at 48
            b13: f32[2, 2] = scratch at 64
            b14: f32[2, 2] = scratch at 64
            b15: f32[3, 2] = scratch at 80
            b16: f32[2, 2] = scratch at 128
            b17: f32[3, 2] = scratch at 104
            b18: f32[10] = scratch at 104 of b17[0..6], b16[0..4]
            grant {their_w1}
            wait {image} b0
            wait {target} b1
            launch k0 b0, b4 -> b7 "hidden: matmul" at "mlp.rs:4:9"
            launch k1 b7 -> b8 "hidden: relu" at "mlp.rs:4:20"
            launch k2 b8, b5 -> b9 "out: matmul" at "mlp.rs:5:9"
            launch k3 b9, b1 -> b10 "error: sub" at "mlp.rs:6:9"
            launch k4 b10 -> b11 "loss" at "mlp.rs:7:9"
            launch k5 b8, b10 -> b12 "out: gradient of the weight" at "mlp.rs:5:9"
            post {w2} b12
            launch k6 b10, b5 -> b13 "out: gradient of the input" at "mlp.rs:5:9"
            launch k7 b13, b8 -> b14 "hidden: gradient of relu" at "mlp.rs:4:20"
            launch k8 b0, b14 -> b15 "hidden: gradient of the weight" at "mlp.rs:4:9"
            post {w1} b15
            wait {their_w2} b2
            launch k9 {a} -> b16 "out: sum of gradients" at "mlp.rs:9:5"
            grant {their_w2}
            sent {w2}
            wait {their_w1} b3
            launch k10 {b} -> b17 "hidden: sum of gradients" at "mlp.rs:9:5"
            sent {w1}
            post {loss} b11
            commit
            launch k11 b6, b18 -> b6 "sgd … 2 updates" at "mlp.rs:9:5"
            }} "#
        )
    };
    format!(
        r#"plan "mlp" program "train" batch=4 {{
        {}
        #0: f32[2, 3] = driver -> device 0 "image"
        #1: f32[2, 3] = driver -> device 1 at 6 "image"
        #2: f32[2, 2] = driver -> device 0 "target"
        #3: f32[2, 2] = driver -> device 1 at 4 "target"
        #4: f32[] = device 0 -> driver "loss"
        #5: f32[] = device 1 -> driver at 1 "loss"
        #6: f32[2, 2] = device 0 -> device 1 "out: gradient"
        #7: f32[3, 2] = device 0 -> device 1 "hidden: gradient"
        #8: f32[2, 2] = device 1 -> device 0 "out: gradient"
        #9: f32[3, 2] = device 1 -> device 0 "hidden: gradient"
        {}{}}}"#,
        kernels(),
        device(0),
        device(1)
    )
}

/// A layer a device, two microbatches: hidden values go forward, cotangents come back, in the order 1F1B. The first
/// stage has one slot for both cotangents, in turn; the second grants both of its slots when a step begins.
pub fn pipeline() -> String {
    format!(
        r#"plan "mlp" program "train" batch=4, microbatches=2 {{
        {}
        #0: f32[2, 3] = driver -> device 0 "image"
        #1: f32[2, 3] = driver -> device 0 at 6 "image"
        #2: f32[2, 2] = driver -> device 1 "target"
        #3: f32[2, 2] = driver -> device 1 at 4 "target"
        #4: f32[2, 2] = device 0 -> device 1 "hidden, first"
        #5: f32[2, 2] = device 0 -> device 1 "hidden, second"
        #6: f32[2, 2] = device 1 -> device 0 "cotangent, first"
        #7: f32[2, 2] = device 1 -> device 0 "cotangent, second"
        #8: f32[] = device 1 -> driver "loss"
        #9: f32[] = device 1 -> driver at 1 "loss"
        device 0 "cpu:0" state 24 scratch 96 staging 64 {{
            b0: f32[2, 3] = staging at 0
            b1: f32[2, 3] = staging at 24
            b2: f32[2, 2] = staging at 48
            b3: f32[2, 2] = staging at 48
            b4: f32[3, 2] = state at 0
            b5: f32[2, 2] = scratch at 0
            b6: f32[2, 2] = scratch at 0
            b7: f32[2, 2] = scratch at 16
            b8: f32[2, 2] = scratch at 16
            b9: f32[2, 2] = scratch at 32
            b10: f32[3, 2] = scratch at 48
            b11: f32[2, 2] = scratch at 32
            b12: f32[3, 2] = scratch at 72
            b13: f32[3, 2] = scratch at 48
            wait #0 b0
            launch k0 b0, b4 -> b5 "hidden: matmul" at "pipe.rs:4:9"
            launch k1 b5 -> b6 "hidden: relu" at "pipe.rs:4:20"
            post #4 b6
            wait #1 b1
            launch k0 b1, b4 -> b7 "hidden: matmul" at "pipe.rs:4:9"
            launch k1 b7 -> b8 "hidden: relu" at "pipe.rs:4:20"
            post #5 b8
            wait #6 b2
            launch k7 b2, b6 -> b9 "hidden: gradient of relu" at "pipe.rs:4:20"
            grant #7
            sent #4
            launch k8 b0, b9 -> b10 "hidden: gradient of the weight" at "pipe.rs:4:9"
            wait #7 b3
            launch k7 b3, b8 -> b11 "hidden: gradient of relu" at "pipe.rs:4:20"
            grant #6
            sent #5
            launch k8 b1, b11 -> b12 "hidden: gradient of the weight" at "pipe.rs:4:9"
            launch k10 b10, b12 -> b13 "hidden: sum of gradients" at "pipe.rs:9:5"
            commit
            launch k12 b4, b13 -> b4 "sgd" at "pipe.rs:9:5"
        }}
        device 1 "cpu:1" state 16 scratch 96 staging 64 {{
            b0: f32[2, 2] = staging at 0
            b1: f32[2, 2] = staging at 16
            b2: f32[2, 2] = staging at 32
            b3: f32[2, 2] = staging at 48
            b4: f32[2, 2] = state at 0
            b5: f32[2, 2] = scratch at 0
            b6: f32[2, 2] = scratch at 0
            b7: f32[] = scratch at 16
            b8: f32[2, 2] = scratch at 32
            b9: f32[2, 2] = scratch at 48
            b10: f32[2, 2] = scratch at 0
            b11: f32[2, 2] = scratch at 0
            b12: f32[] = scratch at 20
            b13: f32[2, 2] = scratch at 64
            b14: f32[2, 2] = scratch at 80
            b15: f32[2, 2] = scratch at 32
            grant #4
            grant #5
            wait #2 b0
            wait #3 b1
            wait #4 b2
            launch k2 b2, b4 -> b5 "out: matmul" at "pipe.rs:5:9"
            launch k3 b5, b0 -> b6 "error: sub" at "pipe.rs:6:9"
            launch k6 b6, b4 -> b9 "out: gradient of the input" at "pipe.rs:5:9"
            post #6 b9
            launch k4 b6 -> b7 "loss" at "pipe.rs:7:9"
            launch k5 b2, b6 -> b8 "out: gradient of the weight" at "pipe.rs:5:9"
            wait #5 b3
            launch k2 b3, b4 -> b10 "out: matmul" at "pipe.rs:5:9"
            launch k3 b10, b1 -> b11 "error: sub" at "pipe.rs:6:9"
            launch k6 b11, b4 -> b14 "out: gradient of the input" at "pipe.rs:5:9"
            post #7 b14
            launch k4 b11 -> b12 "loss" at "pipe.rs:7:9"
            launch k5 b3, b11 -> b13 "out: gradient of the weight" at "pipe.rs:5:9"
            launch k9 b8, b13 -> b15 "out: sum of gradients" at "pipe.rs:9:5"
            sent #6
            sent #7
            post #8 b7
            post #9 b12
            commit
            launch k13 b4, b15 -> b4 "sgd" at "pipe.rs:9:5"
        }}
        }}"#,
        kernels()
    )
}

/// Three devices hand on what they are given. Nothing is committed, so the first may be a step ahead of the last.
pub fn relay() -> String {
    let exp = each(&[4], 1, |x| x(0).exp());
    let add = each(&[4], 2, |x| x(0) + x(1));
    format!(
        r#"plan "relay" program "run" {{
        k0 = {exp} k1 = {add}
        #0: f32[4] = driver -> device 0 "x"
        #1: f32[4] = device 0 -> device 1 "a"
        #2: f32[4] = device 1 -> device 2 "b"
        #3: f32[4] = device 0 -> device 2 "a"
        #4: f32[4] = device 2 -> driver "y"
        device 0 "cpu:0" state 0 scratch 16 staging 16 {{
            b0: f32[4] = staging at 0
            b1: f32[4] = scratch at 0
            wait #0 b0
            launch k0 b0 -> b1 "a" at "relay.rs:1:1"
            post #1 b1
            post #3 b1
            sent #3
            sent #1
        }}
        device 1 "cpu:1" state 0 scratch 16 staging 16 {{
            b0: f32[4] = staging at 0
            b1: f32[4] = scratch at 0
            wait #1 b0
            launch k0 b0 -> b1 "b" at "relay.rs:2:1"
            grant #1
            post #2 b1
            sent #2
        }}
        device 2 "cpu:2" state 0 scratch 16 staging 32 {{
            b0: f32[4] = staging at 0
            b1: f32[4] = staging at 16
            b2: f32[4] = scratch at 0
            wait #3 b1
            wait #2 b0
            launch k1 b0, b1 -> b2 "y" at "relay.rs:3:1"
            grant #3
            grant #2
            post #4 b2
        }}
        }}"#
    )
}

/// All of them, by name.
pub fn several() -> Vec<(&'static str, Plan)> {
    [("data parallel", data_parallel()), ("pipeline", pipeline()), ("relay", relay())]
        .map(|(name, text)| (name, Plan::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"))))
        .into()
}
