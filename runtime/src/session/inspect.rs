//! Looking at any value of the graph, whether a program returns it or not: its prefix through the interpreter, with the
//! session's variables as they are. Slow and right by definition; variables and plans are left alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use thalweg_graph::evaluate::{Named, evaluate};
use thalweg_graph::kernel::interpret::{Precision, Values};
use thalweg_graph::lower::LowerError;
use thalweg_graph::passes::{STANDARD, drop_dead_nodes, run_passes};
use thalweg_graph::structural::ReadVariable;
use thalweg_graph::{Array, Bindings, Builder, Graph, NodeId, Program, Summary, Value};

use super::{RunError, Session};
use crate::feed::{self, Fed};

/// Which value to look at.
#[derive(Clone, Copy)]
pub enum At<'a> {
    /// One of a graph that was declared with this builder.
    Declared(&'a Builder, Value),
    /// One that goes by this name: of an output or a tap, of a node with or without its scope, of a variable; or the
    /// number that the graph's text gives it, `%7` or `%7.1`.
    Named(&'a str),
}

impl Session {
    /// The value at some place of the graph, computed by the interpreter from `feeds` and the variables as they are. Only
    /// the inputs that it depends on are needed; others of the graph may be fed. With a program it is computed as that
    /// program does it; without one as one that does not learn does it, so without dropout.
    ///
    /// # Errors
    /// If there is no such value, if feeds do not fit, or if a dimension is left without a value.
    pub fn evaluate_at(
        &mut self,
        at: At<'_>,
        program: Option<&str>,
        feeds: &[(&str, &Array)],
    ) -> Result<Array, RunError> {
        let value = match at {
            At::Declared(builder, value) => self.declared(builder, value)?,
            At::Named(name) => self.named(name)?,
        };
        let updates = program.map(|p| self.program(p)).transpose()?.map(|i| self.graph.programs[i].updates.clone());
        let name: Arc<str> = program.unwrap_or("eval_at").into();
        // The updates say whether the program learns while composites expand; then only the value is wanted.
        let outputs = vec![("value".into(), value)];
        let whole = Program { name: name.clone(), outputs, updates: updates.unwrap_or_default(), checks: vec![] };
        let mut primitive = run_passes(&alone(&self.graph, whole), STANDARD, &mut |_, _| {});
        primitive.programs[0].updates.clear();
        let prefix = drop_dead_nodes(&primitive);

        let needed = feed::inputs_of(&prefix, &prefix.programs[0]);
        let all: Vec<_> = self.programs.iter().flat_map(|p| p.inputs.iter()).cloned().collect();
        let mut inputs = needed;
        for (name, ty) in all {
            // Whatever is fed has to fit, and may be what gives a dimension its value.
            let fed = feeds.iter().any(|(n, _)| *n == &*name);
            if fed && !inputs.iter().any(|(n, _)| *n == name) {
                inputs.push((name, ty));
            }
        }
        let (fed, bindings) = feed::check(&self.graph, &name, &inputs, &|_| false, feeds.into())?;
        let bound = prefix.bind(&bindings).ok_or_else(|| RunError::Bindings(bindings.clone()))?;
        for node in bound.nodes.values() {
            if let Some(ty) = node.types.iter().find(|t| t.shape.fixed().is_none()) {
                let (label, site, ty) = (node.label(), node.site.clone(), ty.to_string());
                return Err(LowerError::Unbound { label, site, ty }.into());
            }
        }
        let value = |((name, _), fed): (&(Arc<str>, _), &Fed)| match fed {
            Fed::Array(array) => Some((name.clone(), Values::from_array(array))),
            // Arrays only were fed.
            Fed::Drawn(..) => None,
        };
        let fed: Named = inputs.iter().zip(&fed).filter_map(value).collect();
        let mut state = Named::new();
        for read in bound.nodes.values().iter().filter_map(|n| n.op_as::<ReadVariable>()) {
            state.insert(read.variable.clone(), Values::from_array(&self.get(&read.variable)?));
        }
        let evaluated = evaluate(&bound, &bound.programs[0], &fed, &state, Precision::Exact)?;
        Ok(evaluated.outputs[0].1.to_array())
    }

    /// A program layer by layer, for these extents, with what its plan takes.
    pub fn summary(&mut self, program: &str, bindings: &Bindings) -> Result<Summary, RunError> {
        let plan = self.plan(program, bindings)?;
        Ok(Summary::of(&self.graph, program, bindings, Some(&plan))?)
    }

    /// The value here that a handle stands for where it was declared.
    fn declared(&self, builder: &Builder, value: Value) -> Result<Value, RunError> {
        let no = |why: &str| Err(RunError::NoTensor(format!("{value}: {why}")));
        if value.is_poison() {
            return no("this tensor stems from a mistake and has no value");
        }
        if self.graph.nodes.get(value.node).is_none() {
            return no("this tensor was declared after the model was compiled, or in another graph");
        }
        // Everything up to it is the same, lines included: then it is the same value, whoever's builder that is.
        let same = builder.with_graph(|g| {
            let upto = ..=value.node.0 as usize;
            let (here, there) = (self.graph.nodes.values().get(upto), g.nodes.values().get(upto));
            let alike = |(a, b): (&thalweg_graph::Node, &thalweg_graph::Node)| a == b && a.site == b.site;
            here.zip(there).is_some_and(|(h, t)| h.iter().zip(t).all(alike))
        });
        if same { Ok(value) } else { no("this tensor belongs to another graph than the model") }
    }

    /// The one value that goes by `name`.
    fn named(&self, name: &str) -> Result<Value, RunError> {
        let graph = &*self.graph;
        if let Some(number) = name.strip_prefix('%') {
            let (node, slot) = number.split_once('.').unwrap_or((number, "0"));
            let value = node.parse().ok().zip(slot.parse().ok()).map(|(n, slot)| Value { node: NodeId(n), slot });
            let missing = || RunError::NoTensor(format!("there is no value {name}; {} nodes", graph.nodes.len()));
            return value.filter(|v| graph.get_ty(*v).is_some()).ok_or_else(missing);
        }
        let mut known: Vec<(String, Value)> = Vec::new();
        for (name, value) in graph.programs.iter().flat_map(|p| &p.outputs) {
            known.push((name.to_string(), *value));
        }
        for (id, node) in graph.nodes.iter() {
            if let Some(own) = &node.name {
                known.extend([(node.path(), id.into()), (own.to_string(), id.into())]);
            }
            known.extend(node.op_as::<ReadVariable>().map(|r| (r.variable.to_string(), id.into())));
        }
        let found: BTreeSet<Value> = known.iter().filter(|(n, _)| n == name).map(|(_, v)| *v).collect();
        let mut found = found.into_iter();
        match (found.next(), found.len()) {
            (Some(value), 0) => Ok(value),
            (None, _) => {
                let names: BTreeSet<&str> = known.iter().map(|(n, _)| n.as_str()).collect();
                let hint = Builder::suggest(name, &names.into_iter().collect::<Vec<_>>());
                Err(RunError::NoTensor(format!("there is no tensor `{name}`; {hint}")))
            }
            (Some(first), more) => {
                let place = |v: Value| format!("{v} `{}` at {}", graph.nodes[v.node].path(), graph.nodes[v.node].site);
                let all: Vec<String> = std::iter::once(first).chain(found).map(place).collect();
                let what = format!("{} tensors are called `{name}`: {}", more + 1, all.join(", "));
                Err(RunError::NoTensor(format!("{what}; say the path, or the number")))
            }
        }
    }
}

/// The graph with one program.
fn alone(graph: &Graph, program: Program) -> Graph {
    drop_dead_nodes(&Graph { programs: vec![program], ..graph.clone() })
}
