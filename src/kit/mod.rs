//! The benchmark kit: the work that Thalweg and its peers are compared on, as exactly as numbers can say it. A specification
//! fixes every weight, batch and result; [`Case`] is one row of it, compiled. What is measured here is what is tested.

pub mod allreduce;
mod case;
pub mod generator;
mod gpt;
mod models;
mod options;
mod resident;

pub use case::{Case, NAMES, Reference, has_servers, is_case_of_workers, reference_name, rel_err};
pub use options::Options;
