//! For any nest that verifies, the device means what the interpreter means.

mod common;

use common::check;
use common::draw::any_nest;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_nest_means_what_the_interpreter_says(seed: u64) {
        let (kernel, operands) = any_nest(seed);
        prop_assume!(kernel.verify().is_empty());
        check(&kernel, &operands, 0.0);
    }
}
