//! A kernel over fewer points: what one leaf runs of a kernel that is spread over many. The result is an ordinary kernel over
//! its own points, which says its global indices by adding where it begins; no device has to know that anything was cut. And
//! the kernels that only move: shares cut out, put together, seen under other extents.

use std::ops::Range;

use super::affine::Affine;
use super::build::{Axes, Ix, digit, index, lit, read, read_or, select, valid};
use super::nest::Axis;
use super::scalar::{Binary, Inst, Literal, Reg, Scalar, ScalarOp};
use super::{BufferType, Kernel};
use crate::types::DType;

impl Kernel {
    /// The kernel over the points `range` of loop axis `axis`, of operands and results that are of these types. Every
    /// coordinate that uses the axis is exactly the axis.
    ///
    /// # Panics
    /// For attention and groups, which have no loop.
    pub fn cut_loop(
        &self,
        axis: u16,
        range: Range<u64>,
        operands: Vec<BufferType>,
        results: Vec<BufferType>,
    ) -> Kernel {
        let mut kernel = self.clone();
        let begin = range.start;
        let points = |axes: &mut Vec<Axis>| {
            let cut = &mut axes[usize::from(axis)];
            *cut = Axis::new(range.end - range.start, cut.fold);
        };
        match &mut kernel {
            Kernel::Nest(nest) => {
                points(&mut nest.axes);
                let regs = shift(&mut nest.body, axis, begin);
                nest.folds.iter_mut().flat_map(|f| &mut f.inputs).for_each(|r| *r = regs[usize::from(*r)]);
                let regs = shift(&mut nest.epilogue, axis, begin);
                nest.writes.iter_mut().for_each(|w| w.value = regs[usize::from(w.value)]);
                (nest.operands, nest.results) = (operands, results);
            }
            Kernel::Scatter(scatter) => {
                points(&mut scatter.axes);
                let regs = shift(&mut scatter.body, axis, begin);
                scatter.value = regs[usize::from(scatter.value)];
                scatter.operands = operands;
                scatter.result = results.into_iter().next().expect("a scatter has one result");
            }
            Kernel::Group(_) | Kernel::Attention(_) | Kernel::AttentionGrad(_) => panic!("there is no loop to cut"),
        }
        kernel
    }
    /// The same attention of other parts: its operands and results are of these types.
    ///
    /// # Panics
    /// For all but attention.
    pub fn cut_tensors(&self, operands: Vec<BufferType>, results: Vec<BufferType>) -> Kernel {
        let mut kernel = self.clone();
        match &mut kernel {
            Kernel::Attention(a) | Kernel::AttentionGrad(a) => (a.operands, a.results) = (operands, results),
            _ => panic!("only attention is cut by its tensors"),
        }
        kernel
    }
    /// The elements of `from` in row-major order as `to`, which has as many.
    pub fn relabel(from: BufferType, to: BufferType) -> Kernel {
        let mut axes = Axes::new();
        let at = axes.par_over(&to.shape);
        let position =
            at.iter().zip(to.strides()).fold(Affine::constant(0), |sum, (axis, stride)| sum + *axis * stride);
        let coords: Vec<Ix> = (from.shape.iter().zip(from.strides()))
            .map(|(n, s)| digit(position.clone(), s.max(1) as u64, (*n).max(1)))
            .collect();
        axes.nest(&[from], &[to], [read(0, coords)])
    }
    /// The elements of `from` that lie in `range` of its axis `axis`.
    pub fn slice(from: BufferType, axis: u16, range: Range<u64>) -> Kernel {
        let mut to = from.clone();
        to.shape[usize::from(axis)] = range.end - range.start;
        let mut axes = Axes::new();
        let mut at: Vec<Affine> = axes.par_over(&to.shape).into_iter().map(Affine::from).collect();
        at[usize::from(axis)] = at[usize::from(axis)].clone() + range.start as i64;
        axes.nest(&[from], &[to], [read(0, at)])
    }
    /// Tensors along one axis, one after the other; there is at least one.
    pub fn join(operands: &[BufferType], axis: u16) -> Kernel {
        let d = usize::from(axis);
        let mut to = operands[0].clone();
        to.shape[d] = operands.iter().map(|t| t.shape[d]).sum();
        let mut axes = Axes::new();
        let out = axes.par_over(&to.shape);
        let (mut parts, mut start) = (Vec::new(), 0);
        for (k, operand) in operands.iter().enumerate() {
            let mut at: Vec<Affine> = out.iter().map(|a| Affine::from(*a)).collect();
            at[d] = out[d] - start;
            start += operand.shape[d] as i64;
            parts.push((start, read_or(k as u16, at, 0.0)));
        }
        let (_, last) = parts.pop().expect("there is something to join");
        let value =
            parts.into_iter().rfold(last, |rest, (stop, part)| select(index(out[d]).lt(lit(stop as f64)), part, rest));
        axes.nest(operands, &[to], [value])
    }
    /// Elements of vectors that lie end to end, from `start` on: as many as `to` has.
    pub fn row(operands: &[BufferType], start: u64, to: BufferType) -> Kernel {
        let mut axes = Axes::new();
        let at = axes.par_over(&to.shape)[0];
        let (mut parts, mut begin) = (Vec::new(), 0u64);
        for (k, ty) in operands.iter().enumerate() {
            parts.push(read_or(k as u16, [Affine::from(at) + (start as i64 - begin as i64)], 0.0));
            begin += ty.len() as u64;
        }
        let all = parts.into_iter().rev().reduce(|later, part| select(valid(part.clone()), part, later));
        axes.nest(operands, &[to], [all.expect("there is something in the row")])
    }
}

/// Adds `begin` wherever `program` asks for the index along `axis`; gives the new place of every register.
fn shift(program: &mut Scalar, axis: u16, begin: u64) -> Vec<Reg> {
    let mut shifted = Scalar::default();
    let mut now: Vec<Reg> = Vec::with_capacity(program.insts.len());
    for inst in &program.insts {
        let mut reg = shifted.push(Inst { dtype: inst.dtype, op: inst.op.on(|r| now[usize::from(r)]) });
        if inst.op == ScalarOp::Index(axis) && begin != 0 {
            let by = Inst { dtype: DType::I64, op: ScalarOp::Literal(Literal::Int(begin as i64)) };
            let by = shifted.push(by);
            reg = shifted.push(Inst { dtype: DType::I64, op: ScalarOp::Binary(Binary::Add, reg, by) });
        }
        now.push(reg);
    }
    *program = shifted;
    now
}
