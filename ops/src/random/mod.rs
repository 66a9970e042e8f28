//! Randomness as a pure function: a stream's key, an element's place, a step. No state, so that a step that is repeated,
//! moved to another device or cut in two draws the same numbers.

pub mod dropout;
pub mod uniform;
