//! What turns a source into batches: order, size, passes, and where to begin. A loader is settings and a source, no
//! place: each iteration starts at a cursor and walks on, so the same loader trains, resumes and evaluates.

use std::sync::Arc;

use thalweg_runtime::{Cursor, Cursors};

use crate::dataset::Dataset;
use crate::error::{DataError, Result};
use crate::prefetch::Ahead;
use crate::source::Source;
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
    name: Arc<str>,
    seed: Option<u64>,
    batch: Option<usize>,
    drop_last: bool,
    epochs: u64,
    threads: usize,
    ahead: Option<usize>,
    map: Option<Map>,
}

impl Loader {
    /// A loader of `source`, in its own order, one pass, called `data`. How many samples a step takes is still to be
    /// said: [`Loader::batch`].
    pub fn new(source: impl Source + 'static) -> Self {
        let source: Arc<dyn Source> = Arc::new(source);
        let (name, drop_last, epochs) = ("data".into(), false, 1);
        Self { source, name, seed: None, batch: None, drop_last, epochs, threads: 0, ahead: None, map: None }
    }
    /// Another order each pass, a pure function of `seed`, the pass and the number of samples.
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
    /// Samples in a batch. The last batch of a pass may be smaller; see [`Loader::drop_last`].
    pub fn batch(mut self, samples: usize) -> Self {
        self.batch = Some(samples);
        self
    }
    /// Leaves out what is left of a pass once it does not fill a batch.
    pub fn drop_last(mut self) -> Self {
        self.drop_last = true;
        self
    }
    /// Passes in all, those before a checkpoint included: a loader whose cursor stands behind the last one gives nothing.
    pub fn epochs(mut self, passes: u64) -> Self {
        self.epochs = passes;
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
        self.name = name.into();
        self
    }

    /// What is read.
    pub fn source(&self) -> &dyn Source {
        &*self.source
    }
    /// Steps of a whole pass; 0 where the size of a batch was not said.
    pub fn steps_per_pass(&self) -> u64 {
        let (len, batch) = (self.source.len(), self.batch.unwrap_or(0));
        let steps = if self.drop_last { len.checked_div(batch) } else { (batch > 0).then(|| len.div_ceil(batch)) };
        steps.unwrap_or(0) as u64
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
            let stamp = self.stamp()?;
            let (pass, next) = match cursors.get(&self.name) {
                Some(cursor) => self.check(&stamp, cursor)?,
                None => (0, 0),
            };
            let count = Count { cursors: cursors.clone(), name: self.name.clone(), stamp };
            Ok((self.start(pass, next)?, count))
        };
        match start() {
            Ok((reading, count)) => Batches::of(Ok(reading), Some(count)),
            Err(error) => Batches::of(Err(error), None),
        }
    }

    /// The cursor of this loader's very beginning. A cursor has no room for "in order", so that is part of the hash.
    fn stamp(&self) -> Result<Cursor> {
        let fingerprint = self.source.fingerprint()?;
        let fingerprint = if self.seed.is_some() { fingerprint } else { in_order(&fingerprint) };
        Ok(Cursor { fingerprint, seed: self.seed.unwrap_or(0), pass: 0, next: 0 })
    }
    /// Pass and sample at which `cursor` stands, if it is one of this loader.
    fn check(&self, stamp: &Cursor, cursor: Cursor) -> Result<(u64, u64)> {
        let short = |f: &[u8; 32]| f[..4].iter().map(|b| format!("{b:02x}")).collect::<String>();
        let source = self.source.fingerprint()?;
        let afresh = "or start afresh under another name with .named(..)";
        let why = if self.seed.is_none() && cursor.fingerprint == source {
            format!("it was shuffled with seed {0}, and now is not: say .shuffle({0}), {afresh}", cursor.seed)
        } else if self.seed.is_some() && cursor.fingerprint == in_order(&source) {
            format!("it was read in order, and now is shuffled: leave out .shuffle(..), {afresh}")
        } else if cursor.fingerprint != stamp.fingerprint {
            let (then, now) = (short(&cursor.fingerprint), short(&stamp.fingerprint));
            format!("the data is not the same (fingerprint {then}… then, {now}… now): open the same files, {afresh}")
        } else if cursor.seed != stamp.seed {
            let (then, now) = (cursor.seed, stamp.seed);
            format!("it was shuffled with seed {then}, and now with {now}: say .shuffle({then}), {afresh}")
        } else if cursor.next > self.source.len() as u64 {
            format!("there are only {} samples: the checkpoint is damaged", self.source.len())
        } else {
            return Ok((cursor.pass, cursor.next));
        };
        Err(DataError::Cursor { source_name: self.name.to_string(), cursor, why })
    }
    fn start(&self, pass: u64, next: u64) -> Result<Reading> {
        let (len, wrong) = (self.source.len(), |what: String| Err(DataError::Settings(what)));
        let batch = match self.batch {
            None => return wrong("say how many samples a step takes: .batch(64)".into()),
            Some(0) => return wrong("a batch needs samples: .batch(0) has none".into()),
            Some(_) if len == 0 => return wrong(format!("source `{}` has no samples", self.name)),
            Some(batch) if self.drop_last && batch > len => {
                let what = format!(".batch({batch}).drop_last() leaves nothing of {len} samples");
                return wrong(format!("{what}: take smaller batches, or keep the last"));
            }
            Some(batch) => batch,
        };
        let walk = Walk::new(len, batch, self.drop_last, self.epochs, self.seed, pass, next);
        let reader = Reader { source: self.source.clone(), map: self.map.clone(), seed: self.seed.unwrap_or(0) };
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

fn in_order(fingerprint: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key("thalweg source read in order", fingerprint)
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
        let at = At { seed: self.seed, pass: job.pass, first: job.first };
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
            Ok(Reading::Here { walk, reader }) => walk.next().map(|job| (reader.read(&job), job.after)),
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
