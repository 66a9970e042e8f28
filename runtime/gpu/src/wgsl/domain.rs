//! The axes of a nest as its accesses see them: neighbours that every access walks as one are one, so that an element-wise
//! nest over `[64, 16, 8, 8]` counts to 65536 and divides nothing. Axes keep their numbers: one that went into its
//! neighbour has a single point, which all that is written of indices passes over.

use thalweg_graph::kernel::{Affine, Axis, BufferType, Coord, LoopNest, Read, ScalarOp};

use super::index::flat_affine;

/// Axes, and what they lead to.
pub(super) struct Domain {
    /// The axes; points of one that is one with the next long one are counted there.
    pub(super) axes: Vec<Axis>,
    /// By read: the element that it finds, where it is inside at every point.
    pub(super) plain: Vec<Option<Affine>>,
    /// By write: the element that is written.
    pub(super) writes: Vec<Affine>,
}

/// By read: the row-major element that it finds as one map, unless it may be outside or is no map.
pub(super) fn plain(reads: &[Read], operands: &[BufferType], axes: &[Axis]) -> Vec<Option<Affine>> {
    let of = |read: &Read| {
        let operand = &operands[usize::from(read.operand)];
        let inside = |(c, extent): (&Coord, &u64)| match c {
            Coord::Affine(i) => {
                i.range(axes).is_some_and(|(low, high)| low >= 0 && (high as u64) < *extent).then(|| i.clone())
            }
            _ => None,
        };
        let coords: Option<Vec<Affine>> = read.coords.iter().zip(&operand.shape).map(inside).collect();
        Some(flat_affine(&coords?, operand))
    };
    reads.iter().map(of).collect()
}

impl Domain {
    /// That of a nest.
    pub(super) fn of(nest: &LoopNest) -> Self {
        let plain = plain(&nest.reads, &nest.operands, &nest.axes);
        let flat = |w: &thalweg_graph::kernel::Write| flat_affine(&w.coords, &nest.results[usize::from(w.result)]);
        let writes: Vec<Affine> = nest.writes.iter().map(flat).collect();
        let mut domain = Self { axes: nest.axes.clone(), plain, writes };
        domain.collapse(nest);
        domain
    }
    /// Every map that read `k` looks along.
    pub(super) fn maps<'a>(&'a self, reads: &'a [Read], k: usize) -> Vec<&'a Affine> {
        match &self.plain[k] {
            Some(map) => vec![map],
            None => reads[k].coords.iter().filter_map(Coord::index).collect(),
        }
    }
    fn collapse(&mut self, nest: &LoopNest) {
        if self.axes.iter().any(|a| a.extent == 0) {
            return;
        }
        // A map of both is a map of the inner one alone, whose coefficient stays as it is.
        let mut maps: Vec<Affine> = self.writes.clone();
        maps.extend((0..nest.reads.len()).flat_map(|k| self.maps(&nest.reads, k)).cloned());
        // What a program asks of an axis by name has to stay one.
        let programs = nest.body.insts.iter().chain(&nest.epilogue.insts);
        maps.extend(programs.filter_map(|inst| match inst.op {
            ScalarOp::Index(axis) => Some(Affine::axis(axis)),
            _ => None,
        }));
        let mut long = (0..self.axes.len()).rev().filter(|a| nest.axes[*a].extent > 1);
        let Some(mut inner) = long.next() else { return };
        for outer in long {
            let (below, above) = (self.axes[inner].extent, self.axes[outer].extent);
            let as_one = |m: &Affine| {
                let step = i64::try_from(below).ok().and_then(|n| m.coefficient(inner as u16).checked_mul(n));
                Some(m.coefficient(outer as u16)) == step
            };
            let together = below.checked_mul(above).filter(|n| *n < 1 << 31);
            match together.filter(|_| self.axes[outer].fold == self.axes[inner].fold) {
                Some(extent) if maps.iter().all(as_one) => {
                    (self.axes[inner].extent, self.axes[outer].extent) = (extent, 1);
                }
                _ => inner = outer,
            }
        }
    }
}
