//! The law of leaves, on the executor: the same leaves give the same bits on one device, two and three, step after step.

use std::collections::BTreeMap;

use proptest::prelude::*;
use thalweg::Array;

use crate::common::borrowed;
use crate::plans::{session, threads};
use crate::random;

/// What some steps return and leave in the variables, and how many bytes crossed meanwhile.
fn run(choices: &[(u8, u8, u8)], train: bool, n: u64, leaves: u16, devices: usize) -> (BTreeMap<String, Array>, u64) {
    let mut session = session(choices, train, leaves, threads(devices));
    let mut got = BTreeMap::new();
    for step in 0..3 {
        let feeds = random::feeds(n, 10 + step);
        let outputs = session.run("run", &borrowed(&feeds)).expect("it runs");
        got.extend(outputs.iter().map(|(name, array)| (format!("{name} of step {step}"), array.clone())));
    }
    let names: Vec<_> = session.graph().state.values().iter().map(|v| v.name.clone()).collect();
    for name in names {
        got.insert(format!("variable {name}"), session.get(&name).expect("it is there"));
    }
    (got, session.bytes_sent())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: random::cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_leaves_give_the_same_bits_on_any_devices(
        choices in random::choices(),
        train: bool,
        n in 1u64..13,
        leaves in 3u16..7,
    ) {
        let (alone, none) = run(&choices, train, n, leaves, 1);
        prop_assert_eq!(none, 0);
        for devices in [2, 3] {
            let (got, sent) = run(&choices, train, n, leaves, devices);
            // The loss is a mean over the batch.
            prop_assert!(sent > 0, "nothing crosses between {} devices", devices);
            for (name, value) in &alone {
                prop_assert_eq!(value.bytes(), got[name].bytes(), "{} on {} devices", name, devices);
            }
        }
    }
}
