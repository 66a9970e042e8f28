//! Cases whose operands and results never leave the device: what a product or an element-wise nest does by itself, not what
//! the way there costs. `matmul_1024` and its like are fed and fetched in every step, as the specification has it; on a card
//! that is a measurement of the bus. Here operands are variables, and the step commits its result to another one.
//!
//! * `matmul_N_f32`, `matmul_N_f16`, `matmul_N_bf16`: a product of two N × N matrices, its result in the same type.
//! * `add_M`: `out = a + b` over arrays of M MiB of f32 (McCalpin's STREAM), as much memory traffic as there can be.
//! * `row_sum_M`: the sums of the rows of 1024 of such an array, which is read once.
//!
//! Each is one op: what a step commits is written behind `commit`, and fusion does not reach over that.

use thalweg_graph::{DType, Init, Site, VarKind};
use thalweg_ops::{Graph, Tensor, Update};

use super::case::{Feeds, Made};

/// What a case of this file computes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Product(u64, DType),
    Add(u64),
    RowSum(u64),
}

/// The largest matrix, and the largest array in MiB, that a name can ask for.
const MOST: u64 = 16384;

/// What `name` asks for; `None` if it is no case of this file.
fn parse(name: &str) -> Option<Kind> {
    let number = |text: &str| text.parse().ok().filter(|n| (1..=MOST).contains(n) && text == n.to_string());
    let (what, rest) = name.rsplit_once('_')?;
    match what {
        "add" => Some(Kind::Add(number(rest)?)),
        "row_sum" => Some(Kind::RowSum(number(rest)?)),
        _ => {
            let dtype = [DType::F32, DType::F16, DType::BF16].into_iter().find(|d| d.name() == rest)?;
            Some(Kind::Product(number(what.strip_prefix("matmul_")?)?, dtype))
        }
    }
}

/// The case of this name; `None` if there is none here.
pub(super) fn made(g: &Graph, name: &str) -> Option<Made> {
    let drawn = Init::Uniform { low: -1.0, high: 1.0 };
    // Large ones hold one number each: drawing a hundred million takes seconds, and time does not depend on it.
    let filled = |name: &str, shape: &[u64], value| g.parameter(name, DType::F32, shape, Init::Constant(value));
    let rows = |mib: u64| [mib * 256, 1024];
    let gigabytes = |mib: u64, arrays: f64| arrays * (mib << 20) as f64 / 1e9;
    let (out, items, unit) = match parse(name)? {
        Kind::Product(n, dtype) => {
            let [a, b] = ["a", "b"].map(|name| g.parameter(name, dtype, [n, n], drawn));
            (a.matmul(b), 2.0 * (n as f64).powi(3) / 1e9, "GFLOP")
        }
        Kind::Add(mib) => {
            let [a, b] = [("a", 1.0), ("b", 2.0)].map(|(name, value)| filled(name, &rows(mib), value));
            (a + b, gigabytes(mib, 3.0), "GB")
        }
        Kind::RowSum(mib) => (filled("a", &rows(mib), 1.0).sum_over(&[-1]), gigabytes(mib, 1.0 + 1.0 / 1024.0), "GB"),
    };
    let update = kept(g, out);
    // What is returned has to be small and there: its arrival says that the step is over.
    g.program("run").outputs([g.step().named("steps")]).update(update);
    Some((None, "run", Feeds::Fixed(vec![vec![]]), items, unit))
}

/// Commits a value to the variable `out`.
fn kept(g: &Graph, value: Tensor<'_>) -> Update {
    let ty = value.dtype().of(value.shape());
    let out = g.builder().variable("out", ty, VarKind::Cache, Init::Constant(0.0), "", Site::here());
    Update { updates: out.map(|id| (id, value.value())).into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_computed() {
        assert_eq!(parse("matmul_4096_bf16"), Some(Kind::Product(4096, DType::BF16)));
        assert_eq!(parse("add_256"), Some(Kind::Add(256)));
        assert_eq!(parse("row_sum_4"), Some(Kind::RowSum(4)));
        for other in ["matmul_1024", "matmul_0_f32", "matmul_64_i32", "matmul_064_f32", "add_99999", "add_", "f32"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
