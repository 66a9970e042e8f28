//! A data set in memory: named arrays whose first axes are as long as each other. A batch is one too, a small one: what
//! is read is what is fed. Clones share the arrays.

use std::sync::{Arc, OnceLock};

use thalweg_graph::diagnostic::nearest;
use thalweg_graph::{Array, TensorType};

use crate::error::{DataError, Result};
use crate::order::shuffled;
use crate::source::Source;

/// Named arrays of as many samples.
#[derive(Clone, Debug)]
pub struct Dataset {
    fields: Arc<[(String, Array)]>,
    len: usize,
    fingerprint: Arc<OnceLock<[u8; 32]>>,
}

impl Dataset {
    /// A data set of named arrays, samples along the first axis.
    ///
    /// # Errors
    /// An array without axes, arrays of different lengths, a name twice.
    pub fn new<N: Into<String>>(fields: impl IntoIterator<Item = (N, Array)>) -> Result<Self> {
        let fields: Arc<[(String, Array)]> = fields.into_iter().map(|(n, a)| (n.into(), a)).collect();
        let mut len = None;
        for (i, (name, array)) in fields.iter().enumerate() {
            let Some(rows) = array.shape().first() else {
                let what = "is a single number: a field needs a first axis, one entry per sample";
                return Err(DataError::Fields(format!("`{name}` {what}")));
            };
            let first = len.get_or_insert(*rows);
            if first != rows {
                let what = format!("`{name}` has {rows} rows, `{}` has {first}", fields[0].0);
                return Err(DataError::Fields(format!("{what}: the fields of a data set have as many")));
            }
            if fields[..i].iter().any(|(n, _)| n == name) {
                return Err(DataError::Fields(format!("there are two fields `{name}`")));
            }
        }
        Ok(Self { len: len.unwrap_or(0) as usize, fields, fingerprint: Arc::default() })
    }
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The samples at `rows`, in that order.
    ///
    /// # Panics
    /// If there is no such row; [`Source::read`] gives an error instead.
    pub fn select(&self, rows: &[usize]) -> Dataset {
        let fields = self.fields.iter().map(|(n, a)| (n.clone(), self.taken(a, rows))).collect();
        Dataset { fields, len: rows.len(), fingerprint: Arc::default() }
    }
    /// The samples of one array at `rows`.
    fn taken(&self, array: &Array, rows: &[usize]) -> Array {
        let mut shape = array.shape().to_vec();
        let size = array.bytes().len().checked_div(self.len).unwrap_or(0);
        shape[0] = rows.len() as u64;
        let mut out = Array::zeros(array.dtype(), &shape);
        for (to, row) in out.bytes_mut().chunks_exact_mut(size.max(1)).zip(rows) {
            to.copy_from_slice(&array.bytes()[row * size..(row + 1) * size]);
        }
        out
    }
    /// Every array with its name, ready to feed.
    pub fn feeds(&self) -> Vec<(&str, &Array)> {
        self.fields.iter().map(|(n, a)| (n.as_str(), a)).collect()
    }
    /// One array.
    pub fn get(&self, name: &str) -> Option<&Array> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, a)| a)
    }
    /// The same data with some fields only, in the order given, under the same names.
    ///
    /// # Errors
    /// A field that is not there.
    pub fn pick(&self, names: &[&str]) -> Result<Dataset> {
        Self::new(names.iter().map(|name| Ok((*name, self.field(name)?.clone()))).collect::<Result<Vec<_>>>()?)
    }
    /// The array called `name`, or an error that says which there are.
    pub fn field(&self, name: &str) -> Result<&Array> {
        self.get(name).ok_or_else(|| {
            let names = || self.fields.iter().map(|(n, _)| n.as_str());
            let near = nearest(name, names()).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
            let all = names().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
            DataError::Fields(format!("there is no field `{name}`; there are {all}{near}"))
        })
    }
    /// Batches of `size` samples over one pass, in the order of (seed, pass); the last may be smaller. What a
    /// [`Loader`](crate::Loader) gives without epochs, threads or a cursor.
    pub fn batches(&self, size: usize, seed: u64, pass: u64) -> impl Iterator<Item = Dataset> + '_ {
        let (order, size) = (shuffled(seed, pass, self.len), size.max(1));
        (0..self.len.div_ceil(size)).map(move |i| self.select(&order[i * size..((i + 1) * size).min(order.len())]))
    }
}

impl std::ops::Index<&str> for Dataset {
    type Output = Array;
    /// The array called `name`.
    ///
    /// # Panics
    /// If there is no such field; [`Dataset::get`] and [`Dataset::field`] do not.
    #[track_caller]
    fn index(&self, name: &str) -> &Array {
        self.field(name).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Source for Dataset {
    fn fields(&self) -> Vec<(String, TensorType)> {
        self.fields.iter().map(|(n, a)| (n.clone(), a.dtype().of(&a.shape()[1..]))).collect()
    }
    fn len(&self) -> usize {
        self.len
    }
    /// The hash of names, types and bytes; made once, at about a gigabyte a second.
    fn fingerprint(&self) -> Result<[u8; 32]> {
        Ok(*self.fingerprint.get_or_init(|| {
            let mut hash = blake3::Hasher::new();
            for (name, array) in self.fields.iter() {
                // Lengths first: no two data sets spell the same bytes.
                hash.update(format!("{}:{name} {} ", name.len(), array.ty()).as_bytes());
                hash.update(array.bytes());
            }
            *hash.finalize().as_bytes()
        }))
    }
    fn read(&self, rows: &[usize]) -> Result<Dataset> {
        self.has(rows).map(|()| self.select(rows))
    }
    fn read_fields(&self, rows: &[usize], fields: &[usize]) -> Result<Vec<Array>> {
        self.has(rows)?;
        Ok(fields.iter().map(|field| self.taken(&self.fields[*field].1, rows)).collect())
    }
}

impl Dataset {
    fn has(&self, rows: &[usize]) -> Result<()> {
        match rows.iter().find(|row| **row >= self.len) {
            Some(row) => Err(DataError::NoSample { row: *row, len: self.len }),
            None => Ok(()),
        }
    }
}
