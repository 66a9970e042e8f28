//! Saves that are killed, and disks that fail, at every single system call of a save. The child is this program again,
//! under strace, which kills or fails the n-th call of a kind; n runs until nothing is left to go wrong. Each fault must
//! be seen to have happened, and afterwards the checkpoint before, or the new one, loads bit for bit.
//!
//! Skipped, by name, where there is no strace; `THALWEG_REQUIRE=strace` makes that a failure.

mod common;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::command::Folder;
use common::required::strace;
use common::state;

/// Every call by which a save changes a file system, or learns what is in it.
const CALLS: &[&str] =
    &["openat", "mkdir", "flock", "getdents64", "write", "fsync", "rename", "linkat", "unlink", "statx", "newfstatat"];
/// The other calls of a save that have to do with descriptors: none of them can keep a byte from the disk.
const HARMLESS: &[&str] = &["close", "fcntl", "lseek", "mmap"];
/// Where the child is to save; set for the child alone.
const DIRECTORY: &str = "THALWEG_TEST_SAVE_TO";
/// Opened in vain when the save begins, so that it can be found in a trace.
const MARKER: &str = "/the-save-begins-here";

const SAVED: i32 = 0;
const FAILED_THEN_SAVED: i32 = 10;
const FAILED_TWICE: i32 = 11;

/// Not a test but the child of the others: goes on from what is in a directory, saves the next step, and once more if
/// that failed.
#[test]
fn the_child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    // strace counts the calls of each thread. Numbers that no other thread reaches belong to this one alone.
    for _ in 0..100 {
        _ = std::fs::metadata("/dev/null");
        _ = std::fs::write("/dev/null", "x");
        _ = std::fs::read_dir("/proc/self");
    }
    let mut session = state::session();
    session.keep_checkpoints(2);
    let from = session.resume_or_init(&directory, thalweg::runtime::Same::Graph).expect("a sound directory");
    state::set(&mut session, from.map_or(0, |r| r.id.step) + 1);
    _ = std::fs::File::open(MARKER);
    let outcome = match session.save_and_wait(&directory) {
        Ok(_) => SAVED,
        Err(error) => {
            _ = std::io::Write::write_all(&mut std::io::stderr(), format!("save: {error}\n").as_bytes());
            if session.save_and_wait(&directory).is_ok() { FAILED_THEN_SAVED } else { FAILED_TWICE }
        }
    };
    std::process::exit(outcome);
}

/// Runs the child under strace.
fn child(directory: &Path, strace: &[&str]) -> Output {
    let this = std::env::current_exe().expect("this program");
    let log = directory.with_extension("log");
    Command::new("strace")
        .args(["-f", "-y", "-s", "0", "-o"])
        .arg(log)
        .args(strace)
        .arg(this)
        .args(["--exact", "the_child", "--nocapture"])
        .env(DIRECTORY, directory)
        .output()
        .expect("strace runs")
}

/// Saves steps 1 and 2, and leaves what a save of step 3 leaves that was killed early, and late.
fn prepared(folder: &Folder) -> PathBuf {
    let directory = folder.at("prepared");
    let mut session = state::session();
    for step in [1, 2] {
        state::save(&mut session, &directory, step);
    }
    std::fs::write(directory.join("tmp-weights-0-3.safetensors"), "half").expect("room");
    std::fs::write(directory.join("training-0-3.safetensors"), "an orphan").expect("room");
    std::fs::write(directory.join("notes.txt"), "mine").expect("room");
    directory
}

/// One call of the child's save: its name and the paths in it.
struct Call {
    name: String,
    paths: Vec<String>,
}

/// What the save does, and for each kind of call how many its thread made before.
fn traced(directory: &Path) -> (Vec<Call>, BTreeMap<String, usize>) {
    let output = child(directory, &["-e", "trace=%file,%desc"]);
    assert_eq!(output.status.code(), Some(SAVED), "{}", String::from_utf8_lossy(&output.stderr));
    let log = std::fs::read_to_string(directory.with_extension("log")).expect("a log");
    let mut threads: BTreeMap<String, Vec<Call>> = BTreeMap::new();
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let Some((name, rest)) = call.trim_start().split_once('(') else { continue };
        // Paths stand in quotes, and behind descriptors in angle brackets.
        let opened = || rest.split('<').skip(1).filter_map(|s| s.split_once('>')).map(|(p, _)| p.to_string()).collect();
        let quoted: Vec<String> = rest.split('"').skip(1).step_by(2).map(str::to_string).collect();
        let paths = if quoted.iter().any(|p| !p.is_empty()) { quoted } else { opened() };
        threads.entry(thread.into()).or_default().push(Call { name: name.into(), paths });
    }
    let begins = |calls: &[Call]| calls.iter().position(|c| c.paths.iter().any(|p| p == MARKER));
    let saver = threads.iter().find(|(_, calls)| begins(calls).is_some()).expect("the save begins").0.clone();
    let mut calls = threads.remove(&saver).expect("it is there");
    let save = calls.split_off(begins(&calls).expect("it is there") + 1);
    let known = |c: &&Call| CALLS.contains(&&*c.name) || HARMLESS.contains(&&*c.name);
    let strange: Vec<&str> = save.iter().filter(|c| !known(c)).map(|c| &*c.name).collect();
    assert!(strange.is_empty(), "calls of a save that nothing here injects faults into: {strange:?}");
    let count = |calls: &[Call], name: &str| calls.iter().filter(|c| c.name == name).count();
    // The marker's own call is one of them.
    let mut before: BTreeMap<String, usize> = BTreeMap::new();
    for name in CALLS {
        let others = threads.values().map(|calls| count(calls, name)).max().unwrap_or(0);
        let own = count(&calls, name);
        assert!(
            others <= own || count(&save, name) == 0,
            "{name}: another thread makes {others} calls, this one {own}"
        );
        before.insert(name.to_string(), own);
    }
    (save, before)
}

/// For every call of a save after `prepared`: its name, and which of its thread's calls of that name it is.
fn every_call(folder: &Folder, prepared: &Path) -> Vec<(String, usize)> {
    let directory = folder.at("traced");
    state::copy(prepared, &directory);
    every_call_into(&directory)
}

/// The same for a directory as it is, or is not.
fn every_call_into(directory: &Path) -> Vec<(String, usize)> {
    let (calls, before) = traced(directory);
    let mut out = Vec::new();
    for name in CALLS {
        let count = calls.iter().filter(|c| c.name == *name).count();
        out.extend((1..=count).map(|n| (name.to_string(), before[*name] + n)));
    }
    out
}

/// The checkpoint before or the new one loads, a save to the healthy disk succeeds, and nothing unfinished stays.
#[track_caller]
fn check_and_save(directory: &Path, what: &str) -> u64 {
    let found = state::newest(directory);
    assert!(found == 2 || found == 3, "{what}: step {found}");
    assert_eq!(found == 3, directory.join("manifest-0-3").exists(), "{what}");
    let mut session = state::session();
    let resumed = session.resume(directory, thalweg::runtime::Same::Graph).expect(what);
    assert_eq!((resumed.id.step, session.digest().expect("readable")), (found, state::digest(found)), "{what}");
    assert_eq!(session.cursors().get("train"), Some(state::cursor(found)), "{what}");
    state::save(&mut session, directory, found + 1);
    let mut expected = state::names_of(&[&format!("0-{found}"), &format!("0-{}", found + 1)]);
    expected.push("notes.txt".into());
    expected.sort();
    assert_eq!(state::names(directory), expected, "{what}");
    found
}

#[test]
fn a_save_killed_at_any_call_loses_nothing() {
    if !strace("a_save_killed_at_any_call_loses_nothing") {
        return;
    }
    let folder = Folder::new("killed");
    let (prepared, directory) = (prepared(&folder), folder.at("run"));
    let (mut before, mut after) = (0, 0);
    for (name, when) in every_call(&folder, &prepared) {
        state::copy(&prepared, &directory);
        let inject = format!("inject={name}:signal=KILL:when={when}");
        let output = child(&directory, &["-e", &format!("trace={name}"), "-e", &inject]);
        assert_eq!(output.status.signal(), Some(9), "{inject}: the child lives");
        match check_and_save(&directory, &inject) {
            2 => before += 1,
            _ => after += 1,
        }
    }
    println!("killed {} times: {before} times before publication, {after} times after", before + after);
    assert!(before > 20 && after > 5);
}

#[test]
fn a_first_save_killed_at_any_call_leaves_it_or_nothing() {
    if !strace("a_first_save_killed_at_any_call_leaves_it_or_nothing") {
        return;
    }
    let folder = Folder::new("first");
    let (mut nothing, mut whole) = (0, 0);
    for (name, when) in every_call_into(&folder.at("traced")) {
        let directory = folder.at("run");
        _ = std::fs::remove_dir_all(&directory);
        let inject = format!("inject={name}:signal=KILL:when={when}");
        let output = child(&directory, &["-e", &format!("trace={name}"), "-e", &inject]);
        assert_eq!(output.status.signal(), Some(9), "{inject}: the child lives");
        let mut session = state::session();
        let resumed = session.resume_or_init(&directory, thalweg::runtime::Same::Graph).expect("whole or nothing");
        match &resumed {
            None => nothing += 1,
            Some(_) => whole += 1,
        }
        assert_eq!(resumed.is_some(), directory.join("manifest-0-1").exists(), "{inject}");
        assert_eq!(session.step(), u64::from(resumed.is_some()), "{inject}");
        state::save(&mut session, &directory, 2);
        let ids: &[&str] = if resumed.is_some() { &["0-1", "0-2"] } else { &["0-2"] };
        assert_eq!(state::names(&directory), state::names_of(ids), "{inject}");
    }
    println!("killed {} times: {nothing} times before publication, {whole} times after", nothing + whole);
    assert!(nothing > 15 && whole > 0);
}

#[test]
fn a_disk_that_fails_at_any_call_gives_an_error_and_loses_nothing() {
    if !strace("a_disk_that_fails_at_any_call_gives_an_error_and_loses_nothing") {
        return;
    }
    let folder = Folder::new("failing");
    let (prepared, directory) = (prepared(&folder), folder.at("run"));
    let mut failures = 0;
    for (name, when) in every_call(&folder, &prepared) {
        let errno = match name.as_str() {
            "write" | "mkdir" => "ENOSPC",
            "fsync" | "getdents64" => "EIO",
            "flock" => "ENOLCK",
            "statx" | "newfstatat" => "EACCES",
            _ => "EROFS",
        };
        state::copy(&prepared, &directory);
        let inject = format!("inject={name}:error={errno}:when={when}");
        let output = child(&directory, &["-e", &format!("trace={name}"), "-e", &inject]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let log = std::fs::read_to_string(directory.with_extension("log")).expect("a log");
        assert!(log.contains("(INJECTED)"), "{inject}: no fault happened");
        // What is looked at only to be sure, and letting go of the lock before it is closed, may fail unseen.
        let excused = ["statx", "flock"].contains(&&*name) && output.status.code() == Some(SAVED);
        if !excused {
            assert_eq!(output.status.code(), Some(FAILED_THEN_SAVED), "{inject}: {said}");
            let line = said.lines().find(|l| l.starts_with("save: ")).unwrap_or_default();
            assert!(
                line.contains("cannot ") && line.contains(&*folder.at("run").to_string_lossy()),
                "{inject}: {said}"
            );
            failures += 1;
        }
        assert_eq!(check_and_save(&directory, &inject), 3, "{inject}: the second save succeeds");
    }
    println!("{failures} calls failed once each");
    assert!(failures > 25, "{failures}");
}

#[test]
fn a_full_or_read_only_disk_gives_an_error_until_it_is_mended() {
    if !strace("a_full_or_read_only_disk_gives_an_error_until_it_is_mended") {
        return;
    }
    let folder = Folder::new("full");
    let (prepared, directory) = (prepared(&folder), folder.at("run"));
    for (name, when) in every_call(&folder, &prepared) {
        let (errno, said) = match name.as_str() {
            "write" | "fsync" => ("ENOSPC", "Make room and save again"),
            "openat" | "rename" | "linkat" | "unlink" => ("EROFS", "Choose a directory that can be written to"),
            _ => continue,
        };
        state::copy(&prepared, &directory);
        let inject = format!("inject={name}:error={errno}:when={when}+");
        let output = child(&directory, &["-e", &format!("trace={name}"), "-e", &inject]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        // Nobody can be told through a `write` that fails.
        assert!(name == "write" || stderr.contains(said), "{inject}: {stderr}");
        assert_eq!(output.status.code(), Some(FAILED_TWICE), "{inject}: {stderr}");
        // A disk that is full is not left fuller.
        let unfinished = || state::names(&directory).into_iter().find(|n| n.starts_with("tmp-") || n.contains("0-3"));
        assert!(name != "write" || unfinished().is_none(), "{inject}: {:?} stays", unfinished());
        check_and_save(&directory, &inject);
    }
}

/// Where the child of the next test finds a disk of 64 KiB.
const SMALL_DISK: &str = "THALWEG_TEST_SMALL_DISK";

/// Not a test but the child of the next one.
#[test]
fn the_child_on_a_small_disk() {
    let Some(disk) = std::env::var_os(SMALL_DISK).map(PathBuf::from) else { return };
    let (directory, filler) = (disk.join("run"), disk.join("filler"));
    let mut session = state::session();
    state::save(&mut session, &directory, 1);
    // All that is left, but for two pages: room for a file or two of a checkpoint's three.
    let mut left = vec![0; 1 << 16];
    while std::fs::write(&filler, &left).is_err() {
        left.truncate(left.len() - 4096);
    }
    std::fs::write(&filler, &left[..left.len() - 8192]).expect("less than fitted");
    state::set(&mut session, 2);
    let error = session.save_and_wait(&directory).expect_err("the disk is full");
    let said = error.to_string();
    assert!(said.contains("No space left") && said.contains("Make room and save again"), "{said}");
    assert_eq!(state::names(&directory), state::names_of(&["0-1"]), "nothing unfinished stays");
    assert_eq!(state::newest(&directory), 1);
    assert_eq!(session.digest().expect("readable"), state::digest(2), "the session goes on");
    std::fs::remove_file(&filler).expect("it is there");
    assert_eq!(session.save_and_wait(&directory).expect("there is room again").id.step, 2);
    println!("full, and mended: {said}");
}

/// A real one: a file system of 64 KiB, in a mount namespace of its own that ends with the child.
#[test]
fn a_disk_that_is_really_full_gives_an_error_and_loses_nothing() {
    let folder = Folder::new("tmpfs");
    let disk = folder.at("disk");
    std::fs::create_dir(&disk).expect("room");
    let mount = "mount -t tmpfs -o size=64k none \"$0\" && exec \"$@\"";
    let run = |command: &[&std::ffi::OsStr]| {
        let unshare = Command::new("unshare")
            .args(["-m", "sh", "-c", mount])
            .arg(&disk)
            .args(command)
            .env(SMALL_DISK, &disk)
            .output();
        unshare.ok()
    };
    if !run(&["true".as_ref()]).is_some_and(|o| o.status.success()) {
        eprintln!("skipped: mount (needs root)");
        return;
    }
    let this = std::env::current_exe().expect("this program");
    let arguments = ["--exact", "the_child_on_a_small_disk", "--nocapture"].map(std::ffi::OsStr::new);
    let output = run(&[&[this.as_os_str()], &arguments[..]].concat()).expect("it ran before");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("full, and mended"), "no fault happened: {said}");
}

/// What no kill can show: after a power cut only what was synced is there. So the order of the calls is looked at.
#[test]
fn everything_is_synced_before_the_next_thing_relies_on_it() {
    if !strace("everything_is_synced_before_the_next_thing_relies_on_it") {
        return;
    }
    let folder = Folder::new("order");
    let (prepared, directory) = (prepared(&folder), folder.at("run"));
    state::copy(&prepared, &directory);
    let (calls, _) = traced(&directory);
    let place = |what: &str, found: Option<usize>| found.unwrap_or_else(|| panic!("no {what}"));
    let at = |name: &str, file: &str| {
        let path = directory.join(file).to_string_lossy().into_owned();
        let is = |c: &&Call| c.name == name && c.paths.contains(&path);
        let first = calls.iter().position(|c| is(&c));
        place(&format!("{name} {file}"), first)
    };
    let sync_of_directory_after = |from: usize| {
        let path = directory.to_string_lossy().into_owned();
        let found = calls[from..].iter().position(|c| c.name == "fsync" && c.paths.contains(&path));
        from + place("sync of the directory", found)
    };
    let link = at("linkat", "manifest-0-3");
    let mut last_rename = 0;
    for part in ["weights", "training"] {
        let (name, unfinished) = (format!("{part}-0-3.safetensors"), format!("tmp-{part}-0-3.safetensors"));
        let (write, sync, rename) = (at("write", &unfinished), at("fsync", &unfinished), at("rename", &name));
        assert!(write < sync && sync < rename && rename < link, "{part}: {write} {sync} {rename} {link}");
        last_rename = last_rename.max(rename);
    }
    assert!(sync_of_directory_after(last_rename) < link, "shards have names on the disk before they are named");
    assert!(at("write", "tmp-manifest-0-3") < at("fsync", "tmp-manifest-0-3"));
    assert!(at("fsync", "tmp-manifest-0-3") < link);
    let oldest = at("unlink", "manifest-0-1");
    assert!(sync_of_directory_after(link) < oldest, "the new one is there for good before the old one goes");
    for part in ["weights", "training"] {
        let shard = at("unlink", &format!("{part}-0-1.safetensors"));
        assert!(sync_of_directory_after(oldest) < shard, "a manifest never outlives its shards");
    }
    // A directory that is made is on the disk as well before anything is published in it.
    let inner = folder.at("outer").join("inner");
    std::fs::create_dir(folder.at("outer")).expect("room");
    let (calls, _) = traced(&inner);
    let find = |name: &str, path: &Path| {
        let path = path.to_string_lossy();
        place(name, calls.iter().position(|c| c.name == name && c.paths.iter().any(|p| *p == path)))
    };
    let (made, synced) = (find("mkdir", &inner), find("fsync", &folder.at("outer")));
    assert!(made < synced && synced < find("linkat", &inner.join("manifest-0-1")));
}
