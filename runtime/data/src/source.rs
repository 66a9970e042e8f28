//! Where samples come from. A source is asked for samples by number, in any order and from many threads, and holds no
//! place of its own: the order and the place belong to the [`Loader`](crate::Loader), so that they can be a few numbers
//! in a checkpoint.

use std::sync::Arc;

use thalweg_graph::{Array, TensorType};

use crate::dataset::Dataset;
use crate::error::{DataError, Result};
use crate::loader::Loader;
use crate::order::permutation;

/// Samples by number. Clones are expected to be cheap: an own source that is not goes behind an [`Arc`].
pub trait Source: Send + Sync {
    /// Name and type of one sample of every field; a batch has the number of samples in front.
    fn fields(&self) -> Vec<(String, TensorType)>;
    /// Number of samples.
    fn len(&self) -> usize;
    /// Whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// What tells this data from other data: a run goes on from a checkpoint only with the same.
    fn fingerprint(&self) -> Result<[u8; 32]>;
    /// The samples at `rows`, in that order. The same rows give the same bytes, on whatever thread.
    ///
    /// # Errors
    /// A row that is not there, or what is wrong with the file behind it.
    fn read(&self, rows: &[usize]) -> Result<Dataset>;

    /// Some fields of the samples at `rows`, in those orders; fields are numbers in [`Source::fields`], which are there.
    /// Worth an own way where a field is costly to read.
    ///
    /// # Errors
    /// As [`Source::read`].
    fn read_fields(&self, rows: &[usize], fields: &[usize]) -> Result<Vec<Array>> {
        let (batch, all) = (self.read(rows)?, self.fields());
        fields.iter().map(|field| batch.field(&all[*field].0).cloned()).collect()
    }
    /// All samples, in memory.
    fn read_all(&self) -> Result<Dataset> {
        self.read(&(0..self.len()).collect::<Vec<_>>())
    }
    /// Batches in another order each pass, a pure function of `seed` and the pass.
    fn shuffle(&self, seed: u64) -> Loader
    where
        Self: Clone + Sized + 'static,
    {
        Loader::new(self.clone()).shuffle(seed)
    }
    /// Batches of `size` samples, in the order of the source.
    fn batch(&self, size: usize) -> Loader
    where
        Self: Clone + Sized + 'static,
    {
        Loader::new(self.clone()).batch(size)
    }
    /// The samples at `rows`, as a source.
    ///
    /// # Errors
    /// A row that is not there.
    fn subset(&self, rows: Vec<usize>) -> Result<Subset>
    where
        Self: Clone + Sized + 'static,
    {
        let len = self.len();
        match rows.iter().find(|row| **row >= len) {
            Some(row) => Err(DataError::NoSample { row: *row, len }),
            None => Ok(Subset { source: Arc::new(self.clone()), rows: rows.into() }),
        }
    }
    /// Two parts at random, the first of `count` samples; the same parts for the same `seed`.
    ///
    /// # Errors
    /// If there are fewer than `count` samples.
    fn split(&self, count: usize, seed: u64) -> Result<(Subset, Subset)>
    where
        Self: Clone + Sized + 'static,
    {
        let len = self.len();
        if count > len {
            let what = format!("cannot split off {count} samples: the source has {len}");
            return Err(DataError::Settings(what));
        }
        let mut first = permutation(&format!("split/{seed}"), len);
        let second = first.split_off(count);
        Ok((self.subset(first)?, self.subset(second)?))
    }
}

impl<S: Source + ?Sized> Source for Arc<S> {
    fn fields(&self) -> Vec<(String, TensorType)> {
        (**self).fields()
    }
    fn len(&self) -> usize {
        (**self).len()
    }
    fn fingerprint(&self) -> Result<[u8; 32]> {
        (**self).fingerprint()
    }
    fn read(&self, rows: &[usize]) -> Result<Dataset> {
        (**self).read(rows)
    }
    fn read_fields(&self, rows: &[usize], fields: &[usize]) -> Result<Vec<Array>> {
        (**self).read_fields(rows, fields)
    }
}

/// Some samples of a source, in an order of their own.
#[derive(Clone)]
pub struct Subset {
    source: Arc<dyn Source>,
    rows: Arc<[usize]>,
}

impl Source for Subset {
    fn fields(&self) -> Vec<(String, TensorType)> {
        self.source.fields()
    }
    fn len(&self) -> usize {
        self.rows.len()
    }
    fn fingerprint(&self) -> Result<[u8; 32]> {
        let mut hash = blake3::Hasher::new_derive_key("thalweg subset of a source");
        hash.update(&self.source.fingerprint()?);
        for row in self.rows.iter() {
            hash.update(&(*row as u64).to_le_bytes());
        }
        Ok(*hash.finalize().as_bytes())
    }
    fn read(&self, rows: &[usize]) -> Result<Dataset> {
        let missing = |row: &usize| DataError::NoSample { row: *row, len: self.rows.len() };
        let rows = rows.iter().map(|row| self.rows.get(*row).copied().ok_or_else(|| missing(row)));
        self.source.read(&rows.collect::<Result<Vec<_>>>()?)
    }
}
