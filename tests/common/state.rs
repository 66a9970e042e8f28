//! A session whose variables are of every type and kind, and of every odd size, with values that follow from a number:
//! what tests of checkpoints save and expect back.

use std::path::Path;

use thalweg::graph::builder::Builder;
use thalweg::graph::{DType, Graph, Init, Shape, Site, VarKind};
use thalweg::runtime::checkpoint::inspect;
use thalweg::runtime::{Cursor, ReferenceDevice, Session};

/// The names, types and kinds.
fn variables() -> Vec<(String, DType, Vec<u64>, VarKind)> {
    let mut out: Vec<_> = DType::ALL
        .iter()
        .zip(VarKind::ALL.iter().cycle())
        .map(|(dtype, kind)| (format!("a.{dtype}"), *dtype, vec![3], *kind))
        .collect();
    out.push(("b.empty".into(), DType::F32, vec![0, 4], VarKind::Param));
    out.push(("b.none".into(), DType::F16, vec![5, 0], VarKind::Slot));
    out.push(("b.scalar \"λ\"".into(), DType::F64, vec![], VarKind::Stat));
    out.push(("b.matrix".into(), DType::BF16, vec![2, 3], VarKind::Param));
    out.push(("step".into(), DType::I64, vec![], VarKind::Counter));
    out
}

/// The graph, with one more name for its own sake.
pub(crate) fn graph(name: &str) -> Graph {
    let b = Builder::new(name);
    for (name, dtype, shape, kind) in variables() {
        let shape = Shape(shape.into_iter().map(Into::into).collect());
        b.variable(&name, dtype.of(shape), kind, Init::Constant(0.0), "", Site::default()).expect("a fine variable");
    }
    b.finish().expect("a fine graph")
}

/// A session of it.
pub(crate) fn session() -> Session {
    Session::new(graph("everything"), Box::new(ReferenceDevice::default())).expect("it is small")
}

/// Sets every variable, and the place of the data, to what they are at `step`.
pub(crate) fn set(session: &mut Session, step: u64) {
    for (v, (name, ..)) in variables().iter().enumerate() {
        let mut value = session.get(name).expect("it is there");
        let truth = value.dtype() == DType::Bool;
        for (i, byte) in value.bytes_mut().iter_mut().enumerate() {
            let x = (step as usize * 101 + v * 37 + i * 11) as u8;
            *byte = if truth { x % 2 } else { x };
        }
        if name == "step" {
            value.as_mut_slice::<i64>()[0] = step as i64;
        }
        session.set(name, &value).expect("the same type");
    }
    session.cursors().deliver("train", cursor(step));
    session.cursors().commit();
}

/// Where the data stands at `step`.
pub(crate) fn cursor(step: u64) -> Cursor {
    Cursor { fingerprint: [7; 32], seed: 3, pass: step / 10, next: step % 10 * 64 }
}

/// The digest of what [`set`] sets.
pub(crate) fn digest(step: u64) -> String {
    let mut session = session();
    set(&mut session, step);
    session.digest().expect("it can be read")
}

/// Saves the state of `step` to `directory`, with `keep` checkpoints kept.
#[track_caller]
pub(crate) fn save(session: &mut Session, directory: &Path, step: u64) {
    set(session, step);
    session.keep_checkpoints(2);
    session.save_and_wait(directory).unwrap_or_else(|e| panic!("{e}"));
}

/// The step of the newest whole checkpoint, whose digest must be that of the step.
#[track_caller]
pub(crate) fn newest(directory: &Path) -> u64 {
    let found = inspect(directory).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(found.damaged, []);
    assert_eq!(found.manifest.digest.to_string(), digest(found.manifest.step));
    found.manifest.step
}

/// Names in a directory, sorted.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

/// What a directory holds that has just these checkpoints and nothing unfinished.
pub(crate) fn names_of(checkpoints: &[&str]) -> Vec<String> {
    let files = |id: &&str| {
        [format!("manifest-{id}"), format!("training-{id}.safetensors"), format!("weights-{id}.safetensors")]
    };
    let mut names: Vec<String> = checkpoints.iter().flat_map(files).chain(["lock".into()]).collect();
    names.sort();
    names
}

/// Copies a directory of files.
pub(crate) fn copy(from: &Path, to: &Path) {
    _ = std::fs::remove_dir_all(to);
    std::fs::create_dir(to).expect("room");
    for name in names(from) {
        std::fs::copy(from.join(&name), to.join(&name)).expect("room");
    }
}
