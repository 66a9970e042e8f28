//! What devices were measured to do, kept in a file under the user's cache folder: measuring takes seconds and gives the
//! same every time. An entry counts for one adapter, driver and version of Thalweg; another one is measured anew.

use std::io;
use std::path::{Path, PathBuf};

pub use thalweg_gpu::{Measured, measure};

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
pub fn load(path: &Path) -> Result<Vec<Measured>, CacheError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| CacheError::Content { path: path.into(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        Err(source) => Err(CacheError::Io { path: path.into(), source }),
    }
}

/// What is known of an adapter as it is today.
pub fn find<'a>(all: &'a [Measured], adapter: &crate::gpu::Adapter) -> Option<&'a Measured> {
    let key = (adapter.name.as_str(), adapter.driver.as_str(), crate::gpu::VERSION);
    all.iter().find(|m| (m.adapter.as_str(), m.driver.as_str(), m.version.as_str()) == key)
}

/// Keeps `new` in `path`, in the place of what was known of the same adapter, driver and version. The file is replaced whole.
///
/// # Errors
/// If what is there is no file of measurements, or it cannot be written.
pub fn keep(path: &Path, new: Measured) -> Result<(), CacheError> {
    let mut all = load(path)?;
    all.retain(|m| (&m.adapter, &m.driver, &m.version) != (&new.adapter, &new.driver, &new.version));
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

    fn entry(adapter: &str, f32_flops: f64) -> Measured {
        Measured {
            adapter: adapter.into(),
            driver: "driver 1".into(),
            version: crate::gpu::VERSION.into(),
            f32_flops,
            copy_bytes: 2e9,
            launch_seconds: 3e-6,
            round_trip_seconds: 4e-5,
            upload_bytes: 5e9,
            download_bytes: 6e9,
        }
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
