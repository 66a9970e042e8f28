//! What a step returns: arrays of the caller's. Their memory comes back when the caller drops them and serves the next
//! step, so that a loop over steps allocates nothing large.

use std::sync::{Arc, Mutex, PoisonError};

use thalweg_graph::{Array, DType};

/// What a program returned.
#[derive(Clone, Debug)]
pub struct Outputs {
    values: Vec<(Arc<str>, Array)>,
    shelf: Arc<Shelf>,
}

/// Arrays of outputs that nobody looks at any more, to be filled again: fresh memory of many pages costs more than what is
/// written to it. No more bytes than one step returns, however many extents there are.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// The youngest last.
    arrays: Vec<Array>,
    /// The most bytes that a step has returned.
    most: usize,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shelf")
    }
}

impl Shelf {
    /// Arrays smaller than this are cheaper to make than to find.
    const WORTH_BYTES: usize = 64 << 10;
    /// An array of this type, of unspecified content.
    pub(crate) fn take(&self, dtype: DType, shape: &[u64]) -> Array {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.arrays.iter().position(|a| a.dtype() == dtype && a.shape() == shape);
        found.map_or_else(|| Array::zeros(dtype, shape), |i| kept.arrays.remove(i))
    }
    /// A step returns so many bytes.
    fn expect(&self, bytes: usize) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.most = kept.most.max(bytes);
    }
    fn give(&self, array: Array) {
        if array.bytes().len() < Self::WORTH_BYTES {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.arrays.push(array);
        let mut bytes: usize = kept.arrays.iter().map(|a| a.bytes().len()).sum();
        while bytes > kept.most {
            bytes -= kept.arrays.remove(0).bytes().len();
        }
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.values.drain(..).for_each(|(_, array)| self.shelf.give(array));
    }
}

impl Outputs {
    pub(crate) fn new(values: Vec<(Arc<str>, Array)>, shelf: Arc<Shelf>) -> Self {
        shelf.expect(values.iter().map(|(_, a)| a.bytes().len()).sum());
        Self { values, shelf }
    }
    /// The arrays in the program's order, to be filled.
    pub(crate) fn arrays_mut(&mut self) -> impl Iterator<Item = &mut Array> {
        self.values.iter_mut().map(|(_, a)| a)
    }
    /// The output called `name`.
    pub fn get(&self, name: &str) -> Option<&Array> {
        self.values.iter().find(|(n, _)| &**n == name).map(|(_, a)| a)
    }
    /// The one element of the output called `name`.
    ///
    /// # Panics
    /// If there is no such output or it has not exactly one element.
    #[track_caller]
    pub fn item(&self, name: &str) -> f64 {
        let names = || self.values.iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>().join(", ");
        self.get(name).unwrap_or_else(|| panic!("no output `{name}`; there are {}", names())).item()
    }
    /// Every output with its name, in the program's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Array)> {
        self.values.iter().map(|(n, a)| (&**n, a))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_dropped_outputs_is_filled_again_and_that_of_others_is_not() {
        let shelf = Arc::new(Shelf::default());
        let shape = [Shelf::WORTH_BYTES as u64];
        let output =
            |shelf: &Arc<Shelf>| Outputs::new(vec![("y".into(), shelf.take(DType::U8, &shape))], shelf.clone());
        let at = |o: &Outputs| o.get("y").expect("an output").bytes().as_ptr();
        let (first, second) = (output(&shelf), output(&shelf));
        let (place, other) = (at(&first), at(&second));
        assert_ne!(place, other);
        drop(first);
        let third = output(&shelf);
        assert_eq!(at(&third), place);
        assert_eq!(shelf.take(DType::U8, &[3]).shape(), [3]);
        drop((second, third));
        assert_eq!(shelf.0.lock().expect("no panic").arrays.len(), 1, "as much as a step returns");
    }

    #[test]
    fn outputs_of_many_extents_are_not_all_kept() {
        let shelf = Arc::new(Shelf::default());
        let most = 20 * Shelf::WORTH_BYTES;
        for n in (1..=20).chain((1..=20).rev()) {
            let shape = [(n * Shelf::WORTH_BYTES) as u64];
            drop(Outputs::new(vec![("y".into(), shelf.take(DType::U8, &shape))], shelf.clone()));
            let kept: Vec<usize> = shelf.0.lock().expect("no panic").arrays.iter().map(|a| a.bytes().len()).collect();
            assert_eq!(kept.last(), Some(&(n * Shelf::WORTH_BYTES)), "the youngest is");
            assert!(kept.iter().sum::<usize>() <= most, "{kept:?}");
        }
    }
}
