//! Thalweg's graph, kernel IR and plan: data in, data out. No input or output, no threads, no device: everything here
//! is a value that prints, parses back and verifies, and every stage is a function from one to the next.

pub mod array;
pub mod attrs;
pub mod bounds;
pub mod builder;
pub mod choose;
pub mod cluster;
pub mod cost;
pub mod diagnostic;
pub mod draw;
pub mod evaluate;
pub mod explain;
pub mod id;
pub mod init;
pub mod ir;
pub mod kernel;
pub mod lower;
pub mod op;
pub mod partition;
pub mod passes;
pub mod place;
pub mod plan;
pub mod strategy;
pub mod structural;
pub mod summary;
pub mod text;
pub mod types;
pub mod verify;
pub mod watch;
pub mod wire;

pub use array::{Array, Element, HostBytes};
pub use builder::Builder;
pub use cluster::Cluster;
pub use diagnostic::Diagnostic;
pub use ir::{Graph, Init, Node, NodeId, Pin, Program, Site, Value, VarId, VarKind, Variable};
pub use op::{Accuracy, DynOp, InHalf, Mode, OpError, Registry, Schema};
pub use place::{PipelineSchedule, Reduction};
pub use strategy::{Strategy, StrategyError};
pub use summary::Summary;
pub use text::ParseError;
pub use types::{Bindings, DType, Dim, Shape, TensorType, Types};
pub use verify::Fault;
pub use wire::{Hash, WireError};
