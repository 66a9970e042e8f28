//! The plan: everything that happens in a step, on every device, before it happens. Complete, ordered, printable and
//! hashed; a session runs nothing else. One device is a plan whose only channels are the caller's feeds and fetches.
//!
//! Devices run their instructions in order, step after step, and meet only in channels. Between two devices a channel has
//! one slot, the buffer that its `wait` names, and the slot has one owner at a time:
//!
//! ```text
//! sender      … write b ─ post #c b ─────────────── sent #c ─ b may be written again …
//!                             │  ▲                     ▲
//!                             │  └── a grant           └── the bytes have been taken
//!                             ▼
//! receiver    grant #c … wait #c s ─ read s … ─ grant #c …
//! ```
//!
//! `post` waits for a grant, `wait` for the post, `sent` for the bytes to be taken. A `sent` follows its `post` in the same
//! step. A `grant` stands before its `wait`, and frees the slot for this step's value; or behind it and its last reader, and
//! frees it for the next step's: such a slot is free when the first step begins. From a grant to the next wait the slot is
//! the sender's: the receiver neither reads nor writes its bytes. Feeds and fetches need neither grant nor `sent`: the
//! driver writes when the device waits and reads when the device posts. Nobody's tail begins before everybody's body has
//! ended.

pub mod lend;
mod memory;
pub mod mutate;
pub mod simulate;
pub mod trial;
mod verify;

pub use memory::{DeviceMemory, mib};
pub use verify::{Certificate, Fault, FaultKind, Peak, Place};

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::Arena;
use crate::ir::Site;
use crate::kernel::{BufferType, Kernel};
use crate::types::Bindings;

crate::id! {
    /// A kernel of the plan's table.
    KernelId, "k"
}
crate::id! {
    /// A buffer of a device.
    BufferId, "b"
}
crate::id! {
    /// One tensor crossing one boundary, once per step.
    ChannelId, "#"
}

/// A whole step of one program, for given extents.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The graph's name.
    pub graph: Arc<str>,
    /// The program's name.
    pub program: Arc<str>,
    /// Values of the named dimensions.
    pub bindings: Bindings,
    /// Each distinct kernel once.
    pub kernels: Arena<KernelId, Kernel>,
    /// What crosses boundaries.
    pub channels: Arena<ChannelId, Channel>,
    /// One per device.
    pub devices: Vec<DevicePlan>,
}

/// One end of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Endpoint {
    /// The caller: feeds come from it and fetches go to it.
    Driver,
    /// A device, by its place in the plan.
    Device(u16),
}

/// One tensor crossing one boundary, once per step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Channel {
    /// Who posts.
    pub from: Endpoint,
    /// Who waits.
    pub to: Endpoint,
    /// What crosses.
    pub ty: BufferType,
    /// Where it lies in the array that is fed or returned: the first element. 0 between devices.
    pub start: u64,
    /// Name of the input, the output or the value.
    pub label: Arc<str>,
}

/// A region of a device's memory with one way of life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Memory {
    /// Variables, at fixed addresses for as long as the session lives.
    State,
    /// Everything between, reused within the step.
    Scratch,
    /// Where channels arrive and leave.
    Staging,
}

impl Memory {
    /// Every one of them.
    pub const ALL: [Memory; 3] = [Memory::State, Memory::Scratch, Memory::Staging];
    /// The one called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }
    /// The name used in text.
    pub const fn name(self) -> &'static str {
        match self {
            Memory::State => "state",
            Memory::Scratch => "scratch",
            Memory::Staging => "staging",
        }
    }
}

/// A tensor's place.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Buffer {
    /// Which arena.
    pub memory: Memory,
    /// First byte.
    pub offset: u64,
    /// What lies there.
    pub ty: BufferType,
    /// What lies here end to end and is used as one; none for an ordinary buffer.
    pub pieces: Vec<Piece>,
}

/// A run of elements of a buffer that has no pieces itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Piece {
    /// Whose elements.
    pub buffer: BufferId,
    /// The first of them.
    pub start: u64,
    /// The first that is not.
    pub end: u64,
}

impl Buffer {
    /// The bytes it covers; saturates where a malformed one would overflow.
    pub fn range(&self) -> std::ops::Range<u64> {
        let elements = self.ty.checked_len().unwrap_or(u64::MAX);
        let size = elements.saturating_mul(self.ty.dtype.size_bytes() as u64);
        self.offset..self.offset.saturating_add(size)
    }
    /// The bytes of a piece of it.
    pub fn piece(&self, piece: &Piece) -> std::ops::Range<u64> {
        let at = |n: u64| self.offset.saturating_add(n.saturating_mul(self.ty.dtype.size_bytes() as u64));
        at(piece.start)..at(piece.end)
    }
    /// All of a buffer without pieces, as a piece of another.
    pub fn whole(&self, id: BufferId) -> Piece {
        Piece { buffer: id, start: 0, end: self.ty.checked_len().unwrap_or(u64::MAX) }
    }
}

/// What one device does in a step.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DevicePlan {
    /// The device's name.
    pub device: Arc<str>,
    /// Bytes of the state arena; the same in every plan of a session.
    pub state_bytes: u64,
    /// Bytes of the scratch arena: the peak, known before anything runs.
    pub scratch_bytes: u64,
    /// Bytes of the staging arena.
    pub staging_bytes: u64,
    /// Where tensors lie.
    pub buffers: Arena<BufferId, Buffer>,
    /// What is done, in order: the body, `commit`, the tail.
    pub instructions: Vec<Instruction>,
}

/// One thing a device does.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Instruction {
    /// Run a kernel.
    Launch(Launch),
    /// Move bytes within the device.
    Copy {
        /// From here.
        from: BufferId,
        /// To here.
        to: BufferId,
    },
    /// The receive slot of this channel is dead: the peer may write it.
    Grant(ChannelId),
    /// Hand this buffer to the channel.
    Post {
        /// The channel.
        channel: ChannelId,
        /// What is sent.
        buffer: BufferId,
    },
    /// The buffer that was posted is mine again.
    Sent(ChannelId),
    /// The value has arrived in this buffer, whole and checked.
    Wait {
        /// The channel.
        channel: ChannelId,
        /// Where it arrives.
        buffer: BufferId,
    },
    /// Copy state for a checkpoint.
    Snapshot,
    /// The body ends and the tail begins: from here on state is updated in place and nothing may be aborted.
    Commit,
}

impl Instruction {
    /// The buffers that a launch or a copy uses; of others none.
    pub fn uses(&self) -> Vec<BufferId> {
        match self {
            Instruction::Launch(launch) => launch.reads.iter().chain(&launch.writes).copied().collect(),
            Instruction::Copy { from, to } => vec![*from, *to],
            _ => vec![],
        }
    }
}

/// One run of one kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launch {
    /// Which kernel.
    pub kernel: KernelId,
    /// Its operands.
    pub reads: Vec<BufferId>,
    /// Its results.
    pub writes: Vec<BufferId>,
    /// Scratch that is its own while it runs: offset and bytes.
    pub workspace: (u64, u64),
    /// What it computes, for people: scope, name and op.
    pub label: Arc<str>,
    /// The user's line. Not part of the plan's identity.
    #[serde(skip)]
    pub site: Site,
}

/// By hand, because of the site: a plan is the same plan wherever the model's lines have moved, as its bytes and its hash
/// say too. All fields are named here, so that a new one has to be decided on.
impl PartialEq for Launch {
    fn eq(&self, other: &Self) -> bool {
        let Self { kernel, reads, writes, workspace, label, site: _ } = self;
        (kernel, reads, writes, workspace, label)
            == (&other.kernel, &other.reads, &other.writes, &other.workspace, &other.label)
    }
}

impl DevicePlan {
    /// Where the tail begins: the place after `commit`, or the end.
    pub fn tail_start(&self) -> usize {
        self.instructions.iter().position(|i| *i == Instruction::Commit).map_or(self.instructions.len(), |i| i + 1)
    }
    /// Every launch with its place.
    pub fn launches(&self) -> impl Iterator<Item = (usize, &Launch)> {
        self.instructions.iter().enumerate().filter_map(|(i, inst)| match inst {
            Instruction::Launch(launch) => Some((i, launch)),
            _ => None,
        })
    }
    /// Every launch.
    pub(crate) fn launches_mut(&mut self) -> impl Iterator<Item = &mut Launch> {
        self.instructions.iter_mut().filter_map(|inst| match inst {
            Instruction::Launch(launch) => Some(launch),
            _ => None,
        })
    }
    /// Bytes of an arena.
    pub fn bytes(&self, memory: Memory) -> u64 {
        match memory {
            Memory::State => self.state_bytes,
            Memory::Scratch => self.scratch_bytes,
            Memory::Staging => self.staging_bytes,
        }
    }
}

impl Plan {
    /// Shows that it is sound, on every device and over any number of steps, or says what is wrong: see
    /// [`Certificate`] for what is shown. The list of faults is never empty and not long.
    pub fn certify(&self) -> Result<Certificate, Vec<Fault>> {
        verify::certify(self)
    }
    /// Everything that is wrong with it, in words; empty when sound. A device loads only plans that have passed, and
    /// checks again those that come from a peer. Like [`Plan::certify`], but it names nothing by its hash.
    pub fn verify(&self) -> Vec<String> {
        verify::verify(self).iter().map(Fault::to_string).collect()
    }
}
