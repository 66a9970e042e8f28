//! Graphs as text: a line per dimension, variable and node, each with its type; then the programs. Attributes are
//! printed only where they differ from their defaults, ids are dense, and so equal graphs print equal text. Source
//! lines are no part of a graph's identity: only `{:#}` prints them.
//!
//! ```text
//! graph "digits" seed 0 {
//!   dim batch 1..=512
//!   $0: f32[16, 1, 3, 3] = param "body.conv1.weight" uniform(-0.33, 0.33) in "adamw"
//!   %0: f32[batch, 1, 8, 8] = input {name: "image"} "image"
//!   %1: f32[16, 1, 3, 3] = variable {variable: "body.conv1.weight"} @"body.conv1"
//!   %2: f32[batch, 16, 8, 8] = conv2d %0, %1 {pad: [1, 1]} @"body.conv1" "hidden" from "softmax" at "a.rs:3:9"
//!   %3: f32[batch], i32[batch] = split %2
//!   program "train" {
//!     return "loss" = %7, "accuracy" = %3.1
//!     update $0 = %12
//!     check %7 by %13
//!   }
//! }
//! ```

use std::fmt::{self, Display, Formatter};

use super::value::{FloatText, write_list, write_site};
use crate::ir::{Graph, Init, Node, NodeId, Program, VarId, Variable};

impl Display for Graph {
    /// The graph as text; with `{:#}` each node also says its source line.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        print_graph(self, f, 0)
    }
}

/// Prints `graph` from the middle of a line that is indented by `indent` spaces, up to its closing brace.
pub(crate) fn print_graph(graph: &Graph, f: &mut Formatter<'_>, indent: usize) -> fmt::Result {
    let inner = indent + 2;
    writeln!(f, "graph {:?} seed {} {{", graph.name, graph.seed)?;
    for (name, (low, high)) in &graph.dims {
        writeln!(f, "{:inner$}dim {name} {low}..={high}", "")?;
    }
    for (id, variable) in graph.state.iter() {
        print_variable(id, variable, f, inner)?;
    }
    for (id, node) in graph.nodes.iter() {
        print_node(id, node, f, inner)?;
    }
    for program in &graph.programs {
        print_program(program, f, inner)?;
    }
    write!(f, "{:indent$}}}", "")
}

fn print_variable(id: VarId, variable: &Variable, f: &mut Formatter<'_>, indent: usize) -> fmt::Result {
    let Variable { name, ty, kind, init, group } = variable;
    write!(f, "{:indent$}{id}: {ty} = {} {name:?} {init}", "", kind.name())?;
    if !group.is_empty() {
        write!(f, " in {group:?}")?;
    }
    writeln!(f)
}

impl Display for Init {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Init::Constant(x) => write!(f, "constant({})", FloatText(x)),
            Init::Uniform { low, high } => write!(f, "uniform({}, {})", FloatText(low), FloatText(high)),
            Init::Normal { mean, std } => write!(f, "normal({}, {})", FloatText(mean), FloatText(std)),
        }
    }
}

fn print_node(id: NodeId, node: &Node, f: &mut Formatter<'_>, indent: usize) -> fmt::Result {
    write!(f, "{:indent$}{id}: ", "")?;
    match &node.types[..] {
        [] => f.write_str("()")?,
        types => write_list(f, types)?,
    }
    write!(f, " = {}", node.op.schema().name)?;
    if !node.operands.is_empty() {
        f.write_str(" ")?;
        write_list(f, &node.operands)?;
    }
    let attrs = node.op.attrs();
    if !attrs.is_empty() {
        f.write_str(" {")?;
        write_list(f, attrs.iter().map(|(name, value)| format!("{name}: {value}")))?;
        f.write_str("}")?;
    }
    if !node.scope.is_empty() {
        write!(f, " @{:?}", node.scope)?;
    }
    if let Some(name) = &node.name {
        write!(f, " {name:?}")?;
    }
    if let Some(origin) = &node.origin {
        write!(f, " from {origin:?}")?;
    }
    if let Some(pin) = &node.pin {
        write!(f, " {pin}")?;
    }
    if let Some(sharding) = &node.sharding {
        f.write_str(" shard [")?;
        write_list(f, sharding.iter().map(|axis| axis.as_ref().map_or("_".into(), |name| format!("{name:?}"))))?;
        f.write_str("]")?;
    }
    write_site(f, &node.site)?;
    writeln!(f)
}

fn print_program(program: &Program, f: &mut Formatter<'_>, indent: usize) -> fmt::Result {
    writeln!(f, "{:indent$}program {:?} {{", "", program.name)?;
    if !program.outputs.is_empty() {
        write!(f, "{:indent$}  return ", "")?;
        write_list(f, program.outputs.iter().map(|(name, value)| format!("{name:?} = {value}")))?;
        writeln!(f)?;
    }
    for (variable, value) in &program.updates {
        writeln!(f, "{:indent$}  update {variable} = {value}", "")?;
    }
    for check in &program.checks {
        writeln!(f, "{:indent$}  check {} by {}", "", check.of, check.status)?;
    }
    writeln!(f, "{:indent$}}}", "")
}
