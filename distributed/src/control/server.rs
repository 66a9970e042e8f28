//! The driver's end: a door at which workers arrive that have proved the key and attend. Nobody else's bytes come as far as
//! gRPC.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc as queue;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::{Connected, Server};
use tonic::{Request, Response, Status, Streaming};

use super::proto::control_server::{Control, ControlServer};
use super::{Handle, Hearing, KEEP_ALIVE, Line, Open, QUEUE, WINDOW_BYTES, WIRE_BYTES, ends, proto};
use crate::auth::{Party, Pass};
use crate::listener::{Arrival, Listener, Port};
use crate::message::{Order, Report};
use crate::socket::Socket;
use crate::tls::Tls;
use crate::{HostError, background, lock, patience};

/// Somebody who attends.
pub(crate) struct Attending {
    /// Who he is, as far as he has proved it.
    pub(crate) party: Party,
    pub(crate) line: Line<Order>,
    pub(crate) hearing: Hearing<Report, Order>,
}

/// A door for those who attend. When it is dropped nobody comes any more; who has come stays.
pub(crate) struct Reception(Listener<Attending>);

impl Reception {
    /// Lets those in, from here on, who want to talk to `me`.
    pub(crate) fn open(port: Port, tls: Option<Tls>, pass: Pass, me: Party) -> Result<Self, HostError> {
        let ((arrived, arrivals), (admitted, incoming)) = (mpsc::channel(), queue::unbounded_channel());
        let refused = arrived.clone();
        let arrive = move |arrival: Arrival<(Party, Socket)>| {
            let caller = arrival.and_then(|(party, socket)| caller(party, socket).map_err(|e| e.to_string()));
            // Whoever waited may have gone.
            match caller {
                Ok(caller) => drop(admitted.send(Ok::<_, io::Error>(caller))),
                Err(why) => drop(refused.send(Err(why))),
            }
        };
        let serving = serve(UnboundedReceiverStream::new(incoming), arrived);
        // It ends when nobody is admitted any more; calls go on.
        background::handle().map_err(HostError::io("cannot start a thread"))?.spawn(serving);
        Ok(Self(Listener::with(port, tls, pass, me, arrivals, arrive)?))
    }
    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address()
    }
    /// Who comes next, if anybody does in time.
    pub(crate) fn next(&self, within: Duration) -> Option<Arrival<Attending>> {
        self.0.next(within)
    }
}

/// Has those attend who come by these connections.
pub(super) async fn serve<C>(
    incoming: impl Stream<Item = io::Result<C>>,
    arrived: mpsc::Sender<Arrival<Attending>>,
) -> Result<(), tonic::transport::Error>
where
    C: AsyncRead + AsyncWrite + Connected<ConnectInfo = Ticket> + Unpin + Send + 'static,
{
    let service = ControlServer::new(Desk { arrived })
        .max_decoding_message_size(WIRE_BYTES)
        .max_encoding_message_size(WIRE_BYTES);
    let (interval, limit) = KEEP_ALIVE;
    let server = Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_concurrent_streams(1)
        .http2_max_header_list_size(16 << 10)
        .http2_keepalive_interval(Some(patience(interval)))
        .http2_keepalive_timeout(Some(patience(limit)));
    server.serve_with_incoming(service, incoming).await
}

/// Who is at the other end of a connection; what it takes to attend, which happens once.
#[derive(Clone)]
pub(super) struct Ticket {
    party: Party,
    handle: Arc<Mutex<Option<Handle>>>,
}

impl Ticket {
    pub(super) fn new(party: Party, handle: Handle) -> Self {
        Self { party, handle: Arc::new(Mutex::new(Some(handle))) }
    }
}

/// A connection of somebody who has proved the key.
type Caller = Socket<(Open, Ticket)>;

impl Connected for Caller {
    type ConnectInfo = Ticket;
    fn connect_info(&self) -> Ticket {
        self.tag().1.clone()
    }
}

fn caller(party: Party, socket: Socket) -> io::Result<Caller> {
    let (open, handle) = Handle::of(&socket)?;
    Ok(socket.tagged((open, Ticket::new(party, handle))))
}

/// Where they attend.
struct Desk {
    arrived: mpsc::Sender<Arrival<Attending>>,
}

#[tonic::async_trait]
impl Control for Desk {
    type AttendStream = Pin<Box<dyn Stream<Item = Result<proto::Order, Status>> + Send>>;

    async fn attend(&self, request: Request<Streaming<proto::Report>>) -> Result<Response<Self::AttendStream>, Status> {
        let ticket = request.extensions().get::<Ticket>().cloned();
        let Ticket { party, handle } = ticket.ok_or_else(|| Status::unauthenticated("nobody knows you"))?;
        let handle = lock(&handle).take().ok_or_else(|| Status::already_exists("you attend already"))?;
        let (queue, said) = queue::channel(QUEUE);
        let (line, hearing) = ends(request.into_inner(), queue, handle);
        let gone = |_| Status::unavailable("nobody waits for you");
        self.arrived.send(Ok(Attending { party, line, hearing })).map_err(gone)?;
        Ok(Response::new(Box::pin(ReceiverStream::new(said).map(Ok))))
    }
}
