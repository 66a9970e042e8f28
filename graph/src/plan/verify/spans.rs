//! Runs of bytes with a note on each: whose they are, who may be reading them. Not a cell per byte: an arena may have
//! gigabytes, and a plan has as many runs as it has buffers.

use std::collections::BTreeMap;
use std::ops::Range;

/// Runs by first byte: end and note. They are never empty and never overlap.
pub(super) struct Spans<T>(BTreeMap<u64, (u64, T)>);

impl<T> Default for Spans<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Copy> Spans<T> {
    /// The runs that share bytes with `range`, from the last to the first.
    pub(super) fn over(&self, range: &Range<u64>) -> impl Iterator<Item = (Range<u64>, T)> {
        let start = if range.is_empty() { u64::MAX } else { range.start };
        let before = self.0.range(..range.end).rev();
        before.take_while(move |(_, (end, _))| *end > start).map(|(start, (end, note))| (*start..*end, *note))
    }

    /// Makes `at` the border of two runs, where it lies inside one.
    fn cut(&mut self, at: u64) {
        if let Some((_, (end, note))) = self.0.range_mut(..at).next_back()
            && *end > at
        {
            let rest = (*end, *note);
            *end = at;
            self.0.insert(at, rest);
        }
    }

    /// Notes `note` on all of `range`, or forgets what was noted there.
    pub(super) fn put(&mut self, range: &Range<u64>, note: Option<T>) {
        if range.is_empty() {
            return;
        }
        self.cut(range.start);
        self.cut(range.end);
        while let Some((start, _)) = self.0.range(range.clone()).next() {
            let start = *start;
            self.0.remove(&start);
        }
        if let Some(note) = note {
            self.0.insert(range.start, (range.end, note));
        }
    }

    /// Changes what is noted on every run of `range`, and on every gap.
    pub(super) fn change(&mut self, range: &Range<u64>, to: impl Fn(Option<T>) -> Option<T>) {
        if range.is_empty() {
            return;
        }
        self.cut(range.start);
        self.cut(range.end);
        let mut runs: Vec<(Range<u64>, Option<T>)> = Vec::new();
        let mut next = range.start;
        for (start, (end, note)) in self.0.range(range.clone()) {
            runs.extend((next < *start).then_some((next..*start, None)));
            runs.push((*start..*end, Some(*note)));
            next = *end;
        }
        runs.extend((next < range.end).then_some((next..range.end, None)));
        for (run, old) in runs {
            match to(old) {
                Some(note) => drop(self.0.insert(run.start, (run.end, note))),
                None => drop(self.0.remove(&run.start)),
            }
        }
    }
}
