//! Two hosts as network namespaces (`examples/two_hosts`), skipped by name where there are none: a job over both has the digest of one process, also where the cable
//! between them is pulled and put back.

#![cfg(target_os = "linux")]
#![allow(missing_docs)]

#[path = "common/required.rs"]
mod required;

use std::process::Command;

#[test]
fn a_job_over_two_hosts_survives_a_partition() {
    let root = rustix::process::geteuid().is_root();
    let spaces = root && Command::new("ip").args(["netns", "list"]).output().is_ok_and(|out| out.status.success());
    if !spaces {
        required::skip("it takes root and `ip netns`", "netns");
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/two_hosts/run.sh");
    let out = Command::new(script).arg(env!("CARGO_BIN_EXE_thalweg")).output().expect("it starts");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    println!("{said}");
    assert!(out.status.success(), "{said}\n{}", String::from_utf8_lossy(&out.stderr));
    let seen = said.split("seen after ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    assert!(seen.expect("a figure") < 4.5, "{said}");
    assert_eq!(said.matches("the digest of one process").count(), 2, "{said}");
}
