//! What a launcher, its driver and its workers share: a folder that nobody else may look into. In it lie the job's key, where
//! the driver takes connections, how many workers can be expected, and the job file, by which a driver that was started anew
//! knows which term is next and what was computed. The key passes by this folder and by no other way: not by the command
//! line, which all users of a machine can read.

use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use thalweg_runtime::broken::sync;
use thalweg_runtime::checkpoint::Root;

use crate::contract::Contract;
use crate::{HostError, JobKey, Reach};

/// Where a driver finds its job.
pub const JOB_VARIABLE: &str = "THALWEG_JOB";
/// How many workers a driver waits for.
pub const WORLD_VARIABLE: &str = "THALWEG_WORLD";

const KEY: &str = "key";
const ADDRESS: &str = "address";
const REACH: &str = "reach.json";
const WORLD: &str = "world";
const FILE: &str = "job.json";
const ROOTS: &str = "roots";
const FENCED: &str = "fenced-";
const MEMBERS: &str = "members.json";

/// A job that a launcher has begun.
#[derive(Clone, Debug)]
pub struct Job {
    folder: PathBuf,
    /// Its secret.
    pub key: JobKey,
    /// How many workers it has when all are there.
    pub world: u16,
    /// Where its driver takes connections, and whether those of the job are encrypted.
    pub reach: Reach,
}

/// What a job computes; the same in all its terms.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Model {
    /// The graph's name.
    pub graph: String,
    /// The hash of its canonical bytes.
    pub hash: String,
    /// What its random numbers start from.
    pub seed: u64,
    /// By how many leaves batches are cut and sums are ordered: with as many the numbers stay the same on however many workers.
    pub leaves: u16,
    /// How it is spread, for people.
    pub strategy: String,
}

/// What a driver has to know that takes the place of another.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct JobFile {
    /// The last that was begun.
    term: u32,
    model: Option<Model>,
}

impl JobFile {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("numbers and text")
    }
    /// The first and the third term of a job.
    pub(crate) fn samples() -> [Self; 2] {
        let (graph, hash, strategy) = ("digits \"λ\"".to_string(), "5f".repeat(32), "dp".to_string());
        let model = Model { graph, hash, seed: u64::MAX, leaves: 4, strategy };
        [Self { term: 1, model: None }, Self { term: 3, model: Some(model) }]
    }
}

impl Job {
    /// A new one, in a new folder; with a new key if it is given none.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn create(world: u16, reach: Reach, key: Option<JobKey>) -> Result<Self, HostError> {
        let random: [u8; 8] = crate::auth::random().map_err(HostError::io("cannot make a name"))?;
        let name = format!("thalweg-{}-{:016x}", std::process::id(), u64::from_le_bytes(random));
        Self::create_in(std::env::temp_dir().join(name), world, reach, key)
    }
    fn create_in(folder: PathBuf, world: u16, reach: Reach, key: Option<JobKey>) -> Result<Self, HostError> {
        let key = key.map_or_else(JobKey::random, Ok).map_err(HostError::io("cannot make a key"))?;
        let failed = |what: &Path| HostError::io(format!("cannot make {}", what.display()));
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(failed(&folder))?;
        let job = Self { folder, key, world, reach };
        let path = job.folder.join(KEY);
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(job.key.to_hex().as_bytes()));
        written.map_err(failed(&path))?;
        job.replace(REACH, &serde_json::to_vec(&reach).expect("an address and a word"))?;
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
        crate::launch::die_with_launcher();
        Ok(Some(Self { world, ..Self::at(&folder)? }))
    }
    /// A new one of processes that an engine has started on this machine, in a folder that all of them can name. What a run
    /// before it has left there is removed.
    ///
    /// # Errors
    /// If the folder is somebody else's, or cannot be made.
    pub fn of_contract(contract: &Contract) -> Result<Self, HostError> {
        let folder = Self::folder_of(contract)?;
        if let Ok(found) = fs::symlink_metadata(&folder) {
            let ours = rustix::process::getuid().as_raw();
            if found.uid() != ours || !found.is_dir() {
                return Err(HostError::Job(format!("{} is in the way, and not this user's folder", folder.display())));
            }
            fs::remove_dir_all(&folder).map_err(HostError::io(format!("cannot remove {}", folder.display())))?;
        }
        Self::create_in(folder, contract.world - 1, Reach::default(), None)
    }
    /// Where such a job is.
    ///
    /// # Errors
    /// If its master is not on this machine.
    pub fn folder_of(contract: &Contract) -> Result<PathBuf, HostError> {
        let Contract { master, run, .. } = contract;
        let addresses = master.to_socket_addrs().map_err(|e| HostError::Job(format!("{master}: {e}")))?;
        if !addresses.into_iter().all(|a| a.ip().is_loopback()) {
            return Err(HostError::Job(format!("{master} is not on this machine, and jobs do not go beyond it yet")));
        }
        let name = blake3::hash(format!("{master} {run}").as_bytes()).to_hex();
        Ok(std::env::temp_dir().join(format!("thalweg-{}-{}", rustix::process::getuid().as_raw(), &name[..16])))
    }
    /// The one in this folder, for a worker: it does not know how many there are.
    ///
    /// # Errors
    /// If there is none.
    pub fn at(folder: &Path) -> Result<Self, HostError> {
        let key = read_key(&folder.join(KEY))?;
        let path = folder.join(REACH);
        let bytes = fs::read(&path).map_err(HostError::io(format!("cannot read {}", path.display())))?;
        let malformed = |e| HostError::Job(format!("{} is not what the launcher wrote: {e}", path.display()));
        Ok(Self { folder: folder.into(), key, world: 0, reach: serde_json::from_slice(&bytes).map_err(malformed)? })
    }
    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
    /// Says where the driver takes connections.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn publish(&self, address: SocketAddr) -> Result<(), HostError> {
        self.replace(ADDRESS, address.to_string().as_bytes())
    }
    /// Where the driver takes connections, once it does.
    pub fn address(&self) -> Option<SocketAddr> {
        fs::read_to_string(self.folder.join(ADDRESS)).ok()?.trim().parse().ok()
    }
    /// Says how many workers there still are, or will be again.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn expect(&self, workers: usize) -> Result<(), HostError> {
        self.replace(WORLD, workers.to_string().as_bytes())
    }
    /// How many workers can be expected.
    pub fn expected(&self) -> usize {
        let said = fs::read_to_string(self.folder.join(WORLD)).ok();
        said.and_then(|text| text.trim().parse().ok()).unwrap_or(usize::from(self.world))
    }
    /// Notes which processes are the workers of a term that begins.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn note_members(&self, processes: &[u32]) -> Result<(), HostError> {
        self.replace(MEMBERS, &serde_json::to_vec(processes).expect("numbers"))
    }
    /// The workers of the last term that was begun; nobody if that is not known.
    pub fn members(&self) -> Vec<u32> {
        let noted = fs::read(self.folder.join(MEMBERS)).ok();
        noted.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }
    /// Says that this process is not to come back as who it was: it does not answer.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn fence(&self, process: u32) -> Result<(), HostError> {
        self.replace(&format!("{FENCED}{process}"), b"")
    }
    /// Whether that was said. It is said of one process, and not of the next with the same number.
    pub fn take_fence(&self, process: u32) -> bool {
        fs::remove_file(self.folder.join(format!("{FENCED}{process}"))).is_ok()
    }
    /// Says which directories driver and workers know by the same names.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn share(&self, roots: &[Root]) -> Result<(), HostError> {
        let lines: Vec<String> = roots.iter().map(|r| format!("{}={}\n", r.name, r.path.display())).collect();
        self.replace(ROOTS, lines.concat().as_bytes())
    }
    /// Those directories.
    ///
    /// # Errors
    /// If one of them is not there.
    pub fn roots(&self) -> Result<Vec<Root>, HostError> {
        let text = fs::read_to_string(self.folder.join(ROOTS)).unwrap_or_default();
        text.lines().map(|line| Root::parse(line).map_err(HostError::Job)).collect()
    }
    /// How many terms have been begun.
    ///
    /// # Errors
    /// If the job file is not what was written.
    pub fn terms(&self) -> Result<u32, HostError> {
        Ok(self.read()?.term)
    }
    /// Begins the next term. It is on the disk when this returns: no other driver will begin it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin_term(&self) -> Result<u32, HostError> {
        let mut file = self.read()?;
        let last =
            || HostError::Job(format!("{}: there is no term after {}", self.folder.join(FILE).display(), u32::MAX));
        file.term = file.term.checked_add(1).ok_or_else(last)?;
        self.write(&file)?;
        Ok(file.term)
    }
    /// What it computes, as whoever drove it first has said; nothing if nobody has.
    ///
    /// # Errors
    /// If the job file is not what was written.
    pub fn model(&self) -> Result<Option<Model>, HostError> {
        Ok(self.read()?.model)
    }
    /// Says what it computes.
    ///
    /// # Errors
    /// If it computes something else already, or that cannot be written.
    pub fn declare(&self, model: &Model) -> Result<(), HostError> {
        let mut file = self.read()?;
        match &file.model {
            Some(before) if before == model => Ok(()),
            Some(before) => Err(HostError::Job(format!(
                "this job computes {before:?}, and a driver that was started anew wants {model:?}: the program has changed since"
            ))),
            None => {
                file.model = Some(model.clone());
                self.write(&file)
            }
        }
    }
    fn read(&self) -> Result<JobFile, HostError> {
        let path = self.folder.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(JobFile::default()),
            Err(error) => return Err(HostError::io(format!("cannot read {}", path.display()))(error)),
        };
        let malformed = |e| HostError::Job(format!("{} is no job file: {e}", path.display()));
        JobFile::from_bytes(&bytes).map_err(malformed)
    }
    fn write(&self, file: &JobFile) -> Result<(), HostError> {
        self.replace(FILE, &file.to_bytes())
    }
    /// At every instant the file is what it was, or what it will be.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), HostError> {
        let (path, half) = (self.folder.join(name), self.folder.join(format!("{name}.new-{}", std::process::id())));
        let write = || {
            let mut file = File::create(&half)?;
            file.write_all(bytes)?;
            sync(&file)?;
            fs::rename(&half, &path)?;
            sync(&File::open(&self.folder)?)
        };
        write().map_err(HostError::io(format!("cannot write {}", path.display())))
    }
    /// Removes the folder: nobody comes any more.
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

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_lies_where_nobody_else_can_read_it() {
        let job = Job::create(2, Reach::default(), None).expect("a folder");
        let key = job.folder().join(KEY);
        let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o777;
        assert_eq!((mode(job.folder()), mode(&key)), (0o700, 0o600));
        assert_eq!(Job::at(job.folder()).expect("a key").key.to_hex(), job.key.to_hex());
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("it is mine");
        let error = read_key(&key).expect_err("others may read it").to_string();
        assert!(error.contains("chmod 600"), "{error}");
        assert_eq!(job.address(), None);
        job.publish("127.0.0.1:7".parse().expect("an address")).expect("it is written");
        assert_eq!(job.address().expect("an address").port(), 7);
        job.forget();
        assert!(!job.folder().exists());
    }

    #[test]
    fn a_driver_that_was_started_anew_goes_on_with_the_next_term() {
        let job = Job::create(3, Reach::default(), None).expect("a folder");
        assert_eq!((job.terms().expect("none"), job.expected(), job.model().expect("none")), (0, 3, None));
        assert_eq!(job.begin_term().expect("room"), 1);
        let (graph, hash, strategy) = ("g".to_string(), "h".to_string(), "dp".to_string());
        let model = Model { graph, hash, seed: 7, leaves: 4, strategy };
        job.declare(&model).expect("nobody has");
        job.expect(2).expect("room");
        let again = Job { world: 3, ..Job::at(job.folder()).expect("it is there") };
        assert_eq!(again.begin_term().expect("room"), 2);
        assert!(again.members().is_empty());
        job.note_members(&[5, 6]).expect("room");
        assert_eq!(again.members(), [5, 6]);
        assert_eq!((again.expected(), again.model().expect("it is there")), (2, Some(model.clone())));
        again.declare(&model).expect("the same");
        let other = Model { seed: 8, ..model };
        assert!(again.declare(&other).expect_err("another").to_string().contains("the program has changed"));
        job.forget();
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        /// Whatever lies in the folder: it is what was written, or an error that names the file, or as if nothing lay there.
        #[test]
        fn whatever_lies_there_is_read_or_refused(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..80),
                "[{}0-9,:\"termodl ]{0,60}".prop_map(String::into_bytes),
                prop_oneof![any::<u32>(), Just(u32::MAX)].prop_map(|term| format!("{{\"term\": {term}, \"model\": null}}").into_bytes()),
            ],
        ) {
            let job = Job::create(2, Reach::default(), None).expect("a folder");
            for name in [FILE, ADDRESS, WORLD, MEMBERS] {
                fs::write(job.folder.join(name), &bytes).expect("room");
            }
            let (address, expected, members) = (job.address(), job.expected(), job.members());
            let begun = (job.terms(), job.begin_term());
            job.forget();
            prop_assert!(members.len() <= bytes.len());
            let _ = (address, expected);
            match begun {
                (Ok(term), Ok(next)) => prop_assert_eq!(Some(next), term.checked_add(1)),
                (_, Err(error)) => prop_assert!(error.to_string().contains("job.json")),
                (Err(error), Ok(_)) => prop_assert!(false, "a term after {}", error),
            }
        }
    }
}
