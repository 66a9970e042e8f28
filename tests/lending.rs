//! Large feeds are read where the caller has them, and large outputs written where the caller will look. Whatever a plan does
//! with such a buffer, results are those of the interpreter, which borrows nothing; what the caller holds already is never
//! written again; and a step that fails shows nothing of what it began.

mod common;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thalweg::graph::id::Id;
use thalweg::graph::ir::VarId;
use thalweg::graph::lower::Target;
use thalweg::graph::plan::{BufferId, Instruction, Memory, Plan};
use thalweg::ops::Update;
use thalweg::prelude::*;
use thalweg::runtime::device::{Lent, Loaded};
use thalweg::runtime::{AbortFlag, Device, DeviceError, ReferenceDevice, RunError, Session, Timing};

/// Elements of what is large enough to be lent, and no multiple of any tile.
const N: u64 = 20_003;

/// What a device was lent, by the labels of channels, and whether its next stretch fails once it has run.
#[derive(Default)]
struct Seen {
    labels: Vec<Arc<str>>,
    feeds: BTreeSet<Arc<str>>,
    outputs: BTreeSet<Arc<str>>,
    fails: bool,
}

/// A device that notes what it is lent.
struct Watched(Box<dyn Device>, Arc<Mutex<Seen>>);

impl Device for Watched {
    fn target(&self) -> &dyn Target {
        self.0.target()
    }
    fn reserve_state(&mut self, bytes: u64) -> Result<(), DeviceError> {
        self.0.reserve_state(bytes)
    }
    fn load(&mut self, plan: &Arc<Plan>, part: usize) -> Result<Loaded, DeviceError> {
        self.1.lock().expect("no panic").labels = plan.channels.values().iter().map(|c| c.label.clone()).collect();
        self.0.load(plan, part)
    }
    fn unload(&mut self, loaded: Loaded) {
        self.0.unload(loaded);
    }
    fn run(&mut self, loaded: Loaded, range: Range<usize>, abort: Option<&AbortFlag>) -> Result<(), DeviceError> {
        self.run_lent(loaded, range, abort, &mut [])
    }
    fn borrows(&self) -> bool {
        self.0.borrows()
    }
    fn run_lent(
        &mut self,
        loaded: Loaded,
        range: Range<usize>,
        abort: Option<&AbortFlag>,
        lent: &mut [Lent<'_>],
    ) -> Result<(), DeviceError> {
        let mut seen = self.1.lock().expect("no panic");
        let Seen { labels, feeds, outputs, .. } = &mut *seen;
        for lent in lent.iter() {
            match lent {
                Lent::Feed(c, _) => feeds.insert(labels[c.index()].clone()),
                Lent::Output(c, _) => outputs.insert(labels[c.index()].clone()),
            };
        }
        self.0.run_lent(loaded, range, abort, lent)?;
        if std::mem::take(&mut seen.fails) { Err(DeviceError::Aborted) } else { Ok(()) }
    }
    fn time(&mut self, on: bool) -> Vec<Timing> {
        self.0.time(on)
    }
    fn now(&self) -> Duration {
        self.0.now()
    }
    fn strategy(&self, loaded: Loaded, instruction: usize) -> String {
        self.0.strategy(loaded, instruction)
    }
    fn write(&mut self, memory: Memory, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.0.write(memory, offset, bytes)
    }
    fn read(&mut self, memory: Memory, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.0.read(memory, offset, bytes)
    }
    fn reserved(&self, memory: Memory) -> u64 {
        self.0.reserved(memory)
    }
}

/// A session on a watched CPU, and what is seen there.
fn watched(g: &Graph, threads: usize) -> (Session, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let device = Watched(common::cpu(threads), seen.clone());
    (Session::new(g.finish().expect("no mistakes"), Box::new(device)).expect("it is there"), seen)
}

/// What is fed as `x` in step `k`.
fn fed(shape: &[u64], k: usize) -> Array {
    let n: u64 = shape.iter().product();
    Array::from_slice(shape, &(0..n).map(|i| ((i * 37 + k as u64 * 11) % 101) as f32 / 8.0 - 6.0).collect::<Vec<_>>())
}

/// Runs three steps with every earlier output still held, on one thread and two, against the interpreter. Gives the plan.
#[track_caller]
fn agrees(g: &Graph, shape: &[u64], feeds: &[&str], outputs: &[&str]) -> Arc<Plan> {
    let all = |session: &mut Session| {
        let held: Vec<_> = (0..3).map(|k| session.run("run", &[("x", &fed(shape, k))]).expect("it is there")).collect();
        let copied = |o: &thalweg::runtime::Outputs| o.iter().map(|(n, a)| (n.to_string(), a.clone())).collect();
        let values: Vec<Vec<(String, Array)>> = held.iter().map(copied).collect();
        (values, session.digest().expect("it is there"))
    };
    let mut reference =
        Session::new(g.finish().expect("no mistakes"), Box::new(ReferenceDevice::default())).expect("it is there");
    let want = all(&mut reference);
    let mut plan = None;
    for threads in [1, 2] {
        let (mut session, seen) = watched(g, threads);
        assert!(all(&mut session) == want, "{threads} threads: other results than the interpreter's");
        let seen = seen.lock().expect("no panic");
        let names = |set: &BTreeSet<Arc<str>>| set.iter().map(|l| l.to_string()).collect::<Vec<_>>();
        assert_eq!((names(&seen.feeds), names(&seen.outputs)), (sorted(feeds), sorted(outputs)), "what is lent");
        drop(seen);
        plan = Some(session.plan("run", &Default::default()).expect("it is there"));
    }
    plan.expect("it is there")
}

fn sorted(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| n.to_string()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The buffer that is posted as `label`, and the launch that writes it.
fn posted(plan: &Plan, label: &str) -> (BufferId, Option<usize>) {
    let device = &plan.devices[0];
    let posts = device.instructions.iter().find_map(|i| match i {
        Instruction::Post { channel, buffer } if &*plan.channels[*channel].label == label => Some(*buffer),
        _ => None,
    });
    let buffer = posts.expect("it is there");
    (buffer, device.launches().find(|(_, l)| l.writes.contains(&buffer)).map(|(at, _)| at))
}

#[test]
fn an_output_is_written_where_the_caller_looks() {
    let g = Graph::new("plain");
    let x = g.input("x", F32, [N]);
    g.program("run").outputs([(x * 2.0 + 1.0).named("y"), x.mean().named("small")]);
    agrees(&g, &[N], &["x"], &["y"]);
}

#[test]
fn what_the_body_and_the_tail_go_on_with_is_read_there() {
    let g = Graph::new("read_on");
    let x = g.input("x", F32, [N]);
    let (kept, copied) =
        (g.parameter("kept", F32, [N], Init::Constant(0.0)), g.parameter("copied", F32, [N], Init::Constant(0.0)));
    let y = (x + kept * 0.5).named("y");
    // One update computes from the output behind `commit`, the other is the output.
    let updates = vec![(VarId::new(0), (kept + y).value()), (VarId::new(1), y.value())];
    g.program("run").outputs([y, (y.abs().sum() + copied.sum()).named("small")]).update(Update { updates });
    let plan = agrees(&g, &[N], &["x"], &["y"]);
    let device = &plan.devices[0];
    let (buffer, writer) = posted(&plan, "y");
    let copies = |i: &Instruction| matches!(i, Instruction::Copy { from, .. } if *from == buffer);
    assert!(device.instructions[device.tail_start()..].iter().any(copies), "the tail reads it");
    let reads = device.launches().any(|(at, l)| l.reads.contains(&buffer) && Some(at) > writer);
    assert!(reads, "a launch reads it");
}

#[test]
fn feeds_and_variables_are_copied_out() {
    let g = Graph::new("as_they_are");
    let x = g.input("x", F32, [N]);
    let kept = g.parameter("kept", F32, [N], Init::Constant(1.0));
    let updates = vec![(VarId::new(0), (kept + x).value())];
    g.program("run").outputs([x.named("same"), kept.named("was")]).update(Update { updates });
    agrees(&g, &[N], &["x"], &[]);
}

#[test]
fn one_value_under_two_names_is_copied_to_both() {
    let g = Graph::new("twice");
    let x = g.input("x", F32, [N]);
    let y = x * 3.0;
    g.program("run").outputs([y.named("one"), y.reshape([1, N]).named("other"), x.reshape([N, 1]).named("fed")]);
    let plan = agrees(&g, &[N], &["x"], &[]);
    assert_eq!(posted(&plan, "one").0, posted(&plan, "other").0, "they share a buffer");
}

#[test]
fn a_value_written_over_its_operand_goes_to_the_caller_instead() {
    let g = Graph::new("in_place");
    let x = g.input("x", F32, [100, 300]);
    let w = g.parameter("w", F32, [300, 300], Init::Constant(0.25));
    // What has two readers lies in memory, and the second may write over it.
    let h = x.matmul(w);
    let sums = h.sum_over(&[0]).named("sums");
    let y = (-(h * h).exp()).named("y");
    g.program("run").outputs([sums, y]);
    let (mut session, seen) = watched(&g, 1);
    let mut reference = Session::new(g.finish().unwrap(), Box::new(ReferenceDevice::default())).unwrap();
    let x = fed(&[100, 300], 1);
    let got = session.run("run", &[("x", &x)]).unwrap();
    let want = reference.run("run", &[("x", &x)]).unwrap();
    common::assert_near("y", &got.get("y").unwrap().to_f64(), &want.get("y").unwrap().to_f64(), 1e-5, 1.0);
    let plan = session.plan("run", &Default::default()).unwrap();
    let (buffer, writer) = posted(&plan, "y");
    let device = &plan.devices[0];
    let Instruction::Launch(launch) = &device.instructions[writer.unwrap()] else { panic!("a launch") };
    let place = |b: &BufferId| (device.buffers[*b].memory, device.buffers[*b].range());
    assert!(launch.reads.iter().any(|r| place(r) == place(&buffer)), "the plan writes it over an operand");
    assert!(seen.lock().unwrap().outputs.contains("y"), "it is lent");
}

#[test]
fn gradients_that_are_returned_still_update() {
    let g = Graph::new("gradients");
    let x = g.input("x", F32, [N]);
    let (a, b) = (g.parameter("a", F32, [N], Init::Constant(0.5)), g.parameter("b", F32, [N], Init::Constant(0.25)));
    let loss = (x * a.tap_grad("da") + x.abs() * b.tap_grad("db")).sum().named("small");
    g.program("run").outputs([loss]).update(Sgd::new(0.5).minimize(loss));
    agrees(&g, &[N], &["x"], &["da", "db"]);
}

#[test]
fn what_has_no_elements_has_no_place() {
    let g = Graph::new("empty");
    let x = g.input("x", F32, [0, N]);
    g.program("run").outputs([(x + 1.0).named("y"), x.sum().named("small")]);
    agrees(&g, &[0, N], &[], &[]);
}

#[test]
fn a_step_that_fails_returns_nothing_and_disturbs_nothing() {
    let g = Graph::new("fails");
    let x = g.input("x", F32, [N]);
    let kept = g.parameter("kept", F32, [N], Init::Constant(1.0));
    let y = (x + kept).named("y");
    g.program("run").outputs([y]).update(Update { updates: vec![(VarId::new(0), (kept + y.exp()).value())] });
    let (mut session, seen) = watched(&g, 1);
    let first = session.run("run", &[("x", &fed(&[N], 0))]).unwrap();
    let (held, digest) = (first.get("y").unwrap().clone(), session.digest().unwrap());
    for round in 0..3 {
        // The body has run, and has written its output, when this comes.
        seen.lock().unwrap().fails = true;
        let error = session.run("run", &[("x", &fed(&[N], 5))]).unwrap_err();
        assert_eq!(error, RunError::Device(DeviceError::Aborted), "round {round}");
        assert!(!seen.lock().unwrap().fails, "the fault has happened");
        assert_eq!((first.get("y"), session.digest().unwrap()), (Some(&held), digest.clone()), "round {round}");
    }
    let mut alone = Session::new(g.finish().unwrap(), Box::new(ReferenceDevice::default())).unwrap();
    alone.set("kept", &session.get("kept").unwrap()).unwrap();
    let (got, want) = (session.run("run", &[("x", &fed(&[N], 2))]), alone.run("run", &[("x", &fed(&[N], 2))]));
    assert_eq!(got.unwrap().get("y"), want.unwrap().get("y"), "the next step is right");
}
