//! What a plan holds of a kernel on this device: compiled once, run every step. Which strategy runs it is decided here
//! and nowhere else.

use thalweg_graph::kernel::{Affine, Axis, Coord, Kernel, LoopNest};

use crate::nest::TileNest;
use crate::product::Product;
use crate::scatter::TileScatter;

/// Why a kernel cannot run here: it does not verify.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompileError(pub String);

impl std::fmt::Display for CompileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the kernel does not verify: {}", self.0)
    }
}
impl std::error::Error for CompileError {}

/// A kernel made ready for this device.
#[derive(Debug)]
pub struct CompiledKernel {
    engine: Engine,
}

#[derive(Debug)]
enum Engine {
    Tiles(Box<TileNest>),
    Product(Box<Product>),
    Scatter(Box<TileScatter>),
}

impl CompiledKernel {
    /// Fails only when the kernel does not verify.
    ///
    /// # Errors
    /// All that [`Kernel::verify`] found, joined.
    pub fn compile(kernel: &Kernel) -> Result<Self, CompileError> {
        Self::compile_with(kernel, true)
    }
    /// Like [`CompiledKernel::compile`], but recognizes nothing: what specialized paths are tested against.
    ///
    /// # Errors
    /// As [`CompiledKernel::compile`].
    pub fn compile_generic(kernel: &Kernel) -> Result<Self, CompileError> {
        Self::compile_with(kernel, false)
    }
    fn compile_with(kernel: &Kernel, recognize: bool) -> Result<Self, CompileError> {
        let faults = kernel.verify();
        if !faults.is_empty() {
            return Err(CompileError(faults.join("; ")));
        }
        let engine = match kernel {
            Kernel::Nest(nest) => match recognize.then(|| Product::recognize(nest)).flatten() {
                Some(product) => Engine::Product(Box::new(product)),
                None => Engine::Tiles(Box::new(TileNest::compile(nest))),
            },
            Kernel::Scatter(scatter) => Engine::Scatter(Box::new(TileScatter::compile(scatter))),
            _ => return Err(CompileError("a sort of kernel that this device does not know".into())),
        };
        Ok(Self { engine })
    }

    /// Bytes of scratch that a run needs, aligned to 64. Independent of the number of threads.
    pub fn workspace_bytes(&self) -> usize {
        match &self.engine {
            Engine::Tiles(nest) => nest.workspace_bytes(),
            Engine::Product(product) => product.workspace_bytes(),
            Engine::Scatter(_) => 0,
        }
    }

    /// How it runs, for people: `contraction 64×10×32`, `tiles of 512 lanes × 4`, `scatter`.
    pub fn strategy(&self) -> String {
        match &self.engine {
            Engine::Tiles(nest) => nest.strategy(),
            Engine::Product(product) => product.strategy(),
            Engine::Scatter(_) => "scatter".into(),
        }
    }

    /// Runs it; the results are the same bits whatever the pool.
    ///
    /// # Safety
    /// Pointers are to buffers of the kernel's operand and result types, aligned to their elements, and to
    /// [`CompiledKernel::workspace_bytes`] bytes aligned to 64 that nothing else uses meanwhile. Bytes of truth values
    /// are 0 or 1. Results overlap neither each other nor an operand, except that a result may lie exactly at an operand's
    /// address where [`may_write_in_place`] holds.
    pub unsafe fn run(
        &self,
        operands: &[*const u8],
        results: &[*mut u8],
        workspace: *mut u8,
        pool: Option<&rayon::ThreadPool>,
    ) {
        // SAFETY: the caller's promise, passed on.
        unsafe {
            match &self.engine {
                Engine::Tiles(nest) => nest.run(operands, results, workspace, pool),
                Engine::Product(product) => product.run(operands, results, workspace, pool),
                Engine::Scatter(scatter) => scatter.run(operands, results[0]),
            }
        }
    }
}

/// Whether `result` may lie at exactly the address of `operand`: elements have the same size, nothing is folded, and
/// every point reads that operand only where it writes that result. A scatter may update what it starts from.
pub fn may_write_in_place(kernel: &Kernel, result: usize, operand: usize) -> bool {
    match kernel {
        Kernel::Nest(nest) => nest_in_place(nest, result, operand),
        Kernel::Scatter(s) => {
            s.init.map(usize::from) == Some(operand) && s.reads.iter().all(|r| r.operand as usize != operand)
        }
        _ => false,
    }
}

fn nest_in_place(nest: &LoopNest, result: usize, operand: usize) -> bool {
    let (Some(from), Some(to)) = (nest.operands.get(operand), nest.results.get(result)) else { return false };
    let Some(write) = nest.writes.iter().find(|w| w.result as usize == result) else { return false };
    let offset = |coords: &mut dyn Iterator<Item = (Affine, i64)>| {
        let mut sum = coords.fold(Affine::default(), |sum, (c, stride)| sum + c.scaled(stride));
        sum.terms.retain(|(a, _)| nest.axes[*a as usize].extent > 1);
        sum
    };
    let written = offset(&mut write.coords.iter().cloned().zip(to.strides()));
    let same_place = |coords: &[Coord]| {
        let affine = coords.iter().map(|c| match c {
            Coord::Affine(index) => Some(index.clone()),
            _ => None,
        });
        let Some(affine) = affine.collect::<Option<Vec<_>>>() else { return false };
        let inside = affine.iter().zip(&from.shape).all(|(c, extent)| is_inside(c, *extent, &nest.axes));
        inside && offset(&mut affine.into_iter().zip(from.strides())) == written
    };
    nest.folds.is_empty()
        && from.dtype.size_bytes() == to.dtype.size_bytes()
        && nest.reads.iter().filter(|r| r.operand as usize == operand).all(|r| same_place(&r.coords))
}

fn is_inside(index: &Affine, extent: u64, axes: &[Axis]) -> bool {
    index.range(axes).is_some_and(|(low, high)| low >= 0 && (high as u64) < extent)
}
