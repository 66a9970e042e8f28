//! A kernel over fewer points: what one leaf runs of a kernel that is spread over many. The result is an ordinary kernel over
//! its own points, which says its global indices by adding where it begins; no device has to know that anything was cut.

use std::ops::Range;

use super::affine::{Affine, AxisVar, Coord};
use super::build::{Axes, read_or, select, valid};
use super::nest::{Axis, LoopNest, Read, Write};
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
        let axes: Vec<Axis> = to.shape.iter().map(|n| Axis::new(*n, false)).collect();
        let at = |(a, s): (usize, i64)| Affine::axis(a as u16).scaled(s);
        let position = to.strides().into_iter().enumerate().map(at).fold(Affine::constant(0), |sum, term| sum + term);
        let digits = from.shape.iter().zip(from.strides()).map(|(n, s)| Coord::Digit {
            index: position.clone(),
            divide: s.max(1) as u64,
            modulo: (*n).max(1),
        });
        moved(axes, digits.collect(), from, to)
    }
    /// The elements of `from` that lie in `range` of its axis `axis`.
    pub fn slice(from: BufferType, axis: u16, range: Range<u64>) -> Kernel {
        let mut to = from.clone();
        to.shape[usize::from(axis)] = range.end - range.start;
        let axes: Vec<Axis> = to.shape.iter().map(|n| Axis::new(*n, false)).collect();
        let begin = |a: u16| if a == axis { range.start as i64 } else { 0 };
        let coords = (0..to.rank() as u16).map(|a| Coord::Affine(Affine::axis(a) + begin(a)));
        moved(axes, coords.collect(), from, to)
    }
}

impl Kernel {
    /// Tensors along one axis, one after the other.
    pub fn join(operands: &[BufferType], axis: u16) -> Kernel {
        let along = |t: &BufferType| t.shape[usize::from(axis)];
        let mut to = operands[0].clone();
        to.shape[usize::from(axis)] = operands.iter().map(along).sum();
        let (mut axes, mut begin) = (Axes::new(), 0);
        let at = axes.par_over(&to.shape);
        let mut parts = Vec::new();
        for (k, ty) in operands.iter().enumerate() {
            let place = |(d, a): (usize, &AxisVar)| {
                let by = if d == usize::from(axis) { begin } else { 0 };
                Affine::from(*a) - by
            };
            parts.push(read_or(k as u16, at.iter().enumerate().map(place), 0.0));
            begin += along(ty) as i64;
        }
        let all = parts.into_iter().rev().reduce(|later, part| select(valid(part.clone()), part, later));
        axes.nest(operands, &[to], [all.expect("there is something to join")])
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

/// What is read at `coords`, written in order.
fn moved(axes: Vec<Axis>, coords: Vec<Coord>, from: BufferType, to: BufferType) -> Kernel {
    let mut epilogue = Scalar::default();
    let value = epilogue.push(Inst { dtype: from.dtype, op: ScalarOp::Read(0) });
    let at = (0..axes.len() as u16).map(Affine::axis).collect();
    Kernel::Nest(LoopNest {
        operands: vec![from],
        results: vec![to],
        axes,
        reads: vec![Read { operand: 0, coords, fill: None }],
        body: Scalar::default(),
        folds: vec![],
        epilogue,
        writes: vec![Write { result: 0, value, coords: at }],
    })
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
