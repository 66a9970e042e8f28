//! Plans of several devices with every sort of mistake in them: what the simulator sees come to harm the verifier refuses,
//! and of what does no harm it refuses little. The table that it prints is the evidence.

#![allow(missing_docs)]

mod common;
mod plan;
#[path = "plan/random.rs"]
mod random;

use std::collections::BTreeMap;

use plan::devices::several;
use random::any_plan;
use thalweg_graph::plan::Endpoint::Driver;
use thalweg_graph::plan::mutate::{Mutant, Operator, mutants};
use thalweg_graph::plan::simulate::{Free, Options, Simulation, simulate};
use thalweg_graph::plan::{Fault, Plan};

/// What became of the mutants of one operator.
#[derive(Default, Clone, Copy)]
struct Row {
    /// They come to harm; all are refused.
    harmful: usize,
    /// They come to no harm, and to something else than the plan did: sound plans of another program.
    other: usize,
    /// They do what the plan does, and some of it for nobody: refused on purpose.
    wasteful: usize,
    /// They do what the plan does. Of those: refused.
    harmless: usize,
    refused: usize,
}

fn options() -> Options {
    Options { steps: 3, seeds: 0..12, replicas: false }
}

/// Judges a mutant and counts it; fails if it does harm and is let through.
fn judge(table: &mut BTreeMap<Operator, Row>, name: &str, meant: &Simulation, mutant: &Mutant, kept: &mut Vec<String>) {
    let Mutant { operator, what, plan } = mutant;
    let faults: Vec<Fault> = plan.certify().err().unwrap_or_default();
    let verdict = simulate(plan, &Free, &options());
    let row = table.entry(*operator).or_default();
    match &verdict {
        Err(harm) => {
            assert!(!faults.is_empty(), "it comes to harm and is let through: {name}: {what}: {harm}\n{plan}");
            row.harmful += 1;
        }
        Ok(is) if is.steps != meant.steps => row.other += 1,
        Ok(is) if is.waste.len() > meant.waste.len() => row.wasteful += 1,
        Ok(_) => {
            row.harmless += 1;
            row.refused += usize::from(!faults.is_empty());
            kept.extend(faults.first().map(|fault| format!("{operator:?}: {name}: {what}: {:?}: {fault}", fault.kind)));
        }
    }
}

fn of(plans: Vec<(String, Plan)>, each: usize) -> (BTreeMap<Operator, Row>, Vec<String>) {
    let (mut table, mut kept) = (BTreeMap::new(), Vec::new());
    for (seed, (name, plan)) in (0..).zip(plans) {
        let meant = simulate(&plan, &Free, &options()).unwrap_or_else(|harm| panic!("{name}: {harm}\n{plan}"));
        for mutant in mutants(&plan, seed, each) {
            judge(&mut table, &name, &meant, &mutant, &mut kept);
        }
    }
    (table, kept)
}

fn print(table: &BTreeMap<Operator, Row>) -> Row {
    let mut all = Row::default();
    println!("{:12} {:>8} {:>8} {:>8} {:>8} {:>8}", "", "harmful", "other", "wasteful", "harmless", "refused");
    for (operator, row) in table {
        let Row { harmful, other, wasteful, harmless, refused } = *row;
        println!("{:12} {harmful:>8} {other:>8} {wasteful:>8} {harmless:>8} {refused:>8}", format!("{operator:?}"));
        all.harmful += harmful;
        all.other += other;
        all.wasteful += wasteful;
        all.harmless += harmless;
        all.refused += refused;
    }
    let Row { harmful, other, wasteful, harmless, refused } = all;
    println!("{:12} {harmful:>8} {other:>8} {wasteful:>8} {harmless:>8} {refused:>8}", "all");
    all
}

/// The table of `plans`, and its sum: every operator has its share and does harm.
fn table(plans: Vec<(String, Plan)>, each: usize) -> Row {
    let (table, kept) = of(plans, each);
    let all = print(&table);
    let show = if std::env::var_os("THALWEG_SHOW").is_some() { usize::MAX } else { 20 };
    kept.iter().take(show).for_each(|line| println!("{line}"));
    let total: usize = table.values().map(|r| r.harmful + r.other + r.wasteful + r.harmless).sum();
    for operator in Operator::ALL {
        let row = table.get(&operator).copied().unwrap_or_default();
        let count = row.harmful + row.other + row.wasteful + row.harmless;
        assert!(count * 20 >= total, "{operator:?}: {count} of {total}");
        assert!(row.harmful > 0, "{operator:?} does no harm");
    }
    // What is refused without need: bytes that are known to be free by way of other channels alone, and flaws in what
    // nobody uses.
    assert!(all.refused * 20 <= all.harmless, "{} of {} harmless mutants are refused", all.refused, all.harmless);
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
