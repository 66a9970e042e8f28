//! Whether a kernel may write a result over one of its operands: judged element by element, by where points read and
//! write. No algebra, as the verifier has it: all points are looked at or, where there are many, those at the borders,
//! which decide for affine coordinates, and some between.

use crate::kernel::{Affine, Axis, Coord, Group, Kernel, LoopNest, Passed};

/// More points than these are not looked at one by one.
const MOST_POINTS: u64 = 4096;

/// Whether every element of the operand is read by nobody behind the write of the result there.
pub(super) fn in_place(kernel: &Kernel, result: usize, operand: usize) -> bool {
    let (Some(from), Some(to)) = (kernel.operands().get(operand), kernel.results().get(result)) else { return false };
    if from.dtype.size_bytes() != to.dtype.size_bytes() || from.checked_len() != to.checked_len() {
        return false;
    }
    match kernel {
        Kernel::Nest(nest) => at_the_write(nest, result, operand),
        Kernel::Group(group) => in_group(group, result, operand),
        Kernel::Scatter(scatter) => {
            scatter.init == u16::try_from(operand).ok()
                && !scatter.reads.iter().any(|read| usize::from(read.operand) == operand)
        }
        _ => false,
    }
}

/// No point reads what another has written or will write: it reads at most the element that it writes itself.
fn at_the_write(nest: &LoopNest, result: usize, operand: usize) -> bool {
    let Some(write) = nest.writes.iter().find(|w| usize::from(w.result) == result) else { return false };
    let to = &nest.results[result].shape;
    let coords: Vec<Coord> = write.coords.iter().cloned().map(Coord::Affine).collect();
    nest.folds.is_empty()
        && points(&nest.axes).iter().all(|point| {
            let written = element(&coords, to, point);
            reads(nest, operand).all(|coords| match element(coords, &nest.operands[operand].shape, point) {
                Found::Outside => true,
                read => read == written,
            })
        })
}

/// Members before the one that writes stay in their row, which is still to come or being made; later ones do not read.
fn in_group(group: &Group, result: usize, operand: usize) -> bool {
    let (from, to) = (Passed::Operand(operand as u16), Passed::Result(result as u16));
    let Some(writer) = group.members.iter().position(|m| m.writes.contains(&to)) else { return false };
    group.members.iter().enumerate().all(|(m, member)| {
        let passed = (0..member.reads.len()).filter(|k| member.reads[*k] == from);
        let slot = member.writes.iter().position(|w| *w == to);
        let mut passed = passed.peekable();
        match slot {
            _ if m > writer => passed.peek().is_none(),
            Some(slot) if m == writer => passed.all(|k| at_the_write(&member.nest, slot, k)),
            _ => passed.all(|k| in_its_row(&member.nest, k, &group.rows)),
        }
    })
}

fn in_its_row(nest: &LoopNest, operand: usize, rows: &[u64]) -> bool {
    let shape = &nest.operands[operand].shape;
    let product = |of: &[u64]| of.iter().try_fold(1u64, |n, extent| n.checked_mul(*extent));
    let (Some(len), Some(count)) = (product(shape), product(rows)) else { return false };
    let Some(size) = len.checked_div(count).filter(|size| *size > 0 && len % count == 0) else { return false };
    points(&nest.axes).iter().all(|point| {
        let row = rows.iter().zip(point).fold(0, |sum, (extent, at)| sum * extent + *at as u64);
        reads(nest, operand).all(|coords| match element(coords, shape, point) {
            Found::Outside => true,
            Found::Unknown => count == 1,
            Found::At(element) => element / size == row,
        })
    })
}

fn reads(nest: &LoopNest, operand: usize) -> impl Iterator<Item = &[Coord]> {
    nest.reads.iter().filter(move |r| usize::from(r.operand) == operand).map(|r| &r.coords[..])
}

/// Where coordinates lead.
#[derive(PartialEq, Eq)]
enum Found {
    At(u64),
    Outside,
    /// Data decides.
    Unknown,
}

fn element(coords: &[Coord], shape: &[u64], point: &[i64]) -> Found {
    let mut sum = 0u64;
    for (coord, extent) in coords.iter().zip(shape) {
        let at = |index: &Affine| index.at(point);
        let at = match coord {
            Coord::Affine(index) => at(index),
            Coord::Holes { index, step } => match (at(index), *step as i64) {
                (at, step) if step > 0 && at.rem_euclid(step) == 0 => at / step,
                _ => return Found::Outside,
            },
            Coord::Digit { index, divide, modulo } => match (*divide as i64, *modulo as i64) {
                (divide, modulo) if divide > 0 && modulo > 0 => (at(index).div_euclid(divide)).rem_euclid(modulo),
                _ => return Found::Unknown,
            },
            Coord::Value { .. } => return Found::Unknown,
        };
        match u64::try_from(at) {
            Ok(at) if at < *extent => sum = sum.wrapping_mul(*extent).wrapping_add(at),
            _ => return Found::Outside,
        }
    }
    Found::At(sum)
}

/// Every point, or those with each coordinate at a border, beside one, or in the middle.
fn points(axes: &[Axis]) -> Vec<Vec<i64>> {
    let count = axes.iter().try_fold(1u64, |n, axis| n.checked_mul(axis.extent)).filter(|n| *n <= MOST_POINTS);
    let along = |extent: u64| -> Vec<i64> {
        if count.is_some() {
            return (0..extent as i64).collect();
        }
        let mut some = vec![0, 1, extent / 2, extent.saturating_sub(2), extent.saturating_sub(1)];
        some.sort_unstable();
        some.dedup();
        some.into_iter().filter(|at| *at < extent).map(|at| at as i64).collect()
    };
    axes.iter().fold(vec![vec![]], |points: Vec<Vec<i64>>, axis| {
        let along = along(axis.extent);
        // Of very many axes, the first ones.
        let along = if points.len() as u64 > MOST_POINTS { &along[..along.len().min(1)] } else { &along[..] };
        points.iter().flat_map(|p| along.iter().map(|at| [&p[..], &[*at]].concat())).collect()
    })
}
