//! What wgpu finds on this machine, in an order that does not change: discrete cards, then the others, software last.
//! Looked for once, when first asked.

use std::sync::OnceLock;

use wgpu::{AdapterInfo, Backends, DeviceType, Features};

/// An adapter: hardware, or software in the place of it, that devices can be opened on.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Its number, from 0: `gpu:0`.
    pub index: usize,
    /// What its maker calls it.
    pub name: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: &'static str,
    /// `vulkan`, `metal`.
    pub backend: String,
    /// The driver and its version.
    pub driver: String,
    /// The largest buffer, in bytes: an arena is one.
    pub max_buffer_bytes: u64,
    /// The largest part of a buffer that one binding shows a kernel, in bytes: a larger tensor is seen through several.
    pub max_binding_bytes: u64,
    /// Memory that threads of a workgroup share, in bytes.
    pub workgroup_bytes: u32,
    /// Of what the hardware has: what is used.
    pub enabled: Vec<String>,
    /// Of what it has or lacks: what is not used, and why.
    pub disabled: Vec<(String, String)>,
}

/// Limits below an adapter's own, as a smaller one has them; none: its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// The largest buffer, in bytes.
    pub buffer_bytes: Option<u64>,
    /// The largest part of a buffer that one binding shows, in bytes, a multiple of 256.
    pub binding_bytes: Option<u64>,
    /// The most bindings of storage that a kernel has.
    pub bindings: Option<u32>,
    /// The most workgroups along one dimension of a dispatch.
    pub groups: Option<u32>,
    /// The most threads of a workgroup.
    pub threads: Option<u32>,
    /// Launches are timed from the host, as where an adapter has no timestamps.
    pub no_timestamps: bool,
}

impl Limits {
    /// Lowers what is above them.
    pub(crate) fn apply(&self, limits: &mut wgpu::Limits) {
        if let Some(bytes) = self.buffer_bytes {
            limits.max_buffer_size = limits.max_buffer_size.min(bytes);
            limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(bytes);
        }
        if let Some(bytes) = self.binding_bytes {
            limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(bytes);
        }
        if let Some(bindings) = self.bindings {
            limits.max_storage_buffers_per_shader_stage = limits.max_storage_buffers_per_shader_stage.min(bindings);
        }
        if let Some(groups) = self.groups {
            limits.max_compute_workgroups_per_dimension = limits.max_compute_workgroups_per_dimension.min(groups);
        }
        if let Some(threads) = self.threads {
            limits.max_compute_invocations_per_workgroup = limits.max_compute_invocations_per_workgroup.min(threads);
        }
    }
}

/// What was found, with what opens it.
pub(crate) struct Known {
    pub(crate) adapter: wgpu::Adapter,
    pub(crate) described: Adapter,
}

/// Every adapter of this machine, by number.
pub fn adapters() -> Vec<Adapter> {
    known().iter().map(|k| k.described.clone()).collect()
}

/// What this build cannot use at all, and why.
pub fn disabled() -> Vec<(&'static str, &'static str)> {
    vec![
        ("tensors of f64", "GPU kernels compute in f32: models in f64 run on the CPU"),
        (
            "SPIR-V, cooperative matrices, bf16 arithmetic",
            "kernels are WGSL; f16 and bf16 are stored, and computed in f32",
        ),
        ("OpenGL, DirectX 12", "not built in: Vulkan and Metal are"),
    ]
}

pub(crate) fn known() -> &'static [Known] {
    static ALL: OnceLock<Vec<Known>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut wanted = wgpu::InstanceDescriptor::new_without_display_handle();
        wanted.backends = Backends::VULKAN | Backends::METAL;
        wanted.flags = wgpu::InstanceFlags::empty();
        let instance = wgpu::Instance::new(wanted);
        let mut found = pollster::block_on(instance.enumerate_adapters(Backends::VULKAN | Backends::METAL));
        found.sort_by_key(|a| rank(a.get_info().device_type));
        let each = found.into_iter().enumerate();
        each.map(|(index, adapter)| Known { described: describe(index, &adapter), adapter }).collect()
    })
}

fn rank(kind: DeviceType) -> usize {
    [DeviceType::DiscreteGpu, DeviceType::IntegratedGpu, DeviceType::VirtualGpu, DeviceType::Other, DeviceType::Cpu]
        .iter()
        .position(|k| *k == kind)
        .unwrap_or(usize::MAX)
}

fn describe(index: usize, adapter: &wgpu::Adapter) -> Adapter {
    let AdapterInfo { name, device_type, driver, driver_info, backend, .. } = adapter.get_info();
    let kind = match device_type {
        DeviceType::DiscreteGpu => "discrete",
        DeviceType::IntegratedGpu => "integrated",
        DeviceType::VirtualGpu => "virtual",
        DeviceType::Cpu => "software",
        DeviceType::Other => "other",
    };
    let wgpu::Limits { max_buffer_size, max_compute_workgroup_storage_size, .. } = adapter.limits();
    let has = adapter.features();
    let not_used = [
        (Features::SHADER_F64, "f64", "single numbers are sums of two f32, the same on every adapter"),
        (Features::SHADER_INT64, "i64", "64-bit integers are pairs of words, the same on every adapter"),
        (Features::SHADER_F16, "f16 arithmetic", "f16 is stored, and computed in f32"),
        (Features::SUBGROUP, "subgroups", "no kernel uses them yet"),
        (Features::PIPELINE_CACHE, "pipeline cache", "pipelines are kept for as long as the process lives"),
    ];
    let say = |(feature, name, why): &(Features, &str, &str)| {
        let why = if has.contains(*feature) { why } else { "the adapter does not have it" };
        (name.to_string(), why.to_string())
    };
    let mut enabled = vec!["compute in WGSL".to_string()];
    let mut disabled: Vec<_> = not_used.iter().map(say).collect();
    match has.contains(Features::TIMESTAMP_QUERY) {
        true => enabled.push("timestamps (launches are timed by its own clock)".into()),
        false => {
            let why = "the adapter does not have them: launches are timed from the host, one at a time";
            disabled.push(("timestamps".into(), why.into()));
        }
    }
    Adapter {
        index,
        name,
        kind,
        backend: backend.to_string(),
        driver: format!("{driver} {driver_info}").trim().to_string(),
        max_buffer_bytes: max_buffer_size,
        max_binding_bytes: binding_bytes(&adapter.limits()),
        workgroup_bytes: max_compute_workgroup_storage_size,
        enabled,
        disabled,
    }
}

/// The largest part of a buffer that a kernel sees through one binding: places in it are counted in 31 bits.
pub(crate) fn binding_bytes(limits: &wgpu::Limits) -> u64 {
    let most = limits.max_storage_buffer_binding_size.min((1 << 31) - 256);
    most / 256 * 256
}
