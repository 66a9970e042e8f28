//! Saving beside the steps: one thread per save, one save at a time, one copy of the variables. Not a queue: whoever
//! saves faster than the disk writes waits for it, instead of filling memory with copies.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::error::CheckpointError;
use super::snapshot::{Snapshot, State as Copied};
use super::write::{DirectoryKey, Lineage, Outcome, Saved, Target, write};

type Result<T> = std::result::Result<T, CheckpointError>;

/// Checkpoints kept in a directory unless a session is told otherwise.
const KEPT: usize = 3;

/// A save under way. Dropping it does not end the save; an error that nobody waited for comes out of the session's next
/// save, or is printed when the session ends.
#[derive(Clone, Debug)]
pub struct Saving(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    result: Option<Result<Saved>>,
    /// Somebody has been told.
    seen: bool,
}

impl Saving {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn set(&self, result: Result<Saved>) {
        self.state().result = Some(result);
        self.0.done.notify_all();
    }
    /// Waits until the checkpoint is on the disk, or says why it is not. May be called from any thread, and again.
    pub fn wait(&self) -> Result<Saved> {
        let mut state = self.state();
        loop {
            if let Some(result) = state.result.clone() {
                state.seen = true;
                return result;
            }
            state = self.0.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
    /// Waits, and tells nobody what came of it.
    pub(crate) fn join(&self) {
        let mut state = self.state();
        while state.result.is_none() {
            state = self.0.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
    /// What readers can find by now.
    pub(crate) fn published(&self) -> Option<super::CheckpointId> {
        match self.state().result.as_ref()? {
            Ok(saved) => Some(saved.id),
            Err(CheckpointError::AfterPublication { id, .. }) => Some(*id),
            Err(_) => None,
        }
    }
    /// Whether [`Saving::wait`] would return at once.
    pub fn is_done(&self) -> bool {
        self.state().result.is_some()
    }
}

struct Running {
    saving: Saving,
    directory: DirectoryKey,
    /// Gives the copy back, and what readers can now find.
    thread: JoinHandle<(Option<Vec<u8>>, Option<super::CheckpointId>)>,
}

/// What a session has to do with checkpoints.
pub(crate) struct Saver {
    /// Checkpoints kept per directory.
    pub keep: usize,
    /// Room for a copy of the variables; elsewhere while a save is running.
    pub buffer: Vec<u8>,
    running: Option<Running>,
    lineages: BTreeMap<DirectoryKey, Lineage>,
}

impl Default for Saver {
    fn default() -> Self {
        Self { keep: KEPT, buffer: vec![], running: None, lineages: BTreeMap::new() }
    }
}

impl Saver {
    /// Waits for the save that is running. Its error, unless somebody has been told of it.
    pub(super) fn finish(&mut self) -> Result<Option<Saved>> {
        let Some(Running { saving, directory, thread }) = self.running.take() else { return Ok(None) };
        match thread.join() {
            Ok((buffer, published)) => {
                self.buffer = buffer.unwrap_or_default();
                self.learn(directory, published);
            }
            // `guarded` sees to it that this does not happen; if it does, nobody is to wait for ever.
            Err(_) => {
                let fault = || Err(CheckpointError::Internal("the thread that saved has died".into()));
                saving.state().result.get_or_insert_with(fault);
            }
        }
        let told = saving.state().seen;
        match saving.wait() {
            Err(_) if told => Ok(None),
            result => result.map(Some),
        }
    }
    /// What a directory is to this session.
    pub(super) fn lineage(&self, directory: DirectoryKey) -> Option<Lineage> {
        self.lineages.get(&directory).cloned()
    }
    /// From now on this session goes on from what is in that directory.
    pub(super) fn descend(&mut self, directory: DirectoryKey, lineage: Lineage) {
        self.lineages.insert(directory, lineage);
    }
    /// The variables begin anew: they go on from no checkpoint.
    pub(crate) fn forget(&mut self) {
        self.lineages.clear();
    }
    fn learn(&mut self, directory: DirectoryKey, published: Option<super::CheckpointId>) {
        if let Some(newest) = published {
            self.lineages.entry(directory).or_insert(Lineage { newest, damaged: vec![] }).newest = newest;
        }
    }
    /// Saves on this thread.
    pub(super) fn run(&mut self, target: Target, snapshot: Snapshot) -> Result<Saved> {
        let mut snapshot = snapshot;
        let Outcome { result, published } = guarded(&target, &mut snapshot, self.keep);
        self.learn(target.key, published);
        if let Copied::Here(buffer) = snapshot.state {
            self.buffer = buffer;
        }
        result
    }
    /// Saves on a thread of its own.
    pub(super) fn start(&mut self, target: Target, snapshot: Snapshot) -> Result<Saving> {
        let saving = Saving(Arc::default());
        let (told, keep, directory) = (saving.clone(), self.keep, target.key);
        let mut snapshot = snapshot;
        let body = move || {
            let Outcome { result, published } = guarded(&target, &mut snapshot, keep);
            // Whoever is told may save there next.
            drop(target);
            told.set(result);
            let buffer = if let Copied::Here(buffer) = snapshot.state { Some(buffer) } else { None };
            (buffer, published)
        };
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(body);
        let thread = thread.map_err(|e| CheckpointError::Internal(format!("cannot start a thread: {e}")))?;
        self.running = Some(Running { saving: saving.clone(), directory, thread });
        Ok(saving)
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        // Nobody is left to be told but the person.
        if let Err(error) = self.finish() {
            eprintln!("the last save failed: {error}");
        }
    }
}

/// A fault of ours in a save must not leave anybody waiting.
fn guarded(target: &Target, snapshot: &mut Snapshot, keep: usize) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| write(target, snapshot, keep))).unwrap_or_else(|_| Outcome {
        result: Err(CheckpointError::Internal("a panic while saving".into())),
        published: None,
    })
}
