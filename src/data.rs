//! Data sets in memory: named arrays of equal length, read in an order that is a pure function of seed and pass, so
//! that a run can be repeated and resumed.

use thalweg_graph::{Array, Hash};

use crate::error::{Error, Result};
pub use crate::kit::generator::permutation;

/// Named arrays whose first axes are as long as each other.
#[derive(Clone, Debug)]
pub struct Dataset {
    fields: Vec<(String, Array)>,
    len: usize,
}

impl Dataset {
    /// A data set of named arrays.
    pub fn new(fields: Vec<(String, Array)>) -> Result<Self> {
        let rows = |a: &Array| a.shape().first().copied().unwrap_or(0) as usize;
        let len = fields.first().map_or(0, |(_, a)| rows(a));
        if let Some((name, array)) = fields.iter().find(|(_, a)| rows(a) != len) {
            let what = format!("`{name}` has {} rows, `{}` has {len}", rows(array), fields[0].0);
            return Err(Error::Data(what));
        }
        Ok(Self { fields, len })
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
    pub fn select(&self, rows: &[usize]) -> Dataset {
        let take = |array: &Array| {
            let mut shape = array.shape().to_vec();
            let size = array.bytes().len().checked_div(self.len).unwrap_or(0);
            shape[0] = rows.len() as u64;
            let mut out = Array::zeros(array.dtype(), &shape);
            for (to, row) in out.bytes_mut().chunks_exact_mut(size.max(1)).zip(rows) {
                to.copy_from_slice(&array.bytes()[row * size..(row + 1) * size]);
            }
            out
        };
        Dataset { fields: self.fields.iter().map(|(n, a)| (n.clone(), take(a))).collect(), len: rows.len() }
    }
    /// Every array with its name, ready to feed.
    pub fn feeds(&self) -> Vec<(&str, &Array)> {
        self.fields.iter().map(|(n, a)| (n.as_str(), a)).collect()
    }
    /// One array.
    pub fn get(&self, name: &str) -> Option<&Array> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, a)| a)
    }
    /// Batches of `size` samples over one pass, in the order of (seed, pass); the last may be smaller.
    pub fn batches(&self, size: usize, seed: u64, pass: u64) -> impl Iterator<Item = Dataset> + '_ {
        self.batches_from(size, seed, pass, 0)
    }
    /// The same from the sample at `first` in that order: the rest of a pass.
    pub fn batches_from(&self, size: usize, seed: u64, pass: u64, first: usize) -> impl Iterator<Item = Dataset> + '_ {
        let (order, size) = (permutation(&format!("shuffle/{seed}/{pass}"), self.len), size.max(1));
        let starts = (first..self.len).step_by(size);
        starts.map(move |i| self.select(&order[i..(i + size).min(order.len())]))
    }
    /// The hash of all samples: what has another one is other data.
    pub fn fingerprint(&self) -> [u8; 32] {
        let field = |(name, array): &(String, Array)| {
            [format!("{name}: {}\n", array.ty()).as_bytes(), Hash::of(array.bytes()).to_string().as_bytes()].concat()
        };
        Hash::of(&self.fields.iter().flat_map(field).collect::<Vec<u8>>()).0
    }
}

/// The 1,797 handwritten digits of the UCI repository (Alpaydin and Kaynak, *Optical Recognition of Handwritten Digits*,
/// CC BY 4.0): `image` `f32[n, 1, 8, 8]` in 0..=1 and `label` `i32[n]`. 1,437 to train on and 360 to test on.
pub fn digits() -> Result<(Dataset, Dataset)> {
    let all = all_digits()?;
    let order = permutation("digits/split", all.len());
    let (train, test) = order.split_at(all.len() * 4 / 5);
    Ok((all.select(train), all.select(test)))
}

/// All of them, in the order of the file.
pub(crate) fn all_digits() -> Result<Dataset> {
    let text = include_str!("../data/digits.txt");
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for (i, line) in text.lines().enumerate() {
        let bad = || Error::Data(format!("digits.txt, line {}: expected a digit and 64 letters a..q", i + 1));
        let (label, pixels) = line.as_bytes().split_first().ok_or_else(bad)?;
        if !label.is_ascii_digit() || pixels.len() != 64 || pixels.iter().any(|p| !(b'a'..=b'q').contains(p)) {
            return Err(bad());
        }
        labels.push(i32::from(label - b'0'));
        images.extend(pixels.iter().map(|p| f32::from(p - b'a') / 16.0));
    }
    let n = labels.len();
    Dataset::new(vec![
        ("image".into(), Array::from_slice(&[n as u64, 1, 8, 8], &images)),
        ("label".into(), Array::from_slice(&[n as u64], &labels)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digits_split_into_1437_and_360() {
        let (train, test) = digits().expect("the file is sound");
        assert_eq!((train.len(), test.len()), (1437, 360));
        assert_eq!(train.batches(64, 0, 0).map(|b| b.len()).sum::<usize>(), 1437);
        let labels = |b: Dataset| b.get("label").expect("it has labels").clone();
        let rest: Vec<Array> = train.batches_from(64, 0, 3, 1344).map(labels).collect();
        let whole: Vec<Array> = train.batches(64, 0, 3).map(labels).collect();
        assert_eq!(rest, whole[21..]);
        assert_ne!(train.fingerprint(), test.fingerprint());
    }
}
