//! Random nests: axes, reads, programs and folds, drawn from one seed so that a failure is one number. Their arithmetic is
//! exact in floats, so that devices have to agree bit for bit. The laws of every device are drawn here.

use super::values::{Random, ty};
use thalweg_graph::DType::{self, Bool, F32, F64, I32, I64, U8, U32};
use thalweg_graph::kernel::build::*;
use thalweg_graph::kernel::{Axis, Beyond, Binary, Kernel, Monoid, Unary};

/// A nest in the making.
struct Draw {
    random: Random,
    operands: Vec<thalweg_graph::kernel::BufferType>,
}

impl Draw {
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.below(from.len() as u64) as usize]
    }
    fn affine(&mut self, axes: &[AxisVar]) -> Affine {
        let mut map = Affine::constant(self.random.below(5) as i64 - 2);
        for axis in axes {
            if self.random.below(2) == 0 {
                map = map + *axis * (self.random.below(5) as i64 - 1);
            }
        }
        map
    }
    /// A read of a new operand: plain where the maps fit, else filled.
    fn read(&mut self, axes: &[AxisVar], extents: &[u64], dtype: DType) -> Expr {
        let domain: Vec<_> = extents.iter().map(|e| Axis::new(*e, false)).collect();
        let (mut shape, mut coords) = (vec![], vec![]);
        let filled = self.random.below(2) == 0;
        for _ in 0..self.random.below(4) {
            let mut map = self.affine(axes);
            let (low, high) = map.range(&domain).expect("small");
            let kind = self.random.below(8);
            if kind < 2 || !filled || kind == 2 {
                map = map - low;
            }
            let span = (high - low + 1) as u64;
            coords.push(match kind {
                0 | 1 => {
                    let (divide, modulo) = (1 + self.random.below(4), 1 + self.random.below(6));
                    shape.push(modulo);
                    digit(map, divide, modulo)
                }
                2 => {
                    let indices = self.operands.len();
                    let dtype = self.pick(&[I64, I32, U8, U32]);
                    self.operands.push(ty(dtype, &[span]));
                    shape.push(1 + self.random.below(5));
                    Ix::Value(read(indices as u16, [map]), if filled { Beyond::Outside } else { Beyond::Clamp })
                }
                3 | 4 if filled => {
                    shape.push(self.random.below(6));
                    holes(map, 1 + self.random.below(3))
                }
                _ if filled => {
                    shape.push(self.random.below(span + 3));
                    map.into()
                }
                _ => {
                    shape.push(span);
                    map.into()
                }
            });
        }
        let operand = self.operands.len() as u16;
        self.operands.push(ty(dtype, &shape));
        if filled { read_or(operand, coords, self.random.below(7) as f64 - 2.0) } else { read(operand, coords) }
    }
    /// An expression of `dtype`, exact in floats.
    fn expr(&mut self, depth: u64, axes: &[AxisVar], extents: &[u64], dtype: DType) -> Expr {
        if depth == 0 {
            return match self.random.below(6) {
                0 => lit_as(self.random.below(9) as f64 - 4.0, dtype),
                1 => index(self.affine(axes)).cast(dtype),
                _ => self.read(axes, extents, dtype),
            };
        }
        let next = |d: &mut Self, dtype| d.expr(depth - 1, axes, extents, dtype);
        match self.random.below(8) {
            0 => next(self, dtype).unary(self.pick(&[Unary::Neg, Unary::Abs, Unary::Sign, Unary::Floor])),
            1 => {
                let condition =
                    next(self, dtype).binary(self.pick(&[Binary::Lt, Binary::Le, Binary::Eq]), next(self, dtype));
                select(condition, next(self, dtype), next(self, dtype))
            }
            2 => {
                let from = self.pick(&DType::ALL);
                next(self, from).cast(dtype)
            }
            3 => {
                let read = self.read(axes, extents, dtype);
                select(valid(read.clone()), read, next(self, dtype))
            }
            _ => {
                let op = self.pick(&[Binary::Add, Binary::Sub, Binary::Mul, Binary::Max, Binary::Min, Binary::Div]);
                next(self, dtype).binary(op, next(self, dtype))
            }
        }
    }
}

/// A random nest with operands, from one number; not every one verifies.
pub(crate) fn any_nest(seed: u64) -> (Kernel, Vec<thalweg_graph::kernel::interpret::Values>) {
    let mut draw = Draw { random: Random(seed), operands: vec![] };
    let extent = |d: &mut Draw| d.pick(&[0, 1, 1, 2, 3, 5, 8, 17, 40]);
    let par: Vec<u64> =
        (0..draw.random.below(4)).map(|_| extent(&mut draw).max(u64::from(!seed.is_multiple_of(5)))).collect();
    let folds: Vec<u64> = (0..draw.random.below(4)).map(|_| extent(&mut draw)).collect();
    let mut axes = Axes::new();
    let outer = axes.par_over(&par);
    let inner = axes.fold_over(&folds);
    let (all, extents) = ([&outer[..], &inner].concat(), [&par[..], &folds].concat());
    let dtype = draw.pick(&[F32, F32, F64, I32, I64, U8, Bool]);
    let mut values = vec![(draw.expr(2, &outer, &par, dtype), dtype)];
    if !folds.is_empty() {
        // Integers in floats stay exact in any order of summation.
        let choices: &[Monoid] = match dtype {
            Bool => &[Monoid::Any, Monoid::All, Monoid::Sum, Monoid::Max],
            d if d.is_float() => &[Monoid::Max, Monoid::Min, Monoid::ArgMax, Monoid::ArgMin],
            _ => &[Monoid::Sum, Monoid::Prod, Monoid::Max, Monoid::Min, Monoid::ArgMax, Monoid::ArgMin],
        };
        for _ in 0..2 {
            let monoid = draw.pick(choices);
            let mut inputs = vec![draw.expr(1, &all, &extents, dtype)];
            if monoid.inputs() == 2 {
                let place = inner.iter().zip(&folds).fold(Affine::default(), |sum, (a, e)| sum * *e as i64 + *a);
                inputs.push(index(place));
            }
            for part in 0..monoid.parts() {
                values.push((fold_part(monoid, inputs.clone(), part as u16), monoid.part_dtype(part, dtype)));
            }
        }
    }
    // Results in a random order of the axes.
    let mut order: Vec<usize> = (0..outer.len()).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, draw.random.below(i as u64 + 1) as usize);
    }
    let shape: Vec<u64> = order.iter().map(|a| par[*a]).collect();
    let results: Vec<_> = values.iter().map(|v| ty(v.1, &shape)).collect();
    let to: Vec<Affine> = order.iter().map(|a| outer[*a].into()).collect();
    let kernel = axes.nest_at(&draw.operands, &results, values.into_iter().map(|v| (v.0, to.clone())));
    let operands = draw.operands.iter().map(|t| draw.random.wild_values(t)).collect();
    (kernel, operands)
}
