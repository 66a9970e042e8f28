//! Which values of a program are the same in every lane of a tile: numbers, what is read along no axis of the tile, and what
//! is computed from such alone. Most operations take one of those from a single lane; then no other lane of it is computed,
//! and the nearest cache is not filled with copies.

use thalweg_graph::kernel::{Reg, ScalarOp};

use super::uses;
use crate::access::Reader;
use crate::domain::{Lowered, LoweredOp};
use crate::lanes::LaneOp;

/// Whether each value is the same in every lane.
pub(super) fn uniform(code: &[Lowered], readers: &[Reader]) -> Vec<bool> {
    let mut same: Vec<bool> = Vec::with_capacity(code.len());
    for inst in code {
        same.push(match &inst.op {
            LoweredOp::Literal(_) => true,
            LoweredOp::Iota(_) => false,
            LoweredOp::Plain(ScalarOp::Read(read)) => readers[usize::from(*read)].is_uniform(),
            LoweredOp::Plain(ScalarOp::Valid(_) | ScalarOp::Folded { .. } | ScalarOp::Index(_)) => false,
            op => uses(op).iter().all(|r| same[*r as usize]),
        });
    }
    same
}

/// The values of which one lane is enough: nobody looks at another.
pub(super) fn single(code: &[Lowered], outputs: &[Reg], live: &[bool], uniform: &[bool]) -> Vec<bool> {
    let mut single = uniform.to_vec();
    outputs.iter().for_each(|r| single[*r as usize] = false);
    for (i, inst) in code.iter().enumerate().rev().filter(|(i, _)| live[*i]) {
        if single[i] {
            continue;
        }
        let spared = match inst.op {
            LoweredOp::Pair(pair, args) if pair.splat => Some(args[1]),
            LoweredOp::Plain(ScalarOp::Binary(op, a, b)) => {
                let dtype = code[a as usize].dtype;
                match LaneOp::binary(op, dtype, [a, b].map(|r| uniform[r as usize])) {
                    LaneOp::Splat(_, which) => Some(if which == 0 { a } else { b }),
                    _ => None,
                }
            }
            _ => None,
        };
        let mut whole = uses(&inst.op);
        if let Some(k) = spared.and_then(|r| whole.iter().position(|w| *w == r)) {
            whole.remove(k);
        }
        whole.iter().for_each(|r| single[*r as usize] = false);
    }
    single
}
