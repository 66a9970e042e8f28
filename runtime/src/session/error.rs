//! Why a session did not do what it was asked. Split by whose fault it is: what was fed or named, the model, the device, us.

use thalweg_graph::Bindings;
use thalweg_graph::evaluate::EvaluateError;
use thalweg_graph::lower::LowerError;
use thalweg_graph::summary::SummaryError;

use super::NotFinite;
use crate::device::DeviceError;
use crate::feed::FeedError;

/// Why a program did not run. State is what it was before the step.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RunError {
    /// What was fed does not fit.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// No program of that name.
    #[error("there is no program `{name}`; {hint}")]
    NoProgram {
        /// What was asked for.
        name: String,
        /// What there is.
        hint: String,
    },
    /// No variable of that name.
    #[error("there is no variable `{name}`; {hint}")]
    NoVariable {
        /// What was asked for.
        name: String,
        /// What there is.
        hint: String,
    },
    /// A value for a variable has another type.
    #[error("variable `{name}` is {want}, not {got}")]
    Variable {
        /// Which.
        name: String,
        /// Its type.
        want: String,
        /// What was given.
        got: String,
    },
    /// A value for a variable of truth values holds something else.
    #[error("variable `{name}` is bool: element {index} is {value}, which is neither 0 nor 1")]
    NoTruthValue {
        /// Which variable.
        name: String,
        /// Which element.
        index: usize,
        /// What it is.
        value: i64,
    },
    /// The program cannot be planned for these extents.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// No tensor of that name, or not of this graph.
    #[error("{0}")]
    NoTensor(String),
    /// A value was infinite or NaN that was to be finite. State is as it was before the step.
    #[error(transparent)]
    NotFinite(Box<NotFinite>),
    /// There is no summary.
    #[error(transparent)]
    Summary(#[from] SummaryError),
    /// The interpreter cannot compute it.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// Extents that make some other extent negative or too large.
    #[error("with {0:?} some extent is negative or too large")]
    Bindings(Bindings),
    /// The plan is not sound. This is a fault of ours: please report it.
    #[error("internal error, please report: the plan is not sound: {}", .0.join("; "))]
    Unsound(Vec<String>),
    /// Devices were lost, and what was on them cannot be made again.
    #[error("what was lost cannot be done again: {0}")]
    Lost(String),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
}
