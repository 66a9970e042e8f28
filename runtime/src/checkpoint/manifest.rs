//! The manifest: what a checkpoint is. JSON that people and tools can read, whose last member is the checksum of all
//! bytes before it, so that the check needs no second spelling of the rest and comes before any of it is believed.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thalweg_graph::kernel::BufferType;
use thalweg_graph::lower::Share;
use thalweg_graph::{DType, Hash, VarKind};

use super::names::{CheckpointId, Part};
use crate::broken::{self, What};
use crate::cursor::Cursor;

/// Changes whenever what is written here does.
pub const FORMAT: u64 = 2;

/// A checkpoint, but for the bytes of its variables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u64,
    /// See [`CheckpointId`].
    pub term: u64,
    /// Committed training steps.
    pub step: u64,
    /// The graph whose variables these are.
    pub graph: GraphName,
    /// The hash of all variables, as `Session::digest` gives it.
    pub digest: Digest,
    /// Where the sources of data stand, by name.
    pub cursors: BTreeMap<String, CursorEntry>,
    /// Every variable, in order of name.
    pub variables: Vec<VariableEntry>,
    /// Every file.
    pub shards: Vec<ShardEntry>,
}

/// Which graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphName {
    /// Its name.
    pub name: String,
    /// The hash of its canonical bytes.
    pub hash: Digest,
    /// What its random numbers start from.
    pub seed: u64,
}

/// One variable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariableEntry {
    /// Its path.
    pub name: String,
    /// Element type.
    #[serde(with = "named")]
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: Vec<u64>,
    /// What it is for, which also says which shard it is in.
    #[serde(with = "named")]
    pub kind: VarKind,
    /// The hash of its bytes.
    pub digest: Digest,
    /// Where it lies, if not whole in the only file of its part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<PieceEntry>,
}

/// A part of a variable, or all of it, in one of several files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PieceEntry {
    /// Which of the checkpoint's shards holds it, from 0.
    pub shard: u16,
    /// Its first element: a coordinate per axis of the variable; or one, as if all elements were one axis.
    pub start: Vec<u64>,
    /// Its extents along the same axes.
    pub shape: Vec<u64>,
}

impl PieceEntry {
    /// What its tensor is called: as the variable where it is all of it.
    pub fn tensor(&self, variable: &VariableEntry) -> String {
        let start: Vec<String> = self.start.iter().map(u64::to_string).collect();
        if self.shape == variable.shape {
            variable.name.clone()
        } else {
            format!("{}@{}", variable.name, start.join(","))
        }
    }
    /// Its type.
    pub fn ty(&self, variable: &VariableEntry) -> BufferType {
        BufferType { dtype: variable.dtype, shape: self.shape.clone() }
    }
    /// Runs of elements that lie side by side in both: first element in the variable, first element here, how many; nothing if
    /// it does not fit into the variable.
    pub(super) fn runs(&self, variable: &VariableEntry) -> Option<Vec<(u64, u64, u64)>> {
        let elements = variable.ty().checked_len()?;
        let view = if self.start.len() == variable.shape.len() { variable.shape.clone() } else { vec![elements] };
        let fits = |((start, n), view): ((&u64, &u64), &u64)| start.checked_add(*n).is_some_and(|end| end <= *view);
        let same = self.start.len() == view.len() && self.shape.len() == view.len();
        if !same || !self.start.iter().zip(&self.shape).zip(&view).all(fits) {
            return None;
        }
        let (ty, start) = (self.ty(variable), self.start.clone());
        Some(Share { device: 0, offset: 0, ty, view, start }.runs())
    }
}

impl VariableEntry {
    /// Its pieces; all of it, where it lies whole in the only file of its part.
    pub(super) fn pieces(&self) -> Vec<PieceEntry> {
        match &self.pieces[..] {
            [] => vec![PieceEntry { shard: 0, start: vec![0; self.shape.len()], shape: self.shape.clone() }],
            pieces => pieces.to_vec(),
        }
    }
    /// Its type.
    pub fn ty(&self) -> BufferType {
        BufferType { dtype: self.dtype, shape: self.shape.clone() }
    }
}

/// One file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// Its name, which follows from what it holds and from term and step.
    pub file: String,
    /// How long it is.
    pub bytes: u64,
    /// The hash of all of it.
    pub checksum: Digest,
}

/// Where one source of data stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CursorEntry {
    /// Which data.
    pub fingerprint: Digest,
    /// Seed of the order.
    pub seed: u64,
    /// Pass over the data, from 0.
    pub pass: u64,
    /// The next sample's place in the order of that pass.
    pub next: u64,
}

impl From<&Cursor> for CursorEntry {
    fn from(c: &Cursor) -> Self {
        Self { fingerprint: Digest(c.fingerprint), seed: c.seed, pass: c.pass, next: c.next }
    }
}
impl From<&CursorEntry> for Cursor {
    fn from(c: &CursorEntry) -> Self {
        Self { fingerprint: c.fingerprint.0, seed: c.seed, pass: c.pass, next: c.next }
    }
}

/// 32 bytes of BLAKE3 (or another fingerprint); 64 hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hash(self.0).fmt(f)
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let hash = blake3::Hash::from_hex(&text).map_err(serde::de::Error::custom)?;
        Ok(hash.into())
    }
}

/// Things of the graph crate, by the names that its text has for them.
mod named {
    use super::*;

    pub(super) trait Named: Copy {
        fn name(self) -> &'static str;
        fn from_name(name: &str) -> Option<Self>;
    }
    macro_rules! by_name {
        ($($ty:ident),*) => { $(impl Named for $ty {
            fn name(self) -> &'static str { $ty::name(self) }
            fn from_name(name: &str) -> Option<Self> { $ty::from_name(name) }
        })* };
    }
    by_name!(DType, VarKind);

    pub(super) fn serialize<T: Named, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(value.name())
    }
    pub(super) fn deserialize<'de, T: Named, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        let name = String::deserialize(from)?;
        T::from_name(&name).ok_or_else(|| serde::de::Error::custom(format!("there is no `{name}`")))
    }
}

/// Why bytes are no manifest.
#[derive(Debug, PartialEq)]
pub(super) enum ManifestError {
    /// Not what was written.
    Damaged(String),
    /// Whole, but of another format.
    Version(u64),
}

/// What stands behind the last member. Its length is always the same.
pub(super) fn tail(checked: &[u8]) -> String {
    format!(",\n  \"checksum\": \"{}\"\n}}\n", blake3::hash(checked).to_hex())
}

impl Manifest {
    /// Which checkpoint this is.
    pub fn id(&self) -> CheckpointId {
        CheckpointId { term: self.term, step: self.step }
    }
    /// The variables of a part, in order of name.
    pub fn variables_of(&self, part: Part) -> impl Iterator<Item = &VariableEntry> {
        self.variables.iter().filter(move |v| Part::of(v.kind) == part)
    }
    /// Bytes of all variables, saturating.
    pub fn state_bytes(&self) -> u64 {
        let size = |v: &VariableEntry| {
            let elements = v.ty().checked_len().unwrap_or(u64::MAX);
            elements.saturating_mul(v.dtype.size_bytes() as u64)
        };
        self.variables.iter().fold(0, |sum, v| sum.saturating_add(size(v)))
    }
    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = serde_json::to_string_pretty(self).expect("strings, numbers and lists");
        text.truncate(text.len() - "\n}".len());
        let tail = tail(text.as_bytes());
        text.push_str(&tail);
        text.into_bytes()
    }
    /// The manifest whose bytes these are.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        let damaged = |why: &str| ManifestError::Damaged(why.into());
        let split = bytes.len().checked_sub(tail(&[]).len()).ok_or_else(|| damaged("the manifest is cut short"))?;
        let (checked, end) = bytes.split_at(split);
        if tail(checked).as_bytes() != end && !broken::is(What::Checksum) {
            return Err(damaged("the manifest's checksum is not that of its bytes"));
        }
        let text = [checked, b"\n}"].concat();
        #[derive(Deserialize)]
        struct Version {
            format: u64,
        }
        let malformed = |e: serde_json::Error| ManifestError::Damaged(format!("malformed manifest: {e}"));
        let version = serde_json::from_slice::<Version>(&text).map_err(malformed)?.format;
        if version != FORMAT {
            return Err(ManifestError::Version(version));
        }
        serde_json::from_slice(&text).map_err(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let digest = Digest([0xab; 32]);
        Manifest {
            format: FORMAT,
            term: 1,
            step: u64::MAX,
            graph: GraphName { name: "a \"graph\"\n".into(), hash: digest, seed: 7 },
            digest,
            cursors: BTreeMap::from([("train".into(), CursorEntry { fingerprint: digest, seed: 1, pass: 2, next: 3 })]),
            variables: vec![VariableEntry {
                name: "w".into(),
                dtype: DType::BF16,
                shape: vec![0, 3],
                kind: VarKind::Param,
                digest,
                pieces: vec![PieceEntry { shard: 3, start: vec![0, 1], shape: vec![0, 2] }],
            }],
            shards: vec![ShardEntry { file: "weights-1-2.safetensors".into(), bytes: 9, checksum: digest }],
        }
    }

    #[test]
    fn what_is_written_is_read_and_is_json() {
        let bytes = sample().to_bytes();
        assert_eq!(Manifest::from_bytes(&bytes), Ok(sample()));
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["variables"][0]["dtype"], "bf16");
        assert_eq!(json["checksum"].as_str().map(str::len), Some(64));
    }

    #[test]
    fn another_format_is_no_damage() {
        let newer = Manifest { format: FORMAT + 1, ..sample() };
        assert_eq!(Manifest::from_bytes(&newer.to_bytes()), Err(ManifestError::Version(FORMAT + 1)));
    }

    #[test]
    fn a_manifest_that_was_forged_with_a_right_checksum_is_still_checked() {
        let text = String::from_utf8(sample().to_bytes()).unwrap();
        let body = text[..text.len() - tail(&[]).len()].replace("bf16", "bf17");
        let forged = format!("{body}{}", tail(body.as_bytes()));
        let error = Manifest::from_bytes(forged.as_bytes()).unwrap_err();
        assert!(matches!(&error, ManifestError::Damaged(why) if why.contains("there is no `bf17`")), "{error:?}");
    }
}
