//! The graph: a list of nodes in which operands come before their uses, variables beside it, and named programs over
//! both. Cycles cannot be built and nobody sorts. Immutable; passes make new graphs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{Arena, Side};
use crate::op::DynOp;
use crate::structural::{Input, ReadVariable};
use crate::types::{Bindings, TensorType, Types};

crate::id! {
    /// A node: `%7`.
    NodeId, "%"
}
crate::id! {
    /// A variable: `$2`.
    VarId, "$"
}

/// One result of a node: `%7`, or `%7.1` for a second one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Value {
    /// The node.
    pub node: NodeId,
    /// Which of its results.
    pub slot: u16,
}

impl Value {
    /// What a mistaken op yields: everything built on it is silently more poison, so that no mistake is reported twice.
    pub const POISON: Value = Value { node: NodeId(u32::MAX), slot: 0 };
    /// Whether this stems from a mistake.
    pub fn is_poison(self) -> bool {
        self == Value::POISON
    }
}
impl From<NodeId> for Value {
    fn from(node: NodeId) -> Self {
        Value { node, slot: 0 }
    }
}
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_poison(), self.slot) {
            (true, _) => f.write_str("%poison"),
            (_, 0) => write!(f, "{}", self.node),
            (_, slot) => write!(f, "{}.{slot}", self.node),
        }
    }
}
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A line of the user's source. Not part of a graph's identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Site {
    /// Path as the compiler saw it; empty when unknown.
    pub file: Arc<str>,
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
}

impl Site {
    /// The caller's line.
    #[track_caller]
    pub fn here() -> Self {
        let at = std::panic::Location::caller();
        Self { file: at.file().into(), line: at.line(), column: at.column() }
    }
}
impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.file.is_empty() {
            return f.write_str("(no source line)");
        }
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Where a person wants something to run, whatever else a strategy says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Pin {
    /// In this stage of a pipeline, from 0.
    Stage(u16),
    /// On the device of this name.
    On(Arc<str>),
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pin::Stage(stage) => write!(f, "stage {stage}"),
            Pin::On(device) => write!(f, "on {device:?}"),
        }
    }
}

/// How a person wants a tensor to be spread over a mesh: per axis of the tensor, the name of an axis of the mesh, or none.
pub type Sharding = Arc<[Option<Arc<str>>]>;

/// One application of an op.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is applied.
    pub op: Arc<dyn DynOp>,
    /// To what.
    pub operands: Vec<Value>,
    /// Types of the results.
    pub types: Types,
    /// Dotted path of the scope in which it was declared; empty at the top.
    pub scope: Arc<str>,
    /// The name that the user gave its first result.
    pub name: Option<Arc<str>>,
    /// The composite op that it was expanded from.
    pub origin: Option<Arc<str>>,
    /// Where it is to run, if its declaration says so; derived nodes inherit it.
    pub pin: Option<Pin>,
    /// How its first result is to be spread, if its declaration says so.
    pub sharding: Option<Sharding>,
    /// Which declaration it stems from, as the place of that node among those declared: expansions and gradients have that
    /// of the node that they are derived from, so that a layer and its gradient can be told to be one thing.
    pub stem: u32,
    /// Where a person asked for it; derived nodes inherit it.
    pub site: Site,
}

impl PartialEq for Node {
    /// What it computes, what it is called, where it is pinned and how it is to be spread; not which lines and declarations it stems from.
    fn eq(&self, other: &Self) -> bool {
        let named = |n: &Self| (n.scope.clone(), n.name.clone(), n.origin.clone(), n.pin.clone(), n.sharding.clone());
        *self.op == *other.op
            && self.operands == other.operands
            && self.types == other.types
            && named(self) == named(other)
    }
}

impl Node {
    /// The op as its author's type.
    pub fn op_as<T: 'static>(&self) -> Option<&T> {
        self.op.as_any().downcast_ref()
    }
    /// Its values.
    pub fn values(&self, id: NodeId) -> impl Iterator<Item = Value> + use<> {
        (0..self.types.len() as u16).map(move |slot| Value { node: id, slot })
    }
    /// `scope.name`, or what there is of it.
    pub fn path(&self) -> String {
        let name = self.name.as_deref().unwrap_or("");
        [&*self.scope, name].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(".")
    }
    /// What it computes, for people: `body.conv2: conv2d_input_grad (gradient of conv2d)`.
    pub fn label(&self) -> String {
        let op = self.op.schema().name;
        let origin = match self.origin.as_deref().filter(|o| *o != op) {
            None => String::new(),
            Some(origin) => match origin.strip_prefix("grad.") {
                Some(of) => format!(" (gradient of {of})"),
                None => format!(" ({origin})"),
            },
        };
        let path = self.path();
        if path.is_empty() { format!("{op}{origin}") } else { format!("{path}: {op}{origin}") }
    }
}

crate::kernel::scalar::named_enum! {
    /// What a variable is for.
    VarKind {
        /// Learned.
        Param = "param",
        /// An optimizer's own.
        Slot = "slot",
        /// A statistic of the data.
        Stat = "stat",
        /// A count, such as the step.
        Counter = "counter",
        /// Kept from call to call, such as keys and values of past tokens.
        Cache = "cache",
    }
}

/// How a variable begins; a pure function of the graph's seed and the variable's name. Compared by bits.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Init {
    /// All the same.
    Constant(f64),
    /// Uniform in [low, high).
    Uniform {
        /// Smallest.
        low: f64,
        /// Bound.
        high: f64,
    },
    /// Normal.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
}

impl PartialEq for Init {
    fn eq(&self, other: &Self) -> bool {
        let bits = |init: &Init| match *init {
            Init::Constant(x) => (0, x.to_bits(), 0),
            Init::Uniform { low, high } => (1, low.to_bits(), high.to_bits()),
            Init::Normal { mean, std } => (2, mean.to_bits(), std.to_bits()),
        };
        bits(self) == bits(other)
    }
}

/// State shared by programs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Variable {
    /// Dotted path, unique.
    pub name: Arc<str>,
    /// What it is; all extents are numbers.
    pub ty: TensorType,
    /// What it is for.
    pub kind: VarKind,
    /// How it begins.
    pub init: Init,
    /// Which variables it lies next to in memory: those of one group, kind and element type form a flat segment.
    pub group: Arc<str>,
}

impl Variable {
    /// Whether `pattern` means it: its name, or `*` and how its name ends.
    pub fn is_meant(&self, pattern: &str) -> bool {
        pattern.strip_prefix('*').map_or(&*self.name == pattern, |end| self.name.ends_with(end))
    }
}

/// What has to hold before a step of a program commits: that a value is finite.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Check {
    /// The value in question.
    pub of: Value,
    /// How finite it is, as [`Finiteness`](crate::watch::Finiteness) has it: an i32 without axes.
    pub status: Value,
}

/// A named entry point.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Program {
    /// Its name.
    pub name: Arc<str>,
    /// What it returns, by name.
    pub outputs: Vec<(Arc<str>, Value)>,
    /// Which variables it sets at the end of a step, each once.
    pub updates: Vec<(VarId, Value)>,
    /// What must be finite for a step to commit.
    pub checks: Vec<Check>,
}

impl Program {
    /// Whether it learns.
    pub fn mode(&self) -> crate::op::Mode {
        if self.updates.is_empty() { crate::op::Mode::Infer } else { crate::op::Mode::Train }
    }
    /// Every value it needs.
    pub fn roots(&self) -> impl Iterator<Item = Value> + '_ {
        let returned = self.outputs.iter().map(|(_, v)| *v).chain(self.updates.iter().map(|(_, v)| *v));
        returned.chain(self.checks.iter().map(|c| c.status))
    }
}

/// Bounds of a named dimension, both included.
pub type DimBounds = (u64, u64);

/// Programs over shared variables.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Graph {
    /// Its name.
    pub name: Arc<str>,
    /// What all random numbers start from.
    pub seed: u64,
    /// Named dimensions and their bounds.
    pub dims: BTreeMap<Arc<str>, DimBounds>,
    /// Nodes, operands first.
    pub nodes: Arena<NodeId, Node>,
    /// Variables.
    pub state: Arena<VarId, Variable>,
    /// Entry points.
    pub programs: Vec<Program>,
}

impl Graph {
    /// The type of a value.
    pub fn ty(&self, value: Value) -> &TensorType {
        &self.nodes[value.node].types[value.slot as usize]
    }
    /// The type of `value`, if there is such a value.
    pub fn get_ty(&self, value: Value) -> Option<&TensorType> {
        self.nodes.get(value.node)?.types.get(usize::from(value.slot))
    }
    /// Types of a node's operands.
    pub fn operand_types(&self, node: &Node) -> Vec<TensorType> {
        node.operands.iter().map(|v| self.ty(*v).clone()).collect()
    }
    /// The program called `name`.
    pub fn program(&self, name: &str) -> Option<&Program> {
        self.programs.iter().find(|p| &*p.name == name)
    }
    /// The variable called `name`.
    pub fn variable(&self, name: &str) -> Option<VarId> {
        self.state.iter().find(|(_, v)| &*v.name == name).map(|(id, _)| id)
    }
    /// Which nodes `program` needs.
    pub fn needed_by(&self, program: &Program) -> Side<NodeId, bool> {
        let mut needed = Side::filled(self.nodes.len(), false);
        for root in program.roots() {
            needed[root.node] = true;
        }
        for (id, node) in self.nodes.iter().rev() {
            if needed[id] {
                for operand in &node.operands {
                    needed[operand.node] = true;
                }
            }
        }
        needed
    }
    /// The inputs that `program` needs, in order of declaration.
    pub fn inputs_of(&self, program: &Program) -> Vec<(NodeId, &Input)> {
        let needed = self.needed_by(program);
        self.nodes.iter().filter(|(id, _)| needed[*id]).filter_map(|(id, n)| Some((id, n.op_as::<Input>()?))).collect()
    }
    /// The variable that a node reads, if that is what it does.
    pub fn variable_read(&self, node: &Node) -> Option<VarId> {
        self.variable(&node.op_as::<ReadVariable>()?.variable)
    }
    /// The graph with named dimensions replaced by numbers. `None` on overflow or where an extent would be negative.
    pub fn bind(&self, bindings: &Bindings) -> Option<Graph> {
        let mut graph = self.clone();
        graph.dims.retain(|name, _| !bindings.contains_key(name));
        for id in graph.nodes.ids() {
            let node = &mut graph.nodes[id];
            if node.types.iter().any(|t| t.shape.fixed().is_none())
                || node.op.attrs().iter().any(|(_, v)| matches!(v, crate::attrs::AttrValue::Shape(_)))
            {
                node.op = node.op.bind(bindings)?;
                node.types = node.types.iter().map(|t| t.bind(bindings)).collect::<Option<_>>()?;
                // What is beyond the declared bounds keeps no promise: such an op is asked once more.
                let demanding = !self.nodes[id].op.demands(&self.operand_types(&self.nodes[id])).is_empty();
                if demanding && graph.nodes[id].op.infer(&graph.operand_types(&graph.nodes[id])).is_err() {
                    return None;
                }
            }
        }
        Some(graph)
    }
}
