//! Data that workers read themselves, as people have it: files below a root, jobs of several processes, and whoever is killed.
//! The driver feeds nothing, and the digest is that of one process that was fed everything.

// Processes are ended with SIGKILL.
#![cfg(target_os = "linux")]
#![allow(missing_docs)]

#[path = "common/command.rs"]
mod command;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use command::{Folder, THALWEG, said, thalweg, with_crashes};
use thalweg::data::{Csv, Dataset, Files, digits};
use thalweg::prelude::*;

/// A folder as a root.
fn root(folder: &Folder) -> String {
    format!("data={}", folder.path().display())
}

/// An array as NumPy writes it.
fn npy(path: &Path, array: &Array) {
    let descr = match array.dtype() {
        F32 => "<f4",
        I32 => "<i4",
        I64 => "<i8",
        other => panic!("{other} is not written here"),
    };
    let shape: String = array.shape().iter().map(|n| format!("{n}, ")).collect();
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let padding = 63 - (10 + header.len()) % 64;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(array.bytes());
    std::fs::write(path, bytes).expect("room");
}

/// The training digits below a root, in the folder `digits`.
fn with_digits(name: &str) -> (Folder, Dataset) {
    let (folder, (train, _)) = (Folder::new(&format!("sources-{name}")), digits().expect("they are sound"));
    let digits = folder.at("digits");
    std::fs::create_dir_all(&digits).expect("room");
    train.feeds().into_iter().for_each(|(name, array)| npy(&digits.join(format!("{name}.npy")), array));
    (folder, train)
}

/// The last line of a demo over four leaves.
fn summary(before: &[&str], steps: &str, after: &[&str], crashes: Option<&Folder>) -> (serde_json::Value, String) {
    let demo = ["demo", "--json", "--leaves", "4", "--steps", steps];
    let arguments = [before, &demo, after].concat();
    let out = crashes.map_or_else(|| thalweg(&arguments), |crashes| with_crashes(&arguments, crashes));
    (command::summary(&out), said(&out))
}

/// Fifty steps: two passes with a last short batch each, and a part of a third.
#[test]
fn no_sample_passes_through_the_driver() {
    let (folder, _) = with_digits("feeds");
    let root = root(&folder);
    let (fed, _) = summary(&[], "50", &[], None);
    for (strategy, worlds) in
        [("dp", &["1", "2", "3", "4"][..]), ("zero1", &["2", "3"]), ("pp", &["2"]), ("ps", &["3"])]
    {
        for world in worlds {
            let launch = ["launch", "-n", world, "--root", &root, "--", "thalweg"];
            let of = ["--strategy", strategy, "--source", "data/digits"];
            let (read, _) = summary(&launch, "50", &of, None);
            assert_eq!((&read["digest"], &read["bytes_fed"]), (&fed["digest"], &0.into()), "{strategy} on {world}");
            let messages = &read["control_messages"]["sent"];
            let each = 50 * world.parse::<u64>().expect("a number");
            // A pass begins with the samples that it says, and nobody is asked for anything within.
            assert!(messages["run"].as_u64() >= Some(each) && messages["open"].as_u64() <= Some(4), "{messages}");
        }
    }
    let (there, _) = summary(&["launch", "-n", "2", "--", "thalweg"], "50", &[], None);
    let (samples, one) = (50 * 64 - 2 * (64 - 1437 % 64), 4 * (64 + 1));
    assert_eq!(
        (&there["digest"], &there["bytes_fed"]),
        (&fed["digest"], &(samples * one).into()),
        "what is fed is counted"
    );
    // Where there are no workers this process reads.
    for (with, bytes) in
        [(["--source", "data/digits", "--root", &root], 0), (["--source", "digits", "--batch", "64"], 0)]
    {
        let (here, _) = summary(&[], "50", &with, None);
        assert_eq!((&here["digest"], &here["bytes_fed"]), (&fed["digest"], &bytes.into()), "{with:?}");
    }
}

/// Workers while they read and while they compute, the driver too: what was lost is read again.
#[test]
fn whoever_is_killed_the_samples_are_the_same() {
    let (folder, _) = with_digits("kills");
    let (crashes, saves, root) = (Folder::new("sources-crashes"), Folder::new("sources-saves"), root(&folder));
    let (fed, _) = summary(&[], "120", &[], None);
    let kills =
        ["worker1 reading 20", "worker2 body-done 35", "driver voted 60", "worker0 reading 90", "driver committing 20"];
    std::fs::write(crashes.at("plan"), kills.map(|kill| format!("{kill}\n")).concat()).expect("room");
    let shared = format!("saves={}", saves.path().display());
    let launch = ["launch", "-n", "3", "--restarts", "9", "--root", &root, "--root", &shared, "--", "thalweg"];
    let save =
        ["--save", saves.path().to_str().expect("a plain path"), "--save-every", "25", "--source", "data/digits"];
    let (read, said) = summary(&launch, "120", &save, Some(&crashes));
    for (line, kill) in (1..).zip(kills) {
        assert!(crashes.at(&format!("fired-{line}")).exists(), "`{kill}` never came:\n{said}");
    }
    assert_eq!((&read["digest"], &read["steps"]), (&fed["digest"], &120.into()), "{said}");
    assert_eq!(read["bytes_fed"], 0, "{said}");
}

/// Thirty steps that are fed, twenty that are read, and the other way round: a cursor of one is a cursor of the other.
#[test]
fn a_run_goes_on_with_the_other_kind() {
    let (folder, _) = with_digits("resumes");
    let (root, saves) = (root(&folder), Folder::new("sources-resumed"));
    let (fed, _) = summary(&[], "50", &[], None);
    let read = ["--source", "data/digits"];
    let launch = ["launch", "-n", "2", "--root", &root, "--", "thalweg"];
    for (i, (first, then)) in [(&read[..], &[][..]), (&[], &read)].into_iter().enumerate() {
        let save = saves.at(&i.to_string());
        let save = ["--save", save.to_str().expect("a plain path")];
        summary(&launch, "30", &[&save[..], first].concat(), None);
        let (resumed, _) = summary(&launch, "50", &[&save[..], &["--resume"], then].concat(), None);
        assert_eq!((&resumed["digest"], &resumed["steps"]), (&fed["digest"], &50.into()));
    }
}

#[test]
fn what_is_wrong_is_said_with_who_where_and_what() {
    let (folder, train) = with_digits("wrong");
    let root = root(&folder);
    let secret = Folder::new("sources-secret");
    npy(&secret.at("image.npy"), train.get("image").expect("it is there"));
    std::os::unix::fs::symlink(secret.path(), folder.at("out")).expect("room");
    // A link in the folder that leads out; one array that is shorter; one that is no array; other pictures.
    for bad in ["linked", "short", "damaged", "shape"] {
        std::fs::create_dir(folder.at(bad)).expect("room");
        let put = |name: &str| std::fs::copy(folder.at("digits").join(name), folder.at(bad).join(name));
        put("label.npy").expect("room");
        let image = folder.at(bad).join("image.npy");
        match bad {
            "linked" => std::os::unix::fs::symlink(secret.at("image.npy"), image).expect("room"),
            "short" => npy(&image, train.select(&[0, 1, 2]).get("image").expect("it is there")),
            "damaged" => std::fs::write(image, "no array").expect("room"),
            _ => npy(&image, &Array::zeros(F32, &[1437, 1, 8, 9])),
        }
    }
    let misplaced = ["launch", "-n", "1", "--", "thalweg", "demo", "--source", "data/digits", "--root", &root];
    let out = thalweg(&misplaced);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(1) && said.contains("`thalweg launch --root NAME=DIR`"), "{said}");
    let absolute = format!("data/{}", secret.path().display());
    for (source, says) in [
        ("data/none", &["rank 0", "`none` below root `data`", "none: No such file"][..]),
        ("other/digits", &["rank 0", "there is no root `other` here; it has `data`", "--root other=DIRECTORY"]),
        ("data/../digits", &["`../digits` below root `data`", "no name below a root"]),
        (&absolute, &["no name below a root"]),
        ("data/out", &["leads out of the root"]),
        ("data/linked", &["leads out of the root"]),
        ("data/short", &["`short` below root `data`", "`label` has 1437 rows, `image` has 3"]),
        ("data/damaged", &["damaged/image.npy"]),
        ("data/digits.npz", &["digits.npz: No such file"]),
        (
            "data/shape",
            &["input `image` is f32[batch, 1, 8, 8]", "f32[64, 1, 8, 9] was fed", "it is read from `shape` below"],
        ),
        ("nonsense", &["ROOT/PATH"]),
    ] {
        let launch =
            ["launch", "-n", "2", "--root", &root, "--", "thalweg", "demo", "--steps", "5", "--source", source];
        let out = thalweg(&launch);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{source}: {said}");
        says.iter().for_each(|says| assert!(said.contains(says), "{source}: {said}"));
    }
}

/// The same loop in one process, over two devices, and what is wrong with a table.
#[test]
fn a_table_is_read_as_it_is_fed() {
    let folder = Folder::new("sources-table");
    let text: String = (0..40).map(|i| format!("{i},{}\n", 3 * i + 1)).collect();
    std::fs::write(folder.at("lines.csv"), format!("hours,pages\n{text}")).expect("room");
    let columns = Csv::new().number("x", F32, "hours").number("y", F32, "pages");
    let line = || {
        let g = Graph::new("line").seed(0);
        let n = g.dim("n", 1..=64);
        let (x, y) = (g.input("x", F32, shape![n]), g.input("y", F32, shape![n]));
        let slope = g.parameter("slope", F32, (), Init::Constant(0.0));
        let error = x * slope - y;
        let loss = (error * error).mean().named("loss");
        g.program("train").outputs([loss]).update(Sgd::new(1e-4).minimize(loss));
        g.compile_with(&Cluster::cpus(2), &Strategy::data_parallel()).expect("it fits")
    };
    let (mut read, mut fed) = (line(), line());
    read.add_root(&root(&folder)).expect("it is there");
    let files = Files::below("data", "lines.csv").csv(columns.clone());
    // 40 samples: five batches of seven and one of five, in each of three passes.
    let mut steps = 0;
    for batch in read.batches_on_workers(&files.shuffle(4).batch(7).epochs(3)).expect("it opens") {
        assert_eq!(batch.len(), if steps % 6 == 5 { 5 } else { 7 });
        read.run("train", &batch).expect("it runs");
        steps += 1;
    }
    assert_eq!(steps, 18);
    let data = columns.read(folder.at("lines.csv")).expect("it is sound");
    for batch in fed.batches(&data.shuffle(4).batch(7).epochs(3)) {
        fed.run("train", &batch.expect("it is sound").feeds()).expect("it runs");
    }
    assert_eq!(read.digest(), fed.digest());
    assert_eq!(read.session().cursors().get("data"), fed.session().cursors().get("data"));
    // All that is there has been read: a loop that is entered again has nothing to do.
    assert_eq!(read.batches_on_workers(&files.shuffle(4).batch(7).epochs(3)).expect("it opens").count(), 0);
    let said = read.batches_on_workers(&files.shuffle(5).batch(7)).expect_err("another order").to_string();
    assert!(said.contains("it was shuffled with seed 4, and now with 5"), "{said}");
    for (files, says) in [
        (Files::below("data", "lines.csv"), "say which columns to read"),
        (Files::below("data", "lines.csv").csv(columns.clone().number("z", F32, "words")), "words"),
        (files.clone().input("x", "weight"), "there is no field `weight`; there are `x`, `y`"),
        (Files::below("other", "lines.csv").csv(columns), "there is no root `other` here; it has `data`"),
        (Files::built_in("words"), "no data set `words` comes with this program"),
    ] {
        let said = read.open(&files).expect_err("it is wrong").to_string();
        assert!(said.contains(says), "{said}");
    }
}

/// Processes that an engine starts have no flags of ours: their roots are in the environment.
#[test]
fn an_engine_says_roots_by_the_environment() {
    let (folder, _) = with_digits("engine");
    let port = (40_000 + std::process::id() % 20_000).to_string();
    let start = |rank: usize, roots: &str| {
        Command::new(THALWEG)
            .args(["demo", "--json", "--leaves", "4", "--steps", "30", "--source", "data/digits"])
            .envs([("RANK", &*rank.to_string()), ("WORLD_SIZE", "3"), ("THALWEG_ROOTS", roots)])
            .envs([("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &*port)])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts")
    };
    let (fed, _) = summary(&[], "30", &[], None);
    let all: Vec<Child> = (0..3).map(|rank| start(rank, &root(&folder))).collect();
    let ended = all.into_iter().map(|process| process.wait_with_output().expect("it ends"));
    let ended: Vec<Output> = ended.collect();
    ended.iter().for_each(|out| assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr)));
    let last = String::from_utf8_lossy(&ended[0].stdout).lines().last().map(str::to_string);
    let last: serde_json::Value = serde_json::from_str(&last.expect("a summary")).expect("JSON");
    assert_eq!((&last["digest"], &last["bytes_fed"]), (&fed["digest"], &0.into()));
    let out = start(0, "data=/nowhere/at/all").wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(1) && said.contains("THALWEG_ROOTS: /nowhere/at/all: No such"), "{said}");
}
