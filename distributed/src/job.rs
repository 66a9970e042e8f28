//! What a launcher and its driver share: a folder that nobody else may look into. In it lie the job's key and, once the
//! driver takes connections, its address. The key passes by this file and by no other way: not by the command line, which
//! all users of a machine can read.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::{HostError, JobKey, Reach};

/// Where a driver finds its job.
pub const JOB_VARIABLE: &str = "THALWEG_JOB";
/// How many workers a driver waits for.
pub const WORLD_VARIABLE: &str = "THALWEG_WORLD";

/// A job that a launcher has begun.
#[derive(Clone, Debug)]
pub struct Job {
    folder: PathBuf,
    /// Its secret.
    pub key: JobKey,
    /// How many workers it has.
    pub world: u16,
    /// Where its driver takes connections, and how.
    pub reach: Reach,
}

impl Job {
    /// A new one, in a new folder; with a new key, if it is given none.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn create(world: u16, reach: Reach, key: Option<JobKey>) -> Result<Self, HostError> {
        let key = key.map_or_else(JobKey::random, Ok).map_err(HostError::io("cannot make a key"))?;
        let folder = std::env::temp_dir().join(format!("thalweg-{}-{:016x}", std::process::id(), key.job()));
        let failed = |what: &Path| HostError::io(format!("cannot make {}", what.display()));
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(failed(&folder))?;
        let job = Self { folder, key, world, reach };
        let path = job.key_file();
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(job.key.to_hex().as_bytes()));
        written.map_err(failed(&path))?;
        Ok(job)
    }
    /// The one whose driver this process is to be, if a launcher has said so. From here on the process ends with the launcher
    /// whose child it is.
    ///
    /// # Errors
    /// If what it said makes no sense.
    pub fn of_launcher() -> Result<Option<Self>, HostError> {
        let Some(folder) = std::env::var_os(JOB_VARIABLE).map(PathBuf::from) else { return Ok(None) };
        let world = std::env::var(WORLD_VARIABLE).unwrap_or_default();
        let world = world.parse().ok().filter(|n| *n > 0);
        let world =
            world.ok_or_else(|| HostError::Job(format!("{WORLD_VARIABLE} has to say how many workers there are")))?;
        let (key, reach) = (read_key(&folder.join("key"))?, Reach::of_launcher()?);
        crate::launch::die_with_launcher();
        Ok(Some(Self { folder, key, world, reach }))
    }
    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
    /// The file that holds its key.
    pub fn key_file(&self) -> PathBuf {
        self.folder.join("key")
    }
    fn address_file(&self) -> PathBuf {
        self.folder.join("address")
    }
    /// Says where the driver takes connections.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn publish(&self, address: SocketAddr) -> Result<(), HostError> {
        let (path, half) = (self.address_file(), self.folder.join("address.new"));
        let written = fs::write(&half, address.to_string()).and_then(|()| fs::rename(&half, &path));
        written.map_err(HostError::io(format!("cannot write {}", path.display())))
    }
    /// Where the driver takes connections, once it does.
    pub fn address(&self) -> Option<SocketAddr> {
        fs::read_to_string(self.address_file()).ok()?.trim().parse().ok()
    }
    /// Removes the folder: all who need the key have it, or will not come.
    pub fn forget(&self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A key from a file of the user's own.
///
/// # Errors
/// If there is none, others may read it, or it holds no key.
pub fn read_key(path: &Path) -> Result<JobKey, HostError> {
    let failed = || HostError::io(format!("cannot read the job's key from {}", path.display()));
    let mode = fs::metadata(path).map_err(failed())?.mode();
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(HostError::Job(format!("others may read the job's key in {path}: `chmod 600 {path}`")));
    }
    let text = fs::read_to_string(path).map_err(failed())?;
    let none = || HostError::Job(format!("{} holds no key: 64 hexadecimal digits", path.display()));
    JobKey::from_hex(&text).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_lies_where_nobody_else_can_read_it() {
        let job = Job::create(2, Reach::default(), None).expect("a folder");
        let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o777;
        assert_eq!((mode(job.folder()), mode(&job.key_file())), (0o700, 0o600));
        let read = read_key(&job.key_file()).expect("a key");
        assert_eq!(read.to_hex(), job.key.to_hex());
        fs::set_permissions(job.key_file(), fs::Permissions::from_mode(0o640)).expect("it is mine");
        let error = read_key(&job.key_file()).expect_err("others may read it").to_string();
        assert!(error.contains("chmod 600"), "{error}");
        assert_eq!(job.address(), None);
        job.publish("127.0.0.1:7".parse().expect("an address")).expect("it is written");
        assert_eq!(job.address().expect("an address").port(), 7);
        job.forget();
        assert!(!job.folder().exists());
    }
}
