//! Plans for Graphviz and for Mermaid: who lays out is somebody else.

use std::fmt::Write as _;

use super::{COLOURS, Drawing};
use crate::draw::{dot::quote, mermaid::escape};
use crate::plan::Plan;

/// `plan` for Graphviz: a cluster per device, a box per scope, an edge with its bytes for what crosses. `seconds` gives what
/// a launch takes, by device and instruction, and 0 where nobody knows.
pub fn plan_dot(plan: &Plan, seconds: &dyn Fn(usize, usize) -> f64) -> String {
    let drawing = Drawing::new(plan, seconds);
    let mut out = String::from("digraph {\n");
    let title = quote(&drawing.title());
    // Writing to a string cannot fail.
    let _ = writeln!(out, "  label={title} labelloc=t fontname=\"sans-serif\"");
    let _ = writeln!(out, "  node [fontname=\"sans-serif\" fontsize=11 shape=box style=\"rounded,filled\"]");
    for (d, part) in plan.devices.iter().enumerate() {
        let (fill, border) = COLOURS[d % COLOURS.len()];
        let _ = writeln!(out, "  subgraph cluster{d} {{\n    label={} color=\"{border}\"", quote(&part.device));
        let mut last: Option<usize> = None;
        for (number, figure) in drawing.of(d) {
            let label = quote(&format!("{}\n{}", figure.name, figure.detail()));
            let _ = writeln!(out, "    b{number} [label={label} fillcolor=\"{fill}\" color=\"{border}\"]");
            if let Some(last) = last {
                let _ = writeln!(out, "    b{last} -> b{number} [color=gray]");
            }
            last = Some(number);
        }
        out.push_str("  }\n");
    }
    for ((from, to), crossing) in &drawing.crossings {
        let label = quote(&crossing.label());
        let _ = writeln!(out, "  b{from} -> b{to} [label={label} style=dashed constraint=false]");
    }
    out.push_str("}\n");
    out
}

/// `plan` for Mermaid, as [`plan_dot`].
pub fn plan_mermaid(plan: &Plan, seconds: &dyn Fn(usize, usize) -> f64) -> String {
    let drawing = Drawing::new(plan, seconds);
    // Writing to a string cannot fail.
    let mut out = format!("---\ntitle: \"{}\"\n---\nflowchart TD\n", escape(&drawing.title()));
    for (d, part) in plan.devices.iter().enumerate() {
        let _ = writeln!(out, "  subgraph d{d} [\"{}\"]", escape(&part.device));
        let numbers: Vec<usize> = drawing.of(d).map(|(n, _)| n).collect();
        for (number, figure) in drawing.of(d) {
            let label = escape(&format!("{}\n{}", figure.name, figure.detail()));
            let _ = writeln!(out, "    b{number}[\"{label}\"]:::c{d}");
        }
        for pair in numbers.windows(2) {
            let _ = writeln!(out, "    b{} --> b{}", pair[0], pair[1]);
        }
        out.push_str("  end\n");
    }
    for ((from, to), crossing) in &drawing.crossings {
        let _ = writeln!(out, "  b{from} -.->|\"{}\"| b{to}", escape(&crossing.label()));
    }
    for d in 0..plan.devices.len() {
        let (fill, border) = COLOURS[d % COLOURS.len()];
        let _ = writeln!(out, "  classDef c{d} fill:{fill},stroke:{border}");
    }
    out
}
