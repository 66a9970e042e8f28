//! All-reduce as the kit has it: the sum on every rank, and as many bytes as there have to be.

// Workers are started as people start them.
#![cfg(target_os = "linux")]
#![allow(missing_docs)]

use std::process::Command;

use serde_json::Value;

/// What a case says of itself. It has checked every element of every rank's sum, unless it replays nothing.
fn reduced(case: &str, arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
    let out =
        command.args(["kit", "--json", "--reps", "1", "--case", case]).args(arguments).output().expect("it starts");
    assert!(out.status.success(), "{case} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("a line of JSON")
}

/// Short rows go whole to everybody; of long ones every rank sends 2 (N − 1) / N, the least there is, by a tree and around a
/// ring. A null replay sends the same.
#[test]
fn every_rank_has_the_sum_for_as_many_bytes_as_there_have_to_be() {
    let long = 2_500_000;
    for (bytes, world, least) in
        [(4096, 2, 4096), (4096, 4, 3 * 4096), (65536, 4, 98304), (long, 2, long), (long, 4, 3_750_000)]
    {
        let case = format!("allreduce_{bytes}_p{world}");
        for how in [&["--calls", "3"][..], &["--calls", "1", "--reduction", "fast"], &["--calls", "2", "--null"]] {
            let said = reduced(&case, how);
            let sent = &said["extra"]["sent_per_rank"];
            assert_eq!((&said["case"], sent.as_u64()), (&Value::from(&*case), Some(least)), "{how:?}: {said}");
            assert!(said["median_s"].as_f64().is_some_and(|s| s > 0.0), "{said}");
        }
    }
}

#[test]
fn what_is_no_row_or_no_job_is_said() {
    for (case, arguments, says) in
        [("allreduce_4095", &["--procs", "2"][..], "no row of f32"), ("allreduce_4096", &[], "--procs has to say")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
        let out = command.args(["kit", "--case", case]).args(arguments).output().expect("it starts");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && said.contains(says), "{case}: {said}");
    }
}
