//! Whole training runs: the same plan gives the same bits, run twice, and on one thread as on two. What is compared is the
//! digest of every variable, slots and step included, after some steps.

mod common;

use std::collections::BTreeSet;

use thalweg::Cluster;
use thalweg::kit::Case;

#[test]
fn small_models_learn_the_same_bits_twice_and_on_one_thread_and_two() {
    let mut all = BTreeSet::new();
    for case in &common::models::ALL {
        let digests = [1, 2, 2].map(|threads| {
            let mut model = case.compile(threads);
            (0..12).for_each(|i| drop(case.step(&mut model, i).expect("it runs")));
            assert_eq!(model.step(), 12);
            model.digest().expect("it is there")
        });
        assert!(digests.iter().all(|d| *d == digests[0]), "{}: {digests:?}", case.name);
        all.insert(digests[0].clone());
    }
    assert_eq!(all.len(), common::models::ALL.len(), "the digests say something");
}

/// Large enough that nearly every launch is shared out to both threads.
#[test]
fn the_kits_models_learn_the_same_bits_twice_and_on_one_thread_and_two() {
    for (name, steps) in [("lenet_train", 10), ("mlp_train", 10), ("gpt_train", 2)] {
        let digests = [1, 2, 2].map(|threads| {
            let case = Case::open(name, &Cluster::cpu(threads), None).expect("it compiles");
            let mut case = case.expect("there is such a case");
            let mut digests = vec![case.model().digest().expect("it is there")];
            for i in 0..steps {
                case.step(i).expect("it runs");
                digests.push(case.model().digest().expect("it is there"));
            }
            digests
        });
        assert!(digests.iter().all(|d| *d == digests[0]), "{name}: {digests:?}");
        let different: BTreeSet<&String> = digests[0].iter().collect();
        assert_eq!(different.len(), steps + 1, "{name}: every step changes something");
    }
}
