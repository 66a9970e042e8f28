//! The kernel IR: what a primitive op computes, as data. `ops` writes kernels and never sees a device; devices run
//! kernels and never see an op. Everything else about an op (its meaning, its cost, a generic implementation on
//! every device) is derived from here and stated nowhere else.

pub mod affine;
pub mod attention;
pub mod build;
pub mod contraction;
pub mod cost;
mod cut;
pub mod group;
mod inline;
pub mod interpret;
pub mod nest;
pub mod philox;
mod rewrite;
pub mod scalar;
mod split;
mod verify;

use serde::{Deserialize, Serialize};

pub use affine::{Affine, Coord};
pub use attention::Attention;
pub use contraction::Contraction;
pub use group::{Group, Member, Passed};
pub use nest::{Axis, Beyond, Fold, LoopNest, Monoid, Read, Scatter, Write};
pub use scalar::{Binary, Inst, Literal, Reg, Scalar, ScalarOp, Unary};
pub use split::Less;

use crate::types::{DType, TensorType};

/// The type of a buffer that a kernel reads or writes: element type and extents, all numbers.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct BufferType {
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first; row-major, dense.
    pub shape: Vec<u64>,
}

impl BufferType {
    /// The buffer of a tensor type whose named dimensions are all bound.
    pub fn of(ty: &TensorType) -> Option<Self> {
        Some(Self { dtype: ty.dtype, shape: ty.shape.fixed()? })
    }
    /// Number of elements, unless it overflows. None at all where an extent is 0, whatever the others are.
    pub fn checked_len(&self) -> Option<u64> {
        if self.is_empty() {
            return Some(0);
        }
        self.shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d))
    }
    /// Number of elements of a verified buffer.
    pub fn len(&self) -> usize {
        if self.is_empty() { 0 } else { self.shape.iter().product::<u64>() as usize }
    }
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }
    /// Bytes of a verified buffer.
    pub fn size_bytes(&self) -> u64 {
        self.len() as u64 * self.dtype.size_bytes() as u64
    }
    /// Row-major strides, in elements.
    pub fn strides(&self) -> Vec<i64> {
        let mut strides = vec![1i64; self.shape.len()];
        for d in (1..self.shape.len()).rev() {
            strides[d - 1] = strides[d].wrapping_mul(self.shape[d] as i64);
        }
        strides
    }
    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }
}

impl std::fmt::Display for BufferType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.dtype.of(&self.shape[..]).fmt(f)
    }
}

/// What one primitive computes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Kernel {
    /// A loop nest: for every point of the parallel axes, fold, then write.
    Nest(LoopNest),
    /// Contributions sent to places that data decides.
    Scatter(Scatter),
    /// Nests that run in turn, block by block over axes they share.
    Group(Group),
    /// Means of values, weighted by how well keys fit queries.
    Attention(Attention),
    /// The gradient of attention.
    AttentionGrad(Attention),
}

impl Kernel {
    /// Types of the buffers read, in operand order.
    pub fn operands(&self) -> &[BufferType] {
        match self {
            Kernel::Nest(nest) => &nest.operands,
            Kernel::Scatter(scatter) => &scatter.operands,
            Kernel::Group(group) => &group.operands,
            Kernel::Attention(attention) | Kernel::AttentionGrad(attention) => &attention.operands,
        }
    }
    /// Types of the buffers written, in result order.
    pub fn results(&self) -> &[BufferType] {
        match self {
            Kernel::Nest(nest) => &nest.results,
            Kernel::Scatter(scatter) => std::slice::from_ref(&scatter.result),
            Kernel::Group(group) => &group.results,
            Kernel::Attention(attention) | Kernel::AttentionGrad(attention) => &attention.results,
        }
    }
    /// Everything that is wrong with it; empty when sound. Devices only run kernels that have passed.
    pub fn verify(&self) -> Vec<String> {
        verify::verify(self)
    }
}

impl From<LoopNest> for Kernel {
    fn from(nest: LoopNest) -> Self {
        Kernel::Nest(nest)
    }
}
impl From<Group> for Kernel {
    fn from(group: Group) -> Self {
        Kernel::Group(group)
    }
}
impl From<Scatter> for Kernel {
    fn from(scatter: Scatter) -> Self {
        Kernel::Scatter(scatter)
    }
}
