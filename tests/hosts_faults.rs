//! What goes wrong between the processes of a job and beneath them, and is no process that ends: a bit that turns on its way
//! from worker to worker, and power that goes. No test can cut the power: but after it there is what was synced and no more, so
//! each process is watched whether it has synced what it goes on from.
//!
//! Both fail on builds that leave out checksums, or fsyncs (`.ci/broken.sh`). Tests that take strace are skipped, by name, where
//! there is none; `THALWEG_REQUIRE=strace` makes that a failure.

#![cfg(target_os = "linux")]
#![allow(missing_docs)]

#[path = "common/command.rs"]
mod command;
#[path = "common/required.rs"]
mod required;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use command::{Folder, THALWEG, said};

/// A folder in it.
fn sub(folder: &Folder, name: &str) -> PathBuf {
    let path = folder.at(name);
    std::fs::create_dir_all(&path).expect("a folder");
    path
}

#[track_caller]
fn digest(out: &Output) -> serde_json::Value {
    command::summary(out)["digest"].clone()
}

/// One bit of a value, a gradient where nobody looks at checksums and the numbers become others: it is named, and what it was
/// part of is done again.
#[test]
fn a_bit_that_turns_on_its_way_is_noticed() {
    let demo = ["demo", "--json", "--leaves", "4", "--steps", "60"];
    let undisturbed = digest(&Command::new(THALWEG).args(demo).output().expect("it starts"));
    let folder = Folder::new("faults-flips");
    for (strategy, who, count) in [("dp", "worker1", 49), ("pp", "worker0", 70), ("zero1", "worker0", 51)] {
        let crashes = sub(&folder, &format!("{strategy}-crashes"));
        std::fs::write(crashes.join("plan"), format!("{who} flip {count}\n")).expect("room");
        let mut job = Command::new(THALWEG);
        job.args(["launch", "-n", "2", "--", "thalweg"]).args(demo).args(["--strategy", strategy]);
        let out = job.env("THALWEG_CRASH", &crashes).output().expect("it starts");
        let said = said(&out);
        assert!(crashes.join("fired-1").exists(), "{strategy}: {who} never sent so much: {said}");
        assert_eq!(digest(&out), undisturbed, "{strategy}: the bit has gone into the numbers: {said}");
        let named = said.contains("the checksum of chunk 0 is") && said.contains("going on with 2 workers");
        assert!(named, "{strategy}: nobody has named it: {said}");
    }
}

/// A call of one thread, from the line where it begins to that where it has ended.
struct Call {
    thread: String,
    name: String,
    /// In its arguments, of descriptors too.
    paths: Vec<PathBuf>,
    began: usize,
    ended: usize,
}

/// All calls that succeeded, in the order in which they ended.
fn calls(log: &str) -> Vec<Call> {
    let (mut begun, mut all) = (BTreeMap::<String, (String, usize)>::new(), vec![]);
    for (at, line) in log.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let (text, began) = match (rest.strip_suffix("<unfinished ...>"), rest.strip_prefix("<... ")) {
            (Some(first), _) => {
                begun.insert(thread.into(), (first.into(), at));
                continue;
            }
            (None, Some(end)) => {
                let Some((first, began)) = begun.remove(thread) else { continue };
                (first + end.split_once("resumed>").map_or("", |(_, end)| end), began)
            }
            (None, None) => (rest.to_string(), at),
        };
        let (Some((name, arguments)), false) = (text.split_once('('), text.contains(" = -1 ")) else { continue };
        let quoted: Vec<PathBuf> = arguments.split('"').skip(1).step_by(2).map(PathBuf::from).collect();
        let opened = arguments.split('<').skip(1).filter_map(|s| s.split_once('>')).map(|(p, _)| PathBuf::from(p));
        let named = quoted.iter().any(|p| !p.as_os_str().is_empty());
        let paths = if named { quoted } else { opened.collect() };
        all.push(Call { thread: thread.into(), name: name.into(), paths, began, ended: at });
    }
    all
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What has to be on the disk before what: gives how often which sort of file was published.
fn check(calls: &[Call]) -> BTreeMap<&'static str, usize> {
    // By file: when it was last written to. By thread and directory: names that it has given, and when.
    let (mut unsynced, mut given) =
        (BTreeMap::<&Path, usize>::new(), BTreeMap::<(&str, &Path), Vec<(&Path, usize)>>::new());
    let mut published = BTreeMap::new();
    for Call { thread, name, paths, began, ended } in calls {
        let (Some(first), Some(last)) = (paths.first(), paths.last()) else { continue };
        let directory = last.parent().unwrap_or(Path::new("/"));
        let own = given.entry((thread, directory)).or_default();
        match name.as_str() {
            "write" => _ = unsynced.insert(first, *ended),
            "fsync" => {
                // What came while it ran may have come too late.
                unsynced.retain(|path, written| *path != first || *written > *began);
                given.entry((thread, first)).or_default().retain(|(_, when)| when > began);
            }
            "rename" | "linkat" => {
                let to = name_of(last);
                assert!(!unsynced.contains_key(first.as_path()), "{to} is published, and its bytes are not synced");
                let sort = match to.as_str() {
                    "job.json" => "job file",
                    to if to.starts_with("manifest-") => "manifest",
                    to if to.ends_with(".safetensors") => "shard",
                    _ => "other",
                };
                // Names of shards are synced together, before they are named.
                let relies = sort != "shard";
                assert!(!relies || own.is_empty(), "{to} is published before the name of {:?} is synced", own[0].0);
                own.push((last, *ended));
                *published.entry(sort).or_insert(0) += 1;
            }
            "unlink" if name_of(last).starts_with("manifest-") => {
                assert!(own.is_empty(), "{} is gone before the name of {:?} is synced", last.display(), own[0].0);
                *published.entry("gone").or_insert(0) += 1;
            }
            _ => {}
        }
    }
    let left: Vec<_> = given.into_values().flatten().collect();
    assert!(left.is_empty(), "these names are never synced: {left:?}");
    published
}

/// A job of two workers that write shards, and of two drivers, one after the other: the job file, which a driver goes on from,
/// and checkpoints.
#[test]
fn whatever_a_job_publishes_is_synced_first_and_named_for_good() {
    if !required::strace("whatever_a_job_publishes_is_synced_first_and_named_for_good") {
        return;
    }
    let folder = Folder::new("faults-synced");
    let (crashes, saves, log) = (sub(&folder, "crashes"), sub(&folder, "saves"), folder.at("log"));
    std::fs::write(crashes.join("plan"), "driver voted 5\n").expect("room");
    let out = Command::new("strace")
        .args(["-f", "-y", "-s", "0", "--seccomp-bpf", "-e", "signal=none"])
        .args(["-e", "trace=write,fsync,rename,linkat,unlink", "-o"])
        .args([&log, Path::new(THALWEG)])
        .args(["launch", "-n", "2", "--restarts", "1", "--root", &format!("saves={}", saves.display())])
        .args(["--", "thalweg", "demo", "--json", "--leaves", "2", "--steps", "12", "--save-every", "2", "--save"])
        .arg(&saves)
        .env("THALWEG_CRASH", &crashes)
        .env("TMPDIR", sub(&folder, "jobs"))
        .output()
        .expect("strace runs");
    assert!(out.status.success() && crashes.join("fired-1").exists(), "{}", said(&out));
    let log = std::fs::read_to_string(log).expect("a log");
    let published = check(&calls(&log));
    println!("published, each on the disk before anything relied on it: {published:?}");
    for (sort, least) in [("job file", 3), ("shard", 8), ("manifest", 4), ("gone", 2), ("other", 4)] {
        assert!(published.get(sort).is_some_and(|n| *n >= least), "{sort}: {published:?}");
    }
}
