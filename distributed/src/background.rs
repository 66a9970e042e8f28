//! The one thread on which sockets are awaited: those that take connections, and those of control. Everything else in this
//! crate blocks, and knows nothing of that: whoever has to wait for a future does so here, on its own thread.

use std::future::Future;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};

/// What awaits; begun when it is first asked for, and there as long as the process.
///
/// # Errors
/// If the system gives no thread, or no descriptors.
pub(crate) fn handle() -> io::Result<Handle> {
    static STARTED: Mutex<Option<Handle>> = Mutex::new(None);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*started {
        return Ok(handle.clone());
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name("sockets".into()).spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    *started = Some(handle.clone());
    Ok(handle)
}

/// What comes of a future. Not for the background thread itself, which would wait for itself.
pub(crate) fn wait<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    handle()?.block_on(what)
}

/// What comes of it, if it does in time.
pub(crate) async fn within<T>(limit: Duration, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, what).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
