//! A step over several devices allocates no buffer in steady state, however large what crosses is.
//!
//! Alone in its file, as one test: the allocator counts for the whole process.

#[path = "executor/plans.rs"]
mod plans;

use std::alloc::System;

use plans::{cpu, exchange, fed, loaded};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use thalweg_runtime::executor::{Exchange, Fetch};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A megabyte.
const N: u64 = 1 << 18;
/// What a step may take: lists of channels for each device, and what a launch takes.
const MOST_BYTES: usize = 8 << 10;

#[test]
fn a_step_over_two_devices_allocates_no_buffer() {
    let (mut executor, prepared) = loaded(vec![cpu(0, 1), cpu(1, 1)], &exchange(N));
    let x = fed(N, 0);
    let (left, right) = bytemuck::cast_slice(&x).split_at(4 * N as usize);
    let feeds = [left, right, &[], &[], &[], &[], &[]];
    let (mut y, mut total) = (vec![0f32; 2 * N as usize], vec![0f32; N as usize]);
    let mut taken = vec![];
    for _ in 0..30 {
        let region = Region::new(GLOBAL);
        let (low, high) = bytemuck::cast_slice_mut(&mut y).split_at_mut(4 * N as usize);
        let mut fetches: Vec<Fetch<'_>> = (0..4).map(|_| Fetch::Nothing).collect();
        fetches.extend([low, high, bytemuck::cast_slice_mut(&mut total)].map(Fetch::Into));
        executor.run(&prepared, Exchange { feeds: &feeds, draws: &[], fetches, agrees: &|| true }).expect("it runs");
        let change = region.change();
        taken.push(change.bytes_allocated + usize::try_from(change.bytes_reallocated).unwrap_or(0));
    }
    let steady = &taken[10..];
    println!("at most {} bytes a step in steady state", steady.iter().max().expect("some steps"));
    assert!(steady.iter().all(|bytes| *bytes < MOST_BYTES), "{steady:?}");
}
