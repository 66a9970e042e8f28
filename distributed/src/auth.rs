//! Who may take part in a job: whoever holds its key, and proves it on every connection before anything else is said, on
//! this machine too. Both sides prove it, each over both nonces, the job, the term, what the connection is for and who is at
//! its ends; so that no proof serves twice, elsewhere, or for somebody else. Where the connection is encrypted also over a
//! value that follows from its keys ([`tls`](crate::tls)): a proof that somebody in between passes on serves on neither side.
//!
//! Every message has a fixed size, all of them together a time limit, and listeners a limit on how many strangers they
//! talk to at once: who has no key can cost little.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::socket::Socket;
use crate::tls::{Binding, Tls};

/// How long a handshake may take.
pub(crate) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
const MAGIC: &[u8; 8] = b"TWjoin\x00\x01";
const NONCE: usize = 32;
/// The first byte of who speaks TLS.
const TLS_HELLO: u8 = 22;
const NOT_ENCRYPTED: &str = "speaks plainly, and all connections of this job are encrypted: start it with --tls";
const ENCRYPTED: &str = "speaks TLS, and no connection of this job is encrypted: start it with --plaintext";
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
    #[error("{who} closed the connection: of another job perhaps, or one of us speaks TLS and the other does not")]
    Closed { who: String },
    #[error("{who} {what}")]
    Encryption { who: String, what: &'static str },
    #[error("no TLS with {who}, which may speak plainly: {error}")]
    Tls { who: String, error: io::Error },
    #[error("{who}: {error}")]
    Io { who: String, error: io::Error },
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
    /// The proof of one side, which knows both nonces, and what is bound to this connection.
    fn proof(&self, key: &JobKey, side: &str, answer: &[u8; NONCE], binding: &Binding) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&key.0);
        hasher.update(side.as_bytes()).update(&self.bytes).update(answer);
        if let Some(binding) = binding {
            hasher.update(binding);
        }
        hasher.finalize()
    }
}

/// What a stranger can be told of: the address he comes from.
fn name(address: io::Result<SocketAddr>) -> String {
    address.map_or_else(|_| "a stranger".into(), |a| a.to_string())
}

async fn exactly<const N: usize>(socket: &mut (impl AsyncRead + Unpin), who: &str) -> Result<[u8; N], AuthError> {
    let mut bytes = [0; N];
    match socket.read_exact(&mut bytes).await {
        Ok(_) => Ok(bytes),
        Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            Err(AuthError::Closed { who: who.into() })
        }
        Err(error) => Err(AuthError::Io { who: who.into(), error }),
    }
}

/// What comes of a handshake, if it comes to anything in time.
pub(crate) async fn in_time<T>(who: &str, shaking: impl Future<Output = Result<T, AuthError>>) -> Result<T, AuthError> {
    let slow = |_| Err(AuthError::Slow { who: who.into() });
    tokio::time::timeout(HANDSHAKE_LIMIT, shaking).await.unwrap_or_else(slow)
}

/// Makes a new connection one between `from`, who asks for it, and `to`. With [`Tls`] it is encrypted, and otherwise it is not.
pub(crate) async fn greet(
    tcp: TcpStream,
    tls: Option<&Tls>,
    pass: &Pass,
    from: Party,
    to: Party,
) -> Result<Socket, AuthError> {
    let who = to.to_string();
    let shake = async {
        let asked = Socket::ask(tcp, tls).await;
        let mut socket = asked.map_err(|error| AuthError::Tls { who: who.clone(), error })?;
        let io = |error| AuthError::Io { who: who.clone(), error };
        let binding = socket.binding().map_err(io)?;
        prove(&mut socket, &binding, pass, from, to, &who).await?;
        socket.trust();
        Ok(socket)
    };
    in_time(&who, shake).await
}

pub(crate) async fn prove(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    binding: &Binding,
    pass: &Pass,
    from: Party,
    to: Party,
    who: &str,
) -> Result<(), AuthError> {
    let io = |error| AuthError::Io { who: who.into(), error };
    let hello = Hello::new(pass, from, to).map_err(io)?;
    socket.write_all(&hello.bytes).await.map_err(io)?;
    socket.flush().await.map_err(io)?;
    let answer: [u8; NONCE] = exactly(socket, who).await?;
    let proof: [u8; 32] = exactly(socket, who).await?;
    // The comparison of hashes takes the same time whatever they are.
    if hello.proof(&pass.key, "who was asked", &answer, binding) != proof {
        return Err(AuthError::Key(who.into()));
    }
    socket.write_all(hello.proof(&pass.key, "who asks", &answer, binding).as_bytes()).await.map_err(io)?;
    socket.flush().await.map_err(io)
}

/// The other side of [`greet`], for `me`: who has come.
pub(crate) async fn admit(
    tcp: TcpStream,
    tls: Option<&Tls>,
    pass: &Pass,
    me: Party,
) -> Result<(Party, Socket), AuthError> {
    let who = name(tcp.peer_addr());
    let shake = async {
        let io = |error| AuthError::Io { who: name(Err(io::ErrorKind::Other.into())), error };
        let mut first = [0];
        tcp.peek(&mut first).await.map_err(io)?;
        let who = who.clone();
        match (tls, first[0]) {
            (Some(_), first) if first == MAGIC[0] => return Err(AuthError::Encryption { who, what: NOT_ENCRYPTED }),
            (None, TLS_HELLO) => return Err(AuthError::Encryption { who, what: ENCRYPTED }),
            _ => {}
        }
        let asked = Socket::be_asked(tcp, tls).await;
        let mut socket = asked.map_err(|error| AuthError::Tls { who: who.clone(), error })?;
        let binding = socket.binding().map_err(io)?;
        let party = examine(&mut socket, &binding, pass, me, who.clone()).await?;
        socket.trust();
        Ok((party, socket))
    };
    in_time(&who, shake).await
}

pub(crate) async fn examine(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    binding: &Binding,
    pass: &Pass,
    me: Party,
    mut who: String,
) -> Result<Party, AuthError> {
    let io = |error| AuthError::Io { who: "a stranger".into(), error };
    let hello = Hello::parse(exactly(socket, &who).await?, pass, &who)?;
    if hello.to != me {
        return Err(AuthError::Other { who, what: "address" });
    }
    who = format!("{}, as {who} says it is,", hello.from);
    let answer = random().map_err(io)?;
    let mine = hello.proof(&pass.key, "who was asked", &answer, binding);
    socket.write_all(&[answer, *mine.as_bytes()].concat()).await.map_err(io)?;
    socket.flush().await.map_err(io)?;
    let proof: [u8; 32] = exactly(socket, &who).await?;
    if hello.proof(&pass.key, "who asks", &answer, binding) != proof {
        return Err(AuthError::Key(who));
    }
    Ok(hello.from)
}

#[cfg(test)]
mod tests;
