//! Thalweg over several processes. A *worker* hosts a device; the *driver* holds the session, conducts steps and is where
//! feeds come from and fetches go. What crosses channels goes straight from process to process.
//!
//! Who joins is in `auth.rs`, what is said in `message.rs` and how in `control`, what is carried in `data.rs`. Four machines
//! decide, and touch neither sockets nor clocks: `membership.rs` and `joining.rs` who takes part in a term, `coordinator.rs` and
//! `machine.rs` what is done in it. `gathering.rs`, `coming.rs`, `driver.rs` and `worker.rs` are the rims around them; for tests,
//! `simulation/` is another one.

mod access;
#[cfg(test)]
mod any_order;
mod auth;
mod background;
mod coming;
pub mod contract;
mod control;
mod coordinator;
mod data;
mod driver;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod gathering;
mod job;
mod joining;
pub mod launch;
mod listener;
mod machine;
mod membership;
mod message;
mod null;
mod reading;
mod remote;
#[cfg(test)]
mod simulation;
mod socket;
mod sources;
mod stream;
mod striped;
mod tally;
mod tls;
mod tuning;
mod watch;
mod worker;

pub use access::{Encryption, Reach};
pub use auth::JobKey;
pub use driver::{Tell, Workers};
pub use gathering::{Call, Gathering};
pub use job::{JOB_VARIABLE, Job, Model, WORLD_VARIABLE, read_key};
pub use worker::{Door, Open, Worker, serve};

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thalweg_runtime::broken::{self, What};

/// What driver and workers compare before anything else.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The term of those who join: they learn which one begins when they are welcomed.
const JOINING: u32 = 0;
/// How often a worker that has nothing to say says so.
const BEAT: Duration = Duration::from_secs(1);
/// A worker that was not heard of for so long is gone, whatever its connections are like.
const SILENCE_LIMIT: Duration = Duration::from_secs(3);

/// For how long a peer that takes part in a term may be silent, or take nothing, before that ends the term: so long. In a build
/// that is [broken](thalweg_runtime::broken) so, for a day, which no test waits for.
fn patience(limit: Duration) -> Duration {
    if broken::is(What::Timeout) { Duration::from_secs(24 * 60 * 60) } else { limit }
}

/// Why processes did not come together, or did not stay.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A connection was refused, or not made.
    #[error("{0}")]
    Refused(String),
    /// Not everybody came.
    #[error("{joined} of {world} workers joined within {seconds} s{}", last.as_ref().map_or(String::new(), |l| format!("; the last one that did not was refused: {l}")))]
    Missing {
        /// How many did.
        joined: usize,
        /// How many were expected.
        world: usize,
        /// How long they had.
        seconds: u64,
        /// Why somebody was not let in, if anybody was not.
        last: Option<String>,
    },
    /// What the launcher left does not make a job.
    #[error("{0}")]
    Job(String),
    /// The system refused something.
    #[error("{doing}: {error}")]
    Io {
        /// What was tried.
        doing: String,
        /// What it said.
        error: io::Error,
    },
}

/// The first eight bytes of a hash, where they are name enough.
fn short(hash: &[u8; 32]) -> u64 {
    u64::from_le_bytes(hash[..8].try_into().expect("eight of thirty-two bytes"))
}

/// Locks what stays whole whatever happens to who holds it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HostError {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |error| Self::Io { doing, error }
    }
}
