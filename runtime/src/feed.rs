//! What callers hand in, checked against what a program expects, before anything is touched: names, element types,
//! extents, and the values of named dimensions that follow from them.

use std::borrow::Cow;
use std::sync::Arc;

use thalweg_graph::diagnostic::nearest;
use thalweg_graph::ir::{Graph, Program};
use thalweg_graph::{Array, Bindings, DType, Dim, TensorType};

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
}

/// Inputs of a program with their types, in order of declaration.
pub type Inputs = Vec<(Arc<str>, TensorType)>;

/// What `program` expects.
pub fn inputs_of(graph: &Graph, program: &Program) -> Inputs {
    graph.inputs_of(program).into_iter().map(|(_, i)| (i.name.clone(), i.ty.clone())).collect()
}

/// Checks what was fed; gives it in the order of `inputs`, narrowed where needed, and the named dimensions' values.
/// Feeding more than a program needs is an error unless another program of the graph needs it.
pub fn check<'a>(
    graph: &Graph,
    program: &Arc<str>,
    inputs: &Inputs,
    known: &dyn Fn(&str) -> bool,
    feeds: &[(&str, &'a Array)],
) -> Result<(Vec<Cow<'a, Array>>, Bindings), FeedError> {
    let expected = || inputs.iter().map(|(n, t)| format!("`{n}`: {t}")).collect::<Vec<_>>().join(", ");
    for (name, _) in feeds {
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
        let Some((_, array)) = feeds.iter().find(|(n, _)| *n == &**name) else {
            missing.push(format!("`{name}`: {want}"));
            continue;
        };
        bind(graph, name, want, array, &mut bindings)?;
        arrays.push(narrow(name, want, array)?);
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
    array: &Array,
    bindings: &mut Bindings,
) -> Result<(), FeedError> {
    let mismatch =
        |because: String| FeedError::Type { name: name.clone(), want: want.clone(), got: array.ty(), because };
    if array.shape().len() != want.rank() {
        return Err(mismatch(format!(": {} axes, not {}", array.shape().len(), want.rank())));
    }
    for (axis, (dim, got)) in want.shape.iter().zip(array.shape()).enumerate() {
        // A dimension by itself gets its value here; in an expression it must have one.
        if let Some(single) = dim.names().first().filter(|n| *dim == Dim::named((*n).clone())) {
            let (low, high) = graph.dims.get(single).copied().unwrap_or((0, u64::MAX));
            let before = bindings.insert(single.clone(), *got);
            let problem = match before {
                Some(other) if other != *got => format!("is {other} for one input and {got} for `{name}`"),
                _ if !(low..=high).contains(got) => format!("is {got} in `{name}`, but was declared as {low}..={high}"),
                _ => continue,
            };
            return Err(FeedError::Dimension { dim: single.clone(), problem });
        }
        if dim.bind(bindings).and_then(|d| d.fixed()) != Some(*got) {
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

fn narrow<'a>(name: &Arc<str>, want: &TensorType, array: &'a Array) -> Result<Cow<'a, Array>, FeedError> {
    if array.dtype() == want.dtype {
        if let Some((index, value)) = no_truth_value(array) {
            return Err(FeedError::Range { name: name.clone(), dtype: want.dtype, index, value });
        }
        return Ok(Cow::Borrowed(array));
    }
    if (array.dtype(), want.dtype) == (DType::I64, DType::I32) {
        let mut out = Array::zeros(DType::I32, array.shape());
        for (index, (to, value)) in out.as_mut_slice::<i32>().iter_mut().zip(array.as_slice::<i64>()).enumerate() {
            let dtype = want.dtype;
            *to = i32::try_from(*value).map_err(|_| FeedError::Range {
                name: name.clone(),
                dtype,
                index,
                value: *value,
            })?;
        }
        return Ok(Cow::Owned(out));
    }
    let because = format!(": convert it to {}", want.dtype);
    Err(FeedError::Type { name: name.clone(), want: want.clone(), got: array.ty(), because })
}
