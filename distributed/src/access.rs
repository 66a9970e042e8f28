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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Purpose;

    const HERE: [u8; 4] = [127, 0, 0, 1];
    const THERE: [u8; 4] = [192, 0, 2, 77];

    #[test]
    fn what_leaves_the_machine_is_encrypted_or_was_allowed_not_to_be() {
        let key = JobKey::random().expect("numbers");
        let access = |driver: [u8; 4], encryption| {
            let access = Access::new(&key, driver.into(), encryption).expect("a certificate");
            let protects = [HERE, THERE, [0; 4]].map(|ip| access.protects((ip, 1).into()));
            (access.tls.is_some(), protects)
        };
        assert_eq!(access(HERE, Encryption::default()), (false, [true, false, false]));
        assert_eq!(access(THERE, Encryption::default()), (true, [true; 3]));
        assert_eq!(access(HERE, Encryption::Always), (true, [true; 3]));
        assert_eq!(access(THERE, Encryption::Never), (false, [true; 3]));
    }

    #[test]
    fn what_is_not_protected_is_neither_taken_nor_made() {
        let key = JobKey::random().expect("numbers");
        let access = Access::new(&key, HERE.into(), Encryption::default()).expect("nothing to make");
        let error = access.bind((THERE, 0).into()).err().expect("it is refused").to_string();
        assert!(error.contains("192.0.2.77:0 is not on this machine") && error.contains("--tls"), "{error}");
        let pass = Pass { key, term: 1, purpose: Purpose::Data };
        let error =
            access.dial((THERE, 1).into(), &pass, Party::Driver, Party::Worker(0)).err().expect("it is refused");
        assert!(matches!(&error, AuthError::Encryption { what: UNPROTECTED, .. }), "{error}");
        let reach = Reach { listen: Some(([0; 4], 7).into()), ..Reach::default() };
        assert!(reach.address().expect_err("nobody finds it").to_string().contains("no address that they can reach"));
    }
}
