//! Many jobs, each with what its seed has go wrong; and machines that are broken on purpose.

use super::*;

/// Runs seeds until one is not as it should be; what happened in all of them, and which seed was wrong.
fn many(seeds: std::ops::Range<u64>, mutant: Option<Mutant>) -> (BTreeMap<String, u64>, Option<(u64, String)>) {
    let mut counts = BTreeMap::new();
    for seed in seeds {
        let done = run(seed, mutant, false);
        *counts.entry("events".into()).or_default() += done.events;
        *counts.entry("virtual seconds".into()).or_default() += done.took.as_secs();
        for (what, times) in done.counts {
            *counts.entry(what).or_default() += times;
        }
        if let Some(wrong) = done.wrong {
            return (counts, Some((seed, wrong)));
        }
    }
    (counts, None)
}

fn table(counts: &BTreeMap<String, u64>) {
    counts.iter().for_each(|(what, times)| println!("{times:>12} {what}"));
}

/// All that is wrong in so many jobs, for whoever looks for the first time.
#[test]
#[ignore = "goes on when something is wrong"]
fn survey() {
    for seed in 0..3000 {
        if let Some(wrong) = run(seed, None, false).wrong {
            println!("{seed}: {wrong}");
        }
    }
}

/// The last of what a run that went wrong tells.
fn told(seed: u64, mutant: Option<Mutant>) -> String {
    let done = run(seed, mutant, true);
    let from = done.trace.len().saturating_sub(60);
    done.trace[from..].join("\n")
}

#[track_caller]
fn all_well(seeds: std::ops::Range<u64>) -> BTreeMap<String, u64> {
    let (counts, wrong) = many(seeds, None);
    if let Some((seed, wrong)) = wrong {
        panic!("THALWEG_SEED={seed}: {wrong}\n{}", told(seed, None));
    }
    counts
}

#[test]
fn whatever_goes_wrong_in_a_thousand_jobs() {
    let counts = all_well(0..1000);
    table(&counts);
}

#[test]
#[ignore = "ten thousand jobs, for the table of what was hit"]
fn whatever_goes_wrong_in_ten_thousand_jobs() {
    table(&all_well(0..10_000));
}

#[test]
#[ignore = "one run from THALWEG_SEED, told in full"]
fn one_seed() {
    let seed = std::env::var("THALWEG_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let done = run(seed, None, true);
    println!("{}", done.trace.join("\n"));
    table(&done.counts);
    println!("{} events, {:?}: {}", done.events, done.took, done.wrong.as_deref().unwrap_or("all as it should be"));
}

#[test]
fn every_machine_that_is_broken_on_purpose_is_found() {
    for mutant in faults::MUTANTS {
        let (_, wrong) = many(0..1000, Some(mutant));
        let (seed, wrong) = wrong.unwrap_or_else(|| panic!("{mutant:?} is not noticed"));
        println!("{mutant:?}: seed {seed}: {wrong}");
    }
}
