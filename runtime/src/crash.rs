//! Ends this process at a named point, as a test wants it: as if it had been killed there. Not a feature of the build, so
//! that what is tested is what people run; where the variable is not set, a point costs a look at one word.
//!
//! `THALWEG_CRASH` names a folder. A line `worker2 mid-hop 40` of its file `plan` ends worker 2 when it passes that point for
//! the fortieth time, once: `fired-3` says that the third line has done so, to later processes as well. So a job whose
//! processes are started anew goes through all lines, and the folder shows that it did.

use std::fs::{File, read_to_string};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Names the folder.
pub const CRASH_VARIABLE: &str = "THALWEG_CRASH";

struct Line {
    who: String,
    point: String,
    left: AtomicU64,
    marker: PathBuf,
}

static PLAN: OnceLock<Vec<Line>> = OnceLock::new();
static NAME: OnceLock<String> = OnceLock::new();

/// Says who this process is; the first who says so is right.
pub fn this_is(name: &str) {
    let _ = NAME.set(name.into());
}

/// Passes a point.
pub fn point(name: &str) {
    let plan = PLAN.get_or_init(read);
    if !plan.is_empty() {
        pass(plan, name);
    }
}

fn read() -> Vec<Line> {
    let Some(folder) = std::env::var_os(CRASH_VARIABLE).map(PathBuf::from) else { return vec![] };
    let text = read_to_string(folder.join("plan")).unwrap_or_default();
    let line = |(i, line): (usize, &str)| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [who, point, count] = words[..] else { return None };
        let left = AtomicU64::new(count.parse().ok()?);
        Some(Line { who: who.into(), point: point.into(), left, marker: folder.join(format!("fired-{}", i + 1)) })
    };
    text.lines().enumerate().filter_map(line).collect()
}

fn pass(plan: &[Line], point: &str) {
    let name = NAME.get().map_or("", String::as_str);
    for line in plan.iter().filter(|l| l.point == point && l.who == name) {
        let fires = line.left.fetch_sub(1, Ordering::Relaxed) == 1;
        if fires && File::create_new(&line.marker).is_ok() {
            eprintln!("{name} (process {}) is killed at {point}, as planned", std::process::id());
            // What this thread has said by now is to be heard: another thread writes to sockets.
            std::thread::sleep(Duration::from_millis(10));
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }
}
