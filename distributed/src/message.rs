//! What driver and workers say to each other beside what channels carry: orders, which only the driver gives, and reports.
//! A message is a few words and, for some, bytes with it (a plan, a stretch of variables). How they travel is `control`'s.

use std::net::SocketAddr;
use std::sync::Arc;

use thalweg_graph::plan::Memory;
use thalweg_runtime::checkpoint::{ShardOrder, ShardReport};
use thalweg_runtime::source::{Samples, SourceSpec};

/// What the driver wants of a worker.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Order {
    /// You are one of the job.
    Welcome {
        /// What is said and carried from here on is of this term.
        term: u32,
        rank: u16,
        /// Where the workers take connections, by rank.
        workers: Vec<SocketAddr>,
        /// What to open: its name and threads.
        device: String,
        threads: u32,
        /// Whether it is only measured what sending takes.
        null: bool,
    },
    /// You are not, since.
    Refuse(String),
    /// Make room for variables.
    ReserveState(u64),
    /// Make the plan ready whose bytes follow, and whose hash this is.
    Load([u8; 32]),
    Unload(u32),
    /// Write the bytes that follow.
    Write(Memory, u64),
    /// Report so many bytes.
    Read(Memory, u64, u32),
    /// Copy pieces of the state, and write them.
    Save(ShardOrder),
    /// Report how many bytes are reserved.
    Reserved(Memory),
    /// Time instructions from here on, or no longer; report what was timed so far.
    Time(bool),
    /// Report what the device's clock says.
    Clock,
    /// Report how an instruction of a loaded plan runs.
    Strategy(u32, u32),
    /// Note what crosses channels, or no longer.
    Watch(bool),
    /// Report what crossed channels in the last step.
    Crossed,
    /// Open a data set, and call it by this number; report the facts of it.
    Open(u32, SourceSpec),
    /// Run a step of a loaded plan; some of its inputs are drawn and not fed.
    Run {
        step: u64,
        loaded: u32,
        draws: Arc<[Drawn]>,
    },
    /// All bodies have ended: whether to commit.
    Decide {
        step: u64,
        commit: bool,
    },
    /// Give the body up.
    Abort {
        step: u64,
    },
    /// The job is over.
    Leave,
}

/// Samples that a step takes, read by whoever hosts a device.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Drawn {
    /// The number of a data set that was opened.
    pub(crate) source: u32,
    pub(crate) samples: Samples,
    /// Numbers of fields: each is the value of the input of its name.
    pub(crate) fields: Vec<u32>,
    /// What the next step will take, if that is known.
    pub(crate) next: Option<Samples>,
}

/// What a worker tells the driver.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Report {
    /// I would take part.
    Join {
        /// The version of the build.
        version: String,
        /// Where I take connections of other workers.
        address: SocketAddr,
        process: u32,
        /// Who I would be.
        rank: Option<u16>,
    },
    /// I am joined to all others.
    Ready,
    /// What came of an order that is answered; bytes may follow.
    Answer(Result<u64, String>),
    /// What I was to save is written, or not.
    Saved(Result<ShardReport, String>),
    /// Nothing has happened; but I am here, and this is what my device is doing in the step that runs.
    Alive { doing: String },
    /// My body has ended.
    Voted { step: u64 },
    /// The step has ended.
    Done {
        step: u64,
        committed: bool,
        /// By channel, what left here for other devices, or was copied where it arrived: transfers, bytes, bytes copied.
        carried: Vec<(u32, u64, u64, u64)>,
    },
    /// The step has ended here, without a commit unless it failed in the tail.
    Failed { step: u64, cause: Cause, in_tail: bool },
}

/// Why a step ended. What lies deeper counts more: that others were stopped is the cause of nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    /// It was asked for.
    Aborted,
    /// A connection ended; whoever was at its other end knows better.
    Unreachable(String),
    /// What came by a connection is not what was sent.
    Damage(String),
    /// Something went wrong on a device.
    Fault(String),
    /// A process is gone.
    Gone(String),
}

impl Cause {
    fn depth(&self) -> u8 {
        match self {
            Cause::Aborted => 0,
            Cause::Unreachable(_) => 1,
            Cause::Damage(_) | Cause::Fault(_) => 2,
            Cause::Gone(_) => 3,
        }
    }
    /// Whether it says more than what is known. Of two that lie equally deep the first counts.
    pub(crate) fn is_deeper(&self, known: &Self) -> bool {
        self.depth() > known.depth()
    }
    /// Whether it ends the term: what is lost or cannot be told from damage has to be made anew.
    pub(crate) fn ends_term(&self) -> bool {
        matches!(self, Cause::Unreachable(_) | Cause::Damage(_) | Cause::Gone(_))
    }
    pub(crate) fn text(&self) -> &str {
        match self {
            Cause::Aborted => "aborted",
            Cause::Unreachable(text) | Cause::Damage(text) | Cause::Fault(text) | Cause::Gone(text) => text,
        }
    }
}
