//! Which samples come next: the whole order of a run as an iterator of row numbers, without any data. Threads that read
//! ahead take from it in turn, so what a batch holds never depends on who reads it.

use crate::order::shuffled;

/// One batch to read.
#[derive(Debug, PartialEq)]
pub(crate) struct Job {
    /// Samples, by their number in the source.
    pub(crate) rows: Vec<usize>,
    /// The pass.
    pub(crate) pass: u64,
    /// Place of the first sample in that pass.
    pub(crate) first: u64,
    /// Pass and sample at which the source stands once this batch is consumed.
    pub(crate) after: (u64, u64),
}

/// A run's batches from some place on.
pub(crate) struct Walk {
    len: u64,
    batch: u64,
    drop_last: bool,
    epochs: u64,
    seed: Option<u64>,
    at: (u64, u64),
    /// The order of the pass it belongs to.
    order: Option<(u64, Vec<usize>)>,
}

impl Walk {
    /// `batch` is not 0, nor `len`; with `drop_last`, `len` holds at least one batch.
    pub(crate) fn new(
        len: usize,
        batch: usize,
        drop_last: bool,
        epochs: u64,
        seed: Option<u64>,
        pass: u64,
        next: u64,
    ) -> Self {
        let (len, batch) = (len as u64, batch as u64);
        let mut walk = Self { len, batch, drop_last, epochs, seed, at: (pass, next), order: None };
        walk.at = walk.settled(walk.at);
        walk
    }
    /// The same place, but never behind the last batch of a pass.
    fn settled(&self, (pass, next): (u64, u64)) -> (u64, u64) {
        let left = self.len.saturating_sub(next);
        let over = left == 0 || (self.drop_last && left < self.batch);
        if over { (pass.saturating_add(1), 0) } else { (pass, next) }
    }
}

impl Iterator for Walk {
    type Item = Job;
    fn next(&mut self) -> Option<Job> {
        let (pass, first) = self.at;
        if pass >= self.epochs {
            return None;
        }
        let end = first.saturating_add(self.batch).min(self.len);
        let (from, to) = (first as usize, end as usize);
        let rows = match self.seed {
            None => (from..to).collect(),
            Some(seed) => {
                if self.order.as_ref().is_none_or(|(p, _)| *p != pass) {
                    self.order = Some((pass, shuffled(seed, pass, self.len as usize)));
                }
                self.order.as_ref().map_or(vec![], |(_, order)| order[from..to].to_vec())
            }
        };
        self.at = self.settled((pass, end));
        Some(Job { rows, pass, first, after: self.at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(walk: Walk) -> Vec<(u64, u64, usize)> {
        walk.map(|job| (job.pass, job.first, job.rows.len())).collect()
    }

    #[test]
    fn passes_end_with_what_is_left_or_without_it() {
        assert_eq!(
            places(Walk::new(5, 2, false, 2, None, 0, 0)),
            [(0, 0, 2), (0, 2, 2), (0, 4, 1), (1, 0, 2), (1, 2, 2), (1, 4, 1)]
        );
        assert_eq!(places(Walk::new(5, 2, true, 2, None, 0, 0)), [(0, 0, 2), (0, 2, 2), (1, 0, 2), (1, 2, 2)]);
        assert_eq!(places(Walk::new(5, 2, true, 2, None, 0, 4)), [(1, 0, 2), (1, 2, 2)]);
        assert_eq!(places(Walk::new(5, 9, false, 2, None, 0, 5)), [(1, 0, 5)]);
        assert_eq!(places(Walk::new(5, 2, false, 2, None, 2, 0)), []);
    }

    #[test]
    fn from_any_place_the_rest_is_the_rest() {
        for drop_last in [false, true] {
            let all: Vec<Job> = Walk::new(11, 3, drop_last, 3, Some(9), 0, 0).collect();
            for (i, job) in all.iter().enumerate() {
                let rest: Vec<Job> = Walk::new(11, 3, drop_last, 3, Some(9), job.after.0, job.after.1).collect();
                assert_eq!(rest, all[i + 1..]);
            }
        }
    }

    #[test]
    fn a_shuffled_pass_has_every_sample_once_and_passes_differ() {
        let pass = |p: u64| -> Vec<usize> {
            Walk::new(97, 10, false, p + 1, Some(3), p, 0).flat_map(|job| job.rows).collect()
        };
        let mut sorted = pass(0);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..97).collect::<Vec<_>>());
        assert_ne!(pass(0), pass(1));
    }
}
