//! A connection of turmoil's network that breaks at any byte: from there on both ways are an error, whatever is under way.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use turmoil::net::TcpStream;

use super::Open;
use crate::control::server::Ticket;

/// A connection that breaks after so many bytes.
pub(super) struct Wire {
    pub(super) tcp: TcpStream,
    /// How many, both ways.
    pub(super) left: usize,
    /// Dropped with it, as with every connection of control.
    pub(super) _open: Open,
    /// Of who is asked.
    pub(super) ticket: Option<Ticket>,
}

impl Wire {
    fn take(&mut self, n: usize) {
        self.left -= n;
    }
    fn broken() -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Self::broken().map_ok(|_| ());
        }
        let mut part = vec![0; self.left.min(into.remaining())];
        let mut part = ReadBuf::new(&mut part);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut part))?;
        into.put_slice(part.filled());
        self.take(part.filled().len());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.left == 0 {
            return Self::broken();
        }
        let part = &bytes[..bytes.len().min(self.left)];
        let n = ready!(Pin::new(&mut self.tcp).poll_write(cx, part))?;
        self.take(n);
        Poll::Ready(Ok(n))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl Connected for Wire {
    type ConnectInfo = Ticket;
    fn connect_info(&self) -> Ticket {
        self.ticket.clone().expect("who is asked has given one")
    }
}
