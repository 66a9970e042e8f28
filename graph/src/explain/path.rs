//! The critical path: from the last thing that ended back to the start, always to what it had waited for. What a device did
//! in the meantime that nobody waited for is not on it.

use super::PathRow;
use crate::plan::simulate::{Interval, Simulation};
use crate::plan::{ChannelId, Endpoint, Instruction, Place, Plan};

/// The chain, first to last, of a simulation of one step.
pub(super) fn path(plan: &Plan, step: &Simulation) -> Vec<PathRow> {
    let mut rows = vec![];
    let find = |place: Place| step.timeline.iter().find(|i| i.place == place);
    let mut at: Option<&Interval> = step.timeline.iter().max_by_key(|i| i.end);
    // Every turn goes back to another instruction; a chain is never longer than the plan.
    for _ in 0..=step.timeline.len() {
        let Some(now) = at else { break };
        let part = &plan.devices[usize::from(now.place.device)];
        let instruction = &part.instructions[now.place.instruction];
        let seconds = (now.end - now.begin).as_secs_f64();
        if seconds > 0.0 {
            let what = match instruction {
                Instruction::Launch(launch) => launch.label.to_string(),
                Instruction::Copy { .. } => "copy".into(),
                Instruction::Wait { channel, .. } => format!("feed {}", plan.channels[*channel].label),
                Instruction::Post { channel, .. } => format!("fetch {}", plan.channels[*channel].label),
                other => other.to_string(),
            };
            rows.push(PathRow {
                place: part.device.to_string(),
                what,
                begin_seconds: now.begin.as_secs_f64(),
                seconds,
            });
        }
        let before = |place: Place| {
            let instruction = place.instruction.checked_sub(1)?;
            find(Place { instruction, ..place })
        };
        if now.begin <= now.reached {
            at = before(now.place);
            continue;
        }
        // It waited: for what somebody else did.
        at = match instruction {
            Instruction::Wait { channel, .. } => {
                let transfer = step.transfers.iter().find(|t| t.channel == *channel);
                let of = &plan.channels[*channel];
                if let Some(transfer) = transfer {
                    let name = |end: Endpoint| match end {
                        Endpoint::Driver => "driver".to_string(),
                        Endpoint::Device(d) => plan.devices[usize::from(d)].device.to_string(),
                    };
                    rows.push(PathRow {
                        place: format!("{} → {}", name(of.from), name(of.to)),
                        what: format!("{channel} {}", of.label),
                        begin_seconds: transfer.posted.as_secs_f64(),
                        seconds: (transfer.arrived - transfer.posted).as_secs_f64(),
                    });
                }
                end_of(plan, *channel, true).and_then(find)
            }
            Instruction::Post { channel, .. } => end_of(plan, *channel, false).and_then(find),
            // Its own bytes had not been taken: the post is its own.
            Instruction::Sent(channel) => end_of(plan, *channel, true).and_then(find),
            // All bodies end together: the last one's last instruction.
            Instruction::Commit => {
                let is_body = |i: &&Interval| {
                    let tail = plan.devices[usize::from(i.place.device)].tail_start();
                    i.place.instruction + 1 < tail
                };
                step.timeline.iter().filter(is_body).max_by_key(|i| i.end)
            }
            _ => before(now.place),
        };
    }
    rows.reverse();
    rows
}

/// Where a channel is posted, or granted.
fn end_of(plan: &Plan, wanted: ChannelId, posted: bool) -> Option<Place> {
    let is_it = |i: &Instruction| match i {
        Instruction::Post { channel, .. } => posted && *channel == wanted,
        Instruction::Grant(channel) => !posted && *channel == wanted,
        _ => false,
    };
    plan.devices.iter().enumerate().find_map(|(d, part)| {
        let instruction = part.instructions.iter().position(is_it)?;
        Some(Place { device: d as u16, instruction })
    })
}
