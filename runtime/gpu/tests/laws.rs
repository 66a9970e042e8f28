//! For any nest that verifies and needs no f64, the GPU means what the interpreter means. The nests are those that the CPU
//! is tested on.

mod common;

use common::draw::any_nest;
use common::{check, gpu, run};
use thalweg_graph::DType;
use thalweg_graph::kernel::Kernel;

/// How many nests are drawn: each is a pipeline of its own, which costs a tenth of a second to compile in software.
const CASES: u64 = 300;

#[test]
fn any_nest_means_what_the_interpreter_says() {
    let Some(mut device) = gpu("any_nest_means_what_the_interpreter_says") else { return };
    let (mut ran, mut refused) = (0, 0);
    for seed in 0..CASES {
        let (kernel, operands) = any_nest(0x7a1e_0000 + seed);
        if !kernel.verify().is_empty() {
            continue;
        }
        if needs_f64(&kernel) {
            // Either it is refused for that, or f64 is in what nobody needs.
            match run(&mut device, &kernel, &operands) {
                Err(e) => assert!(e.to_string().contains("f64"), "{e}"),
                Ok(_) => check(&mut device, &kernel, &operands, 1e-6),
            }
            refused += 1;
            continue;
        }
        check(&mut device, &kernel, &operands, 0.0);
        ran += 1;
    }
    println!("{ran} nests ran, {refused} name f64; {} pipelines", device.pipelines_compiled());
    assert!(ran > 80 && refused > 20, "{ran} ran, {refused} name f64");
}

fn needs_f64(kernel: &Kernel) -> bool {
    let Kernel::Nest(nest) = kernel else { return false };
    let programs = [&nest.body, &nest.epilogue];
    let buffers = nest.operands.iter().chain(&nest.results).map(|b| b.dtype);
    buffers.chain(programs.iter().flat_map(|p| &p.insts).map(|i| i.dtype)).any(|d| d == DType::F64)
}
