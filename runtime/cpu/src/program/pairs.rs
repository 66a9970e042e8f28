//! Which operations of a program are joined in pairs, before it is compiled.

use thalweg_graph::DType;
use thalweg_graph::kernel::{Binary, Reg, ScalarOp};

use super::{Source, levels, live, uses};
use crate::domain::{Lowered, LoweredOp};
use crate::lanes::Pair;

/// The code with sums, differences and products of f32 that have one reader, of their sort and as often run, joined with
/// it. What they computed on their own is dead then.
pub(super) fn joined(source: &Source<'_>, uniform: &[bool]) -> Vec<Lowered> {
    let mut code = source.code.to_vec();
    let (live, levels) = (live(&code, source.outputs), levels(source));
    let mut readers = vec![0; code.len()];
    for (inst, _) in code.iter().zip(&live).filter(|(_, live)| **live) {
        uses(&inst.op).iter().for_each(|r| readers[*r as usize] += 1);
    }
    source.outputs.iter().for_each(|r| readers[*r as usize] += 1);
    let binary = |inst: &Lowered| match inst.op {
        LoweredOp::Plain(ScalarOp::Binary(op, a, b)) if inst.dtype == DType::F32 && Pair::takes(op) => Some((op, a, b)),
        _ => None,
    };
    for i in (0..code.len()).filter(|i| live[*i]) {
        let Some((second, x, y)) = binary(&code[i]) else { continue };
        let same = |r: Reg| uniform[r as usize];
        // What is the same in every lane has a shorter way of its own.
        if same(x) || same(y) {
            continue;
        }
        let joined = [(x, y, false), (y, x, true)].into_iter().find_map(|(inner, c, flipped)| {
            let (first, a, b) = binary(&code[inner as usize])?;
            let own = readers[inner as usize] == 1 && levels[inner as usize] == levels[i];
            let (a, b) = if same(a) && first != Binary::Sub { (b, a) } else { (a, b) };
            let pair = Pair { first, second, flipped, splat: same(b) };
            (own && !same(a)).then_some(LoweredOp::Pair(pair, [a, b, c]))
        });
        if let Some(joined) = joined {
            code[i].op = joined;
        }
    }
    code
}
