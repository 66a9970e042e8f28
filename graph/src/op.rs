//! What the graph knows of an op: [`DynOp`], an object-safe view with no list of ops behind it. Authors write the
//! friendlier `Op` of the ops crate, which is turned into this; text and bytes find ops by name in a [`Registry`].

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use crate::attrs::{AttrError, AttrList, AttrValue};
use crate::builder::Builder;
use crate::ir::Value;
use crate::kernel::{BufferType, Kernel};
use crate::types::{Bindings, Dim, TensorType, Types};

/// How close devices must come to the interpreter.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Accuracy {
    /// The same bits.
    Exact,
    /// Within this many units in the last place of the largest magnitude that enters the fold or the function.
    Ulps(u32),
}

/// How an op fares with operands in a half type (f16, bf16): what mixed precision goes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InHalf {
    /// Digits or range that matter would be lost: it stays in f32. So does an op that says nothing.
    Loses,
    /// It costs most where its operands are wide, and adds up in f32 itself: its first so many operands are made halves.
    Gains(u16),
    /// It moves, picks or adds a few numbers: in a half where its operands are halves already.
    Follows,
}

/// The fixed facts of an op.
#[derive(Debug)]
pub struct Schema {
    /// Its name in text.
    pub name: &'static str,
    /// Names of its operands; a last one ending in `*` takes any number.
    pub operands: &'static [&'static str],
    /// Names of its results.
    pub results: &'static [&'static str],
    /// How close devices must come.
    pub accuracy: Accuracy,
}

impl Schema {
    /// The name of operand `i`.
    pub fn operand(&self, i: usize) -> &'static str {
        self.operands.get(i).or(self.operands.last()).map_or("operand", |n| n.trim_end_matches('*'))
    }
    /// Checks the number of operands.
    pub fn check_arity(&self, got: usize) -> Result<(), OpError> {
        let variadic = self.operands.last().is_some_and(|n| n.ends_with('*'));
        let fits = if variadic { got + 1 >= self.operands.len() } else { got == self.operands.len() };
        if fits {
            return Ok(());
        }
        Err(OpError::new(
            "arity",
            format!("`{}` takes {} operands ({}), got {got}", self.name, self.operands.len(), self.operands.join(", ")),
        ))
    }
}

/// What is wrong with an op's operands. Knows nothing of nodes or files.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("[{rule}] {message}")]
pub struct OpError {
    /// Which constraint broke, by number: `matmul.C2`.
    pub rule: &'static str,
    /// What is wrong, with the shapes.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl OpError {
    /// A broken constraint.
    pub fn new(rule: &'static str, message: impl Into<String>) -> Self {
        Self { rule, message: message.into(), help: None }
    }
    /// With a remedy.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Returns an [`OpError`] unless the condition holds: `require!(k == k2, "matmul.C2", "…", help: "…")`.
#[macro_export]
macro_rules! require {
    ($holds:expr, $rule:expr, $message:literal $(, $arg:expr)* ; help: $($help:tt)+) => {
        if !$holds { return Err($crate::op::OpError::new($rule, format!($message $(, $arg)*)).help(format!($($help)+))); }
    };
    ($holds:expr, $rule:expr, $($message:tt)+) => {
        if !$holds { return Err($crate::op::OpError::new($rule, format!($($message)+))); }
    };
}

/// An extent that must not be negative for any value of named dimensions within their bounds, though no result has it. The
/// op says which; whether it holds is asked where bounds are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// Which constraint breaks otherwise.
    pub rule: &'static str,
    /// The extent.
    pub dim: Dim,
    /// What is wrong if it may be negative.
    pub message: String,
}

/// Whether a program learns (it has updates) or only computes. Dropout and batch norm differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The program updates variables.
    Train,
    /// The program only reads them.
    Infer,
}

/// What a gradient is computed from.
pub struct GradientOf<'a> {
    /// The node's operands.
    pub operands: &'a [Value],
    /// The node's results.
    pub results: &'a [Value],
    /// The cotangent of each result that has one.
    pub cotangents: &'a [Option<Value>],
}

/// An op as a node holds it.
pub trait DynOp: Debug + Send + Sync {
    /// Its fixed facts.
    fn schema(&self) -> &'static Schema;
    /// The attributes that differ from their defaults.
    fn attrs(&self) -> AttrList;
    /// Result types, or which constraint broke. The number of operands has been checked.
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError>;
    /// What its operands' extents have to be for every value of named dimensions; [`infer`](Self::infer) sees no bounds.
    fn demands(&self, _operands: &[TensorType]) -> Vec<Demand> {
        vec![]
    }
    /// A primitive's kernel; `None` for composites and structural ops.
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel>;
    /// A composite's results as other nodes; `None` for primitives and structural ops.
    fn expand(&self, to: &Builder, operands: &[Value], mode: Mode) -> Option<Vec<Value>>;
    /// The cotangent of each operand that has one. `None` for an op without a gradient.
    fn gradient(&self, to: &Builder, of: GradientOf<'_>) -> Option<Vec<Option<Value>>>;
    /// How it fares with operands in a half type.
    fn in_half(&self) -> InHalf {
        InHalf::Loses
    }
    /// The op with named dimensions replaced; `None` on overflow.
    fn bind(&self, bindings: &Bindings) -> Option<Arc<dyn DynOp>>;
    /// The author's own type, to look inside.
    fn as_any(&self) -> &dyn Any;
}

impl PartialEq for dyn DynOp {
    fn eq(&self, other: &Self) -> bool {
        self.schema().name == other.schema().name && self.attrs() == other.attrs()
    }
}

/// Makes an op from what text and bytes hold: attributes, and the result types stated beside them.
pub type MakeOp = fn(&[(String, AttrValue)], &[TensorType]) -> Result<Arc<dyn DynOp>, AttrError>;

/// The ops that text and bytes may name. A plain table that somebody wrote down, not a collection by magic.
#[derive(Clone, Default)]
pub struct Registry {
    ops: BTreeMap<&'static str, MakeOp>,
}

impl Registry {
    /// The structural ops, which every graph may hold.
    pub fn structural() -> Self {
        let mut registry = Self::default();
        crate::structural::register(&mut registry);
        registry
    }
    /// Adds an op.
    pub fn add(&mut self, name: &'static str, make: MakeOp) {
        self.ops.insert(name, make);
    }
    /// Makes the op called `name`.
    pub fn make(
        &self,
        name: &str,
        attrs: &[(String, AttrValue)],
        types: &[TensorType],
    ) -> Result<Arc<dyn DynOp>, AttrError> {
        self.ops.get(name).ok_or_else(|| AttrError::NoSuchOp(name.to_string()))?(attrs, types)
    }
    /// The names there are.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.ops.keys().copied()
    }
}
