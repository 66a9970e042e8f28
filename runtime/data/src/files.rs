//! Which files, and how they are read, as data that can be sent: a root by its name, a name below it, a format. Whoever gets
//! it opens what it has under these names. What files may ask for is not said here: that is for who opens them.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use thalweg_graph::kernel::BufferType;
use thalweg_graph::{Array, TensorType};
use thalweg_runtime::source::{Below, Facts, Opener, Reader, SourceSpec};

use crate::csv::Csv;
use crate::dataset::Dataset;
use crate::described::Described;
use crate::error::{DataError, Result};
use crate::images::{ImageFolder, Images};
use crate::order::shuffled;
use crate::source::Source;
use crate::{idx, mnist, npy, npz};

/// A data set below a root, to be read where it is used: `Files::below("data", "train.npz")`.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    root: String,
    path: String,
    how: How,
}

/// How it is read, as it is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct How {
    format: Format,
    /// Inputs with the fields that they are fed; all fields, under their own names, where this is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    Npz,
    /// Names, and the files of a folder that hold them; no name of a file for the one that was named.
    Arrays(Vec<(String, String)>),
    Csv(Csv),
    Images(Images),
    /// Of the four files: those that begin so.
    Mnist(String),
    BuiltIn(String),
}

impl Files {
    /// The `.npz` archive of this name below a root, unless another format is said: `Files::below("data", "train.npz")`. A
    /// name has no `..` in it and no `/` in front.
    pub fn below(root: impl Into<String>, path: impl Into<String>) -> Self {
        Self { root: root.into(), path: path.into(), how: How { format: Format::Npz, inputs: vec![] } }
    }
    /// What comes with the program: `digits/train` and `digits/test`.
    pub fn built_in(name: impl Into<String>) -> Self {
        let path = name.into();
        let format = Format::BuiltIn(path.clone());
        Self { root: String::new(), path, how: How { format, inputs: vec![] } }
    }
    /// It is a table.
    pub fn csv(self, csv: Csv) -> Self {
        self.format(Format::Csv(csv))
    }
    /// It is a folder of folders of pictures: `image` and `label`. What files may ask for is the reader's to say.
    pub fn images(self, images: Images) -> Self {
        self.format(Format::Images(images))
    }
    /// It is a single array, `.npy` or else IDX, gzipped or not, which is fed as `name`.
    pub fn array(self, name: impl Into<String>) -> Self {
        self.format(Format::Arrays(vec![(name.into(), String::new())]))
    }
    /// It is a folder with a file for each array: `.arrays([("image", "x.npy"), ("label", "y.idx.gz")])`.
    pub fn arrays<N: Into<String>, F: Into<String>>(self, files: impl IntoIterator<Item = (N, F)>) -> Self {
        self.format(Format::Arrays(files.into_iter().map(|(name, file)| (name.into(), file.into())).collect()))
    }
    /// It is a folder with the files of MNIST or one of its look-alikes: the training set.
    pub fn mnist_train(self) -> Self {
        self.format(Format::Mnist("train".into()))
    }
    /// The test set of such a folder.
    pub fn mnist_test(self) -> Self {
        self.format(Format::Mnist("t10k".into()))
    }
    fn format(mut self, format: Format) -> Self {
        self.how.format = format;
        self
    }
    /// Feeds the input `name` with the field `field`. Once this was said, other fields are not read unless they are named so
    /// as well.
    pub fn input(mut self, name: impl Into<String>, field: impl Into<String>) -> Self {
        self.how.inputs.push((name.into(), field.into()));
        self
    }
    /// Batches in another order each pass, a pure function of `seed` and the pass.
    pub fn shuffle(&self, seed: u64) -> Described {
        Described::new(self.clone()).shuffle(seed)
    }
    /// Batches of `size` samples, in the order of the files.
    pub fn batch(&self, size: usize) -> Described {
        Described::new(self.clone()).batch(size)
    }
    /// What is sent to whoever opens it.
    ///
    /// # Errors
    /// A table or an array of which it was not said what they hold.
    pub fn spec(&self) -> Result<SourceSpec> {
        let ends = |suffix: &str| self.path.ends_with(suffix);
        if self.how.format == Format::Npz && !ends(".npz") {
            let what = match () {
                () if ends(".csv") || ends(".tsv") => "a table: say which columns to read, or save it as .npz",
                () if ends(".npy") || ends(".idx") || ends(".gz") => {
                    "one array: say which input it is, by naming its folder and its file as one of `arrays`"
                }
                () => "not called .npz: say how to read it: as CSV, as arrays, as images or as MNIST",
            };
            return Err(DataError::Settings(format!("`{}` is {what}", self.path)));
        }
        let how = serde_json::to_string(&self.how).map_err(|e| DataError::Settings(e.to_string()))?;
        Ok(SourceSpec { root: self.root.clone(), path: self.path.clone(), how })
    }
}

/// What comes with a program, by name; nothing if there is no such thing.
type BuiltIn = fn(&str) -> Option<Result<Dataset>>;

/// Opens [`Files`].
#[derive(Clone, Copy, Debug)]
pub struct FileOpener {
    built_in: BuiltIn,
}

impl FileOpener {
    /// That knows what comes with the program.
    pub fn new(built_in: BuiltIn) -> Self {
        Self { built_in }
    }
    fn source(&self, at: Option<&Below>, format: Format) -> Result<Arc<dyn Source>> {
        let other = |what: String| DataError::Other(what);
        if let Format::BuiltIn(name) = &format {
            let found =
                (self.built_in)(name).ok_or_else(|| other(format!("no data set `{name}` comes with this program")))?;
            return Ok(Arc::new(found?));
        }
        let at = at.ok_or_else(|| other("files need a root: none was named".into()))?;
        let may_be = |path: &Path| at.within(path).map(drop).map_err(other);
        Ok(match format {
            Format::Npz => Arc::new(Dataset::new(npz::read(at.path())?)?),
            Format::Arrays(files) => {
                let one = |(name, file): (String, String)| Ok((name, array(at, &file)?));
                Arc::new(Dataset::new(files.into_iter().map(one).collect::<Result<Vec<_>>>()?)?)
            }
            Format::Csv(csv) => Arc::new(csv.read(at.path())?),
            Format::Images(images) => Arc::new(ImageFolder::open_where(at.path(), images, &may_be)?),
            Format::Mnist(part) if part == "train" || part == "t10k" => {
                Arc::new(mnist::part(at.path(), &part, &may_be)?)
            }
            Format::Mnist(part) => return Err(other(format!("MNIST has `train` and `t10k`, and no `{part}`"))),
            Format::BuiltIn(_) => unreachable!("it was looked at above"),
        })
    }
}

/// The array of a file in a folder, or of the file that was named.
fn array(at: &Below, file: &str) -> Result<Array> {
    let path = if file.is_empty() { at.path().to_path_buf() } else { at.join(file).map_err(DataError::Other)? };
    if path.extension().is_some_and(|e| e == "npy") { npy::read(path) } else { idx::read(path) }
}

impl Opener for FileOpener {
    fn open(&self, at: Option<&Below>, how: &str) -> std::result::Result<Arc<dyn Reader>, String> {
        let how: How =
            serde_json::from_str(how).map_err(|e| format!("this version does not know how to read it: {e}"))?;
        let opened = || {
            let source = self.source(at, how.format)?;
            let source: Arc<dyn Source> =
                if how.inputs.is_empty() { source } else { Arc::new(Renamed::new(source, how.inputs)?) };
            Ok::<_, DataError>(Arc::new(Ordered::new(source)?) as _)
        };
        opened().map_err(|e| e.to_string())
    }
}

/// Some fields of a source, under other names.
struct Renamed {
    source: Arc<dyn Source>,
    /// With their numbers in the source.
    fields: Vec<(String, usize, TensorType)>,
}

impl Renamed {
    fn new(source: Arc<dyn Source>, inputs: Vec<(String, String)>) -> Result<Self> {
        let there = source.fields();
        let mut fields: Vec<(String, usize, TensorType)> = vec![];
        for (input, field) in inputs {
            let Some(at) = there.iter().position(|(name, _)| *name == field) else {
                let all = there.iter().map(|(n, _)| format!("`{n}`")).collect::<Vec<_>>().join(", ");
                return Err(DataError::Fields(format!("there is no field `{field}`; there are {all}")));
            };
            if fields.iter().any(|(name, ..)| *name == input) {
                return Err(DataError::Fields(format!("input `{input}` is fed by two fields")));
            }
            fields.push((input, at, there[at].1.clone()));
        }
        Ok(Self { source, fields })
    }
}

impl Source for Renamed {
    fn fields(&self) -> Vec<(String, TensorType)> {
        self.fields.iter().map(|(name, _, ty)| (name.clone(), ty.clone())).collect()
    }
    fn len(&self) -> usize {
        self.source.len()
    }
    fn fingerprint(&self) -> Result<[u8; 32]> {
        let mut hash = blake3::Hasher::new_derive_key("thalweg fields of a source");
        hash.update(&self.source.fingerprint()?);
        for (name, at, _) in &self.fields {
            hash.update(format!("{}:{name} {at}\n", name.len()).as_bytes());
        }
        Ok(*hash.finalize().as_bytes())
    }
    fn read(&self, rows: &[usize]) -> Result<Dataset> {
        let arrays = self.read_fields(rows, &(0..self.fields.len()).collect::<Vec<_>>())?;
        Dataset::new(self.fields.iter().map(|(name, ..)| name.clone()).zip(arrays))
    }
    fn read_fields(&self, rows: &[usize], fields: &[usize]) -> Result<Vec<Array>> {
        self.source.read_fields(rows, &fields.iter().map(|field| self.fields[*field].1).collect::<Vec<_>>())
    }
}

/// Seed and pass, and the order that they mean.
type Order = ((u64, u64), Arc<Vec<usize>>);

/// A source whose samples are asked for by their places in an order.
struct Ordered {
    source: Arc<dyn Source>,
    facts: Facts,
    /// The last two, since a batch may be read ahead beyond the end of a pass.
    orders: Mutex<Vec<Order>>,
}

impl Ordered {
    fn new(source: Arc<dyn Source>) -> Result<Self> {
        let field = |(name, ty): (String, TensorType)| match BufferType::of(&ty) {
            Some(ty) => Ok((name, ty)),
            None => Err(DataError::Fields(format!("the samples of `{name}` have no fixed size: {ty}"))),
        };
        let fields = source.fields().into_iter().map(field).collect::<Result<_>>()?;
        let facts = Facts { len: source.len() as u64, fingerprint: source.fingerprint()?, fields };
        Ok(Self { source, facts, orders: Mutex::default() })
    }
    fn order(&self, seed: u64, pass: u64) -> Arc<Vec<usize>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = orders.iter().find(|(of, _)| *of == (seed, pass)) {
            return order.clone();
        }
        let order = Arc::new(shuffled(seed, pass, self.source.len()));
        orders.truncate(1);
        orders.insert(0, ((seed, pass), order.clone()));
        order
    }
}

impl Reader for Ordered {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn read(
        &self,
        seed: Option<u64>,
        pass: u64,
        places: &[Range<u64>],
        fields: &[usize],
    ) -> std::result::Result<Vec<Array>, String> {
        let order = seed.map(|seed| self.order(seed, pass));
        let row = |place: u64| order.as_ref().map_or(place as usize, |order| order[place as usize]);
        let rows: Vec<usize> = places.iter().cloned().flatten().map(row).collect();
        self.source.read_fields(&rows, fields).map_err(|e| e.to_string())
    }
}
