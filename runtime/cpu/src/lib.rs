//! Thalweg's CPU device: kernels on threads.
//!
//! This crate sees kernels and never ops. A kernel is compiled once into a [`CompiledKernel`]: contractions become
//! matrix products over packed blocks, every other nest becomes a program for a virtual machine whose registers are
//! tiles of lanes. What is computed, bit for bit, depends on the kernel alone and never on the number of threads.

mod access;
mod ahead;
mod attention;
mod contract;
mod device;
mod domain;
mod finite;
mod fold;
mod group;
mod isa;
mod kernel;
mod kind;
mod lanes;
mod measure;
mod nest;
mod panels;
mod pool;
mod program;
mod scatter;
mod scratch;
mod sequence;
mod tile;

pub use device::CpuDevice;
pub use kernel::{CompileError, CompiledKernel};
pub use measure::measure;
