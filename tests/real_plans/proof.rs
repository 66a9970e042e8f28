//! Every real plan is sound and comes to no harm in any timing; of mutants of them none that does harm is let through, and
//! of the others hardly one is refused. The table that is printed is the evidence.

use std::sync::Arc;
use std::time::{Duration, Instant};

use thalweg::Cluster;
use thalweg::graph::kernel::Kernel;
use thalweg::graph::lower::{LaunchLimits, StateLayout, Target, lower_devices};
use thalweg::graph::partition::partition;
use thalweg::graph::passes::{STANDARD, run_passes, select_program};
use thalweg::graph::place::place;
use thalweg::graph::plan::mutate::{Operator, mutants};
use thalweg::graph::plan::simulate::{Free, Options, simulate};
use thalweg::graph::plan::trial::{Judge, Row, Table};
use thalweg::graph::plan::{Channel, Endpoint};
use thalweg::graph::{Bindings, Strategy};

use crate::plans::{BATCH, Named, all, digits, replicas};

fn options(seeds: u64, replicas: bool) -> Options {
    Options { steps: 3, seeds: 0..seeds, replicas }
}

/// Mutants in all; `THALWEG_CASES` asks for more.
const MUTANTS: usize = 1_000;

#[test]
fn real_plans_are_sound_and_come_to_no_harm_in_any_timing() {
    let (mut certified, mut simulated) = (Duration::ZERO, Duration::ZERO);
    let plans = all();
    let (mut channels, mut instructions) = (0, 0);
    for (name, plan) in &plans {
        let started = Instant::now();
        let certificate = plan.certify().unwrap_or_else(|faults| panic!("{name}: {}\n{plan}", faults[0]));
        certified += started.elapsed();
        channels += certificate.channels;
        instructions += plan.devices.iter().map(|d| d.instructions.len()).sum::<usize>();
        let started = Instant::now();
        let simulation =
            simulate(plan, &Free, &options(12, replicas(name))).unwrap_or_else(|harm| panic!("{name}: {harm}\n{plan}"));
        simulated += started.elapsed();
        assert_eq!(simulation.waste, [], "{name} computes for nobody");
        for (k, step) in simulation.steps.iter().enumerate() {
            // What every device updates for itself stays the same on all of them: they compute it from the same.
            let same = step.state.windows(2).all(|w| w[0] == w[1]);
            assert!(same || !replicas(name), "{name}: variables differ behind step {k}\n{plan}");
            assert!(!step.returned.is_empty(), "{name} returns nothing");
        }
        let learns = simulation.steps[0].state != simulation.steps[1].state;
        assert_eq!(learns, plan.devices.iter().any(|d| d.tail_start() < d.instructions.len()), "{name}");
    }
    println!(
        "{} plans of {instructions} instructions and {channels} channels: shown sound in {certified:?}, simulated in {simulated:?}",
        plans.len()
    );
}

/// A device that is given every operation as a launch of its own: how sums are fused depends on who holds which of their
/// terms, and a fused launch is a value of another name.
struct Plain;

impl Target for Plain {
    fn name(&self) -> Arc<str> {
        "plain".into()
    }
    fn workspace_bytes(&self, _: &Kernel) -> u64 {
        0
    }
    fn limits(&self) -> LaunchLimits {
        LaunchLimits { buffers: BUFFERS, ..LaunchLimits::default() }
    }
}

/// As many as an addition names.
const BUFFERS: usize = 3;

/// What is returned comes from the same values by the same operations in the same order, whoever computes it. What becomes
/// of variables does too, but devices add up gradients in pieces, each by a launch of its own: that the bits are the same
/// is seen where they are computed, in `same_bits`.
#[test]
fn the_same_leaves_mean_the_same_on_any_number_of_devices() {
    let crosses = |c: &Channel| ![c.from, c.to].contains(&Endpoint::Driver);
    for program in ["eval", "train"] {
        let meant = [1, 2, 3, 4, 8].map(|devices| {
            let model = digits(1, 1);
            let graph = model.graph();
            let request = Strategy::data_parallel().leaves(8).request(graph, &Cluster::cpus(devices)).expect("it fits");
            let primitive = run_passes(&select_program(graph, program).expect("a program"), STANDARD, &mut |_, _| {});
            let bindings: Bindings = [("batch".into(), BATCH)].into();
            let bound = primitive.bind(&bindings).expect("bound");
            let parts = partition(&place(&bound, &request).expect("it is placed"), devices);
            let layouts = vec![StateLayout::of(graph); devices];
            let plan = lower_devices(&parts, &bindings, &layouts, &vec![&Plain as &dyn Target; devices]);
            let plan = plan.expect("it is lowered");
            assert_eq!(plan.verify(), Vec::<String>::new(), "{program} on {devices}");
            let steps = simulate(&plan, &Free, &options(0, true)).expect("no harm").steps;
            assert!(devices == 1 || plan.channels.values().iter().any(crosses), "nothing crosses");
            steps[0].returned.clone()
        });
        for (devices, other) in [2, 3, 4, 8].iter().zip(&meant[1..]) {
            assert_eq!(*other, meant[0], "{program} on {devices} devices");
        }
    }
}

/// What became of mutants, and which were refused without need.
fn tried(plans: &[Named], each: impl Fn(usize) -> usize) -> (Table, Vec<String>) {
    let (mut table, mut needless) = (Table::default(), Vec::new());
    for (i, (name, plan)) in plans.iter().enumerate() {
        let judge =
            Judge::new(plan, options(6, replicas(name))).unwrap_or_else(|harm| panic!("{name}: {harm}\n{plan}"));
        for mutant in mutants(plan, i as u64, each(i)) {
            let trial = judge.judge(&mutant.plan);
            table.add(&mutant, &trial);
            let (operator, what) = (mutant.operator, &mutant.what);
            assert!(!trial.is_escape(), "let through: {name}: {operator:?}: {what}: {:?}", trial.verdict);
            let why = trial.is_needless().then_some(trial.refused).flatten();
            needless.extend(why.map(|fault| format!("{operator:?}: {name}: {what}: {:?}: {fault}", fault.kind)));
        }
    }
    (table, needless)
}

#[test]
fn no_harmful_mutant_of_a_real_plan_passes_and_hardly_a_harmless_one_is_refused() {
    let started = Instant::now();
    let plans = all();
    let of: usize = std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    // An operator with nothing to work on makes none, so some more are asked for.
    let of = of.max(MUTANTS) * 9 / 8;
    let (table, needless) = tried(&plans, |i| of / plans.len() + usize::from(i < of % plans.len()));
    print!("{table}");
    needless.iter().for_each(|line| println!("{line}"));
    println!("{} plans, {:?}", plans.len(), started.elapsed());
    let all: Row = table.total();
    assert!(all.count() >= MUTANTS, "{} mutants", all.count());
    assert!(all.needless * 20 <= all.harmless, "{} of {} harmless mutants are refused", all.needless, all.harmless);
    for operator in Operator::ALL {
        assert!(table.rows.get(&operator).is_some_and(|row| row.harmful > 0), "{operator:?} does no harm");
    }
}
