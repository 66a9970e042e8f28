//! When the stages of a pipeline take up which microbatch. A schedule gives every pass of a microbatch through a stage a turn;
//! turns grow from stage to stage and back, so that an order by turns is one in which nobody waits for somebody who waits for
//! him, whatever else the graph does. What is not computed by a microbatch of its own, as sums over them and updates, is due
//! when what it reads is.

use std::collections::BTreeMap;

use crate::id::Arena;
use crate::ir::NodeId;
use crate::place::{PipelineSchedule, Placed};

pub(super) struct Turns {
    /// By node: whether it comes after something of a later stage, as gradients do.
    back: Arena<NodeId, bool>,
    /// By device and node of its graph.
    devices: Vec<BTreeMap<NodeId, u32>>,
}

impl Turns {
    pub(super) fn of(placed: &Placed, devices: usize) -> Self {
        let mut back: Arena<NodeId, bool> = Arena::default();
        for (id, node) in placed.graph.nodes.iter() {
            let later = |v: NodeId| placed.stages[v] > placed.stages[id] && placed.stages[id].is_some();
            let is_back = node.operands.iter().any(|v| back[v.node] || later(v.node));
            back.push(is_back);
        }
        Self { back, devices: vec![BTreeMap::new(); devices] }
    }
    /// Notes that `emitted` computes a node for a leaf in a stage.
    pub(super) fn note(&mut self, placed: &Placed, id: NodeId, stage: u16, leaf: usize, emitted: NodeId) {
        let stages = &placed.request.stages;
        if stage >= stages.pipeline {
            return;
        }
        let hosts = &placed.mesh().stages[usize::from(stage)];
        let of_host = |leaves: &[u16]| leaves.iter().filter(|host| **host == hosts[leaf]).count() as u32;
        let pass = Pass {
            stage: stage.into(),
            stages: stages.pipeline.into(),
            microbatch: of_host(&hosts[..leaf]),
            microbatches: of_host(hosts),
            back: self.back[id],
        };
        self.devices[usize::from(hosts[leaf])].insert(emitted, pass.turn(stages.schedule));
    }
    pub(super) fn into_devices(self) -> Vec<BTreeMap<NodeId, u32>> {
        self.devices
    }
}

/// A microbatch in a stage, on its way to the last one or back.
struct Pass {
    stage: u32,
    stages: u32,
    microbatch: u32,
    microbatches: u32,
    back: bool,
}

impl Pass {
    /// When it is due. In the last stage the way there and the way back are one pass.
    fn turn(&self, schedule: PipelineSchedule) -> u32 {
        let Self { stage, stages, microbatch, microbatches, back } = *self;
        let to_last = stages - 1 - stage;
        match (schedule, back) {
            (PipelineSchedule::GPipe, false) => stage + microbatch,
            (PipelineSchedule::GPipe, true) => stages - 1 + microbatches + to_last + microbatch,
            // As many are begun as there are stages to the end; then one comes back for each that is begun.
            (PipelineSchedule::OneForwardOneBackward, false) if microbatch <= to_last => stage + microbatch,
            (PipelineSchedule::OneForwardOneBackward, false) => stage + 2 * microbatch,
            (PipelineSchedule::OneForwardOneBackward, true) => stages + to_last + 2 * microbatch,
        }
    }
}
