//! Graphviz's language. Labels are quoted strings rather than its HTML, which has fewer ways to go wrong.

use std::fmt::Write as _;

use super::{Drawing, Item, Shape};
use crate::ir::Graph;

/// `graph` for Graphviz: what `program` needs, or all of it. Scopes are nested clusters, edges carry types, an update is
/// a dashed edge back to its variable. The graph must have passed [`Graph::verify`].
pub fn dot(graph: &Graph, program: Option<&str>) -> String {
    let drawing = Drawing::new(graph, program);
    let mut out = String::from("digraph {\n");
    let mut line = |depth: usize, text: String| {
        let _ = writeln!(out, "{:1$}{text}", "", 2 + 2 * depth); // Writing to a string cannot fail.
    };
    line(0, format!("label={} labelloc=t fontname=\"sans-serif\"", quote(&drawing.title)));
    line(0, "node [fontname=\"sans-serif\" fontsize=11 shape=box style=rounded]".into());
    line(0, "edge [fontname=\"monospace\" fontsize=9]".into());
    drawing.walk(|item| match item {
        Item::Open(number, name, depth) => {
            line(depth, format!("subgraph cluster{number} {{"));
            line(depth + 1, format!("label={} color=gray", quote(name)));
        }
        Item::Close(depth) => line(depth, "}".into()),
        Item::Figure(it, depth) => {
            let shape = match it.shape {
                Shape::Op => "",
                Shape::Input => " shape=invhouse style=solid",
                Shape::Variable => " shape=cylinder style=solid",
                Shape::Output => " shape=house style=solid",
            };
            line(depth, format!("{} [label={}{shape}]", it.id, quote(&it.label)));
        }
    });
    for edge in &drawing.edges {
        let style = if edge.next_step { " style=dashed constraint=false" } else { "" };
        line(0, format!("{} -> {} [label={}{style}]", edge.from, edge.to, quote(&edge.label)));
    }
    out.push_str("}\n");
    out
}

/// A quoted string in which nothing is special.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            // Entities are undone even inside plain strings.
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
