//! What callers hand in, checked against what a program expects, before anything is touched: names, element types,
//! extents, and the values of named dimensions that follow from them.

use std::borrow::Cow;
use std::sync::Arc;

use thalweg_graph::diagnostic::nearest;
use thalweg_graph::ir::{Graph, Program};
use thalweg_graph::{Array, Bindings, DType, Dim, TensorType};

use crate::source::Batch;

/// What an input is fed.
#[derive(Clone, Copy, Debug)]
pub enum Feed<'a> {
    /// An array.
    Array(&'a Array),
    /// A field of samples that are read where the devices are.
    Drawn(&'a Batch, usize),
}

impl<'a> From<&'a Array> for Feed<'a> {
    fn from(array: &'a Array) -> Self {
        Feed::Array(array)
    }
}

/// What a step is fed, by the names of inputs: arrays, a [`Batch`], or some of each.
#[derive(Clone, Copy, Debug)]
pub enum Feeds<'a> {
    /// Arrays only.
    Arrays(&'a [(&'a str, &'a Array)]),
    /// Of either kind.
    Mixed(&'a [(&'a str, Feed<'a>)]),
    /// All fields of a batch.
    Batch(&'a Batch),
}

impl<'a> Feeds<'a> {
    fn all(self) -> Vec<(&'a str, Feed<'a>)> {
        match self {
            Feeds::Arrays(all) => all.iter().map(|(name, array)| (*name, Feed::Array(array))).collect(),
            Feeds::Mixed(all) => all.to_vec(),
            Feeds::Batch(batch) => batch.feeds(),
        }
    }
}

impl<'a> From<&'a [(&'a str, &'a Array)]> for Feeds<'a> {
    fn from(feeds: &'a [(&'a str, &'a Array)]) -> Self {
        Feeds::Arrays(feeds)
    }
}
impl<'a, const N: usize> From<&'a [(&'a str, &'a Array); N]> for Feeds<'a> {
    fn from(feeds: &'a [(&'a str, &'a Array); N]) -> Self {
        Feeds::Arrays(feeds)
    }
}
impl<'a> From<&'a Vec<(&'a str, &'a Array)>> for Feeds<'a> {
    fn from(feeds: &'a Vec<(&'a str, &'a Array)>) -> Self {
        Feeds::Arrays(feeds)
    }
}
impl<'a> From<&'a [(&'a str, Feed<'a>)]> for Feeds<'a> {
    fn from(feeds: &'a [(&'a str, Feed<'a>)]) -> Self {
        Feeds::Mixed(feeds)
    }
}
impl<'a> From<&'a Vec<(&'a str, Feed<'a>)>> for Feeds<'a> {
    fn from(feeds: &'a Vec<(&'a str, Feed<'a>)>) -> Self {
        Feeds::Mixed(feeds)
    }
}
impl<'a> From<&'a Batch> for Feeds<'a> {
    fn from(batch: &'a Batch) -> Self {
        Feeds::Batch(batch)
    }
}

/// What an input is fed, checked.
#[derive(Clone, Debug)]
pub(crate) enum Fed<'a> {
    Array(Cow<'a, Array>),
    Drawn(Cow<'a, Batch>, usize),
}

impl Fed<'_> {
    /// To be kept.
    pub(crate) fn into_owned(self) -> Fed<'static> {
        match self {
            Fed::Array(array) => Fed::Array(Cow::Owned(array.into_owned())),
            Fed::Drawn(batch, field) => Fed::Drawn(Cow::Owned(batch.into_owned()), field),
        }
    }
    /// The same again.
    pub(crate) fn borrowed(&self) -> Feed<'_> {
        match self {
            Fed::Array(array) => Feed::Array(array),
            Fed::Drawn(batch, field) => Feed::Drawn(batch, *field),
        }
    }
}

/// What is wrong with the values that were fed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FeedError {
    /// No input of that name.
    #[error("program `{program}` has no input `{name}`{}; it expects {expected}", near.as_ref().map_or(String::new(), |n| format!(": did you mean `{n}`?")))]
    Unknown {
        /// The program.
        program: Arc<str>,
        /// What was fed.
        name: String,
        /// The nearest name there is.
        near: Option<String>,
        /// All inputs with their types.
        expected: String,
    },
    /// An input was not fed.
    #[error("program `{program}` also needs {}; it expects {expected}", missing.join(", "))]
    Missing {
        /// The program.
        program: Arc<str>,
        /// What is missing.
        missing: Vec<String>,
        /// All inputs with their types.
        expected: String,
    },
    /// An array of another type.
    #[error("input `{name}` is {want}, but {got} was fed{because}")]
    Type {
        /// The input.
        name: Arc<str>,
        /// Its type.
        want: TensorType,
        /// The type fed.
        got: TensorType,
        /// What does not fit.
        because: String,
    },
    /// A named dimension got two values, or one out of bounds.
    #[error("dimension `{dim}` {problem}")]
    Dimension {
        /// Which.
        dim: Arc<str>,
        /// What is wrong.
        problem: String,
    },
    /// An integer that does not fit the input's narrower type.
    #[error("input `{name}` is {dtype}: element {index} is {value}, which does not fit")]
    Range {
        /// The input.
        name: Arc<str>,
        /// Its type.
        dtype: DType,
        /// Which element.
        index: usize,
        /// Its value.
        value: i64,
    },
    /// Samples that could not be read.
    #[error("{0}")]
    Source(String),
}

impl FeedError {
    /// The same with something more to say of what does not fit.
    fn with(mut self, more: &str) -> Self {
        if let Self::Type { because: text, .. } | Self::Dimension { problem: text, .. } = &mut self {
            text.push_str(more);
        }
        self
    }
}

/// Inputs of a program with their types, in order of declaration.
pub type Inputs = Vec<(Arc<str>, TensorType)>;

/// What `program` expects.
pub fn inputs_of(graph: &Graph, program: &Program) -> Inputs {
    graph.inputs_of(program).into_iter().map(|(_, i)| (i.name.clone(), i.ty.clone())).collect()
}

/// Checks what was fed; gives it in the order of `inputs`, narrowed where needed, and the named dimensions' values.
/// Feeding more than a program needs is an error unless another program of the graph needs it.
pub(crate) fn check<'a>(
    graph: &Graph,
    program: &Arc<str>,
    inputs: &Inputs,
    known: &dyn Fn(&str) -> bool,
    feeds: Feeds<'a>,
) -> Result<(Vec<Fed<'a>>, Bindings), FeedError> {
    let feeds = feeds.all();
    let expected = || inputs.iter().map(|(n, t)| format!("`{n}`: {t}")).collect::<Vec<_>>().join(", ");
    for (name, _) in &feeds {
        if !inputs.iter().any(|(n, _)| &**n == *name) && !known(name) {
            let near = nearest(name, inputs.iter().map(|(n, _)| &**n)).map(str::to_string);
            return Err(FeedError::Unknown {
                program: program.clone(),
                name: name.to_string(),
                near,
                expected: expected(),
            });
        }
    }
    let mut bindings = Bindings::new();
    let mut arrays = Vec::with_capacity(inputs.len());
    let mut missing = Vec::new();
    for (name, want) in inputs {
        let Some((_, feed)) = feeds.iter().find(|(n, _)| *n == &**name) else {
            missing.push(format!("`{name}`: {want}"));
            continue;
        };
        let got = match feed {
            Feed::Array(array) => array.ty(),
            Feed::Drawn(batch, field) => batch.ty(*field),
        };
        let dtype = got.dtype;
        let fits = bind(graph, name, want, &got, &mut bindings).and_then(|()| {
            let because = format!(": convert it to {}", want.dtype);
            let error = || FeedError::Type { name: name.clone(), want: want.clone(), got, because };
            becomes(dtype, want.dtype).then_some(()).ok_or_else(error)
        });
        fits.map_err(|error| match feed {
            Feed::Array(_) => error,
            Feed::Drawn(batch, _) => error.with(&format!("; it is read from {}", batch.source().spec())),
        })?;
        arrays.push(match feed {
            Feed::Array(array) => Fed::Array(narrow(name, want.dtype, array)?),
            Feed::Drawn(batch, field) => Fed::Drawn(Cow::Borrowed(batch), *field),
        });
    }
    if !missing.is_empty() {
        return Err(FeedError::Missing { program: program.clone(), missing, expected: expected() });
    }
    Ok((arrays, bindings))
}

fn bind(
    graph: &Graph,
    name: &Arc<str>,
    want: &TensorType,
    got: &TensorType,
    bindings: &mut Bindings,
) -> Result<(), FeedError> {
    let mismatch =
        |because: String| FeedError::Type { name: name.clone(), want: want.clone(), got: got.clone(), because };
    if got.rank() != want.rank() {
        return Err(mismatch(format!(": {} axes, not {}", got.rank(), want.rank())));
    }
    for (axis, (dim, got)) in want.shape.iter().zip(got.shape.fixed().unwrap_or_default()).enumerate() {
        // A dimension by itself gets its value here; in an expression it must have one.
        if let Some(single) = dim.names().first().filter(|n| *dim == Dim::named((*n).clone())) {
            let (low, high) = graph.dims.get(single).copied().unwrap_or((0, u64::MAX));
            let before = bindings.insert(single.clone(), got);
            let problem = match before {
                Some(other) if other != got => format!("is {other} for one input and {got} for `{name}`"),
                _ if !(low..=high).contains(&got) => {
                    format!("is {got} in `{name}`, but was declared as {low}..={high}")
                }
                _ => continue,
            };
            return Err(FeedError::Dimension { dim: single.clone(), problem });
        }
        if dim.bind(bindings).and_then(|d| d.fixed()) != Some(got) {
            return Err(mismatch(format!(": axis {axis} is {dim}, not {got}")));
        }
    }
    Ok(())
}

/// The first element of an array of truth values that is none. Kernels rely on it: a truth value is 0 or 1.
pub(crate) fn no_truth_value(array: &Array) -> Option<(usize, i64)> {
    let bytes = if array.dtype() == DType::Bool { array.bytes() } else { &[] };
    bytes.iter().enumerate().find(|(_, b)| **b > 1).map(|(i, b)| (i, i64::from(*b)))
}

/// Whether values of one type can be fed where another is declared: the other fits, or each value is asked whether it does.
fn becomes(got: DType, want: DType) -> bool {
    got == want || (got, want) == (DType::I64, DType::I32)
}

/// An array of [such](becomes) a type as an input of another has it.
fn narrow<'a>(name: &str, want: DType, array: &'a Array) -> Result<Cow<'a, Array>, FeedError> {
    let range = |index, value| FeedError::Range { name: name.into(), dtype: want, index, value };
    if array.dtype() == want {
        return match no_truth_value(array) {
            Some((index, value)) => Err(range(index, value)),
            None => Ok(Cow::Borrowed(array)),
        };
    }
    let mut out = Array::zeros(want, array.shape());
    for (index, (to, value)) in out.as_mut_slice::<i32>().iter_mut().zip(array.as_slice::<i64>()).enumerate() {
        *to = i32::try_from(*value).map_err(|_| range(index, *value))?;
    }
    Ok(Cow::Owned(out))
}

/// The same of samples that were read, whatever type they are of.
pub(crate) fn narrowed(name: &str, want: DType, array: Array) -> Result<Array, String> {
    if !becomes(array.dtype(), want) {
        return Err(format!("`{name}` is {}, and its input {want}: convert it", array.dtype()));
    }
    let other = match narrow(name, want, &array).map_err(|e| e.to_string())? {
        Cow::Borrowed(_) => None,
        Cow::Owned(other) => Some(other),
    };
    Ok(other.unwrap_or(array))
}
