//! `scatter_add` — `out = target`, and then `out[a…, indices[i…], c…] += updates[a…, i…, c…]` for each place of `updates`, in
//! row-major order. An index out of range adds nothing.
//!
//! * **C1** `indices` are i32 or i64; `target` and `updates` hold numbers of one type.
//! * **C2** `axis` is an axis of `target` (a negative one counts from the end).
//! * **C3** `updates` is as `target` with the axes of `indices` in place of `axis`.

use thalweg_graph::kernel::build::{Axes, Ix, found, read};
use thalweg_graph::kernel::{BufferType, Kernel, Monoid};
use thalweg_graph::{Accuracy, Array, DType, OpError, Schema, Shape, TensorType, Types, require};

use super::gather::Gather;
use crate::Tensor;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::{Data, Sample};

thalweg_graph::attrs! {
    /// Sums at the places of an axis that indices name.
    pub struct ScatterAdd {
        /// The axis of the target that is indexed.
        axis: i64 = 0,
    }
}

impl Op for ScatterAdd {
    const SCHEMA: Schema = Schema {
        name: "scatter_add",
        operands: &["target", "indices", "updates"],
        results: &["out"],
        accuracy: Accuracy::Ulps(8),
    };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let [target, indices, updates] = operands else { unreachable!("arity is checked") };
        let typed = super::is_index(indices.dtype) && target.dtype == updates.dtype && target.dtype != DType::Bool;
        require!(typed, "scatter_add.C1", "needs numbers, indices and numbers, got {target}, {indices} and {updates}");
        let axis = crate::layout::axes_once(&[self.axis], target.rank());
        require!(axis.is_some(), "scatter_add.C2", "{} is no axis of {}", self.axis, target.shape);
        let (before, after) = target.shape.split_at(axis.map_or(0, |a| a[0]));
        let want = Shape([before, &indices.shape[..], &after[1..]].concat());
        require!(updates.shape == want, "scatter_add.C3", "updates must be {want}, got {}", updates.shape);
        Ok(vec![target.clone()])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let axis = crate::layout::axes_once(&[self.axis], operands[0].rank())?[0];
        let mut axes = Axes::new();
        let all = axes.par_over(&operands[2].shape);
        let (before, rest) = all.split_at(axis);
        let (at, after) = rest.split_at(operands[1].rank());
        let place = found(read(1, at.iter().copied()));
        let plain = |axes: &[_]| axes.iter().map(|a| Ix::from(*a)).collect::<Vec<_>>();
        let to = plain(before).into_iter().chain([place]).chain(plain(after)).collect::<Vec<_>>();
        Some(axes.scatter(operands, &results[0], Some(0), Monoid::Sum, to, read(2, all)))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let updates = cx.ct().apply(Gather { axis: self.axis, outside: 0.0 }, [cx.operand(1)]);
        Some(vec![Some(cx.ct()), None, Some(updates)])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |axis, target: &[u64], at: Array, updates: &[u64]| {
            Sample::new(Self { axis }, [DType::F32.of(target), at.ty(), DType::F32.of(updates)])
                .data(1, Data::Given(at))
        };
        vec![
            case(0, &[4, 3], Array::from_slice(&[2, 2], &[1i32, 0, 3, 1]), &[2, 2, 3]),
            case(-1, &[2, 5], Array::from_slice(&[3], &[4i64, 4, 0]), &[2, 3]),
            case(1, &[2, 3, 2], Array::scalar(2i32), &[2, 2]),
            case(0, &[3], Array::from_slice(&[4], &[0i32, 3, -1, 2]), &[4]),
            case(0, &[3], Array::from_slice::<i32>(&[0], &[]), &[0]),
        ]
    }
}

impl<'g> Tensor<'g> {
    /// This with `updates` added at the places of `axis` that `indices` name.
    #[track_caller]
    pub fn scatter_add(self, indices: Tensor<'g>, updates: Tensor<'g>, axis: i64) -> Self {
        self.apply(ScatterAdd { axis }, [indices, updates])
    }
}
