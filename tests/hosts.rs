//! Jobs of several processes as people start them: the numbers of one process; and whoever is killed, the others say so and
//! end.

// Who is left is looked up in /proc.
#![cfg(target_os = "linux")]
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const THALWEG: &str = env!("CARGO_BIN_EXE_thalweg");

fn thalweg(arguments: &[&str]) -> Output {
    Command::new(THALWEG).args(arguments).output().expect("it starts")
}

/// The last line of a demo of 50 steps over four leaves.
fn summary(before: &[&str], after: &[&str]) -> serde_json::Value {
    let demo = ["demo", "--json", "--leaves", "4", "--steps", "50"];
    let arguments = [before, &demo, after].concat();
    let out = thalweg(&arguments);
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("text");
    serde_json::from_str(text.lines().last().expect("a summary")).expect("JSON")
}

#[test]
fn several_processes_give_the_digest_of_one() {
    let one = summary(&[], &[]);
    for (strategy, worlds) in
        [("dp", &["1", "2", "4"][..]), ("zero1", &["2"]), ("pp", &["2", "4"]), ("ps", &["2", "3", "4"])]
    {
        for world in worlds {
            let several = summary(&["launch", "-n", world, "--", "thalweg"], &["--strategy", strategy]);
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
        let there = summary(&["launch", "-n", "2", "--", "thalweg"], &["--strategy", strategy]);
        let here = summary(&[], &["--strategy", strategy, "--devices", "cpu:0,cpu:1"]);
        assert_eq!(there["bytes_sent"], here["bytes_sent"], "{strategy}");
    }
}

/// Thirty steps here and twenty there, either way: the digest of fifty.
#[test]
fn a_checkpoint_is_the_same_whoever_saves_it_and_whoever_goes_on() {
    let one = summary(&[], &[]);
    let launch = ["launch", "-n", "2", "--", "thalweg"];
    for (i, (first, then)) in [(&launch[..], &[][..]), (&[], &launch)].into_iter().enumerate() {
        let folder = std::env::temp_dir().join(format!("thalweg-hosts-{i}-{}", std::process::id()));
        let save = ["--save", folder.to_str().expect("a plain path")];
        let demo = ["demo", "--json", "--leaves", "4", "--steps", "30"];
        let out = thalweg(&[first, &demo, &save].concat());
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let resumed = summary(then, &[&save[..], &["--resume"]].concat());
        assert_eq!((&resumed["digest"], &resumed["steps"]), (&one["digest"], &one["steps"]), "{resumed}");
        std::fs::remove_dir_all(&folder).expect("it was there");
    }
}

#[test]
fn what_a_job_cannot_do_is_said() {
    for (arguments, says) in [
        (&["demo", "--devices", "cpu:0,cpu:1"][..], "runs on the CPUs of its workers"),
        (&["devices"], "ended without asking for its 2 workers"),
    ] {
        let out = thalweg(&[&["launch", "-n", "2", "--", "thalweg"], arguments].concat());
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(1) && said.contains(says), "{arguments:?}: {said}");
    }
    let folder = std::env::temp_dir().join(format!("thalweg-hosts-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let key = folder.join("key");
    std::fs::write(&key, "00").expect("room");
    let key = key.to_str().expect("a plain path");
    let join = |address: &str| {
        let out = thalweg(&["worker", "--join", address, "--key", key]);
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
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
    for (address, says) in [("127.0.0.1:1", "cannot join the job at 127.0.0.1:1"), ("10.1.2.3:1", "not encrypted yet")]
    {
        let (code, said) = join(address);
        assert!(code == Some(1) && said.contains(says), "{said}");
    }
    std::fs::remove_dir_all(&folder).expect("it was there");
}

/// A job in the middle of its training: the launcher, and the processes it has started.
struct Running {
    launcher: Child,
    driver: u32,
    workers: Vec<u32>,
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
    fn start() -> Self {
        let mut launcher = Command::new(THALWEG)
            .args(["launch", "-n", "2", "--", "thalweg", "demo", "--json", "--passes", "100000"])
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
        thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let all = children(launcher.id());
        let (workers, drivers): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, line)| line.contains(" worker "));
        let (workers, drivers): (Vec<u32>, Vec<u32>) =
            (workers.into_iter().map(|(p, _)| p).collect(), drivers.into_iter().map(|(p, _)| p).collect());
        let ([driver], [_, _]) = (&drivers[..], &workers[..]) else { panic!("{drivers:?} and {workers:?}") };
        assert!(workers.iter().chain([driver]).all(|p| runs(*p)));
        Self { driver: *driver, launcher, workers }
    }
    /// Sends `signal`; then all have to end within the time. Gives the launcher's exit code and what was said.
    #[track_caller]
    fn after(mut self, pid: u32, signal: Signal, within: Duration) -> (Option<i32>, String) {
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
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    }
}

#[test]
fn a_killed_worker_is_named_and_ends_the_job() {
    let job = Running::start();
    let victim = job.workers[1];
    let (code, said) = job.after(victim, Signal::KILL, Duration::from_secs(10));
    assert_eq!(code, Some(1), "{said}");
    let named = format!("(process {victim}) is gone");
    assert!(said.contains(&named) && said.contains("resume from the last checkpoint"), "{said}");
    assert!(said.contains(&format!("the worker of process {victim} was killed")), "{said}");
}

#[test]
fn nobody_outlives_the_driver() {
    let job = Running::start();
    let driver = job.driver;
    let (code, said) = job.after(driver, Signal::KILL, Duration::from_secs(10));
    assert_eq!(code, Some(128 + 9), "{said}");
    assert!(said.contains("the driver was killed"), "{said}");
}

#[test]
fn nobody_outlives_the_launcher() {
    let job = Running::start();
    let launcher = job.launcher.id();
    job.after(launcher, Signal::KILL, Duration::from_secs(10));
}

/// Its connections are as they were, but nothing comes.
#[test]
fn a_stopped_worker_is_noticed_and_ends_the_job() {
    let job = Running::start();
    let victim = job.workers[0];
    let (code, said) = job.after(victim, Signal::STOP, Duration::from_secs(60));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("(process {victim}) has not been heard of for 10s")), "{said}");
}
