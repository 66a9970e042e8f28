//! Nodes → launches. Two kinds of node yield none: those that only relabel their operand (a reshape) share its place,
//! and constants are written into the kernels that read them.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Home, LowerError, Places, Root, Span, Step};
use crate::id::Side;
use crate::ir::{Graph, Node, NodeId, Program, Value, VarId};
use crate::kernel::{BufferType, Kernel, Literal, LoopNest};
use crate::structural::{Input, ReadVariable, Row};

pub(super) struct Steps {
    pub(super) places: Places,
    pub(super) steps: Vec<Step>,
    pub(super) inputs: Vec<(Arc<str>, Root)>,
    pub(super) outputs: Vec<(Arc<str>, Root, BufferType)>,
    pub(super) updates: Vec<(VarId, Root)>,
}

/// What a node computes, for people.
pub(super) fn label(node: &Node) -> Arc<str> {
    node.label().into()
}

struct Collector<'a> {
    graph: &'a Graph,
    places: Places,
    steps: Vec<Step>,
    roots: HashMap<Value, Root>,
    /// Constants that have no place yet.
    literals: HashMap<Value, (Literal, Kernel)>,
    levels: &'a Side<NodeId, u32>,
}

/// The launches of `program`, whose nodes are due as `levels` say.
pub(super) fn collect(graph: &Graph, program: &Program, levels: &Side<NodeId, u32>) -> Result<Steps, LowerError> {
    let needed = graph.needed_by(program);
    let (roots, literals) = (HashMap::new(), HashMap::new());
    let mut to = Collector { graph, places: Places::default(), steps: vec![], roots, literals, levels };
    let variables: HashMap<&str, VarId> = graph.state.iter().map(|(id, v)| (&*v.name, id)).collect();
    let mut inputs = Vec::new();
    for (id, node) in graph.nodes.iter().filter(|(id, _)| needed[*id]) {
        let results = to.buffer_types(node, &node.types)?;
        if let Some(input) = node.op_as::<Input>() {
            let root = to.places.add(results[0].clone(), Home::Staging);
            to.roots.insert(id.into(), root);
            inputs.push((input.name.clone(), root));
        } else if let Some(read) = node.op_as::<ReadVariable>() {
            let variable =
                *variables.get(&*read.variable).ok_or_else(|| LowerError::NoVariable(read.variable.clone()))?;
            let root = to.places.add(results[0].clone(), Home::State(variable));
            to.roots.insert(id.into(), root);
        } else if let Some(row) = node.op_as::<Row>() {
            to.row(id.into(), node, row, results);
        } else {
            to.primitive(id.into(), node, results)?;
        }
    }
    let mut outputs = Vec::new();
    for (name, value) in &program.outputs {
        let ty = to.buffer_types(&graph.nodes[value.node], std::slice::from_ref(graph.ty(*value)))?.remove(0);
        outputs.push((name.clone(), to.root(*value), ty));
    }
    let updates = program.updates.iter().map(|(id, value)| (*id, to.root(*value))).collect();
    Ok(Steps { places: to.places, steps: to.steps, inputs, outputs, updates })
}

impl Collector<'_> {
    fn buffer_types(&self, node: &Node, types: &[crate::TensorType]) -> Result<Vec<BufferType>, LowerError> {
        let bound = |t| {
            BufferType::of(t).ok_or_else(|| LowerError::Unbound {
                label: label(node).to_string(),
                site: node.site.clone(),
                ty: t.to_string(),
            })
        };
        types.iter().map(bound).collect()
    }

    fn primitive(&mut self, value: Value, node: &Node, results: Vec<BufferType>) -> Result<(), LowerError> {
        let operands = self.buffer_types(node, &self.graph.operand_types(node))?;
        let mut kernel = node
            .op
            .lower(&operands, &results)
            .ok_or_else(|| LowerError::NotPrimitive { label: label(node).to_string(), site: node.site.clone() })?;
        // Before anything is asked of it: rewriting takes a sound kernel for granted, and so does a target.
        let mut faults = kernel.verify();
        let counts = (kernel.operands().len(), kernel.results().len());
        if counts != (operands.len(), results.len()) {
            faults.push(format!("it has {} operands and {} results, other than the node", counts.0, counts.1));
        }
        if !faults.is_empty() {
            return Err(LowerError::Kernel { label: label(node).to_string(), site: node.site.clone(), faults });
        }
        if let Some(literal) = kernel.literal() {
            self.literals.insert(value, (literal, kernel));
            return Ok(());
        }
        let mut reads = node.operands.clone();
        for k in (0..reads.len()).rev() {
            if let Some((literal, _)) = self.literals.get(&reads[k])
                && let Some(without) = kernel.with_literal(k, *literal)
            {
                kernel = without;
                reads.remove(k);
            }
        }
        if kernel.only_relabels() {
            let root = self.root(reads[0]);
            self.roots.insert(value, root);
            return Ok(());
        }
        let reads: Vec<Root> = reads.into_iter().map(|v| self.root(v)).collect();
        let writes: Vec<Root> = results.into_iter().map(|ty| self.places.add(ty, Home::Scratch)).collect();
        for (slot, root) in writes.iter().enumerate() {
            self.roots.insert(Value { node: value.node, slot: slot as u16 }, *root);
        }
        let level = self.levels[value.node];
        self.steps.push(Step { level, kernel, reads, writes, label: label(node), site: node.site.clone() });
        Ok(())
    }

    /// Operands end to end, and what had to be copied for it.
    fn row(&mut self, value: Value, node: &Node, row: &Row, mut results: Vec<BufferType>) {
        let members: Vec<Root> = node.operands.iter().map(|v| self.root(*v)).collect();
        let level = self.levels[value.node];
        let steps = &mut self.steps;
        let mut copy = |places: &mut Places, span: Span| {
            let dtype = places.at(span.root).ty.dtype;
            let ty = BufferType { dtype, shape: vec![span.end - span.start] };
            let (from, to) = (places.add(ty.clone(), Home::Row(vec![span])), places.add(ty.clone(), Home::Scratch));
            let (reads, writes) = (vec![from], vec![to]);
            let kernel = LoopNest::copy(ty.clone(), ty).into();
            steps.push(Step { level, kernel, reads, writes, label: label(node), site: node.site.clone() });
            to
        };
        let root = self.places.row(results.remove(0), &members, (row.start, row.end), &mut copy);
        self.roots.insert(value, root);
    }

    /// The place of a value; a constant that has to have one gets it here.
    fn root(&mut self, value: Value) -> Root {
        if let Some(root) = self.roots.get(&value) {
            return *root;
        }
        let (_, kernel) = self.literals.remove(&value).expect("a needed value has a place or is a constant");
        let root = self.places.add(kernel.results()[0].clone(), Home::Scratch);
        let node = &self.graph.nodes[value.node];
        self.steps.push(Step {
            level: 0,
            kernel,
            reads: vec![],
            writes: vec![root],
            label: label(node),
            site: node.site.clone(),
        });
        self.roots.insert(value, root);
        root
    }
}
