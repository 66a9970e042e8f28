//! The worker's end: gRPC over a connection that has been made and authenticated already.

use std::io;
use std::sync::Mutex;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Uri};
use tower::service_fn;

use super::proto::control_client::ControlClient;
use super::{Handle, Hearing, KEEP_ALIVE, Line, QUEUE, WINDOW_BYTES, WIRE_BYTES, ends};
use crate::auth::HANDSHAKE_LIMIT;
use crate::message::{Order, Report};
use crate::socket::Socket;
use crate::{background, lock, patience};

/// Attends on this connection. Blocks until the driver has taken the call.
///
/// # Errors
/// If it does not.
pub(crate) fn attend(socket: Socket) -> io::Result<(Line<Report>, Hearing<Order, Report>)> {
    background::wait(background::within(HANDSHAKE_LIMIT, call(socket)))
}

async fn call(socket: Socket) -> io::Result<(Line<Report>, Hearing<Order, Report>)> {
    let (open, handle) = Handle::of(&socket)?;
    call_over(socket.tagged(open), handle).await
}

/// The same over any connection.
pub(super) async fn call_over(
    wire: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    handle: Handle,
) -> io::Result<(Line<Report>, Hearing<Order, Report>)> {
    let once = Mutex::new(Some(wire));
    // There is one connection. When it ends nobody makes another: it would have to be authenticated anew.
    let connect = service_fn(move |_: Uri| {
        let wire = lock(&once).take().map(TokioIo::new);
        async move { wire.ok_or_else(super::closed) }
    });
    let (interval, limit) = KEEP_ALIVE;
    let endpoint = Endpoint::from_static("http://driver")
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keep_alive_interval(patience(interval))
        .keep_alive_timeout(patience(limit))
        .keep_alive_while_idle(true);
    let channel = endpoint.connect_with_connector(connect).await.map_err(io::Error::other)?;
    let mut client =
        ControlClient::new(channel).max_decoding_message_size(WIRE_BYTES).max_encoding_message_size(WIRE_BYTES);
    let (queue, said) = mpsc::channel(QUEUE);
    let called = client.attend(ReceiverStream::new(said)).await;
    let orders = called.map_err(|status| io::Error::other(super::lost(&status)))?.into_inner();
    Ok(ends(orders, queue, handle))
}
