//! Runs what is declared through the graph interpreter.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::sync::Arc;

use thalweg_graph::evaluate::{Named, evaluate};
use thalweg_graph::init::initial_value;
use thalweg_graph::kernel::interpret::{Number, Precision, Values};
use thalweg_graph::kernel::philox;
use thalweg_graph::passes::{STANDARD, run_passes, select_program};
use thalweg_graph::{Array, Bindings, DType, Init, Mode, Program, Site, TensorType, Value, VarKind};
use thalweg_ops::sample::DynSample;
use thalweg_ops::{Graph, Tensor};

/// A program ready for the interpreter.
pub struct Ready {
    graph: thalweg_graph::Graph,
    program: Program,
    state: Named,
}

impl Ready {
    /// `outputs` of what `g` has declared, as a program of this mode.
    #[track_caller]
    pub fn new(g: &Graph, outputs: &[Tensor<'_>], mode: Mode) -> Self {
        let b = g.builder();
        let mut updates = vec![];
        if mode == Mode::Train {
            let id = b
                .variable("learns", DType::F32.of(()), VarKind::Counter, Init::Constant(0.0), "", Site::default())
                .expect("a new name");
            updates.push((id, b.read(id, Site::default())));
        }
        let outputs = outputs.iter().enumerate().map(|(i, t)| (format!("o{i}").into(), t.value())).collect();
        b.program("tested", outputs, updates, Site::default());
        let graph = g.finish().unwrap_or_else(|mistakes| panic!("{}", mistakes[0]));
        let graph = select_program(&graph, "tested").expect("just declared");
        let graph = run_passes(&graph, STANDARD, &mut |_, _| {});
        let program = graph.programs[0].clone();
        let state = graph
            .state
            .iter()
            .map(|(_, v)| (v.name.clone(), Values::from_array(&thalweg_graph::init::initial_value(v, graph.seed))));
        let state = state.collect();
        Self { graph, program, state }
    }
    #[track_caller]
    pub fn run(&self, feeds: &Named, precision: Precision) -> Vec<Values> {
        let done = evaluate(&self.graph, &self.program, feeds, &self.state, precision).expect("it evaluates");
        done.outputs.into_iter().map(|(_, v)| v).collect()
    }
}

/// A sample's op on inputs `x0`, `x1`, …: operands, results and what to feed.
pub struct Applied<'g> {
    pub operands: Vec<Tensor<'g>>,
    pub results: Vec<Tensor<'g>>,
    pub feeds: Named,
}

#[track_caller]
pub fn apply<'g>(g: &'g Graph, sample: &DynSample) -> Applied<'g> {
    let (mut operands, mut feeds) = (vec![], Named::new());
    for (i, (ty, data)) in sample.operands.iter().enumerate() {
        let name = format!("x{i}");
        operands.push(g.input(&name, ty.dtype, ty.shape.clone()));
        feeds.insert(name.into(), Values::from_array(&data.make(ty, 77 + i as u64)));
    }
    let values: Vec<Value> = operands.iter().map(|t| t.value()).collect();
    let results = g.builder().apply(sample.op.clone(), &values, Site::here());
    let results: Vec<_> = results.into_iter().map(|v| Tensor::new(g.builder(), v)).collect();
    if let Err(mistakes) = g.finish() {
        panic!("{:?}: {}", sample.op, mistakes[0]);
    }
    Applied { operands, results, feeds }
}

/// Noise in [−1, 1) of a type, as f64.
pub fn noise(ty: &TensorType, seed: u64) -> Values {
    let shape = ty.shape.fixed().expect("numbers");
    let mut out = Values::from_array(&Array::zeros(ty.dtype, &shape));
    for (i, x) in out.data.iter_mut().enumerate() {
        *x = Number::Float(2.0 * f64::from(philox::unit_f32(philox::word(seed, i as u64, 5))) - 1.0);
    }
    out
}

/// What a function of arrays gives, exactly as devices compute it.
#[track_caller]
pub fn compute<const N: usize>(
    arrays: [Array; N],
    f: impl for<'g> FnOnce([Tensor<'g>; N]) -> Vec<Tensor<'g>>,
) -> Vec<Array> {
    compute_in(Mode::Infer, arrays, f)
}

#[track_caller]
pub fn compute_in<const N: usize>(
    mode: Mode,
    arrays: [Array; N],
    f: impl for<'g> FnOnce([Tensor<'g>; N]) -> Vec<Tensor<'g>>,
) -> Vec<Array> {
    let g = Graph::new("computed");
    let mut feeds = Named::new();
    let mut i = 0;
    let inputs = arrays.map(|a| {
        let name: Arc<str> = format!("x{i}").into();
        i += 1;
        feeds.insert(name.clone(), Values::from_array(&a));
        g.input(&name, a.dtype(), a.shape())
    });
    let outputs = f(inputs);
    Ready::new(&g, &outputs, mode).run(&feeds, Precision::Exact).iter().map(Values::to_array).collect()
}

/// f32s of a shape.
#[track_caller]
pub fn f32s(shape: &[u64], data: &[f32]) -> Array {
    Array::from_slice(shape, data)
}

/// A graph's program, run step after step.
pub struct Trainer {
    pub graph: thalweg_graph::Graph,
    state: Named,
}

impl Trainer {
    pub fn new(graph: &thalweg_graph::Graph, program: &str, bindings: &Bindings) -> Self {
        let bound = select_program(graph, program).and_then(|g| g.bind(bindings)).expect("it binds");
        let graph = run_passes(&bound, STANDARD, &mut |_, _| {});
        let state = graph
            .state
            .iter()
            .map(|(_, v)| (v.name.clone(), Values::from_array(&initial_value(v, graph.seed))))
            .collect();
        Self { graph, state }
    }
    pub fn step(&mut self, feeds: &[(&str, Array)]) -> Vec<f64> {
        let feeds = feeds.iter().map(|(name, a)| ((*name).into(), Values::from_array(a))).collect();
        let done =
            evaluate(&self.graph, &self.graph.programs[0], &feeds, &self.state, Precision::Exact).expect("it runs");
        self.state.extend(done.updates);
        done.outputs.iter().map(|(_, v)| v.data[0].f64()).collect()
    }
    /// All elements of the first output of a program that does not learn.
    pub fn outputs(&self, feeds: &[(&str, Array)]) -> Vec<f64> {
        let feeds = feeds.iter().map(|(name, a)| ((*name).into(), Values::from_array(a))).collect();
        let done = evaluate(&self.graph, &self.graph.programs[0], &feeds, &self.state, Precision::Exact);
        done.expect("it runs").outputs[0].1.to_array().to_f64()
    }
    pub fn get(&self, name: &str) -> Vec<f64> {
        self.state[name].to_array().to_f64()
    }
}
