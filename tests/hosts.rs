//! Jobs of several processes as people start them: the numbers of one process; and whoever is killed, the others say so and
//! end.

// Who is left is looked up in /proc.
#![cfg(target_os = "linux")]
#![allow(missing_docs)]

#[path = "common/command.rs"]
mod command;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use command::{Folder, THALWEG, printed, said, thalweg};
use rustix::process::{Pid, Signal, kill_process};

/// The last line of a demo of 50 steps over four leaves.
#[track_caller]
fn demo(before: &[&str], after: &[&str]) -> serde_json::Value {
    let demo = ["demo", "--json", "--leaves", "4", "--steps", "50"];
    command::summary(&thalweg(&[before, &demo, after].concat()))
}

#[test]
fn several_processes_give_the_digest_of_one() {
    let one = demo(&[], &[]);
    for (strategy, worlds) in
        [("dp", &["1", "2", "3", "4"][..]), ("zero1", &["2", "3"]), ("pp", &["2", "4"]), ("ps", &["2", "3", "4"])]
    {
        for world in worlds {
            let several = demo(&["launch", "-n", world, "--", "thalweg"], &["--strategy", strategy]);
            assert_eq!(several["digest"], one["digest"], "{several}");
            assert_eq!(several["world"].to_string(), *world, "{several}");
            assert_eq!(several["test_accuracy"], one["test_accuracy"], "{several}");
            assert_eq!(several["bytes_sent"].as_u64().expect("a number") > 0, *world != "1", "{several}");
        }
    }
}

/// As many bytes as between threads of one process: what crosses follows from the plan.
#[test]
fn as_many_bytes_cross_as_within_one_process() {
    for strategy in ["dp", "pp", "ps"] {
        let there = demo(&["launch", "-n", "2", "--", "thalweg"], &["--strategy", strategy]);
        let here = demo(&[], &["--strategy", strategy, "--devices", "cpu:0,cpu:1"]);
        assert_eq!(there["bytes_sent"], here["bytes_sent"], "{strategy}");
    }
}

/// Thirty steps here and twenty there, either way: the digest of fifty.
#[test]
fn a_checkpoint_is_the_same_whoever_saves_it_and_whoever_goes_on() {
    let one = demo(&[], &[]);
    let launch = ["launch", "-n", "2", "--", "thalweg"];
    for (i, (first, then)) in [(&launch[..], &[][..]), (&[], &launch)].into_iter().enumerate() {
        let folder = Folder::new(&format!("hosts-{i}"));
        let save = ["--save", folder.path().to_str().expect("a plain path")];
        let thirty = ["demo", "--json", "--leaves", "4", "--steps", "30"];
        printed(&thalweg(&[first, &thirty, &save].concat()));
        let resumed = demo(then, &[&save[..], &["--resume"]].concat());
        assert_eq!((&resumed["digest"], &resumed["steps"]), (&one["digest"], &one["steps"]), "{resumed}");
    }
}

/// Shards of as many workers as there were, read by any other number; and whatever is wrong with one of them is found.
#[test]
fn workers_save_what_they_hold() {
    let one = demo(&[], &[]);
    let root = Folder::new("shards");
    for (strategy, least) in [("dp", 4), ("zero1", 8), ("pp", 4)] {
        let folder = root.at(strategy);
        std::fs::create_dir_all(&folder).expect("a folder");
        let shared = format!("runs={}", root.path().display());
        let launch = ["launch", "-n", "4", "--root", &shared, "--", "thalweg"];
        let thirty = ["demo", "--json", "--leaves", "4", "--steps", "30", "--strategy", strategy];
        let save = ["--save", folder.to_str().expect("a plain path"), "--save-every", "10"];
        printed(&thalweg(&[&launch[..], &thirty, &save].concat()));
        let listed = |suffix: &str| {
            let names = std::fs::read_dir(&folder).expect("it is there").flatten();
            names.map(|f| f.path()).filter(|p| p.to_string_lossy().ends_with(suffix)).collect::<Vec<_>>()
        };
        let shards: usize = (1..=4).map(|k| listed(&format!("-0-30-{k}of4.safetensors")).len()).sum();
        assert!(shards >= least && listed("-0-30.safetensors").is_empty(), "{strategy}: {shards} shards");
        // Flips in files, each found: then the one before is taken.
        for path in (1..=4).flat_map(|k| listed(&format!("-0-30-{k}of4.safetensors"))).chain(listed("manifest-0-30")) {
            let whole = std::fs::read(&path).expect("it is there");
            for at in (0..whole.len()).step_by(1 + whole.len() / 7) {
                let mut spoilt = whole.clone();
                spoilt[at] ^= 1;
                std::fs::write(&path, spoilt).expect("room");
                let found = thalweg::runtime::checkpoint::inspect(&folder).expect("there are others");
                assert_eq!(found.manifest.step, 20, "byte {at} of {}", path.display());
            }
            std::fs::write(&path, whole).expect("room");
        }
        for (then, workers) in [(&[][..], "1"), (&["launch", "-n", "3", "--root", &shared, "--", "thalweg"], "3")] {
            // Each on from there: what the other has saved since is out of the way.
            let copy = root.at(&format!("{strategy}-{workers}"));
            std::fs::create_dir(&copy).expect("room");
            for file in std::fs::read_dir(&folder).expect("it is there").flatten() {
                std::fs::copy(file.path(), copy.join(file.file_name())).expect("room");
            }
            let resumed = demo(then, &["--save", copy.to_str().expect("a plain path"), "--resume"]);
            assert_eq!((&resumed["digest"], &resumed["steps"]), (&one["digest"], &one["steps"]), "{resumed}");
        }
    }
}

/// Each pair, whatever engine or launcher there is or is not.
#[test]
fn the_doctor_measures_every_pair() {
    let out = thalweg(&["doctor", "-n", "3", "--json"]);
    let text = printed(&out);
    let pairs: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(pairs.len(), 3, "{text}");
    for pair in &pairs {
        let number = |what: &str| pair[what].as_f64().expect("a number");
        let (seconds, rate) = (number("seconds"), number("bytes_per_second"));
        assert!((1e-7..0.1).contains(&seconds) && (1e7..1e12).contains(&rate), "{pair}");
    }
    let table = printed(&thalweg(&["launch", "-n", "2", "--", "thalweg", "doctor"]));
    assert!(table.contains("2 workers of version") && table.contains("GB/s"), "{table}");
}

#[test]
fn what_a_job_cannot_do_is_said() {
    for (arguments, says) in [
        (&["demo", "--devices", "cpu:0,cpu:1"][..], "runs on the CPUs of its workers"),
        (&["devices"], "ended without asking for its 2 workers"),
    ] {
        let out = thalweg(&[&["launch", "-n", "2", "--", "thalweg"], arguments].concat());
        let said = said(&out);
        assert!(out.status.code() == Some(1) && said.contains(says), "{arguments:?}: {said}");
    }
    let folder = Folder::new("hosts-key");
    let key = folder.at("key");
    std::fs::write(&key, "00").expect("room");
    let key = key.to_str().expect("a plain path");
    let join = |address: &str| {
        let out = thalweg(&["worker", "--join", address, "--key", key]);
        (out.status.code(), said(&out))
    };
    let (code, said) = join("127.0.0.1:1");
    assert!(code == Some(1) && said.contains("chmod 600"), "{said}");
    let private = |text: &str| {
        std::fs::write(key, text).expect("room");
        std::fs::set_permissions(key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("it is mine");
    };
    private("00");
    let (code, said) = join("127.0.0.1:1");
    assert!(code == Some(1) && said.contains("64 hexadecimal digits"), "{said}");
    private(&"a".repeat(64));
    let (code, said) = join("127.0.0.1:1");
    assert!(code == Some(1) && said.contains("cannot join the job at 127.0.0.1:1"), "{said}");
}

/// A job in the middle of its training: the launcher, and the processes it has started.
struct Running {
    launcher: Child,
    driver: u32,
    workers: Vec<u32>,
    /// The last line that it prints.
    last: JoinHandle<String>,
}

/// Children of a process, with their command lines.
fn children(of: u32) -> Vec<(u32, String)> {
    let folders = std::fs::read_dir("/proc").expect("a Linux").flatten();
    let pids = folders.filter_map(|f| f.file_name().to_str()?.parse::<u32>().ok());
    let of_it = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let behind = stat.rsplit_once(") ").map_or("", |(_, b)| b);
        behind.split(' ').nth(1).and_then(|p| p.parse().ok()) == Some(of)
    };
    let line = |pid: u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (pid, String::from_utf8_lossy(&line).replace('\0', " "))
    };
    pids.filter(of_it).map(line).collect()
}

/// Whether a process runs: a dead one that nobody has asked for does not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, behind)| !behind.starts_with(['Z', 'X']))
}

impl Running {
    fn start(restarts: &str, steps: &str) -> Self {
        let mut launcher = Command::new(THALWEG)
            .args(["launch", "-n", "2", "--restarts", restarts, "--", "thalweg"])
            .args(["demo", "--json", "--leaves", "2", "--steps", steps])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        // A pass has been reported: all of them are at work.
        let mut line = String::new();
        let mut out = BufReader::new(launcher.stdout.take().expect("a pipe"));
        out.read_line(&mut line).expect("it says something");
        assert!(line.contains("\"pass\":1"), "{line}");
        // Read on, or it would end for want of a reader.
        let last = thread::spawn(move || out.lines().map_while(Result::ok).last().unwrap_or_default());
        let all = children(launcher.id());
        let (workers, drivers): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, line)| line.contains(" worker "));
        let (workers, drivers): (Vec<u32>, Vec<u32>) =
            (workers.into_iter().map(|(p, _)| p).collect(), drivers.into_iter().map(|(p, _)| p).collect());
        let ([driver], [_, _]) = (&drivers[..], &workers[..]) else { panic!("{drivers:?} and {workers:?}") };
        assert!(workers.iter().chain([driver]).all(|p| runs(*p)));
        Self { driver: *driver, launcher, workers, last }
    }
    /// Sends `signal`; then all have to end within the time. Gives the launcher's exit code, what was said, and the last line
    /// that was printed.
    #[track_caller]
    fn after(mut self, pid: u32, signal: Signal, within: Duration) -> (Option<i32>, String, String) {
        let pid = Pid::from_raw(pid as i32).expect("a process");
        kill_process(pid, signal).expect("it is there");
        let started = Instant::now();
        let all: BTreeSet<u32> = self.workers.iter().copied().chain([self.driver, self.launcher.id()]).collect();
        loop {
            // The launcher is ours to ask for.
            let _ = self.launcher.try_wait();
            let left: Vec<u32> = all.iter().copied().filter(|p| runs(*p)).collect();
            if left.is_empty() {
                break;
            }
            if started.elapsed() > within {
                let pids = left.iter().filter_map(|p| Pid::from_raw(*p as i32));
                pids.for_each(|p| kill_process(p, Signal::KILL).unwrap_or_default());
                panic!("{left:?} of {all:?} are left after {within:?}");
            }
            thread::sleep(Duration::from_millis(5));
        }
        println!("all had ended {:?} after {signal:?}", started.elapsed());
        let out = self.launcher.wait_with_output().expect("it has ended");
        let last = self.last.join().expect("it has read");
        (out.status.code(), said(&out), last)
    }
}

/// Longer than any test looks.
const FOR_EVER: &str = "100000000";

/// The digest of so many steps over two leaves.
fn digest(steps: &str) -> serde_json::Value {
    command::summary(&thalweg(&["demo", "--json", "--leaves", "2", "--steps", steps]))["digest"].clone()
}

/// Replaced by one that is started in its place, or by those that are left: the numbers are those of an undisturbed job.
#[test]
fn a_killed_worker_is_named_and_the_job_goes_on() {
    for (restarts, left) in [("1", "2 workers"), ("0", "1 worker")] {
        let job = Running::start(restarts, "2000");
        let victim = job.workers[1];
        let (code, said, last) = job.after(victim, Signal::KILL, Duration::from_secs(100));
        assert_eq!(code, Some(0), "{said}");
        let named = format!("rank 1 (process {victim})");
        let goes_on = format!("going on with {left} after");
        assert!(said.contains(&named) && said.contains(&goes_on), "{said}");
        assert!(said.contains(&format!("the worker of process {victim} was killed")), "{said}");
        let last: serde_json::Value = serde_json::from_str(&last).expect("a summary");
        assert_eq!((&last["steps"], &last["digest"]), (&2000.into(), &digest("2000")), "{said}");
    }
}

/// Nobody is left to go on with, and it says what to do.
#[test]
fn a_job_without_workers_ends() {
    let folder = Folder::new("nobody");
    std::fs::write(folder.at("plan"), "worker0 body-done 20\n").expect("room");
    let out = Command::new(THALWEG)
        .args(["launch", "-n", "1", "--restarts", "0", "--", "thalweg", "demo", "--steps", "50"])
        .env("THALWEG_CRASH", folder.path())
        .output()
        .expect("it starts");
    let said = said(&out);
    assert_eq!(out.status.code(), Some(1), "{said}");
    for says in ["rank 0", "0 of 1 workers joined", "resume from its last checkpoint"] {
        assert!(said.contains(says), "{says}: {said}");
    }
}

#[test]
fn nobody_outlives_a_driver_that_is_not_started_anew() {
    let job = Running::start("0", FOR_EVER);
    let driver = job.driver;
    let (code, said, _) = job.after(driver, Signal::KILL, Duration::from_secs(10));
    assert_eq!(code, Some(128 + 9), "{said}");
    assert!(said.contains("the driver was killed"), "{said}");
}

/// Being asked to end is no reason to start anew.
#[test]
fn nobody_outlives_a_driver_that_was_asked_to_end() {
    let job = Running::start("5", FOR_EVER);
    let driver = job.driver;
    let (code, said, _) = job.after(driver, Signal::TERM, Duration::from_secs(10));
    assert!(code != Some(0) && !said.contains("started anew"), "{code:?} {said}");
}

#[test]
fn nobody_outlives_the_launcher() {
    let job = Running::start("5", FOR_EVER);
    let launcher = job.launcher.id();
    let folder = std::fs::read(format!("/proc/{}/environ", job.driver)).expect("its own");
    let folder =
        String::from_utf8_lossy(&folder).split('\0').find_map(|v| Some(v.strip_prefix("THALWEG_JOB=")?.to_string()));
    let folder = folder.expect("it was launched");
    assert!(std::path::Path::new(&folder).exists());
    job.after(launcher, Signal::KILL, Duration::from_secs(10));
    assert!(!std::path::Path::new(&folder).exists(), "the key is left in {folder}");
}

/// Its connections are as they were, but nothing comes: it is ended, and another one takes its place.
#[test]
fn a_stopped_worker_is_noticed_and_replaced() {
    let job = Running::start("1", "2000");
    let victim = job.workers[0];
    // As long as CI has for a build that does not notice (.ci/broken.sh).
    let (code, said, last) = job.after(victim, Signal::STOP, Duration::from_secs(45));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("(process {victim}): it has not been heard of for 3s")), "{said}");
    assert!(said.contains(&format!("the worker of process {victim} does not answer, and is ended")), "{said}");
    let last: serde_json::Value = serde_json::from_str(&last).expect("a summary");
    assert_eq!(last["digest"], digest("2000"), "{said}");
}

/// Torchrun and its like: so many processes alike, of which the first drives.
#[test]
fn processes_that_an_engine_starts_alike_become_a_job() {
    let port = (20_000 + std::process::id() % 20_000).to_string();
    let start = |rank: usize, world: usize| {
        Command::new(THALWEG)
            .args(["demo", "--json", "--leaves", "4", "--steps", "50"])
            .envs([("RANK", rank.to_string()), ("WORLD_SIZE", world.to_string())])
            .envs([("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &port)])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts")
    };
    let one = demo(&[], &[]);
    for world in [3, 1] {
        // Rank 0 last: nobody has to be first.
        let mut all: Vec<Child> = (0..world).rev().map(|rank| start(rank, world)).collect();
        let driver = all.pop().expect("rank 0").wait_with_output().expect("it ends");
        let last = command::summary(&driver);
        let workers = if world == 1 { 1 } else { world - 1 };
        assert_eq!((&last["digest"], &last["world"]), (&one["digest"], &workers.into()), "{}", said(&driver));
        for worker in all {
            let out = worker.wait_with_output().expect("it ends");
            assert!(out.status.success() && out.stdout.is_empty(), "{}", said(&out));
        }
    }
    let out = Command::new(THALWEG)
        .args(["demo", "--steps", "1"])
        .envs([("RANK", "0"), ("WORLD_SIZE", "2"), ("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "2")])
        .output()
        .expect("it starts");
    let said = said(&out);
    assert!(out.status.code() == Some(1) && said.contains("two engines disagree"), "{said}");
}
