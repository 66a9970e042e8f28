//! Which elements a kernel looks at, and kernels over a part of an axis, which look at fewer: how a launch runs whose
//! tensors do not fit the windows that a shader has. A part names the same buffers as the whole and writes its share of
//! them.

use std::ops::Range;

use thalweg_graph::kernel::{Affine, Axis, BufferType, Coord, Group, Kernel, LoopNest, Passed};

/// Elements of each operand, then of each result, that a kernel may look at: from the first to the last of them.
pub(crate) fn reaches(kernel: &Kernel) -> Vec<Range<u64>> {
    let whole = |b: &BufferType| 0..b.len() as u64;
    match kernel {
        Kernel::Nest(nest) => {
            let (mut reads, writes) = of_nest(nest);
            reads.extend(writes);
            reads
        }
        Kernel::Group(group) => of_group(group),
        _ => kernel.operands().iter().chain(kernel.results()).map(whole).collect(),
    }
}

fn of_nest(nest: &LoopNest) -> (Vec<Range<u64>>, Vec<Range<u64>>) {
    let mut reads = vec![0..0; nest.operands.len()];
    for read in &nest.reads {
        let k = usize::from(read.operand);
        reads[k] = both(&reads[k], &reach(&read.coords, &nest.operands[k], &nest.axes));
    }
    let mut writes = vec![0..0; nest.results.len()];
    for write in &nest.writes {
        let k = usize::from(write.result);
        let coords: Vec<Coord> = write.coords.iter().cloned().map(Coord::Affine).collect();
        writes[k] = both(&writes[k], &reach(&coords, &nest.results[k], &nest.axes));
    }
    (reads, writes)
}

fn of_group(group: &Group) -> Vec<Range<u64>> {
    let operands = group.operands.len();
    let mut all = vec![0..0; operands + group.results.len()];
    for member in &group.members {
        let (reads, writes) = of_nest(&member.nest);
        let named = member.reads.iter().chain(&member.writes).zip(reads.iter().chain(&writes));
        for (passed, range) in named {
            let slot = match passed {
                Passed::Operand(i) => usize::from(*i),
                Passed::Result(i) => operands + usize::from(*i),
                Passed::Local(_) => continue,
            };
            all[slot] = both(&all[slot], range);
        }
    }
    all
}

fn both(a: &Range<u64>, b: &Range<u64>) -> Range<u64> {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => a.start.min(b.start)..a.end.max(b.end),
    }
}

/// The row-major elements that coordinates lead to, from the first to the last.
fn reach(coords: &[Coord], of: &BufferType, axes: &[Axis]) -> Range<u64> {
    if of.is_empty() {
        return 0..0;
    }
    let (mut first, mut last) = (0, 0);
    for ((coord, extent), stride) in coords.iter().zip(&of.shape).zip(of.strides()) {
        let (low, high) = along(coord, extent - 1, axes);
        first += low * stride as u64;
        last += high * stride as u64;
    }
    first..last + 1
}

/// The least and the greatest place on an axis that a coordinate leads to. What is beyond the ends is not looked at.
fn along(coord: &Coord, end: u64, axes: &[Axis]) -> (u64, u64) {
    let Some((low, high)) = coord.index().and_then(|i| i.range(axes)) else { return (0, end) };
    let (low, high) = (low.max(0) as u64, high.max(0) as u64);
    let (low, high) = match coord {
        Coord::Affine(_) | Coord::Value { .. } => (low, high),
        Coord::Holes { step, .. } => (low / step, high / step),
        Coord::Digit { divide, modulo, .. } => match (low / divide, high / divide) {
            (a, b) if a / modulo == b / modulo => (a % modulo, b % modulo),
            _ => (0, end),
        },
    };
    (low.min(end), high.min(end))
}

/// The two halves of a kernel that look at least, if there are any: points of one parallel axis each.
pub(crate) fn halves(kernel: &Kernel) -> Option<[Kernel; 2]> {
    let types: Vec<&BufferType> = kernel.operands().iter().chain(kernel.results()).collect();
    let bytes = |kernel: &Kernel| -> u64 {
        let each = reaches(kernel).into_iter().zip(&types);
        each.map(|(r, t)| (r.end - r.start) * t.dtype.size_bytes() as u64).sum()
    };
    let axes: Vec<usize> = match kernel {
        Kernel::Nest(nest) => (0..nest.parallel_axes()).filter(|a| nest.axes[*a].extent > 1).collect(),
        // Rows of a part follow each other.
        Kernel::Group(group) => group.rows.iter().position(|n| *n > 1).into_iter().collect(),
        _ => vec![],
    };
    let cut = |axis: usize| {
        let extent = match kernel {
            Kernel::Nest(nest) => nest.axes[axis].extent,
            Kernel::Group(group) => group.rows[axis],
            _ => return None,
        };
        let middle = extent.div_ceil(2);
        Some([part(kernel, axis, 0..middle)?, part(kernel, axis, middle..extent)?])
    };
    let cuts = axes.into_iter().filter_map(cut);
    let best = cuts.min_by_key(|[first, _]| bytes(first))?;
    (bytes(&best[0]) < bytes(kernel)).then_some(best)
}

/// The kernel for these points of an axis.
fn part(kernel: &Kernel, axis: usize, points: Range<u64>) -> Option<Kernel> {
    Some(match kernel {
        Kernel::Nest(nest) => narrowed(nest, axis, points).into(),
        Kernel::Group(group) => {
            let mut part = group.clone();
            part.rows[axis] = points.end - points.start;
            part.members.iter_mut().for_each(|m| m.nest = narrowed(&m.nest, axis, points.clone()));
            part.into()
        }
        _ => return None,
    })
}

fn narrowed(nest: &LoopNest, axis: usize, points: Range<u64>) -> LoopNest {
    let mut part = nest.clone();
    let moved = |map: &mut Affine| map.offset += map.coefficient(axis as u16) * points.start as i64;
    for coord in part.reads.iter_mut().flat_map(|r| &mut r.coords) {
        match coord {
            Coord::Affine(index) | Coord::Holes { index, .. } | Coord::Digit { index, .. } => moved(index),
            Coord::Value { .. } => {}
        }
    }
    part.writes.iter_mut().flat_map(|w| &mut w.coords).for_each(moved);
    part.axes[axis].origin += points.start;
    part.axes[axis].extent = points.end - points.start;
    part
}
