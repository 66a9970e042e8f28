//! A door of this process: takes connections, lets those in that prove the job's key, and closes the others. Strangers are
//! talked to all at once, of whom there are few: who says nothing keeps nobody waiting but other strangers.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use crate::auth::{Party, Pass, admit};
use crate::socket::Socket;
use crate::stream::Stream;
use crate::tls::Tls;
use crate::{HostError, background};

/// Strangers that are talked to at once.
const STRANGERS: usize = 32;

/// What comes of a stranger.
pub(crate) type Arrival<T> = Result<T, String>;

/// Takes connections until it is dropped.
pub(crate) struct Listener<T> {
    address: SocketAddr,
    accepting: AbortHandle,
    arrivals: mpsc::Receiver<Arrival<T>>,
}

/// A port at which nobody is let in yet.
pub(crate) struct Port(TcpListener, SocketAddr);

impl Port {
    /// At this address; its port may be 0, which is a free one.
    pub(crate) fn bind(address: SocketAddr) -> Result<Self, HostError> {
        let failed = || HostError::io(format!("cannot take connections on {address}"));
        let listener = background::wait(TcpListener::bind(address)).map_err(failed())?;
        let address = listener.local_addr().map_err(failed())?;
        Ok(Self(listener, address))
    }
    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.1
    }
}

impl Listener<(Party, Stream)> {
    /// Lets those in, from here on, who want to talk to `me`.
    pub(crate) fn open(port: Port, tls: Option<Tls>, pass: Pass, me: Party) -> Result<Self, HostError> {
        let (sender, arrivals) = mpsc::channel();
        let arrive = move |admitted: Arrival<(Party, Socket)>| {
            let blocking = |(party, socket): (Party, Socket)| Ok((party, socket.into_blocking()?));
            let failed = |e: std::io::Error| e.to_string();
            // Whoever waited may have gone.
            let _ = sender.send(admitted.and_then(|a| blocking(a).map_err(failed)));
        };
        Self::with(port, tls, pass, me, arrivals, arrive)
    }
}

impl<T> Listener<T> {
    /// Has `arrive` told, on the background thread, what comes of each stranger; what it makes of that comes by `arrivals`.
    pub(crate) fn with(
        Port(listener, address): Port,
        tls: Option<Tls>,
        pass: Pass,
        me: Party,
        arrivals: mpsc::Receiver<Arrival<T>>,
        arrive: impl Fn(Arrival<(Party, Socket)>) + Send + Sync + 'static,
    ) -> Result<Self, HostError> {
        let arrive = Arc::new(arrive);
        let accepting = async move {
            // Dropped with the listener, and with it whoever is still a stranger.
            let (mut talks, room) = (JoinSet::new(), Arc::new(Semaphore::new(STRANGERS)));
            loop {
                while talks.try_join_next().is_some() {}
                let Ok((tcp, _)) = listener.accept().await else {
                    // Out of descriptors, most likely: that passes.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let Ok(seat) = room.clone().try_acquire_owned() else { continue };
                let (tls, pass, arrive) = (tls.clone(), pass.clone(), arrive.clone());
                talks.spawn(async move {
                    let admitted = admit(tcp, tls.as_ref(), &pass, me).await;
                    drop(seat);
                    arrive(admitted.map_err(|e| e.to_string()));
                });
            }
        };
        let handle = background::handle().map_err(HostError::io("cannot start a thread"))?;
        Ok(Self { address, accepting: handle.spawn(accepting).abort_handle(), arrivals })
    }
    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
    /// Who comes next, if anybody does in time.
    pub(crate) fn next(&self, within: Duration) -> Option<Arrival<T>> {
        self.arrivals.recv_timeout(within).ok()
    }
}

impl<T> Drop for Listener<T> {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Instant;

    use super::*;
    use crate::auth::{AuthError, JobKey, Purpose, greet};

    #[test]
    fn strangers_who_say_nothing_keep_nobody_waiting() {
        let key = JobKey::random().expect("numbers");
        let pass = Pass { key, term: 1, purpose: Purpose::Data };
        let listener = Listener::open(
            Port::bind("127.0.0.1:0".parse().expect("an address")).expect("a port"),
            None,
            pass.clone(),
            Party::Driver,
        );
        let listener = listener.expect("a thread");
        let address = listener.address();
        let connect = || TcpStream::connect(address).expect("it listens");
        let greet = |me: Party| -> Result<Socket, AuthError> {
            let asking = async {
                let tcp = tokio::net::TcpStream::connect(address).await?;
                Ok(greet(tcp, None, &pass, me, Party::Driver).await)
            };
            background::wait(asking).expect("it listens")
        };
        let silent: Vec<TcpStream> = (0..STRANGERS - 1).map(|_| connect()).collect();
        let started = Instant::now();
        greet(Party::Worker(3)).expect("the key is right");
        let (party, _) = listener.next(Duration::from_secs(4)).expect("it is let in").expect("the key is right");
        assert_eq!(party, Party::Worker(3));
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        // And where there are too many, one more is not talked to.
        let more: Vec<TcpStream> = (0..4).map(|_| connect()).collect();
        assert!(greet(Party::Worker(4)).is_err());
        drop((silent, more));
    }
}
