//! A program layer by layer: what each computes, how large its result is, how many parameters it has, and what it costs.
//! Nothing is estimated: costs are those of the kernels that the nodes lower to, one by one, before fusion, and the plan
//! (where there is one) says what is moved after it.
//!
//! A layer is a run of nodes of one scope, in the order of declaration. What a gradient costs is counted where its forward
//! node stands, which it shares scope and line with; what belongs to no layer (the optimizer) comes last.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use serde::Serialize;

use crate::builder::Builder;
use crate::id::Side;
use crate::ir::{Graph, Node, NodeId, Program, Site, VarKind};
use crate::kernel::cost::Cost;
use crate::kernel::{BufferType, Kernel};
use crate::lower::LowerError;
use crate::passes::{STANDARD, run_passes, select_program};
use crate::plan::Plan;
use crate::structural::Input;
use crate::types::{Bindings, TensorType};

/// One program, layer by layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The graph's name.
    pub graph: Arc<str>,
    /// The program's name.
    pub program: Arc<str>,
    /// What the figures are for.
    pub bindings: Bindings,
    /// Names and types of what is fed.
    pub inputs: Vec<(Arc<str>, String)>,
    /// In order of declaration; what belongs to none, last.
    pub layers: Vec<Layer>,
    /// All of them together.
    pub total: Totals,
    /// What the plan takes, if there is one.
    pub plan: Option<PlanTotals>,
}

/// A run of nodes of one scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Layer {
    /// The scope's path; empty at the top.
    pub path: Arc<str>,
    /// The ops, in order: `conv2d + add`.
    pub ops: String,
    /// The type of its last result, dimensions named.
    pub output: String,
    /// Learned numbers that are first read here.
    pub parameters: u64,
    /// Arithmetic operations of the forward pass; a multiply-add is two.
    pub forward_flops: f64,
    /// Those of its gradients.
    pub backward_flops: f64,
    /// Bytes that its kernels read and write, forward and backward, each by itself.
    pub bytes: f64,
}

/// What the layers add up to, and what the variables of the whole graph take.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Learned numbers.
    pub parameters: u64,
    /// Their bytes.
    pub parameter_bytes: u64,
    /// Bytes of optimizers' slots.
    pub slot_bytes: u64,
    /// Bytes of other variables: statistics, counters, caches.
    pub other_bytes: u64,
    /// Arithmetic operations of the forward pass.
    pub forward_flops: f64,
    /// Those of gradients and updates.
    pub backward_flops: f64,
    /// Bytes that kernels read and write, each by itself.
    pub bytes: f64,
}

/// What a plan takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PlanTotals {
    /// Launches of a step.
    pub launches: usize,
    /// Bytes that they read and write, after fusion.
    pub bytes: f64,
    /// The peak of memory within a step, known before it runs.
    pub scratch_bytes: u64,
    /// Where feeds arrive and results leave.
    pub staging_bytes: u64,
}

/// Why there is no summary.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SummaryError {
    /// No program of that name.
    #[error("there is no program `{name}`; {hint}")]
    NoProgram {
        /// What was asked for.
        name: String,
        /// What there is.
        hint: String,
    },
    /// A dimension has no value, or an op is no primitive.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// Extents that make some other extent negative or too large.
    #[error("with {0:?} some extent is negative or too large")]
    Bindings(Bindings),
}

impl Summary {
    /// The summary of the program called `name` for these extents, and of its plan if one is given.
    ///
    /// # Errors
    /// If there is no such program, or if a dimension that it needs has no value.
    pub fn of(graph: &Graph, name: &str, bindings: &Bindings, plan: Option<&Plan>) -> Result<Self, SummaryError> {
        let alone = select_program(graph, name).ok_or_else(|| {
            let names: Vec<&str> = graph.programs.iter().map(|p| &*p.name).collect();
            SummaryError::NoProgram { name: name.into(), hint: Builder::suggest(name, &names) }
        })?;
        let mut rows = Rows::of(&alone);
        let primitive = run_passes(&alone, STANDARD, &mut |_, _| {});
        let bound = primitive.bind(bindings).ok_or_else(|| SummaryError::Bindings(bindings.clone()))?;
        let backward = backward(&bound);
        for (id, node) in bound.nodes.iter() {
            if let Some(cost) = cost(&bound, node)? {
                rows.add(node, backward[id], cost);
            }
        }
        let mut layers = rows.layers;
        layers.extend(rows.rest.filter(|l| !l.ops.is_empty()));
        let sum = |of: fn(&Layer) -> f64| layers.iter().map(of).sum();
        let mut total = Totals {
            forward_flops: sum(|l| l.forward_flops),
            backward_flops: sum(|l| l.backward_flops),
            bytes: sum(|l| l.bytes),
            ..Totals::default()
        };
        for variable in graph.state.values() {
            let size = variable.ty.size_bytes().unwrap_or_default();
            match variable.kind {
                VarKind::Param => {
                    total.parameters += elements(&variable.ty);
                    total.parameter_bytes += size;
                }
                VarKind::Slot => total.slot_bytes += size,
                _ => total.other_bytes += size,
            }
        }
        let program = &alone.programs[0];
        let inputs = alone.inputs_of(program).into_iter().map(|(_, i)| (i.name.clone(), i.ty.to_string())).collect();
        let (graph, program) = (graph.name.clone(), program.name.clone());
        Ok(Self { graph, program, bindings: bindings.clone(), inputs, layers, total, plan: plan.map(PlanTotals::of) })
    }
}

impl PlanTotals {
    fn of(plan: &Plan) -> Self {
        let mut total = Self::default();
        for part in &plan.devices {
            for (_, launch) in part.launches() {
                let cost = plan.kernels[launch.kernel].cost();
                total.launches += 1;
                total.bytes += cost.bytes_read + cost.bytes_written;
            }
            total.scratch_bytes += part.scratch_bytes;
            total.staging_bytes += part.staging_bytes;
        }
        total
    }
}

/// What a node costs; nothing where it runs no kernel.
fn cost(graph: &Graph, node: &Node) -> Result<Option<Cost>, LowerError> {
    let label = || node.label();
    let bound = |types: &[TensorType]| {
        let unbound =
            |t: &TensorType| LowerError::Unbound { label: label(), site: node.site.clone(), ty: t.to_string() };
        types.iter().map(|t| BufferType::of(t).ok_or_else(|| unbound(t))).collect::<Result<Vec<_>, _>>()
    };
    let (operands, results) = (bound(&graph.operand_types(node))?, bound(&node.types)?);
    let runs = |k: &Kernel| k.literal().is_none() && !k.only_relabels();
    Ok(node.op.lower(&operands, &results).filter(runs).map(|k| k.cost()))
}

fn elements(ty: &TensorType) -> u64 {
    ty.shape.fixed().map_or(0, |shape| shape.iter().product())
}

/// Which nodes belong to a gradient or depend on one.
fn backward(graph: &Graph) -> Side<NodeId, bool> {
    let mut backward = Side::filled(graph.nodes.len(), false);
    for (id, node) in graph.nodes.iter() {
        let gradient = node.origin.as_deref().is_some_and(|o| o.starts_with("grad."));
        backward[id] = gradient || node.operands.iter().any(|v| backward[v.node]);
    }
    backward
}

/// Layers being filled.
struct Rows {
    layers: Vec<Layer>,
    /// Updates, and whatever else belongs to no layer.
    rest: Option<Layer>,
    /// Which layer a scope and a line belong to.
    places: HashMap<(Arc<str>, Site), usize>,
}

impl Rows {
    /// The layers of a graph of one program: those of its forward pass.
    fn of(graph: &Graph) -> Self {
        let backward = backward(graph);
        let program = &graph.programs[0];
        let mut forward = Program { updates: vec![], checks: vec![], ..program.clone() };
        forward.outputs.retain(|(_, v)| !backward[v.node]);
        let needed = graph.needed_by(&forward);
        let is_forward = |id| if forward.outputs.is_empty() { !backward[id] } else { needed[id] };
        let mut rows = Self { layers: vec![], rest: None, places: HashMap::new() };
        let mut ops: Vec<&str> = vec![];
        let mut open: Option<Arc<str>> = None;
        for (_, node) in graph.nodes.iter().filter(|(id, _)| is_forward(*id)) {
            let variable = graph.variable_read(node).map(|id| &graph.state[id]);
            let learned = variable.is_none_or(|v| v.kind == VarKind::Param);
            if node.op_as::<Input>().is_some() || !learned || (variable.is_none() && node.operands.is_empty()) {
                continue;
            }
            if open.as_ref() != Some(&node.scope) {
                rows.close(&mut ops);
                rows.layers.push(Layer { path: node.scope.clone(), ..Layer::default() });
                open = Some(node.scope.clone());
            }
            let index = rows.layers.len() - 1;
            rows.places.entry((node.scope.clone(), node.site.clone())).or_insert(index);
            let layer = &mut rows.layers[index];
            layer.parameters += variable.map_or(0, |v| elements(&v.ty));
            layer.output = node.types.first().map_or(String::new(), TensorType::to_string);
            if variable.is_none() {
                ops.push(node.op.schema().name);
            }
        }
        rows.close(&mut ops);
        rows
    }
    fn close(&mut self, ops: &mut Vec<&str>) {
        if let Some(layer) = self.layers.last_mut() {
            layer.ops = counted(ops);
        }
        ops.clear();
    }
    fn add(&mut self, node: &Node, backward: bool, cost: Cost) {
        let layer = match self.places.get(&(node.scope.clone(), node.site.clone())) {
            Some(index) => &mut self.layers[*index],
            None => {
                let rest = self.rest.get_or_insert_with(|| Layer { path: "(updates)".into(), ..Layer::default() });
                let name = node.op.schema().name;
                if !rest.ops.split(" + ").any(|o| o == name) {
                    rest.ops = if rest.ops.is_empty() { name.into() } else { format!("{} + {name}", rest.ops) };
                }
                rest
            }
        };
        let forward = !backward && &*layer.path != "(updates)";
        *(if forward { &mut layer.forward_flops } else { &mut layer.backward_flops }) += cost.flops;
        layer.bytes += cost.bytes_read + cost.bytes_written;
    }
}

/// `conv2d + add`, `relu ×3`.
fn counted(ops: &[&str]) -> String {
    let mut runs: Vec<(&str, usize)> = vec![];
    for op in ops {
        match runs.last_mut() {
            Some((last, n)) if last == op => *n += 1,
            _ => runs.push((op, 1)),
        }
    }
    let text = |(op, n): &(&str, usize)| if *n == 1 { op.to_string() } else { format!("{op} ×{n}") };
    runs.iter().map(text).collect::<Vec<_>>().join(" + ")
}

/// The number to three digits, with a space and a unit's prefix: `61.7 k`.
fn short(x: f64) -> String {
    let scale = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")].into_iter().find(|(at, _)| x >= *at);
    let Some((at, prefix)) = scale else { return format!("{x:.0} ") };
    let digits = [99.95, 9.995].into_iter().filter(|bound| x / at < *bound).count();
    format!("{:.digits$} {prefix}", x / at)
}

/// The same, in a column of its own.
fn figure(x: f64) -> String {
    short(x).trim_end().to_string()
}

/// A number in groups of three digits: `11,173,962`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let dims: BTreeMap<_, _> = self.bindings.iter().collect();
        let dims: Vec<String> = dims.iter().map(|(name, n)| format!("{name} = {n}")).collect();
        let at = if dims.is_empty() { String::new() } else { format!(", {}", dims.join(", ")) };
        writeln!(f, "{}, program `{}`{at}", self.graph, self.program)?;
        for (name, ty) in &self.inputs {
            writeln!(f, "input `{name}` {ty}")?;
        }
        let head = ["layer", "ops", "output", "parameters", "forward", "backward", "bytes"].map(String::from);
        let row = |l: &Layer| {
            let path = if l.path.is_empty() { "(top)".to_string() } else { l.path.to_string() };
            let [forward, backward, bytes] = [l.forward_flops, l.backward_flops, l.bytes].map(figure);
            [path, l.ops.clone(), l.output.clone(), grouped(l.parameters), forward, backward, bytes]
        };
        let total = &self.total;
        let [forward, backward, bytes] = [total.forward_flops, total.backward_flops, total.bytes].map(figure);
        let last = ["total".into(), String::new(), String::new(), grouped(total.parameters), forward, backward, bytes];
        let rows: Vec<_> = [head].into_iter().chain(self.layers.iter().map(row)).chain([last]).collect();
        let width = |k: usize| rows.iter().map(|r| r[k].chars().count()).max().unwrap_or(0);
        let widths: [usize; 7] = std::array::from_fn(width);
        for row in &rows {
            let mut line = String::new();
            for (k, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[k] - cell.chars().count());
                // Words to the left, numbers to the right.
                line += &if k < 3 { format!("{cell}{pad}  ") } else { format!("{pad}{cell}  ") };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        let kept = [total.parameter_bytes, total.slot_bytes, total.other_bytes].map(|b| short(b as f64));
        writeln!(f, "state: parameters {}B, optimizer {}B, other {}B", kept[0], kept[1], kept[2])?;
        if let Some(plan) = &self.plan {
            let (moved, scratch) = (short(plan.bytes), short(plan.scratch_bytes as f64));
            let staging = short(plan.staging_bytes as f64);
            writeln!(f, "plan: {} launches move {moved}B; peak scratch {scratch}B, staging {staging}B", plan.launches)?;
        }
        Ok(())
    }
}
