//! Loop nests and scatters. A nest says *what* for every point and leaves *in which order* to the device, except
//! where order shows: ties go to the smallest index, NaN wins a maximum, a sum's neutral element is −0.0.

use serde::{Deserialize, Serialize};

use super::BufferType;
use super::affine::{Affine, Coord};
use super::scalar::{Inst, Literal, Reg, Scalar, ScalarOp, named_enum};
use crate::types::DType;

/// One loop. `extent` points here, which are `origin..origin+extent` of `whole` points of the whole value: equal to
/// `0..extent` of `extent` until a placement cuts the value. `Index` in scalar programs is global.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Axis {
    /// Points here.
    pub extent: u64,
    /// Whether the axis is folded away; fold axes come after all parallel ones.
    pub fold: bool,
    /// First point here.
    pub origin: u64,
    /// Points in all.
    pub whole: u64,
}

impl Axis {
    /// An axis that is not cut.
    pub fn new(extent: u64, fold: bool) -> Self {
        Self { extent, fold, origin: 0, whole: extent }
    }
}

/// What a coordinate that is a value does beyond the operand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Beyond {
    /// It moves to the nearest coordinate inside.
    Clamp,
    /// The read is outside and yields its fill; a scatter drops the contribution.
    Outside,
}

/// Where an operand is read.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Read {
    /// Which operand.
    pub operand: u16,
    /// One per axis of the operand.
    pub coords: Vec<Coord>,
    /// What is found outside the operand. Without it, the verifier must see that the read stays inside.
    pub fill: Option<Literal>,
}

named_enum! {
    /// How folded values combine: associative, with a neutral element.
    Monoid {
        /// Sum.
        Sum = "sum",
        /// Product.
        Prod = "prod",
        /// Maximum; NaN wins.
        Max = "max",
        /// Minimum; NaN wins.
        Min = "min",
        /// Whether any holds.
        Any = "any",
        /// Whether all hold.
        All = "all",
        /// (maximum, its smallest index); inputs (value, index: i64). NaN wins.
        ArgMax = "argmax",
        /// (minimum, its smallest index); inputs (value, index: i64). NaN wins.
        ArgMin = "argmin",
        /// (mean, sum of squared deviations, count) by Chan's merge.
        MeanM2 = "meanm2",
        /// (maximum, Σ exp(x − maximum)).
        LogSumExp = "logsumexp",
    }
}

impl Monoid {
    /// Number of inputs per folded point.
    pub fn inputs(self) -> usize {
        match self {
            Monoid::ArgMax | Monoid::ArgMin => 2,
            _ => 1,
        }
    }
    /// Number of parts of the state, each readable in the epilogue.
    pub fn parts(self) -> usize {
        match self {
            Monoid::MeanM2 => 3,
            Monoid::ArgMax | Monoid::ArgMin | Monoid::LogSumExp => 2,
            _ => 1,
        }
    }
    /// The type of part `part` when values accumulate in `dtype`.
    pub fn part_dtype(self, part: usize, dtype: DType) -> DType {
        match (self, part) {
            (Monoid::ArgMax | Monoid::ArgMin, 1) => DType::I64,
            _ => dtype,
        }
    }
}

/// One fold over all fold axes, in row-major order of the fold axes as far as order shows.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Fold {
    /// How values combine.
    pub monoid: Monoid,
    /// Registers of the body.
    pub inputs: Vec<Reg>,
    /// Type in which values accumulate.
    pub dtype: DType,
}

/// Where a result is written.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Write {
    /// Which result.
    pub result: u16,
    /// Register of the epilogue.
    pub value: Reg,
    /// One per axis of the result; together injective over the parallel axes.
    pub coords: Vec<Affine>,
}

/// For every point of the parallel axes: fold the body over the fold axes, then the epilogue, then the writes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct LoopNest {
    /// Types of the operands.
    pub operands: Vec<BufferType>,
    /// Types of the results.
    pub results: Vec<BufferType>,
    /// Parallel axes, then fold axes.
    pub axes: Vec<Axis>,
    /// Where operands are read. A read whose coordinate is a value uses an earlier read.
    pub reads: Vec<Read>,
    /// Runs at every point; empty when nothing is folded.
    pub body: Scalar,
    /// What is folded.
    pub folds: Vec<Fold>,
    /// Runs once per point of the parallel axes.
    pub epilogue: Scalar,
    /// What is written: every element of every result, once.
    pub writes: Vec<Write>,
}

impl LoopNest {
    /// Each element of `from` in `to`, two tensors of one axis of the same length: in another type, or as it is.
    pub fn copy(from: BufferType, to: BufferType) -> Self {
        let (axes, at) = (vec![Axis::new(from.len() as u64, false)], Affine::axis(0));
        let mut epilogue = Scalar::default();
        let mut value = epilogue.push(Inst { dtype: from.dtype, op: ScalarOp::Read(0) });
        if from.dtype != to.dtype {
            value = epilogue.push(Inst { dtype: to.dtype, op: ScalarOp::Cast(value) });
        }
        LoopNest {
            operands: vec![from],
            results: vec![to],
            axes,
            reads: vec![Read { operand: 0, coords: vec![Coord::Affine(at.clone())], fill: None }],
            body: Scalar::default(),
            folds: vec![],
            epilogue,
            writes: vec![Write { result: 0, value, coords: vec![at] }],
        }
    }
    /// Number of parallel axes, which come first.
    pub fn parallel_axes(&self) -> usize {
        self.axes.iter().filter(|a| !a.fold).count()
    }
}

/// For every point in row-major order: `result[at] ⊕= body`, starting from an operand or from the neutral element.
/// Deterministic: contributions to one place combine in the order of their points.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Scatter {
    /// Types of the operands.
    pub operands: Vec<BufferType>,
    /// Type of the result.
    pub result: BufferType,
    /// The points; none is a fold axis.
    pub axes: Vec<Axis>,
    /// Where operands are read.
    pub reads: Vec<Read>,
    /// Runs at every point.
    pub body: Scalar,
    /// Register of the contribution.
    pub value: Reg,
    /// Where it goes, one per axis of the result; contributions outside are dropped.
    pub at: Vec<Coord>,
    /// How contributions combine; a monoid of one input and one part.
    pub monoid: Monoid,
    /// The operand that the result starts from; none: the neutral element.
    pub init: Option<u16>,
}
