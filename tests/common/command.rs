//! The command as a process: what it prints, and a folder for what it writes. It is apart from its neighbours because most tests that start
//! processes want nothing of models.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The command.
pub(crate) const THALWEG: &str = env!("CARGO_BIN_EXE_thalweg");

/// Runs it, whatever comes of it.
pub(crate) fn thalweg(arguments: &[&str]) -> Output {
    Command::new(THALWEG).args(arguments).output().expect("it starts")
}

/// The same; its processes crash as the plan in this folder says.
pub(crate) fn with_crashes(arguments: &[&str], crashes: &Folder) -> Output {
    Command::new(THALWEG).args(arguments).env("THALWEG_CRASH", crashes.path()).output().expect("it starts")
}

/// What was said on stderr.
pub(crate) fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// What a run that has to succeed printed.
#[track_caller]
pub(crate) fn printed(out: &Output) -> String {
    assert!(out.status.success(), "{}", said(out));
    String::from_utf8(out.stdout.clone()).expect("text")
}

/// The last line of a run that has to succeed: its summary.
#[track_caller]
pub(crate) fn summary(out: &Output) -> serde_json::Value {
    serde_json::from_str(printed(out).lines().last().expect("a summary")).expect("JSON")
}

/// A directory of this test's own, removed when it is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("thalweg-{name}-{}", std::process::id()));
        _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("room for a folder");
        Self(path)
    }
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
impl Drop for Folder {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}
