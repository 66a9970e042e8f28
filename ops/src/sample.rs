//! Samples: the operands on which an op is tested. They say what data must be like for the op to make sense (indices
//! in range, logarithms of positive numbers, maxima without ties), so that tests need to know no op.

use std::sync::Arc;

use thalweg_graph::kernel::BufferType;
use thalweg_graph::kernel::interpret::Values;
use thalweg_graph::op::DynOp;
use thalweg_graph::{Array, DType, InHalf, TensorType};

use crate::op::{Op, erase};

/// What an operand holds.
#[derive(Clone, Debug)]
pub enum Data {
    /// Uniform in [low, high); integers are truncated.
    Uniform(f64, f64),
    /// Different everywhere and at least 0.1 apart, nowhere zero: gradients of maxima exist.
    Distinct,
    /// Exactly this.
    Given(Array),
}

/// One case of an op.
#[derive(Clone, Debug)]
pub struct Sample<T> {
    /// The op.
    pub op: T,
    /// Operand types, all extents numbers, with their data.
    pub operands: Vec<(TensorType, Data)>,
    /// Whether its gradient is compared with differences.
    pub differentiable: bool,
}

/// A sample without its op's type.
pub type DynSample = Sample<Arc<dyn DynOp>>;

impl<T> Sample<T> {
    /// Operands of these types; floats in [−2, 2), integers in 0..3.
    pub fn new(op: T, operands: impl IntoIterator<Item = TensorType>) -> Self {
        let data = |t: &TensorType| if t.dtype.is_float() { Data::Uniform(-2.0, 2.0) } else { Data::Uniform(0.0, 3.0) };
        let operands: Vec<_> = operands.into_iter().map(|t| (t.clone(), data(&t))).collect();
        let differentiable = operands.iter().any(|(t, _)| t.dtype.is_float());
        Self { op, operands, differentiable }
    }
    /// f32 operands of these shapes.
    pub fn f32<const N: usize>(op: T, shapes: [&[u64]; N]) -> Self {
        Self::new(op, shapes.map(|s| DType::F32.of(s)))
    }
    /// Operand `k` holds this.
    pub fn data(mut self, k: usize, data: Data) -> Self {
        self.operands[k].1 = data;
        self
    }
    /// All float operands hold this.
    pub fn all(mut self, data: Data) -> Self {
        self.operands.iter_mut().filter(|(t, _)| t.dtype.is_float()).for_each(|(_, d)| *d = data.clone());
        self
    }
    /// The gradient is not compared with differences: it is not defined or not smooth there.
    pub fn no_gradient(mut self) -> Self {
        self.differentiable = false;
        self
    }
}

impl<T: Op> Sample<T> {
    pub(crate) fn erase(self) -> DynSample {
        Sample { op: erase(self.op), operands: self.operands, differentiable: self.differentiable }
    }
}

impl Data {
    /// The data, a pure function of `seed`.
    pub fn make(&self, ty: &TensorType, seed: u64) -> Array {
        let shape = ty.shape.fixed().expect("a sample's extents are numbers");
        if matches!(ty.dtype, DType::F16 | DType::BF16) {
            let wide = self.make(&DType::F32.of(&ty.shape), seed);
            let Values { ty: from, data } = Values::from_array(&wide);
            return Values { ty: BufferType { dtype: ty.dtype, ..from }, data }.to_array();
        }
        if let Data::Given(array) = self {
            return array.clone();
        }
        let mut out = Array::zeros(ty.dtype, &shape);
        let n = out.len();
        let unit = |i: usize| {
            f64::from(thalweg_graph::kernel::philox::unit_f32(thalweg_graph::kernel::philox::word(seed, i as u64, 0)))
        };
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|a, b| unit(*a).total_cmp(&unit(*b)));
        let value = |i: usize| match self {
            Data::Uniform(low, high) => low + (high - low) * unit(i),
            Data::Distinct => order[i] as f64 * 0.125 - n as f64 / 16.0 + 0.005,
            Data::Given(_) => unreachable!("returned above"),
        };
        for i in 0..n {
            let x = value(i);
            match ty.dtype {
                DType::Bool | DType::U8 => out.bytes_mut()[i] = x as u8 & if ty.dtype == DType::Bool { 1 } else { 255 },
                DType::U32 => out.as_mut_slice::<u32>()[i] = x as u32,
                DType::I32 => out.as_mut_slice::<i32>()[i] = x as i32,
                DType::I64 => out.as_mut_slice::<i64>()[i] = x as i64,
                DType::F32 => out.as_mut_slice::<f32>()[i] = x as f32,
                DType::F64 => out.as_mut_slice::<f64>()[i] = x,
                DType::F16 | DType::BF16 => unreachable!("made as f32 first"),
            }
        }
        out
    }
}

/// The sample with f32 operands of type `half` (those that the op gains by, where it says so), rounded; `None` where it
/// has none or the op refuses them.
pub fn in_half(sample: &DynSample, half: DType) -> Option<DynSample> {
    let narrow = match sample.op.in_half() {
        InHalf::Gains(operands) => usize::from(operands),
        _ => sample.operands.len(),
    };
    let mut sample = sample.clone();
    let mut any = false;
    for (ty, _) in sample.operands.iter_mut().take(narrow).filter(|(ty, _)| ty.dtype == DType::F32) {
        (ty.dtype, any) = (half, true);
    }
    let types: Vec<TensorType> = sample.operands.iter().map(|(ty, _)| ty.clone()).collect();
    (any && sample.op.infer(&types).is_ok()).then_some(sample)
}
