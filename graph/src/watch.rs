//! What a declaration watches without changing what it computes: taps, which programs return beside their outputs, and
//! checks, which must hold before a step commits. Noted while a graph is declared and written into its programs when it
//! is finished, since a program may be declared before or after what it watches.

use std::any::Any;
use std::sync::Arc;

use crate::attrs::{AttrError, AttrList, AttrValue};
use crate::builder::Builder;
use crate::diagnostic::Diagnostic;
use crate::ir::{Check, Graph, NodeId, Program, Site, Value};
use crate::kernel::build::{Axes, fold, lit, lit_as, read, select};
use crate::kernel::{BufferType, Kernel, Monoid};
use crate::op::{Accuracy, DynOp, GradientOf, Mode, OpError, Schema};
use crate::structural::{Input, ReadVariable};
use crate::types::{Bindings, DType, TensorType, Types};

/// How finite a tensor is, as one i32 without axes: its largest element by [`Finiteness::of`]'s numbers, where nothing at
/// all counts as finite. Structural, because every layer below the ops has to be able to ask it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finiteness {
    /// Every element is a number.
    Finite,
    /// Some are infinite, none is NaN.
    Infinite,
    /// Some are NaN.
    NaN,
}

impl Finiteness {
    /// What the result of the op says: up to 0 is finite, 1 infinite, 2 NaN.
    pub fn of(status: i32) -> Self {
        match status {
            i32::MIN..=0 => Self::Finite,
            1 => Self::Infinite,
            _ => Self::NaN,
        }
    }
}

/// The op that measures [`Finiteness`].
#[derive(Clone, Debug)]
pub(crate) struct Finite;

impl DynOp for Finite {
    fn schema(&self) -> &'static Schema {
        const SCHEMA: Schema =
            Schema { name: "finiteness", operands: &["x"], results: &["status"], accuracy: Accuracy::Exact };
        &SCHEMA
    }
    fn attrs(&self) -> AttrList {
        vec![]
    }
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let x = &operands[0];
        crate::require!(x.dtype.is_float(), "finiteness.C1", "only floats can be infinite or NaN, got {x}");
        Ok(vec![DType::I32.of(())])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let mut axes = Axes::new();
        let at = axes.fold_over(&operands[0].shape);
        let x = || read(0, at.iter().copied());
        let status = |n: f64| lit_as(n, DType::I32);
        let infinite = select(x().abs().lt(lit(f64::INFINITY)), status(0.0), status(1.0));
        let worst = fold(Monoid::Max, select(x().is_nan(), status(2.0), infinite));
        Some(axes.nest(operands, results, [worst]))
    }
    fn expand(&self, _: &Builder, _: &[Value], _: Mode) -> Option<Vec<Value>> {
        None
    }
    fn gradient(&self, _: &Builder, _: GradientOf<'_>) -> Option<Vec<Option<Value>>> {
        Some(vec![None])
    }
    fn bind(&self, _: &Bindings) -> Option<Arc<dyn DynOp>> {
        Some(Arc::new(Self))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Finite {
    pub(crate) fn make(attrs: &[(String, AttrValue)], _: &[TensorType]) -> Result<Arc<dyn DynOp>, AttrError> {
        match attrs {
            [] => Ok(Arc::new(Self)),
            [(name, _), ..] => Err(AttrError::Unknown { op: "finiteness".into(), name: name.clone(), known: vec![] }),
        }
    }
}

/// Something to return under a name: a value, or the gradients that were found of one.
#[derive(Clone, Debug)]
struct Tap {
    name: Arc<str>,
    site: Site,
    /// Values that a program may compute, one of these or none, and what it then returns for it.
    values: Vec<(Value, Value)>,
    /// The value whose gradients these are, if that is what they are.
    gradient_of: Option<Value>,
}

/// What one graph watches.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    taps: Vec<Tap>,
    checks: Vec<Check>,
}

impl Builder {
    /// Lets every program that computes `value` return it as well, under `name`.
    pub fn tap(&self, value: Value, name: &str, site: Site) {
        let values = if value.is_poison() { vec![] } else { vec![(value, value)] };
        self.add_tap(Tap { name: name.into(), site, values, gradient_of: None }, value);
    }
    /// Lets every program that computes the gradient of a loss with respect to `value` return it as well, under `name`.
    /// Gradients are found when they are taken: call this before.
    pub fn tap_gradient(&self, value: Value, name: &str, site: Site) {
        self.add_tap(Tap { name: name.into(), site, values: vec![], gradient_of: Some(value) }, value);
    }
    fn add_tap(&self, mut tap: Tap, value: Value) {
        tap.site = self.site_or(tap.site);
        let earlier = self.watches(|w| w.taps.iter().find(|t| t.name == tap.name).map(|t| t.site.clone()));
        if let Some(earlier) = earlier {
            let mistake = Diagnostic::new("tap", format!("two taps are called `{}`", tap.name), tap.site)
                .also(earlier, "the first is here")
                .help("programs return values by name: give each its own");
            self.mistake(mistake);
        } else if !value.is_poison() {
            self.watches(|w| w.taps.push(tap));
        }
    }
    /// Values of which gradients are watched; see [`gradient_found`](Self::gradient_found).
    pub fn gradients_watched(&self) -> Vec<Value> {
        self.watches(|w| w.taps.iter().filter_map(|t| t.gradient_of).collect())
    }
    /// `gradient` is what some loss changes by with `value`; programs that compute `by`, from which it is made, return it.
    pub fn gradient_found(&self, value: Value, by: Value, gradient: Value) {
        self.watches(|w| {
            let of = w.taps.iter_mut().filter(|t| t.gradient_of == Some(value));
            of.filter(|_| !gradient.is_poison()).for_each(|t| t.values.push((by, gradient)));
        });
    }
    /// Lets every program that computes `value` fail before it commits where an element is infinite or NaN.
    pub fn check_finite(&self, value: Value, site: Site) {
        let status = self.apply(Arc::new(Finite), &[value], site)[0];
        if !status.is_poison() {
            self.watches(|w| w.checks.push(Check { of: value, status }));
        }
    }
}

impl Watches {
    /// Writes what is watched into the programs of `graph`; gives the mistakes.
    pub(crate) fn attach(&self, graph: &mut Graph) -> Vec<Diagnostic> {
        let mut mistakes = Vec::new();
        let (mut tapped, mut checked) = (vec![false; self.taps.len()], vec![false; self.checks.len()]);
        for index in 0..graph.programs.len() {
            let needed = graph.needed_by(&graph.programs[index]);
            let program = &mut graph.programs[index];
            for (tap, used) in self.taps.iter().zip(&mut tapped) {
                let computed = tap.values.iter().filter(|(by, _)| needed[by.node]);
                let mut values: Vec<Value> = computed.map(|(_, v)| *v).collect();
                values.dedup();
                *used |= !values.is_empty();
                mistakes.extend(tap.attach(program, &values));
            }
            for (check, used) in self.checks.iter().zip(&mut checked) {
                if needed[check.of.node] {
                    *used = true;
                    program.checks.push(check.clone());
                }
            }
        }
        let declared = !graph.programs.is_empty();
        for (tap, _) in self.taps.iter().zip(tapped).filter(|(_, used)| declared && !used) {
            mistakes.push(tap.unused());
        }
        for (check, _) in self.checks.iter().zip(checked).filter(|(_, used)| declared && !used) {
            let site = graph.nodes[check.status.node].site.clone();
            let mistake = Diagnostic::new("check_finite", "nothing is checked: no program computes this value", site);
            mistakes.push(mistake.help("check a value that an output or an update depends on"));
        }
        mistakes
    }
}

impl Tap {
    fn attach(&self, program: &mut Program, values: &[Value]) -> Option<Diagnostic> {
        let (name, site) = (&self.name, self.site.clone());
        let [value] = values else {
            let what = format!("program `{}` computes {} gradients for the tap `{name}`", program.name, values.len());
            let help = "take the gradient you mean with `gradients`, and tap that";
            return (values.len() > 1).then(|| Diagnostic::new("tap", what, site).help(help));
        };
        match program.outputs.iter().find(|(n, _)| n == name) {
            Some((_, same)) if same == value => None,
            Some(_) => {
                let what = format!("program `{}` returns another value as `{name}` already", program.name);
                Some(Diagnostic::new("tap", what, site).help("tap it under a name of its own"))
            }
            None => {
                program.outputs.push((name.clone(), *value));
                None
            }
        }
    }
    fn unused(&self) -> Diagnostic {
        let (name, site) = (&self.name, self.site.clone());
        match self.gradient_of {
            None => Diagnostic::new("tap", format!("`{name}` is tapped, but no program computes it"), site)
                .help("tap a value that an output or an update depends on"),
            Some(_) => Diagnostic::new("tap", format!("no program computes the gradient tapped as `{name}`"), site)
                .help("tap it before the gradient is taken (`minimize`), on the way from a parameter to the loss"),
        }
    }
}

/// The graph with a check of every float value that its first program feeds, reads or computes, in order, beside those it
/// had. Not of constants, which say what somebody wrote, and not of what only checks need.
pub fn check_every_value(graph: &Graph) -> Graph {
    let to = Builder::like(graph);
    let mut made = graph.clone();
    let Some(program) = graph.programs.first() else { return made };
    let needed = graph.needed_by(&Program { checks: vec![], ..program.clone() });
    let mut checks = Vec::new();
    for id in graph.nodes.ids() {
        to.copy(&graph.nodes[id], graph.nodes[id].operands.clone());
    }
    for (id, node) in graph.nodes.iter().filter(|(id, _)| needed[*id]) {
        let given = node.op_as::<Input>().is_some() || node.op_as::<ReadVariable>().is_some();
        if node.operands.is_empty() && !given {
            continue;
        }
        for of in node.values(id).filter(|v| graph.ty(*v).dtype.is_float()) {
            let status = to.derived(node, None, || to.apply(Arc::new(Finite), &[of], Site::default())[0]);
            checks.push(Check { of, status });
        }
    }
    let programs = std::mem::take(&mut made.programs);
    made = to.into_graph();
    made.programs = programs;
    made.programs[0].checks.extend(checks);
    made
}

/// Of `checks`, given in pairs with what their values turned out to be, the first value in the graph's order that nobody
/// wanted: one that holds NaN, or infinities that no operand had. An operand that is an infinite constant (a mask), or
/// whose own infinities stem from one, excuses them.
pub fn first_offence(graph: &Graph, found: &[(Value, Finiteness)]) -> Option<Value> {
    let mut found = found.to_vec();
    found.sort();
    found.dedup();
    let mut wanted: Vec<Value> = Vec::new();
    for (value, finiteness) in found {
        let node = &graph.nodes[value.node];
        let excuses = |v: &Value| wanted.contains(v) || is_infinite_constant(graph, v.node);
        match finiteness {
            Finiteness::Finite => {}
            Finiteness::Infinite if node.operands.iter().any(excuses) => wanted.push(value),
            _ => return Some(value),
        }
    }
    None
}

/// Whether a node is a constant that is infinite.
fn is_infinite_constant(graph: &Graph, id: NodeId) -> bool {
    let node = &graph.nodes[id];
    let types = |types: &[TensorType]| types.iter().map(BufferType::of).collect::<Option<Vec<_>>>();
    let kernel = types(&node.types).filter(|_| node.operands.is_empty()).and_then(|r| node.op.lower(&[], &r));
    kernel.and_then(|k| k.literal()).is_some_and(|l| l.as_f64().is_infinite())
}
