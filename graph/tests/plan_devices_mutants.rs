//! Plans of several devices with every sort of mistake in them: what the simulator sees come to harm the verifier refuses,
//! and of what does no harm it refuses little. The table that it prints is the evidence.

#![allow(missing_docs)]

mod common;
mod plan;
#[path = "plan/random.rs"]
mod random;

use plan::devices::several;
use random::any_plan;
use thalweg_graph::plan::Endpoint::Driver;
use thalweg_graph::plan::Plan;
use thalweg_graph::plan::mutate::{Mutant, Operator, mutants};
use thalweg_graph::plan::simulate::{Free, Options, simulate};
use thalweg_graph::plan::trial::{Judge, Row, Table};

fn options() -> Options {
    Options { steps: 3, seeds: 0..12, replicas: false }
}

/// The table of mutants of `plans`, and those that were refused without need; fails if one does harm and is let through.
fn of(plans: Vec<(String, Plan)>, each: usize) -> (Table, Vec<String>) {
    let (mut table, mut kept) = (Table::default(), Vec::new());
    for (seed, (name, plan)) in (0..).zip(plans) {
        let judge = Judge::new(&plan, options()).unwrap_or_else(|harm| panic!("{name}: {harm}\n{plan}"));
        for mutant in mutants(&plan, seed, each) {
            let trial = judge.judge(&mutant.plan);
            table.add(&mutant, &trial);
            let Mutant { operator, what, plan } = mutant;
            assert!(!trial.is_escape(), "let through: {name}: {what}: {:?}\n{plan}", trial.verdict);
            let needless = trial.is_needless().then_some(trial.refused).flatten();
            kept.extend(needless.map(|fault| format!("{operator:?}: {name}: {what}: {:?}: {fault}", fault.kind)));
        }
    }
    (table, kept)
}

/// The sum of the table of `plans`: every operator has its share and does harm.
fn table(plans: Vec<(String, Plan)>, each: usize) -> Row {
    let (table, kept) = of(plans, each);
    print!("{table}");
    let show = if std::env::var_os("THALWEG_SHOW").is_some() { usize::MAX } else { 20 };
    kept.iter().take(show).for_each(|line| println!("{line}"));
    let all = table.total();
    for operator in Operator::ALL {
        let row = table.rows.get(&operator).copied().unwrap_or_default();
        assert!(row.count() * 20 >= all.count(), "{operator:?}: {} of {}", row.count(), all.count());
        assert!(row.harmful > 0, "{operator:?} does no harm");
    }
    // What is refused without need: bytes that are known to be free by way of other channels alone, and flaws in what
    // nobody uses.
    assert!(all.needless * 20 <= all.harmless, "{} of {} harmless mutants are refused", all.needless, all.harmless);
    all
}

#[test]
fn no_harmful_mutant_passes_and_hardly_a_harmless_one_is_refused() {
    let plans = several().into_iter().map(|(name, plan)| (name.to_string(), plan));
    let all = table(plans.collect(), 6_000);
    assert!(all.harmful > 10_000, "too few harmful mutants to learn from: {}", all.harmful);
}

#[test]
fn nor_of_plans_by_chance() {
    let count: u64 = std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let plans: Vec<(String, Plan)> = (0..count).map(|seed| (format!("seed {seed}"), any_plan(seed))).collect();
    for (name, plan) in &plans {
        assert_eq!(plan.verify(), Vec::<String>::new(), "{name}\n{plan}");
        let simulation = simulate(plan, &Free, &options()).unwrap_or_else(|harm| panic!("{name}: {harm}\n{plan}"));
        assert_eq!(simulation.waste, [], "{name}\n{plan}");
    }
    let crossing = |plan: &Plan| plan.channels.values().iter().filter(|c| c.from != Driver && c.to != Driver).count();
    let ahead =
        plans.iter().filter(|(_, plan)| plan.certify().is_ok_and(|c| c.tokens > c.devices.len() as u64)).count();
    println!("{} plans, {} channels", plans.len(), plans.iter().map(|(_, plan)| crossing(plan)).sum::<usize>());
    assert!(ahead * 2 > plans.len(), "hardly a slot is granted ahead: {ahead}");
    table(plans, 120);
}
