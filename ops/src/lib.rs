//! Thalweg's model API: tensors, operations, layers, optimizers and gradients. Everything here only *declares*: it
//! appends nodes to a graph and collects mistakes. No device is named and nothing is computed.

pub mod autodiff;
pub mod conv;
pub mod graph;
pub mod index;
pub mod layout;
pub mod linalg;
pub mod math;
pub mod nn;
pub mod op;
pub mod optim;
pub mod precision;
pub mod random;
pub mod reduce;
pub mod sample;
mod table;
pub mod tensor;

pub use graph::{Graph, ProgramBuilder, Update};
pub use op::{Gradients, Op, OpRow, VjpCx};
pub use precision::Precision;
pub use sample::Sample;
pub use table::{OPS, registry};
pub use tensor::Tensor;
pub use thalweg_graph::{attrs, require, shape};
