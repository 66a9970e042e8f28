//! Batches that nobody has read: which samples of which files, for whoever hosts the devices. The same settings as a
//! [`Loader`](crate::Loader)'s, the same order and the same cursor, so that a run may go on with the one where the other
//! stopped.

use std::sync::Arc;

use thalweg_runtime::source::{Batch, Opened, Samples};
use thalweg_runtime::{Cursor, Cursors};

use crate::error::Result;
use crate::files::Files;
use crate::turns::Turns;
use crate::walk::{Places, Stretch};

/// Settings for describing files in batches: `files.shuffle(1).batch(64).epochs(30)`. Data, and no more than that.
#[derive(Clone, Debug)]
pub struct Described {
    files: Files,
    turns: Turns,
}

impl Described {
    pub(crate) fn new(files: Files) -> Self {
        Self { files, turns: Turns::default() }
    }
    /// Another order each pass, a pure function of `seed`, the pass and the number of samples.
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.turns.seed = Some(seed);
        self
    }
    /// Samples in a batch. The last batch of a pass may be smaller; see [`Described::drop_last`].
    pub fn batch(mut self, samples: usize) -> Self {
        self.turns.batch = Some(samples);
        self
    }
    /// Leaves out what is left of a pass once it does not fill a batch.
    pub fn drop_last(mut self) -> Self {
        self.turns.drop_last = true;
        self
    }
    /// Passes in all, those before a checkpoint included.
    pub fn epochs(mut self, passes: u64) -> Self {
        self.turns.epochs = passes;
        self
    }
    /// The name under which the cursor is kept, `data` unless said: a model that learns from several needs one each.
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.turns.name = name.into();
        self
    }
    /// What is described.
    pub fn files(&self) -> &Files {
        &self.files
    }
    /// All batches from the first pass on, counted by nobody: for evaluation.
    ///
    /// # Errors
    /// Settings that make no sense together.
    pub fn iter(&self, opened: &Arc<Opened>) -> Result<Descriptions> {
        self.from(opened, 0, 0, None)
    }
    /// Batches from where `cursors` has these files as of the last commit, each counted as it is handed out. The model's
    /// `batches_on_workers` calls this with the cursors of its session.
    ///
    /// # Errors
    /// Settings that make no sense together, and a cursor of other data or another order.
    pub fn resume(&self, opened: &Arc<Opened>, cursors: &Cursors) -> Result<Descriptions> {
        let facts = opened.facts();
        let (stamp, pass, next) = self.turns.resume(cursors, facts.fingerprint, facts.len as usize)?;
        self.from(opened, pass, next, Some((cursors.clone(), self.turns.name.clone(), stamp)))
    }
    fn from(&self, opened: &Arc<Opened>, pass: u64, next: u64, count: Option<Count>) -> Result<Descriptions> {
        let len = opened.facts().len as usize;
        let places = self.turns.places(len, pass, next)?;
        let steps_per_pass = self.turns.steps_per_pass(len);
        Ok(Descriptions { opened: opened.clone(), seed: self.turns.seed, places, steps_per_pass, count })
    }
}

/// Whom to tell, under which name, which samples of what were handed out.
type Count = (Cursors, Arc<str>, Cursor);

/// The batches of a [`Described`], one after the other. Describing cannot go wrong; reading may, where a step is run.
#[derive(Debug)]
pub struct Descriptions {
    opened: Arc<Opened>,
    seed: Option<u64>,
    places: Places,
    steps_per_pass: u64,
    count: Option<Count>,
}

impl Descriptions {
    /// Steps of a whole pass.
    pub fn steps_per_pass(&self) -> u64 {
        self.steps_per_pass
    }
    /// What is read.
    pub fn opened(&self) -> &Arc<Opened> {
        &self.opened
    }
}

impl Iterator for Descriptions {
    type Item = Batch;
    fn next(&mut self) -> Option<Batch> {
        let samples = |s: Stretch| Samples { seed: self.seed, pass: s.pass, first: s.first, count: s.count };
        let now = self.places.next()?;
        let batch = self.opened.batch(samples(now), self.places.clone().next().map(samples));
        if let Some((cursors, name, stamp)) = &self.count {
            let (pass, next) = now.after;
            cursors.deliver(name, Cursor { pass, next, ..*stamp });
        }
        Some(batch)
    }
}
