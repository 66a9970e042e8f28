//! Where sources of data stand. The order of samples is a pure function of (fingerprint, seed, pass), so a hash and
//! three numbers are the whole state of a loader, however many batches its threads have read ahead.
//!
//! A batch that was handed out is not consumed yet: it is once a step that updates variables commits. Hence two places
//! per source: what the loop has been given, and what the variables have learned from. A checkpoint holds the second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where one source stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which data: a source with another one cannot go on from here.
    pub fingerprint: [u8; 32],
    /// Seed of the order.
    pub seed: u64,
    /// Pass over the data, from 0.
    pub pass: u64,
    /// The next sample's place in the order of that pass.
    pub next: u64,
}

/// The cursors of a session, by name of source; clones share them, since the loop holds the batches while the session
/// runs.
#[derive(Clone, Debug, Default)]
pub struct Cursors(Arc<Mutex<Places>>);

/// Where sources stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    delivered: BTreeMap<String, Cursor>,
    committed: BTreeMap<String, Cursor>,
}

impl Cursors {
    fn places(&self) -> MutexGuard<'_, Places> {
        // Nothing below can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A batch of `source` was handed out; once it is consumed the source stands at `after`.
    pub fn deliver(&self, source: &str, after: Cursor) {
        self.places().delivered.insert(source.into(), after);
    }
    /// A step that updates variables has committed: what was handed out is consumed.
    pub fn commit(&self) {
        let places = &mut *self.places();
        places.committed.append(&mut places.delivered);
    }
    /// Where `source` stands as of the last commit; nothing if no step consumed any of it.
    pub fn get(&self, source: &str) -> Option<Cursor> {
        self.places().committed.get(source).copied()
    }
    /// Where all of them stand, for [`Cursors::put_back`].
    pub(crate) fn keep(&self) -> Places {
        self.places().clone()
    }
    /// As they stood when they were [kept](Cursors::keep).
    pub(crate) fn put_back(&self, kept: Places) {
        *self.places() = kept;
    }
    /// Every source as of the last commit.
    pub fn committed(&self) -> BTreeMap<String, Cursor> {
        self.places().committed.clone()
    }
    /// Sets every source to where a checkpoint had it.
    pub fn restore(&self, committed: BTreeMap<String, Cursor>) {
        *self.places() = Places { delivered: BTreeMap::new(), committed };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_counts_once_a_step_commits() {
        let cursors = Cursors::default();
        let at = |next| Cursor { fingerprint: [7; 32], seed: 1, pass: 0, next };
        cursors.deliver("train", at(64));
        assert_eq!(cursors.get("train"), None);
        cursors.commit();
        cursors.deliver("train", at(128));
        assert_eq!(cursors.get("train"), Some(at(64)));
        cursors.restore(cursors.committed());
        cursors.commit();
        assert_eq!(cursors.get("train"), Some(at(64)), "what was handed out before a restore is forgotten");
    }
}
