//! Thalweg's graph, kernel IR and plan: data in, data out. No input or output, no threads, no device: everything here
//! is a value that prints, parses back and verifies, and every stage is a function from one to the next.

pub mod array;
pub mod id;
pub mod kernel;
pub mod types;

pub use array::{Array, Element};
pub use types::{Bindings, DType, Dim, Shape, TensorType, Types};
