//! Who may take part in a job: whoever holds its key, and proves it on every connection before anything else is said, on
//! this machine too. Both sides prove it, each over both nonces, the job, the term, what the connection is for and who is at
//! its ends; so that no proof serves twice, elsewhere, or for somebody else.
//!
//! Every message has a fixed size, all of them together a time limit, and listeners a limit on how many strangers they
//! talk to at once: who has no key can cost little.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long a handshake may take.
pub(crate) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
const MAGIC: &[u8; 8] = b"TWjoin\x00\x01";
const NONCE: usize = 32;
const HELLO: usize = 8 + 1 + 4 + 4 + 8 + 4 + NONCE;

/// The secret of a job. Never printed.
#[derive(Clone)]
pub struct JobKey([u8; 32]);

impl JobKey {
    /// A new one.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn random() -> io::Result<Self> {
        Ok(Self(random()?))
    }
    /// The one that these 64 hexadecimal digits say.
    pub fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text.trim()).ok().map(|key| Self(key.into()))
    }
    /// Its 64 hexadecimal digits, for a file that nobody else may read.
    pub fn to_hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
    /// The job's name: it follows from the key, and says nothing of it.
    pub(crate) fn job(&self) -> u64 {
        crate::short(&blake3::derive_key("thalweg 2026 name of a job", &self.0))
    }
}

impl fmt::Debug for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobKey")
    }
}

pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(bytes)
}

/// One who takes part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Party {
    /// Holds the session.
    Driver,
    /// Hosts the device of this number.
    Worker(u16),
    /// Will be a worker, and does not know which.
    Joining,
}

impl Party {
    fn to_u32(self) -> u32 {
        match self {
            Party::Worker(rank) => u32::from(rank),
            Party::Driver => 1 << 16,
            Party::Joining => 1 << 17,
        }
    }
    fn of(number: u32) -> Option<Self> {
        match number {
            0x1_0000 => Some(Party::Driver),
            0x2_0000 => Some(Party::Joining),
            rank => u16::try_from(rank).ok().map(Party::Worker),
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Party::Driver => f.write_str("the driver"),
            Party::Worker(rank) => write!(f, "rank {rank}"),
            Party::Joining => f.write_str("a worker that joins"),
        }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    Control,
    Data,
}

/// What both sides have to agree on.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    pub(crate) key: JobKey,
    pub(crate) term: u32,
    pub(crate) purpose: Purpose,
}

/// Why somebody is not let in, or does not come in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("{0} is not of this version of Thalweg, or not of Thalweg at all")]
    Stranger(String),
    #[error("{0} has not the key of this job")]
    Key(String),
    #[error("{who} belongs to another {what}")]
    Other { who: String, what: &'static str },
    #[error("{who} did not answer within {HANDSHAKE_LIMIT:?}")]
    Slow { who: String },
    #[error("{who}: {error}")]
    Io { who: String, error: io::Error },
}

/// A stream of which all reads together have a time limit.
struct Until<'a>(&'a TcpStream, Instant);

impl Read for Until<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.1.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.0.set_read_timeout(Some(left))?;
        self.0.read(bytes)
    }
}

struct Hello {
    from: Party,
    to: Party,
    bytes: [u8; HELLO],
}

impl Hello {
    fn new(pass: &Pass, from: Party, to: Party) -> io::Result<Self> {
        let mut bytes = [0; HELLO];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8] = pass.purpose as u8;
        bytes[9..13].copy_from_slice(&from.to_u32().to_le_bytes());
        bytes[13..17].copy_from_slice(&to.to_u32().to_le_bytes());
        bytes[17..25].copy_from_slice(&pass.key.job().to_le_bytes());
        bytes[25..29].copy_from_slice(&pass.term.to_le_bytes());
        bytes[29..].copy_from_slice(&random::<NONCE>()?);
        Ok(Self { from, to, bytes })
    }
    /// What a peer said, if it fits `pass`.
    fn parse(bytes: [u8; HELLO], pass: &Pass, who: &str) -> Result<Self, AuthError> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let other = |what| Err(AuthError::Other { who: who.into(), what });
        let stranger = || AuthError::Stranger(who.into());
        if bytes[..8] != *MAGIC {
            return Err(stranger());
        }
        if bytes[17..25] != pass.key.job().to_le_bytes() {
            return other("job");
        }
        if word(25) != pass.term {
            return other("term of this job");
        }
        if bytes[8] != pass.purpose as u8 {
            return other("kind of connection");
        }
        let [from, to] = [9, 13].map(|at| Party::of(word(at)).ok_or_else(stranger));
        Ok(Self { from: from?, to: to?, bytes })
    }
    /// The proof of one side, which knows both nonces.
    fn proof(&self, key: &JobKey, side: &str, answer: &[u8; NONCE]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&key.0);
        hasher.update(side.as_bytes()).update(&self.bytes).update(answer);
        hasher.finalize()
    }
}

fn exactly<const N: usize>(stream: &mut Until<'_>, who: &str) -> Result<[u8; N], AuthError> {
    let mut bytes = [0; N];
    match stream.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(e) if matches!(e.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
            Err(AuthError::Slow { who: who.into() })
        }
        Err(error) => Err(AuthError::Io { who: who.into(), error }),
    }
}

/// Makes a new connection one between `from`, who asked for it, and `to`.
pub(crate) fn greet(stream: &TcpStream, pass: &Pass, from: Party, to: Party) -> Result<(), AuthError> {
    let who = to.to_string();
    let io = |error| AuthError::Io { who: who.clone(), error };
    stream.set_nodelay(true).map_err(io)?;
    stream.set_write_timeout(Some(HANDSHAKE_LIMIT)).map_err(io)?;
    let hello = Hello::new(pass, from, to).map_err(io)?;
    let (mut writer, mut reader) = (stream, Until(stream, Instant::now() + HANDSHAKE_LIMIT));
    writer.write_all(&hello.bytes).map_err(io)?;
    let answer: [u8; NONCE] = exactly(&mut reader, &who)?;
    let proof: [u8; 32] = exactly(&mut reader, &who)?;
    // The comparison of hashes takes the same time whatever they are.
    if hello.proof(&pass.key, "who was asked", &answer) != proof {
        return Err(AuthError::Key(who));
    }
    writer.write_all(hello.proof(&pass.key, "who asks", &answer).as_bytes()).map_err(io)?;
    stream.set_read_timeout(None).map_err(io)
}

/// The other side of [`greet`], for `me`: who has come.
pub(crate) fn admit(stream: &TcpStream, pass: &Pass, me: Party) -> Result<Party, AuthError> {
    let mut who = stream.peer_addr().map_or_else(|_| "a stranger".into(), |a| a.to_string());
    let io = |error| AuthError::Io { who: "a stranger".into(), error };
    stream.set_nodelay(true).map_err(io)?;
    stream.set_write_timeout(Some(HANDSHAKE_LIMIT)).map_err(io)?;
    let (mut writer, mut reader) = (stream, Until(stream, Instant::now() + HANDSHAKE_LIMIT));
    let hello = Hello::parse(exactly(&mut reader, &who)?, pass, &who)?;
    if hello.to != me {
        return Err(AuthError::Other { who, what: "address" });
    }
    who = format!("{}, as {who} says it is,", hello.from);
    let answer = random().map_err(io)?;
    writer.write_all(&answer).map_err(io)?;
    writer.write_all(hello.proof(&pass.key, "who was asked", &answer).as_bytes()).map_err(io)?;
    let proof: [u8; 32] = exactly(&mut reader, &who)?;
    if hello.proof(&pass.key, "who asks", &answer) != proof {
        return Err(AuthError::Key(who));
    }
    stream.set_read_timeout(None).map_err(io)?;
    Ok(hello.from)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn pass(key: &JobKey) -> Pass {
        Pass { key: key.clone(), term: 1, purpose: Purpose::Data }
    }
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let there = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        (there, listener.accept().expect("it connects").0)
    }
    /// What comes of it when one side has `theirs` and the other `ours`.
    fn meet(theirs: Pass, ours: Pass, to: Party) -> (Result<(), AuthError>, Result<Party, AuthError>) {
        let (there, here) = pair();
        let asking = thread::spawn(move || greet(&there, &theirs, Party::Worker(1), to));
        let admitted = admit(&here, &ours, Party::Worker(2));
        drop(here);
        (asking.join().expect("no panic"), admitted)
    }

    #[test]
    fn who_holds_the_key_is_let_in() {
        let key = JobKey::from_hex(&JobKey::random().expect("numbers").to_hex()).expect("a key");
        let (asked, admitted) = meet(pass(&key), pass(&key), Party::Worker(2));
        assert!(asked.is_ok());
        assert_eq!(admitted.expect("the key is right"), Party::Worker(1));
    }

    /// The name of the job is no secret: somebody who knows it and not the key.
    #[test]
    fn who_knows_the_jobs_name_and_not_its_key_is_not() {
        let key = JobKey::random().expect("numbers");
        let (there, here) = pair();
        let liar = {
            let pass = pass(&key);
            thread::spawn(move || {
                let hello = Hello::new(&pass, Party::Worker(1), Party::Worker(2)).expect("numbers");
                (&there).write_all(&hello.bytes).expect("it listens");
                let mut said = [0; 64];
                (&there).read_exact(&mut said).expect("it answers");
                // Its own proof, sent back.
                (&there).write_all(&said[32..]).expect("it listens");
            })
        };
        let error = admit(&here, &pass(&key), Party::Worker(2)).expect_err("it has no key");
        assert!(matches!(error, AuthError::Key(_)), "{error}");
        liar.join().expect("no panic");
    }

    #[test]
    fn who_answers_without_the_key_is_not_believed() {
        let key = JobKey::random().expect("numbers");
        let (there, here) = pair();
        let liar = thread::spawn(move || {
            let mut hello = [0; HELLO];
            (&there).read_exact(&mut hello).expect("it asks");
            (&there).write_all(&[7; 64]).expect("it listens");
        });
        let error = greet(&here, &pass(&key), Party::Worker(1), Party::Worker(2)).expect_err("it has no key");
        assert!(matches!(error, AuthError::Key(_)), "{error}");
        liar.join().expect("no panic");
    }

    #[test]
    fn other_jobs_terms_purposes_and_addresses_are_not_let_in() {
        let (key, other) = (JobKey::random().expect("numbers"), JobKey::random().expect("numbers"));
        let to = Party::Worker(2);
        for (theirs, to, what) in [
            (pass(&other), to, "job"),
            (Pass { term: 2, ..pass(&key) }, to, "term"),
            (Pass { purpose: Purpose::Control, ..pass(&key) }, to, "kind"),
            (pass(&key), Party::Worker(3), "address"),
        ] {
            let (asked, admitted) = meet(theirs, pass(&key), to);
            let error = admitted.expect_err("it is another").to_string();
            assert!(error.contains(what) && asked.is_err(), "{error}");
        }
        let (there, here) = pair();
        (&there).write_all(&[b'G'; HELLO]).expect("it listens");
        assert!(matches!(admit(&here, &pass(&key), to), Err(AuthError::Stranger(_))));
    }
}
