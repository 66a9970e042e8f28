//! Mixed precision, graph to graph: in one program, products run in a half type while parameters, sums, norms and losses
//! stay f32. It runs on a graph that has its gradients already, because these are nodes like any other: the same rule, of
//! each op by itself ([`InHalf`]), serves both directions, a weight is made a half once for both, and a cast has no
//! gradient of its own that would have to be taken out again.
//!
//! Every value of the program is made in one type and cast to the other at most once, when somebody first wants that. So
//! casts are shared, and a pair that cancels never comes to be. Nodes that the pass leaves alone stay the nodes they are:
//! programs share them, and handles of the declaration still mean them.

use std::collections::HashMap;

use thalweg_graph::kernel::interpret::{Number, Precision::Exact, round};
use thalweg_graph::op::DynOp;
use thalweg_graph::structural::ReadVariable;
use thalweg_graph::{Builder, DType, Diagnostic, Graph, InHalf, Node, NodeId, Site, Value};

use crate::layout::full::Full;
use crate::math::cast::Cast;
use crate::op::erase;

/// In which types a program computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    /// Those that were declared.
    #[default]
    Declared,
    /// What is declared f32 runs in this type, F16 or BF16, where that gains time and loses little: matrix products,
    /// convolutions and attention, with sums in f32, and what only moves or picks numbers after them. Variables, outputs
    /// and everything else stay f32. A program that learns in F16 needs an optimizer with a
    /// [`LossScale`](crate::optim::LossScale).
    Mixed(DType),
}

/// The name of the pass, which `DUMP=after:mixed_precision` goes by, and the origin of its casts.
pub const MIXED_PRECISION: &str = "mixed_precision";

/// The graph with `program` in mixed precision; other programs as they were.
///
/// # Errors
/// If an op takes no operands of type `half` although it says that it gains by them.
pub fn mixed_precision(graph: &Graph, program: &str, half: DType) -> Result<Graph, Vec<Diagnostic>> {
    let Some(index) = graph.programs.iter().position(|p| &*p.name == program) else { return Ok(graph.clone()) };
    let to = Builder::like(graph);
    for node in graph.nodes.values() {
        to.copy(node, node.operands.clone());
    }
    let needed = graph.needed_by(&graph.programs[index]);
    let mut pass = Pass { graph, to, half, own: HashMap::new(), halves: HashMap::new() };
    for (id, node) in graph.nodes.iter().filter(|(id, _)| needed[*id]) {
        pass.node(id, node);
    }
    let mut programs = graph.programs.clone();
    let mixed = &mut programs[index];
    mixed.outputs.iter_mut().for_each(|(_, v)| *v = pass.own(*v));
    mixed.updates.iter_mut().for_each(|(_, v)| *v = pass.own(*v));
    for check in &mut mixed.checks {
        (check.of, check.status) = (pass.own(check.of), pass.own(check.status));
    }
    let mut made = pass.to.finish()?;
    made.programs = programs;
    Ok(made)
}

/// What stands for the values of the graph in the program that is made.
struct Pass<'a> {
    graph: &'a Graph,
    to: Builder,
    half: DType,
    /// In its own type, where that is another node than before. A value that is made as a half is not here until wanted.
    own: HashMap<Value, Value>,
    /// Values of f32 as halves.
    halves: HashMap<Value, Value>,
}

impl Pass<'_> {
    fn node(&mut self, id: NodeId, node: &Node) {
        if self.is_undone(id, node) {
            return;
        }
        let narrow = match node.op.in_half() {
            InHalf::Loses => 0,
            InHalf::Gains(operands) => usize::from(operands),
            InHalf::Follows if self.follows(node) => node.operands.len(),
            InHalf::Follows => 0,
        };
        let operands: Vec<Value> = node
            .operands
            .iter()
            .enumerate()
            .map(|(k, v)| if k < narrow && self.is_wide(*v) { self.half(*v) } else { self.own(*v) })
            .collect();
        if operands == node.operands {
            return;
        }
        let made =
            self.to.derived(node, node.origin.clone(), || self.to.apply(node.op.clone(), &operands, Site::default()));
        self.to.shard_like(made[0], node);
        for (old, new) in node.values(id).zip(made) {
            let is_half = !new.is_poison() && self.is_wide(old) && self.to.ty(new).dtype == self.half;
            if is_half {
                self.halves.insert(old, new)
            } else {
                self.own.insert(old, new)
            };
        }
    }
    /// Whether this is the user's own cast of what is a half by now: there is nothing left to do.
    fn is_undone(&mut self, id: NodeId, node: &Node) -> bool {
        let made = node.operands.first().and_then(|v| self.halves.get(v)).copied();
        let Some(made) = made.filter(|_| node.op.as_any().is::<Cast>() && node.types[0].dtype == self.half) else {
            return false;
        };
        self.own.insert(id.into(), made);
        true
    }
    /// Whether an op that follows its operands is a half's: one of them was made as one, and what is f32 beside it is a
    /// parameter or a constant that a half can hold.
    fn follows(&self, node: &Node) -> bool {
        let wide = || node.operands.iter().filter(|v| self.is_wide(**v));
        wide().any(|v| self.is_made_half(*v)) && wide().all(|v| self.is_made_half(*v) || self.is_light(*v))
    }
    fn is_wide(&self, value: Value) -> bool {
        self.graph.ty(value).dtype == DType::F32
    }
    /// Whether the value comes as a half, and is f32 only where somebody casts it back.
    fn is_made_half(&self, value: Value) -> bool {
        let from = |v: &Value| self.to.with_graph(|g| g.nodes[v.node].origin.as_deref() != Some(MIXED_PRECISION));
        self.halves.get(&value).is_some_and(from)
    }
    /// Whether nothing is lost that products do not lose too.
    fn is_light(&self, mut value: Value) -> bool {
        loop {
            let node = &self.graph.nodes[value.node];
            if let Some(full) = node.op.as_any().downcast_ref::<Full>() {
                return self.holds(full.value);
            }
            match node.operands[..] {
                [from] if node.op.in_half() == InHalf::Follows => value = from,
                _ => return node.op_as::<ReadVariable>().is_some(),
            }
        }
    }
    /// Whether a half is near `x`: not where it is too large, or among the last few small ones.
    fn holds(&self, x: f64) -> bool {
        let held = round(Number::Float(x), self.half, Exact).f64();
        !x.is_finite() || (held - x).abs() <= x.abs() / 256.0
    }

    /// The value in the type that it was declared with.
    fn own(&mut self, value: Value) -> Value {
        if let Some(known) = self.own.get(&value) {
            return *known;
        }
        let Some(half) = self.halves.get(&value).copied().filter(|_| self.is_made_half(value)) else { return value };
        let wide = self.cast(value, half, DType::F32);
        self.own.insert(value, wide);
        wide
    }
    /// The value as a half.
    fn half(&mut self, value: Value) -> Value {
        if let Some(known) = self.halves.get(&value) {
            return *known;
        }
        let (from, node) = (self.own(value), &self.graph.nodes[value.node]);
        let half = match node.op.as_any().downcast_ref::<Full>() {
            Some(full) => {
                let full = Full { dtype: self.half, ..full.clone() };
                self.derived(node, erase(full), &[])
            }
            None => self.cast(value, from, self.half),
        };
        self.halves.insert(value, half);
        half
    }
    fn cast(&self, value: Value, from: Value, to: DType) -> Value {
        self.derived(&self.graph.nodes[value.node], erase(Cast { to }), &[from])
    }
    fn derived(&self, of: &Node, op: std::sync::Arc<dyn DynOp>, operands: &[Value]) -> Value {
        self.to.derived(of, Some(MIXED_PRECISION.into()), || self.to.apply(op, operands, Site::default())[0])
    }
}

/// What is wrong with asking for `precision`, if anything is.
pub(crate) fn mistake(
    precision: Precision,
    learns: bool,
    scaled: bool,
) -> Option<(&'static str, String, &'static str)> {
    let Precision::Mixed(half) = precision else { return None };
    if !matches!(half, DType::F16 | DType::BF16) {
        let what = format!("mixed precision is of f16 or bf16, not of {half}");
        return Some(("precision.C1", what, "compute in f16 or bf16"));
    }
    let underflows = half == DType::F16 && learns && !scaled;
    underflows.then(|| {
        let what = "gradients in f16 vanish below 6e-8: a program that learns in it needs a loss that is scaled";
        let help = "give the optimizer a dynamic loss scale, or compute in bf16, which needs none";
        ("precision.C2", what.into(), help)
    })
}
