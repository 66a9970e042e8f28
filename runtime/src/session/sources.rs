//! Data sets of a session: opened where its devices are. Where these are in this process, so is what reads: the same program
//! runs with workers and without.

use std::borrow::Cow;
use std::sync::Arc;

use super::{RunError, Session};
use crate::checkpoint::Root;
use crate::feed::{Fed, FeedError};
use crate::source::{self, Batch, OPEN, Opened, Opener, SPEC_BYTES, SourceSpec, Wish};

/// What a session knows of data sets.
#[derive(Default)]
pub(super) struct Data {
    /// Opens them where all devices are here,
    opener: Option<Arc<dyn Opener>>,
    /// below these.
    roots: Vec<Root>,
    opened: Vec<Arc<Opened>>,
    /// Bytes that were fed to processes that are lost.
    fed_before: u64,
}

impl Session {
    /// Says who reads data sets where all devices are in this process. The workers of others have their own.
    pub fn set_opener(&mut self, opener: Arc<dyn Opener>) {
        self.data.opener = Some(opener);
    }
    /// A directory more below which data sets are read, where all devices are in this process.
    ///
    /// # Errors
    /// If they are not: whoever reads knows its own.
    pub fn add_data_root(&mut self, root: Root) -> Result<(), RunError> {
        if self.executor.is_conducting() {
            let what = "workers read below the roots that they were started with: `thalweg launch --root NAME=DIR`, \
                        `thalweg worker --root NAME=DIR`, or under an engine THALWEG_ROOTS=NAME=DIR";
            return Err(FeedError::Source(what.into()).into());
        }
        self.data.roots.retain(|known| known.name != root.name);
        self.data.roots.push(root);
        Ok(())
    }
    /// Opens a data set where the devices are: at the workers, below the roots that they were started with, or here, below
    /// the session's. It is opened once: what changes on the disk later is not looked at again.
    ///
    /// # Errors
    /// If it cannot be opened, with what is wrong where.
    pub fn open_source(&mut self, spec: &SourceSpec) -> Result<Arc<Opened>, RunError> {
        if let Some(opened) = self.data.opened.iter().find(|opened| opened.spec() == spec) {
            return Ok(opened.clone());
        }
        let refused = |why: String| RunError::from(FeedError::Source(why));
        if !spec.is_short() {
            let what = format!("the description of a data set is longer than {SPEC_BYTES} bytes");
            return Err(refused(format!("{what}: name fewer columns or classes")));
        }
        if self.data.opened.len() == OPEN {
            return Err(refused(format!("{spec}: {OPEN} data sets are open, and no more can be")));
        }
        let facts = self.survive(|session| Ok::<_, RunError>(session.executor.open_source(spec)?))?;
        let opened = match facts {
            Some(facts) => Opened::elsewhere(spec.clone(), facts),
            None => {
                let reader = source::open(spec, &self.data.roots, self.data.opener.as_deref()).map_err(refused)?;
                Opened::here(spec.clone(), reader).map_err(refused)?
            }
        };
        let opened = Arc::new(opened);
        self.data.opened.push(opened.clone());
        Ok(opened)
    }
    /// Bytes that were fed to other processes so far. What they read themselves is not among them.
    pub fn fed_bytes(&self) -> u64 {
        self.data.fed_before + self.executor.fed_bytes()
    }
    /// The executor is about to be gone.
    pub(super) fn keep_fed_bytes(&mut self) {
        self.data.fed_before += self.executor.fed_bytes();
    }

    /// What was fed, read as far as that is done in this process.
    pub(super) fn at_hand<'a>(&self, program: usize, mut fed: Vec<Fed<'a>>) -> Result<Vec<Fed<'a>>, RunError> {
        if self.executor.is_conducting() {
            return Ok(fed);
        }
        // Fields of one batch are read together.
        let mut batches: Vec<(Batch, Vec<usize>, Vec<Wish>)> = vec![];
        for (at, (_, want)) in self.programs[program].inputs.iter().enumerate() {
            let Fed::Drawn(batch, field) = &fed[at] else { continue };
            let same = |b: &Batch| Arc::ptr_eq(b.source(), batch.source()) && b.samples() == batch.samples();
            let wish = (*field, want.dtype);
            match batches.iter_mut().find(|(b, ..)| same(b)) {
                Some((_, inputs, wishes)) => (inputs.push(at), wishes.push(wish)).0,
                None => batches.push((batch.clone().into_owned(), vec![at], vec![wish])),
            }
        }
        for (batch, inputs, wishes) in batches {
            let arrays = batch.source().read(&batch, &wishes).map_err(FeedError::Source)?;
            inputs.into_iter().zip(arrays).for_each(|(at, array)| fed[at] = Fed::Array(Cow::Owned(array)));
        }
        Ok(fed)
    }
}
