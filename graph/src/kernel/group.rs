//! Groups of nests: members run in turn, block by block over leading axes that all of them share, so that what one makes
//! and another reads is still in the cache, and what only members read is never in memory as a whole. One concept for
//! several: row kernels (softmax, norms), a chain with several readers, a producer of two folds.
//!
//! A group means its members one after the other, each over all its points. Blocks are the device's business, and legal
//! because of one rule: what passes between members passes within a row. A *row* is one point of the shared axes; of
//! a value of `n` elements that passes, row `r` owns the `r`-th of equal runs, whatever shape a member sees it in.

use serde::{Deserialize, Serialize};

use super::BufferType;
use super::affine::{Affine, Coord};
use super::nest::{Axis, LoopNest};

/// Members with what they share.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Group {
    /// Types of the operands.
    pub operands: Vec<BufferType>,
    /// Types of the results.
    pub results: Vec<BufferType>,
    /// Types of what only members see. A device keeps as much of it as a block needs.
    pub locals: Vec<BufferType>,
    /// Extents of the axes that come first in every member, all parallel.
    pub rows: Vec<u64>,
    /// In order.
    pub members: Vec<Member>,
}

/// A nest and what its operands and results are in the group. Shapes may differ where elements do not.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Member {
    /// What it computes.
    pub nest: LoopNest,
    /// One per operand of the nest: an operand of the group, or what an earlier member wrote.
    pub reads: Vec<Passed>,
    /// One per result of the nest: a result or a local of the group.
    pub writes: Vec<Passed>,
}

/// A value as members name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Passed {
    /// An operand of the group.
    Operand(u16),
    /// A result of the group.
    Result(u16),
    /// Seen by members only.
    Local(u16),
}

impl Group {
    /// The type of a value; `None` if there is no such value.
    pub fn ty(&self, value: Passed) -> Option<&BufferType> {
        match value {
            Passed::Operand(i) => self.operands.get(usize::from(i)),
            Passed::Result(i) => self.results.get(usize::from(i)),
            Passed::Local(i) => self.locals.get(usize::from(i)),
        }
    }
    /// Number of rows; `None` if it overflows.
    pub fn row_count(&self) -> Option<u64> {
        self.rows.iter().try_fold(1u64, |n, d| n.checked_mul(*d))
    }
    /// See [`Kernel::may_write_in_place`](super::Kernel::may_write_in_place): nobody reads the operand after the result
    /// was written, and whoever does before stays in the row.
    pub(super) fn may_write_in_place(&self, result: usize, operand: usize) -> bool {
        let (Some(from), Some(to)) = (self.operands.get(operand), self.results.get(result)) else { return false };
        let (from_id, to_id) = (Passed::Operand(operand as u16), Passed::Result(result as u16));
        let Some(writer) = self.members.iter().position(|m| m.writes.contains(&to_id)) else { return false };
        let reads = |member: &Member, allowed: &dyn Fn(usize) -> bool| {
            member.reads.iter().enumerate().filter(|(_, r)| **r == from_id).all(|(k, _)| allowed(k))
        };
        let in_time = self.members.iter().enumerate().all(|(m, member)| match m.cmp(&writer) {
            std::cmp::Ordering::Greater => reads(member, &|_| false),
            std::cmp::Ordering::Less => reads(member, &|k| member.nest.reads_within_rows(k, &self.rows)),
            std::cmp::Ordering::Equal => {
                let slot = member.writes.iter().position(|w| *w == to_id);
                let nest = super::Kernel::Nest(member.nest.clone());
                reads(member, &|k| slot.is_some_and(|slot| nest.may_write_in_place(slot, k)))
            }
        });
        let alike = from.dtype.size_bytes() == to.dtype.size_bytes() && from.checked_len() == to.checked_len();
        alike && in_time
    }
}

impl LoopNest {
    /// Whether the first axes are parallel, uncut and have these extents.
    pub fn leads_with(&self, rows: &[u64]) -> bool {
        self.axes.len() >= rows.len() && self.axes.iter().zip(rows).all(|(a, extent)| *a == Axis::new(*extent, false))
    }
    /// Whether every read of operand `operand` stays in the row that it is made from, for rows of the first axes.
    pub fn reads_within_rows(&self, operand: usize, rows: &[u64]) -> bool {
        let mut reads = self.reads.iter().filter(|r| r.operand as usize == operand);
        reads.all(|r| within_rows(&r.coords, &self.operands[operand], &self.axes, rows))
    }
    /// Whether the write of result `result` stays in the row that it is made from.
    pub fn writes_within_rows(&self, result: usize, rows: &[u64]) -> bool {
        let affine = |c: &Affine| Coord::Affine(c.clone());
        let mut writes = self.writes.iter().filter(|w| w.result as usize == result);
        writes.all(|w| {
            let coords: Vec<Coord> = w.coords.iter().map(affine).collect();
            within_rows(&coords, &self.results[result], &self.axes, rows)
        })
    }
}

/// Whether coordinates, taken from row `r`, lie in the `r`-th of equal runs of the buffer. Coordinates that may leave
/// their axis, or are more than affine, must not move with the rows: what they find inside is anywhere on the axis.
fn within_rows(coords: &[Coord], ty: &BufferType, axes: &[Axis], rows: &[u64]) -> bool {
    let (Some(len), Some(count)) = (ty.checked_len(), rows.iter().try_fold(1u64, |n, d| n.checked_mul(*d))) else {
        return false;
    };
    if count == 0 || len == 0 || len % count != 0 {
        return false;
    }
    let size = i128::from(len / count);
    let mut along = vec![0i128; rows.len()];
    // Where in a row: the least and the most.
    let (mut low, mut high) = (0i128, 0i128);
    for ((coord, extent), stride) in coords.iter().zip(&ty.shape).zip(ty.strides()) {
        let (stride, last) = (i128::from(stride), i128::from(*extent) - 1);
        let with_rows = coord
            .index()
            .is_some_and(|i| i.terms.iter().any(|(a, _)| rows.get(usize::from(*a)).is_some_and(|extent| *extent > 1)));
        let range = coord.index().and_then(|i| i.range(axes));
        let inside =
            matches!(coord, Coord::Affine(_)) && range.is_some_and(|(low, high)| low >= 0 && i128::from(high) <= last);
        let Some(index) = coord.index().filter(|_| inside) else {
            if with_rows {
                return false;
            }
            high += last * stride;
            continue;
        };
        low += i128::from(index.offset) * stride;
        high += i128::from(index.offset) * stride;
        for (axis, c) in &index.terms {
            let step = i128::from(*c) * stride;
            match along.get_mut(usize::from(*axis)) {
                Some(total) => *total += step,
                None => {
                    let reach = step * (i128::from(axes[usize::from(*axis)].extent) - 1).max(0);
                    low += reach.min(0);
                    high += reach.max(0);
                }
            }
        }
    }
    let mut run = size;
    for (total, extent) in along.iter().zip(rows).rev() {
        if *extent > 1 && *total != run {
            return false;
        }
        run *= i128::from(*extent);
    }
    low >= 0 && high < size
}
