//! A connection as the background thread has it: TCP, or TLS over TCP. Whoever has not proved the key yet is read so many
//! bytes of and no more. Control stays so; what channels cross is made [blocking](crate::stream) once it is authenticated.

use std::io;
use std::net::{self, SocketAddr};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::stream::Stream;
use crate::tls::{Binding, Tls, binding};

/// The most bytes that are read of somebody who has not proved the key: the handshakes are about three thousand.
pub(crate) const STRANGER_BYTES: usize = 64 << 10;

/// A TCP connection that gives so many bytes.
struct Metered {
    tcp: TcpStream,
    /// No limit, once it is known whose bytes they are.
    left: Option<usize>,
}

/// A connection, and what is dropped with it.
pub(crate) struct Socket<T = ()> {
    wire: Wire,
    tag: T,
}

/// Encrypted or not.
enum Wire {
    Plain(Metered),
    Tls(Box<TlsStream<Metered>>),
}

impl<T> Socket<T> {
    /// The same with this tag.
    pub(crate) fn tagged<U>(self, tag: U) -> Socket<U> {
        Socket { wire: self.wire, tag }
    }
    /// What is dropped with it.
    pub(crate) fn tag(&self) -> &T {
        &self.tag
    }
}

impl Socket {
    fn new(wire: Wire) -> Self {
        Self { wire, tag: () }
    }
    /// Of who asks. With [`Tls`], TLS or nothing.
    pub(crate) async fn ask(tcp: TcpStream, tls: Option<&Tls>) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        let metered = Metered { tcp, left: Some(STRANGER_BYTES) };
        let Some(tls) = tls else { return Ok(Self::new(Wire::Plain(metered))) };
        let stream = TlsConnector::from(tls.asks.clone()).connect(tls.name.clone(), metered).await?;
        Ok(Self::new(Wire::Tls(Box::new(stream.into()))))
    }
    /// Of who is asked. With [`Tls`], TLS or nothing.
    pub(crate) async fn be_asked(tcp: TcpStream, tls: Option<&Tls>) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        let metered = Metered { tcp, left: Some(STRANGER_BYTES) };
        let Some(tls) = tls else { return Ok(Self::new(Wire::Plain(metered))) };
        let stream = TlsAcceptor::from(tls.is_asked.clone()).accept(metered).await?;
        Ok(Self::new(Wire::Tls(Box::new(stream.into()))))
    }
    /// What a handshake over it has to be bound to.
    pub(crate) fn binding(&self) -> io::Result<Binding> {
        match &self.wire {
            Wire::Plain(_) => Ok(None),
            Wire::Tls(stream) => match &**stream {
                TlsStream::Client(stream) => binding(stream.get_ref().1),
                TlsStream::Server(stream) => binding(stream.get_ref().1),
            },
        }
    }
    fn seen(&self) -> &Metered {
        match &self.wire {
            Wire::Plain(metered) => metered,
            Wire::Tls(stream) => stream.get_ref().0,
        }
    }
    fn metered(&mut self) -> &mut Metered {
        match &mut self.wire {
            Wire::Plain(metered) => metered,
            Wire::Tls(stream) => stream.get_mut().0,
        }
    }
    /// Whoever is at its other end has proved the key.
    pub(crate) fn trust(&mut self) {
        self.metered().left = None;
    }
    /// This end.
    pub(crate) fn local(&self) -> io::Result<SocketAddr> {
        self.seen().tcp.local_addr()
    }
    /// Another descriptor of the same connection, with which it can be ended.
    pub(crate) fn end(&self) -> io::Result<net::TcpStream> {
        Ok(self.seen().tcp.as_fd().try_clone_to_owned()?.into())
    }
    /// The same connection for threads that wait.
    pub(crate) fn into_blocking(self) -> io::Result<Stream> {
        let blocking = |metered: Metered| {
            let tcp = metered.tcp.into_std()?;
            tcp.set_nonblocking(false)?;
            io::Result::Ok(tcp)
        };
        match self.wire {
            Wire::Plain(metered) => Ok(Stream::plain(blocking(metered)?)),
            Wire::Tls(stream) => {
                let (metered, session) = match *stream {
                    TlsStream::Client(stream) => {
                        let (metered, session) = stream.into_inner();
                        (metered, session.into())
                    }
                    TlsStream::Server(stream) => {
                        let (metered, session) = stream.into_inner();
                        (metered, session.into())
                    }
                };
                Ok(Stream::tls(blocking(metered)?, session))
            }
        }
    }
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(left) = self.left else { return Pin::new(&mut self.tcp).poll_read(cx, into) };
        if left == 0 {
            let why = format!("more than {STRANGER_BYTES} bytes of somebody who has not proved the key");
            return Poll::Ready(Err(io::Error::other(why)));
        }
        let mut part = into.take(left);
        let polled = Pin::new(&mut self.tcp).poll_read(cx, &mut part);
        let n = part.filled().len();
        let bytes = part.filled().to_vec();
        into.put_slice(&bytes);
        self.left = Some(left - n);
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl<T: Unpin> AsyncRead for Socket<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl<T: Unpin> AsyncWrite for Socket<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Wire::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }
    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
