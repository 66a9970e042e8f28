//! Tiles: boxes of points that run together, one point per lane. A box may span several axes, so that short inner
//! axes (an image of 4×4) still fill the lanes. Lanes are numbered fold axes first, then parallel axes, row-major:
//! folding lanes together halves contiguous runs, and a box cut short along its outermost axis is a prefix of lanes.

use thalweg_graph::kernel::Affine;

use crate::domain::Domain;

/// Most lanes in a tile. A register of f32 is then 4 KiB: starting an instruction costs little beside it, and a handful
/// of registers stay in the first-level cache.
pub(crate) const LANES: usize = 1024;

/// Elements of four bytes in a line of the cache.
const LINE: i64 = 16;

/// Where a tile lies: per axis of the domain its first point, and from [`STARTS`] on, where the block of rows that the
/// tile is in starts along the axes that a group shares.
pub(crate) type Origin = [i64; STARTS + 8];
/// A domain has no more axes than this.
pub(crate) const STARTS: usize = 32;

/// The shape of a box, axis by axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tile {
    /// Points per axis; 1 along axes that are walked tile by tile.
    pub(crate) counts: Vec<i64>,
    /// Number of parallel axes.
    parallel: usize,
}

impl Tile {
    /// Takes at most `fold` by `parallel` lanes from the innermost axes of either sort. The parallel part is cut only
    /// where that leaves no rest, unless it is the outermost part of the lanes.
    pub(crate) fn new(domain: &Domain, fold: usize, parallel: usize) -> Self {
        let mut counts = vec![1; domain.extents.len()];
        let split = domain.parallel;
        if !domain.fold_is_empty {
            take(&domain.extents[split..], &mut counts[split..], fold as i64, false);
        }
        let exact = counts[split..].iter().any(|c| *c > 1);
        take(&domain.extents[..split], &mut counts[..split], parallel as i64, exact);
        Self { counts, parallel: split }
    }
    /// A tile of a block of rows that folds as `alone` does over all rows: to the same bits.
    pub(crate) fn in_block(domain: &Domain, alone: &Self) -> Self {
        let fold = &alone.counts[alone.parallel..];
        let mut tile = Self { counts: vec![1; domain.parallel], parallel: domain.parallel };
        let room = LANES / alone.fold_lanes().max(1);
        let exact = fold.iter().any(|c| *c > 1);
        take(&domain.extents[..domain.parallel], &mut tile.counts, room as i64, exact);
        tile.counts.extend(fold);
        tile
    }
    /// A box of the innermost axis by axis `other`, both parallel: for what is read along `other` and written along the
    /// innermost, so that every line that is read serves all of its lanes. `None` where the innermost has no good part.
    pub(crate) fn turned(domain: &Domain, other: usize) -> Option<Self> {
        let inner = domain.parallel.checked_sub(1).filter(|inner| *inner != other && !domain.is_empty)?;
        let part = (8..=LANES as i64 / LINE).rev().find(|n| domain.extents[inner] % n == 0)?;
        let mut counts = vec![1; domain.extents.len()];
        (counts[inner], counts[other]) = (part, domain.extents[other].min(LINE));
        Some(Self { counts, parallel: domain.parallel })
    }
    /// The same parallel points without the fold.
    pub(crate) fn without_fold(&self) -> Self {
        let counts = self.counts.iter().enumerate().map(|(a, c)| if a < self.parallel { *c } else { 1 }).collect();
        Self { counts, parallel: self.parallel }
    }
    pub(crate) fn parallel_lanes(&self) -> usize {
        self.counts[..self.parallel].iter().product::<i64>() as usize
    }
    pub(crate) fn fold_lanes(&self) -> usize {
        self.counts[self.parallel..].iter().product::<i64>() as usize
    }
    pub(crate) fn lanes(&self) -> usize {
        self.parallel_lanes() * self.fold_lanes()
    }
    /// Axes with more than one lane, outermost lane first, with their counts.
    fn order(&self) -> impl DoubleEndedIterator<Item = (usize, i64)> + '_ {
        let axes = (self.parallel..self.counts.len()).chain(0..self.parallel);
        axes.map(|a| (a, self.counts[a])).filter(|(_, c)| *c > 1)
    }
    /// Calls `visit` with the position inside the box of every lane, in order.
    fn for_each_lane(&self, mut visit: impl FnMut(&[i64])) {
        let order: Vec<_> = self.order().collect();
        let mut at = vec![0; self.counts.len()];
        for _ in 0..self.lanes() {
            visit(&at);
            for (axis, count) in order.iter().rev() {
                at[*axis] += 1;
                if at[*axis] < *count {
                    break;
                }
                at[*axis] = 0;
            }
        }
    }
    /// `map` seen from this tile.
    pub(crate) fn lane_map(&self, map: &Affine) -> LaneMap {
        let terms: Vec<_> = map.terms.iter().map(|(a, c)| (*a as usize, *c)).collect();
        // All lanes of a tile start where its block does.
        let apart: Vec<_> = terms.iter().copied().filter(|(a, _)| *a < STARTS).collect();
        let mut table = Vec::with_capacity(self.lanes());
        self.for_each_lane(|at| {
            table.push(apart.iter().fold(0i64, |s, (a, c)| s.wrapping_add(c.wrapping_mul(at[*a]))))
        });
        let (min, max) = (table.iter().copied().min().unwrap_or(0), table.iter().copied().max().unwrap_or(0));
        let step = table.get(1).copied().unwrap_or(1);
        let pattern = if table.windows(2).all(|w| w[1].wrapping_sub(w[0]) == step) {
            Pattern::Linear(step)
        } else {
            let (run, unit) = self.order().next_back().map_or((1, 0), |(a, c)| (c as usize, map.coefficient(a as u16)));
            let turned = |(l, t): (usize, &i64)| *t == (l / run) as i64 + unit.wrapping_mul((l % run) as i64);
            if unit > 1 && table.iter().enumerate().all(turned) {
                Pattern::Turned { run, unit }
            } else {
                Pattern::Table { relative: table.into(), run, unit }
            }
        };
        LaneMap { terms, offset: map.offset, pattern, min, max }
    }
}

fn take(extents: &[i64], counts: &mut [i64], limit: i64, exact: bool) {
    let mut room = limit.max(1);
    for axis in (0..extents.len()).rev() {
        let mut count = extents[axis].min(room).max(1);
        while exact && extents[axis] % count != 0 {
            count -= 1;
        }
        counts[axis] = count;
        if count < extents[axis] {
            return;
        }
        room /= count;
    }
}

/// An affine map over the lanes of a tile: a value at the tile's origin, and what each lane adds.
#[derive(Clone, Debug)]
pub(crate) struct LaneMap {
    terms: Vec<(usize, i64)>,
    offset: i64,
    pub(crate) pattern: Pattern,
    /// Least of what a lane adds.
    pub(crate) min: i64,
    /// Most of what a lane adds.
    pub(crate) max: i64,
}

/// What lanes add.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    /// The lane's number times a step.
    Linear(i64),
    /// Rows of `run` lanes; consecutive lanes of a row differ by `unit`, and consecutive rows by 1.
    Turned { run: usize, unit: i64 },
    /// Anything; within rows of `run` lanes, consecutive lanes differ by `unit`.
    Table { relative: Box<[i64]>, run: usize, unit: i64 },
}

impl LaneMap {
    /// The value at the tile's origin.
    #[inline(always)]
    pub(crate) fn at(&self, origin: &[i64]) -> i64 {
        self.terms.iter().fold(self.offset, |s, (a, c)| s.wrapping_add(c.wrapping_mul(origin[*a])))
    }
    /// Lanes in a row along which it is affine; `None` if it is along all of them.
    pub(crate) fn run(&self) -> Option<usize> {
        match &self.pattern {
            Pattern::Linear(_) => None,
            Pattern::Turned { run, .. } | Pattern::Table { run, .. } => Some(*run),
        }
    }
    /// The value at lane `start`, where a row begins, and its step along that row.
    #[inline(always)]
    pub(crate) fn row(&self, origin: &[i64], start: usize) -> (i64, i64) {
        let (relative, step) = match &self.pattern {
            Pattern::Linear(step) => (step.wrapping_mul(start as i64), *step),
            Pattern::Turned { run, unit } => ((start / run) as i64, *unit),
            Pattern::Table { relative, unit, .. } => (relative[start], *unit),
        };
        (self.at(origin).wrapping_add(relative), step)
    }
    /// Writes the value of each of the first `n` lanes.
    #[inline(always)]
    pub(crate) fn write(&self, origin: &[i64], out: &mut [i64]) {
        let base = self.at(origin);
        match &self.pattern {
            Pattern::Linear(step) => {
                out.iter_mut().enumerate().for_each(|(l, o)| *o = base.wrapping_add(step.wrapping_mul(l as i64)));
            }
            Pattern::Turned { run, unit } => {
                for (row, out) in out.chunks_mut(*run).enumerate() {
                    let base = base.wrapping_add(row as i64);
                    out.iter_mut().enumerate().for_each(|(c, o)| *o = base.wrapping_add(unit.wrapping_mul(c as i64)));
                }
            }
            Pattern::Table { relative, .. } => {
                out.iter_mut().zip(relative.iter()).for_each(|(o, r)| *o = base.wrapping_add(*r));
            }
        }
    }
    /// Average cost of fetching a lane along this map, in nanoseconds; a guess to compare tiles by.
    pub(crate) fn cost(&self, size_bytes: usize, lanes: usize) -> f64 {
        let gathered = |apart: i64| {
            let scattered = apart.unsigned_abs() as usize * size_bytes >= 64 && lanes > 128;
            if scattered { 1.5 } else { 0.4 }
        };
        match &self.pattern {
            Pattern::Linear(0 | 1) => 0.05,
            Pattern::Linear(step) => gathered(*step),
            Pattern::Turned { .. } => 0.3,
            Pattern::Table { run, unit: 0 | 1, .. } if *run >= 8 => 0.05 + 4.0 / *run as f64,
            Pattern::Table { unit, .. } => gathered(*unit),
        }
    }
}

/// The tiles that cover some axes, in row-major order.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    /// (axis, extent, points per tile, tiles), outermost first.
    axes: Vec<(usize, i64, i64, i64)>,
    /// How many tiles there are.
    pub(crate) tiles: usize,
}

impl Walk {
    /// Over the axes of `range`.
    pub(crate) fn new(domain: &Domain, tile: &Tile, range: std::ops::Range<usize>) -> Self {
        let axes: Vec<_> = range
            .map(|a| (a, domain.extents[a], tile.counts[a], (domain.extents[a] + tile.counts[a] - 1) / tile.counts[a]))
            .collect();
        let tiles = axes.iter().map(|a| a.3).product::<i64>() as usize;
        Self { axes, tiles }
    }
    /// Sets `origin` to that of tile `index`; returns the points in it.
    #[inline]
    pub(crate) fn seek(&self, index: usize, origin: &mut [i64]) -> usize {
        let mut index = index as i64;
        let mut points = 1;
        for (axis, extent, count, tiles) in self.axes.iter().rev() {
            let i = if *tiles == 1 { 0 } else { index % tiles };
            index = if *tiles == 1 { index } else { index / tiles };
            origin[*axis] = i * count;
            points *= (extent - i * count).min(*count);
        }
        points as usize
    }
}
