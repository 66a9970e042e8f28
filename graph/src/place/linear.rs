//! Whether what a nest writes is linear in some of what it reads: the one question on which partial sums turn. The sum over
//! the leaves of `f(x)` is `f` of the sum only if `f` is homogeneous and linear; a bias would be added once per leaf.

use crate::kernel::{Binary, Literal, LoopNest, Monoid, Reg, Scalar, ScalarOp, Unary};
use crate::types::DType;

/// How a register depends on what is partial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// Not at all.
    Free,
    /// Not at all, and it is zero: as good as linear.
    Zero,
    /// Homogeneous and linear, all partial values together.
    Linear,
    /// In any other way.
    Other,
}
use Class::{Free, Linear, Other, Zero};

/// The class of every register of `program`, given those of its reads and folds.
fn classes(program: &Scalar, read: &dyn Fn(u16) -> Class, folded: &dyn Fn(u16) -> Class) -> Vec<Class> {
    let mut all: Vec<Class> = Vec::with_capacity(program.insts.len());
    for inst in &program.insts {
        let of = |r: Reg| all[usize::from(r)];
        let independent = |r: Reg| matches!(of(r), Free | Zero);
        all.push(match &inst.op {
            ScalarOp::Literal(x) if x.as_f64() == 0.0 => Zero,
            ScalarOp::Read(k) => read(*k),
            ScalarOp::Folded { fold, .. } => folded(*fold),
            ScalarOp::Unary(Unary::Neg, a) => of(*a),
            ScalarOp::Binary(Binary::Mul, a, b) => product(of(*a), of(*b)),
            ScalarOp::Binary(Binary::Div, a, b) if of(*a) == Linear && independent(*b) => Linear,
            ScalarOp::Binary(Binary::Add | Binary::Sub, a, b) => sum(of(*a), of(*b)),
            ScalarOp::Fma(a, b, c) => sum(product(of(*a), of(*b)), of(*c)),
            ScalarOp::Select(c, a, b) if independent(*c) => match (of(*a), of(*b)) {
                (Linear, Linear | Zero) | (Zero, Linear) => Linear,
                (Free | Zero, Free | Zero) => Free,
                _ => Other,
            },
            ScalarOp::Cast(a) if of(*a) == Linear => {
                if widens(program.dtype(*a), inst.dtype) {
                    Linear
                } else {
                    Other
                }
            }
            op if op.uses().into_iter().all(independent) => Free,
            _ => Other,
        });
    }
    all
}

fn product(a: Class, b: Class) -> Class {
    match (a, b) {
        (Linear, Free | Zero) | (Free | Zero, Linear) => Linear,
        (Free | Zero, Free | Zero) => Free,
        _ => Other,
    }
}

fn sum(a: Class, b: Class) -> Class {
    match (a, b) {
        (Linear, Linear | Zero) | (Zero, Linear) => Linear,
        (Free | Zero, Free | Zero) => Free,
        _ => Other,
    }
}

/// Whether no digit is lost: sums may then be converted before or after they are added up.
fn widens(from: DType, to: DType) -> bool {
    from == to || (from.is_float() && to.is_float() && from.size_bytes() < to.size_bytes())
}

/// What becomes of each result of `nest` where the operands in `partial` are partial sums and, if `folds_are_cut`, each leaf
/// folds a part of the points: the monoid by which the leaves' results combine, or nothing where they are all the same.
/// `None` if they cannot be combined.
pub(super) fn results(nest: &LoopNest, partial: &[bool], folds_are_cut: bool) -> Option<Vec<Option<Monoid>>> {
    let read = |k: u16| {
        let read = &nest.reads[usize::from(k)];
        match (partial[usize::from(read.operand)], read.fill) {
            (false, _) => Free,
            (true, None) => Linear,
            (true, Some(fill)) if fill == Literal::Int(0) || fill.as_f64() == 0.0 => Linear,
            (true, Some(_)) => Other,
        }
    };
    let none = |_| Free;
    let body = classes(&nest.body, &read, &none);
    let folded = |f: u16| {
        let fold = &nest.folds[usize::from(f)];
        let inputs = || fold.inputs.iter().map(|r| body[usize::from(*r)]);
        match (fold.monoid, folds_are_cut) {
            (Monoid::Sum, true) if inputs().all(|c| matches!(c, Free | Zero)) => Linear,
            (Monoid::Sum, false) if inputs().all(|c| c == Linear) => Linear,
            (_, false) if inputs().all(|c| matches!(c, Free | Zero)) => Free,
            _ => Other,
        }
    };
    let epilogue = classes(&nest.epilogue, &read, &folded);
    let combined = |r: Reg| match epilogue[usize::from(r)] {
        Free | Zero => Some(None),
        Linear => Some(Some(Monoid::Sum)),
        // What is folded otherwise combines likewise, if it is written as it is.
        Other => match nest.epilogue.insts[usize::from(r)].op {
            ScalarOp::Folded { fold, .. } if folds_are_cut && !partial.contains(&true) => {
                let monoid = nest.folds[usize::from(fold)].monoid;
                combines(monoid).then_some(Some(monoid))
            }
            _ => None,
        },
    };
    let mut all = vec![None; nest.results.len()];
    for write in &nest.writes {
        all[usize::from(write.result)] = combined(write.value)?;
    }
    Some(all)
}

/// Whether two results of this fold, of two parts of the points, make that of all points by the monoid itself.
pub(super) fn combines(monoid: Monoid) -> bool {
    matches!(monoid, Monoid::Sum | Monoid::Prod | Monoid::Max | Monoid::Min | Monoid::Any | Monoid::All)
}
