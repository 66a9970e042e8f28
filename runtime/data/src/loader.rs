//! What turns a source into batches: order, size, passes, and where to begin. A loader is settings and a source, no
//! place: each iteration starts at a cursor and walks on, so the same loader trains, resumes and evaluates.

use std::sync::Arc;

use thalweg_runtime::{Cursor, Cursors};

use crate::dataset::Dataset;
use crate::error::Result;
use crate::prefetch::Ahead;
use crate::source::Source;
use crate::turns::Turns;
use crate::walk::{Job, Walk};

/// Where a batch lies, for functions that need to draw: random numbers made of this alone are the same whenever and on
/// whatever thread the batch is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The loader's seed; 0 where it does not shuffle.
    pub seed: u64,
    /// The pass, from 0.
    pub pass: u64,
    /// The place of the batch's first sample in the order of that pass.
    pub first: u64,
}

type Map = Arc<dyn Fn(Dataset, At) -> Result<Dataset> + Send + Sync>;

/// Settings for reading a source in batches: `train.shuffle(1).batch(64).epochs(30)`.
#[derive(Clone)]
pub struct Loader {
    source: Arc<dyn Source>,
    turns: Turns,
    threads: usize,
    ahead: Option<usize>,
    map: Option<Map>,
}

impl Loader {
    /// A loader of `source`, in its own order, one pass, called `data`. How many samples a step takes is still to be
    /// said: [`Loader::batch`].
    pub fn new(source: impl Source + 'static) -> Self {
        let source: Arc<dyn Source> = Arc::new(source);
        Self { source, turns: Turns::default(), threads: 0, ahead: None, map: None }
    }
    /// Another order each pass, a pure function of `seed`, the pass and the number of samples.
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.turns.seed = Some(seed);
        self
    }
    /// Samples in a batch. The last batch of a pass may be smaller; see [`Loader::drop_last`].
    pub fn batch(mut self, samples: usize) -> Self {
        self.turns.batch = Some(samples);
        self
    }
    /// Leaves out what is left of a pass once it does not fill a batch.
    pub fn drop_last(mut self) -> Self {
        self.turns.drop_last = true;
        self
    }
    /// Passes in all, those before a checkpoint included: a loader whose cursor stands behind the last one gives nothing.
    pub fn epochs(mut self, passes: u64) -> Self {
        self.turns.epochs = passes;
        self
    }
    /// Reads ahead on so many threads, two batches each unless [`Loader::ahead`] says otherwise. Worth it where reading
    /// a batch takes a noticeable part of a step: images, a `map`. Batches and their order stay the same. 0, the
    /// default, reads on the caller's thread.
    pub fn prefetch(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }
    /// Batches in memory at most besides the one in use, where threads read ahead.
    pub fn ahead(mut self, batches: usize) -> Self {
        self.ahead = Some(batches);
        self
    }
    /// Changes every batch by a function of the batch and its place, on the thread that reads it. Given twice, both, in
    /// that order. A cursor does not know the function: whoever changes it between runs trains on other data.
    pub fn map(mut self, f: impl Fn(Dataset, At) -> Result<Dataset> + Send + Sync + 'static) -> Self {
        self.map = Some(match self.map.take() {
            Some(first) => Arc::new(move |batch, at| f(first(batch, at)?, at)),
            None => Arc::new(f),
        });
        self
    }
    /// The name under which the cursor is kept, `data` unless said: a model that learns from several loaders needs one
    /// each.
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.turns.name = name.into();
        self
    }

    /// What is read.
    pub fn source(&self) -> &dyn Source {
        &*self.source
    }
    /// Steps of a whole pass; 0 where the size of a batch was not said.
    pub fn steps_per_pass(&self) -> u64 {
        self.turns.steps_per_pass(self.source.len())
    }
    /// All batches from the first pass on, counted by nobody: for evaluation. Wrong settings are the first item's error.
    pub fn iter(&self) -> Batches {
        Batches::of(self.start(0, 0), None)
    }
    /// Batches from where `cursors` has this loader as of the last commit, each counted as it is handed out; from the
    /// first if it is not there yet. `Model::batches` calls this with the cursors of its session.
    ///
    /// Wrong settings, and a cursor of other data or another order, are the first item's error.
    pub fn resume(&self, cursors: &Cursors) -> Batches {
        let start = || {
            let fingerprint = self.source.fingerprint()?;
            let (stamp, pass, next) = self.turns.resume(cursors, fingerprint, self.source.len())?;
            let count = Count { cursors: cursors.clone(), name: self.turns.name.clone(), stamp };
            Ok((self.start(pass, next)?, count))
        };
        match start() {
            Ok((reading, count)) => Batches::of(Ok(reading), Some(count)),
            Err(error) => Batches::of(Err(error), None),
        }
    }

    fn start(&self, pass: u64, next: u64) -> Result<Reading> {
        let walk = Walk::new(self.turns.places(self.source.len(), pass, next)?, self.turns.seed);
        let seed = self.turns.seed.unwrap_or(0);
        let reader = Reader { source: self.source.clone(), map: self.map.clone(), seed };
        match self.threads {
            0 => Ok(Reading::Here { walk, reader }),
            threads => {
                let ahead = self.ahead.unwrap_or(threads.saturating_mul(2)).max(1);
                Ok(Reading::Ahead(Ahead::start(walk, reader, threads, ahead)?))
            }
        }
    }
}

impl IntoIterator for &Loader {
    type Item = Result<Dataset>;
    type IntoIter = Batches;
    fn into_iter(self) -> Batches {
        self.iter()
    }
}

/// Reads one batch.
pub(crate) struct Reader {
    source: Arc<dyn Source>,
    map: Option<Map>,
    seed: u64,
}

impl Reader {
    pub(crate) fn read(&self, job: &Job) -> Result<Dataset> {
        let batch = self.source.read(&job.rows)?;
        let at = At { seed: self.seed, pass: job.at.pass, first: job.at.first };
        match &self.map {
            Some(map) => map(batch, at),
            None => Ok(batch),
        }
    }
}

enum Reading {
    Here { walk: Walk, reader: Reader },
    Ahead(Ahead),
}

/// Whom to tell which samples were handed out.
struct Count {
    cursors: Cursors,
    name: Arc<str>,
    stamp: Cursor,
}

/// The batches of a [`Loader`], one after the other. An error ends them; a panic of a `map` goes on in the caller, at
/// the batch it happened in. Dropping this ends the threads that read ahead, and waits for the batch each is at.
pub struct Batches {
    reading: Option<Result<Reading>>,
    count: Option<Count>,
}

impl Batches {
    fn of(reading: Result<Reading>, count: Option<Count>) -> Self {
        Self { reading: Some(reading), count }
    }
}

impl Iterator for Batches {
    type Item = Result<Dataset>;
    fn next(&mut self) -> Option<Result<Dataset>> {
        let read = match self.reading.as_mut()? {
            Ok(Reading::Here { walk, reader }) => walk.next().map(|job| (reader.read(&job), job.at.after)),
            Ok(Reading::Ahead(ahead)) => ahead.next(),
            Err(error) => {
                let error = error.clone();
                self.reading = None;
                return Some(Err(error));
            }
        };
        let Some((batch, (pass, next))) = read else {
            self.reading = None;
            return None;
        };
        match &batch {
            Ok(_) => {
                if let Some(Count { cursors, name, stamp }) = &self.count {
                    cursors.deliver(name, Cursor { pass, next, ..*stamp });
                }
            }
            Err(_) => self.reading = None,
        }
        Some(batch)
    }
}
