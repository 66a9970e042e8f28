//! Graphs as pictures, for Graphviz, for Mermaid and as a page to look into. What is drawn is worked out once, here, as plain
//! data; the writers only spell it. Layout is theirs to do and depends on order, so the order is that of scopes and ids and the
//! same graph always gives the same text. Only sound graphs can be drawn.

mod dot;
mod html;
mod mermaid;
mod plan;

pub use dot::dot;
pub use html::html;
pub use mermaid::mermaid;
pub use plan::{plan_dot, plan_mermaid, plan_svg};

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::ir::{Graph, Node, NodeId, Program, Value, VarId};
use crate::structural::Input;
use crate::types::TensorType;

/// `graph`, or what `program` needs of it, drawn as files are that end so: `html`, `dot` (or `gv`), `mmd` (or `mermaid`). Nothing
/// for other files. The graph must have passed [`Graph::verify`].
pub fn drawn_as(extension: &str, graph: &Graph, program: Option<&str>) -> Option<String> {
    match extension {
        "html" => Some(html(graph, program)),
        "dot" | "gv" => Some(dot(graph, program)),
        "mmd" | "mermaid" => Some(mermaid(graph, program)),
        _ => None,
    }
}

/// Scopes nest no deeper in a picture; what is deeper keeps the rest of its path in its innermost frame's title.
const MAX_DEPTH: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    Op,
    Input,
    Variable,
    Output,
}

/// A node, variable or output, by the name that edges use.
struct Figure<'g> {
    id: String,
    /// Of what is neither an output nor a variable that nobody reads.
    node: Option<NodeId>,
    shape: Shape,
    label: String,
    scope: Vec<&'g str>,
}

struct Edge {
    from: String,
    to: String,
    label: String,
    /// From this step to the next: an update.
    next_step: bool,
}

/// What either writer is told to write, in order.
enum Item<'a, 'g> {
    /// A frame opens: its number, its name, how many are open around it.
    Open(usize, &'a str, usize),
    /// A frame closes around which so many stay open.
    Close(usize),
    /// A figure with so many frames open.
    Figure(&'a Figure<'g>, usize),
}

struct Drawing<'g> {
    title: String,
    figures: Vec<Figure<'g>>,
    edges: Vec<Edge>,
}

impl<'g> Drawing<'g> {
    /// What `program` needs, or everything. A program that does not exist needs nothing, and the title says so.
    fn new(graph: &'g Graph, program: Option<&str>) -> Self {
        let chosen: Vec<&Program> =
            graph.programs.iter().filter(|p| program.is_none_or(|name| name == &*p.name)).collect();
        let title = match program {
            None => graph.name.to_string(),
            Some(name) if chosen.is_empty() => format!("{}: there is no program {name:?}", graph.name),
            Some(name) => format!("{}: {name}", graph.name),
        };
        let mut drawing = Self { title, figures: Vec::new(), edges: Vec::new() };
        let needed: Option<Vec<_>> = program.map(|_| chosen.iter().map(|p| graph.needed_by(p)).collect());
        let mut reads: BTreeMap<VarId, String> = BTreeMap::new();
        for (id, node) in graph.nodes.iter() {
            if needed.as_ref().is_some_and(|sides| !sides.iter().any(|side| side[id])) {
                continue;
            }
            let to = format!("n{}", id.0);
            if let Some(variable) = graph.variable_read(node) {
                reads.entry(variable).or_insert_with(|| to.clone());
            }
            drawing.node(graph, (id, node), &to);
            for operand in &node.operands {
                drawing.edge(graph, *operand, to.clone(), false);
            }
        }
        for program in &chosen {
            drawing.program(graph, program, &mut reads);
        }
        drawing.figures.sort_by(|a, b| a.scope.cmp(&b.scope)); // Stable: by id within a scope.
        drawing
    }

    fn node(&mut self, graph: &'g Graph, (number, node): (NodeId, &'g Node), id: &str) {
        let op = node.op.schema().name;
        let (shape, mut label) = match (graph.variable_read(node), node.op_as::<Input>()) {
            (Some(variable), _) => (Shape::Variable, graph.state[variable].name.to_string()),
            (_, Some(input)) => (Shape::Input, input.name.to_string()),
            _ => (Shape::Op, op.to_string()),
        };
        if shape == Shape::Op {
            if let Some(name) = &node.name {
                let _ = write!(label, " {name:?}"); // Writing to a string cannot fail.
            }
            for (name, value) in node.op.attrs() {
                let _ = write!(label, "\n{name}: {value}");
            }
        }
        let scope = node.scope.splitn(MAX_DEPTH, '.').filter(|s| !s.is_empty()).collect();
        self.figures.push(Figure { id: id.to_string(), node: Some(number), shape, label, scope });
    }

    fn edge(&mut self, graph: &Graph, value: Value, to: String, next_step: bool) {
        let ty = graph.get_ty(value).map(TensorType::to_string).unwrap_or_default();
        let label = if value.slot == 0 { ty } else { format!(".{} {ty}", value.slot) };
        self.edges.push(Edge { from: format!("n{}", value.node.0), to, label, next_step });
    }

    fn program(&mut self, graph: &'g Graph, program: &Program, variables: &mut BTreeMap<VarId, String>) {
        let number = self.figures.iter().filter(|b| b.shape == Shape::Output).count();
        for (k, (name, value)) in program.outputs.iter().enumerate() {
            let id = format!("out{}", number + k);
            let label = format!("{}\n{name}", program.name);
            self.figures.push(Figure { id: id.clone(), node: None, shape: Shape::Output, label, scope: vec![] });
            self.edge(graph, *value, id, false);
        }
        for (variable, value) in &program.updates {
            let to = variables.entry(*variable).or_insert_with(|| {
                // It is set but never read here, so that no node stands for it yet.
                let id = format!("v{}", variable.0);
                let label = graph.state[*variable].name.to_string();
                self.figures.push(Figure { id: id.clone(), node: None, shape: Shape::Variable, label, scope: vec![] });
                id
            });
            let to = to.clone();
            self.edge(graph, *value, to, true);
        }
    }

    /// Frames and figures in one walk: no recursion, however deep the scopes are.
    fn walk<'a>(&'a self, mut item: impl FnMut(Item<'a, 'g>)) {
        let mut open: &[&str] = &[];
        let mut frames = 0;
        for it in &self.figures {
            let common = open.iter().zip(&it.scope).take_while(|(a, b)| a == b).count();
            for depth in (common..open.len()).rev() {
                item(Item::Close(depth));
            }
            for (depth, name) in it.scope.iter().enumerate().skip(common) {
                item(Item::Open(frames, name, depth));
                frames += 1;
            }
            open = &it.scope;
            item(Item::Figure(it, open.len()));
        }
        for depth in (0..open.len()).rev() {
            item(Item::Close(depth));
        }
    }
}
