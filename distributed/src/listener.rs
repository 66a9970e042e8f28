//! A door on this machine: takes connections, lets those in that prove the job's key, and closes the others. Each stranger is
//! talked to on a thread of its own, of which there are few: who says nothing keeps nobody waiting but other strangers.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::HostError;
use crate::auth::{Party, Pass, admit};

/// Strangers that are talked to at once.
const STRANGERS: usize = 32;

/// What comes of a stranger.
pub(crate) type Arrival = Result<(Party, TcpStream), String>;

/// Takes connections until it is dropped.
pub(crate) struct Listener {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
    arrivals: mpsc::Receiver<Arrival>,
}

/// A port of this machine at which nobody is let in yet.
pub(crate) struct Port(TcpListener, SocketAddr);

impl Port {
    /// A free one; nothing outside of the machine can reach it.
    pub(crate) fn bind() -> Result<Self, HostError> {
        let failed = || HostError::io("cannot take connections on 127.0.0.1");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed())?;
        let address = listener.local_addr().map_err(failed())?;
        Ok(Self(listener, address))
    }
    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.1
    }
}

impl Listener {
    /// Lets those in, from here on, who want to talk to `me`.
    pub(crate) fn open(port: Port, pass: Pass, me: Party) -> Result<Self, HostError> {
        let Port(listener, address) = port;
        let closed = Arc::new(AtomicBool::new(false));
        let (seen, (sender, arrivals)) = (closed.clone(), mpsc::channel());
        let accepting = move || {
            let strangers = Arc::new(AtomicUsize::new(0));
            for stream in listener.incoming() {
                if seen.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else {
                    // Out of descriptors, most likely: that passes.
                    thread::sleep(Duration::from_millis(10));
                    continue;
                };
                if strangers.fetch_add(1, Ordering::AcqRel) >= STRANGERS {
                    strangers.fetch_sub(1, Ordering::AcqRel);
                    continue;
                }
                let (pass, sender, talking) = (pass.clone(), sender.clone(), strangers.clone());
                let talk = move || {
                    let arrival = admit(&stream, &pass, me).map_err(|e| e.to_string());
                    // Whoever waited may have gone.
                    let _ = sender.send(arrival.map(|party| (party, stream)));
                    talking.fetch_sub(1, Ordering::AcqRel);
                };
                if thread::Builder::new().name("admitting".into()).spawn(talk).is_err() {
                    strangers.fetch_sub(1, Ordering::AcqRel);
                }
            }
        };
        let spawned = thread::Builder::new().name("listening".into()).spawn(accepting);
        spawned.map_err(HostError::io("cannot start a thread"))?;
        Ok(Self { address, closed, arrivals })
    }
    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
    /// Who comes next, if anybody does in time.
    pub(crate) fn next(&self, within: Duration) -> Option<Arrival> {
        self.arrivals.recv_timeout(within).ok()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
        // It looks when somebody comes.
        let _ = TcpStream::connect(self.address);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::auth::{JobKey, Purpose, greet};

    #[test]
    fn strangers_who_say_nothing_keep_nobody_waiting() {
        let key = JobKey::random().expect("numbers");
        let pass = Pass { key, term: 1, purpose: Purpose::Data };
        let listener = Listener::open(Port::bind().expect("a port"), pass.clone(), Party::Driver).expect("a thread");
        let connect = || TcpStream::connect(listener.address()).expect("it listens");
        let silent: Vec<TcpStream> = (0..STRANGERS - 1).map(|_| connect()).collect();
        let started = Instant::now();
        let stream = connect();
        greet(&stream, &pass, Party::Worker(3), Party::Driver).expect("the key is right");
        let (party, _) = listener.next(Duration::from_secs(4)).expect("it is let in").expect("the key is right");
        assert_eq!(party, Party::Worker(3));
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        // And where there are too many, one more is not talked to.
        let more: Vec<TcpStream> = (0..4).map(|_| connect()).collect();
        let last = more.last().expect("there are some");
        assert!(greet(last, &pass, Party::Worker(4), Party::Driver).is_err());
        drop(silent);
    }
}
