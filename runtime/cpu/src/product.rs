//! Runs contractions: blocks are packed where they must be and multiplied by the gemm crate, one thread each. Blocks
//! belong to a fixed number of groups with buffers of their own; partial sums over depth are combined by a fixed tree.

use gemm::Parallelism;
use thalweg_graph::DType;
use thalweg_graph::kernel::{Affine, LoopNest};

use crate::contract::{Form, GROUPS, Plan, Side};
use crate::pool::{self, Shared};

/// A contraction made ready.
#[derive(Debug)]
pub(crate) struct Product {
    plan: Plan,
    /// Offsets in the workspace, in elements, of what is packed once: left and right.
    once: [usize; 2],
    /// Where the groups' buffers begin, and how large one is.
    buffers: usize,
    buffer: [usize; 2],
    /// Where the partial sums begin.
    partials: usize,
    elements: usize,
}

/// Numbers that the gemm crate multiplies.
trait Real: Copy + Send + Sync + std::ops::Add<Output = Self> + 'static {
    const ZERO: Self;
    const ONE: Self;
}
impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}
impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

/// Elements that keep the next thing aligned.
fn aligned(elements: usize) -> usize {
    elements.next_multiple_of(16)
}

impl Product {
    pub(crate) fn recognize(nest: &LoopNest) -> Option<Self> {
        let plan = Plan::of(nest)?;
        let packed = |side: &Side, want: bool| match &side.form {
            Form::Packed { packing, once, .. } if *once == want => aligned(packing.elements),
            _ => 0,
        };
        let once = [0, packed(&plan.left, true)];
        let buffers = once[1] + packed(&plan.right, true);
        let buffer = [packed(&plan.left, false), packed(&plan.right, false)];
        let partials = buffers + (buffer[0] + buffer[1]) * GROUPS;
        let partial = if plan.depth_groups > 1 { aligned((plan.m * plan.n) as usize) } else { 0 };
        let elements = partials + partial * plan.depth_groups * plan.tasks();
        Some(Self { plan, once, buffers, buffer, partials, elements })
    }
    pub(crate) fn workspace_bytes(&self) -> usize {
        self.elements * self.plan.dtype.size_bytes()
    }
    pub(crate) fn strategy(&self) -> String {
        let Plan { m, n, inner_depth, cut, left, right, .. } = &self.plan;
        let form = |side: &Side| match &side.form {
            Form::Direct { .. } => "strided",
            Form::Packed { once: true, .. } => "packed once",
            Form::Packed { .. } => "packed",
        };
        let depth = inner_depth * cut.map_or(self.plan.uncut, |c| c.1);
        let mut text = format!("contraction {m}×{n}×{depth}, {} by {}", form(left), form(right));
        let (tasks, parts) = (self.plan.tasks(), self.plan.depth_groups);
        if tasks > 1 {
            text += &format!(", {tasks} blocks");
        }
        if parts > 1 {
            text += &format!(", depth in {parts} parts");
        }
        text
    }

    /// # Safety
    /// See `CompiledKernel::run`.
    pub(crate) unsafe fn run(
        &self,
        operands: &[*const u8],
        results: &[*mut u8],
        workspace: *mut u8,
        pool: Option<&rayon::ThreadPool>,
    ) {
        // SAFETY: the caller's promise; the plan's dtype is that of both operands and the result.
        unsafe {
            match self.plan.dtype {
                DType::F64 => self.run_as::<f64>(operands, results[0].cast(), workspace.cast(), pool),
                _ => self.run_as::<f32>(operands, results[0].cast(), workspace.cast(), pool),
            }
        }
    }

    unsafe fn run_as<T: Real>(
        &self,
        operands: &[*const u8],
        result: *mut T,
        workspace: *mut T,
        pool: Option<&rayon::ThreadPool>,
    ) {
        let plan = &self.plan;
        let sides = [&plan.left, &plan.right];
        let sources = sides.map(|s| operands[s.operand].cast::<T>().wrapping_offset(s.linear.offset as isize));
        let shared = Shared((sources, result, workspace));
        for (k, side) in sides.iter().enumerate() {
            if let Form::Packed { packing, once, .. } = &side.form {
                let buffers = if *once { 0..1 } else { 0..GROUPS };
                for group in buffers {
                    let to = workspace.wrapping_add(if *once { self.once[k] } else { self.buffer_of(group, k) });
                    // SAFETY: the buffer lies in the workspace.
                    unsafe {
                        if packing.has_gaps {
                            std::slice::from_raw_parts_mut(to, packing.elements).fill(T::ZERO);
                        }
                        if *once {
                            packing.copy(sources[k], to, plan.uncut);
                        }
                    }
                }
            }
        }
        let (tasks, parts, blocks) = (plan.tasks(), plan.depth_groups, plan.depth_blocks());
        let pieces = tasks * parts;
        let groups = pieces.min(GROUPS);
        pool::for_each(pool, groups, self.nanoseconds(), |group| {
            let (sources, result, workspace) = shared.get();
            for piece in pieces * group / groups..pieces * (group + 1) / groups {
                let (task, part) = (piece / parts, piece % parts);
                let blocks = blocks * part / parts..blocks * (part + 1) / parts;
                // SAFETY: groups have their own buffers; pieces write disjoint parts of the result or of the partials.
                unsafe { self.piece(task, blocks, group, piece, sources, result, workspace) };
            }
        });
        if parts > 1 {
            for task in 0..tasks {
                // SAFETY: all partial sums are written.
                unsafe { self.combine(task, result, workspace) };
            }
        }
    }

    fn buffer_of(&self, group: usize, side: usize) -> usize {
        self.buffers + group * (self.buffer[0] + self.buffer[1]) + side * self.buffer[0]
    }
    fn partial_of(&self, piece: usize) -> usize {
        self.partials + piece * aligned((self.plan.m * self.plan.n) as usize)
    }
    fn nanoseconds(&self) -> f64 {
        let Plan { m, n, inner_depth, cut, .. } = &self.plan;
        let depth = inner_depth * cut.map_or(self.plan.uncut, |c| c.1);
        let loops: i64 = self.plan.loops.iter().map(|l| l.1).product();
        (m * n * depth * loops) as f64 / 50.0
    }

    /// One product over some blocks of depth.
    #[allow(clippy::too_many_arguments)]
    unsafe fn piece<T: Real>(
        &self,
        task: usize,
        blocks: std::ops::Range<usize>,
        group: usize,
        piece: usize,
        sources: [*const T; 2],
        result: *mut T,
        workspace: *mut T,
    ) {
        let plan = &self.plan;
        let Place { mut origin, row, column, m, n } = self.place(task);
        let (to, to_row, to_column) = if plan.depth_groups > 1 {
            (workspace.wrapping_add(self.partial_of(piece)), 1, plan.m)
        } else {
            let at =
                at(&plan.result, &origin) + plan.result.offset + row * plan.result_row + column * plan.result_column;
            (result.wrapping_offset(at as isize), plan.result_row, plan.result_column)
        };
        let first = blocks.start;
        for block in blocks {
            let steps = match plan.cut {
                Some((axis, extent, steps)) => {
                    origin[axis] = block as i64 * steps;
                    steps.min(extent - origin[axis])
                }
                None => plan.uncut,
            };
            let sides = [(&plan.left, row), (&plan.right, column)];
            let mut matrices = [(std::ptr::null::<T>(), 0, 0); 2];
            for (k, (side, skip)) in sides.into_iter().enumerate() {
                let from = sources[k].wrapping_offset(at(&side.linear, &origin) as isize);
                matrices[k] = match &side.form {
                    Form::Direct { row, depth } => (from.wrapping_offset((skip * row) as isize), *row, *depth),
                    Form::Packed { row, depth, once: true, .. } => {
                        (workspace.wrapping_add(self.once[k]).cast_const(), *row, *depth)
                    }
                    Form::Packed { packing, row, depth, .. } => {
                        let buffer = workspace.wrapping_add(self.buffer_of(group, k));
                        // SAFETY: the block lies in the operand where it is not a gap; the buffer is this group's.
                        unsafe { packing.copy(from, buffer, steps) };
                        (buffer.cast_const(), *row, *depth)
                    }
                };
            }
            let [(left, left_row, left_depth), (right, right_column, right_depth)] = matrices;
            // SAFETY: both matrices have `m` or `n` rows by the depth of the block at these strides; the target is
            // written by this piece alone.
            unsafe {
                gemm::gemm(
                    m as usize,
                    n as usize,
                    (plan.inner_depth * steps) as usize,
                    to,
                    to_column as isize,
                    to_row as isize,
                    block != first,
                    left,
                    left_depth as isize,
                    left_row as isize,
                    right,
                    right_column as isize,
                    right_depth as isize,
                    T::ONE,
                    T::ONE,
                    false,
                    false,
                    false,
                    Parallelism::None,
                );
            }
        }
    }

    /// Adds the partial sums of a task, pairwise, into the result.
    unsafe fn combine<T: Real>(&self, task: usize, result: *mut T, workspace: *mut T) {
        let plan = &self.plan;
        let (size, parts) = ((plan.m * plan.n) as usize, plan.depth_groups);
        let partial = |part: usize| workspace.wrapping_add(self.partial_of(task * parts + part));
        let mut apart = 1;
        // SAFETY: the partial sums lie in the workspace, apart from each other and from the result.
        unsafe {
            while apart < parts {
                for part in (0..parts - apart).step_by(2 * apart) {
                    let into = std::slice::from_raw_parts_mut(partial(part), size);
                    let from = std::slice::from_raw_parts(partial(part + apart), size);
                    into.iter_mut().zip(from).for_each(|(a, b)| *a = *a + *b);
                }
                apart *= 2;
            }
            let origin = self.place(task).origin;
            let to = result.wrapping_offset((at(&plan.result, &origin) + plan.result.offset) as isize);
            for column in 0..plan.n {
                let from = partial(0).wrapping_offset((column * plan.m) as isize);
                for row in 0..plan.m {
                    *to.offset((row * plan.result_row + column * plan.result_column) as isize) =
                        *from.add(row as usize);
                }
            }
        }
    }

    fn place(&self, task: usize) -> Place {
        let plan = &self.plan;
        let mut index = task as i64;
        let mut digit = |extent: i64| {
            let i = index % extent;
            index /= extent;
            i
        };
        let column = digit(plan.column_blocks.0 as i64) * plan.column_blocks.1;
        let row = digit(plan.row_blocks.0 as i64) * plan.row_blocks.1;
        let mut origin = [0; 32];
        plan.loops.iter().rev().for_each(|(axis, extent)| origin[*axis] = digit(*extent));
        let (m, n) = (plan.row_blocks.1.min(plan.m - row), plan.column_blocks.1.min(plan.n - column));
        Place { origin, row, column, m, n }
    }
}

/// Where a task's block begins, and its size.
struct Place {
    origin: [i64; 32],
    row: i64,
    column: i64,
    m: i64,
    n: i64,
}

/// The linear part of `map` at `origin`.
fn at(map: &Affine, origin: &[i64; 32]) -> i64 {
    map.terms.iter().map(|(a, c)| c * origin[*a as usize]).sum()
}
