//! Plans as SVG, laid out here: a column per device, boxes in their order from top to bottom, what crosses as a curve from
//! column to column. No more is needed, for a device's order is a line; a general layout would have to find that out.

use std::fmt::Write as _;

use super::{COLOURS, Drawing};
use crate::plan::Plan;

/// Of a box, and between boxes.
const WIDTH: usize = 230;
const HEIGHT: usize = 36;
const GAP: usize = 10;
/// Between columns: room for curves and what is written on them.
const BETWEEN: usize = 170;
const MARGIN: usize = 20;
/// Above the first box: the title, and the device's name.
const HEAD: usize = 70;

/// `plan` as an SVG of its own, readable without any other file. `seconds` as for [`plan_dot`](super::plan_dot).
pub fn plan_svg(plan: &Plan, seconds: &dyn Fn(usize, usize) -> f64) -> String {
    let drawing = Drawing::new(plan, seconds);
    let columns = plan.devices.len();
    let rows = (0..columns).map(|d| drawing.of(d).count()).max().unwrap_or(0);
    let width = 2 * MARGIN + columns * WIDTH + columns.saturating_sub(1) * BETWEEN;
    let height = HEAD + rows * (HEIGHT + GAP) + MARGIN;
    let mut places = vec![(0, 0); drawing.figures.len()];
    for d in 0..columns {
        for (row, (number, _)) in drawing.of(d).enumerate() {
            places[number] = (MARGIN + d * (WIDTH + BETWEEN), HEAD + row * (HEIGHT + GAP));
        }
    }
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">"
    );
    let _ = writeln!(out, "<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>");
    let _ = writeln!(out, "<text x=\"{MARGIN}\" y=\"28\" font-size=\"16\">{}</text>", escape(&drawing.title(), 80));
    for (d, part) in plan.devices.iter().enumerate() {
        let (x, (_, border)) = (MARGIN + d * (WIDTH + BETWEEN), COLOURS[d % COLOURS.len()]);
        let name = escape(&part.device, 24);
        let _ =
            writeln!(out, "<text x=\"{x}\" y=\"{}\" fill=\"{border}\" font-weight=\"bold\">{name}</text>", HEAD - 12);
    }
    for (number, figure) in drawing.figures.iter().enumerate() {
        let ((x, y), (fill, border)) = (places[number], COLOURS[figure.device % COLOURS.len()]);
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\" fill=\"{fill}\" stroke=\"{border}\"/>\
             <text x=\"{}\" y=\"{}\">{}</text><text x=\"{}\" y=\"{}\" font-size=\"10\" fill=\"#4b5563\">{}</text>",
            x + 8,
            y + 15,
            escape(&figure.name, 34),
            x + 8,
            y + 29,
            escape(&figure.detail(), 40)
        );
    }
    for ((from, to), crossing) in &drawing.crossings {
        let ((a, b), (c, d)) = (places[*from], places[*to]);
        let (rightward, border) = (a < c, COLOURS[drawing.figures[*from].device % COLOURS.len()].1);
        // Neither the ends nor what is written at them lie on those of what goes the other way.
        let (x1, x2) = if rightward { (a + WIDTH, c) } else { (a, c + WIDTH) };
        let (y1, y2) = (b + HEIGHT / 2 - 6, d + HEIGHT / 2 + 6);
        let (bend, label_x) = (x1.midpoint(x2), if rightward { x1 + 6 } else { x1 - 6 });
        let anchor = if rightward { "start" } else { "end" };
        let _ = writeln!(
            out,
            "<path d=\"M{x1} {y1} C{bend} {y1} {bend} {y2} {x2} {y2}\" fill=\"none\" stroke=\"{border}\" \
             stroke-dasharray=\"4 3\"/><circle cx=\"{x2}\" cy=\"{y2}\" r=\"3\" fill=\"{border}\"/>\
             <text x=\"{label_x}\" y=\"{}\" font-size=\"9\" fill=\"{border}\" text-anchor=\"{anchor}\">{}</text>",
            y1.saturating_sub(3),
            escape(&crossing.label(), 30)
        );
    }
    out.push_str("</svg>\n");
    out
}

/// Text in which nothing is markup, of so many characters at most.
fn escape(text: &str, most: usize) -> String {
    let cut = text.chars().count() > most;
    let mut out = String::new();
    for c in text.chars().take(if cut { most - 1 } else { most }) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    if cut {
        out.push('…');
    }
    out
}
