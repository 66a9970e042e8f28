//! Elements in and out of memory, which is words. Smaller elements share a word: threads that write neighbours change only
//! their own bits of it, atomically, and since no two write the same bits the result does not depend on their order.

use thalweg_graph::types::DType;

use super::expr::{Repr, Value};
use super::shader::{Place, Shader};

/// What is at element `index` (an `i32` expression) of a place.
pub(super) fn load(sh: &mut Shader, place: Place, dtype: DType, index: &str) -> Value {
    let repr = Repr::of(dtype);
    let start = sh.start(place, dtype);
    let m = sh.words(place.slot);
    let at = |by: &str| format!("{start} + {by}");
    let text = match dtype {
        DType::F32 => format!("bitcast<f32>({m}[{}])", at(index)),
        DType::U32 => format!("{m}[{}]", at(index)),
        DType::I32 => format!("bitcast<i32>({m}[{}])", at(index)),
        DType::I64 => {
            let w = sh.bind("w", at(&format!("2 * ({index})")));
            format!("vec2<u32>({m}[{w}], {m}[{w} + 1])")
        }
        DType::Bool | DType::U8 => {
            let b = sh.bind("b", format!("u32({})", at(index)));
            let byte = format!("(({m}[{b} >> 2u] >> (8u * ({b} & 3u))) & 0xffu)");
            if dtype == DType::Bool { format!("({byte} != 0u)") } else { byte }
        }
        DType::F16 | DType::BF16 => {
            let h = sh.bind("h", format!("u32({})", at(index)));
            let bits = format!("(({m}[{h} >> 1u] >> (16u * ({h} & 1u))) & 0xffffu)");
            format!("{}({bits})", if dtype == DType::F16 { "f16_to_f32" } else { "bf16_to_f32" })
        }
        DType::F64 => {
            let w = sh.bind("w", at(&format!("2 * ({index})")));
            format!("pair_from_bits(vec2<u32>({m}[{w}], {m}[{w} + 1]))")
        }
    };
    Value::new(text, repr)
}

/// Writes a value of `dtype` to element `index` of a place.
pub(super) fn store(sh: &mut Shader, place: Place, dtype: DType, index: &str, value: &Value) {
    let start = sh.start(place, dtype);
    let x = &value.text;
    match dtype {
        DType::F32 | DType::U32 | DType::I32 => {
            let m = sh.words(place.slot);
            let bits = if dtype == DType::U32 { x.clone() } else { format!("bitcast<u32>({x})") };
            sh.line(format!("{m}[{start} + {index}] = {bits};"));
        }
        DType::I64 | DType::F64 => {
            let m = sh.words(place.slot);
            let w = sh.bind("w", format!("{start} + 2 * ({index})"));
            let words = if dtype == DType::F64 { format!("pair_to_bits({x})") } else { value.wide() };
            let v = sh.bind("x", words);
            sh.line(format!("{m}[{w}] = {v}.x;"));
            sh.line(format!("{m}[{w} + 1] = {v}.y;"));
        }
        DType::Bool | DType::U8 => {
            let bits = if dtype == DType::Bool { format!("select(0u, 1u, {x})") } else { format!("({x} & 0xffu)") };
            part(sh, place, &format!("{start} + {index}"), &bits, 2);
        }
        DType::F16 => part(sh, place, &format!("{start} + {index}"), &format!("f32_to_f16({x})"), 1),
        DType::BF16 => part(sh, place, &format!("{start} + {index}"), &format!("f32_to_bf16({x})"), 1),
    }
}

/// Changes one of the `1 << log` parts of a word: flips the bits in which it differs, which nobody else flips.
fn part(sh: &mut Shader, place: Place, index: &str, bits: &str, log: u32) {
    let n = sh.parts(place.slot);
    let (last, width) = ((1 << log) - 1, 32 >> log);
    let e = sh.bind("e", format!("u32({index})"));
    let word = sh.bind("w", format!("{e} >> {log}u"));
    let by = sh.bind("s", format!("{width}u * ({e} & {last}u)"));
    let mask = (1u64 << width) - 1;
    let flip = format!("(atomicLoad(&{n}[{word}]) ^ ({bits} << {by})) & ({mask}u << {by})");
    sh.line(format!("atomicXor(&{n}[{word}], {flip});"));
}
