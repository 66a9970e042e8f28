//! In which order, and in how many at a time, samples are taken: what a [`Loader`](crate::Loader), which reads them, and a
//! [`Described`](crate::Described), which does not, have in common. A cursor of one is a cursor of the other.

use std::sync::Arc;

use thalweg_runtime::source::short;
use thalweg_runtime::{Cursor, Cursors};

use crate::error::{DataError, Result};
use crate::walk::Places;

/// Settings: order, size of a batch, passes, and the name under which the place is kept.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    pub(crate) name: Arc<str>,
    pub(crate) seed: Option<u64>,
    pub(crate) batch: Option<usize>,
    pub(crate) drop_last: bool,
    pub(crate) epochs: u64,
}

impl Default for Turns {
    fn default() -> Self {
        Self { name: "data".into(), seed: None, batch: None, drop_last: false, epochs: 1 }
    }
}

impl Turns {
    /// Steps of a whole pass over `len` samples; 0 where the size of a batch was not said.
    pub(crate) fn steps_per_pass(&self, len: usize) -> u64 {
        let batch = self.batch.unwrap_or(0);
        let steps = if self.drop_last { len.checked_div(batch) } else { (batch > 0).then(|| len.div_ceil(batch)) };
        steps.unwrap_or(0) as u64
    }
    /// The cursor of the very beginning, and the pass and sample at which `cursors` has this source of `len` samples.
    ///
    /// # Errors
    /// A cursor of other data or another order.
    pub(crate) fn resume(&self, cursors: &Cursors, source: [u8; 32], len: usize) -> Result<(Cursor, u64, u64)> {
        // A cursor has no room for "in order", so that is part of the hash.
        let fingerprint = if self.seed.is_some() { source } else { in_order(&source) };
        let stamp = Cursor { fingerprint, seed: self.seed.unwrap_or(0), pass: 0, next: 0 };
        let (pass, next) = match cursors.get(&self.name) {
            Some(cursor) => self.check(&source, &stamp, len, cursor)?,
            None => (0, 0),
        };
        Ok((stamp, pass, next))
    }
    /// Pass and sample at which `cursor` stands, if it is one of this source in this order.
    fn check(&self, source: &[u8; 32], stamp: &Cursor, len: usize, cursor: Cursor) -> Result<(u64, u64)> {
        let afresh = "or start afresh under another name";
        let why = if self.seed.is_none() && cursor.fingerprint == *source {
            format!("it was shuffled with seed {0}, and now is not: shuffle with seed {0}, {afresh}", cursor.seed)
        } else if self.seed.is_some() && cursor.fingerprint == in_order(source) {
            format!("it was read in order, and now is shuffled: do not shuffle, {afresh}")
        } else if cursor.fingerprint != stamp.fingerprint {
            let (then, now) = (short(&cursor.fingerprint), short(&stamp.fingerprint));
            format!("the data is not the same (fingerprint {then}… then, {now}… now): open the same files, {afresh}")
        } else if cursor.seed != stamp.seed {
            let (then, now) = (cursor.seed, stamp.seed);
            format!("it was shuffled with seed {then}, and now with {now}: shuffle with seed {then}, {afresh}")
        } else if cursor.next > len as u64 {
            format!("there are only {len} samples: the checkpoint is damaged")
        } else {
            return Ok((cursor.pass, cursor.next));
        };
        Err(DataError::Cursor { source_name: self.name.to_string(), cursor, why })
    }
    /// The batches of `len` samples from some place on.
    ///
    /// # Errors
    /// Settings that make no sense together.
    pub(crate) fn places(&self, len: usize, pass: u64, next: u64) -> Result<Places> {
        let wrong = |what: String| Err(DataError::Settings(what));
        match self.batch {
            None => wrong("say how many samples a step takes, such as 64".into()),
            Some(0) => wrong("a batch needs samples: one of 0 has none".into()),
            Some(_) if len == 0 => wrong(format!("source `{}` has no samples", self.name)),
            Some(batch) if self.drop_last && batch > len => {
                let what = format!("without what does not fill a batch of {batch}, nothing is left of {len} samples");
                wrong(format!("{what}: take smaller batches, or keep the last"))
            }
            Some(batch) => Ok(Places::new(len, batch, self.drop_last, self.epochs, pass, next)),
        }
    }
}

fn in_order(fingerprint: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key("thalweg source read in order", fingerprint)
}
