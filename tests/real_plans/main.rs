//! Plans of several devices as they are made for real models and for random graphs of real ops: shown to be sound, spoilt
//! in every way, and run. One binary, since each of its parts needs the same plans.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/random.rs"]
mod random;

mod broken;
mod plans;
mod proof;
mod same_bits;
