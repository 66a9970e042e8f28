//! What a sound kernel is. Every fault is reported, none is assumed away: a device runs unsafe code on the strength of
//! this check, and a worker repeats it on kernels that come from a peer.

mod group;

use super::affine::{Affine, Coord};
use super::nest::{Axis, Beyond, LoopNest, Monoid, Read, Scatter};
use super::scalar::{Binary, Scalar, ScalarOp, Unary};
use super::{BufferType, Kernel};
use crate::types::DType;

/// No buffer has more elements than this, so that index arithmetic fits an i64 with room to spare.
const MAX_ELEMENTS: u64 = 1 << 48;
const MAX_AXES: usize = 32;

pub(super) fn verify(kernel: &Kernel) -> Vec<String> {
    let mut faults = Faults::default();
    verify_buffers(kernel.operands().iter().chain(kernel.results()), &mut faults);
    if faults.list.is_empty() {
        match kernel {
            Kernel::Nest(nest) => verify_nest(nest, &mut faults),
            Kernel::Scatter(scatter) => verify_scatter(scatter, &mut faults),
            Kernel::Group(group) => group::verify_group(group, &mut faults),
            Kernel::Attention(attention) => faults.list.extend(attention.verify(false)),
            Kernel::AttentionGrad(attention) => faults.list.extend(attention.verify(true)),
        }
    }
    faults.list
}

fn verify_buffers<'a>(buffers: impl Iterator<Item = &'a BufferType>, faults: &mut Faults) {
    for buffer in buffers {
        let fits = buffer.shape.len() <= MAX_AXES
            && buffer.shape.iter().all(|d| *d <= MAX_ELEMENTS)
            && buffer
                .shape
                .iter()
                .filter(|d| **d != 0)
                .try_fold(1u64, |n, d| n.checked_mul(*d))
                .is_some_and(|n| n <= MAX_ELEMENTS);
        faults.require(fits, || format!("a buffer {buffer} is too large"));
    }
}

#[derive(Default)]
struct Faults {
    list: Vec<String>,
}
impl Faults {
    fn require(&mut self, holds: bool, otherwise: impl FnOnce() -> String) -> bool {
        if !holds {
            self.list.push(otherwise());
        }
        holds
    }
}

fn verify_axes(axes: &[Axis], faults: &mut Faults) {
    faults.require(axes.len() <= MAX_AXES, || format!("more than {MAX_AXES} axes"));
    let points = axes.iter().try_fold(1u64, |n, a| n.checked_mul(a.extent.max(1)));
    faults.require(points.is_some_and(|n| n < 1 << 62), || "the domain is too large".into());
    let first_fold = axes.iter().position(|a| a.fold).unwrap_or(axes.len());
    faults.require(axes[first_fold..].iter().all(|a| a.fold), || "fold axes come after the parallel ones".into());
    for (i, axis) in axes.iter().enumerate() {
        let inside = axis.origin.checked_add(axis.extent).is_some_and(|end| end <= axis.whole);
        faults.require(inside && axis.whole < 1 << 62, || format!("axis a{i} reaches beyond its whole value"));
    }
}

fn affine_ok(affine: &Affine, axes: &[Axis]) -> bool {
    affine.terms.windows(2).all(|w| w[0].0 < w[1].0)
        && affine.terms.iter().all(|(a, c)| (*a as usize) < axes.len() && *c != 0)
        && affine.range(axes).is_some_and(|(low, high)| low > -(1 << 60) && high < 1 << 60)
}

/// What coordinates may refer to.
struct Reach<'a> {
    axes: &'a [Axis],
    operands: &'a [BufferType],
    earlier: &'a [Read],
}

fn verify_coords(what: &str, coords: &[Coord], to: &BufferType, filled: bool, reach: &Reach<'_>, faults: &mut Faults) {
    let axes = reach.axes;
    faults.require(coords.len() == to.rank(), || {
        format!("{what} has {} coordinates for a buffer of {} axes", coords.len(), to.rank())
    });
    // What is never evaluated may be anywhere: nothing runs over an empty parallel axis, and no body over an empty fold
    // axis that this read follows. A read that ignores the fold axes may still be an epilogue's.
    let follows = |axis: usize| coords.iter().filter_map(Coord::index).any(|i| i.coefficient(axis as u16) != 0);
    let empty = axes.iter().enumerate().any(|(i, a)| a.extent == 0 && (!a.fold || follows(i)));
    for (d, ((coord, extent), stride)) in coords.iter().zip(&to.shape).zip(to.strides()).enumerate() {
        let index = match coord {
            Coord::Affine(index) | Coord::Holes { index, .. } | Coord::Digit { index, .. } => {
                if !faults.require(affine_ok(index, axes), || format!("{what}, coordinate {d}: bad affine map")) {
                    continue;
                }
                let range = index.range(axes).unwrap_or((i64::MIN, i64::MAX));
                let farthest = match coord {
                    Coord::Digit { modulo, .. } => *modulo,
                    _ => range.0.unsigned_abs().max(range.1.unsigned_abs()),
                };
                let addressable = farthest.checked_mul(stride as u64).is_some_and(|offset| offset < 1 << 62);
                faults.require(addressable, || format!("{what}, coordinate {d}: reaches too far"));
                range
            }
            Coord::Value { read, .. } => {
                let earlier = reach.earlier.get(*read as usize);
                let later = || format!("{what}, coordinate {d}: takes the value of a later read");
                if let (true, Some(by)) = (faults.require(earlier.is_some(), later), earlier) {
                    let by = reach.operands.get(by.operand as usize);
                    faults.require(by.is_some_and(|b| b.dtype.is_int()), || {
                        format!("{what}, coordinate {d}: an index must be an integer")
                    });
                }
                (i64::MIN, i64::MAX)
            }
        };
        let inside = match coord {
            Coord::Affine(_) => index.0 >= 0 && (index.1 as u64) < *extent,
            Coord::Holes { step, .. } => {
                if !faults.require(*step >= 1 && *step < 1 << 31, || format!("{what}, coordinate {d}: bad step")) {
                    continue;
                }
                *step == 1 && index.0 >= 0 && (index.1 as u64) < *extent
            }
            Coord::Digit { divide, modulo, .. } => {
                let sound = *divide >= 1 && *modulo >= 1 && *divide < 1 << 62 && *modulo < 1 << 62 && index.0 >= 0;
                if !faults.require(sound, || format!("{what}, coordinate {d}: bad digit")) {
                    continue;
                }
                (*modulo).min(index.1 as u64 / divide + 1) <= *extent
            }
            Coord::Value { beyond, .. } => *beyond == Beyond::Clamp && *extent > 0,
        };
        faults.require(inside || filled || empty, || {
            format!("{what}, coordinate {d} may leave an axis of {extent} and the read has no fill")
        });
    }
}

fn verify_reads(reads: &[Read], operands: &[BufferType], axes: &[Axis], faults: &mut Faults) {
    for (k, read) in reads.iter().enumerate() {
        let Some(operand) = operands.get(read.operand as usize) else {
            faults.list.push(format!("read r{k} of operand {}, of which there are {}", read.operand, operands.len()));
            continue;
        };
        verify_coords(
            &format!("read r{k}"),
            &read.coords,
            operand,
            read.fill.is_some(),
            &Reach { axes, operands, earlier: &reads[..k] },
            faults,
        );
    }
}

/// Which reads move along a fold axis, by themselves or through the read that they take a coordinate from. One pass
/// and no recursion: a read takes the values of earlier ones, and where it does not, that has been reported.
fn reads_along_folds(reads: &[Read], axes: &[Axis]) -> Vec<bool> {
    let mut along = Vec::with_capacity(reads.len());
    for read in reads {
        let moves = read.coords.iter().any(|c| match c {
            Coord::Affine(i) | Coord::Holes { index: i, .. } | Coord::Digit { index: i, .. } => {
                i.terms.iter().any(|(a, _)| axes.get(*a as usize).is_some_and(|a| a.fold))
            }
            Coord::Value { read, .. } => along.get(*read as usize).copied().unwrap_or(false),
        });
        along.push(moves);
    }
    along
}

struct Context<'a> {
    name: &'a str,
    axes: &'a [Axis],
    reads: &'a [Read],
    operands: &'a [BufferType],
    folded: Option<&'a LoopNest>,
    along_folds: &'a [bool],
}

fn verify_scalar(program: &Scalar, cx: &Context<'_>, faults: &mut Faults) {
    faults.require(program.insts.len() < usize::from(u16::MAX), || format!("{}: too long", cx.name));
    let in_epilogue = cx.folded.is_some();
    for (i, inst) in program.insts.iter().enumerate() {
        let at = || format!("{} v{i}", cx.name);
        if !faults
            .require(inst.op.uses().iter().all(|r| (*r as usize) < i), || format!("{}: uses a later register", at()))
        {
            continue;
        }
        let of = |r: &u16| program.dtype(*r);
        let problem = match &inst.op {
            ScalarOp::Literal(_) => None,
            ScalarOp::Read(r) | ScalarOp::Valid(r) => match cx.reads.get(*r as usize) {
                None => Some("no such read".to_string()),
                Some(_) if in_epilogue && cx.along_folds[*r as usize] => {
                    Some("an epilogue reads along a fold axis".into())
                }
                Some(read) => {
                    let operand = cx.operands.get(read.operand as usize).map(|o| o.dtype);
                    let want = if matches!(inst.op, ScalarOp::Valid(_)) { Some(DType::Bool) } else { operand };
                    (want != Some(inst.dtype)).then(|| format!("is {} but reads {want:?}", inst.dtype))
                }
            },
            ScalarOp::Index(a) => match cx.axes.get(*a as usize) {
                None => Some("no such axis".into()),
                Some(axis) if in_epilogue && axis.fold => Some("an epilogue has no fold axis".into()),
                Some(_) => (inst.dtype != DType::I64).then(|| "an index is i64".into()),
            },
            ScalarOp::Folded { fold, part } => match cx.folded.and_then(|n| n.folds.get(*fold as usize)) {
                None => Some("no such fold here".into()),
                Some(f) if *part as usize >= f.monoid.parts() => Some("no such part".into()),
                Some(f) => (inst.dtype != f.monoid.part_dtype(*part as usize, f.dtype))
                    .then(|| "is not the fold's type".into()),
            },
            ScalarOp::Philox { index, step, .. } => {
                let sound = inst.dtype == DType::U32 && of(index) == DType::I64 && of(step) == DType::I64;
                (!sound).then(|| "philox takes i64 and gives u32".into())
            }
            ScalarOp::Unary(op, a) => {
                let want = if matches!(op, Unary::Not | Unary::IsNan) { DType::Bool } else { of(a) };
                let float_only = matches!(
                    op,
                    Unary::Exp | Unary::Log | Unary::Sqrt | Unary::Tanh | Unary::Sin | Unary::Cos | Unary::Erf
                );
                (inst.dtype != want || (float_only && !of(a).is_float())).then(|| format!("{} of {}", op.name(), of(a)))
            }
            ScalarOp::Binary(op, a, b) => {
                let want = if op.compares() { DType::Bool } else { of(a) };
                let bitwise = matches!(op, Binary::And | Binary::Or | Binary::Xor | Binary::Shl | Binary::Shr);
                let wrong = inst.dtype != want
                    || of(a) != of(b)
                    || (bitwise && of(a).is_float())
                    || (*op == Binary::Pow && !of(a).is_float());
                wrong.then(|| format!("{} of {} and {}", op.name(), of(a), of(b)))
            }
            ScalarOp::Select(c, a, b) => (of(c) != DType::Bool || of(a) != inst.dtype || of(b) != inst.dtype)
                .then(|| "select of mixed types".into()),
            ScalarOp::Fma(a, b, c) => ([a, b, c].into_iter().any(|r| of(r) != inst.dtype) || !inst.dtype.is_float())
                .then(|| "fma of mixed types".into()),
            ScalarOp::Cast(_) => None,
        };
        if let Some(problem) = problem {
            faults.list.push(format!("{}: {problem}", at()));
        }
    }
}

fn verify_nest(nest: &LoopNest, faults: &mut Faults) {
    verify_axes(&nest.axes, faults);
    verify_reads(&nest.reads, &nest.operands, &nest.axes, faults);
    let along_folds = &reads_along_folds(&nest.reads, &nest.axes);
    let (axes, reads, operands) = (&nest.axes, &nest.reads, &nest.operands);
    let cx = Context { name: "body", axes, reads, operands, folded: None, along_folds };
    verify_scalar(&nest.body, &cx, faults);
    verify_scalar(&nest.epilogue, &Context { name: "epilogue", folded: Some(nest), ..cx }, faults);
    for (k, fold) in nest.folds.iter().enumerate() {
        faults.require(fold.inputs.len() == fold.monoid.inputs(), || format!("fold f{k}: wrong number of inputs"));
        for (n, input) in fold.inputs.iter().enumerate() {
            let want = if n == 0 { fold.dtype } else { DType::I64 };
            let sound = nest.body.insts.get(*input as usize).is_some_and(|i| i.dtype == want);
            faults.require(sound, || format!("fold f{k}: input {n} is not a {want} of the body"));
        }
        let logical = matches!(fold.monoid, Monoid::Any | Monoid::All);
        let floating = matches!(fold.monoid, Monoid::MeanM2 | Monoid::LogSumExp);
        let fits = (!logical || fold.dtype == DType::Bool) && (!floating || fold.dtype.is_float());
        faults.require(fits, || format!("fold f{k}: {} of {}", fold.monoid.name(), fold.dtype));
    }
    let parallel = nest.parallel_axes();
    for (k, write) in nest.writes.iter().enumerate() {
        let Some(result) = nest.results.get(write.result as usize) else {
            faults.list.push(format!("write {k} to a result that is not there"));
            continue;
        };
        let value = nest.epilogue.insts.get(write.value as usize);
        faults.require(value.is_some_and(|i| i.dtype == result.dtype), || {
            format!("write {k}: value is no {}", result.dtype)
        });
        verify_write(k, &write.coords, result, &nest.axes[..parallel], faults);
    }
    for r in 0..nest.results.len() {
        let writes = nest.writes.iter().filter(|w| w.result as usize == r).count();
        faults.require(writes == 1, || format!("result {r} is written by {writes} writes, not one"));
    }
}

/// A write must stay inside and reach every element exactly once: each axis of the result is a mixed-radix number
/// over parallel axes that no other axis of the result uses, and all parallel axes longer than one are used.
fn verify_write(k: usize, coords: &[Affine], result: &BufferType, axes: &[Axis], faults: &mut Faults) {
    if !faults.require(coords.len() == result.rank(), || format!("write {k}: wrong number of coordinates")) {
        return;
    }
    let mut used = vec![false; axes.len()];
    for (d, (coord, extent)) in coords.iter().zip(&result.shape).enumerate() {
        if !faults.require(affine_ok(coord, axes), || format!("write {k}, coordinate {d}: bad affine map")) {
            continue;
        }
        let mut terms: Vec<_> = coord.terms.iter().filter(|(a, _)| axes[*a as usize].extent != 1).collect();
        terms.sort_by_key(|(_, c)| *c);
        let mut reach = 1u64;
        let mut dense = coord.offset == 0;
        for (axis, c) in terms {
            dense &= *c == reach as i64 && !std::mem::replace(&mut used[*axis as usize], true);
            reach = reach.saturating_mul(axes[*axis as usize].extent);
        }
        faults.require(dense && reach == *extent, || {
            format!("write {k}, coordinate {d} does not reach each of {extent} places once")
        });
    }
    let unused = axes.iter().zip(&used).position(|(a, u)| a.extent != 1 && !u);
    faults.require(unused.is_none(), || format!("write {k} repeats along axis a{}", unused.unwrap_or(0)));
}

fn verify_scatter(scatter: &Scatter, faults: &mut Faults) {
    verify_axes(&scatter.axes, faults);
    faults.require(scatter.axes.iter().all(|a| !a.fold), || "a scatter has no fold axes".into());
    verify_reads(&scatter.reads, &scatter.operands, &scatter.axes, faults);
    let (axes, reads, operands) = (&scatter.axes, &scatter.reads, &scatter.operands);
    let cx = Context { name: "body", axes, reads, operands, folded: None, along_folds: &[] };
    verify_scalar(&scatter.body, &cx, faults);
    let value = scatter.body.insts.get(scatter.value as usize);
    faults.require(value.is_some_and(|i| i.dtype == scatter.result.dtype), || {
        "the contribution is not of the result's type".into()
    });
    faults.require(scatter.monoid.parts() == 1, || format!("{} cannot be scattered", scatter.monoid.name()));
    let reach = Reach { axes, operands, earlier: reads };
    verify_coords("the destination", &scatter.at, &scatter.result, true, &reach, faults);
    if let Some(k) = scatter.init {
        faults.require(scatter.operands.get(k as usize) == Some(&scatter.result), || {
            "the operand it starts from is not of the result's type".into()
        });
    }
}
