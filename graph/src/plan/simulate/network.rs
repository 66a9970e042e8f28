//! Channels between devices as they are while a plan runs: who owns the slot, what is on its way, what has arrived.

use std::time::Duration;

use super::bytes::Run;
use crate::id::Id;
use crate::plan::{BufferId, Channel, Endpoint, Instruction, Plan};

/// A channel between two devices.
pub(super) struct Link {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Where it arrives, as the receiver's first wait says.
    pub(super) slot: Option<BufferId>,
    /// Whether the slot is the sender's to fill.
    pub(super) granted: bool,
    /// What has been posted and not been waited for.
    pub(super) flight: Option<Flight>,
    /// What has been posted and not been given back by `sent`: whether its bytes have been taken.
    pub(super) unsent: Option<bool>,
}

/// A value on its way.
pub(super) struct Flight {
    pub(super) step: usize,
    pub(super) buffer: BufferId,
    /// What was posted.
    pub(super) meant: Vec<Run>,
    pub(super) posted: Duration,
    pub(super) taken: Duration,
    /// Whether it is there, whole.
    pub(super) arrived: bool,
}

/// The channels between devices; `None` for the driver's and those of ends that are not there.
pub(super) fn links(plan: &Plan) -> Vec<Option<Link>> {
    let link = |channel: &Channel| {
        let (Endpoint::Device(from), Endpoint::Device(to)) = (channel.from, channel.to) else { return None };
        let (from, to) = (usize::from(from), usize::from(to));
        let there = from.max(to) < plan.devices.len() && from != to;
        there.then_some(Link { from, to, slot: None, granted: true, flight: None, unsent: None })
    };
    let mut links: Vec<Option<Link>> = plan.channels.values().iter().map(link).collect();
    for (device, part) in plan.devices.iter().enumerate() {
        for instruction in &part.instructions {
            let (Instruction::Grant(channel) | Instruction::Wait { channel, .. }) = instruction else { continue };
            let Some(Some(link)) = links.get_mut(channel.index()) else { continue };
            match instruction {
                _ if link.to != device || link.slot.is_some() => {}
                Instruction::Wait { buffer, .. } => link.slot = Some(*buffer),
                // A slot that is granted before it is waited for has not been granted in the step before.
                _ => link.granted = false,
            }
        }
    }
    links
}
