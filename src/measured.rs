//! What devices were measured to do, kept in a file under the user's cache folder: measuring takes seconds and gives the
//! same every time. An entry counts for one adapter and driver, or one CPU and number of threads, and for one version of
//! Thalweg; another one is measured anew.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
#[cfg(feature = "gpu")]
pub use thalweg_gpu::{Measured, measure};
use thalweg_graph::Cluster;
use thalweg_graph::cluster::DeviceKind;
use thalweg_graph::cost::Rates;

/// What a CPU was measured to do with so many threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuMeasured {
    /// The CPU, by its maker's name.
    pub cpu: String,
    /// Threads of the device.
    pub threads: usize,
    /// The version of Thalweg that measured.
    pub version: String,
    /// What it does.
    pub rates: Rates,
}

/// What is kept of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    /// A CPU.
    Cpu(CpuMeasured),
    /// An adapter.
    #[cfg(feature = "gpu")]
    Gpu(Measured),
    /// Of an adapter, in a build without GPUs: kept as it is.
    #[cfg(not(feature = "gpu"))]
    Other(Kept),
}

/// What is said of an adapter, in a build that does not know what that is.
#[cfg(not(feature = "gpu"))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    adapter: serde_json::Value,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

impl Entry {
    /// Whether both speak of the same device and version.
    fn same(&self, other: &Entry) -> bool {
        match (self, other) {
            (Entry::Cpu(a), Entry::Cpu(b)) => (&a.cpu, a.threads, &a.version) == (&b.cpu, b.threads, &b.version),
            #[cfg(feature = "gpu")]
            (Entry::Gpu(a), Entry::Gpu(b)) => {
                (&a.adapter, &a.driver, &a.version) == (&b.adapter, &b.driver, &b.version)
            }
            _ => false,
        }
    }
}

/// The version that measures.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// This machine's CPU, by its maker's name.
pub fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()));
    name.map_or_else(|| format!("{} CPU", std::env::consts::ARCH), str::to_string)
}

/// Measures this machine's CPU with so many threads, in some two seconds.
///
/// # Errors
/// If the device fails: there are no threads, or no room for the probes.
pub fn measure_cpu(threads: usize) -> crate::Result<CpuMeasured> {
    let rates = thalweg_cpu::measure(threads)?;
    Ok(CpuMeasured { cpu: cpu_name(), threads, version: VERSION.into(), rates })
}

/// What is known of this machine's CPU with so many threads.
pub fn find_cpu(all: &[Entry], threads: usize) -> Option<&CpuMeasured> {
    let cpu = cpu_name();
    all.iter().find_map(|entry| match entry {
        Entry::Cpu(m) if (&m.cpu, m.threads, &*m.version) == (&cpu, threads, VERSION) => Some(m),
        _ => None,
    })
}

/// Gives the devices of a cluster that have no rates those that were measured, where they were.
pub fn fill(cluster: &mut Cluster, all: &[Entry]) {
    for device in cluster.devices.iter_mut().filter(|d| d.rates.is_none()) {
        device.rates = match device.kind {
            DeviceKind::Cpu => find_cpu(all, device.threads).map(|m| m.rates),
            #[cfg(feature = "gpu")]
            DeviceKind::Gpu { adapter } => {
                crate::gpu::adapters().get(adapter).and_then(|a| find(all, a)).map(gpu_rates)
            }
            _ => None,
        };
    }
}

/// What an adapter's figures say of its launches. Its products reach a quarter of what its registers do, its convolutions
/// an eighth: that is our kernels' share, not the adapter's.
#[cfg(feature = "gpu")]
pub fn gpu_rates(m: &Measured) -> Rates {
    Rates {
        product_flops: m.f32_flops / 4.0,
        window_flops: m.f32_flops / 8.0,
        back_flops: m.f32_flops / 8.0,
        weight_flops: m.f32_flops / 16.0,
        epilogue_ops: m.f32_flops / 2.0,
        attention_flops: m.f32_flops / 8.0,
        packed: m.f32_flops,
        lane_ops: m.f32_flops / 2.0,
        heavy_ops: m.f32_flops / 16.0,
        folded: m.copy_bytes / 4.0,
        strided: m.copy_bytes / 16.0,
        near_bytes: m.copy_bytes,
        shared_bytes: m.copy_bytes,
        far_bytes: m.copy_bytes,
        launch_seconds: m.launch_seconds,
        hop_seconds: m.round_trip_seconds,
        hop_bytes: m.upload_bytes.min(m.download_bytes),
        feed_seconds: m.launch_seconds,
        feed_bytes: m.upload_bytes.min(m.download_bytes),
        step_seconds: m.round_trip_seconds,
        ..Rates::DEFAULT_GPU
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Neither the cache folder nor the home folder is known.
    #[error("there is no cache folder: neither XDG_CACHE_HOME nor HOME is set to an absolute path")]
    NoFolder,
    /// It cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{path} is no file of measurements ({source}); delete it, and measure anew")]
    Content {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// The user's file: `thalweg/devices.json` in the cache folder.
///
/// # Errors
/// If there is no such folder.
pub fn file() -> Result<PathBuf, CacheError> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let in_home = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
    let folder = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(in_home)));
    Ok(folder.ok_or(CacheError::NoFolder)?.join("thalweg").join("devices.json"))
}

/// Everything that is kept in `path`; nothing where there is no such file.
///
/// # Errors
/// If it cannot be read, or holds something else.
pub fn load(path: &Path) -> Result<Vec<Entry>, CacheError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| CacheError::Content { path: path.into(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        Err(source) => Err(CacheError::Io { path: path.into(), source }),
    }
}

/// What is known of an adapter as it is today.
#[cfg(feature = "gpu")]
pub fn find<'a>(all: &'a [Entry], adapter: &crate::gpu::Adapter) -> Option<&'a Measured> {
    let key = (adapter.name.as_str(), adapter.driver.as_str(), crate::gpu::VERSION);
    all.iter().find_map(|entry| match entry {
        Entry::Gpu(m) if (m.adapter.as_str(), m.driver.as_str(), m.version.as_str()) == key => Some(m),
        _ => None,
    })
}

/// Keeps `new` in `path`, in the place of what was known of the same device and version. The file is replaced whole.
///
/// # Errors
/// If what is there is no file of measurements, or it cannot be written.
pub fn keep(path: &Path, new: Entry) -> Result<(), CacheError> {
    let mut all = load(path)?;
    all.retain(|m| !m.same(&new));
    all.push(new);
    let io = |source| CacheError::Io { path: path.into(), source };
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(io)?;
    let text = serde_json::to_vec_pretty(&all).map_err(|e| io(e.into()))?;
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path)).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(cpu: &str, product_flops: f64) -> Entry {
        let rates = Rates { product_flops, ..Rates::DEFAULT };
        Entry::Cpu(CpuMeasured { cpu: cpu.into(), threads: 2, version: VERSION.into(), rates })
    }

    #[test]
    fn a_cluster_is_filled_with_what_was_measured_of_this_cpu_and_these_threads() {
        let mut cluster = Cluster::cpus(2);
        fill(&mut cluster, &[entry("another", 7.0), entry(&cpu_name(), 8.0)]);
        assert!(cluster.devices.iter().all(|d| d.rates.is_none()), "those have two threads");
        let mut cluster = Cluster::cpu(2);
        fill(&mut cluster, &[entry("another", 7.0), entry(&cpu_name(), 8.0)]);
        assert_eq!(cluster.devices[0].rates.map(|r| r.product_flops), Some(8.0));
    }

    #[test]
    fn what_is_kept_is_found_again_and_a_damaged_file_is_refused() {
        let folder = std::env::temp_dir().join(format!("thalweg-measured-{}", std::process::id()));
        let path = folder.join("deep").join("devices.json");
        assert_eq!(load(&path).expect("nothing yet"), []);
        keep(&path, entry("a", 1.0)).expect("it is kept");
        keep(&path, entry("b", 2.0)).expect("it is kept");
        keep(&path, entry("a", 3.0)).expect("it is replaced");
        assert_eq!(load(&path).expect("they are there"), [entry("b", 2.0), entry("a", 3.0)]);

        std::fs::write(&path, "[{}]").expect("it is ours");
        let error = keep(&path, entry("c", 1.0)).expect_err("no such file").to_string();
        assert!(error.contains("devices.json") && error.contains("delete it"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "[{}]", "left as it was");
        std::fs::remove_dir_all(&folder).expect("it was made");
    }
}
