//! Which stage everything belongs to. A person pins some nodes, a cut into layers says it of others; what is left follows what
//! it reads. Variables live where they are first needed, together with whatever is kept of them: every merge of two
//! variables into one group keeps its reason, and what was asked for and not done is said.

use std::collections::BTreeMap;
use std::sync::Arc;

use petgraph::unionfind::UnionFind;
use serde::{Deserialize, Serialize};

use super::{Note, Request, WORKERS, kept_of};
use crate::id::{Arena, Id};
use crate::ir::{Graph, Node, NodeId, Pin, VarId, VarKind};
use crate::structural::ReadVariable;

/// In which order a stage takes the microbatches of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum PipelineSchedule {
    /// As soon as a microbatch has come back, its gradients are computed before the next one is begun: a stage keeps the
    /// values of as many microbatches as there are stages from it to the end (Narayanan et al., *PipeDream*, SOSP 2019; with
    /// the flush at the end of a step of *Memory-Efficient Pipeline-Parallel DNN Training*, ICML 2021).
    #[default]
    OneForwardOneBackward,
    /// All of them forwards, then all of them backwards (Huang et al., *GPipe*, NeurIPS 2019): a stage keeps the values of
    /// all.
    GPipe,
}

/// Which stage of a mesh is whose.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Stages {
    /// How many stages of the mesh, the first ones, are a pipeline's; the others are devices that something is pinned to.
    pub pipeline: u16,
    /// In which order they take microbatches.
    pub schedule: PipelineSchedule,
    /// The stage of each device that something is pinned to.
    pub named: BTreeMap<Arc<str>, u16>,
    /// The stage of what is not pinned, by the declaration that it stems from.
    pub stems: BTreeMap<u32, u16>,
    /// Where variables live, by name. One that is not here, or in no stage, lives in all of them.
    pub homes: BTreeMap<Arc<str>, Home>,
    /// What was asked for and not done.
    pub warnings: Vec<Note>,
}

/// Where a variable lives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Home {
    /// Its stage; none: all.
    pub stage: Option<u16>,
    /// Why.
    pub why: String,
}

impl Stages {
    /// The stage in which a variable lives; none: in all.
    pub fn home(&self, variable: &str) -> Option<u16> {
        self.homes.get(variable)?.stage
    }
    /// What is said of a node by itself.
    pub fn said(&self, node: &Node) -> Option<u16> {
        match &node.pin {
            Some(Pin::On(device)) => self.named.get(device).copied(),
            Some(Pin::Stage(stage)) if self.pipeline > 0 => Some(*stage),
            _ => self.stems.get(&node.stem).copied(),
        }
    }
    /// Finds where the variables of `graph` live.
    pub fn settle(&mut self, graph: &Graph) {
        let mut groups = Groups::new(graph);
        let claims = claims(graph, self);
        let parameters = graph.state.iter().filter(|(_, v)| v.kind == VarKind::Param);
        let parameters: BTreeMap<&str, VarId> = parameters.map(|(id, v)| (&*v.name, id)).collect();
        for (id, variable) in graph.state.iter() {
            if let Some((name, of)) = kept_of(variable).find_map(|name| Some((name, *parameters.get(name)?))) {
                groups.merge(id, of, format!("it is kept of `{name}`"));
            }
        }
        for program in &graph.programs {
            let mut by_node: BTreeMap<NodeId, VarId> = BTreeMap::new();
            for (variable, value) in &program.updates {
                let first = *by_node.entry(value.node).or_insert(*variable);
                let (first_name, op) = (&graph.state[first].name, graph.nodes[value.node].label());
                groups.merge(*variable, first, format!("one `{op}` sets it and `{first_name}`"));
            }
        }
        // The first claim of a group is its stage.
        let mut settled: BTreeMap<usize, &Claim> = BTreeMap::new();
        for claim in &claims {
            settled.entry(groups.of(claim.variable)).or_insert(claim);
        }
        for claim in &claims {
            let first = settled[&groups.of(claim.variable)];
            if claim.is_asked && claim.stage != first.stage {
                let node = &graph.nodes[claim.node];
                let (variable, why) = (&graph.state[claim.variable].name, groups.why(claim.variable, graph, first));
                let what = format!(
                    "`{variable}` was asked for in stage {}; it is in stage {}: {why}",
                    claim.stage, first.stage
                );
                self.warnings.push(Note { label: node.label(), site: node.site.clone(), what, bytes: 0 });
            }
        }
        for (id, variable) in graph.state.iter() {
            let home = match settled.get(&groups.of(id)) {
                Some(first) => Home { stage: Some(first.stage), why: groups.why(id, graph, first) },
                None => Home { stage: None, why: "nothing that is in one stage needs it".into() },
            };
            self.homes.insert(variable.name.clone(), home);
        }
    }
}

/// A node of which a stage is said needs a variable.
struct Claim {
    variable: VarId,
    stage: u16,
    node: NodeId,
    /// The reading itself is pinned, so this is a wish and not an occasion.
    is_asked: bool,
}

/// Who claims which variable, wishes first, then in the order of the graph.
fn claims(graph: &Graph, stages: &Stages) -> Vec<Claim> {
    let mut claims = vec![];
    for (id, node) in graph.nodes.iter() {
        let Some(stage) = stages.said(node) else { continue };
        let own = graph.variable_read(node);
        let read = node.operands.iter().filter_map(|v| graph.variable_read(&graph.nodes[v.node]));
        let is_asked = own.is_some() && node.pin.is_some();
        // Counters are a few bytes, and everybody counts alike.
        let counts = |v: &VarId| graph.state[*v].kind == VarKind::Counter;
        for variable in own.into_iter().chain(read).filter(|v| is_asked || !counts(v)) {
            claims.push(Claim { variable, stage, node: id, is_asked });
        }
    }
    for (variable, value) in graph.programs.iter().flat_map(|p| &p.updates) {
        if let Some(stage) = stages.said(&graph.nodes[value.node]) {
            claims.push(Claim { variable: *variable, stage, node: value.node, is_asked: false });
        }
    }
    claims.sort_by_key(|c| !c.is_asked);
    claims
}

/// Variables that have to be together, and why each is with another.
struct Groups {
    sets: UnionFind<usize>,
    because: Vec<Option<(VarId, String)>>,
}

impl Groups {
    fn new(graph: &Graph) -> Self {
        Self { sets: UnionFind::new(graph.state.len()), because: vec![None; graph.state.len()] }
    }
    fn of(&self, variable: VarId) -> usize {
        self.sets.find(variable.index())
    }
    fn merge(&mut self, variable: VarId, with: VarId, why: String) {
        if self.sets.union(variable.index(), with.index()) {
            self.because[variable.index()].get_or_insert((with, why));
        }
    }
    /// Why a variable is where the first claim of its group says.
    fn why(&self, variable: VarId, graph: &Graph, first: &Claim) -> String {
        let (node, mut said, mut at) = (&graph.nodes[first.node], vec![], variable);
        // Reasons lead from later variables to earlier merges, so they come to an end.
        while let Some((with, why)) = self.because[at.index()].as_ref().filter(|_| at != first.variable) {
            said.push(why.clone());
            at = *with;
        }
        let pinned = node.pin.as_ref().map_or(String::new(), |pin| format!(", pinned ({pin})"));
        said.push(format!("`{}` at {} needs `{}`{pinned}", node.label(), node.site, graph.state[first.variable].name));
        said.join("; ")
    }
}

/// The stage of every node; none for what is computed wherever it is needed, which costs nothing or next to it: what is fed,
/// constants, and what follows from these and from variables that live everywhere.
pub(super) fn of_nodes(graph: &Graph, request: &Request) -> Arena<NodeId, Option<u16>> {
    let mut stages: Arena<NodeId, Option<u16>> = Arena::default();
    for (_, node) in graph.nodes.iter() {
        let stage = if request.mesh.stages.len() == 1 {
            Some(0)
        } else if let Some(read) = node.op_as::<ReadVariable>() {
            request.stages.home(&read.variable)
        } else if node.operands.is_empty() {
            None
        } else if request.servers.is_some() {
            // What turns out to be an update is moved to where its variable is.
            node.operands.iter().any(|v| stages[v.node].is_some()).then_some(WORKERS)
        } else {
            request.stages.said(node).or_else(|| {
                // Where most of what it reads is.
                let bytes = |v: &crate::ir::Value| graph.ty(*v).size_bytes().unwrap_or(0);
                let there = node.operands.iter().filter_map(|v| Some((bytes(v), stages[v.node]?)));
                there.reduce(|most, next| if next.0 > most.0 { next } else { most }).map(|(_, stage)| stage)
            })
        };
        stages.push(stage);
    }
    stages
}
