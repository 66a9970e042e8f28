//! NumPy's array file (NEP 1, versions 1 to 3): a header that is a Python dictionary in text, then the elements. The
//! header is read by a grammar of just what NumPy writes and never evaluated; arrays of objects are pickled programs
//! and are refused.

use std::path::Path;

use thalweg_graph::{Array, DType};

use crate::error::{DataError, Place, Result};
use crate::file::{Limits, array_bytes, extents, from_stored, name_of, read_file, widened};

/// The array in a `.npy` file. Elements that have no type here are widened: 8- and 16-bit integers to `i32`, `uint64`
/// to `i64`. Either byte order; Fortran order is turned into C order.
///
/// # Errors
/// A file that cannot be read, is not what its header says, or holds elements that are not numbers.
pub fn read(path: impl AsRef<Path>) -> Result<Array> {
    parse(&name_of(path.as_ref()), &read_file(path.as_ref())?, &Limits::default())
}

/// The same from bytes; `file` is what errors call them.
pub fn parse(file: &str, bytes: &[u8], limits: &Limits) -> Result<Array> {
    array(bytes, limits).map_err(|Fault(at, what)| DataError::malformed(file, Place::Byte(at as u64), what))
}

/// The same from an unpacked member of an archive.
pub(crate) fn parse_member(file: &str, member: &str, bytes: &[u8], limits: &Limits) -> Result<Array> {
    array(bytes, limits).map_err(|Fault(at, what)| {
        DataError::malformed(file, Place::Member { name: member.into(), byte: at as u64 }, what)
    })
}

/// What is wrong, and at which byte.
struct Fault(usize, String);

fn array(bytes: &[u8], limits: &Limits) -> std::result::Result<Array, Fault> {
    if !bytes.starts_with(b"\x93NUMPY") {
        return Err(Fault(0, "does not begin with \\x93NUMPY: this is not a .npy array".into()));
    }
    let cut = || Fault(bytes.len(), "ends within its header: it was cut short".into());
    let [major, minor, rest @ ..] = &bytes[6..] else { return Err(cut()) };
    let (length, begin) = match (major, rest) {
        (1, [a, b, ..]) => (usize::from(u16::from_le_bytes([*a, *b])), 10),
        (2 | 3, [a, b, c, d, ..]) => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 12),
        (1..=3, _) => return Err(cut()),
        _ => return Err(Fault(6, format!("format version {major}.{minor}; this build reads 1.0 to 3.0"))),
    };
    let end = begin + length;
    let text = bytes.get(begin..end).ok_or_else(|| {
        let has = bytes.len() - begin;
        Fault(begin - 2, format!("the header is said to take {length} bytes, and the file has {has} more"))
    })?;
    let header = Scan { text, at: 0, begin }.header()?;
    let Layout { dtype, stored, big_endian } = layout(&header.descr).map_err(|what| Fault(header.descr_at, what))?;
    let shape = &header.shape;
    let width = if let Stored::Narrow { width, .. } = stored { width } else { dtype.size_bytes() };
    let Some(size) = array_bytes(dtype, shape, limits).map(|n| n / dtype.size_bytes() * width) else {
        let (says, limit) = (extents(shape), limits.unpacked_bytes);
        let what = format!("the header promises {says} elements of {dtype}, beyond the limit of {limit} bytes");
        return Err(Fault(header.shape_at, format!("{what}: if it is meant to, raise the limit `unpacked_bytes`")));
    };
    let data = &bytes[end..];
    if data.len() != size {
        let (says, has) = (extents(shape), data.len());
        let why = if has < size { "it was cut short" } else { "it holds more than one array, or is damaged" };
        return Err(Fault(end, format!("{says} elements take {size} bytes, and {has} follow the header: {why}")));
    }
    let order = if header.fortran { shape.iter().rev().copied().collect() } else { shape.clone() };
    let array = match stored {
        Stored::Same => from_stored(dtype, &order, data, big_endian),
        Stored::Narrow { width, signed } => widened(&order, data, width, signed, big_endian),
        Stored::Unsigned64 => {
            let array = from_stored(dtype, &order, data, big_endian);
            if let Some(i) = array.as_slice::<i64>().iter().position(|x| *x < 0) {
                let found = array.as_slice::<i64>()[i] as u64;
                return Err(Fault(end + 8 * i, format!("{found} is too large for i64, as which uint64 is read")));
            }
            array
        }
    };
    if dtype == DType::Bool
        && let Some(i) = array.bytes().iter().position(|b| *b > 1)
    {
        return Err(Fault(end + i, format!("a truth value is 0 or 1, found {}", array.bytes()[i])));
    }
    Ok(if header.fortran { reversed_axes(&array, shape) } else { array })
}

#[derive(Clone, Copy)]
enum Stored {
    /// As in memory, but for the order of bytes.
    Same,
    /// An integer of fewer bits than any element type of ours with its sign.
    Narrow { width: usize, signed: bool },
    /// As `i64`, where the sign bit must be free.
    Unsigned64,
}

struct Layout {
    dtype: DType,
    stored: Stored,
    big_endian: bool,
}

/// What a `descr` such as `<f4` means.
fn layout(descr: &str) -> std::result::Result<Layout, String> {
    let (order, kind) = descr.split_at_checked(1).unwrap_or(("", ""));
    let big_endian = match order {
        "<" | "|" => false,
        ">" => true,
        _ => return Err(format!("`{descr}` is no element type: it should begin with <, > or |")),
    };
    let narrow = |width, signed| (DType::I32, Stored::Narrow { width, signed });
    let (dtype, stored) = match kind {
        "b1" => (DType::Bool, Stored::Same),
        "u1" => (DType::U8, Stored::Same),
        "i1" => narrow(1, true),
        "i2" => narrow(2, true),
        "u2" => narrow(2, false),
        "i4" => (DType::I32, Stored::Same),
        "u4" => (DType::U32, Stored::Same),
        "i8" => (DType::I64, Stored::Same),
        "u8" => (DType::I64, Stored::Unsigned64),
        "f2" => (DType::F16, Stored::Same),
        "f4" => (DType::F32, Stored::Same),
        "f8" => (DType::F64, Stored::Same),
        _ if kind.starts_with('O') => {
            let what = "the elements are pickled Python objects, which would be run to be read";
            return Err(format!("{what}: save numbers, as with .astype('float32')"));
        }
        _ => {
            let known = "b1, i1 to i8, u1 to u8, f2, f4, f8";
            return Err(format!("`{descr}` is not an element type of ours ({known}): convert it with .astype(..)"));
        }
    };
    Ok(Layout { dtype, stored, big_endian })
}

/// What was read with the axes in reverse, put in order.
fn reversed_axes(array: &Array, shape: &[u64]) -> Array {
    let size = array.dtype().size_bytes();
    let mut out = Array::zeros(array.dtype(), shape);
    // The step in the file of each axis: the first varies fastest.
    let steps: Vec<usize> = shape.iter().scan(1, |n, d| Some(std::mem::replace(n, *n * *d as usize))).collect();
    let mut index = vec![0; shape.len()];
    let mut from = 0;
    for to in out.bytes_mut().chunks_exact_mut(size) {
        to.copy_from_slice(&array.bytes()[from * size..(from + 1) * size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            from += steps[axis];
            if index[axis] < shape[axis] {
                break;
            }
            from -= steps[axis] * index[axis] as usize;
            index[axis] = 0;
        }
    }
    out
}

struct Header {
    descr: String,
    descr_at: usize,
    fortran: bool,
    shape: Vec<u64>,
    shape_at: usize,
}

/// Reads the header's text: `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    /// Where the text begins in the file.
    begin: usize,
}

impl Scan<'_> {
    fn fault<T>(&self, what: impl Into<String>) -> std::result::Result<T, Fault> {
        Err(Fault(self.begin + self.at, what.into()))
    }
    /// The next byte that is not white space; 0 at the end.
    fn peek(&mut self) -> u8 {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied().unwrap_or(0)
    }
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }
    fn expect(&mut self, byte: u8) -> std::result::Result<(), Fault> {
        match self.take(byte) {
            true => Ok(()),
            false => self.fault(format!("the header should have `{}` here", char::from(byte))),
        }
    }
    fn string(&mut self) -> std::result::Result<String, Fault> {
        let quote = self.peek();
        if quote != b'\'' && quote != b'"' {
            return self.fault("the header should have a quoted name here");
        }
        let rest = &self.text[self.at + 1..];
        let Some(length) = rest.iter().position(|b| *b == quote) else {
            return self.fault("this quote of the header is never closed");
        };
        self.at += length + 2;
        Ok(String::from_utf8_lossy(&rest[..length]).into_owned())
    }
    fn word(&mut self) -> &[u8] {
        self.peek();
        let rest = &self.text[self.at..];
        let ends = |b: &u8| b.is_ascii_whitespace() || b",:(){}'\"".contains(b);
        let length = rest.iter().position(ends).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }
    fn extent(&mut self) -> std::result::Result<u64, Fault> {
        self.peek();
        let at = self.at;
        let word = String::from_utf8_lossy(self.word()).into_owned();
        // Python 2 wrote `3L`.
        word.strip_suffix('L').unwrap_or(&word).parse().or_else(|_| {
            self.at = at;
            self.fault(format!("an extent should be a number, found `{word}`"))
        })
    }
    fn header(mut self) -> std::result::Result<Header, Fault> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect(b'{')?;
        while !self.take(b'}') {
            let key = self.string()?;
            self.expect(b':')?;
            self.peek();
            let at = self.begin + self.at;
            match &*key {
                "descr" if self.peek() == b'[' => {
                    return self.fault("the elements are records of several fields: save one array for each field");
                }
                "descr" => descr = Some((self.string()?, at)),
                "fortran_order" => match self.word() {
                    b"True" => fortran = Some(true),
                    b"False" => fortran = Some(false),
                    _ => return Err(Fault(at, "fortran_order should be True or False".into())),
                },
                "shape" => {
                    self.expect(b'(')?;
                    let mut extents = Vec::new();
                    while !self.take(b')') {
                        extents.push(self.extent()?);
                        if !self.take(b',') && self.peek() != b')' {
                            return self.fault("the shape should go on with `,` or `)` here");
                        }
                    }
                    shape = Some((extents, at));
                }
                _ => return Err(Fault(at, format!("`{key}` is no key of a .npy header"))),
            }
            if !self.take(b',') && self.peek() != b'}' {
                return self.fault("the header should go on with `,` or `}` here");
            }
        }
        if self.peek() != 0 {
            return self.fault("something follows the header's `}`");
        }
        let (Some((descr, descr_at)), Some(fortran), Some((shape, shape_at))) = (descr, fortran, shape) else {
            return self.fault("the header lacks one of descr, fortran_order and shape");
        };
        Ok(Header { descr, descr_at, fortran, shape, shape_at })
    }
}
