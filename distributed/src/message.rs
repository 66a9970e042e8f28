//! What driver and workers say to each other beside what channels carry: orders, which only the driver gives, and reports.
//! A message is a few words and, for some, bytes behind them (a plan, a stretch of variables). It is read a chunk at a time
//! and never larger than its kind may be: what a peer says of lengths sizes nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thalweg_graph::plan::Memory;

use crate::auth::JobKey;
use crate::frame::{self, CHUNK_BYTES, FrameError, Header, Kind};
use crate::lock;

/// The most bytes of a message: plans are the largest.
const MESSAGE_BYTES: usize = 256 << 20;

/// What the driver wants of a worker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// You are one of the job.
    Welcome {
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
    /// Report how many bytes are reserved.
    Reserved(Memory),
    /// Run a step of a loaded plan.
    Run {
        step: u64,
        loaded: u32,
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

/// What a worker tells the driver.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// I would take part.
    Join {
        /// The version of the build.
        version: String,
        /// Where I take connections of other workers.
        address: SocketAddr,
        process: u32,
    },
    /// I am joined to all others.
    Ready,
    /// What came of an order that is answered; bytes may follow.
    Answer(Result<u64, String>),
    /// Nothing to say; but I am here.
    Alive,
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
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Cause {
    /// It was asked for.
    Aborted,
    /// A connection ended; whoever was at its other end knows better.
    Unreachable(String),
    /// Something went wrong on the way, or on a device.
    Fault(String),
    /// A process is gone.
    Gone(String),
}

impl Cause {
    fn depth(&self) -> u8 {
        match self {
            Cause::Aborted => 0,
            Cause::Unreachable(_) => 1,
            Cause::Fault(_) => 2,
            Cause::Gone(_) => 3,
        }
    }
    /// Whether it says more than what is known. Of two that lie equally deep the first counts.
    pub(crate) fn is_deeper(&self, known: &Self) -> bool {
        self.depth() > known.depth()
    }
    pub(crate) fn text(&self) -> &str {
        match self {
            Cause::Aborted => "aborted",
            Cause::Unreachable(text) | Cause::Fault(text) | Cause::Gone(text) => text,
        }
    }
}

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a message of more than {MESSAGE_BYTES} bytes")]
    Long,
    #[error("a frame that is no part of a message, or out of order")]
    Order,
    #[error("a message that makes no sense: {0}")]
    Malformed(postcard::Error),
}

/// A control connection, to write to.
pub(crate) struct Line {
    stream: Mutex<TcpStream>,
    job: u64,
    term: u32,
}

impl Line {
    pub(crate) fn new(stream: TcpStream, key: &JobKey, term: u32) -> Self {
        Self { stream: Mutex::new(stream), job: key.job(), term }
    }
    /// Says something.
    ///
    /// # Errors
    /// If the connection does not take it.
    pub(crate) fn say(&self, message: &impl Serialize, bytes: &[u8]) -> std::io::Result<()> {
        let mut all = postcard::to_stdvec(message).map_err(std::io::Error::other)?;
        all.extend_from_slice(bytes);
        write(&mut *lock(&self.stream), self.job, self.term, &all)
    }
    /// Ends the connection, both ways.
    pub(crate) fn hang_up(&self) {
        let _ = lock(&self.stream).shutdown(std::net::Shutdown::Both);
    }
}

fn write(to: &mut impl Write, job: u64, term: u32, all: &[u8]) -> std::io::Result<()> {
    let (kind, last, over, plan, step, channel, chunk, len, crc) = (Kind::Control, false, 1, 0, 0, 0, 0, 0, 0);
    frame::write_all(to, Header { kind, last, over, job, term, plan, step, channel, chunk, len, crc }, all, true)
}

/// What is said next, and the bytes behind it.
pub(crate) fn hear<T: DeserializeOwned>(
    from: &mut impl Read,
    job: u64,
    term: u32,
) -> Result<(T, Vec<u8>), MessageError> {
    let (mut all, mut parts) = (Vec::new(), 0);
    loop {
        let header = Header::read(from)?;
        if (header.job, header.term) != (job, term) {
            return Err(FrameError::Foreign { job: header.job, term: header.term }.into());
        }
        if header.kind != Kind::Control || header.chunk != parts {
            return Err(MessageError::Order);
        }
        let (at, len) = (all.len(), header.len as usize);
        if at + len > MESSAGE_BYTES || (len == 0 && !header.last) {
            return Err(MessageError::Long);
        }
        // A chunk at most, of which the header's checksum was right.
        debug_assert!(len <= CHUNK_BYTES);
        all.resize(at + len, 0);
        header.payload(from, &mut all[at..], true)?;
        parts += 1;
        if header.last {
            break;
        }
    }
    let (message, behind) = postcard::take_from_bytes(&all).map_err(MessageError::Malformed)?;
    let behind = behind.to_vec();
    Ok((message, behind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_come_with_what_is_behind_them() {
        for bytes in [0, 10, CHUNK_BYTES, 2 * CHUNK_BYTES + 1] {
            let bytes: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
            let (order, mut out) = (Order::Write(Memory::State, 7), vec![]);
            let mut all = postcard::to_stdvec(&order).expect("memory");
            all.extend_from_slice(&bytes);
            write(&mut out, 1, 2, &all).expect("memory");
            let (heard, behind) = hear::<Order>(&mut &out[..], 1, 2).expect("a message");
            assert!(heard == order && behind == bytes);
            let other = hear::<Order>(&mut &out[..], 1, 3).expect_err("another term");
            assert!(matches!(other, MessageError::Frame(FrameError::Foreign { term: 2, .. })), "{other}");
        }
    }

    proptest! {
        /// Whatever a peer says, also in sound frames: a message or an error.
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = vec![];
            write(&mut out, 1, 2, &bytes).expect("memory");
            let _ = hear::<Order>(&mut &out[..], 1, 2);
            let _ = hear::<Report>(&mut &out[..], 1, 2);
            let _ = hear::<Report>(&mut &bytes[..], 1, 2);
        }
    }
}
