//! Bytes that Python and Rust read where they lie: arrays of NumPy and others come in by the buffer protocol and are lent to the step, what a step
//! returns goes out by it. The one file of this crate, with `interrupt.rs`, that has to be unsafe: both sides see the same memory.

use std::ffi::{CStr, CString, c_int};
use std::sync::Arc;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use thalweg::graph::HostBytes;
use thalweg::{Array, DType};

/// Memory of a Python object. Whoever writes to it from another thread while a step reads it gets a step of old and new bytes,
/// as with every library that computes without Python's lock.
struct Lent {
    buffer: PyUntypedBuffer,
}

impl HostBytes for Lent {
    fn bytes(&self) -> &[u8] {
        let bytes = self.buffer.len_bytes();
        if bytes == 0 {
            return &[];
        }
        // SAFETY: the exporter keeps so many bytes there, in one piece (`array` has asked), until the buffer is released, which is
        // when this is dropped.
        unsafe { std::slice::from_raw_parts(self.buffer.buf_ptr().cast(), bytes) }
    }
}

/// The element type that a format of the `struct` module means, where it is one of ours.
fn dtype_of(format: &CStr, item: usize) -> Option<DType> {
    let [letter] = format.to_bytes().strip_prefix(b"@").or(format.to_bytes().strip_prefix(b"=")).unwrap_or_else(|| {
        let plain = format.to_bytes();
        if cfg!(target_endian = "little") { plain.strip_prefix(b"<").unwrap_or(plain) } else { plain }
    }) else {
        return None;
    };
    Some(match (letter, item) {
        (b'?', 1) => DType::Bool,
        (b'B', 1) => DType::U8,
        (b'I' | b'L', 4) => DType::U32,
        (b'i' | b'l', 4) => DType::I32,
        (b'l' | b'q', 8) => DType::I64,
        (b'e', 2) => DType::F16,
        (b'f', 4) => DType::F32,
        (b'd', 8) => DType::F64,
        _ => return None,
    })
}

/// An array over the memory of a Python object, and nothing is copied: NumPy's arrays, or whatever `thalweg._arrays.as_buffer` makes one of.
/// `wanted` is the element type that numbers without one of their own are to have.
pub(crate) fn array(value: &Bound<'_, PyAny>, wanted: Option<DType>) -> PyResult<Array> {
    if let Ok(memory) = value.cast::<Memory>() {
        return Ok(memory.get().array().clone());
    }
    let plain = PyUntypedBuffer::get(value).ok().filter(PyUntypedBuffer::is_c_contiguous);
    if let Some(buffer) = plain
        && let Some(dtype) = dtype_of(buffer.format(), buffer.item_size())
    {
        return Ok(over(buffer, dtype, false));
    }
    static CONVERT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    let convert =
        CONVERT.get_or_try_init(py, || Ok::<_, PyErr>(py.import("thalweg._arrays")?.getattr("as_buffer")?.unbind()))?;
    let (buffer, name, is_scalar): (Bound<'_, PyAny>, String, bool) =
        convert.bind(py).call1((value, wanted.map(DType::name)))?.extract()?;
    let buffer = PyUntypedBuffer::get(&buffer)?;
    let dtype = crate::types::dtype(&name)?;
    if !buffer.is_c_contiguous() || buffer.item_size() != dtype.size_bytes() {
        return Err(PyTypeError::new_err(format!("this is no array of {name}")));
    }
    Ok(over(buffer, dtype, is_scalar))
}

fn over(buffer: PyUntypedBuffer, dtype: DType, is_scalar: bool) -> Array {
    let shape: Vec<u64> = if is_scalar { vec![] } else { buffer.shape().iter().map(|n| *n as u64).collect() };
    Array::borrowing(dtype, &shape, Arc::new(Lent { buffer }))
}

/// An array of the library's, which NumPy and others read where it lies.
#[pyclass(frozen, module = "thalweg._thalweg")]
pub(crate) struct Memory {
    held: Held,
    format: CString,
    shape: Vec<ffi::Py_ssize_t>,
    strides: Vec<ffi::Py_ssize_t>,
}

/// Where an array is.
enum Held {
    Own(Array),
    /// One of those that a step has returned, by its place.
    Output(Arc<thalweg::runtime::Outputs>, usize),
}

impl Memory {
    fn new(held: Held) -> Self {
        let (dtype, shape) = {
            let array = held.array();
            (array.dtype(), array.shape().iter().map(|n| *n as ffi::Py_ssize_t).collect::<Vec<_>>())
        };
        let format = match dtype {
            DType::Bool => c"?",
            DType::U8 => c"B",
            DType::U32 => c"=I",
            DType::I32 => c"=i",
            DType::I64 => c"=q",
            DType::F16 => c"=e",
            // NumPy has no name for it: its bits, which `ml_dtypes` says what to make of.
            DType::BF16 => c"=H",
            DType::F32 => c"=f",
            DType::F64 => c"=d",
        };
        let mut strides = vec![dtype.size_bytes() as ffi::Py_ssize_t; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        Self { held, format: format.into(), shape, strides }
    }
    pub(crate) fn of(array: Array) -> Self {
        Self::new(Held::Own(array))
    }
    pub(crate) fn of_output(outputs: Arc<thalweg::runtime::Outputs>, place: usize) -> Self {
        Self::new(Held::Output(outputs, place))
    }
    fn array(&self) -> &Array {
        self.held.array()
    }
}

impl Held {
    fn array(&self) -> &Array {
        match self {
            Held::Own(array) => array,
            Held::Output(outputs, place) => outputs.iter().nth(*place).expect("it was there").1,
        }
    }
}

#[pymethods]
impl Memory {
    /// The short name of its element type.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.array().dtype().name()
    }
    /// # Safety
    /// As the buffer protocol has it: `view` is to be filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() || flags & ffi::PyBUF_WRITABLE == ffi::PyBUF_WRITABLE {
            return Err(PyBufferError::new_err("what a step returns is read-only; copy it to write to it"));
        }
        let this = slf.get();
        let bytes = this.array().bytes();
        let when = |flag: c_int| flags & flag == flag;
        // SAFETY: `view` is valid to write. What it points to lives as long as `slf`, which it holds, and is never changed.
        unsafe {
            (*view).buf = bytes.as_ptr().cast_mut().cast();
            (*view).len = bytes.len() as ffi::Py_ssize_t;
            (*view).readonly = 1;
            (*view).itemsize = this.array().dtype().size_bytes() as ffi::Py_ssize_t;
            (*view).format =
                if when(ffi::PyBUF_FORMAT) { this.format.as_ptr().cast_mut() } else { std::ptr::null_mut() };
            (*view).ndim = this.shape.len() as c_int;
            (*view).shape = if when(ffi::PyBUF_ND) { this.shape.as_ptr().cast_mut() } else { std::ptr::null_mut() };
            (*view).strides =
                if when(ffi::PyBUF_STRIDES) { this.strides.as_ptr().cast_mut() } else { std::ptr::null_mut() };
            (*view).suboffsets = std::ptr::null_mut();
            (*view).internal = std::ptr::null_mut();
            (*view).obj = slf.clone().into_ptr();
        }
        Ok(())
    }
}

/// As NumPy's array, over the same memory.
pub(crate) fn numpy<'py>(py: Python<'py>, memory: Memory) -> PyResult<Bound<'py, PyAny>> {
    static ASARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static BFLOAT16: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let dtype = memory.array().dtype();
    let asarray = ASARRAY.get_or_try_init(py, || Ok::<_, PyErr>(py.import("numpy")?.getattr("asarray")?.unbind()))?;
    let array = asarray.bind(py).call1((memory,))?;
    if dtype != DType::BF16 {
        return Ok(array);
    }
    let bfloat16 =
        BFLOAT16.get_or_try_init(py, || Ok::<_, PyErr>(py.import("ml_dtypes")?.getattr("bfloat16")?.unbind()))?;
    array.call_method1("view", (bfloat16,))
}
