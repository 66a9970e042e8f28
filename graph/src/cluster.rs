//! Machines as data: hosts and their devices, how fast they are and what joins them. What a plan is made for; written down
//! in a file or asked of this machine. Rates are optional: a cluster without them runs as well, and is predicted worse.
//!
//! ```toml
//! [[devices]]
//! name = "cpu:0"
//! kind = "cpu"
//!
//! [[devices]]
//! name = "gpu:0"
//! kind = { gpu = { adapter = 0 } }
//!
//! [[links]]
//! from = "cpu:0"
//! to = "gpu:0"
//! latency_seconds = 4e-5
//! bytes_per_second = 6e9
//! ```

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cost::Rates;

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

/// A device of this machine as people name it: `cpu`, `cpu:1`, `gpu` or `gpu:1`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceName {
    /// Cores of the CPU: the i-th such device.
    Cpu(usize),
    /// An adapter, from 0.
    Gpu(usize),
}

impl DeviceName {
    /// The device: a CPU of one thread, or the adapter.
    pub fn spec(self) -> DeviceSpec {
        match self {
            DeviceName::Cpu(i) => DeviceSpec::new(format!("cpu:{i}"), DeviceKind::Cpu, 1),
            DeviceName::Gpu(adapter) => DeviceSpec::new(format!("gpu:{adapter}"), DeviceKind::Gpu { adapter }, 1),
        }
    }
}

impl FromStr for DeviceName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, number) = text.split_once(':').unwrap_or((text, "0"));
        match (kind, number.parse()) {
            ("cpu", Ok(i)) => Ok(DeviceName::Cpu(i)),
            ("gpu", Ok(i)) => Ok(DeviceName::Gpu(i)),
            _ => Err(format!("`{text}` is no device: `cpu`, `gpu` or `gpu:1`; `thalweg devices` lists them")),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Cpu(0) => f.write_str("cpu"),
            DeviceName::Cpu(i) => write!(f, "cpu:{i}"),
            DeviceName::Gpu(adapter) => write!(f, "gpu:{adapter}"),
        }
    }
}

/// One device.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceSpec {
    /// Its name on its host: `cpu:0`.
    pub name: Arc<str>,
    /// What it is.
    pub kind: DeviceKind,
    /// Threads of this machine that it may use; one, where a file says nothing.
    #[serde(default = "one")]
    pub threads: usize,
    /// Bytes of memory that it may use; none said: as much as there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// How fast it is, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
}

fn one() -> usize {
    1
}

impl DeviceSpec {
    /// A device of which nothing more is known.
    pub fn new(name: impl Into<Arc<str>>, kind: DeviceKind, threads: usize) -> Self {
        Self { name: name.into(), kind, threads, memory_bytes: None, rates: None }
    }
    /// How fast it is, or what stands in for that.
    pub fn rates(&self) -> Rates {
        let default = match self.kind {
            DeviceKind::Gpu { .. } => Rates::DEFAULT_GPU,
            DeviceKind::Cpu | DeviceKind::Reference => Rates::DEFAULT,
        };
        self.rates.unwrap_or(default)
    }
}

/// What joins two devices, both ways.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The name of one device.
    pub from: Arc<str>,
    /// The name of the other.
    pub to: Arc<str>,
    /// How long a value of a few bytes is on its way.
    pub latency_seconds: f64,
    /// How many bytes of a large one arrive in a second.
    pub bytes_per_second: f64,
}

/// The devices there are.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The devices, all of one host for now.
    pub devices: Vec<DeviceSpec>,
    /// What is known of the ways between them. Devices that no link names are neighbours in one process, as fast as their
    /// [`Rates`] say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
}

/// Why a text is no cluster.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClusterError {
    /// It is not TOML, or says other things than a cluster has.
    #[error("this is no cluster: {0}")]
    Text(String),
    /// Two devices have one name.
    #[error("two devices are called `{0}`: give each a name of its own")]
    Twice(Arc<str>),
    /// A link joins what is not there.
    #[error("a link speaks of a device `{name}`; there are {}", known.join(", "))]
    NoDevice {
        /// What it says.
        name: Arc<str>,
        /// What there is.
        known: Vec<String>,
    },
    /// A number makes no sense.
    #[error("{whose}: `{what}` has to be a positive number")]
    Number {
        /// A device or a link.
        whose: String,
        /// Which number.
        what: &'static str,
    },
}

impl Cluster {
    /// These devices, neighbours in one process.
    pub fn of(devices: Vec<DeviceSpec>) -> Self {
        Self { devices, links: vec![] }
    }
    /// A cluster as a file describes it: see the head of this module.
    ///
    /// # Errors
    /// If it is no TOML, has keys that mean nothing, or numbers, names and links that do not fit.
    pub fn from_toml(text: &str) -> Result<Self, ClusterError> {
        let cluster: Self = toml::from_str(text).map_err(|e| ClusterError::Text(e.to_string()))?;
        cluster.checked()
    }
    /// The text that [`Cluster::from_toml`] reads.
    ///
    /// # Errors
    /// If a number is larger than TOML's.
    pub fn to_toml(&self) -> Result<String, ClusterError> {
        toml::to_string(self).map_err(|e| ClusterError::Text(e.to_string()))
    }
    fn checked(self) -> Result<Self, ClusterError> {
        for (i, device) in self.devices.iter().enumerate() {
            if self.devices[..i].iter().any(|d| d.name == device.name) {
                return Err(ClusterError::Twice(device.name.clone()));
            }
            let wrong = device.rates.and_then(|r| r.wrong()).or((device.threads == 0).then_some("threads"));
            if let Some(what) = wrong {
                return Err(ClusterError::Number { whose: device.name.to_string(), what });
            }
        }
        for link in &self.links {
            for name in [&link.from, &link.to] {
                if !self.devices.iter().any(|d| d.name == *name) {
                    let known = self.devices.iter().map(|d| format!("`{}`", d.name)).collect();
                    return Err(ClusterError::NoDevice { name: name.clone(), known });
                }
            }
            let numbers = [("latency_seconds", link.latency_seconds), ("bytes_per_second", link.bytes_per_second)];
            if let Some((what, _)) = numbers.into_iter().find(|(_, x)| !(x.is_finite() && *x > 0.0)) {
                return Err(ClusterError::Number { whose: format!("the link {} – {}", link.from, link.to), what });
            }
        }
        Ok(self)
    }
    /// Seconds that a value of a few bytes takes from one device to another, by their places, and how many bytes of a large one
    /// arrive in a second: as a link says, or as neighbours in one process have it.
    pub fn way(&self, from: u16, to: u16) -> (f64, f64) {
        let [a, b] = [from, to].map(|d| self.devices.get(usize::from(d)));
        let joins = |l: &&Link, a: &DeviceSpec, b: &DeviceSpec| {
            (&l.from, &l.to) == (&a.name, &b.name) || (&l.from, &l.to) == (&b.name, &a.name)
        };
        if let (Some(a), Some(b)) = (a, b)
            && let Some(link) = self.links.iter().find(|l| joins(l, a, b))
        {
            return (link.latency_seconds, link.bytes_per_second);
        }
        let [a, b] = [a, b].map(|d| d.map_or(Rates::DEFAULT, DeviceSpec::rates));
        (a.hop_seconds.max(b.hop_seconds), a.hop_bytes.min(b.hop_bytes))
    }
    /// This machine: one CPU device with all cores that this process may use.
    pub fn local() -> Self {
        Self::cpu(std::thread::available_parallelism().map_or(1, |n| n.get()))
    }
    /// One CPU device with this many threads.
    pub fn cpu(threads: usize) -> Self {
        Self::of(vec![DeviceSpec::new("cpu:0", DeviceKind::Cpu, threads.max(1))])
    }
    /// So many CPU devices of one thread each: `cpu:0`, `cpu:1`, …
    pub fn cpus(count: usize) -> Self {
        Self::of((0..count).map(|i| DeviceName::Cpu(i).spec()).collect())
    }
    /// One adapter of this machine: `gpu:0` is the first that `thalweg devices` lists.
    pub fn gpu(adapter: usize) -> Self {
        Self::of(vec![DeviceName::Gpu(adapter).spec()])
    }
    /// The interpreter, for checking what a device computes.
    pub fn reference() -> Self {
        Self::of(vec![DeviceSpec::new("reference:0", DeviceKind::Reference, 1)])
    }
}
