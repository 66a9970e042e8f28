//! `matmul` — `out[…,i,j] = Σₖ lhs[…,i,k] · rhs[…,k,j]`; leading axes are batches and broadcast.
//!
//! * **C1** both operands have two axes or more, and one float type.
//! * **C2** columns of `lhs` equal rows of `rhs`, after any transpose.
//! * **C3** the leading axes broadcast.

use thalweg_graph::kernel::build::{Affine, Axes, read, sum_of_products};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, Dim, InHalf, OpError, Schema, Shape, TensorType, Types, require};

use crate::Tensor;
use crate::math::broadcast;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::Sample;

thalweg_graph::attrs! {
    /// Batched matrix product.
    pub struct MatMul {
        /// Whether the last two axes of `lhs` are swapped first.
        transpose_lhs: bool = false,
        /// Whether the last two axes of `rhs` are swapped first.
        transpose_rhs: bool = false,
    }
}

fn flip<T: Clone>(transposed: bool, shape: &[T]) -> (&[T], T, T) {
    let (batch, [a, b]) = shape.split_last_chunk::<2>().expect("C1 was checked");
    if transposed { (batch, b.clone(), a.clone()) } else { (batch, a.clone(), b.clone()) }
}

impl Op for MatMul {
    const SCHEMA: Schema =
        Schema { name: "matmul", operands: &["lhs", "rhs"], results: &["out"], accuracy: Accuracy::Ulps(16) };
    const IN_HALF: InHalf = InHalf::Gains(2);
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let [l, r] = operands else { unreachable!("arity is checked") };
        let matrices = l.rank() >= 2 && r.rank() >= 2 && l.dtype == r.dtype && l.dtype.is_float();
        require!(matrices, "matmul.C1", "needs two matrices of one float type, got {l} and {r}");
        let ((a, m, k), (b, k2, n)) = (flip(self.transpose_lhs, &l.shape), flip(self.transpose_rhs, &r.shape));
        require!(k == k2, "matmul.C2", "cannot multiply {} by {}: inner dimensions differ, {k} and {k2}", l.shape, r.shape;
            help: "the right operand needs {k} rows");
        let batch = broadcast(a, b);
        require!(batch.is_some(), "matmul.C3", "batches do not broadcast: {} and {}", Shape::from(a), Shape::from(b));
        let shape: Vec<Dim> = batch.unwrap_or_default().0.into_iter().chain([m, n]).collect();
        Ok(vec![l.dtype.of(shape)])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let (l, r) = (&operands[0].shape, &operands[1].shape);
        let mut axes = Axes::new();
        let out = axes.par_over(&results[0].shape);
        let (batch, [i, j]) = out.split_last_chunk::<2>()?;
        let [k] = axes.fold([flip(self.transpose_lhs, l).2]);
        let at = |shape: &[u64], transposed: bool, row, column| {
            let lead = &shape[..shape.len() - 2];
            let skip = batch.len() - lead.len();
            let mut coords: Vec<Affine> = Vec::new();
            for (d, extent) in lead.iter().enumerate() {
                coords.push(if *extent == 1 { Affine::constant(0) } else { batch[skip + d].into() });
            }
            let matrix: [_; 2] = if transposed { [column, row] } else { [row, column] };
            coords.extend(matrix.map(Affine::from));
            coords
        };
        let left = read(0, at(l, self.transpose_lhs, *i, k));
        let right = read(1, at(r, self.transpose_rhs, k, *j));
        Some(axes.nest(operands, results, [sum_of_products(left, right, operands[0].dtype)]))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let (l, r, ct) = (cx.operand(0), cx.operand(1), cx.ct());
        let product =
            |a: Tensor<'g>, b, transpose_lhs, transpose_rhs| a.apply(MatMul { transpose_lhs, transpose_rhs }, [b]);
        let dl = match self.transpose_lhs {
            false => product(ct, r, false, !self.transpose_rhs),
            true => product(r, ct, self.transpose_rhs, true),
        };
        // Where one matrix meets a batch, its cotangent is one product over all rows, not a sum of one product per batch.
        let rows =
            |t: Tensor<'g>| Some(t.reshape([Shape::from(&t.shape()[..t.rank() - 1]).elements()?, t.dim(t.rank() - 1)]));
        let joined = if r.rank() == 2 && !self.transpose_lhs { rows(l).zip(rows(ct)) } else { None };
        let (rows, ct) = joined.unwrap_or((l, ct));
        let dr = match self.transpose_rhs {
            false => product(rows, ct, !self.transpose_lhs, false),
            true => product(ct, rows, true, self.transpose_lhs),
        };
        Some(vec![Some(dl.sum_to(&l.shape())), Some(dr.sum_to(&r.shape()))])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |tl, tr, l: &[u64], r: &[u64]| Sample::f32(Self { transpose_lhs: tl, transpose_rhs: tr }, [l, r]);
        vec![
            case(false, false, &[3, 2], &[2, 5]),
            case(true, false, &[2, 3], &[2, 5]),
            case(false, true, &[3, 2], &[5, 2]),
            case(true, true, &[2, 3], &[5, 2]),
            case(false, false, &[2, 3, 4], &[4, 2]),
            case(false, true, &[2, 1, 3, 4], &[3, 5, 4]),
            case(false, false, &[1, 17], &[17, 1]),
            case(false, false, &[3, 0], &[0, 2]),
            case(false, false, &[33, 70], &[70, 65]),
        ]
    }
}

impl<'g> Tensor<'g> {
    /// Matrix product; see [`MatMul`].
    #[track_caller]
    pub fn matmul(self, rhs: Self) -> Self {
        self.apply(MatMul::default(), [rhs])
    }
}
