//! In which ways a kernel can be spread over leaves, derived from its text. An axis of the loop is cut only where every
//! coordinate that uses it is exactly that axis, over its whole extent: each leaf then runs the same kernel over fewer
//! points, reads its own rows and writes its own. Nothing is declared by ops.

use super::linear;
use crate::kernel::{Attention, BufferType, Coord, Kernel, LoopNest, Monoid, Scatter};

/// What a leaf needs of an operand, or makes of a result.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Part {
    /// All of it.
    Whole,
    /// Its range of an axis.
    Along(u16),
    /// Something of the same type: all leaves' together, combined by the monoid, are the value.
    Partial(Monoid),
    /// Its device's range of all elements.
    Owned,
}

/// What of a kernel is cut.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cut {
    /// Nothing: each leaf runs all of it.
    Nothing,
    /// An axis of its loop.
    Loop(u16),
    /// An axis of all its operands and results.
    Tensors(u16),
    /// The outermost axis of a group of axes that become others.
    Relabel,
    /// All elements in row-major order, whatever the axes.
    Flat,
}

/// One way to spread a kernel over leaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Way {
    /// What is cut.
    pub cut: Cut,
    /// What each leaf needs, by operand.
    pub operands: Vec<Part>,
    /// What each leaf makes, by result.
    pub results: Vec<Part>,
}

/// Every way that cuts something.
pub(crate) fn ways(kernel: &Kernel) -> Vec<Way> {
    match kernel {
        // Only a relabeling has no way of its own: its coordinates are digits of a position.
        Kernel::Nest(nest) if kernel.only_relabels() => relabel(nest),
        Kernel::Nest(nest) => (0..nest.axes.len() as u16).filter_map(|a| along(nest, a)).collect(),
        Kernel::Scatter(scatter) => (0..scatter.axes.len() as u16).filter_map(|a| scattered(scatter, a)).collect(),
        Kernel::Attention(a) | Kernel::AttentionGrad(a) => apart(a),
        Kernel::Group(_) => vec![],
    }
}

/// The way in which devices compute ranges of all elements: each result element depends on the same element of every operand
/// that has more than one.
pub(super) fn flat(kernel: &Kernel) -> Option<Way> {
    kernel.flattened(2)?;
    let n = kernel.results().first()?.len();
    let operand = |t: &BufferType| if t.len() == n { Part::Owned } else { Part::Whole };
    let operands = kernel.operands().iter().map(operand).collect();
    Some(Way { cut: Cut::Flat, operands, results: vec![Part::Owned; kernel.results().len()] })
}

/// What becomes of the results if some operands are partial sums and nothing is cut; `None` if they have to be summed first.
pub(super) fn through(kernel: &Kernel, partial: &[bool]) -> Option<Vec<Part>> {
    if kernel.only_relabels() {
        return Some(vec![Part::Partial(Monoid::Sum)]);
    }
    let Kernel::Nest(nest) = kernel else { return None };
    Some(linear::results(nest, partial, false)?.into_iter().map(part).collect())
}

fn part(monoid: Option<Monoid>) -> Part {
    monoid.map_or(Part::Whole, Part::Partial)
}

/// Coordinates use an axis of the loop otherwise than as an axis.
struct Crooked;

/// Where the coordinates of one tensor use an axis of the loop: nowhere, or as exactly that axis of the tensor. An error
/// where they use it in any other way.
fn used<'a>(
    coords: impl Iterator<Item = Option<&'a crate::kernel::Affine>>,
    shape: &[u64],
    axis: u16,
    extent: u64,
) -> Result<Option<u16>, Crooked> {
    let mut found = None;
    for (d, index) in coords.enumerate() {
        let Some(index) = index.filter(|i| i.coefficient(axis) != 0) else { continue };
        if index.as_axis() != Some(axis) || shape[d] != extent || found.is_some() {
            return Err(Crooked);
        }
        found = Some(d as u16);
    }
    Ok(found)
}

/// Where the reads of each operand use an axis of the loop; `None` if one does otherwise than [`used`] allows.
fn operands(reads: &[crate::kernel::Read], types: &[BufferType], axis: u16, extent: u64) -> Option<Vec<Part>> {
    let mut parts: Vec<Option<Part>> = vec![None; types.len()];
    for read in reads {
        let operand = usize::from(read.operand);
        // Digits and holes of an axis are no axis.
        let plain = |c: &Coord| matches!(c, Coord::Affine(_)) || c.index().is_none_or(|i| i.coefficient(axis) == 0);
        if !read.coords.iter().all(plain) {
            return None;
        }
        let at = used(read.coords.iter().map(Coord::index), &types[operand].shape, axis, extent).ok()?;
        let part = at.map_or(Part::Whole, Part::Along);
        if parts[operand].is_some_and(|p| p != part) {
            return None;
        }
        parts[operand] = Some(part);
    }
    Some(parts.into_iter().map(|p| p.unwrap_or(Part::Whole)).collect())
}

fn along(nest: &LoopNest, axis: u16) -> Option<Way> {
    let loop_axis = &nest.axes[usize::from(axis)];
    let operands = operands(&nest.reads, &nest.operands, axis, loop_axis.extent)?;
    let results = if loop_axis.fold {
        linear::results(nest, &vec![false; nest.operands.len()], true)?.into_iter().map(part).collect()
    } else {
        let mut parts = vec![Part::Whole; nest.results.len()];
        for write in &nest.writes {
            let shape = &nest.results[usize::from(write.result)].shape;
            let at = used(write.coords.iter().map(Some), shape, axis, loop_axis.extent).ok()??;
            parts[usize::from(write.result)] = Part::Along(at);
        }
        parts
    };
    Some(Way { cut: Cut::Loop(axis), operands, results })
}

fn scattered(scatter: &Scatter, axis: u16) -> Option<Way> {
    let extent = scatter.axes[usize::from(axis)].extent;
    let mut operands = operands(&scatter.reads, &scatter.operands, axis, extent)?;
    let plain = |c: &Coord| matches!(c, Coord::Affine(_)) || c.index().is_none_or(|i| i.coefficient(axis) == 0);
    if !scatter.at.iter().all(plain) {
        return None;
    }
    let at = used(scatter.at.iter().map(Coord::index), &scatter.result.shape, axis, extent).ok()?;
    let result = match (at, scatter.init) {
        (Some(d), None) => Part::Along(d),
        (Some(d), Some(init)) if operands[usize::from(init)] == Part::Whole => {
            operands[usize::from(init)] = Part::Along(d);
            Part::Along(d)
        }
        // Every leaf would start from the same value, and it would count as often as there are leaves.
        (_, Some(_)) => return None,
        (None, None) if linear::combines(scatter.monoid) => Part::Partial(scatter.monoid),
        (None, None) => return None,
    };
    Some(Way { cut: Cut::Loop(axis), operands, results: vec![result] })
}

fn apart(attention: &Attention) -> Vec<Way> {
    let axes = (0..attention.operands[0].rank() as u16 - 1).filter(|a| *a != attention.rows);
    let way = |a| {
        let all = |types: &[BufferType]| vec![Part::Along(a); types.len()];
        Way { cut: Cut::Tensors(a), operands: all(&attention.operands), results: all(&attention.results) }
    };
    axes.map(way).collect()
}

/// Axes of two shapes that hold the same factors: the leading axis of each side, and how many elements a step along it is
/// within the group.
struct Factor {
    from: (u16, u64),
    to: (u16, u64),
}

/// The groups of neighbouring axes by which one shape becomes the other, row-major. Shapes have equally many elements, and
/// some.
fn factors(from: &[u64], to: &[u64]) -> Vec<Factor> {
    let leading = |shape: &[u64], begin: usize, end: usize| {
        let d = (begin..end).find(|d| shape[*d] > 1)?;
        Some((d as u16, shape[d + 1..end].iter().product()))
    };
    let (mut all, mut i, mut j) = (vec![], 0, 0);
    while i < from.len() && j < to.len() {
        let (i0, j0) = (i, j);
        let (mut p, mut q) = (from[i], to[j]);
        (i, j) = (i + 1, j + 1);
        while p != q {
            let (side, at, product) = if p < q { (from, &mut i, &mut p) } else { (to, &mut j, &mut q) };
            let Some(n) = side.get(*at) else { return all };
            (*product, *at) = (*product * n, *at + 1);
        }
        all.extend(leading(from, i0, i).zip(leading(to, j0, j)).map(|(from, to)| Factor { from, to }));
    }
    all
}

/// Along the outermost axis of a group, on both sides: only there are ranges of the one ranges of the other.
fn relabel(nest: &LoopNest) -> Vec<Way> {
    let (from, to) = (&nest.operands[0], &nest.results[0]);
    if from.is_empty() {
        return vec![];
    }
    let along = |f: Factor| {
        let (operands, results) = (vec![Part::Along(f.from.0)], vec![Part::Along(f.to.0)]);
        Way { cut: Cut::Relabel, operands, results }
    };
    factors(&from.shape, &to.shape).into_iter().map(along).collect()
}

/// The cuts of a relabeling's result, given those of its operand along `axis`: `None` if one falls inside a row.
pub(super) fn relabeled(from: &BufferType, to: &BufferType, axis: u16, cuts: &[u64]) -> Option<Vec<u64>> {
    let factor = factors(&from.shape, &to.shape).into_iter().find(|f| f.from.0 == axis)?;
    let (inner, outer) = (factor.from.1, factor.to.1);
    cuts.iter().map(|c| (c * inner % outer == 0).then(|| c * inner / outer)).collect()
}
