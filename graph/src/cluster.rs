//! Machines as data: hosts and their devices. What a plan is made for; written down in a file or asked of this machine.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// Cores of a CPU.
    Cpu,
    /// A GPU, or software in the place of one.
    Gpu {
        /// Which of the machine's adapters, from 0: `thalweg devices` lists them.
        adapter: usize,
    },
    /// The kernel interpreter: slow, for checking.
    Reference,
}

/// One device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// Its name on its host: `cpu:0`.
    pub name: Arc<str>,
    /// What it is.
    pub kind: DeviceKind,
    /// Threads of this machine that it may use.
    pub threads: usize,
}

/// The devices there are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// The devices, all of one host for now.
    pub devices: Vec<DeviceSpec>,
}

impl Cluster {
    /// This machine: one CPU device with all cores that this process may use.
    pub fn local() -> Self {
        Self::cpu(std::thread::available_parallelism().map_or(1, |n| n.get()))
    }
    /// One CPU device with this many threads.
    pub fn cpu(threads: usize) -> Self {
        let device = DeviceSpec { name: "cpu:0".into(), kind: DeviceKind::Cpu, threads: threads.max(1) };
        Self { devices: vec![device] }
    }
    /// So many CPU devices of one thread each: `cpu:0`, `cpu:1`, …
    pub fn cpus(count: usize) -> Self {
        let device = |i| DeviceSpec { name: format!("cpu:{i}").into(), kind: DeviceKind::Cpu, threads: 1 };
        Self { devices: (0..count).map(device).collect() }
    }
    /// One adapter of this machine: `gpu:0` is the first that `thalweg devices` lists.
    pub fn gpu(adapter: usize) -> Self {
        let kind = DeviceKind::Gpu { adapter };
        Self { devices: vec![DeviceSpec { name: format!("gpu:{adapter}").into(), kind, threads: 1 }] }
    }
    /// The interpreter, for checking what a device computes.
    pub fn reference() -> Self {
        let device = DeviceSpec { name: "reference:0".into(), kind: DeviceKind::Reference, threads: 1 };
        Self { devices: vec![device] }
    }
}
