//! What a plan holds of a kernel on this device: compiled once, run every step. Which strategy runs it is decided here
//! and nowhere else.

use thalweg_graph::kernel::{Group, Kernel, LoopNest};

use crate::attention::TileAttention;
use crate::contract::Contraction;
use crate::group::TileGroup;
use crate::nest::TileNest;
use crate::scatter::TileScatter;
use crate::sequence::Sequence;

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
    Group(Box<TileGroup>),
    Sequence(Box<Sequence>),
    Attention(Box<TileAttention>),
}

/// A product of halves as what this device multiplies: panels hold f32, and to make a whole operand f32 first costs little
/// beside its product, where it would be read several times.
fn of_halves(nest: &LoopNest) -> Option<Group> {
    let group = nest.widened()?;
    group.members.iter().any(|m| Contraction::is_likely(&m.nest)).then_some(group)
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
            Kernel::Nest(nest) if recognize => match (Contraction::recognize(nest), of_halves(nest)) {
                (Some(contraction), _) => Engine::Contraction(contraction),
                (None, Some(group)) => Engine::Sequence(Box::new(Sequence::compile(&group, true)?)),
                (None, None) => Engine::Tiles(Box::new(TileNest::compile(nest))),
            },
            Kernel::Nest(nest) => Engine::Tiles(Box::new(TileNest::compile(nest))),
            Kernel::Scatter(scatter) => Engine::Scatter(Box::new(TileScatter::compile(scatter))),
            Kernel::Group(group) => match recognize.then(|| TileGroup::compile(group)).flatten() {
                Some(blocks) => Engine::Group(Box::new(blocks)),
                None => Engine::Sequence(Box::new(Sequence::compile(group, recognize)?)),
            },
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
            Engine::Scatter(_) | Engine::Group(_) => 0,
            Engine::Attention(attention) => attention.workspace_bytes(),
            Engine::Sequence(sequence) => sequence.workspace_bytes(),
        }
    }

    /// Bytes that every thread running it keeps for itself.
    pub(crate) fn thread_bytes(&self) -> usize {
        match &self.engine {
            Engine::Tiles(nest) => nest.thread_bytes(),
            Engine::Contraction(product) => product.thread_bytes(),
            Engine::Attention(_) => 0,
            Engine::Scatter(scatter) => scatter.thread_bytes(),
            Engine::Group(group) => group.thread_bytes(),
            Engine::Sequence(sequence) => sequence.thread_bytes(),
        }
    }

    /// How it runs, for people: `contraction 64×10×32`, `tiles of 512 lanes × 4`, `scatter`,
    /// `3 nests over 4096 rows, 16 at a time`.
    pub fn strategy(&self) -> String {
        match &self.engine {
            Engine::Tiles(nest) => nest.strategy(),
            Engine::Contraction(product) => product.strategy(),
            Engine::Scatter(_) => "scatter".into(),
            Engine::Group(group) => group.strategy(),
            Engine::Sequence(sequence) => sequence.strategy(),
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
                Engine::Group(group) => group.run(operands, results, pool),
                Engine::Sequence(sequence) => sequence.run(operands, results, workspace, pool),
                Engine::Attention(attention) => attention.run(operands, results, workspace, pool),
            }
        }
    }
}
