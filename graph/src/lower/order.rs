//! The order of a device's instructions: grants, feeds, body, fetches, commit, tail. What crosses to another device leaves as
//! soon as it is made, and is waited for when it is first read, so that it crosses while both compute. What was sent is taken
//! back two levels later, when it has long arrived, and its room serves what comes then. Slots are all granted when a step
//! begins: granted later they could share room, but a sender could not write into them what it makes.

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
    let awaited: HashMap<Root, ChannelId> = received.iter().map(|(c, root)| (*root, *c)).collect();
    let made: HashSet<Root> = body.iter().flat_map(Action::writes).flat_map(|r| places.leaves(*r)).collect();
    let missing = |(channel, root): (ChannelId, Root)| {
        let parts = places.leaves(root).into_iter().filter(|r| made.contains(r)).collect();
        Missing { channel, root, due: levels.channels[&channel].saturating_sub(1), parts }
    };
    let mut missing: Vec<Missing> = sent.into_iter().map(missing).collect();
    missing.sort_by_key(|m| m.due);

    let mut slots: Vec<Slot> = received.iter().map(|(c, root)| Slot::Grant(*c, *root)).collect();
    slots.extend(fed.iter().map(|(c, root)| Slot::Wait(*c, *root)));
    let mut to = Order { places, awaited, missing, posted: vec![], slots };
    for action in body {
        let level = match &action {
            Action::Launch(step) => step.level,
            Action::Copy(..) => u32::MAX,
        };
        to.reach(level);
        to.arrive(action.reads());
        let written: Vec<Root> = action.writes().iter().flat_map(|r| places.leaves(*r)).collect();
        to.slots.push(Slot::Do(action));
        to.missing.iter_mut().for_each(|m| m.parts.retain(|r| !written.contains(r)));
        to.post(level);
    }
    to.reach(u32::MAX);
    for action in &tail {
        to.arrive(action.reads());
    }
    for (_, root) in &fetched {
        to.arrive(std::slice::from_ref(root));
    }
    let Order { mut slots, posted, .. } = to;
    slots.extend(posted.into_iter().map(|(_, c, root)| Slot::Sent(c, root)));
    slots.extend(fetched.into_iter().map(|(c, root)| Slot::Post(c, root)));
    if !tail.is_empty() {
        slots.push(Slot::Commit);
        slots.extend(tail.into_iter().map(Slot::Do));
    }
    slots
}

/// Something that is to be sent.
struct Missing {
    channel: ChannelId,
    root: Root,
    /// Not before this level, even if it is only sent on.
    due: u32,
    /// What is still to be made of it.
    parts: HashSet<Root>,
}

struct Order<'a> {
    places: &'a Places,
    /// What has not been waited for.
    awaited: HashMap<Root, ChannelId>,
    missing: Vec<Missing>,
    /// Buffers that have not been taken back, and on which level they were posted.
    posted: Vec<(u32, ChannelId, Root)>,
    slots: Vec<Slot>,
}

impl Order<'_> {
    /// Does what is due before anything of a level is computed.
    fn reach(&mut self, level: u32) {
        let gone = self.posted.extract_if(.., |(posted, ..)| posted.saturating_add(2) <= level && level < u32::MAX);
        self.slots.extend(gone.map(|(_, channel, root)| Slot::Sent(channel, root)));
        self.post(level);
    }
    /// Waits for what is about to be read.
    fn arrive(&mut self, reads: &[Root]) {
        for root in reads.iter().flat_map(|r| self.places.leaves(*r)) {
            if let Some(channel) = self.awaited.remove(&root) {
                self.slots.push(Slot::Wait(channel, root));
            }
        }
    }
    /// Posts what is whole, and due at `level`.
    fn post(&mut self, level: u32) {
        let whole: Vec<Missing> = self.missing.extract_if(.., |m| m.parts.is_empty() && m.due <= level).collect();
        for Missing { channel, root, .. } in whole {
            self.arrive(std::slice::from_ref(&root));
            self.slots.push(Slot::Post(channel, root));
            self.posted.push((level, channel, root));
        }
    }
}
