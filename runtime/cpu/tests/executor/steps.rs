//! Steps that go well: right results, as many bytes as planned, copied no more than needed.

use std::thread;
use std::time::{Duration, Instant};

use thalweg_graph::plan::{DeviceMemory, Memory};
use thalweg_runtime::executor::{Carried, Exchange, Fetch};

use crate::plans::*;

#[test]
fn halves_are_exchanged_and_every_device_takes_its_own() {
    for n in SIZES {
        for (name, devices) in sets(2) {
            let (mut executor, prepared) = loaded(devices, &exchange(n));
            let mut w = vec![0f32; n as usize];
            for k in 0..5 {
                let got = run(&mut executor, &prepared, n, k).expect("it runs");
                let want = expected(n, k);
                assert!(got == want, "{name}, {n}, step {k}");
                w.iter_mut().zip(&want[1]).for_each(|(w, t)| *w += t);
                let state = state(&mut executor, &prepared);
                assert!(
                    state[0] == state[1] && state[0][..4 * n as usize] == *bytemuck::cast_slice::<_, u8>(&w),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn as_many_bytes_cross_as_planned_and_few_are_copied() {
    for (name, devices) in sets(2) {
        let [small, large] = SIZES;
        for (n, plan) in [small, large].into_iter().flat_map(|n| [(n, exchange(n)), (n, granted_late(n))]) {
            let devices = match name {
                "reference" => vec![reference(), reference()],
                "mixed" => continue,
                _ => vec![cpu(0, 1), cpu(1, 1)],
            };
            let (mut executor, prepared) = loaded(devices, &plan);
            for k in 0..3 {
                assert!(run(&mut executor, &prepared, n, k) == Ok(expected(n, k)), "{name}, {n}, step {k}");
            }
            let carried: Vec<(u32, Carried)> = prepared.carried().map(|(c, carried)| (c.0, carried)).collect();
            let bytes = 3 * 4 * n;
            // Device 0 still reads what it has sent, device 1 does not; both read what they get where it is.
            let copied = if name == "reference" || n == small { [2 * bytes; 2] } else { [bytes, 0] };
            let want = |copied| Carried { transfers: 3, bytes, copied };
            assert_eq!(carried, [(2, want(copied[0])), (3, want(copied[1]))], "{name}, {n}");
            for (id, carried) in prepared.carried() {
                assert_eq!(carried.bytes, 3 * prepared.plan().channels[id].ty.size_bytes());
            }
        }
        drop(devices);
    }
}

/// Lent buffers touch no arena, and no channel has a second buffer that need not have one.
#[test]
fn a_plan_says_what_memory_it_needs_and_no_more_is_taken_for_channels() {
    let n = SIZES[1];
    let one = 4 * n;
    let state = [room(n) + 128; 2];
    let of = |d: usize, [scratch, staging, channels]: [u64; 3]| DeviceMemory {
        state_bytes: state[d],
        scratch_bytes: scratch * one,
        staging_bytes: staging * one,
        channel_bytes: channels * one,
    };
    for (plan, borrow, zero, first) in [
        // What device 0 sends and reads on; the total and what device 1 makes for itself.
        (exchange(n), true, [1, 0, 1], [2, 0, 1]),
        (granted_late(n), true, [1, 0, 1], [2, 0, 2]),
        (exchange(n), false, [3, 2, 1], [4, 2, 1]),
        (granted_late(n), false, [3, 2, 1], [4, 2, 1]),
    ] {
        let memory = plan.memory(&[borrow; 2]);
        assert_eq!(memory, [of(0, zero), of(1, first)], "{borrow}");
        let devices = if borrow { vec![cpu(0, 1), cpu(1, 1)] } else { vec![reference(), reference()] };
        let (executor, _) = loaded(devices, &plan);
        assert_eq!(executor.channel_bytes(), memory.iter().map(|m| m.channel_bytes).sum::<u64>(), "{borrow}");
    }
}

/// Everything in f32 and in the order of the plan: the same bits.
#[test]
fn a_ring_of_three_turns_a_thousand_times() {
    for n in SIZES {
        for (name, devices) in sets(3) {
            let steps = if n > 1000 && (name == "reference" || name == "mixed") { 20 } else { 1000 };
            let (mut executor, prepared) = loaded(devices, &ring(n));
            let mut v: Vec<Vec<f32>> = (0..3).map(|d| fed(n, d)[..n as usize].to_vec()).collect();
            for (d, v) in v.iter().enumerate() {
                executor.device_mut(d).write(Memory::State, 0, bytemuck::cast_slice(v)).expect("it is there");
            }
            let (feeds, started) = ([&[][..]; 6], Instant::now());
            for _ in 0..steps {
                let fetches = (0..6).map(|_| Fetch::Nothing).collect();
                let done = executor.run(&prepared, Exchange { feeds: &feeds, draws: &[], fetches, agrees: &|| true });
                assert_eq!(done, Ok(true), "{name}");
                let old = v.clone();
                for d in 0..3 {
                    let [first, second] = [(d + 2) % 3, (d + 1) % 3];
                    for (i, v) in v[d].iter_mut().enumerate() {
                        *v = (((old[d][i] + old[first][i]) + old[second][i]) + old[d][i]) * 0.25;
                    }
                }
            }
            println!("{name}, {n} elements: {:?} a step", started.elapsed() / steps);
            let state = state(&mut executor, &prepared);
            for (d, v) in v.iter().enumerate() {
                assert!(state[d][..4 * n as usize] == *bytemuck::cast_slice::<_, u8>(v), "{name}, device {d}");
            }
            assert!(
                prepared.carried().all(|(_, c)| c.transfers == u64::from(steps) && c.bytes == u64::from(steps) * 4 * n)
            );
        }
    }
}

#[test]
fn a_slow_device_is_waited_for_wherever_it_is_slow() {
    let n = 5;
    for slow in 0..2 {
        for stretch in 0..4 {
            let before = move |k: usize, _: Option<&thalweg_runtime::AbortFlag>| {
                if k == stretch {
                    thread::sleep(Duration::from_millis(250));
                }
                Ok(())
            };
            let mut devices = vec![reference(), cpu(1, 1)];
            let device = devices.remove(slow);
            devices.insert(slow, odd(device, before));
            let (mut executor, prepared) = loaded(devices, &exchange(n));
            // Shorter than it takes: whoever computes is not waited for in vain.
            executor.set_wait_limit(Duration::from_millis(200));
            assert_eq!(run(&mut executor, &prepared, n, 0), Ok(expected(n, 0)), "device {slow}, stretch {stretch}");
        }
    }
}

#[test]
fn plans_come_and_go() {
    let [small, large] = SIZES;
    let (mut executor, first) = loaded(vec![cpu(0, 1), cpu(1, 1)], &exchange(large));
    let second = executor.load(&exchange(small)).expect("room");
    assert_eq!(executor.channel_bytes(), 2 * 4 * large, "they take turns");
    for k in 0..3 {
        assert!(run(&mut executor, &first, large, k) == Ok(expected(large, k)));
        assert_eq!(run(&mut executor, &second, small, k), Ok(expected(small, k)));
    }
    executor.unload(&second);
    let third = executor.load(&exchange(small + 1)).expect("room");
    assert_eq!(run(&mut executor, &third, small + 1, 0), Ok(expected(small + 1, 0)));
    assert!(run(&mut executor, &first, large, 7) == Ok(expected(large, 7)));
    let fourth = executor.load(&granted_late(large + 1)).expect("room");
    assert_eq!(executor.channel_bytes(), 3 * 4 * (large + 1));
    for k in 0..3 {
        assert!(run(&mut executor, &fourth, large + 1, k) == Ok(expected(large + 1, k)));
        assert!(run(&mut executor, &first, large, k) == Ok(expected(large, k)));
    }
}

#[test]
fn what_is_not_agreed_on_updates_nothing() {
    let n = 5;
    for (name, devices) in sets(2) {
        let (mut executor, prepared) = loaded(devices, &exchange(n));
        run(&mut executor, &prepared, n, 0).expect("it runs");
        let before = state(&mut executor, &prepared);
        assert_eq!(run_if(&mut executor, &prepared, n, 1, false), Ok(None), "{name}");
        assert_eq!(state(&mut executor, &prepared), before, "{name}");
        assert_eq!(run(&mut executor, &prepared, n, 2), Ok(expected(n, 2)), "{name}");
        assert_ne!(state(&mut executor, &prepared), before, "{name}");
    }
}
