//! Ends this process at a named point, as a test wants it: as if it had been killed there. Not a feature of the build, so
//! that what is tested is what people run; where the variable is not set, a point costs a look at one word.
//!
//! Nor does the rest of the world always carry what it was given: at [some points](fires) a bit is turned instead.
//!
//! `THALWEG_CRASH` names a folder. A line `worker2 mid-hop 40` of its file `plan` ends worker 2 when it passes that point for
//! the fortieth time, once: `fired-3` says that the third line has done so, to later processes as well. So a job whose
//! processes are started anew goes through all lines, and the folder shows that it did.

use std::fs::{File, read_to_string};
use std::path::{Path, PathBuf};
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
    if fires(name) {
        die(name);
    }
}

/// Passes a point at which something else goes wrong, which is the caller's to do: whether it does, this time.
pub fn fires(name: &str) -> bool {
    let plan = PLAN.get_or_init(read);
    !plan.is_empty() && pass(plan, name)
}

fn read() -> Vec<Line> {
    let Some(folder) = std::env::var_os(CRASH_VARIABLE).map(PathBuf::from) else { return vec![] };
    parse(&read_to_string(folder.join("plan")).unwrap_or_default(), &folder)
}

/// Lines that make no sense plan nothing.
fn parse(text: &str, folder: &Path) -> Vec<Line> {
    let line = |(i, line): (usize, &str)| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [who, point, count] = words[..] else { return None };
        let left = AtomicU64::new(count.parse().ok()?);
        Some(Line { who: who.into(), point: point.into(), left, marker: folder.join(format!("fired-{}", i + 1)) })
    };
    text.lines().enumerate().filter_map(line).collect()
}

fn me() -> &'static str {
    NAME.get().map_or("", String::as_str)
}

/// Whether a line is due at this point, and has not been in another process.
fn pass(plan: &[Line], point: &str) -> bool {
    let mut fires = false;
    for line in plan.iter().filter(|l| l.point == point && l.who == me()) {
        let due = line.left.fetch_sub(1, Ordering::Relaxed) == 1;
        // One at a time: another one that is due is left to the process that takes this one's place.
        fires = fires || (due && File::create_new(&line.marker).is_ok());
    }
    fires
}

fn die(point: &str) {
    eprintln!("{} (process {}) is killed at {point}, as planned", me(), std::process::id());
    // What this thread has said by now is to be heard: another thread writes to sockets.
    std::thread::sleep(Duration::from_millis(10));
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_make_no_sense_plan_nothing() {
        let text = "worker2 mid-hop 40\n\n  driver\tvoted 1 \nworker1 body\na b c\na b -1\na b 99999999999999999999\na b 1 d\n\u{0} \u{fffd} 0\n";
        let plan = parse(text, Path::new("crashes"));
        let read: Vec<_> = plan.iter().map(|l| (&*l.who, &*l.point, l.left.load(Ordering::Relaxed))).collect();
        assert_eq!(read, [("worker2", "mid-hop", 40), ("driver", "voted", 1), ("\u{0}", "\u{fffd}", 0)]);
        let markers: Vec<_> = plan.iter().map(|l| l.marker.to_string_lossy().into_owned()).collect();
        assert_eq!(markers, ["crashes/fired-1", "crashes/fired-3", "crashes/fired-9"]);
    }
}
