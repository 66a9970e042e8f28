//! Which launches move behind `commit`. An update whose kernel may write in place over its variable runs in the tail,
//! directly on state; any other is computed in the body and copied. Neighbouring updates by the same kernel become one
//! launch over the flat segment, and their gradients are made to lie end to end for it.

use std::collections::{HashMap, HashSet};

use petgraph::algo::toposort;
use petgraph::graph::DiGraph;

use super::{Action, Home, LaunchLimits, Places, Root, StateLayout, Step};
use crate::ir::VarId;
use crate::kernel::{BufferType, Kernel};

type Outputs = [(std::sync::Arc<str>, Root, BufferType)];

/// Splits the steps into body and tail.
pub(super) fn split(
    layout: &StateLayout,
    mut places: Places,
    steps: Vec<Step>,
    outputs: &Outputs,
    updates: &[(VarId, Root)],
    limits: LaunchLimits,
) -> (Places, Vec<Action>, Vec<Action>) {
    let mut uses: HashMap<Root, usize> = HashMap::new();
    let read_roots = steps.iter().flat_map(|s| &s.reads);
    for root in read_roots.chain(outputs.iter().map(|(_, r, _)| r)).chain(updates.iter().map(|(_, r)| r)) {
        *uses.entry(*root).or_default() += 1;
    }
    let updates_of: HashMap<Root, VarId> = updates.iter().map(|(v, r)| (*r, *v)).collect();
    let in_place = |step: &Step, places: &Places| {
        step.writes.iter().enumerate().all(|(w, root)| {
            let Some(variable) = updates_of.get(root).filter(|_| uses[root] == 1) else { return false };
            let mut own = step.reads.iter().enumerate().filter(|(_, r)| places.variable(**r) == Some(*variable));
            own.all(|(r, _)| step.kernel.may_write_in_place(w, r))
        }) && !step.writes.is_empty()
    };

    let mut body = Vec::new();
    let mut tail = Vec::new();
    let mut done: HashSet<VarId> = HashSet::new();
    for step in steps {
        if in_place(&step, &places) {
            let mut step = step;
            for write in &mut step.writes {
                let variable = updates_of[write];
                done.insert(variable);
                *write = places.add(places.at(*write).ty.clone(), Home::State(variable));
            }
            tail.push(Action::Launch(step));
        } else {
            body.push(Action::Launch(step));
        }
    }
    for (variable, root) in updates {
        if !done.contains(variable) && places.variable(*root) != Some(*variable) {
            let to = places.add(layout.slots[*variable].ty.clone(), Home::State(*variable));
            tail.push(Action::Copy(*root, to));
        }
    }
    let tail = order(tail, &mut body, &mut places, layout);
    let tail = merge(tail, &mut places, layout, outputs, &body, limits);
    (places, body, tail)
}

/// Orders the tail so that every read of an old value precedes its update. What stands in a circle (a swap) is computed
/// in the body and copied.
fn order(mut tail: Vec<Action>, body: &mut Vec<Action>, places: &mut Places, layout: &StateLayout) -> Vec<Action> {
    loop {
        let mut before: DiGraph<usize, ()> = DiGraph::new();
        let nodes: Vec<_> = (0..tail.len()).map(|i| before.add_node(i)).collect();
        let mut writer: HashMap<VarId, usize> = HashMap::new();
        for (i, action) in tail.iter().enumerate() {
            writer.extend(action.writes().iter().filter_map(|r| Some((places.variable(*r)?, i))));
        }
        for (i, action) in tail.iter().enumerate() {
            for variable in action.reads().iter().filter_map(|r| places.variable(*r)) {
                if let Some(w) = writer.get(&variable).filter(|w| **w != i) {
                    before.update_edge(nodes[i], nodes[*w], ());
                }
            }
        }
        match toposort(&before, None) {
            Ok(sorted) => {
                // Among the free orders take that of the segments, so that neighbours in memory are neighbours here.
                let mut rank: Vec<usize> = sorted.iter().map(|n| before[*n]).collect();
                let depth = depths(&before, &sorted);
                rank.sort_by_key(|i| (depth[*i], first_place(&tail[*i], places, layout)));
                let mut slots: Vec<Option<Action>> = tail.into_iter().map(Some).collect();
                return rank.into_iter().filter_map(|i| slots[i].take()).collect();
            }
            Err(cycle) => {
                let action = tail.remove(before[cycle.node_id()]);
                let mut copies = Vec::new();
                let mut scratch = |places: &mut Places, to: Root| {
                    let variable = places.variable(to).expect("a tail writes variables");
                    let from = places.add(layout.slots[variable].ty.clone(), Home::Scratch);
                    copies.push(Action::Copy(from, to));
                    from
                };
                body.push(match action {
                    Action::Copy(from, to) => Action::Copy(from, scratch(places, to)),
                    Action::Launch(mut step) => {
                        step.writes = step.writes.iter().map(|to| scratch(places, *to)).collect();
                        Action::Launch(step)
                    }
                });
                tail.extend(copies);
            }
        }
    }
}

/// The longest way to each action through the order's edges.
fn depths(before: &DiGraph<usize, ()>, sorted: &[petgraph::graph::NodeIndex]) -> Vec<usize> {
    let mut depth = vec![0; sorted.len()];
    for node in sorted {
        for next in before.neighbors(*node) {
            depth[before[next]] = depth[before[next]].max(depth[before[*node]] + 1);
        }
    }
    depth
}

/// Where an action writes first. Empty variables share their first byte with the next one: the id tells which is first.
fn first_place(action: &Action, places: &Places, layout: &StateLayout) -> Option<(u64, VarId)> {
    let variables = action.writes().iter().filter_map(|r| places.variable(*r));
    variables.map(|v| (layout.slots[v].offset, v)).min()
}

/// One operand or result of an update that may join others.
#[derive(PartialEq, Eq, Clone, Debug)]
enum Lane {
    /// The same one-element tensor for all.
    Shared(Root),
    State(VarId),
    Scratch(Root),
}

/// A launch as a candidate for joining: its kernel over one row, and its lanes.
struct Candidate {
    kernel: Kernel,
    lanes: Vec<Lane>,
    len: u64,
}

fn candidate(step: &Step, places: &Places, mergeable: &HashSet<Root>) -> Option<Candidate> {
    let n = step.kernel.results().first()?.checked_len()?;
    let flat = step.kernel.flattened(n)?;
    let lane = |root: &Root, ty: &BufferType| match &places.at(*root).home {
        _ if ty.len() as u64 != n => Some(Lane::Shared(*root)),
        Home::State(v) => Some(Lane::State(*v)),
        Home::Scratch | Home::Row(_) if mergeable.contains(root) => Some(Lane::Scratch(*root)),
        _ => None,
    };
    let reads = step.reads.iter().zip(flat.operands()).map(|(r, t)| lane(r, t));
    let writes = step.writes.iter().zip(flat.results()).map(|(r, t)| lane(r, t));
    let lanes = reads.chain(writes).collect::<Option<Vec<_>>>()?;
    Some(Candidate { kernel: step.kernel.flattened(2)?, lanes, len: n })
}

impl Candidate {
    /// Whether `next` continues this one on every lane.
    fn precedes(&self, next: &Candidate, layout: &StateLayout, places: &Places) -> bool {
        let continues = |(a, b): (&Lane, &Lane)| match (a, b) {
            (Lane::Shared(a), Lane::Shared(b)) => a == b,
            (Lane::State(a), Lane::State(b)) => {
                layout.slots[*a].offset + layout.slots[*a].ty.size_bytes() == layout.slots[*b].offset
            }
            (Lane::Scratch(a), Lane::Scratch(b)) => a != b && places.can_follow(*a, *b),
            _ => false,
        };
        self.kernel == next.kernel && self.lanes.iter().zip(&next.lanes).all(continues)
    }
}

/// Joins neighbouring updates by the same kernel into one launch.
fn merge(
    tail: Vec<Action>,
    places: &mut Places,
    layout: &StateLayout,
    outputs: &Outputs,
    body: &[Action],
    limits: LaunchLimits,
) -> Vec<Action> {
    // A gradient may be moved next to others if a launch of the body makes it and one update alone reads it as a lane.
    let mut made: HashSet<Root> =
        body.iter().flat_map(|a| a.writes()).copied().filter(|r| places.is_scratch(*r)).collect();
    made.extend(places.rows());
    let mut readers: HashMap<Root, usize> = HashMap::new();
    tail.iter().flat_map(|a| a.reads()).for_each(|r| *readers.entry(*r).or_default() += 1);
    let fetched: HashSet<Root> = outputs.iter().map(|(_, r, _)| *r).collect();
    let mergeable: HashSet<Root> =
        made.into_iter().filter(|r| readers.get(r) == Some(&1) && !fetched.contains(r)).collect();

    let mut out: Vec<Action> = Vec::new();
    let mut run: Vec<(Step, Candidate)> = Vec::new();
    // The old values that the run reads. What follows may update one of them, but not at the same time.
    let mut old: HashSet<VarId> = HashSet::new();
    for action in tail {
        let next = match &action {
            Action::Launch(step) => candidate(step, places, &mergeable),
            Action::Copy(..) => None,
        };
        match (action, next) {
            (Action::Launch(step), Some(c)) => {
                let together = run.iter().map(|(_, one)| one.len).sum::<u64>().saturating_add(c.len);
                let continues = |last: &(Step, Candidate)| last.1.precedes(&c, layout, places);
                let follows = together <= limits.elements && run.last().is_some_and(continues);
                if !follows || step.writes.iter().filter_map(|r| places.variable(*r)).any(|v| old.contains(&v)) {
                    join(std::mem::take(&mut run), places, &mut out);
                    old.clear();
                }
                old.extend(step.reads.iter().filter_map(|r| places.variable(*r)));
                run.push((step, c));
            }
            (action, _) => {
                join(std::mem::take(&mut run), places, &mut out);
                out.push(action);
            }
        }
    }
    join(run, places, &mut out);
    out
}

/// One launch for a run of updates.
fn join(run: Vec<(Step, Candidate)>, places: &mut Places, out: &mut Vec<Action>) {
    let total: u64 = run.iter().map(|(_, c)| c.len).sum();
    let (Some((first, _)), true) = (run.first(), run.len() > 1) else {
        out.extend(run.into_iter().map(|(step, _)| Action::Launch(step)));
        return;
    };
    let Some(kernel) = first.kernel.flattened(total) else { unreachable!("each of the run was flattened") };
    let types: Vec<BufferType> = kernel.operands().iter().chain(kernel.results()).cloned().collect();
    let mut rows = Vec::new();
    for (k, ty) in types.into_iter().enumerate() {
        rows.push(match &run[0].1.lanes[k] {
            Lane::Shared(root) => *root,
            Lane::State(first) => places.add(ty, Home::StateRow(*first)),
            Lane::Scratch(_) => {
                let member = |(_, c): &(Step, Candidate)| match &c.lanes[k] {
                    Lane::Scratch(root) => *root,
                    _ => unreachable!("lanes of a run are alike"),
                };
                let members: Vec<Root> = run.iter().map(member).collect();
                let whole = (0, ty.len() as u64);
                places.row(ty, &members, whole, &mut |_, _| unreachable!("neighbours of a run can follow one another"))
            }
        });
    }
    let writes = rows.split_off(first.reads.len());
    let label = format!("{} … {} updates", first.label, run.len()).into();
    out.push(Action::Launch(Step { kernel, reads: rows, writes, label, site: first.site.clone(), level: first.level }));
}
