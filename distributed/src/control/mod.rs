//! Control connections: what driver and workers [say](crate::message) to each other, by gRPC. A worker that has proved the key
//! attends, and from then on either side has a [`Line`] to speak on and a [`Hearing`] to listen at, which block, as
//! everything around them does; sockets are the background thread's.
//!
//! One call per connection, in both directions at once. Bytes that belong to a message follow it in pieces, so that nothing on
//! the wire is large, and what is received is never more than what its kind may have.

mod client;
mod draws;
pub(crate) mod fuzzing;
mod pieces;
pub(crate) mod samples;
mod save;
mod server;
mod wire;

use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tonic::{Code, Status, Streaming};

pub(crate) use client::attend;
pub(crate) use pieces::MessageError;
pub(crate) use server::{Attending, Reception};

use crate::socket::Socket;
use crate::{background, lock, patience};
use pieces::Pieces;
use wire::Message;

/// What the proto says, as Rust.
#[allow(missing_docs, unreachable_pub, clippy::all)]
mod proto {
    tonic::include_proto!("thalweg.control.v1");
}

/// The most bytes of one message as gRPC sees it; pieces are smaller.
const WIRE_BYTES: usize = 8 << 20;
/// Messages and pieces that wait for the connection to take them.
const QUEUE: usize = 8;
/// Bytes that a peer may send before they are looked at.
const WINDOW_BYTES: u32 = 4 << 20;
/// How long a peer may take nothing of what it is told.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// How long a connection may take to end once this side has nothing more to say.
const PARTING_LIMIT: Duration = Duration::from_secs(1);
/// How often both ends look whether the other is there, and how long it may take to answer. Together longer than a worker
/// may be [silent](crate::SILENCE_LIMIT): that says who it was. This finds ends that nobody waits for.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(15));

/// A way to speak to the other side.
pub(crate) struct Line<M: Message> {
    speaking: Mutex<()>,
    end: Arc<End<M>>,
}

/// What is said at the other side.
pub(crate) struct Hearing<M: Message, Answer: Message> {
    from: Streaming<M::Wire>,
    end: Arc<End<Answer>>,
}

/// This side's end of a connection.
struct End<M: Message> {
    /// Nothing, once either side has hung up.
    queue: Mutex<Option<Sender<M::Wire>>>,
    /// When this side did, or heard that the other has.
    finished: Mutex<Option<Instant>>,
    cut: Cut,
    /// Ends when the connection is closed.
    closed: Mutex<mpsc::Receiver<()>>,
}

/// Dropped with a socket: so it is known that it is closed.
type Open = mpsc::Sender<()>;

/// Ends a connection at once, both ways.
type Cut = Box<dyn Fn() + Send + Sync>;

/// What is kept of a socket to end the connection with, and to know that it has ended.
struct Handle(Cut, mpsc::Receiver<()>);

impl Handle {
    /// With what the socket is to keep.
    fn of(socket: &Socket) -> io::Result<(Open, Self)> {
        let tcp = socket.end()?;
        Ok(Self::new(Box::new(move || drop(tcp.shutdown(Shutdown::Both)))))
    }
    fn new(cut: Cut) -> (Open, Self) {
        let (open, closed) = mpsc::channel();
        (open, Self(cut, closed))
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the connection was closed")
}

/// Both ends that this side has of a connection.
fn ends<M: Message, A: Message>(
    from: Streaming<M::Wire>,
    queue: Sender<A::Wire>,
    Handle(cut, closed): Handle,
) -> (Line<A>, Hearing<M, A>) {
    let (queue, finished, closed) = (Mutex::new(Some(queue)), Mutex::default(), Mutex::new(closed));
    let end = Arc::new(End { queue, finished, cut, closed });
    (Line { speaking: Mutex::default(), end: end.clone() }, Hearing { from, end })
}

impl<M: Message> Line<M> {
    /// Says something, and the `bytes` that belong to it. What is said is sent in this order, and soon.
    ///
    /// # Errors
    /// If the connection has ended, or does not take it.
    pub(crate) fn say(&self, message: &M, bytes: &[u8]) -> io::Result<()> {
        let speaking = lock(&self.speaking);
        let queue = lock(&self.end.queue).clone().ok_or_else(closed)?;
        let wires = pieces::cut(message, bytes)?;
        wires.into_iter().try_for_each(|wire| Self::queue(&queue, wire))?;
        drop(speaking);
        Ok(())
    }
    fn queue(queue: &Sender<M::Wire>, wire: M::Wire) -> io::Result<()> {
        match queue.try_send(wire) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(closed()),
            Err(TrySendError::Full(wire)) => background::wait(Self::queue_soon(queue, wire)),
        }
    }
    async fn queue_soon(queue: &Sender<M::Wire>, wire: M::Wire) -> io::Result<()> {
        let sent = async { queue.send(wire).await.map_err(|_| closed()) };
        background::within(patience(STALL_LIMIT), sent).await
    }
    /// Whether the connection is open.
    pub(crate) fn is_open(&self) -> bool {
        matches!(lock(&self.end.closed).try_recv(), Err(mpsc::TryRecvError::Empty))
    }
    /// Says nothing more, which the other side hears.
    pub(crate) fn finish(&self) {
        self.end.finish();
    }
    /// Ends the connection, both ways: the other side hears what was said so far, if it listens, and hangs up as well. Waits for
    /// that, but not for long.
    pub(crate) fn hang_up(&self) {
        let until = self.end.finish() + PARTING_LIMIT;
        // Nothing is ever sent: it is over when the connection is, or when it takes too long.
        let _ = lock(&self.end.closed).recv_timeout(until.saturating_duration_since(Instant::now()));
        (self.end.cut)();
    }
}

impl<M: Message> End<M> {
    /// Nothing more is said; gives since when.
    fn finish(&self) -> Instant {
        lock(&self.queue).take();
        *lock(&self.finished).get_or_insert_with(Instant::now)
    }
}

impl<M: Message, A: Message> Hearing<M, A> {
    /// What is said next, and the bytes with it. Waits for it; after an error nothing comes any more.
    ///
    /// # Errors
    /// If the connection ends, or what comes is no message.
    pub(crate) fn hear(&mut self) -> Result<(M, Vec<u8>), MessageError> {
        let handle = background::handle().map_err(|e| MessageError::Lost(e.to_string()))?;
        handle.block_on(self.heard())
    }
    /// The same for who awaits it.
    async fn heard(&mut self) -> Result<(M, Vec<u8>), MessageError> {
        // Who hangs up is not answered.
        Self::next(&mut self.from).await.inspect_err(|_| {
            self.end.finish();
        })
    }
    /// What is said next, if it is said in time.
    ///
    /// # Errors
    /// As [`hear`](Self::hear), and if it is not.
    pub(crate) fn hear_within(&mut self, limit: Duration) -> Result<(M, Vec<u8>), MessageError> {
        let handle = background::handle().map_err(|e| MessageError::Lost(e.to_string()))?;
        let next = Self::next(&mut self.from);
        let heard = handle.block_on(async { tokio::time::timeout(limit, next).await });
        heard.unwrap_or(Err(MessageError::Late(limit))).inspect_err(|_| {
            self.end.finish();
        })
    }
    /// Tells all that is said from here on, an error last. `told` is called on the background thread, where it must not wait for
    /// anything.
    ///
    /// # Errors
    /// If there is no such thread.
    pub(crate) fn each(
        mut self,
        mut told: impl FnMut(Result<(M, Vec<u8>), MessageError>) + Send + 'static,
    ) -> io::Result<()> {
        let hearing = async move {
            loop {
                let heard = self.heard().await;
                let last = heard.is_err();
                told(heard);
                if last {
                    return;
                }
            }
        };
        background::handle()?.spawn(hearing);
        Ok(())
    }
    async fn next(from: &mut Streaming<M::Wire>) -> Result<(M, Vec<u8>), MessageError> {
        let mut pieces = Pieces::default();
        loop {
            let wire = from.message().await.map_err(|status| lost(&status))?.ok_or(MessageError::Closed)?;
            if let Some(whole) = pieces.add(M::from_wire(wire)?)? {
                return Ok(whole);
            }
        }
    }
}

/// Why nothing came. What gRPC says of it says less than what is beneath.
fn lost(status: &Status) -> MessageError {
    let beneath = std::iter::successors(std::error::Error::source(status), |error| error.source()).last();
    let h2 = beneath.and_then(|error| error.downcast_ref::<h2::Error>());
    let io = h2.and_then(h2::Error::get_io).or_else(|| beneath.and_then(|error| error.downcast_ref()));
    let ended = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof];
    if io.is_some_and(|io| ended.contains(&io.kind())) || status.code() == Code::Cancelled {
        return MessageError::Closed;
    }
    MessageError::Lost(beneath.map_or_else(|| status.message().into(), ToString::to_string))
}

#[cfg(test)]
mod storms;
#[cfg(test)]
mod tests;
