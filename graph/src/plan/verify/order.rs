//! Who waits for whom: the plan as a marked graph. Nodes are the instructions of all devices, and one more where all
//! bodies have ended; an edge says that one comes before the other, and carries a token where it leads into the next step:
//!
//! * program order, and from the last instruction of a device to its first, with a token;
//! * post to wait, post to `sent`, and grant to post, with a token if the grant stands behind its wait;
//! * the end of every body to every tail.
//!
//! Such a graph is live, over any number of overlapping steps, if and only if its token-free part has no cycle (Commoner
//! 1971). It is bounded, for every channel has the edge of its grant. Edges with a token are counted and not drawn: a
//! cycle through one goes on.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Write;

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use super::channels::Between;
use super::fault::{FaultKind, Faults, Place};
use crate::ir::Site;
use crate::plan::{ChannelId, Instruction, Plan};

/// More circles than these are not told of.
const MOST_CYCLES: usize = 5;
/// The shortest circle is looked for from this many instructions.
const MOST_STARTS: usize = 64;

/// One order in which all that happens in a step can happen.
pub(super) struct Order {
    /// Numbers of nodes: instructions, device after device, then the end of all bodies.
    pub(super) nodes: Vec<u32>,
    /// How many edges there are, and how many of them lead into the next step.
    pub(super) edges: u64,
    pub(super) tokens: u64,
    pub(super) channels: u64,
}

struct Graph<'a> {
    plan: &'a Plan,
    /// The number of each device's first instruction.
    first: Vec<usize>,
    /// Edges without a token; those of program order say so.
    before: DiGraph<(), bool, u32>,
}

/// Looks for an order of everything; faults are circles.
pub(super) fn order(plan: &Plan, between: &BTreeMap<ChannelId, Between>, faults: &mut Faults<'_>) -> Option<Order> {
    let mut first = Vec::with_capacity(plan.devices.len());
    let (mut count, mut tokens) = (0usize, 0u64);
    for device in &plan.devices {
        first.push(count);
        count += device.instructions.len();
        tokens += u64::from(!device.instructions.is_empty());
    }
    if u32::try_from(count).is_err() {
        faults.add(FaultKind::Missing, vec![], format!("{count} instructions are more than can be numbered"));
        return None;
    }
    let mut graph = Graph { plan, first, before: DiGraph::with_capacity(count + 1, count + 4 * between.len()) };
    for _ in 0..=count {
        graph.before.add_node(());
    }
    let bodies_over = NodeIndex::new(count);
    for (device, part) in (0u16..).zip(&plan.devices) {
        let node = |instruction| graph.node(Place { device, instruction });
        let nodes: Vec<_> = (0..part.instructions.len()).map(node).collect();
        for pair in nodes.windows(2) {
            graph.before.add_edge(pair[0], pair[1], true);
        }
        let commit =
            part.tail_start().checked_sub(1).filter(|at| part.instructions.get(*at) == Some(&Instruction::Commit));
        let body = commit.unwrap_or(nodes.len());
        if let Some(last) = body.checked_sub(1) {
            graph.before.add_edge(nodes[last], bodies_over, false);
        }
        if let Some(commit) = commit {
            graph.before.add_edge(bodies_over, nodes[commit], false);
        }
    }
    for channel in between.values() {
        let Between { post, sent, wait, grant, .. } = channel;
        let [post, sent, wait, grant] = [post, sent, wait, grant].map(|place| graph.node(*place));
        graph.before.add_edge(post, wait, false);
        graph.before.add_edge(post, sent, false);
        if channel.granted_ahead() {
            tokens += 1;
        } else {
            graph.before.add_edge(grant, post, false);
        }
    }
    let mut nodes = Vec::with_capacity(count + 1);
    let mut cycles = 0;
    for together in kosaraju_scc(&graph.before).iter().rev() {
        nodes.extend(together.iter().map(|n| n.index() as u32));
        if together.len() > 1 {
            cycles += 1;
            if cycles <= MOST_CYCLES {
                graph.tell(together, faults);
            }
        }
    }
    let edges = graph.before.edge_count() as u64 + tokens;
    (cycles == 0).then_some(Order { nodes, edges, tokens, channels: plan.channels.len() as u64 })
}

impl Graph<'_> {
    fn node(&self, place: Place) -> NodeIndex {
        NodeIndex::new(self.first[usize::from(place.device)] + place.instruction)
    }
    /// The instruction of a node; `None` for the end of all bodies.
    fn place(&self, node: NodeIndex) -> Option<Place> {
        let device = self.first.partition_point(|first| *first <= node.index()).checked_sub(1)?;
        let instruction = node.index() - self.first[device];
        let there = instruction < self.plan.devices[device].instructions.len();
        there.then_some(Place { device: device as u16, instruction })
    }

    /// A fault that names a shortest circle among `together`, which all come before each other.
    fn tell(&self, together: &[NodeIndex], faults: &mut Faults<'_>) {
        let inside: HashSet<NodeIndex> = together.iter().copied().collect();
        let crossed = |n: &&NodeIndex| self.before.edges(**n).any(|e| !e.weight() && inside.contains(&e.target()));
        let starts = together.iter().filter(crossed).take(MOST_STARTS);
        let Some(circle) = starts.filter_map(|n| self.circle(*n, &inside)).min_by_key(Vec::len) else { return };
        let places: Vec<Place> = circle.iter().filter_map(|n| self.place(*n)).collect();
        let message = self.describe(&places);
        faults.add(FaultKind::Hang, places, message);
    }

    /// A shortest way from `start` back to it: it begins behind a step to another device, at the node stepped to.
    fn circle(&self, start: NodeIndex, inside: &HashSet<NodeIndex>) -> Option<Vec<NodeIndex>> {
        let mut from: HashMap<NodeIndex, NodeIndex> = HashMap::new();
        let mut open: VecDeque<NodeIndex> = [start].into();
        while let Some(node) = open.pop_front() {
            for next in self.before.edges(node).map(|e| e.target()).filter(|n| inside.contains(n)) {
                if next == start {
                    let mut circle = vec![node];
                    while let Some(before) = from.get(&circle[circle.len() - 1]) {
                        circle.push(*before);
                    }
                    circle.reverse();
                    return Some(circle);
                }
                if next != start && !from.contains_key(&next) {
                    from.insert(next, node);
                    open.push_back(next);
                }
            }
        }
        None
    }

    /// Runs of one device's program, joined by what crosses between devices.
    fn describe(&self, circle: &[Place]) -> String {
        let follows = |a: &Place, b: &Place| a.device == b.device && a.instruction + 1 == b.instruction;
        // Begin where a run begins.
        let turn = (0..circle.len()).find(|i| !follows(&circle[(i + circle.len() - 1) % circle.len()], &circle[*i]));
        let mut circle = circle.to_vec();
        circle.rotate_left(turn.unwrap_or(0));
        let mut text = String::from("nobody can go on: ");
        for (i, run) in circle.chunk_by(follows).enumerate() {
            let part = &self.plan.devices[usize::from(run[0].device)];
            let instruction = |place: &Place| &part.instructions[place.instruction];
            let (first, last) = (&run[0], &run[run.len() - 1]);
            let joined = if i > 0 { ", which has to come before " } else { "" };
            let _ = write!(text, "{joined}{} {}: `{}`", part.device, first.instruction, instruction(first));
            if run.len() > 1 {
                let _ = write!(text, ", which stands before {}: `{}`", last.instruction, instruction(last));
            }
            let launches = run.iter().filter_map(|place| match instruction(place) {
                Instruction::Launch(launch) => Some(launch),
                _ => None,
            });
            for (n, launch) in launches.take(2).enumerate() {
                let _ = write!(text, "{} `{}`", if n == 0 { " behind" } else { "," }, launch.label);
                if launch.site != Site::default() {
                    let _ = write!(text, " from {}", launch.site);
                }
            }
        }
        text.push_str(", which has to come before the first");
        text
    }
}
