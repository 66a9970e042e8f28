//! Data that is read where it is used. A caller *describes* what it feeds: a data set below a root that everybody knows
//! by a name, and which of its samples; whoever hosts a device reads those that its leaves take. The bytes never pass through
//! the caller, and what is remembered of a step is a few numbers.
//!
//! Formats are not known here: who knows them gives an [`Opener`]. The plan says nothing of this either: which channels are
//! read and which are fed is a matter of how a step is begun, so that one plan serves both.

mod ahead;
mod below;
mod take;

use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};

use serde::{Deserialize, Serialize};
use thalweg_graph::TensorType;
use thalweg_graph::kernel::BufferType;

pub use ahead::{ReadAhead, Wanted};
pub use below::Below;
pub use take::Take;

use crate::checkpoint::Root;
use crate::feed::Feed;

/// The most bytes that a spec may have, of each of its texts.
pub const SPEC_BYTES: usize = 64 << 10;
/// The most fields of a data set.
pub const FIELDS: usize = 256;
/// The most data sets that a process has open.
pub const OPEN: usize = 64;

/// What to open. A root and a name below it: nobody names a path of somebody else's.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct SourceSpec {
    /// The name of a [`Root`]; none for what an opener has itself.
    pub root: String,
    /// A file or folder below it, without `..` and not from `/` on; without a root what people call it.
    pub path: String,
    /// How to read it, for the [`Opener`] alone.
    pub how: String,
}

impl SourceSpec {
    /// Whether it is short enough to be sent.
    pub fn is_short(&self) -> bool {
        [&self.root, &self.path, &self.how].into_iter().all(|text| text.len() <= SPEC_BYTES)
    }
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.root, &*self.path) {
            ("", path) => write!(f, "data set `{path}`"),
            (root, "") => write!(f, "root `{root}`"),
            (root, path) => write!(f, "`{path}` below root `{root}`"),
        }
    }
}

/// What is known of a data set once it is open. Two who open the same have the same facts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// Number of samples.
    pub len: u64,
    /// What tells this data from other data.
    pub fingerprint: [u8; 32],
    /// Name and type of one sample of every field. The name is that of the input it is for.
    pub fields: Vec<(String, BufferType)>,
}

impl Facts {
    /// What tells these from `wanted`, if anything does.
    pub fn differs_from(&self, wanted: &Self) -> Option<String> {
        let fields = |facts: &Self| {
            let all = facts.fields.iter().map(|(name, ty)| format!("`{name}` {ty}"));
            all.collect::<Vec<_>>().join(", ")
        };
        if self.fields != wanted.fields {
            return Some(format!("a sample is {} here, and {} elsewhere", fields(self), fields(wanted)));
        }
        if self.len != wanted.len {
            return Some(format!("there are {} samples here, and {} elsewhere", self.len, wanted.len));
        }
        let (here, there) = (short(&self.fingerprint), short(&wanted.fingerprint));
        (self != wanted).then(|| format!("the content is not the same (fingerprint {here}… here, {there}… elsewhere)"))
    }
}

/// What people can tell fingerprints by.
pub fn short(fingerprint: &[u8; 32]) -> String {
    fingerprint[..4].iter().map(|b| format!("{b:02x}")).collect()
}

/// Which samples: `count` of them from place `first` on in the order of (seed, pass).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Samples {
    /// Of the order; nothing where samples are read as they lie.
    pub seed: Option<u64>,
    /// The pass, from 0.
    pub pass: u64,
    /// The first one's place in the order of that pass.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// An open data set. Places are those of an order: `seed` and `pass` say which sample each is, as a pure function.
pub trait Reader: Send + Sync {
    /// What is known of it.
    fn facts(&self) -> &Facts;
    /// Some of the fields of the samples at some places, in that order; an array per field. Places are below the length,
    /// fields are there. The same ask gives the same bytes, on whatever machine and thread.
    ///
    /// # Errors
    /// What is wrong, where, and what to do.
    fn read(
        &self,
        seed: Option<u64>,
        pass: u64,
        places: &[Range<u64>],
        fields: &[usize],
    ) -> Result<Vec<thalweg_graph::Array>, String>;
}

/// Opens data sets. Given to sessions and workers by who knows formats of files.
pub trait Opener: Send + Sync + fmt::Debug {
    /// What `how` says of the file or folder, or, where there is none, of what the opener has itself.
    ///
    /// # Errors
    /// What is wrong, where, and what to do.
    fn open(&self, at: Option<&Below>, how: &str) -> Result<Arc<dyn Reader>, String>;
}

/// Opens what a spec says, below one of these roots.
///
/// # Errors
/// If there is no such root, the name leads out of it, or the opener cannot read what is there, or panics: whoever asked waits
/// for an answer. The error names the source.
pub fn open(spec: &SourceSpec, roots: &[Root], opener: Option<&dyn Opener>) -> Result<Arc<dyn Reader>, String> {
    let opened = || {
        let opener = opener.ok_or("this process was given nothing that reads data")?;
        let at = if spec.root.is_empty() { None } else { Some(below::resolve(spec, roots)?) };
        let reader = catch_unwind(AssertUnwindSafe(|| opener.open(at.as_ref(), &spec.how)));
        let reader = reader.map_err(|_| "internal error, please report: whoever opens it panicked")??;
        let facts = reader.facts();
        if facts.fields.len() > FIELDS {
            return Err(format!("it has {} fields: at most {FIELDS} can be fed", facts.fields.len()));
        }
        Ok(reader)
    };
    opened().map_err(|why| format!("{spec}: {why}"))
}

/// A data set that is open wherever it is read.
pub struct Opened {
    spec: SourceSpec,
    facts: Facts,
    /// Where this process reads itself.
    here: Option<(Arc<dyn Reader>, ReadAhead)>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("spec", &self.spec).field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Opened {
    /// Read elsewhere.
    pub(crate) fn elsewhere(spec: SourceSpec, facts: Facts) -> Self {
        Self { spec, facts, here: None }
    }
    /// Read by this process.
    pub(crate) fn here(spec: SourceSpec, reader: Arc<dyn Reader>) -> Result<Self, String> {
        let ahead = ReadAhead::start(&spec.to_string())?;
        Ok(Self { spec, facts: reader.facts().clone(), here: Some((reader, ahead)) })
    }
    /// What was opened.
    pub fn spec(&self) -> &SourceSpec {
        &self.spec
    }
    /// What is known of it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
    /// A step's samples, and which the next step will take, if anybody knows: a hint for reading ahead.
    ///
    /// # Panics
    /// If there are no such samples.
    pub fn batch(self: &Arc<Self>, samples: Samples, next: Option<Samples>) -> Batch {
        let inside = |s: &Samples| s.first.checked_add(s.count).is_some_and(|end| end <= self.facts.len);
        assert!(inside(&samples), "{samples:?} of {} samples", self.facts.len);
        Batch { source: self.clone(), samples, next: next.filter(inside) }
    }
    /// Some fields of a batch, with the types that their inputs have, where this process reads itself.
    pub(crate) fn read(&self, batch: &Batch, fields: &[Wish]) -> Result<Vec<thalweg_graph::Array>, String> {
        let Some((reader, ahead)) = &self.here else { return Err("it is read where the devices are".into()) };
        let whole = |samples: Samples| {
            let places = std::iter::once(0..samples.count).collect();
            Wanted::new(reader.clone(), samples, vec![(places, fields.to_vec())])
        };
        let (sender, receiver) = mpsc::channel();
        let deliver = move |read: ahead::Outcome| drop(sender.send(read));
        ahead.read(whole(batch.samples), batch.next.map(whole), Box::new(deliver));
        let read = receiver.recv().map_err(|_| "the thread that reads it is gone")?;
        // One read of all fields.
        read.map(|mut reads| reads.pop().unwrap_or_default()).map_err(|why| format!("{}: {why}", self.spec))
    }
}

/// A field, and the element type that its input has.
pub type Wish = (usize, thalweg_graph::DType);

/// What a step is fed, described: nothing of it has been read. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Batch {
    source: Arc<Opened>,
    samples: Samples,
    next: Option<Samples>,
}

impl Batch {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.samples.count as usize
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.samples.count == 0
    }
    /// Of what.
    pub fn source(&self) -> &Arc<Opened> {
        &self.source
    }
    /// Which.
    pub fn samples(&self) -> Samples {
        self.samples
    }
    /// Which come next, if it is known.
    pub fn next(&self) -> Option<Samples> {
        self.next
    }
    /// Every field by its name, among other feeds: `feeds.extend(batch.feeds())`. A whole batch is fed as it is.
    pub fn feeds(&self) -> Vec<(&str, Feed<'_>)> {
        let fields = self.source.facts.fields.iter().enumerate();
        fields.map(|(i, (name, _))| (&**name, Feed::Drawn(self, i))).collect()
    }
    /// What a field of it is, as an array would be.
    pub(crate) fn ty(&self, field: usize) -> TensorType {
        let one = &self.source.facts.fields[field].1;
        let shape: Vec<u64> = std::iter::once(self.samples.count).chain(one.shape.iter().copied()).collect();
        one.dtype.of(&shape[..])
    }
}

/// Samples that a step is begun with, and which fields of them are read.
#[derive(Clone, Debug)]
pub struct Draw {
    /// Which samples of what.
    pub batch: Batch,
    /// Numbers of fields, ascending; each is the value of the input of its name.
    pub fields: Vec<u32>,
}

impl Draw {
    /// Whether it is what the input of this name is fed.
    pub fn has(&self, input: &str) -> bool {
        let fields = &self.batch.source.facts.fields;
        self.fields.iter().any(|f| fields.get(*f as usize).is_some_and(|(name, _)| name == input))
    }
}
