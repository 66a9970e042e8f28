//! A connection for threads that wait, as a `TcpStream` is one: TCP, or TLS over TCP. One thread reads it while another
//! writes, and neither may keep the other waiting: were a reader held up by a writer whose peer takes nothing, two processes
//! that send each other much would wait for each other. So nobody holds the TLS session while the socket makes him wait:
//! who writes encrypts first, and who reads decrypts last.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::Connection;

use crate::lock;

/// The most bytes that are encrypted at a time; those are held in memory.
const ENCRYPTED_BYTES: usize = 256 << 10;
/// Bytes that are read from the socket at a time: a few records.
const RECEIVED_BYTES: usize = 64 << 10;

/// A connection. Clones are the same one.
#[derive(Debug)]
pub(crate) struct Stream {
    tcp: TcpStream,
    tls: Option<Arc<Encrypted>>,
}

#[derive(Debug)]
struct Encrypted {
    session: Mutex<Connection>,
    /// What is still encrypted. Held while the socket is read, so that records stay in order.
    received: Mutex<Received>,
    /// What is already encrypted. Held while the socket is written to, for the same reason.
    outgoing: Mutex<Vec<u8>>,
}

#[derive(Debug)]
struct Received {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Stream {
    /// One that is not encrypted.
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        Self { tcp, tls: None }
    }
    /// One over which the handshake of TLS has ended.
    pub(crate) fn tls(tcp: TcpStream, mut session: Connection) -> Self {
        // What is encrypted at a time is limited where it is written.
        session.set_buffer_limit(None);
        let received = Mutex::new(Received { bytes: vec![0; RECEIVED_BYTES], from: 0, to: 0 });
        let (session, outgoing) = (Mutex::new(session), Mutex::default());
        Self { tcp, tls: Some(Arc::new(Encrypted { session, received, outgoing })) }
    }
    /// What is below.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }
    /// See [`TcpStream::try_clone`].
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { tcp: self.tcp.try_clone()?, tls: self.tls.clone() })
    }
    /// See [`TcpStream::set_read_timeout`].
    pub(crate) fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.tcp.set_read_timeout(limit)
    }
    /// See [`TcpStream::set_write_timeout`].
    pub(crate) fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.tcp.set_write_timeout(limit)
    }
    /// See [`TcpStream::shutdown`]. That the other side sees the end is all that is promised: what has to be complete says so
    /// itself, as frames do.
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.tcp.shutdown(how)
    }
}

impl Encrypted {
    fn read(&self, tcp: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
        let mut received = lock(&self.received);
        loop {
            let mut session = lock(&self.session);
            match session.reader().read(into) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // The end, in whichever way.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                done => return done,
            }
            if received.from == received.to {
                drop(session);
                let n = (&*tcp).read(&mut received.bytes)?;
                (received.from, received.to) = (0, n);
                session = lock(&self.session);
            }
            let mut left = &received.bytes[received.from..received.to];
            // Nothing is left at the end, and TLS has to know.
            let n = session.read_tls(&mut left)?;
            received.from += n;
            session.process_new_packets().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        }
    }
    fn write(&self, tcp: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut outgoing = lock(&self.outgoing);
        let n = {
            let (mut session, mut n) = (lock(&self.session), 0);
            // Together: what is written apart would be packets apart.
            for slice in slices {
                n += session.writer().write(&slice[..slice.len().min(ENCRYPTED_BYTES - n)])?;
            }
            outgoing.clear();
            while session.wants_write() {
                session.write_tls(&mut *outgoing)?;
            }
            n
        };
        (&*tcp).write_all(&outgoing)?;
        Ok(n)
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &self.tls {
            None => self.tcp.read(into),
            Some(tls) => tls.read(&self.tcp, into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.tls {
            None => self.tcp.write(bytes),
            Some(tls) => tls.write(&self.tcp, &[IoSlice::new(bytes)]),
        }
    }
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.tls {
            None => self.tcp.write_vectored(slices),
            Some(tls) => tls.write(&self.tcp, slices),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        // Nothing is held back.
        Ok(())
    }
}

#[cfg(test)]
mod tests;
