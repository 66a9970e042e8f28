//! Contractions as products of matrices that need not exist: which axes are rows, columns and depth, how large a tile each
//! workgroup makes of the result, and into how many parts the depth is cut where tiles are few. All of it follows from
//! the nest alone, and so does the order in which products are added. The text is [`super::tile`]'s.

use thalweg_graph::kernel::{Affine, Contraction, Coord, LoopNest, Reg};
use thalweg_graph::types::DType;

use super::domain::Domain;
use super::shader::LANES;

/// Steps of depth that are in workgroup memory at a time.
pub(super) const DEPTH: u64 = 16;
/// Fewer rows, columns or steps than this are as well off with a thread per element.
const LEAST: u64 = 8;
/// As many workgroups keep a large device busy.
const BUSY: u64 = 256;
/// Shortest part that depth is cut into.
const LEAST_PART: u64 = 128;
/// Most bytes of partial sums.
const PARTIAL_BYTES: u64 = 32 << 20;

/// What a workgroup makes of the result: threads down and across, and what each makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tile {
    /// Threads along rows and along columns.
    pub(super) threads: [u64; 2],
    /// Rows and columns of each, in fours.
    pub(super) each: [u64; 2],
}

impl Tile {
    const ALL: [Tile; 6] = [
        Tile { threads: [8, 8], each: [8, 8] },
        Tile { threads: [8, 8], each: [4, 8] },
        Tile { threads: [8, 8], each: [8, 4] },
        Tile { threads: [8, 8], each: [4, 4] },
        Tile { threads: [16, 4], each: [4, 4] },
        Tile { threads: [4, 16], each: [4, 4] },
    ];
    /// Rows (0) or columns (1).
    pub(super) fn size(&self, side: usize) -> u64 {
        self.threads[side] * self.each[side]
    }
    /// What a result takes in such tiles, about: work at the edges, reads per product, and a device that is not full.
    fn cost(&self, [rows, columns]: [u64; 2], matrices: u64) -> u64 {
        let tiles = rows.div_ceil(self.size(0)) * columns.div_ceil(self.size(1)) * matrices;
        let reads = 64 + 128 / self.each[0] + 128 / self.each[1];
        tiles.max(BUSY).saturating_mul(self.size(0) * self.size(1) * reads)
    }
}

/// A contraction as a product of matrices.
pub(super) struct Product {
    /// Axes and accesses.
    pub(super) domain: Domain,
    /// Of the rows' operand, then of the columns': which read, and the register that is multiplied.
    pub(super) factors: [(usize, Reg); 2],
    /// Axes of rows and of columns.
    pub(super) sides: [Vec<usize>; 2],
    /// Axes that both operands or neither have: a matrix for each of their points.
    pub(super) matrices: Vec<usize>,
    /// Axes that are summed over.
    pub(super) depth: Vec<usize>,
    /// Type of the sum.
    pub(super) dtype: DType,
    pub(super) tile: Tile,
    /// Parts that depth is cut into, and steps of each.
    pub(super) parts: [u64; 2],
}

impl Product {
    /// The product that a nest is; `None` where another way is as good, or where it is none.
    pub(super) fn of(nest: &LoopNest) -> Option<Self> {
        let Contraction { factors: [a, b], multiplied: [x, y], dtype } = nest.contraction()?;
        let mut factors = [(a, x), (b, y)];
        let readable = |(k, _): &(usize, Reg)| {
            let operand = &nest.operands[usize::from(nest.reads[*k].operand)];
            let found = nest.reads[*k].coords.iter().any(|c| matches!(c, Coord::Value { .. }));
            operand.dtype.is_float() && operand.dtype != DType::F64 && !operand.is_empty() && !found
        };
        if dtype == DType::F64 || !factors.iter().all(readable) || nest.axes.iter().any(|a| a.extent == 0) {
            return None;
        }
        let domain = Domain::of(nest);
        let uses = |s: usize, axis: usize| {
            let maps = domain.maps(&nest.reads, factors[s].0);
            maps.iter().any(|m| m.coefficient(axis as u16) != 0)
        };
        let long = |fold: bool| (0..nest.axes.len()).filter(move |a| nest.axes[*a].fold == fold);
        let long = |fold: bool| long(fold).filter(|a| domain.axes[*a].extent > 1).collect::<Vec<usize>>();
        let (parallel, depth) = (long(false), long(true));
        let own = |s: usize| parallel.iter().copied().filter(|a| uses(s, *a) && !uses(1 - s, *a)).collect::<Vec<_>>();
        let mut sides = [own(0), own(1)];
        let matrices: Vec<usize> = parallel.iter().copied().filter(|a| uses(0, *a) == uses(1, *a)).collect();
        // Threads that are neighbours store neighbouring columns.
        let least = |axes: &[usize]| axes.iter().map(|a| step(&domain.writes[0], *a)).min().unwrap_or(i64::MAX);
        if least(&sides[0]) < least(&sides[1]) {
            sides.reverse();
            factors.reverse();
        }
        let points = |axes: &[usize]| axes.iter().try_fold(1u64, |n, a| n.checked_mul(domain.axes[*a].extent));
        let (size, count, steps) = ([points(&sides[0])?, points(&sides[1])?], points(&matrices)?, points(&depth)?);
        let all = [size[0], size[1], count].iter().try_fold(1u64, |n, d| n.checked_mul(*d))?;
        if size.iter().any(|n| *n < LEAST) || steps < LEAST || all >= 1 << 30 || steps >= 1 << 30 {
            return None;
        }
        let tile = *Tile::ALL.iter().min_by_key(|t| t.cost(size, count))?;
        let tiles = size[0].div_ceil(tile.size(0)) * size[1].div_ceil(tile.size(1)) * count;
        let room = (PARTIAL_BYTES / (4 * all)).max(1);
        let wanted = (BUSY / tiles).min(steps / LEAST_PART).min(room).max(1);
        let part = steps.div_ceil(wanted).next_multiple_of(DEPTH);
        let parts = [steps.div_ceil(part), part];
        Some(Self { domain, factors, sides, matrices, depth, dtype, tile, parts })
    }
    /// Points of some axes.
    pub(super) fn points(&self, axes: &[usize]) -> u64 {
        axes.iter().map(|a| self.domain.axes[*a].extent).product()
    }
    /// Elements of the result.
    pub(super) fn elements(&self) -> u64 {
        [&self.sides[0], &self.sides[1], &self.matrices].iter().map(|a| self.points(a)).product()
    }
    /// Bytes of partial sums, where depth is cut.
    pub(super) fn workspace_bytes(&self) -> u64 {
        if self.parts[0] > 1 { 4 * self.parts[0] * self.elements() } else { 0 }
    }
    /// With as many partial sums as so many bytes hold: a part of a launch may want more than the whole did.
    pub(super) fn within(mut self, bytes: u64) -> Self {
        if self.workspace_bytes() > bytes {
            self.parts = [1, self.points(&self.depth).next_multiple_of(DEPTH)];
        }
        self
    }
    /// Whether neighbouring threads are to load neighbouring steps of depth of a side, not neighbouring rows: what lies
    /// closer together.
    pub(super) fn loads_along_depth(&self, nest: &LoopNest, side: usize) -> bool {
        let maps = self.domain.maps(&nest.reads, self.factors[side].0);
        // The last coordinate moves least where there are several maps.
        let Some(last) = maps.last() else { return false };
        let near = |axes: &[usize]| {
            let beside = axes.iter().filter(|a| step(last, **a) == 1).map(|a| self.domain.axes[*a].extent);
            beside.max().unwrap_or(1)
        };
        near(&self.depth) > near(&self.sides[side])
    }
    /// How it runs, for people.
    pub(super) fn strategy(&self) -> String {
        let [m, n] = [0, 1].map(|s| self.points(&self.sides[s]));
        let (k, count) = (self.points(&self.depth), self.points(&self.matrices));
        let mut text = format!("product {m}×{n}×{k} in tiles of {}×{}", self.tile.size(0), self.tile.size(1));
        if count > 1 {
            text = format!("{count} of {text}");
        }
        if self.parts[0] > 1 {
            text += &format!(", depth in {} parts", self.parts[0]);
        }
        text
    }
}

/// How far apart neighbours along an axis are, unless they are one.
fn step(map: &Affine, axis: usize) -> i64 {
    match map.coefficient(axis as u16).checked_abs() {
        None | Some(0) => i64::MAX,
        Some(c) => c,
    }
}

const _: () = assert!(LANES == 64, "every tile has as many threads");
