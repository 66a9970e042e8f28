//! Thalweg's GPU device: plans run through wgpu, on whatever speaks Vulkan or Metal. The only crate that names wgpu.
//! Kernels are WGSL text made from the kernel IR, so that every op that is written runs here on the same day
//! (docs/decisions/0010-kernels-as-wgsl.md says why not by a compiler of kernels in Rust).
//!
//! Adapters are looked for when somebody asks, never before: asking takes a quarter of a second where many drivers are
//! installed, and a machine without any works.

mod adapter;
mod arena;
mod clock;
mod context;
mod device;
mod launch;
mod load;
mod measure;
mod part;
mod stream;
mod watch;
mod wgsl;
mod windows;

pub use adapter::{Adapter, Limits, adapters, disabled};
pub use device::GpuDevice;
pub use measure::{Measured, VERSION, measure};
pub use watch::Watch;

/// The shaders that a kernel becomes, in the order in which they run, for people to read.
///
/// # Errors
/// Why it does not run on a GPU.
pub fn shaders(kernel: &thalweg_graph::kernel::Kernel) -> Result<Vec<String>, String> {
    let faults = kernel.verify();
    if !faults.is_empty() {
        return Err(faults.join("; "));
    }
    let program = wgsl::translate(kernel, &[], wgsl::workspace_bytes(kernel)).map_err(|e| e.to_string())?;
    Ok(program.dispatches.into_iter().map(|d| d.text).collect())
}
