//! What a plan holds of a kernel on this device: compiled once, run every step. Which strategy runs it is decided here
//! and nowhere else.

use thalweg_graph::kernel::Kernel;

use crate::attention::TileAttention;
use crate::contract::Contraction;
use crate::nest::TileNest;
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
    Contraction(Contraction),
    Scatter(Box<TileScatter>),
    Attention(Box<TileAttention>),
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
            Kernel::Nest(nest) => match recognize.then(|| Contraction::recognize(nest)).flatten() {
                Some(contraction) => Engine::Contraction(contraction),
                None => Engine::Tiles(Box::new(TileNest::compile(nest))),
            },
            Kernel::Scatter(scatter) => Engine::Scatter(Box::new(TileScatter::compile(scatter))),
            Kernel::Attention(attention) => Engine::Attention(Box::new(TileAttention::compile(attention, false))),
            Kernel::AttentionGrad(attention) => Engine::Attention(Box::new(TileAttention::compile(attention, true))),
            _ => return Err(CompileError("a sort of kernel that this device does not know".into())),
        };
        Ok(Self { engine })
    }

    /// Bytes of scratch that a run needs, aligned to 64. Independent of the number of threads.
    pub fn workspace_bytes(&self) -> usize {
        match &self.engine {
            Engine::Tiles(nest) => nest.workspace_bytes(),
            Engine::Contraction(product) => product.workspace_bytes(),
            Engine::Scatter(_) => 0,
            Engine::Attention(attention) => attention.workspace_bytes(),
        }
    }

    /// How it runs, for people: `contraction 64×10×32`, `tiles of 512 lanes × 4`, `scatter`.
    pub fn strategy(&self) -> String {
        match &self.engine {
            Engine::Tiles(nest) => nest.strategy(),
            Engine::Contraction(product) => product.strategy(),
            Engine::Scatter(_) => "scatter".into(),
            Engine::Attention(attention) => attention.strategy(),
        }
    }

    /// Runs it; the results are the same bits whatever the pool.
    ///
    /// # Safety
    /// Pointers are to buffers of the kernel's operand and result types, aligned to their elements, and to
    /// [`CompiledKernel::workspace_bytes`] bytes aligned to 64 that nothing else uses meanwhile. Bytes of truth values
    /// are 0 or 1. Results overlap neither each other nor an operand, except that a result may lie exactly at an operand's
    /// address where [`Kernel::may_write_in_place`] holds.
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
                Engine::Contraction(product) => product.run(operands, results, workspace, pool),
                Engine::Scatter(scatter) => scatter.run(operands, results[0]),
                Engine::Attention(attention) => attention.run(operands, results, workspace, pool),
            }
        }
    }
}
