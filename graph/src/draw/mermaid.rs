//! Mermaid's flowcharts, which render where Markdown does. It has no escape character: what could mean something inside
//! a quoted label is written as a numbered entity.

use std::fmt::Write as _;

use super::{Drawing, Item, Shape};
use crate::ir::Graph;

/// `graph` for Mermaid: what `program` needs, or all of it. Scopes are nested subgraphs, edges carry types, an update is
/// a dotted edge back to its variable. The graph must have passed [`Graph::verify`].
pub fn mermaid(graph: &Graph, program: Option<&str>) -> String {
    let drawing = Drawing::new(graph, program);
    let mut out = format!("---\ntitle: \"{}\"\n---\nflowchart TD\n", escape(&drawing.title));
    let mut line = |depth: usize, text: String| {
        let _ = writeln!(out, "{:1$}{text}", "", 2 + 2 * depth); // Writing to a string cannot fail.
    };
    drawing.walk(|item| match item {
        Item::Open(number, name, depth) => line(depth, format!("subgraph s{number} [\"{}\"]", escape(name))),
        Item::Close(depth) => line(depth, "end".into()),
        Item::Figure(it, depth) => {
            let (open, close) = match it.shape {
                Shape::Op => ("[", "]"),
                Shape::Input => ("[/", "/]"),
                Shape::Variable => ("[(", ")]"),
                Shape::Output => ("([", "])"),
            };
            line(depth, format!("{}{open}\"{}\"{close}", it.id, escape(&it.label)));
        }
    });
    for edge in &drawing.edges {
        let arrow = if edge.next_step { "-.->" } else { "-->" };
        let label = if edge.label.is_empty() { String::new() } else { format!("|\"{}\"|", escape(&edge.label)) };
        line(0, format!("{} {arrow}{label} {}", edge.from, edge.to));
    }
    out
}

/// The inside of a quoted label in which nothing is special.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\n' => out.push_str("<br/>"),
            '"' | '#' | '&' | '<' | '>' | '`' | '\\' | ';' => {
                let _ = write!(out, "#{};", u32::from(c)); // Writing to a string cannot fail.
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
