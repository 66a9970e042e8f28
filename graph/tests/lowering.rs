//! Lowering: whatever the graph, its plan is sound, the judge agrees, and run over poisoned memory it computes what the
//! graph means, bit for bit, step after step over shared state. Small cases by hand, then any graph.

#![allow(missing_docs)]

mod common;
#[path = "plan/model.rs"]
mod model;
#[path = "plan/oracle.rs"]
mod oracle;

use std::sync::Arc;

use Kind::*;
use common::Die;
use model::{KINDS, Kind, Model};
use thalweg_graph::evaluate::{Named, evaluate};
use thalweg_graph::kernel::Kernel;
use thalweg_graph::kernel::interpret::{Precision, Values, run};
use thalweg_graph::lower::{LowerError, StateLayout, Target, lower};
use thalweg_graph::plan::{BufferId, DevicePlan, Instruction, Memory, Plan};
use thalweg_graph::{Array, Bindings, Graph, Site, Value};

/// A device whose kernels need a workspace of some bytes.
struct Device(u64);

impl Target for Device {
    fn name(&self) -> Arc<str> {
        "test".into()
    }
    fn workspace_bytes(&self, kernel: &Kernel) -> u64 {
        if kernel.operands().len() == 1 { self.0 } else { 0 }
    }
    // Both ways of lowering.
    fn runs_epilogues(&self) -> bool {
        self.0 > 0
    }
    fn runs_groups(&self) -> bool {
        self.0 > 0
    }
}

fn plan(graph: &Graph, program: usize, workspace: u64) -> Plan {
    let layout = StateLayout::of(graph);
    lower(graph, &graph.programs[program], &Bindings::new(), &layout, &Device(workspace)).expect("it has a plan")
}

/// Runs a plan of one device over poisoned memory.
fn execute(plan: &Plan, state: &mut [u8], feeds: &dyn Fn(&str) -> Array) -> Vec<Array> {
    let device = &plan.devices[0];
    let mut arenas =
        [state.to_vec(), vec![0xff; device.scratch_bytes as usize], vec![0xff; device.staging_bytes as usize]];
    let place = |device: &DevicePlan, id: BufferId| {
        let buffer = &device.buffers[id];
        let range = buffer.range();
        (buffer.memory as usize, range.start as usize..range.end as usize)
    };
    let mut outputs = Vec::new();
    for instruction in &device.instructions {
        match instruction {
            Instruction::Wait { channel, buffer } => {
                let (arena, range) = place(device, *buffer);
                arenas[arena][range].copy_from_slice(feeds(&plan.channels[*channel].label).bytes());
            }
            Instruction::Post { channel, buffer } => {
                let (ty, (arena, range)) = (&plan.channels[*channel].ty, place(device, *buffer));
                let mut array = Array::zeros(ty.dtype, &ty.shape);
                array.bytes_mut().copy_from_slice(&arenas[arena][range]);
                outputs.push(array);
            }
            Instruction::Copy { from, to } => {
                let ((a, from), (b, to)) = (place(device, *from), place(device, *to));
                let bytes = arenas[a][from].to_vec();
                arenas[b][to].copy_from_slice(&bytes);
            }
            Instruction::Launch(launch) => {
                let kernel = &plan.kernels[launch.kernel];
                let operands: Vec<Values> = (launch.reads.iter().zip(kernel.operands()))
                    .map(|(id, ty)| {
                        let ((arena, range), mut array) = (place(device, *id), Array::zeros(ty.dtype, &ty.shape));
                        array.bytes_mut().copy_from_slice(&arenas[arena][range]);
                        Values::from_array(&array)
                    })
                    .collect();
                let (offset, bytes) = launch.workspace;
                arenas[Memory::Scratch as usize][offset as usize..(offset + bytes) as usize].fill(0xff);
                let results = run(kernel, &operands.iter().collect::<Vec<_>>(), Precision::Exact);
                for (id, values) in launch.writes.iter().zip(results) {
                    let (arena, range) = place(device, *id);
                    arenas[arena][range].copy_from_slice(values.to_array().bytes());
                }
            }
            _ => {}
        }
    }
    state.copy_from_slice(&arenas[0]);
    outputs
}

fn numbers(seed: u64, shape: &[u64]) -> Array {
    let mut die = Die(seed);
    let data: Vec<f32> = (0..shape.iter().product()).map(|_| die.roll(1 << 20) as f32 / 1e6 - 0.5).collect();
    Array::from_slice(shape, &data)
}

/// Runs every program, in turn and twice, as a plan and as what the graph means.
fn agrees(graph: &Graph, workspace: u64) {
    let layout = StateLayout::of(graph);
    let mut bytes = vec![0u8; layout.bytes as usize];
    let mut meant = Named::new();
    for (id, variable) in graph.state.iter() {
        let slot = &layout.slots[id];
        let value = numbers(u64::from(id.0) + 100, &slot.ty.shape);
        bytes[slot.offset as usize..][..value.bytes().len()].copy_from_slice(value.bytes());
        meant.insert(variable.name.clone(), Values::from_array(&value));
    }
    let shapes: Vec<(Arc<str>, Vec<u64>)> = (graph.programs.iter().flat_map(|p| graph.inputs_of(p)))
        .map(|(_, input)| (input.name.clone(), input.ty.shape.fixed().expect("fixed")))
        .collect();
    for round in 0..2u64 {
        for (p, program) in graph.programs.iter().enumerate() {
            let plan = plan(graph, p, workspace);
            assert_eq!(plan.verify(), Vec::<String>::new(), "{graph}\n{plan}");
            oracle::judge(&plan).unwrap_or_else(|harm| panic!("{harm}\n{graph}\n{plan}"));
            assert_eq!(Plan::parse(&plan.to_string()), Ok(plan.clone()));
            let feed = |name: &str| {
                let (i, (_, shape)) = shapes.iter().enumerate().find(|(_, (n, _))| &**n == name).expect("an input");
                numbers(i as u64 + 10 * round, shape)
            };
            let feeds: Named = shapes.iter().map(|(n, _)| (n.clone(), Values::from_array(&feed(n)))).collect();
            let want = evaluate(graph, program, &feeds, &meant, Precision::Exact).expect("it has a meaning");
            let got = execute(&plan, &mut bytes, &feed);
            for ((name, want), got) in want.outputs.iter().zip(&got) {
                assert_eq!(want.to_array().bytes(), got.bytes(), "{name}\n{graph}\n{plan}");
            }
            meant.extend(want.updates);
            for (id, variable) in graph.state.iter() {
                let want = meant[&variable.name].to_array();
                let got = &bytes[layout.slots[id].offset as usize..][..want.bytes().len()];
                assert_eq!(want.bytes(), got, "{}\n{graph}\n{plan}", variable.name);
            }
        }
    }
}

fn launches(plan: &Plan) -> usize {
    plan.devices[0].launches().count()
}

#[test]
fn outputs_may_be_inputs_variables_and_numbers() {
    let mut m = Model::new();
    let (x, v) = (m.input("x", &[4]), m.variable(&[4]));
    let half = m.op(Half, &[]);
    m.program("run", &[x, v, half, x, m.op(Square, &[v])], &[(0, x)]);
    agrees(&m.finish(), 0);
}

#[test]
fn variables_change_places() {
    let mut m = Model::new();
    let (a, b, c) = (m.variable(&[4]), m.variable(&[4]), m.variable(&[4]));
    let step = m.op(Step, &[c, a]);
    m.program("swap", &[a], &[(0, b), (1, a), (2, step)]);
    m.program("turn", &[], &[(0, b), (1, c), (2, a)]);
    let (p, q) = (m.op(Step, &[a, b]), m.op(Step, &[b, a]));
    m.program("cross", &[], &[(0, p), (1, q)]);
    agrees(&m.finish(), 16);
}

#[test]
fn a_part_of_a_tensor_is_no_relabeling_of_it() {
    let m = Model::new();
    let x = m.input("x", &[4]);
    let head = m.op(Head, &[x]);
    m.program("run", &[head, m.op(Grow, &[head]), m.op(Add, &[head, head])], &[]);
    agrees(&m.finish(), 0);
}

#[test]
fn updates_that_read_their_neighbours_are_not_joined() {
    let mut m = Model::new();
    let v: Vec<Value> = (0..4).map(|_| m.variable(&[4])).collect();
    let shifted: Vec<(usize, Value)> = (0..3).map(|i| (i, m.op(Add, &[v[i], v[i + 1]]))).collect();
    m.program("chain", &[], &shifted);
    agrees(&m.finish(), 0);
}

#[test]
fn updates_of_neighbours_are_one_launch() {
    let mut m = Model::new();
    let (x, v) = (m.input("x", &[4]), [m.variable(&[4]), m.variable(&[2, 2]), m.variable(&[0]), m.variable(&[2])]);
    let (none, lr) = (m.input("none", &[0]), m.op(Sum, &[x]));
    let gradients = [
        m.op(Reverse, &[x]),
        m.op(Reverse, &[m.op(Square, &[x])]),
        m.op(Add, &[none, none]),
        m.op(Reverse, &[m.op(Head, &[x])]),
    ];
    let updates: Vec<_> = (0..4).map(|i| (i, m.op(Step, &[v[i], gradients[i]]))).collect();
    m.program("rows", &[], &updates);
    let scaled: Vec<_> = (0..4).map(|i| (i, m.op(Scale, &[v[i], lr]))).collect();
    m.program("shared", &[lr], &scaled);
    let graph = m.finish();
    agrees(&graph, 24);
    // Four gradients (what `Reverse` reads is fused into it) and one row of updates; a sum and one row.
    assert_eq!((launches(&plan(&graph, 0, 0)), launches(&plan(&graph, 1, 0))), (4 + 1, 1 + 1));
}

#[test]
fn a_gradient_may_serve_two_parameters_or_be_another_value() {
    let mut m = Model::new();
    let (x, v) = (m.input("x", &[4]), [m.variable(&[4]), m.variable(&[4]), m.variable(&[2, 2])]);
    let g = m.op(Reverse, &[x]);
    let alias = m.op(Square, &[g]);
    let [a, b, c] = [m.op(Step, &[v[0], g]), m.op(Step, &[v[1], g]), m.op(Step, &[v[2], alias])];
    m.program("shared", &[], &[(0, a), (1, b), (2, c)]);
    let fed = m.op(Step, &[v[2], m.op(Square, &[x])]);
    m.program("fed", &[g, a], &[(0, a), (1, a), (2, fed)]);
    let own = m.op(Step, &[v[0], v[0]]);
    m.program("own", &[], &[(0, own), (1, m.op(Flat, &[v[2]])), (2, m.op(Square, &[v[1]]))]);
    agrees(&m.finish(), 0);
}

#[test]
fn a_kernel_that_is_not_sound_is_reported_not_run_into() {
    let m = Model::new();
    m.program("run", &[m.op(Bad, &[m.op(Half, &[])])], &[]);
    let graph = m.finish();
    let layout = StateLayout::of(&graph);
    let error = lower(&graph, &graph.programs[0], &Bindings::new(), &layout, &Device(0)).expect_err("it is refused");
    assert!(matches!(error, LowerError::Kernel { .. }), "{error}");
}

/// Any graph, from a seed.
fn any_graph(die: &mut Die) -> Graph {
    const SHAPES: [&[u64]; 5] = [&[4], &[2, 2], &[2], &[], &[0]];
    let mut m = Model::new();
    let mut values: Vec<(Value, usize)> = Vec::new();
    for i in 0..1 + die.roll(3) {
        let shape = die.roll(SHAPES.len());
        values.push((m.input(&format!("x{i}"), SHAPES[shape]), shape));
    }
    let mut variables = Vec::new();
    for _ in 0..die.roll(7) {
        // Mostly alike, so that updates can be joined.
        let shape = if die.roll(2) == 0 { 0 } else { die.roll(SHAPES.len()) };
        variables.push(shape);
        values.push((m.variable(SHAPES[shape]), shape));
    }
    for _ in 0..die.roll(24) {
        let (x, shape) = values[die.roll(values.len())];
        let like: Vec<Value> = values.iter().filter(|v| v.1 == shape).map(|v| v.0).collect();
        let scalars: Vec<Value> = values.iter().filter(|v| v.1 == 3).map(|v| v.0).collect();
        let y = like[die.roll(like.len())];
        let kind = KINDS[die.roll(KINDS.len())];
        let (to, operands) = match kind {
            Add | Least | Step | Both => (shape, vec![x, y]),
            Scale if !scalars.is_empty() => (shape, vec![x, scalars[die.roll(scalars.len())]]),
            Half => (0, vec![]),
            Reverse => (shape, vec![x]),
            Sum => (3, vec![x]),
            Square if shape == 0 => (1, vec![x]),
            Flat if shape == 1 => (0, vec![x]),
            Head if shape == 0 => (2, vec![x]),
            Grow if shape == 2 => (0, vec![x]),
            _ => continue,
        };
        values.extend(m.all(kind, &operands).into_iter().map(|v| (v, to)));
    }
    for name in ["first", "second"] {
        let outputs: Vec<Value> = (0..die.roll(4)).map(|_| values[die.roll(values.len())].0).collect();
        let mut updates = Vec::new();
        for (i, shape) in variables.iter().enumerate() {
            let like: Vec<Value> = values.iter().filter(|v| v.1 == *shape).map(|v| v.0).collect();
            match die.roll(4) {
                0 => {}
                1 => updates
                    .push((i, m.op(Step, &[m.g.read(m.variables[i], Site::default()), like[die.roll(like.len())]]))),
                2 => updates.push((i, m.op(Step, &[like[0], like[die.roll(like.len())]]))),
                _ => updates.push((i, like[die.roll(like.len())])),
            }
        }
        m.program(name, &outputs, &updates);
    }
    m.finish()
}

#[test]
fn any_graph_has_a_sound_plan_that_means_the_same() {
    let count = std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1500);
    for seed in 0..count {
        let mut die = Die(seed);
        let graph = any_graph(&mut die);
        agrees(&graph, [0, 16, 100][die.roll(3)]);
    }
}
