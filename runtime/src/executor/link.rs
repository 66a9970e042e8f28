//! A channel between two devices of one process. What crosses is the buffer itself: it moves from the sender's hand
//! through the slot to the receiver's, and comes back with the grant. So nobody ever sees bytes that another may be
//! writing, and no lock is held while they are written or read.
//!
//! A sender that writes its result where it will be sent from writes it in the slot's buffer, if the slot is its own when a
//! step begins, as it is in plans that were lowered. Otherwise it has a spare buffer, and gets the granted one in return.
//! For every other sender the bytes have been taken once it has posted: `sent` has nothing to wait for.
//!
//! Between steps all buffers are here. They are not the link's own: see [`Room`](super::room::Room).

use std::sync::atomic::{AtomicU64, Ordering};

use thalweg_graph::plan::lend::Crossing;

use super::gate::{Gate, Watch};
use crate::device::DeviceError;
use crate::memory::LineBuffer;

/// What has crossed a channel between two devices since its plan was loaded.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Carried {
    /// How often something did.
    pub transfers: u64,
    /// Bytes of it.
    pub bytes: u64,
    /// Bytes that were copied for it: none where the sender's launch wrote and the receiver's launches read the buffer that
    /// moved, twice as many where neither did.
    pub copied: u64,
}

/// The slot of a channel.
#[derive(Default)]
struct Slot {
    /// The sender may fill it.
    granted: bool,
    /// It was filled and not yet received.
    full: bool,
    buffer: Option<LineBuffer>,
    /// The sender's, between steps, where it has one.
    spare: Option<LineBuffer>,
}

/// A channel between two devices.
pub(super) struct Link {
    slot: Gate<Slot>,
    crossing: Crossing,
    transfers: AtomicU64,
    carried: AtomicU64,
    copied: AtomicU64,
}

impl Link {
    /// A channel that has no buffers yet.
    pub(super) fn new(crossing: Crossing) -> Self {
        let slot = Slot { granted: crossing.starts_granted, ..Slot::default() };
        let [transfers, carried, copied] = Default::default();
        Self { slot: Gate::new(slot), crossing, transfers, carried, copied }
    }
    /// Bytes that it carries, and each of its buffers has.
    pub(super) fn bytes(&self) -> u64 {
        self.crossing.bytes
    }
    /// How many buffers it has: the slot's, and where that is not enough a spare one.
    pub(super) fn buffers(&self) -> usize {
        1 + usize::from(self.crossing.has_spare())
    }
    /// A buffer for it, between steps; it may be larger.
    pub(super) fn equip(&self, mut buffer: LineBuffer) {
        buffer.set_bytes(self.crossing.bytes);
        self.put_back(buffer);
    }
    /// Its buffers, between steps.
    pub(super) fn strip(&self) -> [Option<LineBuffer>; 2] {
        self.slot.change(|s| [s.buffer.take(), s.spare.take()])
    }
    /// Whether the sender may fill the slot from the start of every step.
    pub(super) fn starts_granted(&self) -> bool {
        self.crossing.starts_granted
    }
    /// The buffer in which the sender makes what it will post.
    pub(super) fn own(&self) -> Option<LineBuffer> {
        self.slot.change(|s| match self.crossing.has_spare() {
            true => s.spare.take(),
            false => {
                s.granted = false;
                s.buffer.take()
            }
        })
    }
    /// Whether what the sender makes is in the slot's buffer, so that it has been granted.
    pub(super) fn is_made_in_slot(&self) -> bool {
        self.crossing.sender_writes && !self.crossing.has_spare()
    }
    /// The receiver is done with what it received; `back` is the buffer, if it has it.
    pub(super) fn grant(&self, back: Option<LineBuffer>) {
        self.slot.change(|s| {
            s.granted = true;
            s.buffer = back.or_else(|| s.buffer.take());
        });
    }
    /// The slot's buffer, for the sender to fill, or to keep in return for a full one.
    pub(super) fn claim(
        &self,
        watch: &Watch,
        stalled: impl FnOnce() -> DeviceError,
    ) -> Result<LineBuffer, DeviceError> {
        let ready = |s: &mut Slot| {
            let buffer = s.buffer.take_if(|_| s.granted && !s.full)?;
            s.granted = false;
            Some(buffer)
        };
        self.slot.wait(watch, ready, stalled)
    }
    /// Hands over a full buffer.
    pub(super) fn post(&self, buffer: LineBuffer) {
        self.transfers.fetch_add(1, Ordering::Relaxed);
        self.carried.fetch_add(buffer.bytes().len() as u64, Ordering::Relaxed);
        self.slot.change(|s| (s.buffer, s.full) = (Some(buffer), true));
    }
    /// What was posted.
    pub(super) fn receive(
        &self,
        watch: &Watch,
        stalled: impl FnOnce() -> DeviceError,
    ) -> Result<LineBuffer, DeviceError> {
        let ready = |s: &mut Slot| {
            let buffer = s.buffer.take_if(|_| s.full)?;
            s.full = false;
            Some(buffer)
        };
        self.slot.wait(watch, ready, stalled)
    }
    /// So many bytes had to be copied.
    pub(super) fn copied(&self, bytes: usize) {
        self.copied.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    /// A buffer that a device still had when its step ended.
    pub(super) fn put_back(&self, buffer: LineBuffer) {
        self.slot.change(|s| {
            let empty = if s.buffer.is_none() { &mut s.buffer } else { &mut s.spare };
            *empty = Some(buffer);
        });
    }
    /// As before the first step. All buffers have been put back.
    pub(super) fn rewind(&self) {
        self.slot.change(|s| (s.granted, s.full) = (self.crossing.starts_granted, false));
    }
    /// Lets who waits here look whether the step goes on.
    pub(super) fn wake(&self) {
        self.slot.wake();
    }
    pub(super) fn carried(&self) -> Carried {
        let [transfers, bytes, copied] =
            [&self.transfers, &self.carried, &self.copied].map(|n| n.load(Ordering::Relaxed));
        Carried { transfers, bytes, copied }
    }
}
