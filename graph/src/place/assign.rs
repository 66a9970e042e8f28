//! From what a strategy says to where everything is. One pass in the graph's order: each node looks at how its operands are
//! spread and takes the way that moves the fewest bytes; its results are then spread as that way says. Sums that leaves have
//! in parts stay so through whatever is linear in them, and are added up where a reader is not.

use std::sync::Arc;

use super::rules::{self, Cut, Part, Way};
use super::{Mesh, Note, Placed, Placement, Request, SERVERS, Spread, stages};
use crate::id::Arena;
use crate::ir::{Graph, NodeId, Value};
use crate::kernel::{BufferType, Kernel, Monoid};
use crate::lower::LowerError;
use crate::structural::{Input, ReadVariable};

/// Places the one program of `graph`, which holds primitives only and no named dimensions.
///
/// # Errors
/// If it does hold others, or the request names an axis that a tensor has not.
pub fn place(graph: &Graph, request: &Request) -> Result<Placed, LowerError> {
    let everywhere: Placement = vec![Spread::Replicate; request.mesh.axes.len()];
    let (values, ways, wants) = (Arena::default(), Arena::default(), Arena::default());
    let stages = stages::of_nodes(graph, request);
    let mut placed = Placed {
        graph: graph.clone(),
        request: request.clone(),
        values,
        ways,
        wants,
        stages,
        notes: request.stages.warnings.clone(),
    };
    for (id, node) in graph.nodes.iter() {
        let buffers = |types: &[crate::TensorType]| types.iter().map(BufferType::of).collect::<Option<Vec<_>>>();
        let label = || (node.label(), node.site.clone());
        let unbound = || LowerError::Unbound { label: label().0, site: label().1, ty: node.types[0].to_string() };
        let results = buffers(&node.types).ok_or_else(unbound)?;
        let given = match (node.op_as::<Input>(), node.op_as::<ReadVariable>()) {
            (Some(input), _) => {
                let axes = request.inputs.get(&input.name);
                Some(axes.map_or(Some(everywhere.clone()), |axes| asked(&results[0], axes, &request.mesh)))
            }
            (_, Some(read)) => {
                let variable = graph.variable(&read.variable);
                let variable = variable.ok_or_else(|| LowerError::NoVariable(read.variable.clone()))?;
                Some(Some(request.variable(&graph.state[variable])))
            }
            _ => None,
        };
        if let Some(spread) = given {
            placed.graph.nodes[id].sharding = None;
            placed.values.push(vec![spread.ok_or_else(|| LowerError::Axis { label: label().0, site: label().1 })?]);
            placed.ways.push(vec![]);
            placed.wants.push(vec![]);
            continue;
        }
        let operands = buffers(&graph.operand_types(node)).ok_or_else(unbound)?;
        let kernel = node.op.lower(&operands, &results);
        let kernel = kernel.ok_or_else(|| LowerError::NotPrimitive { label: label().0, site: label().1 })?;
        let faults = kernel.verify();
        if !faults.is_empty() {
            return Err(LowerError::Kernel { label: label().0, site: label().1, faults });
        }
        one(&mut placed, id, &kernel, &operands, &results);
    }
    Ok(placed)
}

/// What was asked for a tensor that is given.
pub(super) fn asked(ty: &BufferType, axes: &[Option<u16>], mesh: &Mesh) -> Option<Placement> {
    let spread = |(axis, (_, extent)): (&Option<u16>, &(Arc<str>, u16))| match axis {
        None => Some(Spread::Replicate),
        Some(axis) if *extent == 1 && usize::from(*axis) < ty.rank() => Some(Spread::Replicate),
        Some(axis) => Some(Spread::even(*axis, *ty.shape.get(usize::from(*axis))?, *extent)),
    };
    axes.iter().zip(&mesh.axes).map(spread).collect()
}

/// Places one node.
fn one(placed: &mut Placed, id: NodeId, kernel: &Kernel, operands: &[BufferType], results: &[BufferType]) {
    // Granted or refused here; shares of it are other tensors, of which nothing was said.
    let sharding = placed.graph.nodes[id].sharding.take();
    let node = placed.graph.nodes[id].clone();
    let said = match &sharding {
        Some(sharding) => placed.mesh().spread_over(sharding),
        None => vec![None; placed.mesh().axes.len()],
    };
    let mut chosen: Vec<Way> = Vec::new();
    let mut wants: Vec<Placement> = vec![vec![]; operands.len()];
    let mut makes: Vec<Placement> = vec![vec![]; results.len()];
    for (m, wish) in said.into_iter().enumerate() {
        // Parts of a sum are added up before they go to another stage, and so is put together what devices own; but what goes
        // to and from servers goes straight.
        let straight = placed.request.servers.is_some();
        let crosses = |v: &Value| !straight && placed.stages[v.node].is_some_and(|s| Some(s) != placed.stages[id]);
        let have = |v: &Value| match &placed.of(*v)[m] {
            Spread::Partial(_) | Spread::Owned { .. } if crosses(v) => Spread::Replicate,
            spread => spread.clone(),
        };
        let have: Vec<Spread> = node.operands.iter().map(have).collect();
        let sizes: Vec<u64> = operands.iter().map(BufferType::size_bytes).collect();
        let choice = Choice { kernel, have: &have, sizes: &sizes, operands, results, taken: &chosen };
        let wish = wish.filter(|_| placed.mesh().axes[m].1 > 1);
        let granted = wish.and_then(|axis| choice.along(axis, placed.mesh().axes[m].1));
        if let (Some(axis), None) = (wish, &granted) {
            let (label, site, over) = (node.label(), node.site.clone(), &placed.mesh().axes[m].0);
            let what = format!("axis {axis} cannot be spread over `{over}`: what it is computed from does not lie so");
            placed.notes.push(Note { label, site, what, bytes: results[0].size_bytes() });
        }
        let (way, cuts) = granted.unwrap_or_else(|| choice.best());
        for (k, want) in wants.iter_mut().enumerate() {
            let need = spread(way.operands[k], &cuts.operand);
            if matches!(have[k], Spread::Shard { .. }) && need != have[k] {
                let what = format!("`{}` is needed whole", placed.graph.nodes[node.operands[k].node].label());
                let (label, site) = (node.label(), node.site.clone());
                placed.notes.push(Note { label, site, what, bytes: sizes[k] });
            }
            want.push(need);
        }
        makes.iter_mut().zip(&way.results).for_each(|(make, part)| make.push(spread(*part, &cuts.result)));
        chosen.push(way);
    }
    if placed.request.servers.is_some() && matches!(chosen[..], [Way { cut: Cut::Flat, .. }]) {
        placed.stages[id] = Some(SERVERS);
    }
    placed.values.push(makes);
    placed.ways.push(chosen);
    placed.wants.push(wants);
}

fn spread(part: Part, cuts: &Arc<[u64]>) -> Spread {
    match part {
        Part::Whole => Spread::Replicate,
        Part::Along(axis) => Spread::Shard { axis, cuts: cuts.clone() },
        Part::Partial(monoid) => Spread::Partial(monoid),
        Part::Owned => Spread::Owned { cuts: cuts.clone() },
    }
}

/// Where the axes that a way cuts are cut, in operands and in results: the same, but for a relabeling.
struct Cuts {
    operand: Arc<[u64]>,
    result: Arc<[u64]>,
}

struct Choice<'a> {
    kernel: &'a Kernel,
    have: &'a [Spread],
    sizes: &'a [u64],
    operands: &'a [BufferType],
    results: &'a [BufferType],
    /// Ways already taken along other axes of the mesh: they cut other axes of the loop.
    taken: &'a [Way],
}

impl Choice<'_> {
    /// The way that moves the fewest bytes; of those, one that cuts.
    fn best(&self) -> (Way, Cuts) {
        let none = || Cuts { operand: Arc::default(), result: Arc::default() };
        let whole = Way {
            cut: Cut::Nothing,
            operands: vec![Part::Whole; self.operands.len()],
            results: vec![Part::Whole; self.results.len()],
        };
        if self.have.iter().all(|s| *s == Spread::Replicate) {
            return (whole, none());
        }
        let owned = self.have.iter().find_map(|s| if let Spread::Owned { cuts } = s { Some(cuts) } else { None });
        if let Some(cuts) = owned
            && let Some(way) = rules::flat(self.kernel)
            && cuts.last() == Some(&(self.results[0].len() as u64))
        {
            return (way, Cuts { operand: cuts.clone(), result: cuts.clone() });
        }
        if let Some(way) = self.through() {
            return (way, none());
        }
        let cutting = rules::ways(self.kernel).into_iter().filter_map(|way| {
            let cuts = self.cuts(&way)?;
            let cost = self.cost(&way, &cuts);
            Some((cost, way, cuts))
        });
        let cheapest = cutting.min_by_key(|(cost, ..)| *cost);
        match cheapest {
            Some((cost, way, cuts)) if cost <= self.cost(&whole, &none()) => (way, cuts),
            _ => (whole, none()),
        }
    }
    /// The way that moves the fewest bytes of those that spread the first result along `axis`, over so many leaves.
    fn along(&self, axis: u16, leaves: u16) -> Option<(Way, Cuts)> {
        let even = |way: &Way| {
            let Spread::Shard { cuts, .. } = Spread::even(axis, self.results[0].shape[usize::from(axis)], leaves)
            else {
                return None;
            };
            let free = way.cut != Cut::Relabel && self.taken.iter().all(|t| t.cut != way.cut);
            free.then(|| Cuts { operand: cuts.clone(), result: cuts })
        };
        let makes = |way: &Way| way.results[0] == Part::Along(axis);
        let all = rules::ways(self.kernel).into_iter().filter(makes);
        let all = all.filter_map(|way| Some((self.cuts(&way).or_else(|| even(&way))?, way)));
        all.min_by_key(|(cuts, way)| self.cost(way, cuts)).map(|(cuts, way)| (way, cuts))
    }
    /// Partial sums go on as they are, if nothing else is spread and they do not grow.
    fn through(&self) -> Option<Way> {
        let partial: Vec<bool> = self.have.iter().map(|s| *s == Spread::Partial(Monoid::Sum)).collect();
        let alone = self.have.iter().zip(&partial).all(|(s, p)| *p || *s == Spread::Replicate);
        if !alone {
            return None;
        }
        let results = rules::through(self.kernel, &partial)?;
        let bytes = |types: &[BufferType]| types.iter().map(BufferType::size_bytes).sum::<u64>();
        let before: u64 = self.sizes.iter().zip(&partial).filter(|(_, p)| **p).map(|(b, _)| b).sum();
        let operand = |p: &bool| if *p { Part::Partial(Monoid::Sum) } else { Part::Whole };
        let operands = partial.iter().map(operand).collect();
        (bytes(self.results) <= before).then_some(Way { cut: Cut::Nothing, operands, results })
    }
    /// Where `way` would cut, if an operand that lies as it needs it says so and no other way cuts there.
    fn cuts(&self, way: &Way) -> Option<Cuts> {
        // A relabeling has a way per group of axes, all of which cut alike.
        let same = |t: &Way| t.cut == way.cut && (t.cut != Cut::Relabel || t.operands == way.operands);
        if self.taken.iter().any(same) {
            return None;
        }
        let lies = way.operands.iter().zip(self.have).find_map(|(part, have)| match (part, have) {
            (Part::Along(d), Spread::Shard { axis, cuts }) if d == axis => Some(cuts.clone()),
            _ => None,
        })?;
        let result = match (way.cut, &way.operands[..]) {
            (Cut::Relabel, [Part::Along(axis)]) => {
                rules::relabeled(&self.operands[0], &self.results[0], *axis, &lies)?.into()
            }
            _ => lies.clone(),
        };
        Some(Cuts { operand: lies, result })
    }
    /// Bytes that have to be brought to where `way` needs them.
    fn cost(&self, way: &Way, cuts: &Cuts) -> u64 {
        let moved = |((part, have), bytes): ((&Part, &Spread), &u64)| match (part, have) {
            (_, Spread::Replicate) => 0,
            (Part::Along(d), Spread::Shard { axis, cuts: c }) if d == axis && *c == cuts.operand => 0,
            _ => *bytes,
        };
        way.operands.iter().zip(self.have).zip(self.sizes).map(moved).sum()
    }
}
