//! How variables begin: numbers as a pure function of the graph's seed and the variable's name, so that every process,
//! device and order of declaration starts from the same model.

use std::ops::Range;

use crate::array::Array;
use crate::ir::{Init, Variable};
use crate::kernel::philox::{stream_key, unit_f32, word};
use crate::types::DType;

/// The value a variable begins with.
pub fn initial_value(variable: &Variable, seed: u64) -> Array {
    let shape = variable.ty.shape.fixed().expect("a variable's extents are numbers");
    initial_elements(variable, seed, 0..shape.iter().product()).reshaped(&shape)
}

/// Some of its elements, row-major, as an array of one axis: a large variable need not be there twice.
pub fn initial_elements(variable: &Variable, seed: u64, range: Range<u64>) -> Array {
    let mut out = Array::zeros(variable.ty.dtype, &[range.end - range.start]);
    let stream = blake3::hash(variable.name.as_bytes());
    let key = stream_key(seed, u64::from_le_bytes(stream.as_bytes()[..8].try_into().expect("eight bytes")));
    let unit = |i: usize, which: u64| f64::from(unit_f32(word(key, range.start + i as u64, which)));
    let value = |i: usize| match variable.init {
        Init::Constant(x) => x,
        Init::Uniform { low, high } => low + (high - low) * unit(i, 0),
        // Box and Muller's transform; 1 − u is never zero.
        Init::Normal { mean, std } => {
            mean + std * (-2.0 * (1.0 - unit(i, 0)).ln()).sqrt() * (std::f64::consts::TAU * unit(i, 1)).cos()
        }
    };
    for i in 0..out.len() {
        let x = value(i);
        match variable.ty.dtype {
            DType::Bool | DType::U8 => out.bytes_mut()[i] = x as u8,
            DType::U32 => out.as_mut_slice::<u32>()[i] = x as u32,
            DType::I32 => out.as_mut_slice::<i32>()[i] = x as i32,
            DType::I64 => out.as_mut_slice::<i64>()[i] = x as i64,
            DType::F16 => out.as_mut_slice::<half::f16>()[i] = half::f16::from_f64(x),
            DType::BF16 => out.as_mut_slice::<half::bf16>()[i] = half::bf16::from_f64(x),
            DType::F32 => out.as_mut_slice::<f32>()[i] = x as f32,
            DType::F64 => out.as_mut_slice::<f64>()[i] = x,
        }
    }
    out
}
