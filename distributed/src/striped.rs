//! Several connections to one peer, and large values spread over them: part `i` goes by connection `i` modulo their number, so
//! that several cores carry one value. All else goes by the first, which also says when a value is spread; the others are
//! silent in between. One thread writes to all in turn; at the other end each is read by a thread of its own, straight to its
//! places in the slot.

use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::auth::HANDSHAKE_LIMIT;
use crate::frame::{self, CHUNK_BYTES, FrameError, Header};
use crate::stream::Stream;

/// Connections between two workers, where there are cores for them.
const CONNECTIONS: u8 = 2;
/// Values of so many bytes are spread.
pub(crate) const SPREAD_BYTES: usize = 2 << 20;

/// What is read of a connection.
pub(crate) type Incoming = BufReader<Stream>;

/// Why what a peer sent is not taken.
pub(crate) enum Refused {
    Frame(FrameError),
    Wrong(String),
    /// The job is over.
    Closed,
}

impl From<FrameError> for Refused {
    fn from(error: FrameError) -> Self {
        Refused::Frame(error)
    }
}

/// The connections to a peer, to write to.
pub(crate) struct Outbound(Vec<Stream>);

/// The connections from a peer, to read.
pub(crate) struct Inbound {
    pub(crate) first: Incoming,
    more: Vec<Incoming>,
    /// All of them, to be ended at once.
    ends: Vec<Stream>,
}

/// How many connections each of so many workers of this machine should have to each other: where a worker has but one core,
/// or less, a second reader only takes turns with the first.
pub(crate) fn connections(workers: usize) -> u8 {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if cores >= workers * usize::from(CONNECTIONS) { CONNECTIONS } else { 1 }
}

/// Says which of how many connections this is: who asks for them decides, and they may be accepted in another order.
pub(crate) fn announce(stream: &mut Stream, number: u8, of: u8) -> io::Result<()> {
    stream.write_all(&[number, of])
}

/// Which of how many the other end says that it is.
pub(crate) fn announced(stream: &mut Stream) -> io::Result<(u8, u8)> {
    let mut said = [0; 2];
    stream.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
    stream.read_exact(&mut said)?;
    stream.set_read_timeout(None)?;
    let [number, of] = said;
    if number < of { Ok((number, of)) } else { Err(io::Error::other(format!("connection {number} of {of}"))) }
}

/// Over how many of `connections` a value of so many bytes is spread.
fn spread(bytes: usize, connections: usize) -> usize {
    if bytes < SPREAD_BYTES { 1 } else { connections }
}

impl Outbound {
    pub(crate) fn new(streams: Vec<Stream>) -> Self {
        Self(streams)
    }
    /// Sends a value, or a message without bytes.
    pub(crate) fn send(&mut self, header: Header, bytes: &[u8], checked: bool) -> io::Result<()> {
        let over = spread(bytes.len(), self.0.len());
        let header = Header { over: over as u8, ..header };
        frame::write_over(&mut self.0[..over], header, bytes, checked)
    }
}

impl Inbound {
    /// `ahead` bytes are read at once.
    pub(crate) fn new(streams: Vec<Stream>, ahead: usize) -> io::Result<Self> {
        let ends = streams.iter().map(Stream::try_clone).collect::<io::Result<_>>()?;
        let mut all = streams.into_iter().map(|s| BufReader::with_capacity(ahead, s));
        let first = all.next().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Self { first, more: all.collect(), ends })
    }
    /// Ends all of them, both ways.
    pub(crate) fn shut(&self) {
        self.ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
    }
    /// The rest of the value that begins with `header`, into all of `room`.
    pub(crate) fn value(&mut self, header: Header, room: &mut [u8], checked: bool) -> Result<(), Refused> {
        let over = self.over(&header)?;
        let bytes = room.len();
        if over == 1 {
            let at = whole(header, &mut self.first, room, checked)?;
            let fits = at == bytes;
            return fits
                .then_some(())
                .ok_or_else(|| Refused::Wrong(format!("{at} bytes, where there should be {bytes}")));
        }
        let count = bytes.div_ceil(CHUNK_BYTES);
        let mut rooms: Vec<Vec<(usize, &mut [u8])>> = (0..over).map(|_| vec![]).collect();
        room.chunks_mut(CHUNK_BYTES).enumerate().for_each(|(part, room)| rooms[part % over].push((part, room)));
        let (ends, mut rooms) = (&self.ends, rooms.into_iter());
        let own = rooms.next().unwrap_or_default();
        // The first is the cause: what the others see may come of their being ended for it.
        let cause = Mutex::new(None);
        let refuse = |refused: Refused| {
            cause.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(refused);
            // Nobody waits for a value that will not be whole.
            hear_no_more(ends);
        };
        thread::scope(|scope| {
            let mut others = vec![];
            for (number, (stream, rooms)) in (2..).zip(self.more.iter_mut().zip(rooms)) {
                let reading = thread::Builder::new().name(format!("part {number}"));
                let read = move || {
                    let read = parts(header, None, count, stream, rooms, checked);
                    let _ = read.map_err(|e| refuse(on_connection(e, number, over)));
                };
                match reading.spawn_scoped(scope, read) {
                    Ok(reading) => others.push(reading),
                    Err(e) => refuse(Refused::Frame(FrameError::Io(format!("cannot start a thread: {e}")))),
                }
            }
            let _ = parts(header, Some(header), count, &mut self.first, own, checked).map_err(refuse);
            if others.into_iter().any(|reading| reading.join().is_err()) {
                refuse(Refused::Wrong("internal error, please report: its reader panicked".into()));
            }
        });
        cause.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
    /// Reads a value that nobody wants any more: in the order in which it was written, so that nobody waits for the other.
    pub(crate) fn drop_value(&mut self, header: Header, spare: &mut Vec<u8>, checked: bool) -> Result<(), Refused> {
        spare.resize(CHUNK_BYTES, 0);
        let over = self.over(&header)?;
        let mut part = header;
        loop {
            let number = part.chunk as usize % over;
            let stream = if number == 0 { &mut self.first } else { &mut self.more[number - 1] };
            part.payload(stream, spare, checked)?;
            if part.last {
                return Ok(());
            }
            let number = (part.chunk as usize + 1) % over;
            let stream = if number == 0 { &mut self.first } else { &mut self.more[number - 1] };
            part = next_part(part, part.chunk + 1, stream).map_err(|e| on_connection(e, number + 1, over))?;
        }
    }
    fn over(&self, header: &Header) -> Result<usize, Refused> {
        let (over, there) = (usize::from(header.over), 1 + self.more.len());
        if header.chunk != 0 {
            return Err(out_of_order());
        }
        match over == 1 || over == there {
            true => Ok(over),
            false => Err(Refused::Wrong(format!("it is spread over {over} connections, and there are {there}"))),
        }
    }
}

/// Ends what is read of all of them. What is sent goes on until somebody has been told [why](Inbound::shut) it does not: who
/// sends knows only that it was ended.
fn hear_no_more(ends: &[Stream]) {
    ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Read)));
}

fn out_of_order() -> Refused {
    Refused::Wrong("its parts are out of order".into())
}

/// Names the connection, if it is not the only one.
fn on_connection(refused: Refused, number: usize, over: usize) -> Refused {
    match refused {
        Refused::Frame(error) if over > 1 => Refused::Frame(FrameError::On { number, over, error: Box::new(error) }),
        Refused::Wrong(what) if over > 1 => Refused::Wrong(format!("connection {number} of {over}: {what}")),
        other => other,
    }
}

/// A value that came by one connection; gives how many bytes it has.
pub(crate) fn whole(header: Header, stream: &mut impl Read, room: &mut [u8], checked: bool) -> Result<usize, Refused> {
    let (mut at, mut part) = (0, header);
    loop {
        at += part.payload(stream, &mut room[at..], checked)?;
        if part.last {
            return Ok(at);
        }
        part = next_part(part, part.chunk + 1, stream)?;
    }
}

/// The parts of a value of `count` parts that come by one connection, each to its place. `first` is a header that has been read.
fn parts(
    value: Header,
    mut first: Option<Header>,
    count: usize,
    stream: &mut Incoming,
    rooms: Vec<(usize, &mut [u8])>,
    checked: bool,
) -> Result<(), Refused> {
    for (number, room) in rooms {
        let part = match first.take() {
            Some(header) => header,
            None => next_part(value, number as u32, stream)?,
        };
        let (len, should) = (part.len as usize, room.len());
        if len != should || part.last != (number + 1 == count) {
            let what = format!("part {number} of {count} has {len} bytes, where there should be {should}");
            return Err(Refused::Wrong(what));
        }
        part.payload(stream, room, checked)?;
    }
    Ok(())
}

/// The header of part `chunk` of the same value.
fn next_part(of: Header, chunk: u32, stream: &mut impl Read) -> Result<Header, Refused> {
    let next = Header::read_next(stream)?;
    let follows = Header { last: next.last, len: next.len, crc: next.crc, chunk, ..of };
    if next == follows { Ok(next) } else { Err(out_of_order()) }
}

/// How long a connection may take nothing of what it is sent, or leave off in the middle of a value.
pub(crate) const STALL_LIMIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
