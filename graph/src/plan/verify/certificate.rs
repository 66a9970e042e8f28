//! What can be shown of a sound plan, in a few numbers: enough for two who have the plan to see that they have shown the
//! same, and for a reader to see what. Not a proof to be believed: who has the plan shows it again, in milliseconds.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::order::Order;
use crate::plan::{DevicePlan, Memory, Plan};
use crate::wire::Hash;

/// That a plan is sound: see [`Plan::certify`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Certificate {
    /// Which plan.
    pub plan: Hash,
    /// Nodes of its marked graph: the instructions of all devices, and the end of all bodies.
    pub nodes: u64,
    /// Edges: what comes before what.
    pub edges: u64,
    /// Those of them that lead into the next step.
    pub tokens: u64,
    /// Channels, those of the driver among them.
    pub channels: u64,
    /// What each device needs.
    pub devices: Vec<Peak>,
    /// The name of an order in which all that happens in a step can happen: there is one, for there is no cycle.
    pub order: Hash,
}

/// How far a device's arenas are used: the last byte at which anything lies, and one. In bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Peak {
    /// The device's name.
    pub device: Arc<str>,
    /// Of the state arena.
    pub state: u64,
    /// Of the scratch arena.
    pub scratch: u64,
    /// Of the staging arena.
    pub staging: u64,
}

impl Certificate {
    pub(super) fn new(plan: &Plan, order: &Order) -> Self {
        let bytes: Vec<u8> = order.nodes.iter().flat_map(|n| n.to_le_bytes()).collect();
        Certificate {
            plan: plan.hash(),
            nodes: order.nodes.len() as u64,
            edges: order.edges,
            tokens: order.tokens,
            channels: order.channels,
            devices: plan.devices.iter().map(peak).collect(),
            order: Hash::of(&bytes),
        }
    }
}

fn peak(device: &DevicePlan) -> Peak {
    let last = |memory| {
        let of = device.buffers.iter().filter(|(_, b)| b.memory == memory && !b.range().is_empty());
        of.map(|(_, b)| b.range().end).max().unwrap_or(0)
    };
    let work = device.launches().filter(|(_, l)| l.workspace.1 > 0).map(|(_, l)| l.workspace.0 + l.workspace.1);
    let scratch = last(Memory::Scratch).max(work.max().unwrap_or(0));
    Peak { device: device.device.clone(), state: last(Memory::State), scratch, staging: last(Memory::Staging) }
}

impl std::fmt::Display for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Certificate { plan, nodes, edges, tokens, channels, devices, order } = self;
        writeln!(
            f,
            "plan {plan} is sound: {nodes} nodes, {edges} edges, {tokens} of them into the next step, {channels} channels"
        )?;
        for Peak { device, state, scratch, staging } in devices {
            writeln!(f, "{device}: state {state}, scratch {scratch}, staging {staging} bytes")?;
        }
        write!(f, "order {order}")
    }
}
