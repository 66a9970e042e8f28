//! Sessions over two devices beside a session on one: the same results, variables, digests and checkpoints.

use std::path::PathBuf;
use std::sync::Arc;

use thalweg_graph::id::Id;
use thalweg_graph::ir::{Graph as Ir, Program, VarId};
use thalweg_graph::kernel::BufferType;
use thalweg_graph::lower::{LowerError, Share, StateLayout, StateMap, Target, lower};
use thalweg_graph::plan::{DevicePlan, Plan};
use thalweg_graph::{Array, Bindings, DType, Init};
use thalweg_ops::layout::concat;
use thalweg_ops::{Graph, Update};
use thalweg_runtime::{AbortFlag, CheckpointError, Device, DeviceError, Planner, RunError, Same, Session};

use crate::plans::*;

/// What [`exchange`] computes.
fn graph(n: u64) -> Ir {
    let g = Graph::new("exchange").seed(3);
    let x = g.input("x", DType::F32, [2 * n]);
    let w = g.parameter("w", DType::F32, [n], Init::Constant(0.0));
    let v = g.parameter("v", DType::F32, [2, 4], Init::Normal { mean: 0.0, std: 1.0 });
    let own = x * 2.0 + 1.0;
    let total = (own.slice(0, ..n) + own.slice(0, n..)).named("total");
    let y = (concat(&[total, total], 0) + own).named("y");
    let updates = vec![(VarId::new(0), (w + total).value()), (VarId::new(1), (v + v).value())];
    g.program("run").outputs([y, total]).update(Update { updates });
    g.finish().expect("no mistakes")
}

/// Gives [`exchange`], whatever is asked for: `w` on both devices, of `v` the first two columns on one and the last two on
/// the other.
struct ByHand(Arc<Plan>, StateMap);

impl ByHand {
    fn new(n: u64) -> Self {
        let share = |device, offset, shape: &[u64], view: &[u64], start: &[u64]| Share {
            device,
            offset,
            ty: BufferType { dtype: DType::F32, shape: shape.to_vec() },
            view: view.to_vec(),
            start: start.to_vec(),
        };
        let w = vec![share(0, 0, &[n], &[n], &[0]), share(1, 0, &[n], &[n], &[0])];
        let v = vec![share(0, room(n), &[2, 2], &[2, 4], &[0, 0]), share(1, room(n), &[2, 2], &[2, 4], &[0, 2])];
        let count = |device| Share {
            ty: BufferType { dtype: DType::I64, shape: vec![] },
            ..share(device, room(n) + 64, &[], &[], &[])
        };
        let shares = [w, v, vec![count(0), count(1)]].into_iter().collect();
        Self(exchange(n), StateMap { bytes: vec![room(n) + 128; 2], shares })
    }
}

impl Planner for ByHand {
    fn state(&self) -> &StateMap {
        &self.1
    }
    fn plan(&self, _: &Ir, _: &Program, _: &Bindings, targets: &[&dyn Target]) -> Result<Plan, LowerError> {
        assert_eq!(targets.len(), 2);
        Ok((*self.0).clone())
    }
}

fn over(n: u64, devices: Vec<Box<dyn Device>>) -> Session {
    Session::over(graph(n), devices, Box::new(ByHand::new(n))).expect("it fits")
}

fn feed(n: u64, k: u64) -> Array {
    Array::from_slice(&[2 * n], &fed(n, k))
}

#[test]
fn two_devices_give_what_one_gives() {
    for n in SIZES {
        for (name, devices) in sets(2) {
            let (mut two, mut one) = (over(n, devices), Session::new(graph(n), cpu(0, 1)).expect("it fits"));
            assert_eq!(two.digest(), one.digest(), "{name}: before the first step");
            for k in 0..4 {
                let x = feed(n, k);
                let [a, b] = [&mut two, &mut one].map(|s| s.run("run", &[("x", &x)]).expect("it runs"));
                for output in ["y", "total"] {
                    assert!(a.get(output) == b.get(output), "{name}, {n}, step {k}: {output}");
                }
                assert_eq!(two.digest(), one.digest(), "{name}, {n}, step {k}");
            }
            for variable in ["w", "v"] {
                assert!(two.get(variable) == one.get(variable), "{name}: {variable}");
            }
            let v = Array::from_slice(&[2, 4], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
            for session in [&mut two, &mut one] {
                session.set("v", &v).expect("it fits");
            }
            assert_eq!(two.get("v"), Ok(v));
            for session in [&mut two, &mut one] {
                session.run("run", &[("x", &feed(n, 9))]).expect("it runs");
            }
            assert_eq!(two.digest(), one.digest(), "{name}, {n}: what was set is everywhere");
            two.reset().expect("it begins anew");
            assert_eq!(two.digest(), Session::new(graph(n), reference()).and_then(|mut s| s.digest()), "{name}");
            // Any value through the interpreter, from variables wherever they lie.
            two.run("run", &[("x", &feed(n, 1))]).expect("it runs");
            let w = two.evaluate_at(thalweg_runtime::At::Named("w"), None, &[]).expect("it is there");
            assert!(Ok(w) == two.get("w"), "{name}");
        }
    }
}

/// A folder of its own that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("thalweg-executor-{name}-{}", std::process::id()));
        _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_checkpoint_of_two_devices_loads_on_one_and_the_other_way_round() {
    let n = SIZES[1];
    let (mut two, mut one) =
        (over(n, vec![cpu(0, 1), reference()]), Session::new(graph(n), cpu(0, 1)).expect("it fits"));
    let step = |session: &mut Session, k| drop(session.run("run", &[("x", &feed(n, k))]).expect("it runs"));
    (0..2).for_each(|k| step(&mut two, k));
    let folder = Folder::new("spread");
    let saved = two.save_and_wait(&folder.0).expect("it is saved");
    assert_eq!(two.digest(), Ok(saved.digest.to_string()));
    let resumed = one.resume(&folder.0, Same::Graph).expect("it loads");
    assert_eq!((resumed.digest, one.digest()), (saved.digest, two.digest()));
    step(&mut one, 2);
    let back = Folder::new("whole");
    one.save_and_wait(&back.0).expect("it is saved");
    two.resume(&back.0, Same::Graph).expect("it loads");
    assert_eq!(two.digest(), one.digest());
    step(&mut two, 3);
    step(&mut one, 3);
    assert_eq!(two.digest(), one.digest());
}

#[test]
fn a_torn_session_runs_again_when_its_variables_are_whole() {
    let n = SIZES[0];
    let before = |k: usize, _: Option<&AbortFlag>| {
        let error = DeviceError::Launch { device: "odd".into(), label: "v".into(), cause: "it is odd".into() };
        if k == 7 { Err(error) } else { Ok(()) }
    };
    let mut session = over(n, vec![cpu(0, 1), odd(cpu(1, 1), before)]);
    let step = |session: &mut Session, k| session.run("run", &[("x", &feed(n, k))]).map(|_| ());
    assert_eq!(step(&mut session, 0), Ok(()));
    let folder = Folder::new("torn");
    let saved = session.save_and_wait(&folder.0).expect("it is saved");
    for _ in 0..2 {
        let error = step(&mut session, 1).expect_err("its tail fails");
        assert!(matches!(error, RunError::Device(DeviceError::Torn { .. })), "{error}");
        let error = session.save_and_wait(&folder.0).expect_err("half a step is not saved");
        assert!(matches!(error, CheckpointError::Device(DeviceError::Torn { .. })), "{error}");
    }
    session.resume(&folder.0, Same::Graph).expect("it loads");
    assert_eq!(session.digest(), Ok(saved.digest.to_string()));
    assert_eq!(step(&mut session, 1), Ok(()));
}

#[test]
fn state_that_is_not_all_there_is_refused_with_what_is_missing() {
    let n = SIZES[0];
    let refused = |spoil: &dyn Fn(&mut StateMap)| {
        let mut planner = ByHand::new(n);
        spoil(&mut planner.1);
        match Session::over(graph(n), vec![reference(), reference()], Box::new(planner)).map(|_| ()) {
            Err(RunError::Unsound(faults)) => faults.join("; "),
            other => panic!("{other:?}"),
        }
    };
    let v = VarId::new(1);
    let all = [
        refused(&|map| drop(map.shares[v].pop())),
        refused(&|map| map.shares[v][1].start[1] = 3),
        refused(&|map| map.shares[v][1].device = 2),
        refused(&|map| map.shares[v][1].offset = 1 << 40),
        refused(&|map| map.bytes.truncate(1)),
    ];
    assert_eq!(
        all,
        [
            "variable `v`: element 2 lies nowhere",
            "variable `v`: a share f32[2, 2] at [0, 3] of [2, 4] is no part of it; variable `v`: element 2 lies nowhere",
            "variable `v`: there is no device 2; variable `v`: element 2 lies nowhere",
            "variable `v`: a share leaves its arena; variable `v`: element 2 lies nowhere",
            "the state of 3 variables on 1 devices, where there are 3 on 2",
        ]
    );
}

#[test]
fn a_plan_whose_channels_do_not_fit_the_program_is_refused() {
    let n = SIZES[0];
    let refused = |from: &str, to: &str| {
        let mut planner = ByHand::new(n);
        let text = planner.0.to_string();
        assert!(text.contains(from), "{text}");
        planner.0 = Arc::new(Plan::parse(&text.replacen(from, to, 1)).expect("it parses"));
        let mut session = Session::over(graph(n), vec![reference(), reference()], Box::new(planner)).expect("it fits");
        match session.run("run", &[("x", &feed(n, 0))]).map(|_| ()) {
            Err(RunError::Unsound(faults)) => faults.join("; "),
            other => panic!("{other:?}"),
        }
    };
    let all = [
        refused("at 5 \"x\"", "at 6 \"x\""),
        refused("driver -> device 0 \"x\"", "driver -> device 0 \"z\""),
        refused("device 1 -> driver at 5 \"y\"", "device 1 -> driver at 4 \"y\""),
        refused("device 0 -> driver \"total\"", "device 0 -> driver \"totals\""),
        refused("state 192", "state 256"),
    ];
    let want = [
        "channel #1 carries what input `x` has not",
        "channel #0 carries what input `z` has not",
        "channels #4 and #5 both return y from element 4 on",
        "channel #6 carries what output `totals` has no place for; output `total`: element 0 comes from nobody",
        "its devices have [256, 192] bytes of state, the session's [192, 192]",
    ];
    assert_eq!(all, want);
}

#[test]
fn a_trace_has_a_process_per_device_and_an_arrow_per_channel() {
    let n = SIZES[1];
    let mut session = over(n, vec![cpu(0, 1), cpu(1, 1)]);
    session.run("run", &[("x", &feed(n, 0))]).expect("it runs");
    session.start_profile();
    session.start_trace(10);
    (1..4).for_each(|k| drop(session.run("run", &[("x", &feed(n, k))]).expect("it runs")));
    let (trace, rows) = (session.finish_trace(), session.finish_profile());
    assert!(rows.iter().all(|r| r.runs == 3) && rows.iter().any(|r| &*r.device == "cpu:1"), "{rows:?}");
    assert_eq!(rows.len(), exchange(n).devices.iter().map(|d| d.launches().count()).sum::<usize>());
    let mut text = vec![];
    trace.write(&mut text).expect("memory takes it");
    let whole: serde_json::Value = serde_json::from_slice(&text).expect("it is JSON");
    let events = whole["traceEvents"].as_array().expect("a list");
    let of = |key: &str, value: &str| events.iter().filter(|e| e[key] == value).cloned().collect::<Vec<_>>();
    let processes: Vec<_> = of("name", "process_name").iter().map(|e| e["args"]["name"].clone()).collect();
    assert_eq!(processes, ["exchange", "cpu:0", "cpu:1"]);
    let (starts, ends) = (of("ph", "s"), of("ph", "f"));
    assert_eq!((starts.len(), ends.len()), (6, 6), "two channels in three steps");
    for start in &starts {
        let same: Vec<_> = ends.iter().filter(|e| e["id"] == start["id"]).collect();
        let [end] = &same[..] else { panic!("{same:?}") };
        let time = |e: &serde_json::Value| e["ts"].as_f64().expect("a time");
        // Two clocks agree to some microseconds.
        assert!(start["pid"] != end["pid"] && time(start) <= time(end) + 50.0, "{start} {end}");
    }
    for kind in ["post", "wait"] {
        let all = of("cat", kind);
        assert_eq!(all.len(), 6);
        assert!(all.iter().all(|e| e["args"]["bytes"].as_u64() == Some(4 * n)), "{all:?}");
    }
    assert_eq!((of("cat", "feed").len(), of("cat", "fetch").len()), (6, 6));
}

/// Everything on the first device, nothing on the second: what a session does beside steps goes over several devices too.
struct Lopsided(StateLayout, StateMap);

impl Lopsided {
    fn new(graph: &Ir) -> Self {
        let layout = StateLayout::of(graph);
        let StateMap { bytes, shares } = StateMap::single(&layout);
        Self(layout, StateMap { bytes: vec![bytes[0], 0], shares })
    }
}

impl Planner for Lopsided {
    fn state(&self) -> &StateMap {
        &self.1
    }
    fn plan(&self, bound: &Ir, program: &Program, bindings: &Bindings, to: &[&dyn Target]) -> Result<Plan, LowerError> {
        let mut plan = lower(bound, program, bindings, &self.0, to[0])?;
        let (device, [state_bytes, scratch_bytes, staging_bytes]) = (to[1].name(), [0; 3]);
        let (buffers, instructions) = Default::default();
        plan.devices.push(DevicePlan { device, state_bytes, scratch_bytes, staging_bytes, buffers, instructions });
        Ok(plan)
    }
}

#[test]
fn what_is_not_finite_is_found_on_several_devices_too() {
    let declared = |declares: bool| {
        let g = Graph::new("checked");
        let x = g.input("x", DType::F32, [4]);
        let w = g.parameter("w", DType::F32, [4], Init::Constant(1.0));
        let root = (x + 1.0).sqrt().named("root");
        let y = if declares { root.check_finite() } else { root };
        let updates = vec![(VarId::new(0), (w * y).value())];
        g.program("run").outputs([(y * 2.0).named("y")]).update(Update { updates });
        g.finish().expect("no mistakes")
    };
    let [good, bad] = [[0f32, 3.0, 8.0, 15.0], [0.0, 3.0, -8.0, 15.0]].map(|x| Array::from_slice(&[4], &x));
    // A check that was declared, and all that a guard has.
    for all in [false, true] {
        let graph = declared(!all);
        let two = vec![cpu(0, 1), cpu(1, 1)];
        let mut two = Session::over(graph.clone(), two, Box::new(Lopsided::new(&graph))).expect("it fits");
        let mut one = Session::new(graph, cpu(0, 1)).expect("it fits");
        let told: Vec<RunError> = [&mut two, &mut one]
            .map(|session| {
                session.check_finite(all);
                session.run("run", &[("x", &good)]).expect("it runs");
                let before = session.digest();
                let error = session.run("run", &[("x", &bad)]).map(|_| ()).expect_err("it is not finite");
                assert_eq!(session.digest(), before, "nothing was committed");
                session.run("run", &[("x", &good)]).expect("it runs again");
                error
            })
            .into();
        let RunError::NotFinite(found) = &told[0] else { panic!("{:?}", told[0]) };
        assert!(found.label.contains("root") && found.index == [2], "{found:?}");
        assert_eq!(told[0], told[1]);
        assert_eq!(two.digest(), one.digest());
    }
}
