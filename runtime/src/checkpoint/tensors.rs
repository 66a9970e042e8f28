//! Safetensors files, streamed: the crate's own header, then the tensors' bytes in its order (by element type, then by
//! name). Not through its `serialize`, which wants the whole file in memory once more.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, TensorInfo};
use thalweg_graph::DType;
use thalweg_graph::kernel::BufferType;

use super::disk::CHUNK;
use super::error::CheckpointError;

/// A length, and then as many bytes of JSON.
const PREFIX: u64 = 8;

fn to_safetensors(dtype: DType) -> safetensors::Dtype {
    use safetensors::Dtype as To;
    match dtype {
        DType::Bool => To::BOOL,
        DType::U8 => To::U8,
        DType::U32 => To::U32,
        DType::I32 => To::I32,
        DType::I64 => To::I64,
        DType::F16 => To::F16,
        DType::BF16 => To::BF16,
        DType::F32 => To::F32,
        DType::F64 => To::F64,
    }
}

/// Ours for one of theirs; they have more.
fn from_safetensors(dtype: safetensors::Dtype) -> Option<DType> {
    DType::ALL.into_iter().find(|d| to_safetensors(*d) == dtype)
}

/// A tensor to be written.
pub(super) struct Tensor<'a> {
    pub name: &'a str,
    pub ty: &'a BufferType,
    pub bytes: &'a [u8],
}

/// A safetensors file that is ready to be written.
pub(super) struct Layout<'a> {
    header: Vec<u8>,
    tensors: Vec<Tensor<'a>>,
}

impl<'a> Layout<'a> {
    pub(super) fn of(mut tensors: Vec<Tensor<'a>>) -> Result<Self, CheckpointError> {
        tensors.sort_by_key(|t| (std::cmp::Reverse(to_safetensors(t.ty.dtype)), t.name));
        let mut infos = Vec::with_capacity(tensors.len());
        let mut end = 0;
        for tensor in &tensors {
            check_name(tensor.name)?;
            let shape = tensor.ty.shape.iter().map(|n| *n as usize).collect();
            let data_offsets = (end, end + tensor.bytes.len());
            end = data_offsets.1;
            let info = TensorInfo { dtype: to_safetensors(tensor.ty.dtype), shape, data_offsets };
            // One by one, so that what cannot be said is said of the right one.
            let alone = TensorInfo { data_offsets: (0, tensor.bytes.len()), ..info.clone() };
            Metadata::new(None, vec![(tensor.name.to_string(), alone)])
                .map_err(|e| CheckpointError::Variable { name: tensor.name.into(), why: e.to_string() })?;
            infos.push((tensor.name.to_string(), info));
        }
        let internal = |why: String| CheckpointError::Internal(why);
        let metadata = Metadata::new(None, infos).map_err(|e| internal(e.to_string()))?;
        let mut header = serde_json::to_vec(&metadata).map_err(|e| internal(e.to_string()))?;
        header.resize(header.len().next_multiple_of(8), b' ');
        Ok(Self { header, tensors })
    }
    pub(super) fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(&(self.header.len() as u64).to_le_bytes())?;
        out.write_all(&self.header)?;
        self.tensors.iter().try_for_each(|t| out.write_all(t.bytes))
    }
}

/// The one name that the format keeps for itself.
fn check_name(name: &str) -> Result<(), CheckpointError> {
    match name {
        "__metadata__" => {
            let why = "the format uses this name for something else; rename it".into();
            Err(CheckpointError::Variable { name: name.into(), why })
        }
        _ => Ok(()),
    }
}

/// Why a file cannot be read as what it should be.
pub(super) enum ReadError {
    /// It does not hold what it should.
    Content(String),
    /// The system did not let us.
    Io(std::io::Error),
}
impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Content(why) => f.write_str(why),
            Self::Io(error) => error.fmt(f),
        }
    }
}
impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// An open safetensors file whose header has been read and is consistent with its length.
pub(super) struct TensorFile<R = File> {
    pub path: PathBuf,
    file: R,
    metadata: Metadata,
    /// Where the first tensor's bytes begin.
    data: u64,
    pub bytes: u64,
}

impl TensorFile {
    pub(super) fn open(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Self::of(path, file, bytes)
    }
}

impl<R: Read + Seek> TensorFile<R> {
    /// Of something that is open and has so many bytes.
    pub(super) fn of(path: &Path, mut file: R, bytes: u64) -> Result<Self, ReadError> {
        let short = || ReadError::Content("it is cut short".into());
        let mut prefix = [0; PREFIX as usize];
        let room = bytes.checked_sub(PREFIX).ok_or_else(short)?;
        file.read_exact(&mut prefix)?;
        let length = u64::from_le_bytes(prefix);
        if length > room {
            return Err(short());
        }
        // Grows with what is there, not with what is promised.
        let mut header = Vec::new();
        Read::by_ref(&mut file).take(length).read_to_end(&mut header)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|e| ReadError::Content(format!("malformed header: {e}")))?;
        if metadata.data_len() as u64 != room - length {
            let why = format!("its header promises {} bytes of data, there are {}", metadata.data_len(), room - length);
            return Err(ReadError::Content(why));
        }
        Ok(Self { path: path.into(), file, metadata, data: PREFIX + length, bytes })
    }
    /// The names of all tensors, in the order in which they lie.
    pub(super) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }
    /// What the tensor of this name is: its type, or what the file calls one that Thalweg does not have.
    pub(super) fn ty(&self, name: &str) -> Option<Result<BufferType, String>> {
        let info = self.metadata.info(name)?;
        let shape: Vec<u64> = info.shape.iter().map(|n| *n as u64).collect();
        Some(match from_safetensors(info.dtype) {
            Some(dtype) => Ok(BufferType { dtype, shape }),
            None => Err(format!("{}{shape:?}", info.dtype)),
        })
    }
    /// Hands the bytes of a tensor to `sink`, piece by piece.
    pub(super) fn read(&mut self, name: &str, sink: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        let absent = || ReadError::Content(format!("it has no tensor `{name}`"));
        let (start, end) = self.metadata.info(name).ok_or_else(absent)?.data_offsets;
        self.pieces(self.data + start as u64, (end - start) as u64, sink)
    }
    /// Hands the bytes of the whole file to `sink`, piece by piece.
    pub(super) fn read_all(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        self.pieces(0, self.bytes, sink)
    }
    fn pieces(&mut self, start: u64, length: u64, sink: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        self.file.seek(SeekFrom::Start(start))?;
        let mut piece = vec![0; length.min(CHUNK as u64) as usize];
        let mut left = length;
        while left > 0 {
            let now = left.min(CHUNK as u64) as usize;
            self.file.read_exact(&mut piece[..now])?;
            sink(&piece[..now]);
            left -= now as u64;
        }
        Ok(())
    }
}
