//! What checkpoints promise: everything comes back bit for bit, nothing is loaded by halves, and nobody's work is written
//! over. Damage is in `checkpoint_damage.rs`, killed processes and failing disks are in `checkpoint_faults.rs`.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::command::{self, Folder, THALWEG, thalweg};
use common::state;
use thalweg::graph::{Init, TensorType};
use thalweg::prelude::*;
use thalweg::runtime::checkpoint::{CheckpointId, inspect, published};
use thalweg::runtime::{CheckpointError, ReferenceDevice, Same, Session};

#[track_caller]
fn stdout(arguments: &[&str]) -> String {
    command::printed(&thalweg(arguments))
}

/// The digest in the demo's last line.
#[track_caller]
fn demo_digest(arguments: &[&str]) -> String {
    let last = command::summary(&thalweg(&[&["demo", "--json"], arguments].concat()));
    last["digest"].as_str().expect("a digest").to_string()
}

#[test]
fn every_type_kind_and_size_comes_back() {
    let folder = Folder::new("round-trip");
    let directory = folder.at("run");
    let mut session = state::session();
    for step in [4, 5, 17] {
        state::set(&mut session, step);
        let saved = session.save_and_wait(&directory).unwrap();
        assert_eq!((saved.id.step, saved.digest.to_string()), (step, state::digest(step)));
    }
    let mut other = state::session();
    let resumed = other.resume(&directory, Same::Graph).unwrap();
    assert_eq!((resumed.id, &resumed.damaged[..]), (CheckpointId { term: 0, step: 17 }, &[][..]));
    assert_eq!((other.step(), other.digest().unwrap()), (17, state::digest(17)));
    assert_eq!(other.cursors().get("train"), Some(state::cursor(17)));
    for variable in session.graph().state.values().iter().map(|v| v.name.clone()).collect::<Vec<_>>() {
        assert_eq!(other.get(&variable).unwrap(), session.get(&variable).unwrap(), "{variable}");
    }
}

#[test]
fn a_demo_in_two_processes_ends_as_one_in_one() {
    let folder = Folder::new("demo");
    let (directory, other) = (folder.at("run"), folder.at("other"));
    let (directory, other) = (directory.to_str().unwrap(), other.to_str().unwrap());
    let whole = demo_digest(&["--passes", "4"]);
    // 23 steps a pass: the first process ends with a checkpoint inside a pass where it is cut at step 40.
    demo_digest(&["--passes", "2", "--save", directory, "--save-every", "40"]);
    assert_eq!(state::names(Path::new(directory)), state::names_of(&["0-40", "0-46"]));
    for name in ["manifest-0-46", "weights-0-46.safetensors", "training-0-46.safetensors"] {
        std::fs::remove_file(Path::new(directory).join(name)).unwrap();
    }
    assert_eq!(demo_digest(&["--passes", "4", "--save", directory, "--resume"]), whole);
    assert_eq!(stdout(&["inspect", directory, "--digest"]).trim(), whole);
    // With a directory that is not there, `--resume` is the first start.
    assert_eq!(demo_digest(&["--passes", "4", "--save", other, "--resume"]), whole);
    let refused = thalweg(&["demo", "--passes", "4", "--save", other]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("add --resume"), "{said}");
}

/// As a person would do it: killed with −9 again and again, wherever it happens to be, and started again each time.
#[test]
fn a_demo_killed_again_and_again_ends_as_if_it_had_not_been() {
    let folder = Folder::new("kills");
    let directory = folder.at("run");
    let arguments = ["demo", "--json", "--passes", "15", "--save-every", "7", "--resume", "--save"];
    let whole = demo_digest(&["--passes", "15"]);
    let mut kills = 0;
    for wanted in [7, 35, 70, 105] {
        let mut child = Command::new(THALWEG)
            .args(arguments)
            .arg(&directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command runs");
        let reached = |wanted| published(&directory).is_ok_and(|ids| ids.last().is_some_and(|id| id.step >= wanted));
        while !reached(wanted) && child.try_wait().expect("it can be asked").is_none() {
            std::thread::yield_now();
        }
        child.kill().expect("it runs, or has ended");
        kills += usize::from(!child.wait().expect("it has ended").success());
        assert!(inspect(&directory).expect("one is whole").manifest.step >= wanted);
    }
    assert_eq!(kills, 4, "every process was killed before its end");
    let resumed = demo_digest(&["--passes", "15", "--resume", "--save", directory.to_str().unwrap()]);
    assert_eq!(resumed, whole);
}

#[test]
fn saving_twice_between_two_steps_is_one_save() {
    let folder = Folder::new("twice");
    let directory = folder.at("run");
    let mut session = state::session();
    state::save(&mut session, &directory, 1);
    state::save(&mut session, &directory, 2);
    state::save(&mut session, &directory, 2);
    assert_eq!(state::names(&directory), state::names_of(&["0-1", "0-2"]));
    // The same step with other values is another checkpoint.
    session.set("a.f32", &Array::from_slice(&[3], &[1f32; 3])).unwrap();
    let saved = session.save_and_wait(&directory).unwrap();
    assert_eq!(saved.id, CheckpointId { term: 1, step: 2 });
    assert_eq!(inspect(&directory).unwrap().manifest.digest.to_string(), session.digest().unwrap());
}

#[test]
fn nobodys_checkpoints_are_crowded_out_by_another_run() {
    let folder = Folder::new("foreign");
    let directory = folder.at("run");
    let mut mine = state::session();
    state::save(&mut mine, &directory, 5);
    let mut theirs = state::session();
    state::set(&mut theirs, 1);
    let error = theirs.save(&directory).unwrap_err();
    assert!(matches!(error, CheckpointError::Foreign { found: CheckpointId { term: 0, step: 5 }, .. }), "{error}");
    // Once resumed, it is theirs as well; and then mine no more, until I look.
    theirs.resume(&directory, Same::Graph).unwrap();
    state::save(&mut theirs, &directory, 6);
    state::set(&mut mine, 7);
    assert!(matches!(mine.save(&directory).unwrap_err(), CheckpointError::Foreign { .. }));
    // A model that begins anew does not go on from anything.
    theirs.reset().unwrap();
    assert!(matches!(theirs.save(&directory).unwrap_err(), CheckpointError::Foreign { .. }));
    assert_eq!(theirs.cursors().get("train"), None, "it has learned from nothing");
    assert_eq!(state::newest(&directory), 6);
}

#[test]
fn two_savers_at_once_are_kept_apart() {
    let folder = Folder::new("busy");
    let directory = folder.at("run");
    let mut session = state::session();
    state::save(&mut session, &directory, 1);
    let lock = std::fs::File::open(directory.join("lock")).unwrap();
    lock.lock().unwrap();
    state::set(&mut session, 2);
    assert!(matches!(session.save(&directory).unwrap_err(), CheckpointError::Busy { .. }));
    lock.unlock().unwrap();
    assert_eq!(session.save(&directory).unwrap().wait().unwrap().id.step, 2);
}

/// A process that is forked while a save is running has the lock's file open too, for as long as it lives.
#[test]
fn a_forked_process_does_not_keep_the_lock() {
    let folder = Folder::new("forked");
    let directory = folder.at("run");
    let mut session = state::session();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                Command::new("true").status().expect("it runs");
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for step in 1..200 {
                state::save(&mut session, &directory, step);
            }
        }));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome.expect("every save succeeds");
    });
}

#[test]
fn what_is_saved_is_the_state_when_save_was_called() {
    let folder = Folder::new("async");
    let mut session = state::session();
    for round in 0..20 {
        let directory = folder.at(&format!("run-{round}"));
        state::set(&mut session, 1);
        let saving = session.save(&directory).unwrap();
        // The session goes on at once.
        state::set(&mut session, 2);
        let saved = saving.wait().unwrap();
        assert_eq!((saved.id.step, saved.digest.to_string()), (1, state::digest(1)));
        assert!(saving.is_done());
        assert_eq!(state::newest(&directory), 1);
        assert_eq!(session.digest().unwrap(), state::digest(2));
        session.reset().unwrap();
    }
    // Nobody waits: the session does, at its end.
    let directory = folder.at("dropped");
    state::set(&mut session, 8);
    session.save(&directory).unwrap();
    drop(session);
    assert_eq!(state::newest(&directory), 8);
}

#[test]
fn an_error_that_nobody_waited_for_comes_out_of_the_next_call() {
    let folder = Folder::new("late");
    let directory = folder.at("run");
    let mut session = state::session();
    state::save(&mut session, &directory, 1);
    // Something in the way that no save may remove.
    let obstacle = directory.join("tmp-weights-0-2.safetensors");
    let block = || std::fs::create_dir(&obstacle).unwrap();
    let fails = |r: Result<(), CheckpointError>| assert!(matches!(r, Err(CheckpointError::Io { .. })), "{r:?}");
    state::set(&mut session, 2);

    block();
    session.save(&directory).unwrap();
    fails(session.save(&directory).map(|_| ()));
    session.save(&directory).unwrap();
    fails(session.wait_saved().map(|_| ()));
    // Once told is enough.
    let saving = session.save(&directory).unwrap();
    fails(saving.wait().map(|_| ()));
    fails(saving.wait().map(|_| ()));
    assert_eq!(session.wait_saved().unwrap(), None);
    assert_eq!(state::newest(&directory), 1);

    std::fs::remove_dir(&obstacle).unwrap();
    session.save(&directory).unwrap();
    assert_eq!(session.wait_saved().unwrap().unwrap().id.step, 2);
    assert_eq!(state::newest(&directory), 2);
}

#[test]
fn only_so_many_are_kept_and_the_newest_always() {
    let folder = Folder::new("keep");
    let mut session = state::session();
    for (keep, expected) in
        [(0, &["0-5"][..]), (1, &["0-5"]), (2, &["0-4", "0-5"]), (9, &["0-1", "0-2", "0-3", "0-4", "0-5"])]
    {
        let directory = folder.at(&format!("keep-{keep}"));
        session.keep_checkpoints(keep);
        for step in 1..=5 {
            state::set(&mut session, step);
            session.save_and_wait(&directory).unwrap();
        }
        assert_eq!(state::names(&directory), state::names_of(expected), "{keep}");
    }
}

fn line(rate: f64, seed: u64, slope: &str, extra: u64) -> Graph {
    let g = Graph::new("line").seed(seed);
    let x = g.input("x", F32, shape![4]);
    let slope = g.parameter(slope, F32, (), Init::Constant(0.5));
    let bias = g.parameter("bias", F32, [extra], Init::Constant(0.0));
    let loss = ((x * slope + bias.sum()).mean() - 1.0).named("loss");
    let loss = (loss * loss).named("error");
    g.program("train").outputs([loss]).update(Sgd::new(rate).minimize(loss));
    g
}

#[test]
fn a_checkpoint_of_another_model_is_refused_with_every_difference() {
    let folder = Folder::new("other");
    let directory = folder.at("run");
    let compile = |g: Graph| g.compile(&Cluster::cpu(1)).unwrap();
    let mut model = compile(line(0.1, 0, "slope", 2));
    let x = Array::from_slice(&[4], &[1f32, 2.0, 3.0, 4.0]);
    model.run("train", feed! { x: &x }).unwrap();
    model.save_and_wait(&directory).unwrap();
    let digest = model.digest().unwrap();

    let mut other = compile(line(0.1, 0, "slop", 3));
    let before = other.digest().unwrap();
    let said = other.resume(&directory).unwrap_err().to_string();
    assert!(said.contains("`slop`, f32[], is not in the file; is it the file's `slope`?"), "{said}");
    assert!(said.contains("`slope` is in the file and not in the model"), "{said}");
    assert!(said.contains("`bias` is f32[3] in the model and f32[2] in the file"), "{said}");
    assert_eq!((other.digest().unwrap(), other.step()), (before, 0), "nothing is loaded by halves");

    // The same variables, but another rate: not the same run.
    let mut faster = compile(line(0.2, 0, "slope", 2));
    let error = faster.resume(&directory).unwrap_err();
    assert!(matches!(error, thalweg::Error::Checkpoint(CheckpointError::OtherGraph { .. })), "{error}");
    let said = compile(line(0.1, 7, "slope", 2)).resume(&directory).unwrap_err().to_string();
    assert!(said.contains("its seed is 0, the model's 7"), "{said}");
    assert_eq!(faster.step(), 0);
    assert_eq!(faster.resume_changed(&directory).unwrap().id.step, 1);
    assert_eq!(faster.digest().unwrap(), digest);
    faster.run("train", feed! { x: &x }).unwrap();
    faster.save_and_wait(&directory).unwrap();
    assert_eq!(inspect(&directory).unwrap().manifest.step, 2);
}

#[test]
fn a_checkpoint_of_a_newer_build_is_not_damage() {
    let folder = Folder::new("newer");
    let directory = folder.at("run");
    let mut session = state::session();
    for step in [1, 2] {
        state::save(&mut session, &directory, step);
    }
    let mut manifest = inspect(&directory).unwrap().manifest;
    manifest.format += 1;
    std::fs::write(directory.join("manifest-0-2"), manifest.to_bytes()).unwrap();
    let error = session.resume(&directory, Same::Graph).unwrap_err();
    assert!(matches!(error, CheckpointError::Version { found: 3, reads: 2, .. }), "{error}");
}

#[test]
fn weights_alone_go_to_another_run_and_to_other_tools() {
    let folder = Folder::new("weights");
    let path = folder.at("model.safetensors");
    let mut session = state::session();
    state::set(&mut session, 5);
    session.save_weights(&path).unwrap();
    let weights = |s: &mut Session| ["b.matrix", "a.bool", "b.scalar \"λ\""].map(|n| s.get(n).unwrap());
    let saved = weights(&mut session);
    let mut other = state::session();
    state::set(&mut other, 9);
    other.load_weights(&path).unwrap();
    assert_eq!(weights(&mut other), saved);
    assert_eq!(other.step(), 9, "no counter, no slot");
    // The weights of a checkpoint are such a file.
    session.save_and_wait(folder.at("run")).unwrap();
    let bytes = |p: &Path| std::fs::read(p).unwrap();
    assert_eq!(bytes(&folder.at("run").join("weights-0-5.safetensors")), bytes(&path));

    let mut stranger =
        Session::new(line(0.1, 0, "slope", 2).finish().unwrap(), Box::new(ReferenceDevice::default())).unwrap();
    let before = stranger.digest().unwrap();
    let error = stranger.load_weights(&path).unwrap_err();
    assert!(matches!(&error, CheckpointError::Mismatch { differences, .. } if differences.len() > 5), "{error}");
    assert_eq!(stranger.digest().unwrap(), before);

    // What both have, and no more, where that is asked for.
    let weight =
        |g: &Graph, name: &str, ty: TensorType| g.parameter(name, ty.dtype, ty.shape, Init::Constant(0.5)).value();
    let partly = |matrix: TensorType| {
        let g = Graph::new("partly");
        let x = weight(&g, "b.matrix", matrix);
        let head = weight(&g, "head", F32.of([3]));
        g.builder().program("read", vec![("x".into(), x), ("head".into(), head)], vec![], Default::default());
        Session::new(g.finish().unwrap(), Box::new(ReferenceDevice::default())).unwrap()
    };
    let matrix = saved[0].ty();
    let mut fits = partly(matrix.clone());
    assert!(fits.load_weights(&path).is_err());
    let unshared = fits.load_shared_weights(&path).unwrap();
    assert_eq!(unshared.missing, ["head"]);
    assert!(unshared.left_over.contains(&"a.bool".into()) && !unshared.left_over.contains(&"b.matrix".into()));
    assert_eq!(fits.get("b.matrix").unwrap(), saved[0]);
    assert_eq!(fits.get("head").unwrap().as_slice::<f32>(), [0.5; 3]);
    let mut wider = partly(matrix.dtype.of([7, 9]));
    let error = wider.load_shared_weights(&path).unwrap_err();
    assert!(matches!(&error, CheckpointError::Mismatch { differences, .. } if differences.len() == 1), "{error}");
    let said = error.to_string();
    assert!(said.contains("[7, 9]") && said.contains(&matrix.to_string()), "{said}");

    // Damage that its header shows, at every byte of the header and every length.
    let whole = bytes(&path);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    for length in (0..whole.len()).rev() {
        file.set_len(length as u64).unwrap();
        assert!(session.load_weights(&path).is_err(), "cut to {length}");
    }
    let odd = whole.len() - whole.iter().rev().position(|b| *b == b'}').unwrap();
    let mut bytes_with_twos = whole.clone();
    bytes_with_twos[odd..].fill(2);
    std::fs::write(&path, bytes_with_twos).unwrap();
    let said = session.load_weights(&path).unwrap_err().to_string();
    assert!(said.contains("`a.bool` has truth values above 1"), "{said}");
    assert_eq!(session.digest().unwrap(), state::digest(5));
}

#[test]
fn a_name_that_the_format_needs_itself_is_refused() {
    let b = thalweg::graph::Builder::new("odd");
    let ty = thalweg::DType::F32.of([3]);
    let kind = thalweg::graph::VarKind::Param;
    b.variable("__metadata__", ty, kind, Init::Constant(1.0), "", Default::default()).unwrap();
    let mut session = Session::new(b.finish().unwrap(), Box::new(ReferenceDevice::default())).unwrap();
    let folder = Folder::new("metadata");
    let error = session.save_and_wait(folder.at("run")).unwrap_err();
    assert!(matches!(&error, CheckpointError::Variable { name, .. } if name == "__metadata__"), "{error}");
}

#[test]
fn a_directory_that_is_a_file_is_said_to_be_one() {
    let folder = Folder::new("file");
    let path = folder.at("file");
    std::fs::write(&path, "mine").unwrap();
    let mut session = state::session();
    let said = session.save(&path).unwrap_err().to_string();
    assert!(said.contains("Not a directory") && said.contains("file"), "{said}");
    assert!(session.resume_or_init(&path, Same::Graph).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn inspect_shows_what_would_be_loaded() {
    let folder = Folder::new("inspect");
    let directory = folder.at("run");
    let mut session = state::session();
    for step in [1, 2] {
        state::save(&mut session, &directory, step);
    }
    let path = directory.to_str().unwrap();
    let text = stdout(&["inspect", path]);
    for part in ["step 2", "bf16[2, 3]", "f32[0, 4]", "counter", "pass 0, next sample 128", "checksum right"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert_eq!(stdout(&["inspect", path, "--digest"]).trim(), state::digest(2));
    let older = directory.join("manifest-0-1");
    assert_eq!(stdout(&["inspect", older.to_str().unwrap(), "--digest"]).trim(), state::digest(1));
    let weights = directory.join("weights-0-2.safetensors");
    assert!(stdout(&["inspect", weights.to_str().unwrap()]).contains("b.empty"));

    std::fs::write(&weights, "gone").unwrap();
    let output = thalweg(&["inspect", path, "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["checkpoint"]["step"], 1);
    assert_eq!(json["damaged"][0]["manifest"], "manifest-0-2");
    assert!(String::from_utf8_lossy(&output.stderr).contains("manifest-0-2 is damaged"));
    let newest = directory.join("manifest-0-2");
    let output = thalweg(&["inspect", newest.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("weights-0-2.safetensors"));
    assert!(String::from_utf8_lossy(&thalweg(&["inspect", "nowhere"]).stderr).contains("no checkpoint in nowhere"));
}
