//! Damaged checkpoints: every flipped bit and every missing or mixed file is found and named, the checkpoint before is loaded
//! instead, and a run goes on above the damage without losing what is whole.

mod common;

use std::os::unix::fs::FileExt;

use common::command::Folder;
use common::state;
use thalweg::runtime::checkpoint::inspect;
use thalweg::runtime::{CheckpointError, Same};

/// Two checkpoints; every bit of every file of the newer one is turned, one at a time.
#[test]
fn every_flipped_bit_is_found_and_the_checkpoint_before_is_loaded() {
    let folder = Folder::new("flips");
    let directory = folder.at("run");
    let mut session = state::session();
    for step in [1, 2] {
        state::save(&mut session, &directory, step);
    }
    let mut flips = 0;
    for name in ["manifest-0-2", "weights-0-2.safetensors", "training-0-2.safetensors"] {
        let path = directory.join(name);
        let whole = std::fs::read(&path).unwrap();
        // In place: a file that is written anew is flushed by some file systems, 37,000 times.
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        for bit in 0..8 * whole.len() {
            let byte = whole[bit / 8] ^ 1 << (bit % 8);
            file.write_all_at(&[byte], bit as u64 / 8).unwrap();
            let resumed = session.resume(&directory, Same::Graph).unwrap_or_else(|e| panic!("{name}, bit {bit}: {e}"));
            assert_eq!(resumed.id.step, 1, "{name}: bit {bit} was turned and not found");
            let [damaged] = &resumed.damaged[..] else { panic!("{name}, bit {bit}: {:?}", resumed.damaged) };
            assert_eq!(damaged.id.step, 2);
            file.write_all_at(&[whole[bit / 8]], bit as u64 / 8).unwrap();
            flips += 1;
        }
        assert_eq!(session.digest().unwrap(), state::digest(1), "{name}");
    }
    println!("{flips} bits turned, {flips} found");
    assert_eq!(session.resume(&directory, Same::Graph).unwrap().id.step, 2, "mended");
}

#[test]
fn files_that_end_early_go_on_too_long_or_are_missing_are_found() {
    let folder = Folder::new("cut");
    let directory = folder.at("run");
    let mut session = state::session();
    for step in [1, 2] {
        state::save(&mut session, &directory, step);
    }
    for name in ["manifest-0-2", "weights-0-2.safetensors", "training-0-2.safetensors"] {
        let path = directory.join(name);
        let whole = std::fs::read(&path).unwrap();
        let found = |what: &str| {
            let found = inspect(&directory).unwrap();
            assert_eq!((found.manifest.step, found.damaged.len()), (1, 1), "{name}: {what}");
        };
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        for length in (0..whole.len()).rev() {
            file.set_len(length as u64).unwrap();
            found(&format!("cut to {length}"));
        }
        for more in [&b"\0"[..], b"\n", b" }", &whole] {
            std::fs::write(&path, [&whole[..], more].concat()).unwrap();
            found(&format!("{} bytes more", more.len()));
        }
        // A length that nobody could hold, in the file's first bytes.
        std::fs::write(&path, [&[0xff; 8], &whole[8..]].concat()).unwrap();
        found("an enormous length");
        if !name.starts_with("manifest") {
            std::fs::remove_file(&path).unwrap();
            found("missing");
        }
        std::fs::write(&path, whole).unwrap();
    }
    // Files of two checkpoints do not mix.
    std::fs::copy(directory.join("weights-0-1.safetensors"), directory.join("weights-0-2.safetensors")).unwrap();
    let found = inspect(&directory).unwrap();
    assert!(found.damaged[0].why.contains("weights-0-2.safetensors"), "{:?}", found.damaged);
    std::fs::copy(directory.join("manifest-0-1"), directory.join("manifest-0-2")).unwrap();
    assert!(inspect(&directory).unwrap().damaged[0].why.contains("says that it is checkpoint 0-1"));
}

#[test]
fn damage_to_all_of_them_is_an_error_and_not_a_fresh_start() {
    let folder = Folder::new("all-damaged");
    let directory = folder.at("run");
    let mut session = state::session();
    for step in [1, 2] {
        state::save(&mut session, &directory, step);
        std::fs::write(directory.join(format!("weights-0-{step}.safetensors")), "gone").unwrap();
    }
    state::set(&mut session, 9);
    let error = session.resume_or_init(&directory, Same::Graph).unwrap_err();
    assert!(matches!(&error, CheckpointError::AllDamaged { damaged, .. } if damaged.len() == 2), "{error}");
    assert_eq!(session.digest().unwrap(), state::digest(9));
    assert_eq!(session.resume_or_init(folder.at("nowhere"), Same::Graph).unwrap(), None);
    assert!(!folder.at("nowhere").exists(), "readers change nothing");
}

#[test]
fn a_run_goes_on_above_a_damaged_checkpoint_and_outlives_it() {
    let folder = Folder::new("above");
    let directory = folder.at("run");
    let mut session = state::session();
    for step in [3, 6] {
        state::save(&mut session, &directory, step);
    }
    std::fs::write(directory.join("training-0-6.safetensors"), "gone").unwrap();
    let mut session = state::session();
    assert_eq!(session.resume(&directory, Same::Graph).unwrap().id.step, 3);
    // Lower than the damaged one's step, and still the newest from now on.
    state::save(&mut session, &directory, 5);
    assert_eq!(state::newest(&directory), 5);
    assert_eq!(state::names(&directory), state::names_of(&["0-3", "0-6", "1-5"]), "a damaged one does not count");
    state::save(&mut session, &directory, 6);
    assert_eq!(state::names(&directory), state::names_of(&["1-5", "1-6"]));
}
