//! scratch
mod common;
use common::draw::any_nest;
#[test]
fn zz() {
    let mut d = common::gpu("").unwrap();
    let mut bad = 0;
    for seed in 0..300u64 {
        let (kernel, operands) = any_nest(0x7a1e_0000 + seed);
        if !kernel.verify().is_empty() { continue; }
        let refs: Vec<_> = operands.iter().collect();
        let want = thalweg_graph::kernel::interpret::run(&kernel, &refs, thalweg_graph::kernel::interpret::Precision::Exact);
        let Ok(have) = common::run(&mut d, &kernel, &operands) else { continue };
        for (r, (have, want)) in have.iter().zip(&want).enumerate() {
            let n = have.data.iter().zip(&want.data).filter(|(a, b)| !common::close(**a, **b, 0.0)).count();
            if n > 0 {
                bad += 1;
                let (a, b) = have.data.iter().zip(&want.data).find(|(a, b)| !common::close(**a, **b, 0.0)).unwrap();
                println!("seed {seed} result {r} {}: {n} of {} differ: {a:?} {b:?}", have.ty, have.data.len());
            }
        }
    }
    println!("{bad} bad");
}
