//! The memory of channels between devices. It belongs to no plan: only one of them runs at a time, and a session keeps
//! several, one for every batch size. So it is as large as what the most demanding plan needs, like the devices' arenas, and
//! changes hands when another plan runs.

use std::cmp::Reverse;
use std::sync::Arc;

use super::Prepared;
use super::link::Link;
use crate::memory::LineBuffer;

/// Buffers for the channels of whatever plan runs.
#[derive(Default)]
pub(super) struct Room {
    /// Those that no channel has, largest first: the k-th is no smaller than the k-th of any plan.
    buffers: Vec<LineBuffer>,
    /// Whose channels have the others.
    with: Option<Prepared>,
    /// Bytes of all of them.
    bytes: u64,
}

/// The channels that have buffers, once for each of them, those with the largest first.
pub(super) fn by_size(links: &[Option<Link>]) -> Vec<usize> {
    let each = links.iter().enumerate().filter_map(|(at, link)| Some((at, link.as_ref()?)));
    let mut all: Vec<(u64, usize)> =
        each.flat_map(|(at, link)| std::iter::repeat_n((link.bytes(), at), link.buffers())).collect();
    all.sort_by_key(|(bytes, _)| Reverse(*bytes));
    all.into_iter().map(|(_, at)| at).collect()
}

impl Room {
    /// Makes it large enough for buffers of so many bytes as well, the largest first.
    ///
    /// # Errors
    /// With the place of a buffer for which there is no memory. Other plans run as before.
    pub(super) fn enlarge(&mut self, needs: impl Iterator<Item = u64>) -> Result<(), usize> {
        self.take_back();
        for (place, bytes) in needs.enumerate() {
            let had = self.buffers.get(place).map(LineBuffer::room);
            if had.is_some_and(|had| had >= bytes) {
                continue;
            }
            let buffer = LineBuffer::new(bytes).ok_or(place)?;
            self.bytes += bytes - had.unwrap_or(0);
            match self.buffers.get_mut(place) {
                Some(smaller) => *smaller = buffer,
                None => self.buffers.push(buffer),
            }
        }
        Ok(())
    }
    /// Bytes of all buffers, wherever they are.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
    /// Gives the channels of `to` their buffers, if they have them not.
    pub(super) fn give(&mut self, to: &Prepared) {
        if self.with.as_ref().is_some_and(|with| Arc::ptr_eq(&with.0, &to.0)) {
            return;
        }
        self.take_back();
        let (links, by_size) = (&to.0.links, &to.0.by_size);
        let count = by_size.len().min(self.buffers.len());
        for (at, buffer) in by_size.iter().zip(self.buffers.drain(..count)) {
            if let Some(link) = &links[*at] {
                link.equip(buffer);
            }
        }
        self.with = Some(to.clone());
    }
    /// Takes all buffers back from the plan that has them.
    pub(super) fn take_back(&mut self) {
        let Some(with) = self.with.take() else { return };
        self.buffers.extend(with.0.links.iter().flatten().flat_map(Link::strip).flatten());
        self.buffers.sort_unstable_by_key(|buffer| Reverse(buffer.room()));
    }
    /// Takes them back if it is this plan that has them.
    pub(super) fn take_from(&mut self, from: &Prepared) {
        if self.with.as_ref().is_some_and(|with| Arc::ptr_eq(&with.0, &from.0)) {
            self.take_back();
        }
    }
}
