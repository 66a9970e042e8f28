//! One job of which somebody is killed again and again, the driver too, each time at another point: in the middle of a hop, with
//! the body done on one worker only, between one commit and the next, in a snapshot, before and after a manifest is published,
//! while a term begins. It ends with the digest of a job that nobody disturbed.

// Processes are ended with SIGKILL.
#![cfg(target_os = "linux")]
#![allow(missing_docs)]

#[path = "common/command.rs"]
mod command;

use std::time::Instant;

use command::{Folder, said, summary, thalweg, with_crashes};

const STEPS: &str = "400";

/// Who is killed at which point, when it passes it for which time.
const KILLS: &[(&str, &str, u32)] = &[
    // A first term that does not come about.
    ("worker3", "meeting", 1),
    ("driver", "assembling", 2),
    ("worker1", "loading", 1),
    // In steps.
    ("worker0", "mid-hop", 90),
    ("worker2", "body-done", 30),
    ("worker1", "committing", 40),
    ("worker3", "committed", 55),
    ("driver", "voted", 60),
    ("driver", "committing", 130),
    // In saves.
    ("driver", "snapshot", 3),
    ("driver", "unpublished", 4),
    ("driver", "published", 3),
    ("worker2", "snapshot", 2),
    ("worker1", "writing", 2),
    // While what was lost is made again.
    ("worker2", "restoring", 30),
    ("worker0", "joining", 3),
    ("driver", "restoring", 40),
];

#[test]
fn whoever_is_killed_wherever_the_numbers_are_the_same() {
    let demo = ["demo", "--json", "--leaves", "4", "--steps", STEPS];
    let undisturbed = summary(&thalweg(&demo));
    let (crashes, saves) = (Folder::new("chaos-crashes"), Folder::new("chaos-saves"));
    let plan: Vec<String> = KILLS.iter().map(|(who, point, count)| format!("{who} {point} {count}\n")).collect();
    std::fs::write(crashes.at("plan"), plan.concat()).expect("room");
    let restarts = (KILLS.len() + 4).to_string();
    let root = format!("saves={}", saves.path().display());
    let launch = ["launch", "-n", "4", "--restarts", &restarts, "--root", &root, "--", "thalweg"];
    let save = ["--save", saves.path().to_str().expect("a plain path"), "--save-every", "20"];
    let started = Instant::now();
    let out = with_crashes(&[&launch[..], &demo, &save].concat(), &crashes);
    let said = said(&out);
    println!("{said}\n{} kills in {:.1} s", KILLS.len(), started.elapsed().as_secs_f64());
    let disturbed = summary(&out);
    for (line, (who, point, count)) in (1..).zip(KILLS) {
        let fired = crashes.at(&format!("fired-{line}")).exists();
        assert!(fired, "{who} never came to {point} for the {count}. time:\n{said}");
    }
    assert_eq!(disturbed["digest"], undisturbed["digest"], "{said}");
    assert_eq!(disturbed["steps"], undisturbed["steps"]);
}

/// A trace of a job that goes on with one worker less: it holds what was done since, and can be read.
#[test]
fn a_trace_outlives_a_worker() {
    let crashes = Folder::new("chaos-traced");
    let file = crashes.at("trace.json");
    std::fs::write(crashes.at("plan"), "worker1 body-done 30\n").expect("room");
    for (restarts, devices) in [("1", 2), ("0", 1)] {
        let _ = std::fs::remove_file(crashes.at("fired-1"));
        let launch =
            ["launch", "-n", "2", "--restarts", restarts, "--", "thalweg", "demo", "--leaves", "2", "--steps", "60"];
        let trace = ["--trace", file.to_str().expect("a plain path"), "--profile"];
        let out = with_crashes(&[&launch[..], &trace].concat(), &crashes);
        let said = said(&out);
        assert!(out.status.success() && said.contains("going on with"), "{said}");
        let text = std::fs::read_to_string(&file).expect("it was written");
        let trace: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let events = trace["traceEvents"].as_array().expect("events");
        let of_workers: std::collections::BTreeSet<u64> =
            events.iter().filter(|e| e["cat"] == "launch").filter_map(|e| e["pid"].as_u64()).collect();
        assert!(events.len() > 1000, "{} events", events.len());
        assert_eq!(of_workers.len(), devices, "{} events of {of_workers:?}", events.len());
    }
}
