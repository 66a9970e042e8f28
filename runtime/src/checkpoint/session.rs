//! What a session can do with checkpoints. Variables are copied out and in whole, wherever they lie: what one set of
//! devices has saved, another can load.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{CheckpointError, Damaged};
use super::manifest::Digest;
use super::names::CheckpointId;
use super::read::{exactly, newest};
use super::saver::Saving;
use super::shards::{Root, Sharded};
use super::snapshot::{Same, Snapshot, State, Variables, reserve};
use super::write::{Lineage, Saved, Target, clean, key_of};
use crate::crash;
use crate::session::{Loss, Origin, Session};

/// What a model goes on from.
#[derive(Clone, Debug, PartialEq)]
pub struct Resumed {
    /// Which checkpoint.
    pub id: CheckpointId,
    /// Its manifest's path.
    pub path: PathBuf,
    /// The hash of all variables.
    pub digest: Digest,
    /// Newer checkpoints that are damaged, newest first: this many saves are lost.
    pub damaged: Vec<Damaged>,
}

impl Session {
    /// Copies all variables and the places of the sources of data, and has them written to a directory while the session
    /// goes on. Waits first for the save before, and returns its error if nobody has been told of it; then nothing has
    /// been begun.
    ///
    /// The directory is made if it is not there. The newest three checkpoints are kept in it, see
    /// [`Session::keep_checkpoints`].
    ///
    /// # Errors
    /// If the directory cannot be made, somebody else is saving there, or it holds checkpoints that this session neither
    /// saved nor resumed. What goes wrong afterwards comes out of [`Saving::wait`] or the next save.
    pub fn save(&mut self, directory: impl AsRef<Path>) -> Result<Saving, CheckpointError> {
        let (target, snapshot) = self.begin_save(directory.as_ref())?;
        let saving = self.saver.start(target, snapshot)?;
        self.remember_save(&saving, directory.as_ref());
        Ok(saving)
    }
    /// The same, but returns once the checkpoint is on the disk.
    pub fn save_and_wait(&mut self, directory: impl AsRef<Path>) -> Result<Saved, CheckpointError> {
        let saved = self.survive(|session| {
            let (target, snapshot) = session.begin_save(directory.as_ref())?;
            session.saver.run(target, snapshot)
        })?;
        self.remember_from(Origin::Checkpoint { id: saved.id, directory: directory.as_ref().into() });
        Ok(saved)
    }
    /// Waits for the save that is running, if one is.
    pub fn wait_saved(&mut self) -> Result<Option<Saved>, CheckpointError> {
        self.saver.finish()
    }
    /// Directories that the workers reach as well: what is saved below one of them they write themselves, each what it holds.
    pub fn share_roots(&mut self, roots: Vec<Root>) {
        self.roots = roots;
    }
    /// How many checkpoints are kept in a directory; the newest always is.
    pub fn keep_checkpoints(&mut self, count: usize) {
        self.saver.keep = count.max(1);
    }
    /// Loads the newest checkpoint of a directory that is whole. The session goes on from there, and may save there.
    ///
    /// # Errors
    /// If there is none, or it is not one of this graph. The session is then as it was.
    pub fn resume(&mut self, directory: impl AsRef<Path>, same: Same) -> Result<Resumed, CheckpointError> {
        let directory = directory.as_ref();
        self.saver.finish()?;
        let variables = self.variables();
        reserve(&mut self.saver.buffer, variables.bytes)?;
        let buffer = &mut self.saver.buffer;
        let accept = |path: &Path, manifest: &super::Manifest| variables.check(path, manifest, same);
        // The model's variables are those of the manifest, in the same order, or `accept` had refused.
        let mut sink = |i: usize, offset: usize, bytes: &[u8]| variables.put(buffer, i, offset, bytes);
        let (found, damaged) = newest(directory, &accept, &mut sink)?;
        let key = key_of(directory)?;
        self.write_state()?;
        self.cursors.restore(found.manifest.cursors.iter().map(|(n, c)| (n.clone(), c.into())).collect());
        // Damaged ones are known of as well: saving goes on above them.
        let newest = damaged.first().map_or(found.manifest.id(), |d| d.id);
        self.saver.descend(key, Lineage { newest, damaged: damaged.iter().map(|d| d.id).collect() });
        let (id, digest) = (found.manifest.id(), found.manifest.digest);
        self.remember_from(Origin::Checkpoint { id, directory: directory.into() });
        Ok(Resumed { id, path: found.path, digest, damaged })
    }
    /// The same, or nothing if there is no checkpoint in that directory, or no such directory: then the session stays as
    /// it is. Damaged checkpoints and no whole one are an error.
    pub fn resume_or_init(
        &mut self,
        directory: impl AsRef<Path>,
        same: Same,
    ) -> Result<Option<Resumed>, CheckpointError> {
        match self.resume(directory, same) {
            Err(CheckpointError::None { .. }) => Ok(None),
            resumed => resumed.map(Some),
        }
    }

    fn begin_save(&mut self, directory: &Path) -> Result<(Target, Snapshot), CheckpointError> {
        match self.saver.finish() {
            // Who was writing is gone. What it would have said this save says.
            Err(error) if error.loss().is_some() && self.journal.is_some() => {}
            finished => drop(finished?),
        }
        let target = Target::open(directory, &|key| self.saver.lineage(key))?;
        let variables = self.variables();
        let (cursors, step) = (self.cursors.committed(), self.step());
        let state = match self.begin_shards(&target, step)? {
            Some(sharded) => State::There(sharded),
            None => {
                self.read_state(&variables)?;
                State::Here(std::mem::take(&mut self.saver.buffer))
            }
        };
        crash::point("snapshot");
        Ok((target, Snapshot { variables, state, cursors, step }))
    }
    /// Has the workers save what they hold, where they can reach the directory; they go on once they have copied it.
    fn begin_shards(&mut self, target: &Target, step: u64) -> Result<Option<Sharded>, CheckpointError> {
        let named = self.roots.iter().find_map(|root| Some((root.name.clone(), root.name_of(target.directory())?)));
        // Saving twice between two steps is one save, as the driver does it.
        let Some((root, directory)) = named.filter(|_| target.newest().is_none_or(|id| id.step != step)) else {
            return Ok(None);
        };
        clean(target)?;
        self.survive(|session| {
            session.executor.whole()?;
            let (variables, spread, graph) = (session.variables(), &session.spread, &session.graph);
            let shares = variables.slots.iter().map(|slot| {
                let id = graph.variable(&slot.name).expect("a slot of this graph");
                (slot.entry(), spread.shares(id).collect())
            });
            let devices = session.executor.devices().len();
            let planned = Sharded::plan(&root, &directory, target.next(step), devices, shares);
            let Some(mut sharded) = planned else { return Ok(None) };
            for (device, order) in sharded.devices.iter().zip(&sharded.orders) {
                sharded.pending.push(session.executor.device_mut(*device).save(order)?);
            }
            Ok::<_, CheckpointError>(Some(sharded))
        })
    }
    /// Everything about the variables but their values; made when first asked for.
    pub(super) fn variables(&mut self) -> Arc<Variables> {
        let made = self.saved_as.get_or_insert_with(|| Arc::new(Variables::of(&self.graph, &self.spread.layout)));
        made.clone()
    }
    /// Copies all variables into the saver's buffer; errs if they are not those of one step.
    pub(super) fn read_state(&mut self, variables: &Variables) -> Result<(), CheckpointError> {
        reserve(&mut self.saver.buffer, variables.bytes)?;
        self.survive(|session| {
            session.executor.whole()?;
            Ok(session.spread.read_all(&mut session.executor, &mut session.saver.buffer)?)
        })
    }
    /// Copies the saver's buffer into all variables.
    pub(super) fn write_state(&mut self) -> Result<(), CheckpointError> {
        self.survive(|session| {
            Ok::<_, CheckpointError>(session.spread.write_all(&mut session.executor, &session.saver.buffer)?)
        })?;
        self.executor.mended();
        Ok(())
    }
    /// Gives all variables the values of this very checkpoint.
    pub(crate) fn load_again(&mut self, directory: &Path, id: CheckpointId) -> Result<(), CheckpointError> {
        let variables = self.variables();
        let mut state = Vec::new();
        reserve(&mut state, variables.bytes)?;
        let mut sink = |i: usize, offset: usize, bytes: &[u8]| variables.put(&mut state, i, offset, bytes);
        exactly(directory, id, &|path, manifest| variables.check(path, manifest, Same::Variables), &mut sink)?;
        self.spread.write_all(&mut self.executor, &state)?;
        self.executor.mended();
        Ok(())
    }
}
