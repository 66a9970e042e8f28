//! The numbers of the benchmark kit: every weight, batch and label is a pure function of its name, so that any system can
//! make the same ones to the last bit. Not the framework's own random numbers, which depend on a seed.

pub use thalweg_data::order::{permutation, seed, words};
use thalweg_graph::Array;

/// `offset + scale · r`, r in [−1, 1) with 24 random bits; f32 product, then f32 sum.
pub fn uniform(name: &str, shape: &[u64], scale: f64, offset: f64) -> Array {
    let (scale, offset) = (scale as f32, offset as f32);
    let mut out = Array::zeros(thalweg_graph::DType::F32, shape);
    for (x, z) in out.as_mut_slice::<f32>().iter_mut().zip(words(name)) {
        let r = 2.0 * ((z >> 40) as f32 * (-24f32).exp2()) - 1.0;
        *x = offset + scale * r;
    }
    out
}

/// Whole numbers below `bound`, as i32.
pub fn integers(name: &str, shape: &[u64], bound: u64) -> Array {
    let mut out = Array::zeros(thalweg_graph::DType::I32, shape);
    for (x, z) in out.as_mut_slice::<i32>().iter_mut().zip(words(name)) {
        *x = ((z >> 33) % bound) as i32;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_specification() {
        assert_eq!(seed("mlp/x0"), 0x8a26_3967_a751_6c61);
        let first: Vec<u64> = words("mlp/x0").take(3).collect();
        assert_eq!(first, [0x3d9e_abe0_f16e_0506, 0x07af_5a13_9810_bee0, 0x6b18_92e3_49b4_d252]);
        assert_eq!(uniform("mlp/x0", &[3], 1.0, 0.0).as_slice::<f32>(), [-0.51859534, -0.9399612, -0.16331267]);
        assert_eq!(integers("mlp/y0", &[8], 10).as_slice::<i32>(), [0, 0, 2, 8, 1, 3, 1, 3]);
        assert_eq!(permutation("mlp_small/perm0", 1437)[..5], [1140, 1218, 567, 1085, 1165]);
    }
}
