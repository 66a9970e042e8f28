//! Elements in and out of memory, which is words. Smaller elements share a word: threads that write neighbours change only
//! their own bits of it, atomically, and since no two write the same bits the result does not depend on their order.
//!
//! A buffer that is larger than a binding is seen through several, of equal size but for the last: a word's number says in
//! which it lies.

use thalweg_graph::types::DType;

use super::expr::{Repr, Value};
use super::shader::{Param, Place, Shader};

/// The word at `at` (an `i32` expression), counted from the beginning of the first binding.
fn word(sh: &mut Shader, place: Place, at: &str) -> String {
    if place.seen.windows == 1 {
        return format!("{}[{at}]", sh.words(place.seen.slot));
    }
    let name = sh.name("w");
    sh.line(format!("var {name}: u32;"));
    choose(sh, place, &format!("u32({at})"), |sh, slot, at| format!("{name} = {}[{at}];", sh.words(slot)));
    name
}

/// Writes a word.
fn put(sh: &mut Shader, place: Place, at: &str, bits: &str) {
    if place.seen.windows == 1 {
        let m = sh.words(place.seen.slot);
        return sh.line(format!("{m}[{at}] = {bits};"));
    }
    let bits = sh.bind("x", bits);
    choose(sh, place, &format!("u32({at})"), |sh, slot, at| format!("{}[{at}] = {bits};", sh.words(slot)));
}

/// Writes a statement for each binding, of which the one runs in whose binding word `at` (a `u32` expression) lies.
fn choose(sh: &mut Shader, place: Place, at: &str, statement: impl Fn(&mut Shader, usize, &str) -> String) {
    let stride = sh.param(Param::Stride);
    let at = sh.bind("at", at);
    let which = sh.bind("k", format!("{at} / u32({stride})"));
    let here = sh.bind("at", format!("{at} - {which} * u32({stride})"));
    sh.open(format!("switch {which}"));
    for k in 0..place.seen.windows {
        let case = if k + 1 == place.seen.windows { "default".to_string() } else { format!("case {k}u") };
        let line = statement(sh, place.seen.slot + k, &here);
        sh.line(format!("{case}: {{ {line} }}"));
    }
    sh.close();
}

/// What is at element `index` (an `i32` expression) of a place.
pub(super) fn load(sh: &mut Shader, place: Place, dtype: DType, index: &str) -> Value {
    let repr = Repr::of(dtype);
    if let Some(k) = place.kept {
        let text = format!("kept{k}[{index} - base{k}]");
        return Value::new(if repr == Repr::Bool { format!("({text} != 0u)") } else { text }, repr);
    }
    let start = sh.start(place, dtype);
    let at = |by: &str| format!("{start} + {by}");
    let two = |sh: &mut Shader| {
        let w = sh.bind("w", at(&format!("2 * ({index})")));
        let (low, high) = (word(sh, place, &w), word(sh, place, &format!("{w} + 1")));
        format!("vec2<u32>({low}, {high})")
    };
    let text = match dtype {
        DType::F32 => format!("bitcast<f32>({})", word(sh, place, &at(index))),
        DType::U32 => word(sh, place, &at(index)),
        DType::I32 => format!("bitcast<i32>({})", word(sh, place, &at(index))),
        DType::I64 => two(sh),
        DType::Bool | DType::U8 => {
            let b = sh.bind("b", format!("u32({})", at(index)));
            let word = word(sh, place, &format!("{b} >> 2u"));
            let byte = format!("(({word} >> (8u * ({b} & 3u))) & 0xffu)");
            if dtype == DType::Bool { format!("({byte} != 0u)") } else { byte }
        }
        DType::F16 | DType::BF16 => {
            let h = sh.bind("h", format!("u32({})", at(index)));
            let word = word(sh, place, &format!("{h} >> 1u"));
            let bits = format!("(({word} >> (16u * ({h} & 1u))) & 0xffffu)");
            format!("{}({bits})", if dtype == DType::F16 { "f16_to_f32" } else { "bf16_to_f32" })
        }
        DType::F64 => format!("pair_from_bits({})", two(sh)),
    };
    Value::new(text, repr)
}

/// Writes a value of `dtype` to element `index` of a place.
pub(super) fn store(sh: &mut Shader, place: Place, dtype: DType, index: &str, value: &Value) {
    let x = &value.text;
    if let Some(k) = place.kept {
        let kept = match dtype {
            DType::Bool => format!("select(0u, 1u, {x})"),
            DType::U8 => format!("({x} & 0xffu)"),
            DType::I64 => value.wide(),
            _ => x.clone(),
        };
        return sh.line(format!("kept{k}[{index} - base{k}] = {kept};"));
    }
    let start = sh.start(place, dtype);
    match dtype {
        DType::F32 | DType::U32 | DType::I32 => {
            let bits = if dtype == DType::U32 { x.clone() } else { format!("bitcast<u32>({x})") };
            put(sh, place, &format!("{start} + {index}"), &bits);
        }
        DType::I64 | DType::F64 => {
            let w = sh.bind("w", format!("{start} + 2 * ({index})"));
            let words = if dtype == DType::F64 { format!("pair_to_bits({x})") } else { value.wide() };
            let v = sh.bind("x", words);
            put(sh, place, &w, &format!("{v}.x"));
            put(sh, place, &format!("{w} + 1"), &format!("{v}.y"));
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
    let (last, width) = ((1 << log) - 1, 32 >> log);
    let e = sh.bind("e", format!("u32({index})"));
    let word = sh.bind("w", format!("{e} >> {log}u"));
    let by = sh.bind("s", format!("{width}u * ({e} & {last}u)"));
    let mask = (1u64 << width) - 1;
    let flip = |sh: &mut Shader, slot: usize, word: &str, bits: &str| {
        let n = sh.parts(slot);
        let flip = format!("(atomicLoad(&{n}[{word}]) ^ ({bits} << {by})) & ({mask}u << {by})");
        format!("atomicXor(&{n}[{word}], {flip});")
    };
    if place.seen.windows == 1 {
        let line = flip(sh, place.seen.slot, &word, bits);
        return sh.line(line);
    }
    let bits = sh.bind("x", bits);
    choose(sh, place, &word, |sh, slot, word| flip(sh, slot, word, &bits));
}
