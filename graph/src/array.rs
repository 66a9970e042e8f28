//! A tensor with its data, in host memory: what users feed and fetch, what the interpreter computes with. Bytes rather than
//! an enum of vectors, so that moving data never asks what it is; and from the beginning of a cache line on, because devices
//! read and write large arrays where they lie, a vector at a time. Memory of somebody else's is read where it lies, too, and
//! copied once somebody wants to write.

use std::sync::Arc;

use crate::types::{DType, TensorType};

/// Memory of somebody else's that an [`Array`] may read, such as another library's tensor.
pub trait HostBytes: Send + Sync {
    /// The bytes: as many each time, at the same place.
    fn bytes(&self) -> &[u8];
}

/// Element types that have a Rust counterpart.
pub trait Element: bytemuck::Pod {
    /// The element type this is.
    const DTYPE: DType;
}
macro_rules! elements {
    ($($rust:ty => $dtype:ident),*) => { $(impl Element for $rust { const DTYPE: DType = DType::$dtype; })* };
}
elements!(u8 => U8, u32 => U32, i32 => I32, i64 => I64, half::f16 => F16, half::bf16 => BF16, f32 => F32, f64 => F64);

/// A dense row-major tensor in host memory.
pub struct Array {
    dtype: DType,
    shape: Vec<u64>,
    memory: Memory,
}

/// Where the elements are.
enum Memory {
    /// From `first` on, the word with which the first whole line begins. Asking for aligned memory would be simpler, but the
    /// system hands out large zeros for nothing only without that.
    Own { words: Vec<u64>, first: usize },
    /// Somebody else's, to be read.
    Borrowed(Arc<dyn HostBytes>),
}

/// Words in a cache line.
const LINE: usize = 8;

impl Array {
    /// A tensor of zeros.
    ///
    /// # Panics
    /// If the number of bytes does not fit in memory's address range.
    pub fn zeros(dtype: DType, shape: &[u64]) -> Self {
        let elements = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).expect("the number of elements fits");
        let bytes = usize::try_from(elements).ok().and_then(|n| n.checked_mul(dtype.size_bytes())).expect("it fits");
        let words = vec![0u64; bytes.div_ceil(8) + LINE - 1];
        let first = words.as_ptr().align_offset(8 * LINE).min(LINE - 1);
        Self { dtype, shape: shape.to_vec(), memory: Memory::Own { words, first } }
    }
    /// A tensor whose elements are `memory`, row-major, which is read where it lies for as long as the tensor lives. Copied
    /// now where it does not begin with a whole element.
    ///
    /// # Panics
    /// If it has not as many bytes as `shape` says.
    #[track_caller]
    pub fn borrowing(dtype: DType, shape: &[u64], memory: Arc<dyn HostBytes>) -> Self {
        let bytes = memory.bytes();
        let elements = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).expect("the number of elements fits");
        let want = elements.checked_mul(dtype.size_bytes() as u64);
        assert_eq!(want, Some(bytes.len() as u64), "bytes of {dtype}{shape:?}");
        if bytes.as_ptr().align_offset(dtype.size_bytes()) != 0 {
            let mut own = Self::zeros(dtype, shape);
            own.bytes_mut().copy_from_slice(bytes);
            return own;
        }
        Self { dtype, shape: shape.to_vec(), memory: Memory::Borrowed(memory) }
    }
    /// A tensor of `data`.
    ///
    /// # Panics
    /// If `data` is not as long as `shape` says.
    #[track_caller]
    pub fn from_slice<T: Element>(shape: &[u64], data: &[T]) -> Self {
        let mut out = Self::zeros(T::DTYPE, shape);
        assert_eq!(out.len(), data.len(), "{shape:?} holds {} elements, {} were given", out.len(), data.len());
        out.bytes_mut().copy_from_slice(bytemuck::cast_slice(data));
        out
    }
    /// A tensor of truth values.
    #[track_caller]
    pub fn from_bools(shape: &[u64], data: &[bool]) -> Self {
        let bytes: Vec<u8> = data.iter().map(|b| u8::from(*b)).collect();
        let mut out = Self::from_slice(shape, &bytes);
        out.dtype = DType::Bool;
        out
    }
    /// A tensor without axes.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self::from_slice(&[], &[value])
    }
    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    /// Extents, outermost first.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }
    /// The type of this tensor.
    pub fn ty(&self) -> TensorType {
        self.dtype.of(&self.shape[..])
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product::<u64>() as usize
    }
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The elements' bytes, in order.
    pub fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Own { words, first } => {
                &bytemuck::cast_slice(&words[*first..])[..self.len() * self.dtype.size_bytes()]
            }
            Memory::Borrowed(memory) => memory.bytes(),
        }
    }
    /// The elements' bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let n = self.len() * self.dtype.size_bytes();
        loop {
            match self.memory {
                Memory::Borrowed(_) => *self = self.clone(),
                Memory::Own { ref mut words, first } => return &mut bytemuck::cast_slice_mut(&mut words[first..])[..n],
            }
        }
    }
    /// The elements.
    ///
    /// # Panics
    /// If they are of another type (truth values read as `u8`).
    #[track_caller]
    pub fn as_slice<T: Element>(&self) -> &[T] {
        assert!(self.holds(T::DTYPE), "a tensor of {} read as {}", self.dtype, T::DTYPE);
        bytemuck::cast_slice(self.bytes())
    }
    /// The elements, to write. See [`Array::as_slice`].
    #[track_caller]
    pub fn as_mut_slice<T: Element>(&mut self) -> &mut [T] {
        assert!(self.holds(T::DTYPE), "a tensor of {} written as {}", self.dtype, T::DTYPE);
        bytemuck::cast_slice_mut(self.bytes_mut())
    }
    fn holds(&self, dtype: DType) -> bool {
        self.dtype == dtype || (self.dtype == DType::Bool && dtype == DType::U8)
    }
    /// The one element of a tensor that has one, as f64.
    ///
    /// # Panics
    /// If there is not exactly one.
    #[track_caller]
    pub fn item(&self) -> f64 {
        assert_eq!(self.len(), 1, "item() of a tensor of shape {:?}", self.shape);
        self.get_f64(0)
    }
    /// Element `i` (row-major) as f64.
    pub fn get_f64(&self, i: usize) -> f64 {
        match self.dtype {
            DType::Bool | DType::U8 => f64::from(self.bytes()[i]),
            DType::U32 => f64::from(self.as_slice::<u32>()[i]),
            DType::I32 => f64::from(self.as_slice::<i32>()[i]),
            DType::I64 => self.as_slice::<i64>()[i] as f64,
            DType::F16 => self.as_slice::<half::f16>()[i].to_f64(),
            DType::BF16 => self.as_slice::<half::bf16>()[i].to_f64(),
            DType::F32 => f64::from(self.as_slice::<f32>()[i]),
            DType::F64 => self.as_slice::<f64>()[i],
        }
    }
    /// All elements as f64.
    pub fn to_f64(&self) -> Vec<f64> {
        (0..self.len()).map(|i| self.get_f64(i)).collect()
    }
    /// The same elements under another shape.
    ///
    /// # Panics
    /// If the number of elements differs.
    #[track_caller]
    pub fn reshaped(mut self, shape: &[u64]) -> Self {
        assert_eq!(self.len() as u64, shape.iter().product::<u64>(), "{:?} as {shape:?}", self.shape);
        self.shape = shape.to_vec();
        self
    }
}

impl Clone for Array {
    fn clone(&self) -> Self {
        let mut copy = Self::zeros(self.dtype, &self.shape);
        copy.bytes_mut().copy_from_slice(self.bytes());
        copy
    }
}

impl PartialEq for Array {
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype && self.shape == other.shape && self.bytes() == other.bytes()
    }
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown: Vec<f64> = (0..self.len().min(16)).map(|i| self.get_f64(i)).collect();
        write!(f, "{}{:?}{}", self.ty(), shown, if self.len() > 16 { "…" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Others(Vec<u64>, usize);
    impl HostBytes for Others {
        fn bytes(&self) -> &[u8] {
            &bytemuck::cast_slice(&self.0)[self.1..][..8]
        }
    }

    #[test]
    fn memory_of_others_is_read_where_it_lies_and_never_written() {
        let others = Arc::new(Others(vec![1 << 32, 7], 0));
        let mut array = Array::borrowing(DType::U32, &[2], others.clone());
        assert_eq!((array.bytes().as_ptr(), array.as_slice::<u32>()), (others.bytes().as_ptr(), &[0, 1][..]));
        array.as_mut_slice::<u32>()[0] = 5;
        assert_eq!((array.as_slice::<u32>(), others.0[0]), (&[5, 1][..], 1 << 32));
        // From the middle of an element on.
        let odd = Array::borrowing(DType::U32, &[2], Arc::new(Others(vec![1 << 32, 7], 3)));
        assert_eq!(odd.as_slice::<u32>(), [1 << 8, 7 << 8]);
    }

    #[test]
    fn every_array_and_every_copy_begins_with_a_line() {
        for n in [0, 1, 7, 8, 9, 1000, 100_000] {
            let data: Vec<u8> = (0..n).map(|i| i as u8).collect();
            let array = Array::from_slice(&[n], &data);
            for a in [&array, &array.clone(), &array.clone().reshaped(&[1, n])] {
                assert_eq!((a.bytes(), a.bytes().as_ptr().align_offset(64)), (&data[..], 0), "{n} bytes");
            }
            assert_eq!(array, array.clone());
        }
        assert_ne!(Array::scalar(1u8), Array::scalar(2u8));
        assert_ne!(Array::scalar(1u8), Array::from_bools(&[], &[true]));
    }
}
