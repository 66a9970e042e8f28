//! Contractions of many sorts, and element-wise kernels that may follow them: what every device is to recognize.

use thalweg_graph::DType::{self, Bool, F16};
use thalweg_graph::kernel::build::*;
use thalweg_graph::kernel::{BufferType, Kernel};

use super::values::ty;

/// Element-wise kernels that read a tensor of type `of` as their first operand.
pub(crate) fn readers(of: &BufferType) -> Vec<Kernel> {
    let along = |axes: &[AxisVar], d: usize| read(1, [axes[d]]);
    let mut found = Vec::new();
    // A bias along every axis, and where a mask holds, a residual in half precision.
    for d in 0..of.shape.len() {
        let mut axes = Axes::new();
        let all = axes.par_over(&of.shape);
        let value = read(0, all.clone()) + along(&all, d);
        let value = select(read(2, all.clone()), value.clone().max(lit_as(0.0, of.dtype)), value * 0.5)
            + read(3, all.clone()).cast(of.dtype);
        let one = ty(of.dtype, &of.shape[d..=d]);
        found.push(axes.nest(
            &[of.clone(), one, ty(Bool, &of.shape), ty(F16, &of.shape)],
            std::slice::from_ref(of),
            [value],
        ));
    }
    // Turned around, with the position in it.
    let mut axes = Axes::new();
    let turned: Vec<u64> = of.shape.iter().rev().copied().collect();
    let all = axes.par_over(&turned);
    let back: Vec<AxisVar> = all.iter().rev().copied().collect();
    let value = read(0, back) * index(all[0] * 3 + 1).cast(of.dtype);
    found.push(axes.nest(std::slice::from_ref(of), &[ty(of.dtype, &turned)], [value]));
    // As a tensor of another rank.
    let mut axes = Axes::new();
    let flat = ty(of.dtype, &[of.len() as u64]);
    let [i] = axes.par([flat.shape[0]]);
    found.push(axes.nest(&[flat.clone(), flat.clone()], &[flat], [read(0, [i]) - read(1, [i]).tanh()]));
    found
}

/// A convolution: images, channels per group, filters per group, groups, extents, stride, dilation, border.
pub(crate) struct Conv {
    pub(crate) n: u64,
    pub(crate) ci: u64,
    pub(crate) co: u64,
    pub(crate) groups: u64,
    pub(crate) size: [u64; 2],
    pub(crate) window: [u64; 2],
    pub(crate) stride: i64,
    pub(crate) dilation: i64,
    pub(crate) pad: i64,
    pub(crate) dtype: DType,
}

impl Conv {
    /// Rows and columns of the result.
    pub(crate) fn out(&self) -> [u64; 2] {
        [0, 1].map(|d| {
            let reach = self.dilation as u64 * (self.window[d] - 1) + 1;
            (self.size[d] + 2 * self.pad as u64 - reach) / self.stride as u64 + 1
        })
    }
    /// Types of the images, the filters and the result.
    pub(crate) fn types(&self) -> [BufferType; 3] {
        let (Self { n, ci, co, groups, size: [h, w], window: [p, q], .. }, [y, x]) = (self, self.out());
        [&[*n, groups * ci, *h, *w], &[groups * co, *ci, *p, *q], &[*n, groups * co, y, x]].map(|s| ty(self.dtype, s))
    }
    /// The convolution.
    pub(crate) fn forward(&self) -> Kernel {
        let (Self { n, ci, co, groups, window, stride, dilation, pad, .. }, [y, x]) = (self, self.out());
        let [image, weight, result] = self.types();
        let mut axes = Axes::new();
        let ([b, g, o, h, v], [c, p, q]) = (axes.par([*n, *groups, *co, y, x]), axes.fold([*ci, window[0], window[1]]));
        let at = [b.into(), g * *ci as i64 + c, h * *stride + p * *dilation - *pad, v * *stride + q * *dilation - *pad];
        let filter = g * *co as i64 + o;
        let product = read_or(0, at, 0.0) * read(1, [filter.clone(), c.into(), p.into(), q.into()]);
        axes.nest_at(&[image, weight], &[result], [(sum(product), vec![b.into(), filter, h.into(), v.into()])])
    }
    /// The gradient of the images, from those of the result.
    pub(crate) fn input_gradient(&self) -> Kernel {
        let Self { n, ci, co, groups, size, window, stride, dilation, pad, .. } = self;
        let [image, weight, result] = self.types();
        let mut axes = Axes::new();
        let ([b, g, c, h, v], [o, p, q]) =
            (axes.par([*n, *groups, *ci, size[0], size[1]]), axes.fold([*co, window[0], window[1]]));
        let filter = g * *co as i64 + o;
        let from = |x: AxisVar, k: AxisVar| holes(x - k * *dilation + *pad, *stride as u64);
        let product = read_or(0, [b.into(), filter.clone().into(), from(h, p), from(v, q)], 0.0)
            * read(1, [filter, c.into(), p.into(), q.into()]);
        let to = vec![b.into(), g * *ci as i64 + c, h.into(), v.into()];
        axes.nest_at(&[result, weight], &[image], [(sum(product), to)])
    }
    /// The gradient of the filters.
    pub(crate) fn weight_gradient(&self) -> Kernel {
        let (Self { n, ci, co, groups, window, stride, dilation, pad, .. }, [y, x]) = (self, self.out());
        let [image, weight, result] = self.types();
        let mut axes = Axes::new();
        let ([g, o, c, p, q], [b, h, v]) = (axes.par([*groups, *co, *ci, window[0], window[1]]), axes.fold([*n, y, x]));
        let at = [b.into(), g * *ci as i64 + c, h * *stride + p * *dilation - *pad, v * *stride + q * *dilation - *pad];
        let filter = g * *co as i64 + o;
        let product = read(0, [b.into(), filter.clone(), h.into(), v.into()]) * read_or(1, at, 0.0);
        axes.nest_at(&[result, image], &[weight], [(sum(product), vec![filter, c.into(), p.into(), q.into()])])
    }
}
