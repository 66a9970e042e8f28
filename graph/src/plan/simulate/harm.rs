//! What a plan did that it must not do, as it was seen: not which rule is broken, but what became of it.

use std::time::Duration;

use crate::plan::Place;

/// What kind of harm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HarmKind {
    /// It names what is not there, or hands a kernel what it cannot use: nobody could run it.
    Malformed,
    /// Somebody waits for what never comes.
    Hang,
    /// Bytes are used that hold nothing: not yet, no longer, or not whole.
    Poison,
    /// Bytes are used that hold another value than they are named for.
    Overwritten,
    /// A channel is used out of turn, or not given back.
    Protocol,
    /// A step that is given up in its body, or goes on behind it, leaves state that is no step's.
    State,
    /// Two runs that differ in timing alone end differently.
    Timing,
}

/// Harm that a simulated run came to.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{kind:?} in step {step} after {at:?}{}: {message}", seed.map_or(String::new(), |s| format!(" with seed {s}")))]
pub struct Harm {
    /// What kind.
    pub kind: HarmKind,
    /// The seed of the run; none for the one with exact costs.
    pub seed: Option<u64>,
    /// In which step, from 0.
    pub step: usize,
    /// In virtual time.
    pub at: Duration,
    /// Which instruction, if it is one.
    pub place: Option<Place>,
    /// What happened, with names.
    pub message: String,
}

/// Harm before it is known when and where.
pub(super) type Happened = (HarmKind, String);
