//! Deep learning as one static dataflow graph: declared in a few lines, planned whole before it runs, and run on
//! whatever devices there are.
//!
//! ```
//! use thalweg::prelude::*;
//!
//! # fn main() -> thalweg::Result<()> {
//! let g = Graph::new("line").seed(0);
//! let n = g.dim("n", 1..=64);
//! let x = g.input("x", F32, shape![n]);
//! let y = g.input("y", F32, shape![n]);
//! let slope = g.parameter("slope", F32, (), Init::Constant(0.0));
//! let error = x * slope - y;
//! let loss = (error * error).mean().named("loss");
//! g.program("train").outputs([loss]).update(Sgd::new(0.1).minimize(loss));
//!
//! let mut model = g.compile(&Cluster::local())?;
//! let (xs, ys) = (Array::from_slice(&[3], &[1f32, 2.0, 3.0]), Array::from_slice(&[3], &[2f32, 4.0, 6.0]));
//! for _ in 0..50 {
//!     model.run("train", feed! { x: &xs, y: &ys })?;
//! }
//! assert!((model.get("slope")?.item() - 2.0).abs() < 1e-3);
//! # Ok(())
//! # }
//! ```

pub mod data;
pub mod draw;
mod error;
pub mod explain;
pub mod hosts;
pub mod kit;
pub mod measured;
mod model;

pub use error::{Error, Result};
pub use model::{Compile, Model, Point, Spread, open_device};
pub use thalweg_distributed as distributed;
#[cfg(feature = "gpu")]
pub use thalweg_gpu as gpu;
pub use thalweg_graph as graph;
pub use thalweg_graph::{Array, Cluster, DType, Init, PipelineSchedule, Reduction, Strategy};
pub use thalweg_ops as ops;
pub use thalweg_ops::{Graph, Op, OpRow, Precision, Tensor, nn, optim};
pub use thalweg_runtime as runtime;

/// What a model file needs: `use thalweg::prelude::*;`.
pub mod prelude {
    pub use crate::data::{Files, Source};
    pub use crate::model::{Compile, Model};
    pub use crate::nn::*;
    pub use crate::optim::{AdamW, LossScale, Schedule, Sgd};
    pub use crate::{Array, Cluster, Graph, Init, PipelineSchedule, Precision, Reduction, Strategy, Tensor, feed};
    pub use thalweg_graph::DType::{BF16, Bool, F16, F32, F64, I32, I64, U8, U32};
    pub use thalweg_graph::shape;
}

/// Values by the names of inputs: `model.run("train", feed! { image: &images, label: &labels })`.
#[macro_export]
macro_rules! feed {
    ($($name:ident: $array:expr),* $(,)?) => { &[$((stringify!($name), $array)),*] };
}

/// The guide's blocks in Rust are run as tests; those in Python by `python/tests/test_guide.py`.
#[cfg(doctest)]
#[doc = include_str!("../docs/guide/first-model.md")]
struct Guide;

/// The README's model is compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
