//! What a leaf has of a sum whose terms are a leaf's each: nothing that would have to be computed.

#![allow(missing_docs)]

use thalweg_graph::DType::F32;
use thalweg_graph::kernel::build::{Axes, Expr, lit, read, sum};
use thalweg_graph::kernel::{BufferType, Kernel};

/// The sums over the first axis of a matrix, each as `each` says.
fn column_sums(rows: u64, each: impl Fn(Expr) -> Expr, behind: Option<f64>) -> Kernel {
    let (from, to) = (BufferType { dtype: F32, shape: vec![rows, 5] }, BufferType { dtype: F32, shape: vec![5] });
    let mut axes = Axes::new();
    let ([column], [row]) = (axes.par([5]), axes.fold([rows]));
    let folded = sum(each(read(0, [row, column])));
    axes.nest(&[from], &[to], [behind.map_or(folded.clone(), |x| folded + lit(x))])
}

#[test]
fn a_sum_of_one_term_is_that_term() {
    assert!(column_sums(1, |x| x, Some(0.0)).sums_single_terms());
    assert!(column_sums(1, |x| x, None).sums_single_terms());
    assert!(!column_sums(2, |x| x, Some(0.0)).sums_single_terms(), "two terms");
    assert!(!column_sums(1, |x| x, Some(1.0)).sums_single_terms(), "and one more");
    assert!(!column_sums(1, |x| x * lit(2.0), Some(0.0)).sums_single_terms(), "twice the term");
}
