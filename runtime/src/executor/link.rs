//! A channel between two devices. In one process, what crosses is the buffer itself: it moves from the sender's hand
//! through the slot to the receiver's, and comes back with the grant. So nobody ever sees bytes that another may be
//! writing, and no lock is held while they are written or read.
//!
//! A sender that writes its result where it will be sent from writes it in the slot's buffer, if the slot is its own when a
//! step begins, as it is in plans that were lowered. Otherwise it has a spare buffer, and gets the granted one in return.
//! For every other sender the bytes have been taken once it has posted: `sent` has nothing to wait for.
//!
//! Where one end is in another process, this is the other: what leaves is sent from where it lies, what arrives is read into
//! the slot's buffer ([`apart`](super::apart)).
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
    /// What arrives from elsewhere may be read into it: a step runs.
    open: bool,
    /// Somebody is reading into its buffer, and has it.
    reading: bool,
}

/// Which ends of a channel are in this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// Both.
    Here,
    /// The sender's.
    Out,
    /// The receiver's.
    In,
    /// None: it is only counted what crosses.
    Away,
}

/// A channel between two devices.
pub(super) struct Link {
    slot: Gate<Slot>,
    crossing: Crossing,
    way: Way,
    transfers: AtomicU64,
    carried: AtomicU64,
    copied: AtomicU64,
}

impl Link {
    /// A channel that has no buffers yet.
    pub(super) fn new(crossing: Crossing, way: Way) -> Self {
        let slot = Slot { granted: crossing.starts_granted, ..Slot::default() };
        let [transfers, carried, copied] = Default::default();
        Self { slot: Gate::new(slot), crossing, way, transfers, carried, copied }
    }
    pub(super) fn way(&self) -> Way {
        self.way
    }
    /// Bytes that it carries, and each of its buffers has.
    pub(super) fn bytes(&self) -> u64 {
        self.crossing.bytes
    }
    /// How many buffers it has: the slot's, and where that is not enough a spare one.
    pub(super) fn buffers(&self) -> usize {
        match self.way {
            Way::Here | Way::Out => 1 + usize::from(self.crossing.has_spare()),
            Way::In => 1,
            Way::Away => 0,
        }
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
        self.count(buffer.bytes().len());
        self.slot.change(|s| (s.buffer, s.full) = (Some(buffer), true));
    }
    /// So many bytes crossed.
    pub(super) fn count(&self, bytes: usize) {
        self.note(Carried { transfers: 1, bytes: bytes as u64, copied: 0 });
    }
    /// What has crossed beside.
    pub(super) fn note(&self, carried: Carried) {
        self.transfers.fetch_add(carried.transfers, Ordering::Relaxed);
        self.carried.fetch_add(carried.bytes, Ordering::Relaxed);
        self.copied.fetch_add(carried.copied, Ordering::Relaxed);
    }
    /// Waits until the slot at the other end, in another process, may be written.
    pub(super) fn await_grant(&self, watch: &Watch, stalled: impl FnOnce() -> DeviceError) -> Result<(), DeviceError> {
        self.slot.wait(watch, |s| std::mem::take(&mut s.granted).then_some(()), stalled)
    }
    /// The slot's buffer, for the sender alone, where what it makes is sent to another process.
    pub(super) fn outbox(&self) -> Option<LineBuffer> {
        self.slot.change(|s| s.buffer.take())
    }
    /// The slot's buffer, for what arrives from another process.
    pub(super) fn slot(&self, still: &dyn Fn() -> bool) -> Option<LineBuffer> {
        let ready = |s: &mut Slot| {
            let free = s.open && s.granted && !s.full;
            let buffer = s.buffer.take_if(|_| free)?;
            (s.granted, s.reading) = (false, true);
            Some(buffer)
        };
        self.slot.wait_while(ready, still)
    }
    /// It is done with, and `whole` or not.
    pub(super) fn arrived(&self, buffer: LineBuffer, whole: bool) {
        self.slot.change(|s| (s.buffer, s.full, s.reading) = (Some(buffer), whole, false));
    }
    /// What has arrived, for who is no device.
    pub(super) fn arrival(&self, still: &dyn Fn() -> bool) -> Option<LineBuffer> {
        let ready = |s: &mut Slot| {
            let buffer = s.buffer.take_if(|_| s.full)?;
            s.full = false;
            Some(buffer)
        };
        self.slot.wait_while(ready, still)
    }
    /// A step begins.
    pub(super) fn open(&self) {
        if self.way == Way::In {
            self.slot.change(|s| s.open = true);
        }
    }
    /// A step has ended. Waits for whoever is reading into the slot.
    pub(super) fn close(&self) {
        if self.way == Way::In {
            self.slot.change(|s| s.open = false);
            let _ = self.slot.wait_while(|s| (!s.reading).then_some(()), &|| true);
        }
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
