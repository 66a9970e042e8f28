//! Threads that read batches ahead of the loop. They take batches in order and finish in any; who asks gets them in
//! order. Plain threads rather than rayon's pool: they wait for disks, and the pool is for kernels.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::dataset::Dataset;
use crate::error::{DataError, Result};
use crate::loader::Reader;
use crate::walk::Walk;

/// What came of a batch: data, an error, or a panic to go on with.
type Outcome = std::result::Result<Result<Dataset>, Box<dyn Any + Send>>;

struct State {
    walk: Walk,
    /// Batches that threads have taken from the walk.
    claimed: u64,
    /// Batches that were asked for and given.
    given: u64,
    /// Those between, as far as they are read, with where the source stands behind them.
    read: BTreeMap<u64, (Outcome, (u64, u64))>,
    /// Nothing more is to be claimed: the walk is over, or nobody listens any more.
    over: bool,
}

struct Shared {
    state: Mutex<State>,
    reader: Reader,
    ahead: u64,
    /// Told when there is room for another batch, and when it is over.
    room: Condvar,
    /// Told when a batch is read, and when it is over.
    news: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What others wrote can be trusted: user code never runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn end(&self) {
        self.lock().over = true;
        self.room.notify_all();
        self.news.notify_all();
    }
    fn work(&self) {
        loop {
            let mut state = self.lock();
            while !state.over && state.claimed - state.given >= self.ahead {
                state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.over {
                return;
            }
            let number = state.claimed;
            let job = match catch_unwind(AssertUnwindSafe(|| state.walk.next())) {
                Ok(Some(job)) => job,
                Ok(None) => {
                    drop(state);
                    return self.end();
                }
                // An order too long for memory: a thread that went silently would be waited for.
                Err(panic) => {
                    state.claimed += 1;
                    state.read.insert(number, (Err(panic), (0, 0)));
                    drop(state);
                    return self.end();
                }
            };
            state.claimed += 1;
            drop(state);

            let outcome = catch_unwind(AssertUnwindSafe(|| self.reader.read(&job)));
            self.lock().read.insert(number, (outcome, job.at.after));
            self.news.notify_all();
        }
    }
}

/// Batches that threads read ahead.
pub(crate) struct Ahead {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Ahead {
    /// Starts `threads` threads, which hold at most `ahead` batches that nobody has asked for.
    pub(crate) fn start(walk: Walk, reader: Reader, threads: usize, ahead: usize) -> Result<Self> {
        let state = State { walk, claimed: 0, given: 0, read: BTreeMap::new(), over: false };
        let (room, news, ahead) = (Condvar::new(), Condvar::new(), ahead as u64);
        let shared = Arc::new(Shared { state: Mutex::new(state), reader, ahead, room, news });
        let mut all = Self { shared, threads: vec![] };
        for thread in 1..=threads {
            let shared = all.shared.clone();
            let started = std::thread::Builder::new().name(format!("thalweg-data-{thread}"));
            match started.spawn(move || shared.work()) {
                Ok(handle) => all.threads.push(handle),
                Err(error) => return Err(DataError::Thread { thread, threads, why: error.to_string() }),
            }
        }
        Ok(all)
    }
    /// The next batch, and where the source stands behind it.
    pub(crate) fn next(&mut self) -> Option<(Result<Dataset>, (u64, u64))> {
        let mut state = self.shared.lock();
        let (outcome, after) = loop {
            let number = state.given;
            if let Some(read) = state.read.remove(&number) {
                break read;
            }
            if state.over && number == state.claimed {
                return None;
            }
            state = self.shared.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.given += 1;
        drop(state);
        self.shared.room.notify_one();
        match outcome {
            Ok(batch) => Some((batch, after)),
            Err(panic) => {
                self.shared.end();
                resume_unwind(panic)
            }
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.shared.end();
        for thread in self.threads.drain(..) {
            // A panic in a batch was caught, and belongs to whoever asks for that batch.
            let _ = thread.join();
        }
    }
}
