//! Frames: what stands before every run of bytes between two processes, and how they are read and written. A header is of
//! one size and has a checksum of its own, so that a length is believed only where nothing has flipped it; and it is never
//! more than a chunk, so that it sizes nothing: whoever reads has the room already.

use std::io::{self, IoSlice, Read, Write};

use thalweg_runtime::broken::{self, What};
use thalweg_runtime::crash;

/// The most bytes that follow one header. Small enough that they are in the cache when their checksum is taken.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;
/// Bytes whose checksum is taken at a time as they come, while they are in the nearest cache.
const PIECE_BYTES: usize = 128 << 10;
/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 56;
/// The first bytes of every frame; the last of them is the version.
pub(crate) const MAGIC: [u8; 4] = *b"TWf1";

/// What a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A part of what crosses a channel.
    Value,
    /// The slot of a channel is the sender's again.
    Grant,
}

/// What stands before the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Nothing of the same value or message follows.
    pub(crate) last: bool,
    /// Over how many connections the value is spread.
    pub(crate) over: u8,
    /// The job, by a prefix of its name.
    pub(crate) job: u64,
    /// The term of the job.
    pub(crate) term: u32,
    /// The plan, by a prefix of its hash.
    pub(crate) plan: u64,
    /// The step, counted by attempts since the job began.
    pub(crate) step: u64,
    pub(crate) channel: u32,
    /// Which part it is, from 0.
    pub(crate) chunk: u32,
    /// Bytes that follow, and their checksum.
    pub(crate) len: u32,
    pub(crate) crc: u32,
}

/// What is wrong with bytes that should be a frame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("these bytes are no frame of this version: they begin with {0:02x?}")]
    Magic([u8; 4]),
    #[error("the checksum of a frame's header is {got:08x}, not {said:08x}")]
    Header { said: u32, got: u32 },
    #[error("a frame of an unknown kind {0}")]
    Kind(u8),
    #[error("a frame of {0} bytes, more than a chunk of {CHUNK_BYTES}")]
    Length(u32),
    #[error("a frame of {got} bytes where there is room for {room}")]
    Room { got: u32, room: usize },
    #[error("the checksum of chunk {chunk} is {got:08x}, not {said:08x}")]
    Checksum { chunk: u32, said: u32, got: u32 },
    #[error("a frame of job {job:016x}, term {term}, which is another")]
    Foreign { job: u64, term: u32 },
    #[error("connection {number} of {over}: {error}")]
    On { number: usize, over: usize, error: Box<FrameError> },
    #[error("the connection ended in the middle of a frame")]
    Truncated,
    #[error("the connection was closed")]
    Closed,
    #[error("{0}")]
    Io(String),
}

impl FrameError {
    /// Whether the bytes came and were wrong, rather than none at all.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            FrameError::Truncated | FrameError::Closed | FrameError::Io(_) => false,
            FrameError::On { error, .. } => error.is_damage(),
            _ => true,
        }
    }
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let kind = match self.kind {
            Kind::Value => 1,
            Kind::Grant => 2,
        };
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = kind;
        bytes[5] = u8::from(self.last);
        bytes[6] = self.over;
        bytes[8..16].copy_from_slice(&self.job.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.plan.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.step.to_le_bytes());
        for (at, word) in [self.term, self.channel, self.chunk, self.len, self.crc].iter().enumerate() {
            bytes[32 + 4 * at..36 + 4 * at].copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if bytes[..4] != MAGIC {
            return Err(FrameError::Magic([bytes[0], bytes[1], bytes[2], bytes[3]]));
        }
        let (said, got) = (word(HEADER_BYTES - 4), crc32fast::hash(&bytes[..HEADER_BYTES - 4]));
        if said != got && !broken::is(What::Checksum) {
            return Err(FrameError::Header { said, got });
        }
        let kind = match bytes[4] {
            1 => Kind::Value,
            2 => Kind::Grant,
            other => return Err(FrameError::Kind(other)),
        };
        let [term, channel, chunk, len, crc] = [0, 1, 2, 3, 4].map(|at| word(32 + 4 * at));
        if len as usize > CHUNK_BYTES {
            return Err(FrameError::Length(len));
        }
        let (last, over) = (bytes[5] != 0, bytes[6]);
        Ok(Self { kind, last, over, job: long(8), term, plan: long(16), step: long(24), channel, chunk, len, crc })
    }
    /// The next header. Nothing where the connection ends before it. It may be long in coming, whatever the time in which
    /// the connection has to give something.
    pub(crate) fn read(from: &mut impl Read) -> Result<Self, FrameError> {
        Self::read_within(from, true)
    }
    /// The header of what follows in the middle of something.
    pub(crate) fn read_next(from: &mut impl Read) -> Result<Self, FrameError> {
        Self::read_within(from, false)
    }
    fn read_within(from: &mut impl Read, patient: bool) -> Result<Self, FrameError> {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        while at < HEADER_BYTES {
            match from.read(&mut bytes[at..]) {
                Ok(0) if at == 0 => return Err(FrameError::Closed),
                Ok(0) => return Err(FrameError::Truncated),
                Ok(n) => at += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if patient && at == 0 && is_slow(&e) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Self::parse(&bytes)
    }
    /// The bytes that follow, into the beginning of `room`; gives how many.
    pub(crate) fn payload(&self, from: &mut impl Read, room: &mut [u8], checked: bool) -> Result<usize, FrameError> {
        let available = room.len();
        let Some(into) = room.get_mut(..self.len as usize) else {
            return Err(FrameError::Room { got: self.len, room: available });
        };
        let mut sum = crc32fast::Hasher::new();
        for piece in into.chunks_mut(PIECE_BYTES) {
            from.read_exact(piece).map_err(failed)?;
            if checked {
                sum.update(piece);
            }
        }
        let got = if checked { sum.finalize() } else { self.crc };
        if got == self.crc || broken::is(What::Checksum) {
            Ok(into.len())
        } else {
            Err(FrameError::Checksum { chunk: self.chunk, said: self.crc, got })
        }
    }
}

/// Whether nothing came for as long as the connection may take.
fn is_slow(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn failed(error: io::Error) -> FrameError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => FrameError::Truncated,
        _ if is_slow(&error) => FrameError::Io("nothing came for too long".into()),
        _ => FrameError::Io(error.to_string()),
    }
}

/// Writes `bytes` as one frame or several, each after `header` with its own numbers; with their checksums if `checked`.
pub(crate) fn write_all(to: &mut impl Write, header: Header, bytes: &[u8], checked: bool) -> io::Result<()> {
    write_over(&mut [to], header, bytes, checked)
}

/// The same in turn to each of `to`, of which there is one at least.
pub(crate) fn write_over<W: Write>(to: &mut [W], header: Header, bytes: &[u8], checked: bool) -> io::Result<()> {
    let mut chunks = bytes.chunks(CHUNK_BYTES).enumerate().peekable();
    let over = to.len();
    if bytes.is_empty() {
        return to[0]
            .write_all(&Header { last: true, chunk: 0, len: 0, crc: crc32fast::hash(&[]), ..header }.to_bytes());
    }
    while let Some((chunk, bytes)) = chunks.next() {
        let to = &mut to[chunk % over];
        let (last, chunk, len) = (chunks.peek().is_none(), chunk as u32, bytes.len() as u32);
        let crc = if checked { crc32fast::hash(bytes) } else { 0 };
        let head = Header { last, chunk, len, crc, ..header }.to_bytes();
        let spoilt;
        let bytes = if crash::fires("flip") {
            spoilt = flipped(bytes);
            &spoilt
        } else {
            bytes
        };
        // Together: two writes would be two packets.
        let mut done = 0;
        while done < head.len() {
            match to.write_vectored(&[IoSlice::new(&head[done..]), IoSlice::new(bytes)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        to.write_all(&bytes[done - head.len()..])?;
    }
    Ok(())
}

/// The same but for a bit, as a cable or a memory may turn one: in a number, one of its exponent.
fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle | 3) {
        *byte ^= 0x20;
    } else if let Some(byte) = bytes.last_mut() {
        *byte ^= 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        let (kind, last, over, chunk, len, crc) = (Kind::Value, false, 1, 0, 0, 0);
        Header { kind, last, over, job: 1 << 40, term: 2, plan: 3 << 50, step: 4, channel: 5, chunk, len, crc }
    }
    /// What was written, read as a value of so many bytes.
    fn read(mut bytes: &[u8], room: usize) -> Result<Vec<u8>, FrameError> {
        let (mut into, mut at) = (vec![0; room], 0);
        loop {
            let header = Header::read(&mut bytes)?;
            at += header.payload(&mut bytes, &mut into[at..], true)?;
            if header.last {
                into.truncate(at);
                return Ok(into);
            }
        }
    }
    fn written(bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![];
        write_all(&mut out, header(), bytes, true).expect("memory");
        out
    }

    #[test]
    fn what_is_written_is_read() {
        for n in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let bytes: Vec<u8> = (0..n).map(|i| (i * 7 + i / 251) as u8).collect();
            let out = written(&bytes);
            assert_eq!(out.len(), n + HEADER_BYTES * n.div_ceil(CHUNK_BYTES).max(1));
            assert!(read(&out, n).expect("a value") == bytes, "{n}");
        }
        let parsed = Header::parse(&header().to_bytes()).expect("a header");
        assert_eq!(parsed, header());
    }

    /// A writer that takes three bytes at a time.
    struct Slow(Vec<u8>);
    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(3);
            self.0.extend_from_slice(&bytes[..n]);
            Ok(n)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whatever_a_socket_takes_at_a_time() {
        let bytes: Vec<u8> = (0..100).collect();
        let mut slow = Slow(vec![]);
        write_all(&mut slow, header(), &bytes, true).expect("memory");
        assert_eq!(slow.0, written(&bytes));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let out = written(&[1, 2, 3, 4, 5]);
        for bit in 0..8 * out.len() {
            let mut bytes = out.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = read(&bytes, 5).expect_err("it is damaged");
            assert!(error.is_damage(), "bit {bit}: {error}");
        }
    }

    #[test]
    fn every_truncation_is_noticed() {
        let out = written(&[1, 2, 3, 4, 5]);
        for n in 0..out.len() {
            let error = read(&out[..n], 5).expect_err("it is cut off");
            let closed = matches!(error, FrameError::Closed);
            assert!(if n == 0 { closed } else { matches!(error, FrameError::Truncated) }, "{n}: {error}");
        }
    }

    #[test]
    fn a_length_is_no_more_than_there_is_room_for() {
        assert!(matches!(read(&written(&[0; 9]), 8), Err(FrameError::Room { got: 9, room: 8 })));
        let long = Header { len: CHUNK_BYTES as u32 + 1, ..header() }.to_bytes();
        assert!(matches!(Header::parse(&long), Err(FrameError::Length(_))));
    }

    proptest! {
        /// Bytes of a stranger, also such whose checksum is right: an answer, and never more than a chunk.
        #[test]
        fn any_bytes_are_a_header_or_an_error(mut bytes in proptest::array::uniform32(any::<u8>()), more in proptest::array::uniform24(any::<u8>()), sound in any::<bool>()) {
            if sound {
                bytes[..4].copy_from_slice(&MAGIC);
            }
            let mut all = [0; HEADER_BYTES];
            all[..32].copy_from_slice(&bytes);
            all[32..].copy_from_slice(&more);
            if sound {
                let crc = crc32fast::hash(&all[..HEADER_BYTES - 4]);
                all[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
            }
            if let Ok(header) = Header::parse(&all) {
                prop_assert!(sound && header.len as usize <= CHUNK_BYTES);
                let mut room = [0; 16];
                let follows = [0; 64];
                if let Ok(n) = header.payload(&mut &follows[..], &mut room, true) {
                    prop_assert!(n <= room.len());
                }
            }
        }
    }
}
