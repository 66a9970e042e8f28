//! What the executor asks of a device: hold three arenas, load plans, run straight stretches of instructions. Not a
//! launch at a time: a device that records and replays needs to see the whole stretch.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use thalweg_graph::lower::Target;
use thalweg_graph::plan::{ChannelId, Memory, Plan};

use crate::checkpoint::{Pending, ShardOrder};

/// Asks the body of a step to end early. State is untouched: only the tail writes it, and the tail does not look.
#[derive(Clone, Debug, Default)]
pub struct AbortFlag {
    own: Arc<AtomicBool>,
    /// Counts as well, and is not this one's to raise.
    also: Option<Arc<AtomicBool>>,
}

impl AbortFlag {
    /// Asks for the end of the body that is running.
    pub fn raise(&self) {
        self.own.store(true, Ordering::Release);
    }
    /// Whether the end was asked for.
    pub fn is_raised(&self) -> bool {
        self.own.load(Ordering::Acquire) || self.also.as_ref().is_some_and(|f| f.load(Ordering::Acquire))
    }
    /// Takes the request back.
    pub fn clear(&self) {
        self.own.store(false, Ordering::Release);
    }
    /// Another flag that is raised by itself or with this one.
    pub(crate) fn within(&self) -> Self {
        Self { own: Arc::default(), also: Some(self.own.clone()) }
    }
}

/// What can go wrong on a device.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DeviceError {
    /// The device cannot be opened.
    #[error("cannot open {device}: {cause}")]
    Open {
        /// Which device.
        device: Arc<str>,
        /// Why.
        cause: String,
    },
    /// There is not so much memory.
    #[error("{device}: there is no room for {needed} bytes of {memory}{detail}; try a smaller batch")]
    OutOfMemory {
        /// Which device.
        device: Arc<str>,
        /// Which arena.
        memory: &'static str,
        /// Bytes needed.
        needed: u64,
        /// What more the device knows: its limit, what is largest; begins with a separator, or is empty.
        detail: String,
    },
    /// The body was aborted on request.
    #[error("aborted")]
    Aborted,
    /// The device is gone, and with it what was on it: the driver was reset, the card was taken away, or it stopped
    /// answering. Every later call gives this error again.
    #[error(
        "{device} is lost: {cause}; {doing}. What was on it is gone: open the device anew (a new session does) and resume \
         from the last checkpoint"
    )]
    Lost {
        /// Which device.
        device: Arc<str>,
        /// What it was given to do last.
        doing: String,
        /// What the driver says.
        cause: String,
    },
    /// The device gave up on a launch.
    #[error("{device}: {label} failed: {cause}")]
    Launch {
        /// Which device.
        device: Arc<str>,
        /// What it was computing.
        label: Arc<str>,
        /// Why.
        cause: String,
    },
    /// Every device waits, for longer than a step may: nothing would ever happen again. Sound plans do not do that.
    #[error(
        "internal error, please report: {device} has waited {limit:?} at {doing}, and nobody is left who could end it{}",
        others.iter().map(|o| format!("; {o}")).collect::<String>()
    )]
    Stalled {
        /// The device that gave up first.
        device: Arc<str>,
        /// What it waited for: instruction, channel and label.
        doing: String,
        /// How long nothing had happened.
        limit: Duration,
        /// What the others waited for.
        others: Vec<String>,
    },
    /// Its thread panicked: a fault of ours. What it was computing is given up.
    #[error("internal error, please report: the thread of {device} panicked at {doing}: {message}")]
    Panicked {
        /// Which device.
        device: Arc<str>,
        /// Where it was in its plan.
        doing: String,
        /// What the panic says.
        message: String,
    },
    /// Something in another process, or on the way to it.
    #[error("{place}: {cause}")]
    Elsewhere {
        /// Who: `rank 1`.
        place: Arc<str>,
        /// What happened there.
        cause: String,
    },
    /// A process that hosted devices is gone, or the way to it. What was there is lost; the job may go on with others.
    #[error("{place}: {cause}")]
    Gone {
        /// Who: `rank 1`.
        place: Arc<str>,
        /// How that is known.
        cause: String,
    },
    /// It failed while variables were being updated on several devices.
    #[error(
        "{cause}; it happened while variables were being updated: some of them may have been, others not. Resume from the \
         last checkpoint, or reset the model"
    )]
    Torn {
        /// What happened.
        cause: Box<DeviceError>,
    },
}

impl DeviceError {
    /// Whether devices are lost that other ones can replace: see [`Recovery`](crate::session::Recovery).
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Gone { .. } => true,
            Self::Torn { cause } => cause.is_loss(),
            _ => false,
        }
    }
}

/// When one instruction ran, on the device's own clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Which plan.
    pub loaded: Loaded,
    /// Which instruction of it.
    pub instruction: usize,
    /// Since the device was made.
    pub start: Duration,
    /// How long it took.
    pub took: Duration,
}

/// A plan made ready on a device, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Loaded(pub usize);

/// Memory of the caller's that stands in for the buffer of a channel for a whole step, so that nothing is copied.
#[derive(Debug)]
pub enum Lent<'a> {
    /// What arrives by the channel is read here.
    Feed(ChannelId, &'a [u8]),
    /// What leaves by the channel is written here, whole, before it is posted; and read here afterwards.
    Output(ChannelId, &'a mut [u8]),
}

/// Bytes of an arena, and where they are wanted.
#[derive(Debug)]
pub struct ReadInto<'a> {
    /// Which arena.
    pub memory: Memory,
    /// The first byte.
    pub offset: u64,
    /// As many as fit here.
    pub bytes: &'a mut [u8],
}

/// One place where kernels run.
pub trait Device: Send {
    /// What lowering has to know of it.
    fn target(&self) -> &dyn Target;
    /// Makes room for variables. Called once, before anything is loaded.
    fn reserve_state(&mut self, bytes: u64) -> Result<(), DeviceError>;
    /// Makes its part of a verified plan ready: kernels compiled, arenas large enough.
    fn load(&mut self, plan: &Arc<Plan>, part: usize) -> Result<Loaded, DeviceError>;
    /// Frees what was made ready for `loaded`; its number may be given again.
    fn unload(&mut self, loaded: Loaded);
    /// Runs the launches and copies of `range`, in order. In the body it looks at `abort` between launches.
    fn run(&mut self, loaded: Loaded, range: Range<usize>, abort: Option<&AbortFlag>) -> Result<(), DeviceError>;
    /// Whether other memory may stand in for the buffers of channels, see [`Lent`], wherever
    /// [`lendable`](thalweg_graph::plan::lend::lendable) says so. The room that plans have for them in the arenas is then
    /// not touched.
    fn borrows(&self) -> bool {
        false
    }
    /// [`Device::run`] with memory of the caller's, if it [borrows](Device::borrows). What is lent is as long as the channel
    /// says, and the same for every stretch of a step that uses the buffer; other stretches may do without.
    fn run_lent(
        &mut self,
        loaded: Loaded,
        range: Range<usize>,
        abort: Option<&AbortFlag>,
        lent: &mut [Lent<'_>],
    ) -> Result<(), DeviceError> {
        assert!(lent.is_empty(), "a device that borrows nothing is lent nothing");
        self.run(loaded, range, abort)
    }
    /// Starts or stops timing instructions; gives the timings so far. Timing costs a little, and is off at first.
    fn time(&mut self, on: bool) -> Vec<Timing>;
    /// The time on the clock that its timings are read from, since it was made.
    fn now(&self) -> Duration;
    /// How an instruction runs on this device, for people: `contraction 64×10×32`.
    fn strategy(&self, loaded: Loaded, instruction: usize) -> String;
    /// Writes bytes into an arena.
    fn write(&mut self, memory: Memory, offset: u64, bytes: &[u8]) -> Result<(), DeviceError>;
    /// Reads bytes of an arena.
    fn read(&mut self, memory: Memory, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError>;
    /// Bytes of an arena where they are, if the caller can look at them there: then nothing needs to be copied for them to be
    /// sent. No more is said than [`Device::read`] would say.
    fn peek(&self, memory: Memory, offset: u64, len: usize) -> Option<&[u8]> {
        let _ = (memory, offset, len);
        None
    }
    /// Reads bytes of many places at once: for a device to which every question is a journey.
    ///
    /// # Errors
    /// As [`Device::read`]; what was to be read is then unspecified.
    fn read_many(&mut self, reads: &mut [ReadInto<'_>]) -> Result<(), DeviceError> {
        reads.iter_mut().try_for_each(|r| self.read(r.memory, r.offset, r.bytes))
    }
    /// Bytes that it has reserved, by arena: what a plan's figures are compared with.
    fn reserved(&self, memory: Memory) -> u64;
    /// Copies pieces of its state and has them written to a file beside the steps, where it is in a process that reaches the
    /// file; what is returned waits for that.
    ///
    /// # Errors
    /// If it is not, or cannot copy them.
    fn save(&mut self, order: &ShardOrder) -> Result<Pending, DeviceError> {
        let (device, id) = (self.target().name(), order.id);
        Err(DeviceError::Open { device, cause: format!("it writes no files, and so no shard of {id}") })
    }
}
