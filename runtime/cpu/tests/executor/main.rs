//! Steps over several devices: plans written by hand, on the interpreter and on the CPU. Results are those of one device,
//! whoever is slow, fails, panics or is stopped.

#![allow(missing_docs)]

mod faults;
mod plans;
mod sessions;
mod steps;
