//! From a kernel to WGSL. A shader is text of the kernel's *structure*: extents, strides and offsets are parameters that
//! it reads at run time, so that kernels that differ in numbers alone share one pipeline. The compiler's time is spent
//! per text, and a new batch size costs none.
//!
//! Nothing of the IR is special here: one emitter for scalar programs, one for reads, and around them a frame that says
//! which thread does what ([`nest`], [`fold`], [`group`], [`tile`], [`scatter`], [`attention`]).

mod attention;
mod domain;
mod expr;
mod fold;
mod group;
mod index;
mod memory;
mod nest;
mod prelude;
mod product;
mod scalar;
mod scatter;
mod shader;
mod tile;

use thalweg_graph::kernel::{Kernel, Passed};
use thalweg_graph::types::DType;

use group::Blocks;
pub(crate) use nest::MOST_POINTS;
use nest::nest;
use product::Product;
pub(crate) use shader::{Dispatch, Param, Place, Seen, Slot};

/// Why a kernel does not run on a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unsupported {
    /// It has tensors of f64, or functions of f64 that nobody has written as pairs of floats.
    F64,
    /// Some index does not fit 32 bits.
    TooLarge(String),
    /// It does not verify, or is of a sort that nobody here knows.
    Unsound(String),
}

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unsupported::F64 => f.write_str(
                "it needs f64, of which GPU kernels have single numbers only; cast to f32, or run it on the CPU",
            ),
            Unsupported::TooLarge(what) => write!(f, "{what}; GPU kernels count in 32 bits: try a smaller batch"),
            Unsupported::Unsound(what) => write!(f, "the kernel does not verify: {what}"),
        }
    }
}

/// What a kernel becomes: dispatches in order, each after the one before has written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Program {
    /// In order.
    pub(crate) dispatches: Vec<Dispatch>,
    /// How it runs, for people.
    how: String,
}

impl Program {
    /// How it runs, for people: `a thread per point, 12 workgroups`.
    pub(crate) fn strategy(&self) -> String {
        let groups: Vec<String> = self.dispatches.iter().map(|d| d.groups.to_string()).collect();
        format!("{}, {} workgroups of 64", self.how, groups.join(" + "))
    }
}

/// Where a buffer of a launch is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The bindings that it is seen through.
    pub(crate) seen: Seen,
    /// An element that they show.
    pub(crate) home: i64,
}

/// Translates a kernel that verifies, or a part of one; `found` says where each operand lies, then each result, then the
/// workspace, which has so many bytes.
pub(crate) fn translate(kernel: &Kernel, found: &[Found], workspace_bytes: u64) -> Result<Program, Unsupported> {
    let (operands, results) = (kernel.operands().len(), kernel.results().len());
    // There is no workspace where nothing needs one.
    let place = |i: usize| {
        let Found { seen, home } = found.get(i).copied().unwrap_or_default();
        Place { buffer: i, seen, within: 0, home, kept: None }
    };
    let (from, to): (Vec<_>, Vec<_>) =
        ((0..operands).map(place).collect(), (operands..operands + results).map(place).collect());
    let (dispatches, how) = match kernel {
        Kernel::Nest(one) => match Product::of(one).map(|p| p.within(workspace_bytes)) {
            Some(product) => {
                let made = tile::tiles(&product, one, &from, &to, place(operands + results))?;
                (made, product.strategy())
            }
            None => {
                let made = nest(one, &from, &to)?;
                let how = if nest::shares_folds(one) { "a workgroup per point" } else { "a thread per point" };
                (made.into_iter().collect(), how.into())
            }
        },
        Kernel::Scatter(one) => {
            (scatter::scatter(one, &from, to[0])?.into_iter().collect(), "a thread per place".into())
        }
        Kernel::Attention(one) => (attention::forward(one, &from, &to)?, "a workgroup per query".into()),
        Kernel::AttentionGrad(one) => {
            (attention::backward(one, &from, &to)?, "a workgroup per query, then per key".into())
        }
        Kernel::Group(group) if let Some(blocks) = Blocks::of(group) => {
            let placed = |p: &Passed| match p {
                Passed::Result(i) => to[usize::from(*i)],
                Passed::Operand(i) | Passed::Local(i) => from[usize::from(*i)],
            };
            (vec![blocks.dispatch(group, &placed)?], blocks.strategy())
        }
        Kernel::Group(group) => {
            let locals = local_offsets(group);
            let workspace = place(operands + results);
            let passed = |p: &Passed| match p {
                Passed::Operand(i) => from[usize::from(*i)],
                Passed::Result(i) => to[usize::from(*i)],
                Passed::Local(i) => Place { within: locals[usize::from(*i)], ..workspace },
            };
            let mut all = vec![];
            for member in &group.members {
                let reads: Vec<_> = member.reads.iter().map(passed).collect();
                let writes: Vec<_> = member.writes.iter().map(passed).collect();
                all.extend(nest(&member.nest, &reads, &writes)?);
            }
            (all, "nests in turn".into())
        }
        _ => return Err(Unsupported::Unsound("a sort of kernel that this device does not know".into())),
    };
    Ok(Program { dispatches, how })
}

/// Scratch that a kernel needs while it runs: what only members of a group see, and the sums of parts of a long depth.
pub(crate) fn workspace_bytes(kernel: &Kernel) -> u64 {
    match kernel {
        Kernel::Nest(nest) => Product::of(nest).map_or(0, |p| p.workspace_bytes()),
        Kernel::Group(group) if Blocks::of(group).is_some() => 0,
        Kernel::Group(group) => group.locals.iter().map(|l| l.size_bytes().next_multiple_of(64)).sum(),
        _ => 0,
    }
}

fn local_offsets(group: &thalweg_graph::kernel::Group) -> Vec<u64> {
    let mut end = 0;
    let mut next = |l: &thalweg_graph::kernel::BufferType| {
        let start = end;
        end += l.size_bytes().next_multiple_of(64);
        start
    };
    group.locals.iter().map(&mut next).collect()
}

/// Whether elements of a type share a word, so that writing one needs an atomic operation.
pub(crate) fn shares_words(dtype: DType) -> bool {
    dtype.size_bytes() < 4
}
