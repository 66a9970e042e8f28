//! How a process makes connections and takes them: within a machine plainly, beyond it by TLS, unless it is told otherwise. All
//! connections of a job are of one kind, and nobody falls back: who would speak plainly to a job that is encrypted, or the
//! other way round, is told so and not talked to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use crate::auth::{AuthError, HANDSHAKE_LIMIT, JobKey, Party, Pass, greet};
use crate::listener::Port;
use crate::socket::Socket;
use crate::tls::Tls;
use crate::{HostError, background};

const UNPROTECTED: &str = "is not on this machine, and connections of this job are not encrypted: --tls encrypts all of \
                           them, --plaintext says that whoever can read or change them may";

/// Whether the connections of a job are encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Encryption {
    /// If the driver takes connections from other machines.
    #[default]
    BeyondThisMachine,
    /// Also within a machine.
    Always,
    /// Not even beyond it. Who proves the key once is believed all that comes by that connection.
    Never,
}

/// Where a driver takes connections, and whether those of its job are encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Reach {
    /// An address that all workers can reach, with its port or 0. If nothing is said, one that only this machine can.
    pub listen: Option<SocketAddr>,
    /// Of all connections of the job.
    pub encryption: Encryption,
}

impl Reach {
    /// The address.
    pub(crate) fn address(self) -> Result<SocketAddr, HostError> {
        let address = self.listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
        if address.ip().is_unspecified() {
            let why = format!("workers are told where to find the driver: {address} is no address that they can reach");
            return Err(HostError::Job(why));
        }
        Ok(address)
    }
}

/// How this process makes connections and takes them.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) tls: Option<Tls>,
    /// Plain connections may leave this machine.
    unprotected: bool,
}

impl Access {
    /// For a job whose driver takes connections at this address.
    pub(crate) fn new(key: &JobKey, driver: IpAddr, encryption: Encryption) -> Result<Self, HostError> {
        let encrypted = match encryption {
            Encryption::BeyondThisMachine => !driver.is_loopback(),
            Encryption::Always => true,
            Encryption::Never => false,
        };
        let tls = encrypted.then(|| Tls::new(key.job())).transpose();
        let tls = tls.map_err(HostError::io("cannot make a certificate"))?;
        Ok(Self { tls, unprotected: encryption == Encryption::Never })
    }
    /// Whether connections may lead there, or come from there.
    fn protects(&self, address: SocketAddr) -> bool {
        self.tls.is_some() || self.unprotected || address.ip().is_loopback()
    }
    /// A port to take connections at.
    pub(crate) fn bind(&self, address: SocketAddr) -> Result<Port, HostError> {
        if !self.protects(address) {
            return Err(HostError::Refused(format!("{address} {UNPROTECTED}")));
        }
        Port::bind(address)
    }
    /// A connection of `from` to `to`, who is at this address. Blocks.
    pub(crate) fn dial(&self, address: SocketAddr, pass: &Pass, from: Party, to: Party) -> Result<Socket, AuthError> {
        if !self.protects(address) {
            return Err(AuthError::Encryption { who: address.to_string(), what: UNPROTECTED });
        }
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::TimedOut => AuthError::Slow { who: address.to_string() },
            _ => AuthError::Io { who: address.to_string(), error },
        };
        let tcp = background::wait(background::within(HANDSHAKE_LIMIT, TcpStream::connect(address)));
        let greeting = greet(tcp.map_err(failed)?, self.tls.as_ref(), pass, from, to);
        background::wait(async { Ok(greeting.await) }).map_err(failed)?
    }
}
