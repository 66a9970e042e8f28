//! What a kernel costs, derived from its text: operations and bytes. Counts are of the work asked for, before any
//! device is clever; the placer and `explain` turn them into seconds on named hardware.

use super::affine::Coord;
use super::scalar::{Scalar, ScalarOp};
use super::{BufferType, Kernel, LoopNest};

/// Work of one run of a kernel.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Cost {
    /// Arithmetic operations; a multiply-add is two. Points that holes skip are not counted.
    pub flops: f64,
    /// Bytes read, each operand once.
    pub bytes_read: f64,
    /// Bytes written.
    pub bytes_written: f64,
}

impl Kernel {
    /// The work this kernel asks for.
    pub fn cost(&self) -> Cost {
        let bytes = |b: &[BufferType]| b.iter().map(|b| b.size_bytes() as f64).sum();
        let flops = match self {
            Kernel::Nest(nest) => flops_of(nest),
            Kernel::Group(group) => group.members.iter().map(|m| flops_of(&m.nest)).sum(),
            Kernel::Scatter(scatter) => {
                scatter.axes.iter().map(|a| a.extent as f64).product::<f64>() * (work(&scatter.body) + 1.0)
            }
            Kernel::Attention(attention) => return attention.cost(false),
            Kernel::AttentionGrad(attention) => return attention.cost(true),
        };
        Cost { flops, bytes_read: bytes(self.operands()), bytes_written: bytes(self.results()) }
    }
}

fn flops_of(nest: &LoopNest) -> f64 {
    let extent = |fold: bool| nest.axes.iter().filter(|a| a.fold == fold).map(|a| a.extent as f64).product::<f64>();
    let dense: f64 = nest.reads.iter().flat_map(|r| &r.coords).map(density).product();
    let per_point = work(&nest.body) + nest.folds.len() as f64;
    extent(false) * (extent(true) * dense * per_point + work(&nest.epilogue))
}

fn density(coord: &Coord) -> f64 {
    match coord {
        Coord::Holes { step, .. } => 1.0 / *step as f64,
        _ => 1.0,
    }
}

fn work(program: &Scalar) -> f64 {
    let counted = |op: &ScalarOp| match op {
        ScalarOp::Unary(..) | ScalarOp::Binary(..) | ScalarOp::Select(..) => 1.0,
        ScalarOp::Fma(..) => 2.0,
        ScalarOp::Philox { .. } => 20.0,
        _ => 0.0,
    };
    // Index arithmetic is the device's own and is not work that was asked for.
    program.insts.iter().filter(|i| i.dtype != crate::types::DType::I64).map(|i| counted(&i.op)).sum()
}
