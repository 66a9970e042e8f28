//! The order of samples, as a pure function of seed and pass: no generator is carried along, so a run can be repeated
//! and resumed anywhere. FNV-1a and splitmix64, which the benchmark kit fixes by known answers so that any system can
//! make the same numbers; not the framework's own random numbers.

/// FNV-1a, 64 bits, of a name.
pub fn seed(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3))
}

/// The outputs 1, 2, … of splitmix64, started from the seed of `name`.
pub fn words(name: &str) -> impl Iterator<Item = u64> + use<> {
    let mut state = seed(name);
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// The order of `n` things: Fisher and Yates' shuffle, from the top.
pub fn permutation(name: &str, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for (i, z) in (1..n).rev().zip(words(name)) {
        order.swap(i, (z % (i as u64 + 1)) as usize);
    }
    order
}

/// The order in which a shuffled source of `n` samples is read in one pass.
pub fn shuffled(seed: u64, pass: u64, n: usize) -> Vec<usize> {
    permutation(&format!("shuffle/{seed}/{pass}"), n)
}
