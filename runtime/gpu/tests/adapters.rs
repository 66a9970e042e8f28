//! What this machine has, and that a machine without anything says so.

mod common;

use thalweg_gpu::{GpuDevice, adapters};
use thalweg_graph::kernel::build::*;

#[test]
fn an_adapter_that_is_not_there_is_an_error_that_says_what_there_is() {
    let Err(error) = GpuDevice::new("gpu:99", 99) else { panic!("there is an adapter 99") };
    let said = error.to_string();
    let want = if adapters().is_empty() { "no adapter was found" } else { "there is no adapter 99" };
    assert!(said.contains("gpu:99") && said.contains(want), "{said}");
}

#[test]
fn adapters_are_numbered_and_software_comes_last() {
    let all = adapters();
    assert!(all.iter().enumerate().all(|(i, a)| a.index == i));
    let software: Vec<bool> = all.iter().map(|a| a.kind == "software").collect();
    assert!(software.is_sorted(), "{all:?}");
}

#[test]
fn two_devices_on_one_adapter_keep_their_own_memory_and_share_pipelines() {
    let (Some(mut a), Some(mut b)) = (common::gpu("two devices"), common::gpu("two devices")) else { return };
    let mut axes = Axes::new();
    let [i] = axes.par([4]);
    let ty = common::ty(thalweg_graph::DType::F32, &[4]);
    let kernel = axes.nest(std::slice::from_ref(&ty), std::slice::from_ref(&ty), [read(0, [i]) * lit(3.0)]);
    let mut random = common::Random(5);
    let (x, y) = (random.values(&ty), random.values(&ty));
    let before = common::run(&mut a, &kernel, std::slice::from_ref(&x)).expect("it runs");
    common::check(&mut b, &kernel, &[y], 0.0);
    assert_eq!((a.pipelines_compiled(), b.pipelines_compiled()), (1, 0), "the same text is compiled once");
    assert_eq!(common::run(&mut a, &kernel, &[x]).expect("it runs")[0].data, before[0].data);
}
