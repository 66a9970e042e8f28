//! `gather` — `out[a…, i…, c…] = table[a…, indices[i…], c…]`: along one axis, the places that the indices name; `outside`
//! where there is no such place. With axis 0 an embedding.
//!
//! * **C1** `indices` are i32 or i64.
//! * **C2** `axis` is an axis of `table` (a negative one counts from the end).

use thalweg_graph::kernel::build::{Axes, Ix, found, read, read_or};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, Array, DType, InHalf, OpError, Schema, Shape, TensorType, Types, require};

use super::scatter_add::ScatterAdd;
use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::{Data, Sample};

thalweg_graph::attrs! {
    /// The places of an axis that indices name.
    pub struct Gather {
        /// The axis of the table that is indexed.
        axis: i64 = 0,
        /// What an index out of range finds; NaN is 0 in integers.
        outside: f64 = f64::NAN,
    }
}

impl Op for Gather {
    const SCHEMA: Schema =
        Schema { name: "gather", operands: &["table", "indices"], results: &["out"], accuracy: Accuracy::Exact };
    const IN_HALF: InHalf = InHalf::Follows;
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let [table, indices] = operands else { unreachable!("arity is checked") };
        require!(super::is_index(indices.dtype), "gather.C1", "indices must be i32 or i64, got {indices}");
        let axis = crate::layout::axes_once(&[self.axis], table.rank());
        require!(axis.is_some(), "gather.C2", "{} is no axis of {}", self.axis, table.shape);
        let (before, after) = table.shape.split_at(axis.map_or(0, |a| a[0]));
        Ok(vec![table.dtype.of(Shape([before, &indices.shape[..], &after[1..]].concat()))])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let axis = crate::layout::axes_once(&[self.axis], operands[0].rank())?[0];
        let mut axes = Axes::new();
        let out = axes.par_over(&results[0].shape);
        let (before, rest) = out.split_at(axis);
        let (at, after) = rest.split_at(operands[1].rank());
        let place = found(read(1, at.iter().copied()));
        let plain = |axes: &[_]| axes.iter().map(|a| Ix::from(*a)).collect::<Vec<_>>();
        let coords = plain(before).into_iter().chain([place]).chain(plain(after));
        Some(axes.nest(operands, results, [read_or(0, coords, self.outside)]))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let (table, indices) = (cx.operand(0), cx.operand(1));
        Some(vec![Some(table.zeros_like().apply(ScatterAdd { axis: self.axis }, [indices, cx.ct()])), None])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |axis, table: TensorType, at: Array| {
            Sample::new(Self { axis, outside: f64::NAN }, [table, at.ty()]).data(1, Data::Given(at))
        };
        let f32s = |shape: &[u64]| DType::F32.of(shape);
        let mut filled = case(0, f32s(&[3]), Array::from_slice(&[3], &[0i32, 5, -1]));
        filled.op.outside = 0.0;
        vec![
            case(0, f32s(&[4, 3]), Array::from_slice(&[2, 2], &[1i32, 0, 3, 1])),
            case(-1, f32s(&[2, 5]), Array::from_slice(&[3], &[4i64, 4, 0])),
            case(1, f32s(&[2, 3, 2]), Array::scalar(2i32)),
            case(0, f32s(&[3, 2]), Array::from_slice(&[3], &[0i32, 3, -1])).no_gradient(),
            case(0, DType::I32.of([3]), Array::from_slice(&[2], &[2i32, 7])),
            case(0, f32s(&[0, 2]), Array::from_slice::<i32>(&[0], &[])),
            filled,
        ]
    }
}

impl<'g> Tensor<'g> {
    /// The places of `axis` that `indices` name: `out[a…, i…, c…] = self[a…, indices[i…], c…]`. NaN (0 for integers) where
    /// there is no such place.
    #[track_caller]
    pub fn gather(self, indices: Tensor<'g>, axis: i64) -> Self {
        self.apply(Gather { axis, outside: f64::NAN }, [indices])
    }
}
