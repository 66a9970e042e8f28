//! Jobs whose processes are not all within one machine, as far as one machine can show it: they come to each other by an
//! address of the network instead of loopback, encrypted unless they were told not to be. Who has not the key, or does not
//! encrypt, is told so and the job goes on.

#![allow(missing_docs)]

#[path = "common/command.rs"]
mod command;

use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use command::{THALWEG, said, summary, thalweg};

const DEMO: [&str; 6] = ["demo", "--json", "--leaves", "4", "--steps", "50"];

/// An address of this machine that is not loopback. Nothing is sent to find it.
fn address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback())
}

/// A file with a key, which goes with it.
struct Key(PathBuf);

impl Key {
    fn new(name: &str, digit: &str) -> Self {
        let path = std::env::temp_dir().join(format!("thalweg-apart-{name}-{}", std::process::id()));
        std::fs::write(&path, digit.repeat(64)).expect("room");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("it is mine");
        Self(path)
    }
    fn path(&self) -> &str {
        self.0.to_str().expect("a plain path")
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn encrypted_processes_give_the_digest_of_one() {
    let one = summary(&thalweg(&DEMO));
    let launch = ["launch", "-n", "2", "--tls", "--", "thalweg"];
    let several = summary(&thalweg(&[&launch[..], &DEMO].concat()));
    assert_eq!((&several["digest"], several["world"].as_u64()), (&one["digest"], Some(2)), "{several}");
}

/// One worker is started by the launcher, the other joins with the key, by the network's address.
#[test]
fn a_worker_from_elsewhere_joins_by_tls_or_where_all_were_told_so_plainly() {
    let Some(ip) = address() else {
        println!("skipped: this machine has no address but loopback");
        return;
    };
    let one = summary(&thalweg(&DEMO));
    for (name, way, other) in [("tls", None, "--plaintext"), ("plain", Some("--plaintext"), "--tls")] {
        let (key, wrong) = (Key::new(name, "a"), Key::new(&format!("{name}-wrong"), "b"));
        let port = TcpListener::bind((ip, 0)).and_then(|l| l.local_addr()).expect("a port").to_string();
        let mut launch = Command::new(THALWEG);
        launch.args(["launch", "-n", "1", "--elsewhere", "1", "--listen", &port, "--key", key.path()]).args(way);
        launch.args(["--", "thalweg"]).args(DEMO).stdout(Stdio::piped()).stderr(Stdio::piped());
        let launched = launch.spawn().expect("it starts");
        let join = |key: &Key, way: Option<&str>| {
            let started = Instant::now();
            loop {
                let worker =
                    Command::new(THALWEG).args(["worker", "--join", &port, "--key", key.path()]).args(way).output();
                let out = worker.expect("it starts");
                // The driver may not be there yet.
                if !said(&out).contains("Connection refused") || started.elapsed() > Duration::from_secs(30) {
                    return out;
                }
                thread::sleep(Duration::from_millis(10));
            }
        };
        let stranger = join(&wrong, way);
        let text = said(&stranger);
        assert!(stranger.status.code() == Some(1) && text.contains("certificate") | text.contains("closed"), "{text}");
        let stranger = join(&key, Some(other));
        assert!(stranger.status.code() == Some(1) && said(&stranger).contains("TLS"), "{}", said(&stranger));
        let worker = join(&key, way);
        assert!(worker.status.success(), "{}", said(&worker));
        let several = summary(&launched.wait_with_output().expect("it ends"));
        assert_eq!((&several["digest"], several["world"].as_u64()), (&one["digest"], Some(2)), "{several}");
    }
}

#[test]
fn what_is_not_protected_is_refused() {
    let key = Key::new("refused", "a");
    // Nobody has these addresses here: it is said before anybody asks for them.
    for (arguments, says) in [
        (&["--join", "127.0.0.1:1", "--listen", "192.0.2.77:0"][..], "--tls encrypts all of them, --plaintext says"),
        (&["--join", "127.0.0.1:1", "--tls", "--plaintext"], "cannot be used with"),
    ] {
        let out = thalweg(&[&["worker", "--key", key.path()], arguments].concat());
        assert!(!out.status.success() && said(&out).contains(says), "{arguments:?}: {}", said(&out));
    }
    for (arguments, says) in [
        (&["--listen", "0.0.0.0:0"][..], "0.0.0.0:0 is no address that they can reach"),
        (&["--elsewhere", "1"], "--key"),
        (&["--elsewhere", "1", "--listen", "192.0.2.77:1"], "--key"),
    ] {
        let out = thalweg(&[&["launch", "-n", "1"], arguments, &["--", "thalweg"], &DEMO].concat());
        assert!(!out.status.success() && said(&out).contains(says), "{arguments:?}: {}", said(&out));
    }
}
