//! What a kernel means: the interpreter that every device is tested against. Slow on purpose, with one rule: no
//! cleverness. `Exact` rounds every operation to its type and folds in row-major order; `Reference` keeps floats in
//! f64 throughout and is what accuracy is measured against.

mod number;

use std::collections::BTreeMap;

use super::affine::Coord;
use super::nest::{Axis, Beyond, LoopNest, Monoid, Read, Scatter};
use super::scalar::{Binary, Scalar, ScalarOp};
use super::{BufferType, Group, Kernel, Passed, philox};
use crate::types::DType;

pub use number::{Number, Precision, max_nan, min_nan, round};
use number::{binary, fma, unary};

/// A buffer of the interpreter: numbers and their type.
#[derive(Clone, Debug)]
pub struct Values {
    /// Extents and element type.
    pub ty: BufferType,
    /// Elements, row-major.
    pub data: Vec<Number>,
}

/// Runs a verified kernel.
///
/// # Panics
/// If the kernel does not verify or `operands` are not of its types.
pub fn run(kernel: &Kernel, operands: &[&Values], precision: Precision) -> Vec<Values> {
    for (have, want) in operands.iter().zip(kernel.operands()) {
        assert_eq!(have.ty, *want, "an operand of the kernel's type");
    }
    match kernel {
        Kernel::Nest(nest) => run_nest(nest, operands, precision),
        Kernel::Scatter(scatter) => vec![run_scatter(scatter, operands, precision)],
        Kernel::Group(group) => run_group(group, operands, precision),
        Kernel::Attention(attention) => attention.run(false, operands, precision),
        Kernel::AttentionGrad(attention) => attention.run(true, operands, precision),
    }
}

/// Each member over all its points, one after the other.
fn run_group(group: &Group, operands: &[&Values], precision: Precision) -> Vec<Values> {
    let mut made: BTreeMap<Passed, Values> = BTreeMap::new();
    for member in &group.members {
        let reshaped = |(passed, ty): (&Passed, &BufferType)| {
            let value = match passed {
                Passed::Operand(i) => operands[usize::from(*i)],
                _ => &made[passed],
            };
            Values { ty: ty.clone(), data: value.data.clone() }
        };
        let reads: Vec<Values> = member.reads.iter().zip(&member.nest.operands).map(reshaped).collect();
        let results = run_nest(&member.nest, &reads.iter().collect::<Vec<_>>(), precision);
        made.extend(member.writes.iter().copied().zip(results));
    }
    let result = |(i, ty): (usize, &BufferType)| {
        let made = made.remove(&Passed::Result(i as u16)).expect("a verified group writes its results");
        Values { ty: ty.clone(), data: made.data }
    };
    group.results.iter().enumerate().map(result).collect()
}

/// Calls `visit` with every point of `extents`, row-major.
pub fn for_each_point(extents: &[u64], mut visit: impl FnMut(&[i64])) {
    if extents.contains(&0) {
        return;
    }
    let mut point = vec![0i64; extents.len()];
    loop {
        visit(&point);
        let mut axis = extents.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            point[axis] += 1;
            if (point[axis] as u64) < extents[axis] {
                break;
            }
            point[axis] = 0;
        }
    }
}

fn flat(shape: &[u64], at: impl Iterator<Item = i64>) -> usize {
    shape.iter().zip(at).fold(0u64, |n, (extent, i)| n * extent + i as u64) as usize
}

/// The place a read or a scatter goes to; `None` when it is outside.
fn locate(coords: &[Coord], shape: &[u64], point: &[i64], found: &[Option<Number>]) -> Option<usize> {
    let mut at = Vec::with_capacity(coords.len());
    for (coord, extent) in coords.iter().zip(shape) {
        let i = match coord {
            Coord::Affine(a) => a.at(point),
            Coord::Holes { index, step } => {
                let i = index.at(point);
                if i.rem_euclid(*step as i64) != 0 {
                    return None;
                }
                i.div_euclid(*step as i64)
            }
            Coord::Digit { index, divide, modulo } => (index.at(point) / *divide as i64) % *modulo as i64,
            Coord::Value { read, beyond } => {
                let i = found[*read as usize].map_or(0, Number::i64);
                if *beyond == Beyond::Clamp { i.min(*extent as i64 - 1).max(0) } else { i }
            }
        };
        if i < 0 || i as u64 >= *extent {
            return None;
        }
        at.push(i);
    }
    Some(flat(shape, at.into_iter()))
}

struct Frame<'a> {
    reads: &'a [Read],
    operands: &'a [&'a Values],
    axes: &'a [Axis],
    precision: Precision,
}

impl Frame<'_> {
    /// What each read finds (with its fill), and whether it was inside.
    fn read_all(&self, point: &[i64], parallel_only: bool) -> (Vec<Option<Number>>, Vec<bool>) {
        let (mut found, mut inside) = (Vec::new(), Vec::new());
        for read in self.reads {
            let uses_fold = parallel_only && read.coords.iter().any(|c| self.folds(c));
            let operand = self.operands[read.operand as usize];
            let at = if uses_fold { None } else { locate(&read.coords, &operand.ty.shape, point, &found) };
            inside.push(at.is_some());
            found.push(match at {
                Some(i) => Some(operand.data[i]),
                None => read
                    .fill
                    .map(|f| round(Number::Float(f.as_f64()), operand.ty.dtype, self.precision))
                    .filter(|_| !uses_fold),
            });
        }
        (found, inside)
    }
    fn folds(&self, coord: &Coord) -> bool {
        match coord {
            Coord::Affine(index) | Coord::Holes { index, .. } | Coord::Digit { index, .. } => {
                index.terms.iter().any(|(a, _)| self.axes[*a as usize].fold)
            }
            Coord::Value { read, .. } => self.reads[*read as usize].coords.iter().any(|c| self.folds(c)),
        }
    }
    fn evaluate(&self, program: &Scalar, point: &[i64], folded: &[Vec<Number>], parallel_only: bool) -> Vec<Number> {
        let (found, inside) = self.read_all(point, parallel_only);
        let mut regs: Vec<Number> = Vec::with_capacity(program.insts.len());
        for inst in &program.insts {
            let r = |i: &u16| regs[*i as usize];
            let value = match &inst.op {
                ScalarOp::Literal(x) if inst.dtype.is_float() => Number::Float(x.as_f64()),
                ScalarOp::Literal(x) => Number::Int(x.as_i64()),
                ScalarOp::Read(k) => found[*k as usize].expect("a verified kernel reads inside or has a fill"),
                ScalarOp::Valid(k) => Number::Int(i64::from(inside[*k as usize])),
                ScalarOp::Index(a) => Number::Int(point[*a as usize] + self.axes[*a as usize].origin as i64),
                ScalarOp::Folded { fold, part } => folded[*fold as usize][*part as usize],
                ScalarOp::Philox { key, index, step } => {
                    Number::Int(i64::from(philox::word(*key, r(index).i64() as u64, r(step).i64() as u64)))
                }
                ScalarOp::Unary(op, a) => unary(*op, r(a)),
                ScalarOp::Binary(op, a, b) => binary(*op, r(a), r(b), program.dtype(*a)),
                ScalarOp::Select(c, a, b) => {
                    if r(c).i64() != 0 {
                        r(a)
                    } else {
                        r(b)
                    }
                }
                ScalarOp::Fma(a, b, c) => fma(r(a), r(b), r(c), inst.dtype, self.precision),
                ScalarOp::Cast(a) => r(a),
            };
            regs.push(round(value, inst.dtype, self.precision));
        }
        regs
    }
}

/// The neutral element of a monoid over `dtype`, part by part.
pub fn neutral(monoid: Monoid, dtype: DType) -> Vec<Number> {
    let extreme = |top: bool| match (dtype, top) {
        (DType::Bool, t) => Number::Int(i64::from(t)),
        (DType::U8, t) => Number::Int(if t { 255 } else { 0 }),
        (DType::U32, t) => Number::Int(if t { i64::from(u32::MAX) } else { 0 }),
        (DType::I32, t) => Number::Int(i64::from(if t { i32::MAX } else { i32::MIN })),
        (DType::I64, t) => Number::Int(if t { i64::MAX } else { i64::MIN }),
        (_, t) => Number::Float(if t { f64::INFINITY } else { f64::NEG_INFINITY }),
    };
    let number = |x: f64| if dtype.is_float() { Number::Float(x) } else { Number::Int(x as i64) };
    match monoid {
        Monoid::Sum => vec![number(-0.0)],
        Monoid::Prod => vec![number(1.0)],
        Monoid::Max => vec![extreme(false)],
        Monoid::Min => vec![extreme(true)],
        Monoid::Any => vec![Number::Int(0)],
        Monoid::All => vec![Number::Int(1)],
        Monoid::ArgMax => vec![extreme(false), Number::Int(i64::MAX)],
        Monoid::ArgMin => vec![extreme(true), Number::Int(i64::MAX)],
        Monoid::MeanM2 => vec![number(0.0); 3],
        Monoid::LogSumExp => vec![extreme(false), number(0.0)],
    }
}

/// Combines one more point into a state.
fn accumulate(monoid: Monoid, dtype: DType, state: &mut [Number], inputs: &[Number], precision: Precision) {
    let keep = |x: f64| round(Number::Float(x), dtype, precision);
    let float = |op, a: Number, b: Number| round(binary(op, a, b, dtype), dtype, precision);
    match monoid {
        Monoid::Sum => state[0] = float(Binary::Add, state[0], inputs[0]),
        Monoid::Prod => state[0] = float(Binary::Mul, state[0], inputs[0]),
        Monoid::Max => state[0] = float(Binary::Max, state[0], inputs[0]),
        Monoid::Min => state[0] = float(Binary::Min, state[0], inputs[0]),
        Monoid::Any => state[0] = Number::Int(state[0].i64() | i64::from(inputs[0].i64() != 0)),
        Monoid::All => state[0] = Number::Int(state[0].i64() & i64::from(inputs[0].i64() != 0)),
        Monoid::ArgMax | Monoid::ArgMin => {
            let (best, at, x, i) = (state[0], state[1].i64(), inputs[0], inputs[1].i64());
            let better = match (best, x) {
                (Number::Int(b), Number::Int(x)) => {
                    if monoid == Monoid::ArgMax {
                        x > b
                    } else {
                        x < b
                    }
                }
                _ => {
                    let (b, x) = (best.f64(), x.f64());
                    !b.is_nan() && (x.is_nan() || if monoid == Monoid::ArgMax { x > b } else { x < b })
                }
            };
            let same = match (best, x) {
                (Number::Int(b), Number::Int(x)) => b == x,
                _ => best.f64() == x.f64() || (best.f64().is_nan() && x.f64().is_nan()),
            };
            if better || (same && i < at) {
                (state[0], state[1]) = (x, Number::Int(i));
            }
        }
        Monoid::MeanM2 => {
            let (mean, m2, n, x) = (state[0].f64(), state[1].f64(), state[2].f64(), inputs[0].f64());
            let n = n + 1.0;
            let delta = keep(x - mean).f64();
            let mean = keep(mean + keep(delta / n).f64());
            state[1] = keep(m2 + keep(delta * keep(x - mean.f64()).f64()).f64());
            state[0] = mean;
            state[2] = keep(n);
        }
        Monoid::LogSumExp => {
            let (m, s, x) = (state[0].f64(), state[1].f64(), inputs[0].f64());
            let top = max_nan(m, x);
            let part = |y: f64| if y == top { 1.0 } else { keep((y - top).exp()).f64() };
            state[1] = keep(keep(s * if s == 0.0 { 1.0 } else { part(m) }).f64() + part(x));
            state[0] = Number::Float(top);
        }
    }
}

fn run_nest(nest: &LoopNest, operands: &[&Values], precision: Precision) -> Vec<Values> {
    let frame = Frame { reads: &nest.reads, operands, axes: &nest.axes, precision };
    let parallel = nest.parallel_axes();
    let extents = |fold: bool| nest.axes.iter().filter(|a| a.fold == fold).map(|a| a.extent).collect::<Vec<_>>();
    let (outer, inner) = (extents(false), extents(true));
    let mut results: Vec<Values> =
        nest.results.iter().map(|ty| Values { ty: ty.clone(), data: vec![Number::Int(0); ty.len()] }).collect();
    for_each_point(&outer, |point| {
        let mut full = point.to_vec();
        full.resize(nest.axes.len(), 0);
        let mut states: Vec<_> = nest.folds.iter().map(|f| neutral(f.monoid, f.dtype)).collect();
        if !nest.folds.is_empty() {
            for_each_point(&inner, |tail| {
                full[parallel..].copy_from_slice(tail);
                let regs = frame.evaluate(&nest.body, &full, &[], false);
                for (fold, state) in nest.folds.iter().zip(&mut states) {
                    let inputs: Vec<_> = fold.inputs.iter().map(|r| regs[*r as usize]).collect();
                    accumulate(fold.monoid, fold.dtype, state, &inputs, precision);
                }
            });
        }
        let regs = frame.evaluate(&nest.epilogue, &full, &states, true);
        for write in &nest.writes {
            let result = &mut results[write.result as usize];
            let at = flat(&result.ty.shape, write.coords.iter().map(|c| c.at(&full)));
            result.data[at] = regs[write.value as usize];
        }
    });
    results
}

fn run_scatter(scatter: &Scatter, operands: &[&Values], precision: Precision) -> Values {
    let frame = Frame { reads: &scatter.reads, operands, axes: &scatter.axes, precision };
    let ty = scatter.result.clone();
    let data = match scatter.init {
        Some(k) => operands[k as usize].data.clone(),
        // A sum starts from +0: an untouched place is plainly zero.
        None if scatter.monoid == Monoid::Sum => vec![round(Number::Int(0), ty.dtype, precision); ty.len()],
        None => vec![neutral(scatter.monoid, ty.dtype)[0]; ty.len()],
    };
    let mut result = Values { ty, data };
    let extents: Vec<u64> = scatter.axes.iter().map(|a| a.extent).collect();
    for_each_point(&extents, |point| {
        let (found, _) = frame.read_all(point, false);
        let Some(at) = locate(&scatter.at, &result.ty.shape, point, &found) else { return };
        let value = frame.evaluate(&scatter.body, point, &[], false)[scatter.value as usize];
        let mut state = [result.data[at]];
        accumulate(scatter.monoid, result.ty.dtype, &mut state, &[value], precision);
        result.data[at] = state[0];
    });
    result
}
