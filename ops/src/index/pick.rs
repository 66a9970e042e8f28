//! `pick` — `out[b…, e…] = x[b…, index[b…, e…]]`: along the last axis, one element per index; NaN (0 for integers) where there is
//! no such element. What a cross-entropy takes of its logits, and what undoes an argmax.
//!
//! * **C1** `index` is i32 or i64.
//! * **C2** `x` has an axis, and `index` begins with all of the others.

use thalweg_graph::kernel::build::{Axes, Ix, found, read, read_or};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::{Accuracy, Array, DType, Dim, OpError, Schema, Shape, TensorType, Types, require};

use crate::Tensor;
use crate::layout::iota::Iota;
use crate::op::{Gradients, Op, VjpCx};
use crate::sample::{Data, Sample};

thalweg_graph::attrs! {
    /// One element of the last axis per index.
    pub struct Pick {}
}

impl Op for Pick {
    const SCHEMA: Schema =
        Schema { name: "pick", operands: &["x", "index"], results: &["out"], accuracy: Accuracy::Exact };
    fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
        let [x, index] = operands else { unreachable!("arity is checked") };
        require!(super::is_index(index.dtype), "pick.C1", "the index must be i32 or i64, got {index}");
        let lead = x.shape.split_last().map(|(_, lead)| lead);
        let fits = lead.is_some_and(|lead| index.shape.starts_with(lead));
        require!(fits, "pick.C2", "an index of {} cannot pick from the last axis of {}", index.shape, x.shape);
        Ok(vec![x.dtype.of(&index.shape)])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let mut axes = Axes::new();
        let all = axes.par_over(&results[0].shape);
        let place = found(read(1, all.iter().copied()));
        let lead = operands[0].rank().checked_sub(1)?;
        let coords = all[..lead].iter().map(|a| Ix::from(*a)).chain([place]);
        Some(axes.nest(operands, results, [read_or(0, coords, f64::NAN)]))
    }
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        let (shape, index) = (cx.operand(0).shape(), cx.operand(1));
        let (last, lead) = shape.split_last()?;
        let apart = index.shape().iter().cloned().chain([Dim::Fixed(1)]).collect::<Vec<_>>();
        let places = index.source(Iota { axis: 0, shape: Shape(vec![last.clone()]), dtype: index.dtype() });
        let here = index.reshape(apart.clone()).eq(places);
        let each = here.select(cx.ct().reshape(apart), 0.0);
        let extra: Vec<i64> = (lead.len()..index.rank()).map(|i| i as i64).collect();
        Some(vec![Some(if extra.is_empty() { each } else { each.sum_over(&extra) }), None])
    }
    fn samples() -> Vec<Sample<Self>> {
        let case = |x: TensorType, index: Array| Sample::new(Self {}, [x, index.ty()]).data(1, Data::Given(index));
        vec![
            case(DType::F32.of([3, 4]), Array::from_slice(&[3], &[2i32, 0, 3])),
            case(DType::F32.of([2, 4]), Array::from_slice(&[2, 3], &[1i64, 1, 0, 3, 2, 1])),
            case(DType::F32.of([5]), Array::scalar(4i32)),
            case(DType::F32.of([2, 3]), Array::from_slice(&[2], &[3i32, -1])).no_gradient(),
            case(DType::I32.of([2, 3]), Array::from_slice(&[2], &[3i32, 1])),
        ]
    }
}

impl<'g> Tensor<'g> {
    /// One element of the last axis per index: `out[b…, e…] = self[b…, index[b…, e…]]`.
    #[track_caller]
    pub fn pick(self, index: Tensor<'g>) -> Self {
        self.apply(Pick {}, [index])
    }
}
