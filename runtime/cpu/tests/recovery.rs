//! Sessions whose devices are lost again and again: whoever trains sees nothing of it, wherever the session has to begin from.

#![allow(missing_docs)]

#[path = "common/odd.rs"]
mod odd;

use std::sync::{Arc, Mutex};

use thalweg_cpu::CpuDevice;
use thalweg_graph::Array;
use thalweg_graph::DType::{F32, I32};
use thalweg_ops::nn::*;
use thalweg_ops::optim::AdamW;
use thalweg_runtime::session::{Origin, Recovered, Recovery};
use thalweg_runtime::{AbortFlag, Device, DeviceError, Executor, Same, Session, Single};

fn graph() -> thalweg_graph::Graph {
    let g = thalweg_ops::Graph::new("small").seed(3);
    let x = g.input("x", F32, [8, 20]);
    let label = g.input("label", I32, [8]);
    let logits = g.scope("head", || Linear::new(10).call(g.scope("hidden", || Linear::new(16).call(x)).relu()));
    let loss = cross_entropy(logits, label).mean().named("loss");
    g.program("train").outputs([loss]).update(AdamW::new(1e-2).minimize(loss));
    g.finish().expect("no mistakes")
}

/// Lost when it runs for the time that is first in the list, and the next one for the time that is second.
fn device(lives: &Arc<Mutex<Vec<usize>>>) -> Box<dyn Device> {
    let life = lives.lock().expect("no panic").pop().unwrap_or(usize::MAX);
    odd::odd(Box::new(CpuDevice::new("cpu:0", 1).expect("a CPU")), move |k, _| match k == life {
        true => Err(DeviceError::Gone { place: "cpu:0".into(), cause: "it was taken away".into() }),
        false => Ok(()),
    })
}

/// From where it was gone on, and how many steps were done again.
type Seen = Arc<Mutex<Vec<(Origin, u64)>>>;

/// Gives another one of those.
struct Another {
    lives: Arc<Mutex<Vec<usize>>>,
    seen: Seen,
}

impl Recovery for Another {
    fn recover(&mut self, cause: &DeviceError, _: &AbortFlag) -> Result<Recovered, DeviceError> {
        assert!(cause.is_loss(), "{cause}");
        let executor = Executor::new(vec![device(&self.lives)])?;
        Ok(Recovered { executor, planner: Box::new(Single::new(&graph())) })
    }
    fn recovered(&mut self, from: &Origin, replayed: u64) {
        self.seen.lock().expect("no panic").push((from.clone(), replayed));
    }
}

/// Twelve steps with a variable that is set in between; gives the losses and the digest.
fn train(session: &mut Session, mut between: impl FnMut(&mut Session, usize)) -> (Vec<u64>, String) {
    let mut losses = vec![];
    for k in 0..12 {
        let x: Vec<f32> = (0..160).map(|i| ((i * 37 + k * 11) % 101) as f32 / 50.0 - 1.0).collect();
        let label: Vec<i32> = (0..8).map(|i| ((i * 3 + k) % 10) as i32).collect();
        let (x, label) = (Array::from_slice(&[8, 20], &x), Array::from_slice(&[8], &label));
        let out = session.run("train", &[("x", &x), ("label", &label)]).expect("it runs");
        losses.push(out.item("loss").to_bits());
        if k == 4 {
            session.set("head.bias", &Array::from_slice(&[10], &[0.5f32; 10])).expect("it is there");
        }
        between(session, k);
    }
    (losses, session.digest().expect("it is there"))
}

fn session(lives: &[usize]) -> (Session, Seen) {
    let lives = Arc::new(Mutex::new(lives.iter().rev().copied().collect::<Vec<_>>()));
    let seen = Seen::default();
    let executor = Executor::new(vec![device(&lives)]).expect("one thread");
    let recovery = Box::new(Another { lives, seen: seen.clone() });
    let graph = graph();
    let planner = Box::new(Single::new(&graph));
    (Session::conducted(graph, executor, planner, recovery).expect("it fits"), seen)
}

#[test]
fn whatever_is_lost_is_done_again() {
    let undisturbed = train(&mut session(&[]).0, |_, _| ());
    let folder = std::env::temp_dir().join(format!("thalweg-recovery-{}", std::process::id()));
    // A step is a body and a tail.
    for lives in [&[0][..], &[9], &[10], &[23, 23], &[3, 5, 7, 9, 11], &[1; 7], &[22, 21, 20, 0, 0, 19]] {
        let (mut lost, seen) = session(lives);
        assert_eq!(train(&mut lost, |_, _| ()), undisturbed, "from the start, {lives:?}");
        let all = seen.lock().expect("no panic").clone();
        assert!(!all.is_empty() && all.iter().all(|(from, _)| *from == Origin::Start), "{lives:?}: {all:?}");

        let (mut lost, seen) = session(lives);
        lost.set_replay_bytes(2000);
        assert_eq!(train(&mut lost, |_, _| ()), undisturbed, "from copies, {lives:?}");
        let all = seen.lock().expect("no panic").clone();
        assert!(all.iter().all(|(_, replayed)| *replayed <= 3), "{lives:?}: {all:?}");
        assert!(lives.len() == 1 || all.iter().any(|(from, _)| *from == Origin::Copy) || lives[0] < 6, "{all:?}");

        let (mut lost, seen) = session(lives);
        let saved = train(&mut lost, |session, k| {
            if k % 3 == 2 {
                session.save(&folder).expect("room").wait().expect("room");
            }
        });
        assert_eq!(saved, undisturbed, "from checkpoints, {lives:?}");
        let all = seen.lock().expect("no panic").clone();
        assert!(all.iter().all(|(_, replayed)| *replayed <= 3), "{lives:?}: {all:?}");
        std::fs::remove_dir_all(&folder).expect("it was made");
    }
}

/// A save that comes to nothing right after one that has removed its predecessor: it is gone on from the one in between.
#[test]
fn a_save_that_fails_does_not_hide_the_one_before() {
    let undisturbed = train(&mut session(&[]).0, |_, _| ());
    let folder = std::env::temp_dir().join(format!("thalweg-recovery-hidden-{}", std::process::id()));
    // Within step 9: a step is a body and a tail.
    let (mut lost, seen) = session(&[18]);
    lost.keep_checkpoints(1);
    let saved = train(&mut lost, |session, k| match k {
        3 => drop(session.save_and_wait(&folder).expect("room")),
        8 => {
            session.save(&folder).expect("room");
            // What a save that was killed has left, and cannot be removed as a file.
            let left = folder.join("tmp-manifest-0-99");
            std::fs::create_dir(&left).expect("room");
            session.save(&folder).expect("it begins").wait().expect_err("it cannot tidy up");
            std::fs::remove_dir(&left).expect("it is there");
        }
        _ => {}
    });
    assert_eq!(saved, undisturbed);
    let all = seen.lock().expect("no panic").clone();
    assert!(matches!(&all[..], [(Origin::Checkpoint { id, .. }, 0)] if id.step == 9), "{all:?}");
    std::fs::remove_dir_all(&folder).expect("it was made");
}

/// What is set in other ways is gone on from as well; and what would fail again is an error, not a loss.
#[test]
fn resumed_weights_and_resets_are_remembered() {
    let folder = std::env::temp_dir().join(format!("thalweg-recovery-resumed-{}", std::process::id()));
    let script = |lives: &[usize]| {
        let (mut session, seen) = session(lives);
        train(&mut session, |_, _| ());
        session.save_and_wait(&folder).expect("room");
        session.reset().expect("it is there");
        let first = train(&mut session, |_, _| ());
        session.resume(&folder, Same::Graph).expect("it was saved");
        let second = train(&mut session, |_, _| ());
        let weights = folder.join("weights.safetensors");
        session.save_weights(&weights).expect("room");
        session.load_weights(&weights).expect("it was saved");
        let third = train(&mut session, |_, _| ());
        std::fs::remove_dir_all(&folder).expect("it was made");
        let all = seen.lock().expect("no panic").clone();
        ([first, second, third], all)
    };
    let (undisturbed, none) = script(&[]);
    assert!(none.is_empty());
    let (lost, all) = script(&[30, 40, 40, 10]);
    assert_eq!(lost, undisturbed);
    let kinds: Vec<&str> = all
        .iter()
        .map(|(from, _)| match from {
            Origin::Start => "start",
            Origin::Copy => "copy",
            Origin::Checkpoint { .. } => "checkpoint",
        })
        .collect();
    assert!(["start", "copy", "checkpoint"].iter().all(|kind| kinds.contains(kind)), "{all:?}");
}
