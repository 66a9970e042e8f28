//! The order of a device's instructions: grants, feeds, body, fetches, commit, tail. What crosses to another device leaves as
//! soon as it is made, and is waited for when it is first read, so that it crosses while both compute.

use std::collections::{HashMap, HashSet};

use super::{Action, Places, Root, Slot};
use crate::id::Arena;
use crate::partition::Levels;
use crate::plan::{Channel, ChannelId, Endpoint};

pub(super) fn order(
    channels: &Arena<ChannelId, Channel>,
    levels: &Levels,
    places: &Places,
    arrivals: &[(ChannelId, Root)],
    leaves: &[(ChannelId, Root)],
    body: Vec<Action>,
    tail: Vec<Action>,
) -> Vec<Slot> {
    let (fed, received): (Vec<_>, Vec<_>) =
        arrivals.iter().copied().partition(|(c, _)| channels[*c].from == Endpoint::Driver);
    let (fetched, sent): (Vec<_>, Vec<_>) =
        leaves.iter().copied().partition(|(c, _)| channels[*c].to == Endpoint::Driver);
    let mut slots: Vec<Slot> = received.iter().map(|(c, root)| Slot::Grant(*c, *root)).collect();
    slots.extend(fed.iter().map(|(c, root)| Slot::Wait(*c, *root)));

    let mut to = Order { places, awaited: received.into_iter().map(|(c, root)| (root, c)).collect(), slots };
    // What is still to be made of each thing that is sent. What arrives and is sent on is due when it arrives.
    let made: HashSet<Root> = body.iter().flat_map(Action::writes).flat_map(|r| places.leaves(*r)).collect();
    let mut missing: Vec<Missing> = Vec::new();
    for (channel, root) in &sent {
        let leaves = places.leaves(*root);
        let due = leaves.iter().filter_map(|r| to.awaited.get(r)).map(|c| levels.channels[c]).max().unwrap_or(0);
        let parts = leaves.into_iter().filter(|r| made.contains(r)).collect();
        missing.push(Missing { channel: *channel, root: *root, due, parts });
    }
    missing.sort_by_key(|m| m.due);
    for action in body {
        let level = match &action {
            Action::Launch(step) => step.level,
            Action::Copy(..) => u32::MAX,
        };
        to.post(&mut missing, level);
        to.arrive(action.reads());
        let written: Vec<Root> = action.writes().iter().flat_map(|r| places.leaves(*r)).collect();
        to.slots.push(Slot::Do(action));
        missing.iter_mut().for_each(|m| m.parts.retain(|r| !written.contains(r)));
        to.post(&mut missing, level);
    }
    to.post(&mut missing, u32::MAX);
    for action in &tail {
        to.arrive(action.reads());
    }
    for (_, root) in &fetched {
        to.arrive(std::slice::from_ref(root));
    }
    let Order { mut slots, .. } = to;
    slots.extend(sent.into_iter().map(|(c, root)| Slot::Sent(c, root)));
    slots.extend(fetched.into_iter().map(|(c, root)| Slot::Post(c, root)));
    if !tail.is_empty() {
        slots.push(Slot::Commit);
        slots.extend(tail.into_iter().map(Slot::Do));
    }
    slots
}

struct Order<'a> {
    places: &'a Places,
    /// What has not been waited for.
    awaited: HashMap<Root, ChannelId>,
    slots: Vec<Slot>,
}

impl Order<'_> {
    /// Waits for what is about to be read.
    fn arrive(&mut self, reads: &[Root]) {
        for root in reads.iter().flat_map(|r| self.places.leaves(*r)) {
            if let Some(channel) = self.awaited.remove(&root) {
                self.slots.push(Slot::Wait(channel, root));
            }
        }
    }
    /// Posts what is whole, and due at `level`.
    fn post(&mut self, missing: &mut Vec<Missing>, level: u32) {
        for Missing { channel, root, .. } in missing.extract_if(.., |m| m.parts.is_empty() && m.due <= level) {
            self.arrive(std::slice::from_ref(&root));
            self.slots.push(Slot::Post(channel, root));
        }
    }
}

/// Something that is to be sent.
struct Missing {
    channel: ChannelId,
    root: Root,
    /// The level of what it arrives with, if it does.
    due: u32,
    /// What is still to be made of it.
    parts: HashSet<Root>,
}
