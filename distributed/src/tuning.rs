//! What is asked of the system for every connection that carries channels. Not the defaults: those are for strangers far
//! away, who may be silent for hours and with whom a path is shared. Whatever the system refuses is left as it is, for none of
//! it changes what arrives.

use std::net::TcpStream;
use std::time::Duration;

use rustix::net::sockopt;
use thalweg_runtime::broken::{self, What};

use crate::patience;

/// After so much silence the other machine is asked whether it is there, so often, and so many times in vain.
const ASK_AFTER: Duration = Duration::from_secs(1);
const ASK_TIMES: u32 = 3;
/// How long the other end may take nothing. Longer than its silence elsewhere may last: who waits for a step that has not
/// begun there reads nothing, and is well.
const TAKES_NOTHING: Duration = Duration::from_secs(10);
/// How a connection within one machine limits itself: not at all, as there is nothing to share. One that estimates the
/// path's rate and keeps to it by timers (BBR) takes a quarter to a half longer here, and is the default of some systems.
const WITHIN_A_MACHINE: &str = "reno";

/// Prepares a new connection.
pub(crate) fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    // Silence alone ends nothing in a whole machine: the system answers, whatever its processes do.
    let _ = sockopt::set_tcp_keepidle(stream, ASK_AFTER);
    let _ = sockopt::set_tcp_keepintvl(stream, ASK_AFTER);
    let _ = sockopt::set_tcp_keepcnt(stream, ASK_TIMES);
    let _ = sockopt::set_socket_keepalive(stream, !broken::is(What::Timeout));
    // This does, where a process takes nothing.
    let _ = sockopt::set_tcp_user_timeout(stream, patience(TAKES_NOTHING).as_millis() as u32);
    if stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback()) {
        let _ = sockopt::set_tcp_congestion(stream, WITHIN_A_MACHINE);
    }
}
