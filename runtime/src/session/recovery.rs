//! Going on when devices are lost. The session remembers what its variables were made of: where they stood at some
//! step, and every step since, with what was fed to it. On other devices it does the same again, and a loop that trains sees
//! nothing of it: steps are deterministic, so that the variables are the same to the last bit.
//!
//! Nothing of this exists unless somebody can give [other devices](Recovery): within one process a device that is
//! lost is an error.

use std::path::PathBuf;

use thalweg_graph::Array;
use thalweg_graph::ir::VarId;

use super::{RunError, Session, Spread};
use crate::checkpoint::{CheckpointError, CheckpointId, Saving};
use crate::device::{AbortFlag, DeviceError};
use crate::executor::Executor;
use crate::feed::{Fed, Feeds};
use crate::planner::Planner;

/// Bytes of feeds that are remembered before the variables themselves are copied instead, unless told otherwise.
const REPLAY_BYTES: u64 = 1 << 30;
/// How often devices may be lost again before a single step has been done on them.
const ATTEMPTS: u32 = 8;

/// Gives a session other devices.
pub trait Recovery: Send {
    /// What to go on with, now that devices are lost because of `cause`. The lost ones are still the session's until this
    /// returns. Raising `abort` ends the waiting.
    ///
    /// # Errors
    /// If there are none. What [is a loss](DeviceError::is_loss) is tried again.
    fn recover(&mut self, cause: &DeviceError, abort: &AbortFlag) -> Result<Recovered, DeviceError>;
    /// The session has done again what was lost.
    fn recovered(&mut self, from: &Origin, replayed: u64);
    /// Whether there are more devices than the session has: asked before every step.
    fn has_more(&mut self) -> bool {
        false
    }
}

/// Devices that a session goes on with.
pub struct Recovered {
    /// Runs what the planner makes.
    pub executor: Executor,
    /// Spreads the same graph over the executor's devices, on as many leaves as before.
    pub planner: Box<dyn Planner>,
}

/// From where steps were done again.
#[derive(Clone, PartialEq, Debug)]
pub enum Origin {
    /// The initial values.
    Start,
    /// A copy of all variables in memory.
    Copy,
    /// A checkpoint.
    Checkpoint {
        /// Which.
        id: CheckpointId,
        /// Where it lies.
        directory: PathBuf,
    },
}

/// What leads from where the variables stood to where they stand.
enum Entry {
    Step { program: usize, checks_all: bool, feeds: Vec<Fed<'static>> },
    Set { id: VarId, value: Array },
}

/// Bytes of what is remembered of something that was fed: of samples that are read where the devices are only which.
fn kept_bytes(fed: &Fed<'_>) -> u64 {
    match fed {
        Fed::Array(array) => array.bytes().len() as u64,
        Fed::Drawn(..) => size_of::<Fed<'_>>() as u64,
    }
}

/// How the variables came to be what they are.
pub(crate) struct Journal {
    recovery: Box<dyn Recovery>,
    from: Origin,
    /// Where `from` is [`Origin::Copy`].
    copy: Vec<u8>,
    entries: Vec<Entry>,
    bytes: u64,
    limit: u64,
    /// A save that is running, and how many entries it has seen.
    saving: Option<(Saving, usize, PathBuf)>,
}

impl Journal {
    /// Of variables that have their initial values.
    pub(super) fn new(recovery: Box<dyn Recovery>) -> Self {
        let (from, copy, entries, bytes, limit, saving) = (Origin::Start, vec![], vec![], 0, REPLAY_BYTES, None);
        Self { recovery, from, copy, entries, bytes, limit, saving }
    }
    fn begin(&mut self, from: Origin) {
        (self.from, self.copy, self.bytes, self.saving) = (from, vec![], 0, None);
        self.entries.clear();
    }
    fn push(&mut self, entry: Entry) {
        self.bytes += match &entry {
            Entry::Step { feeds, .. } => feeds.iter().map(kept_bytes).sum(),
            Entry::Set { value, .. } => value.bytes().len() as u64,
        };
        self.entries.push(entry);
    }
    /// A save that has been published makes what it has seen superfluous.
    fn settle(&mut self) {
        let Some((saving, seen, directory)) = self.saving.take_if(|(saving, ..)| saving.is_done()) else { return };
        // One that failed changes nothing: whoever waits for it is told.
        let Some(id) = saving.published() else { return };
        let rest = self.entries.split_off(seen);
        self.begin(Origin::Checkpoint { id, directory });
        rest.into_iter().for_each(|entry| self.push(entry));
    }
}

/// Whether an error says that devices are lost.
pub(crate) trait Loss {
    /// That error of theirs.
    fn loss(&self) -> Option<&DeviceError>;
}
impl Loss for RunError {
    fn loss(&self) -> Option<&DeviceError> {
        if let RunError::Device(error) = self { Some(error).filter(|e| e.is_loss()) } else { None }
    }
}
impl Loss for CheckpointError {
    fn loss(&self) -> Option<&DeviceError> {
        if let CheckpointError::Device(error) = self { Some(error).filter(|e| e.is_loss()) } else { None }
    }
}

impl Session {
    /// How many bytes of feeds are remembered where devices may be lost, 1 GiB unless this is called. Beyond, all variables
    /// are copied.
    pub fn set_replay_bytes(&mut self, limit: u64) {
        if let Some(journal) = &mut self.journal {
            journal.limit = limit;
        }
    }

    /// Does something with the devices, on others if these are lost meanwhile.
    pub(crate) fn survive<T, E: Loss + From<RunError>>(
        &mut self,
        mut act: impl FnMut(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        loop {
            match act(self) {
                Err(error) if self.journal.is_some() => match error.loss().cloned() {
                    Some(cause) => self.recover(cause)?,
                    None => return Err(error),
                },
                outcome => return outcome,
            }
        }
    }
    /// Moves to more devices, if there are more.
    pub(super) fn grow(&mut self) -> Result<(), RunError> {
        let more = self.journal.as_mut().is_some_and(|j| j.recovery.has_more());
        if !more {
            return Ok(());
        }
        self.copy()?;
        self.recover(DeviceError::Gone { place: "the job".into(), cause: "it can have more workers again".into() })
    }
    /// A step that updates variables has been done.
    pub(super) fn remember_step(&mut self, program: usize, feeds: Vec<Fed<'_>>) -> Result<(), RunError> {
        let checks_all = self.checks_all;
        let Some(journal) = &mut self.journal else { return Ok(()) };
        journal.settle();
        journal.push(Entry::Step { program, checks_all, feeds: feeds.into_iter().map(Fed::into_owned).collect() });
        if journal.bytes > journal.limit { self.copy() } else { Ok(()) }
    }
    /// A variable has been set.
    pub(super) fn remember_set(&mut self, id: VarId, value: &Array) {
        if let Some(journal) = &mut self.journal {
            journal.push(Entry::Set { id, value: value.clone() });
        }
    }
    /// All variables have been given the values of a checkpoint, or their initial ones.
    pub(crate) fn remember_from(&mut self, from: Origin) {
        if let Some(journal) = &mut self.journal {
            journal.begin(from);
        }
    }
    /// A save has begun.
    pub(crate) fn remember_save(&mut self, saving: &Saving, directory: &std::path::Path) {
        if let Some(journal) = &mut self.journal {
            // The save before has ended by now, and may have removed what it would be gone on from.
            journal.settle();
            journal.saving = Some((saving.clone(), journal.entries.len(), directory.into()));
        }
    }
    /// All variables have been given other values: they are copied, for lack of a shorter way to say what they are.
    pub(crate) fn copy(&mut self) -> Result<(), RunError> {
        if self.journal.is_none() {
            return Ok(());
        }
        let bytes = self.survive(|session| {
            session.executor.whole()?;
            let mut bytes = vec![0; session.spread.layout.bytes as usize];
            session.spread.read_all(&mut session.executor, &mut bytes)?;
            Ok::<_, RunError>(bytes)
        })?;
        if let Some(journal) = &mut self.journal {
            journal.begin(Origin::Copy);
            journal.copy = bytes;
        }
        Ok(())
    }

    fn recover(&mut self, mut cause: DeviceError) -> Result<(), RunError> {
        let mut journal = self.journal.take().expect("whoever calls this has looked");
        let places = self.cursors.keep();
        let mut attempts = 0;
        let outcome = loop {
            let again = self.rebuild(&mut journal, &cause);
            attempts += 1;
            match again {
                Err(error) if attempts < ATTEMPTS && error.loss().is_some() => {
                    cause = error.loss().cloned().unwrap_or(cause);
                }
                outcome => break outcome,
            }
        };
        self.cursors.put_back(places);
        if outcome.is_ok() {
            let steps = journal.entries.iter().filter(|e| matches!(e, Entry::Step { .. })).count();
            journal.recovery.recovered(&journal.from, steps as u64);
        }
        self.journal = Some(journal);
        outcome
    }
    /// Everything on other devices, as it was.
    fn rebuild(&mut self, journal: &mut Journal, cause: &DeviceError) -> Result<(), RunError> {
        let Recovered { mut executor, planner } = journal.recovery.recover(cause, &self.executor.abort_flag())?;
        // Whoever has a copy of its own has gone on writing, and those who are gone do not.
        if let Some((saving, ..)) = &journal.saving {
            saving.join();
            journal.settle();
        }
        let spread = Spread::new(&self.graph, planner.state(), executor.devices().len()).map_err(RunError::Unsound)?;
        executor.reserve_state(&planner.state().bytes)?;
        executor.follow(&self.executor);
        // There is nobody who could unload them.
        for ready in std::mem::take(&mut self.ready) {
            for step in ready.guard.iter().chain([&ready.step]) {
                self.forget_step(step);
            }
        }
        self.keep_fed_bytes();
        (self.executor, self.planner, self.spread) = (executor, planner, spread);
        self.watch_again();
        match &journal.from {
            Origin::Start => self.fill()?,
            Origin::Copy => self.spread.write_all(&mut self.executor, &journal.copy)?,
            Origin::Checkpoint { directory, id } => self.load_again(directory, *id).map_err(|error| match error {
                CheckpointError::Device(error) => RunError::Device(error),
                error => RunError::Lost(error.to_string()),
            })?,
        }
        for entry in &journal.entries {
            match entry {
                Entry::Set { id, value } => self.spread.write(&mut self.executor, *id, value.bytes())?,
                Entry::Step { program, checks_all, feeds } => self.replay(*program, *checks_all, feeds)?,
            }
        }
        Ok(())
    }
    fn replay(&mut self, program: usize, checks_all: bool, feeds: &[Fed<'_>]) -> Result<(), RunError> {
        let wanted = std::mem::replace(&mut self.checks_all, checks_all);
        let inputs = self.programs[program].inputs.clone();
        let name = self.programs[program].name.clone();
        let feeds: Vec<_> = inputs.iter().zip(feeds).map(|((name, _), fed)| (&**name, fed.borrowed())).collect();
        let done = self.run_once(&name, Feeds::Mixed(&feeds));
        self.checks_all = wanted;
        done.map(drop)
    }
}
