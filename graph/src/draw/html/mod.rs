//! A graph as one HTML page that needs no other file and no network, to be looked into: scopes are closed boxes that open in
//! place, gradients stand as a mirror beside what they are of, layers that are alike are one until somebody opens them. Layout
//! is done in the reader's browser, group by group, by dagre, which is part of the page: a layout of everything at once takes
//! minutes where a network is deep, and nobody could read it.

mod lanes;

use std::collections::HashSet;
use std::fmt::Write as _;

use serde::Serialize;

use super::{Drawing, Shape};
use crate::ir::{Graph, NodeId, VarKind};
use lanes::{Lane, Lanes};

/// What the page knows; `tree.js` and `viewer.js` read it.
#[derive(Serialize)]
struct Page<'g> {
    title: &'g str,
    nodes: Vec<Item<'g>>,
    edges: Vec<Line<'g>>,
}

#[derive(Serialize)]
struct Item<'g> {
    id: &'g str,
    lane: Lane,
    kind: &'static str,
    /// What is written on it.
    label: String,
    op: &'g str,
    name: Option<&'g str>,
    scope: Vec<&'g str>,
    types: Vec<String>,
    attrs: Vec<(String, String)>,
    origin: Option<&'g str>,
    pin: Option<String>,
    sharding: Option<String>,
    /// Learned numbers that are read here.
    parameters: u64,
    /// The user's line.
    site: String,
    /// Programs that need it.
    programs: Vec<&'g str>,
}

#[derive(Serialize)]
struct Line<'g> {
    from: &'g str,
    to: &'g str,
    label: &'g str,
    /// From this step to the next.
    next: bool,
}

/// `graph` as an HTML page: what `program` needs, or all of it. The graph must have passed [`Graph::verify`].
pub fn html(graph: &Graph, program: Option<&str>) -> String {
    let drawing = Drawing::new(graph, program);
    let lanes = Lanes::of(graph);
    let data = serde_json::to_string(&page(graph, &drawing, &lanes)).expect("plain data is written as JSON");
    // Whatever a name says, it ends no element.
    let data = data.replace('<', "\\u003c");
    let title = escape(&drawing.title);
    // Scripts of the page itself run, and no other: whoever writes another one into a name cannot know this.
    let nonce = &blake3::hash(data.as_bytes()).to_string()[..32];
    let dagre = format!("/*! dagre 3.1.3\n{}*/\n{}", include_str!("dagre.LICENSE"), include_str!("dagre.min.js"));
    let script = [&dagre, include_str!("tree.js"), include_str!("viewer.js")].join("\n");
    let mut out = String::new();
    let mut rest = include_str!("page.html");
    while let Some((before, (name, after))) =
        rest.split_once('{').and_then(|(before, more)| Some((before, more.split_once('}')?)))
    {
        let value = match name {
            "title" => &title,
            "nonce" => nonce,
            "style" => include_str!("viewer.css"),
            "graph" => &data,
            "script" => &script,
            _ => unreachable!("the page has no such place"),
        };
        let _ = write!(out, "{before}{value}"); // Writing to a string cannot fail.
        rest = after;
    }
    out + rest
}

fn page<'g>(graph: &'g Graph, drawing: &'g Drawing<'g>, lanes: &'g Lanes) -> Page<'g> {
    let needed: Vec<_> = graph.programs.iter().map(|p| (&*p.name, graph.needed_by(p))).collect();
    let item = |figure: &'g super::Figure<'g>| {
        let (kind, lane) = match figure.shape {
            Shape::Op => ("op", None),
            Shape::Input => ("input", None),
            Shape::Variable => ("variable", None),
            Shape::Output => ("output", Some(Lane::Forward)),
        };
        let label = figure.label.lines().next().unwrap_or_default();
        let mut item = Item {
            id: &figure.id,
            lane: lane.unwrap_or(Lane::Update),
            kind,
            label: label.into(),
            op: kind,
            name: None,
            scope: figure.scope.clone(),
            types: vec![],
            attrs: vec![],
            origin: None,
            pin: None,
            sharding: None,
            parameters: 0,
            site: String::new(),
            programs: vec![],
        };
        if figure.shape == Shape::Output {
            item.label = figure.label.replace('\n', ": ");
        }
        if let Some(id) = figure.node {
            describe(&mut item, graph, lanes, id);
            item.programs = needed.iter().filter(|(_, of)| of[id]).map(|(name, _)| *name).collect();
        }
        item
    };
    // What no program needs was declared and is never computed: it would stand in the way of what is.
    let wanted = |figure: &&super::Figure<'g>| {
        figure.node.is_none_or(|id| needed.is_empty() || needed.iter().any(|(_, of)| of[id]))
    };
    let nodes: Vec<Item<'g>> = drawing.figures.iter().filter(wanted).map(item).collect();
    let shown: HashSet<&str> = nodes.iter().map(|n| n.id).collect();
    let line =
        |edge: &'g super::Edge| Line { from: &edge.from, to: &edge.to, label: &edge.label, next: edge.next_step };
    let joins = |edge: &&super::Edge| shown.contains(&*edge.from) && shown.contains(&*edge.to);
    let edges = drawing.edges.iter().filter(joins).map(line).collect();
    Page { title: &drawing.title, nodes, edges }
}

fn describe<'g>(item: &mut Item<'g>, graph: &'g Graph, lanes: &'g Lanes, id: NodeId) {
    let node = &graph.nodes[id];
    item.lane = lanes.of[id];
    item.op = node.op.schema().name;
    item.name = node.name.as_deref();
    if item.kind == "op" {
        item.label = item.op.into();
        item.attrs = node.op.attrs().into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    }
    if let Some(parameter) = lanes.parameter.get(&id) {
        item.scope = parameter.split('.').collect();
    }
    let path = item.scope.join(".");
    if let Some(variable) = graph.variable_read(node).map(|variable| &graph.state[variable]) {
        let inside = variable.name.strip_prefix(&path).and_then(|rest| rest.strip_prefix('.'));
        item.label = inside.unwrap_or(&variable.name).into();
        if variable.kind == VarKind::Param {
            item.parameters = variable.ty.shape.fixed().map_or(0, |extents| extents.iter().product());
        }
    }
    item.types = node.types.iter().map(ToString::to_string).collect();
    item.origin = node.origin.as_deref();
    item.pin = node.pin.as_ref().map(ToString::to_string);
    item.sharding = node.sharding.as_ref().map(|axes| {
        let axes: Vec<&str> = axes.iter().map(|axis| axis.as_deref().unwrap_or("_")).collect();
        format!("[{}]", axes.join(", "))
    });
    item.site = if node.site.file.is_empty() { String::new() } else { node.site.to_string() };
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
