//! Memory that holds provenance: runs of bytes, each saying of which value it holds which bytes. What is in no run is
//! poison. Runs and not a cell per byte, so that an arena of gigabytes costs what its tensors cost.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

/// The name of a value by all that it came from.
pub(super) fn name(of: impl Hash) -> u64 {
    let mut to = DefaultHasher::new();
    of.hash(&mut to);
    to.finish()
}

/// Bytes `first..first + len` of the value called `value`; what is fed may begin anywhere, so `first` wraps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) len: u64,
    pub(super) value: u64,
    pub(super) first: u64,
    /// Which instruction made it; nobody's for what was there or fed.
    pub(super) writer: Option<u32>,
}

/// Two runs hold the same, whoever made them.
impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        (self.len, self.value, self.first) == (other.len, other.value, other.first)
    }
}

/// What a list of runs holds, by name.
pub(super) fn provenance(runs: &[Run]) -> u64 {
    name(runs.iter().map(|r| (r.len, r.value, r.first)).collect::<Vec<_>>())
}

/// A region of memory, by first byte.
#[derive(Clone, Default)]
pub(super) struct Bytes(BTreeMap<u64, Run>);

impl Bytes {
    /// All of `range` is poison.
    pub(super) fn wipe(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        let before = self.0.range(..range.start).next_back().map(|(at, run)| (*at, *run));
        if let Some((at, run)) = before.filter(|(at, run)| at + run.len > range.start) {
            self.0.insert(at, Run { len: range.start - at, ..run });
            self.keep_behind(range.end, at, run);
        }
        while let Some((at, run)) = self.0.range(range.clone()).next().map(|(at, run)| (*at, *run)) {
            self.0.remove(&at);
            self.keep_behind(range.end, at, run);
        }
    }

    /// What of a run that began at `at` lies behind `end` stays.
    fn keep_behind(&mut self, end: u64, at: u64, run: Run) {
        if at + run.len > end {
            let gone = end - at;
            self.0.insert(end, Run { len: run.len - gone, first: run.first.wrapping_add(gone), ..run });
        }
    }

    /// Writes runs one behind the other.
    pub(super) fn put(&mut self, mut at: u64, runs: &[Run]) {
        for run in runs.iter().filter(|run| run.len > 0) {
            self.wipe(&(at..at + run.len));
            self.0.insert(at, *run);
            at += run.len;
        }
    }

    /// What `range` holds, with what belongs together joined; the first byte that is poison otherwise.
    pub(super) fn get(&self, range: &Range<u64>) -> Result<Vec<Run>, u64> {
        let mut runs = Vec::new();
        let mut at = range.start;
        let before = self.0.range(..=range.start).next_back();
        let inside = self.0.range(range.start.saturating_add(1)..range.end.max(range.start.saturating_add(1)));
        for (start, run) in before.into_iter().chain(inside) {
            let (start, end) = (*start, start + run.len);
            if end <= at || at >= range.end {
                continue;
            }
            if start > at {
                return Err(at);
            }
            let until = end.min(range.end);
            join(&mut runs, Run { len: until - at, first: run.first.wrapping_add(at - start), ..*run });
            at = until;
        }
        if at < range.end { Err(at) } else { Ok(runs) }
    }

    /// Whether anything in `range` is not poison.
    pub(super) fn holds_any(&self, range: &Range<u64>) -> bool {
        let before = self.0.range(..range.end.max(range.start)).next_back();
        !range.is_empty() && before.is_some_and(|(at, run)| at + run.len > range.start)
    }
}

/// Appends a run; one with the last where it goes on in the same value.
pub(super) fn join(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.value == run.value && last.first.wrapping_add(last.len) == run.first => last.len += run.len,
        _ => runs.push(run),
    }
}
