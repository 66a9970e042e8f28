//! Finds the matrix product in a nest: which axes are rows, columns, batch and depth, and how to cut them into blocks.
//! Convolutions and both their gradients are the same thing with operands that must be packed, because a window, a
//! border or a hole keeps them from being strided matrices. Blocks depend on the nest alone.

use thalweg_graph::DType;
use thalweg_graph::kernel::{Affine, Binary, LoopNest, Monoid, ScalarOp};

use crate::domain::{Access, Check, Domain, LoweredOp};
use crate::pack::Packing;

/// Elements of packed operands that a block may have: half a megabyte of f32.
const PACKED_ELEMENTS: i64 = 128 << 10;
/// Least depth that a block is cut down to.
const LEAST_DEPTH: i64 = 256;
/// Groups of blocks; each has its own buffers, so that groups can run at the same time.
pub(crate) const GROUPS: usize = 8;

/// How one side of a block gets to be a matrix.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// It is one: strides along rows (or columns) and depth.
    Direct { row: i64, depth: i64 },
    /// It is copied into one; once for all blocks if it is the same for all.
    Packed { packing: Packing, row: i64, depth: i64, once: bool },
}

/// One operand of the product.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) operand: usize,
    pub(crate) linear: Affine,
    pub(crate) form: Form,
}

/// A nest as blocks of matrix products.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) dtype: DType,
    /// Rows, columns and depth of a block.
    pub(crate) m: i64,
    pub(crate) n: i64,
    /// Depth of everything inside one step of the cut axis.
    pub(crate) inner_depth: i64,
    /// (axis, extent, steps per block) of the cut depth axis.
    pub(crate) cut: Option<(usize, i64, i64)>,
    /// Steps of the depth axis that could be cut, where it is not.
    pub(crate) uncut: i64,
    pub(crate) left: Side,
    pub(crate) right: Side,
    pub(crate) result: Affine,
    pub(crate) result_row: i64,
    pub(crate) result_column: i64,
    /// Axes walked block by block, with extents.
    pub(crate) loops: Vec<(usize, i64)>,
    /// Row and column blocks when both sides are direct: how many, and how long but for the last.
    pub(crate) row_blocks: (usize, i64),
    pub(crate) column_blocks: (usize, i64),
    /// Into how many partial sums the depth is cut.
    pub(crate) depth_groups: usize,
}

impl Plan {
    pub(crate) fn depth_blocks(&self) -> usize {
        self.cut.map_or(1, |(_, extent, steps)| (extent as u64).div_ceil(steps as u64) as usize)
    }
    pub(crate) fn tasks(&self) -> usize {
        let loops: i64 = self.loops.iter().map(|l| l.1).product();
        loops as usize * self.row_blocks.0 * self.column_blocks.0
    }
    /// The plan for `nest`, if it is a product worth it.
    pub(crate) fn of(nest: &LoopNest) -> Option<Self> {
        let draft = Draft::of(nest)?;
        draft.plan()
    }
}

/// The nest by axes.
struct Draft {
    dtype: DType,
    domain: Domain,
    sides: [Access; 2],
    result: Affine,
}

impl Draft {
    fn of(nest: &LoopNest) -> Option<Self> {
        let ([fold], [write]) = (&nest.folds[..], &nest.writes[..]) else { return None };
        let dtype = fold.dtype;
        if fold.monoid != Monoid::Sum || !matches!(dtype, DType::F32 | DType::F64) {
            return None;
        }
        let mut domain = Domain::new(&nest.axes);
        let accesses = domain.accesses(&nest.reads, &nest.operands, &nest.axes);
        let body = domain.program(&nest.body, &nest.axes);
        let plain = |r: u16| match &body[r as usize].op {
            LoweredOp::Plain(op) => Some(op.clone()),
            _ => None,
        };
        let ScalarOp::Binary(Binary::Mul, a, b) = plain(fold.inputs[0])? else { return None };
        let (ScalarOp::Read(a), ScalarOp::Read(b)) = (plain(a)?, plain(b)?) else { return None };
        let value = &nest.epilogue.insts.get(write.value as usize)?.op;
        if !matches!(value, ScalarOp::Folded { .. }) {
            return None;
        }
        let sides = [accesses[a as usize].clone(), accesses[b as usize].clone()];
        let windowed = |c: &Check| matches!(c, Check::Limit { .. } | Check::Holes { .. });
        let zero_filled =
            |bits: u64| if dtype == DType::F32 { bits as u32 & !(1 << 31) == 0 } else { bits & !(1 << 63) == 0 };
        let sound = sides.iter().all(|s| {
            s.checks.iter().all(windowed) && (s.checks.is_empty() || s.fill.is_some_and(zero_filled)) && !s.absent
        });
        let result = domain.linear(&write.coords, &nest.results[0]);
        domain.collapse();
        let has_work = !domain.is_empty && !domain.fold_is_empty && domain.extents.len() > domain.parallel;
        let result = domain.maps[result].clone();
        (sound && has_work).then_some(Self { dtype, domain, sides, result })
    }

    fn uses(&self, side: usize, axis: usize) -> bool {
        self.domain.uses(&self.sides[side], &self.sides, &|a| a == axis)
    }
    /// Whether a border or a hole of `side` depends on `axis`.
    fn checked(&self, side: usize, axis: usize) -> bool {
        self.sides[side].checks.iter().any(|c| match c {
            Check::Limit { index, .. } | Check::Holes { index, .. } => {
                self.domain.maps[*index].coefficient(axis as u16) != 0
            }
            _ => false,
        })
    }
    fn extent(&self, axis: usize) -> i64 {
        self.domain.extents[axis]
    }
    fn size(&self, axes: &[usize]) -> i64 {
        axes.iter().map(|a| self.extent(*a)).product()
    }
    /// The stride of `axes`, innermost first, as one axis of `map`.
    fn merged(&self, axes: &[usize], map: &Affine) -> Option<i64> {
        let mut next = axes.first().map_or(1, |a| map.coefficient(*a as u16));
        let first = next;
        for axis in axes {
            if map.coefficient(*axis as u16) != next {
                return None;
            }
            next *= self.extent(*axis);
        }
        Some(first)
    }
    /// Those of `axes` that are one axis of the result, innermost first.
    fn group(&self, mut axes: Vec<usize>) -> Vec<usize> {
        let stride = |a: usize| self.result.coefficient(a as u16);
        axes.sort_by_key(|a| stride(*a));
        let mut group: Vec<usize> = Vec::new();
        for axis in axes {
            if group.last().is_none_or(|last| stride(axis) == stride(*last) * self.extent(*last)) {
                group.push(axis);
            }
        }
        group
    }

    /// Leaves the outer axes of a group to the walk over blocks while packing the group would take too much room.
    fn shorten(&self, side: usize, group: &mut Vec<usize>, depth: i64) {
        let windowed = !self.sides[side].checks.is_empty();
        while windowed && group.len() > 1 && self.size(group) * depth > PACKED_ELEMENTS {
            match group.last() {
                Some(last) if !self.checked(side, *last) => group.pop(),
                _ => return,
            };
        }
    }

    fn plan(&self) -> Option<Plan> {
        let parallel = 0..self.domain.parallel;
        let of = |left: bool, right: bool| {
            let only = parallel.clone().filter(|a| self.uses(0, *a) == left && self.uses(1, *a) == right);
            only.collect::<Vec<_>>()
        };
        let (mut rows, mut columns) = (self.group(of(true, false)), self.group(of(false, true)));
        let whole_depth = self.size(&(self.domain.parallel..self.domain.extents.len()).collect::<Vec<_>>());
        let least_depth = whole_depth.min(LEAST_DEPTH);
        self.shorten(0, &mut rows, least_depth);
        self.shorten(1, &mut columns, least_depth);
        let in_block = |a: &usize| rows.contains(a) || columns.contains(a);
        let loops: Vec<_> = parallel.clone().filter(|a| !in_block(a)).map(|a| (a, self.extent(a))).collect();
        let depth: Vec<usize> = (self.domain.parallel..self.domain.extents.len()).collect();
        let free = |a: &usize| !self.checked(0, *a) && !self.checked(1, *a);
        if loops.iter().any(|(a, _)| !free(a)) {
            return None;
        }
        let (m, n) = (self.size(&rows), self.size(&columns));
        // Depth axes innermost first; the one that may be cut is the outermost.
        let cut_axis = depth.iter().copied().find(free);
        let mut order: Vec<usize> = depth.iter().rev().copied().filter(|a| Some(*a) != cut_axis).collect();
        let inner_depth = self.size(&order);
        order.extend(cut_axis);

        let is_direct = |side: usize, group: &[usize], order: &[usize]| {
            let map = &self.domain.maps[self.sides[side].linear];
            let (row, depth) = (self.merged(group, map)?, self.merged(order, map)?);
            self.sides[side].checks.is_empty().then_some(Form::Direct { row, depth })
        };
        let groups = [&rows, &columns];
        let tasks: i64 = loops.iter().map(|l| l.1).product();
        let packed: i64 =
            (0..2).filter(|s| is_direct(*s, groups[*s], &order).is_none()).map(|s| if s == 0 { m } else { n }).sum();
        let cut_extent = cut_axis.map_or(1, |a| self.extent(a));
        let mut steps = cut_extent;
        let enough = |steps: i64| steps * inner_depth <= LEAST_DEPTH;
        while steps > 1 && packed * steps * inner_depth > PACKED_ELEMENTS && !enough(steps) {
            steps = (steps + 1) / 2;
        }
        let few_results = tasks < GROUPS as i64 && m * n <= 64 << 10;
        while steps > 1 && few_results && cut_extent / steps < GROUPS as i64 && steps * inner_depth >= 4 * LEAST_DEPTH {
            steps = (steps + 1) / 2;
        }
        if steps == 1 && cut_extent > 1 {
            order.pop();
        }
        let whole = steps == cut_extent;
        let side = |s: usize| {
            let linear = self.domain.maps[self.sides[s].linear].clone();
            let form = match is_direct(s, groups[s], &order) {
                Some(direct) => direct,
                None => {
                    let once = whole && loops.iter().all(|(a, _)| !self.uses(s, *a));
                    self.pack(s, groups[s], &order, cut_axis.filter(|_| steps > 1).map(|a| (a, steps)), once)?
                }
            };
            Some(Side { operand: self.sides[s].operand, linear, form })
        };
        let (left, right) = (side(0)?, side(1)?);
        let direct = [&left, &right].iter().all(|s| matches!(s.form, Form::Direct { .. }));
        let work = m * n * inner_depth * steps;
        if work < if direct { 128 } else { 512 } || m * n == 1 {
            return None;
        }
        let depth_blocks = (cut_extent as u64).div_ceil(steps as u64) as usize;
        let mut plan = Plan {
            dtype: self.dtype,
            m,
            n,
            inner_depth,
            cut: (!whole).then_some((cut_axis.unwrap_or(0), cut_extent, steps)),
            uncut: cut_extent,
            left,
            right,
            result: self.result.clone(),
            result_row: self.merged(&rows, &self.result)?,
            result_column: self.merged(&columns, &self.result)?,
            loops,
            row_blocks: (1, m),
            column_blocks: (1, n),
            depth_groups: if few_results { depth_blocks.min(GROUPS) } else { 1 },
        };
        // A single large product is cut along its longer side.
        if direct && plan.depth_groups == 1 && tasks < GROUPS as i64 && work > 1 << 22 {
            let long = m.max(n);
            let block = ((long as u64).div_ceil(4).max(64).next_multiple_of(16) as i64).min(long);
            let blocks = ((long as u64).div_ceil(block as u64) as usize, block);
            *if m >= n { &mut plan.row_blocks } else { &mut plan.column_blocks } = blocks;
        }
        Some(plan)
    }

    /// Packing of `side`: rows and depth as one matrix, contiguous along whichever its fastest axis belongs to.
    fn pack(
        &self,
        side: usize,
        group: &[usize],
        order: &[usize],
        cut: Option<(usize, i64)>,
        once: bool,
    ) -> Option<Form> {
        let map = &self.domain.maps[self.sides[side].linear];
        let count = |a: usize| cut.filter(|(c, _)| *c == a).map_or(self.extent(a), |(_, steps)| steps);
        let places = |axes: &[usize]| {
            let mut stride = 1;
            let mut places = Vec::new();
            for axis in axes {
                places.push((*axis, stride));
                stride *= count(*axis);
            }
            (places, stride)
        };
        let ((rows, row_count), (depths, depth_count)) = (places(group), places(order));
        let fastest = |axes: &[(usize, i64)]| axes.iter().any(|(a, _)| map.coefficient(*a as u16).abs() == 1);
        let (row, depth) = if fastest(&rows) || !fastest(&depths) { (1, row_count) } else { (depth_count, 1) };
        let axes: Vec<_> = (rows.iter().map(|(a, s)| (*a, count(*a), s * row)))
            .chain(depths.iter().map(|(a, s)| (*a, count(*a), s * depth)))
            .collect();
        let checked = |a: usize| self.checked(side, a);
        let packing = Packing::new(&self.sides[side], &self.domain, &axes, &checked, cut.map(|c| c.0))?;
        Some(Form::Packed { packing, row, depth, once })
    }
}
