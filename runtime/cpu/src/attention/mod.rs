//! Attention and its gradient without a matrix of queries by keys: a panel of queries (in the gradient: of keys) lies in the
//! lanes of vectors and meets the keys block by block, with a running maximum and sum. Transposed so, what one product
//! gives is what the next one takes, and nothing is packed in between. Panels and blocks are cut by the kernel alone, so
//! bits do not depend on threads.

mod backward;
mod element;
mod forward;
mod product;

use std::ops::Range;

use thalweg_graph::DType;
use thalweg_graph::kernel::Attention;
use thalweg_graph::kernel::attention::Rows;

use crate::kind::Stored;
use crate::panels::Width;
use crate::panels::micro::MOST_VECTORS;
use crate::pool::{self, Shared};
use element::Element;

/// Groups of tasks; each has its own buffers, so that groups can run at the same time.
const GROUPS: usize = 16;
/// Keys (in the gradient: queries) of a block: with a panel of 48 lanes, 24 KB of f32 weights.
const BLOCK: usize = 128;
/// Panels that meet a block one after the other, so that it is fetched once for all of them.
const PANELS: usize = 4;
/// Tasks into which few parts are cut at least.
const TASKS: usize = 8;

/// Attention made ready, or its gradient.
#[derive(Debug)]
pub(crate) struct TileAttention {
    gradient: bool,
    /// The type of operands and results, and that in which everything is computed.
    stored: DType,
    dtype: DType,
    width: Width,
    parts: usize,
    queries: usize,
    keys: usize,
    /// Of a query and of a value.
    features: usize,
    values: usize,
    causal: bool,
    scale: f64,
    operands: Vec<Matrix>,
    results: Vec<Matrix>,
    /// Tasks that the panels of a part's keys are cut into; only the gradient has more than one.
    cuts: usize,
    layout: Layout,
}

/// How an operand or a result lies, and its place in the workspace if it is converted there.
#[derive(Debug)]
struct Matrix {
    rows: Rows,
    elements: usize,
    converted: Option<usize>,
}

/// Where things begin in the workspace, in elements.
#[derive(Clone, Copy, Debug, Default)]
struct Layout {
    /// Of each group, one after the other.
    buffers: usize,
    buffer: usize,
    /// What all cuts of a part but the first add to its queries.
    partials: usize,
    partial: usize,
    total: usize,
}

/// Elements that keep the next thing aligned.
fn aligned(elements: usize) -> usize {
    elements.next_multiple_of(16)
}

/// The buffers of a launch, in the type of computation.
#[derive(Clone, Copy)]
struct Buffers<T> {
    operands: [*const T; 6],
    results: [*mut T; 3],
    workspace: *mut T,
}

/// Some rows of one part: the first element, and from row to row.
#[derive(Clone, Copy)]
struct Lie<P> {
    at: P,
    stride: usize,
}

impl<T> Lie<*const T> {
    fn row(self, row: usize) -> *const T {
        self.at.wrapping_add(row * self.stride)
    }
    /// The rows from this one on.
    fn from(self, row: usize) -> Self {
        Self { at: self.row(row), ..self }
    }
}
impl<T> Lie<*mut T> {
    fn row(self, row: usize) -> *mut T {
        self.at.wrapping_add(row * self.stride)
    }
    /// The rows from this one on.
    fn from(self, row: usize) -> Self {
        Self { at: self.row(row), ..self }
    }
}

impl TileAttention {
    pub(crate) fn compile(attention: &Attention, gradient: bool) -> Self {
        let stored = attention.operands[0].dtype;
        let dtype = Attention::accumulator(stored);
        let width = Width::of(dtype);
        let mut total = 0;
        let mut matrix = |ty: &thalweg_graph::kernel::BufferType, numbers: bool| {
            let rows = if numbers { attention.numbers(ty) } else { attention.matrix(ty) };
            let converted = (ty.dtype != dtype).then_some(total);
            total += converted.map_or(0, |_| aligned(ty.len()));
            Matrix { rows, elements: ty.len(), converted }
        };
        let operands: Vec<_> = attention.operands.iter().enumerate().map(|(k, t)| matrix(t, k > 3)).collect();
        let results: Vec<_> =
            attention.results.iter().enumerate().map(|(k, t)| matrix(t, !gradient && k == 1)).collect();
        let (query, value) = (operands[0].rows, operands[2].rows);
        let mut this = Self {
            gradient,
            stored,
            dtype,
            width,
            parts: attention.parts(),
            queries: query.count,
            keys: operands[1].rows.count,
            features: query.columns,
            values: value.columns,
            causal: attention.causal,
            scale: attention.scale(),
            operands,
            results,
            cuts: 1,
            layout: Layout::default(),
        };
        let partial = aligned(this.queries * this.features);
        if gradient {
            this.cuts = TASKS.div_ceil(this.parts.max(1)).clamp(1, this.panels().div_ceil(PANELS).max(1));
        }
        let buffer = if gradient { this.backward_elements() } else { this.forward_elements() };
        let buffers = total;
        let partials = buffers + this.groups() * buffer;
        let total = partials + this.parts * (this.cuts - 1) * partial;
        this.layout = Layout { buffers, buffer, partials, partial, total };
        this
    }

    pub(crate) fn workspace_bytes(&self) -> usize {
        self.layout.total * self.dtype.size_bytes()
    }
    pub(crate) fn strategy(&self) -> String {
        let Self { queries, keys, features, parts, .. } = self;
        let what = if self.gradient { "gradient of attention" } else { "attention" };
        let blocks = format!("blocks of {}×{BLOCK}", self.lanes());
        format!("{what} {queries}×{keys}×{features}, {blocks}, {} tasks", parts * self.tasks_per_part())
    }

    /// Lanes of a panel.
    fn lanes(&self) -> usize {
        self.width.lanes * MOST_VECTORS
    }
    /// Panels of a part: of queries, or in the gradient of keys.
    fn panels(&self) -> usize {
        (if self.gradient { self.keys } else { self.queries }).div_ceil(self.lanes())
    }
    fn tasks_per_part(&self) -> usize {
        if self.gradient { self.cuts } else { self.panels().div_ceil(PANELS) }
    }
    fn groups(&self) -> usize {
        (self.parts * self.tasks_per_part()).min(GROUPS)
    }
    /// Keys that every query sees beyond those up to its own place.
    fn ahead(&self) -> usize {
        self.keys - self.queries.min(self.keys)
    }
    /// How many keys query `query` sees.
    fn seen(&self, query: usize) -> usize {
        if self.causal { query + 1 + self.ahead() } else { self.keys }
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
        // SAFETY: the caller's promise; `dtype` is what `stored` is computed in.
        unsafe {
            match self.dtype {
                DType::F64 => self.run_as::<f64>(operands, results, workspace.cast(), pool),
                _ => self.run_as::<f32>(operands, results, workspace.cast(), pool),
            }
        }
    }

    unsafe fn run_as<T: Element>(
        &self,
        operands: &[*const u8],
        results: &[*mut u8],
        workspace: *mut T,
        pool: Option<&rayon::ThreadPool>,
    ) {
        let mut buffers = Buffers { operands: [std::ptr::null(); 6], results: [std::ptr::null_mut(); 3], workspace };
        for (k, matrix) in self.operands.iter().enumerate() {
            buffers.operands[k] = match matrix.converted {
                // SAFETY: the operand has so many elements of that type, and the workspace has a place for them.
                Some(at) => unsafe { widen(self.stored, operands[k], workspace.wrapping_add(at), matrix.elements) },
                None => operands[k].cast(),
            };
        }
        for (k, matrix) in self.results.iter().enumerate() {
            buffers.results[k] = matrix.converted.map_or(results[k].cast(), |at| workspace.wrapping_add(at));
        }
        let tasks = self.parts * self.tasks_per_part();
        let work = (self.parts * self.queries * self.keys) as f64 * (self.features + self.values) as f64;
        let (shared, groups) = (Shared(buffers), self.groups());
        pool::for_each(pool, groups, work / if self.gradient { 20.0 } else { 50.0 }, |group| {
            let buffers = shared.get();
            let own = buffers.workspace.wrapping_add(self.layout.buffers + group * self.layout.buffer);
            for task in tasks * group / groups..tasks * (group + 1) / groups {
                let (part, task) = (task / self.tasks_per_part(), task % self.tasks_per_part());
                // SAFETY: groups have their own buffers; tasks write disjoint parts of the results and partial sums.
                unsafe {
                    match self.gradient {
                        true => self.backward(buffers, own, part, task),
                        false => self.forward(buffers, own, part, task),
                    }
                }
            }
        });
        if self.cuts > 1 {
            // SAFETY: all cuts have been added up.
            (0..self.parts).for_each(|part| unsafe { self.combine(buffers, part) });
        }
        for (k, matrix) in self.results.iter().enumerate().filter(|(_, m)| m.converted.is_some()) {
            // SAFETY: the result has so many elements of that type, and they have been computed.
            unsafe { narrow(self.stored, buffers.results[k], results[k], matrix.elements) };
        }
    }

    /// Some rows of a matrix, side by side: where they lie, or copied to `to`. Rows far apart share few sets of a cache.
    ///
    /// # Safety
    /// The rows are there, and `to` has room for them.
    unsafe fn gather<T: Element>(from: Lie<*const T>, rows: Range<usize>, columns: usize, to: *mut T) -> Lie<*const T> {
        if from.stride == columns {
            return Lie { at: from.row(rows.start), stride: columns };
        }
        for (i, row) in rows.enumerate() {
            // SAFETY: the caller's promise.
            unsafe { std::ptr::copy_nonoverlapping(from.row(row), to.add(i * columns), columns) };
        }
        Lie { at: to.cast_const(), stride: columns }
    }

    /// The rows of operand `k` in one part.
    fn operand<T>(&self, buffers: &Buffers<T>, k: usize, part: usize) -> Lie<*const T> {
        let rows = self.operands[k].rows;
        Lie { at: buffers.operands[k].wrapping_add(rows.start(part)), stride: rows.stride() }
    }
    /// The rows of result `k` in one part.
    fn result<T>(&self, buffers: &Buffers<T>, k: usize, part: usize) -> Lie<*mut T> {
        let rows = self.results[k].rows;
        Lie { at: buffers.results[k].wrapping_add(rows.start(part)), stride: rows.stride() }
    }
}

/// Halves in the type of computation.
///
/// # Safety
/// `from` holds `len` elements of `from_type`, and `to` has room for as many.
unsafe fn widen<T: Element>(from_type: DType, from: *const u8, to: *mut T, len: usize) -> *const T {
    unsafe fn each<S: Stored<Reg = f32>, T: Element>(from: *const S, to: *mut T, len: usize) {
        // SAFETY: the caller's promise.
        (0..len).for_each(|i| unsafe { *to.add(i) = T::of(f64::from((*from.add(i)).load())) });
    }
    // SAFETY: the caller's promise.
    unsafe {
        match from_type {
            DType::F16 => each::<half::f16, T>(from.cast(), to, len),
            _ => each::<half::bf16, T>(from.cast(), to, len),
        }
    }
    to
}
/// The way back.
///
/// # Safety
/// As [`widen`].
unsafe fn narrow<T: Element>(to_type: DType, from: *const T, to: *mut u8, len: usize) {
    unsafe fn each<S: Stored<Reg = f32>, T: Element>(from: *const T, to: *mut S, len: usize) {
        // SAFETY: the caller's promise.
        (0..len).for_each(|i| unsafe { *to.add(i) = S::store((*from.add(i)).f64() as f32) });
    }
    // SAFETY: the caller's promise.
    unsafe {
        match to_type {
            DType::F16 => each::<half::f16, T>(from, to.cast(), len),
            _ => each::<half::bf16, T>(from, to.cast(), len),
        }
    }
}
