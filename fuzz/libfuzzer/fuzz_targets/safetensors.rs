//! `safetensors` under libFuzzer: see `thalweg_fuzz::TARGETS`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    (thalweg_fuzz::target("safetensors").expect("a target").run)(bytes);
});
