//! Which samples come next: the whole order of a run as an iterator of row numbers, without any data. Threads that read
//! ahead take from it in turn, so what a batch holds never depends on who reads it.

use crate::order::shuffled;

/// A batch by its place: which samples these are only the order says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stretch {
    /// The pass.
    pub(crate) pass: u64,
    /// Place of the first sample in that pass.
    pub(crate) first: u64,
    /// Number of samples.
    pub(crate) count: u64,
    /// Pass and sample at which the source stands once this batch is consumed.
    pub(crate) after: (u64, u64),
}

/// The places of a run's batches, from some place on: a few numbers, however many samples there are.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    len: u64,
    batch: u64,
    drop_last: bool,
    epochs: u64,
    at: (u64, u64),
}

impl Places {
    /// `batch` is not 0, nor `len`; with `drop_last`, `len` holds at least one batch.
    pub(crate) fn new(len: usize, batch: usize, drop_last: bool, epochs: u64, pass: u64, next: u64) -> Self {
        let (len, batch) = (len as u64, batch as u64);
        let mut places = Self { len, batch, drop_last, epochs, at: (pass, next) };
        places.at = places.settled(places.at);
        places
    }
    /// The same place, but never behind the last batch of a pass.
    fn settled(&self, (pass, next): (u64, u64)) -> (u64, u64) {
        let left = self.len.saturating_sub(next);
        let over = left == 0 || (self.drop_last && left < self.batch);
        if over { (pass.saturating_add(1), 0) } else { (pass, next) }
    }
}

impl Iterator for Places {
    type Item = Stretch;
    fn next(&mut self) -> Option<Stretch> {
        let (pass, first) = self.at;
        if pass >= self.epochs {
            return None;
        }
        let end = first.saturating_add(self.batch).min(self.len);
        self.at = self.settled((pass, end));
        Some(Stretch { pass, first, count: end - first, after: self.at })
    }
}

/// One batch to read.
#[derive(Debug, PartialEq)]
pub(crate) struct Job {
    /// Samples, by their number in the source.
    pub(crate) rows: Vec<usize>,
    /// Where it lies.
    pub(crate) at: Stretch,
}

/// A run's batches from some place on.
pub(crate) struct Walk {
    places: Places,
    seed: Option<u64>,
    /// The order of the pass it belongs to.
    order: Option<(u64, Vec<usize>)>,
}

impl Walk {
    /// The batches at `places`, shuffled if there is a seed.
    pub(crate) fn new(places: Places, seed: Option<u64>) -> Self {
        Self { places, seed, order: None }
    }
}

impl Iterator for Walk {
    type Item = Job;
    fn next(&mut self) -> Option<Job> {
        let len = self.places.len as usize;
        let at = self.places.next()?;
        let (from, to) = (at.first as usize, (at.first + at.count) as usize);
        let rows = match self.seed {
            None => (from..to).collect(),
            Some(seed) => {
                if self.order.as_ref().is_none_or(|(p, _)| *p != at.pass) {
                    self.order = Some((at.pass, shuffled(seed, at.pass, len)));
                }
                self.order.as_ref().map_or(vec![], |(_, order)| order[from..to].to_vec())
            }
        };
        Some(Job { rows, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(len: usize, batch: usize, drop_last: bool, epochs: u64, seed: Option<u64>, pass: u64, next: u64) -> Walk {
        Walk::new(Places::new(len, batch, drop_last, epochs, pass, next), seed)
    }
    fn places(walk: Walk) -> Vec<(u64, u64, usize)> {
        walk.map(|job| (job.at.pass, job.at.first, job.rows.len())).collect()
    }

    #[test]
    fn passes_end_with_what_is_left_or_without_it() {
        assert_eq!(
            places(walk(5, 2, false, 2, None, 0, 0)),
            [(0, 0, 2), (0, 2, 2), (0, 4, 1), (1, 0, 2), (1, 2, 2), (1, 4, 1)]
        );
        assert_eq!(places(walk(5, 2, true, 2, None, 0, 0)), [(0, 0, 2), (0, 2, 2), (1, 0, 2), (1, 2, 2)]);
        assert_eq!(places(walk(5, 2, true, 2, None, 0, 4)), [(1, 0, 2), (1, 2, 2)]);
        assert_eq!(places(walk(5, 9, false, 2, None, 0, 5)), [(1, 0, 5)]);
        assert_eq!(places(walk(5, 2, false, 2, None, 2, 0)), []);
    }

    #[test]
    fn from_any_place_the_rest_is_the_rest() {
        for drop_last in [false, true] {
            let all: Vec<Job> = walk(11, 3, drop_last, 3, Some(9), 0, 0).collect();
            for (i, job) in all.iter().enumerate() {
                let rest: Vec<Job> = walk(11, 3, drop_last, 3, Some(9), job.at.after.0, job.at.after.1).collect();
                assert_eq!(rest, all[i + 1..]);
            }
        }
    }

    #[test]
    fn a_shuffled_pass_has_every_sample_once_and_passes_differ() {
        let pass =
            |p: u64| -> Vec<usize> { walk(97, 10, false, p + 1, Some(3), p, 0).flat_map(|job| job.rows).collect() };
        let mut sorted = pass(0);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..97).collect::<Vec<_>>());
        assert_ne!(pass(0), pass(1));
    }
}
