//! A kernel's points and everything that is affine in them, with as few axes as possible. Reads and writes become
//! element offsets first, so that axes merge where memory allows although the coordinates were separate: an
//! element-wise nest over a contiguous tensor of any rank becomes one axis.

use thalweg_graph::DType;
use thalweg_graph::kernel::interpret::Number;
use thalweg_graph::kernel::{Affine, Axis, Beyond, Binary, BufferType, Coord, Literal, Read, Reg, Scalar, ScalarOp};

use crate::kind::encode;
use crate::lanes::Pair;
use crate::tile::STARTS;

/// An affine map of a [`Domain`].
pub(crate) type MapId = usize;

/// The axes that remain, and the maps over them.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    /// Extents; parallel axes first.
    pub(crate) extents: Vec<i64>,
    /// How many axes are parallel.
    pub(crate) parallel: usize,
    /// The fold has no points.
    pub(crate) fold_is_empty: bool,
    /// There are no parallel points.
    pub(crate) is_empty: bool,
    /// Every affine map that the kernel uses.
    pub(crate) maps: Vec<Affine>,
}

/// A coordinate that can be outside or is more than affine.
#[derive(Clone, Debug)]
pub(crate) enum Check {
    /// Part of the linear offset already; outside beyond 0..extent.
    Limit { index: MapId, extent: i64 },
    /// See [`Coord::Holes`].
    Holes { index: MapId, step: i64, extent: i64, stride: i64 },
    /// See [`Coord::Digit`].
    Digit { index: MapId, divide: i64, modulo: i64, extent: i64, stride: i64 },
    /// See [`Coord::Value`].
    Value { read: usize, clamp: bool, extent: i64, stride: i64 },
}

/// Where an operand is read (or a scatter's result written): an offset in elements, and checks.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) operand: usize,
    pub(crate) dtype: DType,
    pub(crate) linear: MapId,
    pub(crate) checks: Vec<Check>,
    /// What is found outside, as register bits; `None` promises that nothing is outside.
    pub(crate) fill: Option<u64>,
    /// The operand has no elements: every point is outside.
    pub(crate) absent: bool,
}

/// An instruction whose index arithmetic has become maps.
#[derive(Clone, Debug)]
pub(crate) struct Lowered {
    pub(crate) dtype: DType,
    pub(crate) op: LoweredOp,
}
#[derive(Clone, Debug)]
pub(crate) enum LoweredOp {
    /// Register bits.
    Literal(u64),
    /// An affine map of the axes (i64).
    Iota(MapId),
    /// Two operations after each other, on three registers.
    Pair(Pair, [Reg; 3]),
    /// Anything else, as it was.
    Plain(ScalarOp),
}

impl Domain {
    pub(crate) fn new(axes: &[Axis]) -> Self {
        Self {
            extents: axes.iter().map(|a| a.extent as i64).collect(),
            parallel: axes.iter().filter(|a| !a.fold).count(),
            fold_is_empty: axes.iter().any(|a| a.fold && a.extent == 0),
            is_empty: axes.iter().any(|a| !a.fold && a.extent == 0),
            maps: vec![],
        }
    }

    fn add(&mut self, map: Affine) -> MapId {
        let found = self.maps.iter().position(|m| *m == map);
        found.unwrap_or_else(|| {
            self.maps.push(map);
            self.maps.len() - 1
        })
    }

    /// The element offset of `coords` in a buffer.
    pub(crate) fn linear(&mut self, coords: &[Affine], ty: &BufferType) -> MapId {
        let map = coords.iter().zip(ty.strides()).fold(Affine::default(), |sum, (c, s)| sum + c.clone().scaled(s));
        self.add(map)
    }

    pub(crate) fn access(
        &mut self,
        operand: usize,
        coords: &[Coord],
        fill: Option<Literal>,
        ty: &BufferType,
        axes: &[Axis],
    ) -> Access {
        let mut linear = Affine::default();
        let mut checks = Vec::new();
        for ((coord, extent), stride) in coords.iter().zip(&ty.shape).zip(ty.strides()) {
            let extent = *extent as i64;
            match coord {
                Coord::Affine(index) => {
                    linear = linear + index.clone().scaled(stride);
                    let inside = index.range(axes).is_some_and(|(low, high)| low >= 0 && high < extent);
                    if !inside {
                        checks.push(Check::Limit { index: self.add(index.clone()), extent });
                    }
                }
                Coord::Holes { index, step } => {
                    checks.push(Check::Holes { index: self.add(index.clone()), step: *step as i64, extent, stride });
                }
                Coord::Digit { index, divide, modulo } => {
                    let (divide, modulo) = (*divide as i64, *modulo as i64);
                    checks.push(Check::Digit { index: self.add(index.clone()), divide, modulo, extent, stride });
                }
                Coord::Value { read, beyond } => {
                    let clamp = *beyond == Beyond::Clamp;
                    checks.push(Check::Value { read: *read as usize, clamp, extent, stride });
                }
            }
        }
        let fill = fill.map(|f| encode(Number::Float(f.as_f64()), ty.dtype));
        Access { operand, dtype: ty.dtype, linear: self.add(linear), checks, fill, absent: ty.is_empty() }
    }

    pub(crate) fn accesses(&mut self, reads: &[Read], operands: &[BufferType], axes: &[Axis]) -> Vec<Access> {
        let mut one =
            |r: &Read| self.access(r.operand as usize, &r.coords, r.fill, &operands[r.operand as usize], axes);
        reads.iter().map(&mut one).collect()
    }

    /// Rewrites a program: i64 arithmetic that is affine in the axes becomes single maps.
    pub(crate) fn program(&mut self, scalar: &Scalar, axes: &[Axis]) -> Vec<Lowered> {
        let mut affine: Vec<Option<Affine>> = Vec::new();
        let mut lowered = Vec::new();
        for inst in &scalar.insts {
            let of = |r: Reg| affine[r as usize].clone();
            let map = match &inst.op {
                _ if inst.dtype != DType::I64 => None,
                ScalarOp::Literal(x) => Some(Affine::constant(x.as_i64())),
                ScalarOp::Index(a) => Some(Affine::axis(*a) + axes[*a as usize].origin as i64),
                ScalarOp::Binary(op, a, b) => of(*a).zip(of(*b)).and_then(|(a, b)| affine_binary(*op, a, b)),
                _ => None,
            };
            let map = map.filter(is_small);
            let op = match (&map, &inst.op) {
                (Some(map), _) if map.terms.is_empty() => LoweredOp::Literal(map.offset as u64),
                (Some(map), _) => LoweredOp::Iota(self.add(map.clone())),
                (None, ScalarOp::Literal(x)) => {
                    let number =
                        if inst.dtype.is_float() { Number::Float(x.as_f64()) } else { Number::Int(x.as_i64()) };
                    LoweredOp::Literal(encode(number, inst.dtype))
                }
                (None, ScalarOp::Index(a)) => {
                    LoweredOp::Iota(self.add(Affine::axis(*a) + axes[*a as usize].origin as i64))
                }
                (None, op) => LoweredOp::Plain(op.clone()),
            };
            affine.push(map);
            lowered.push(Lowered { dtype: inst.dtype, op });
        }
        lowered
    }

    /// Drops axes of one point and merges neighbours that every map sees as one. To be called last.
    pub(crate) fn collapse(&mut self) {
        if self.is_empty {
            return;
        }
        for axis in (0..self.extents.len()).rev() {
            let folded_away = self.fold_is_empty && axis >= self.parallel;
            if self.extents[axis] == 1 || folded_away {
                self.maps.iter_mut().for_each(|m| remove(m, axis as u16));
                self.extents.remove(axis);
                self.parallel -= usize::from(axis < self.parallel);
            }
        }
        for axis in (0..self.extents.len().saturating_sub(1)).rev() {
            let (outer, inner, extent) = (axis as u16, axis as u16 + 1, self.extents[axis + 1]);
            let merges = axis + 1 != self.parallel
                && self.maps.iter().all(|m| Some(m.coefficient(outer)) == m.coefficient(inner).checked_mul(extent));
            if merges {
                self.maps.iter_mut().for_each(|m| remove(m, outer));
                self.extents[axis + 1] *= self.extents[axis];
                self.extents.remove(axis);
                self.parallel -= usize::from(axis < self.parallel);
            }
        }
    }

    /// [`Domain::collapse`] for a block of `counts` points along the first axes: maps also follow where it starts.
    pub(crate) fn collapse_block(&mut self, counts: &[u64]) {
        let starts = |map: &Affine| {
            let term = |d: usize| ((STARTS + d) as u16, map.coefficient(d as u16));
            (0..counts.len()).map(term).filter(|(_, c)| *c != 0).collect::<Vec<_>>()
        };
        let starts: Vec<_> = self.maps.iter().map(starts).collect();
        self.extents.iter_mut().zip(counts).for_each(|(e, c)| *e = *c as i64);
        self.collapse();
        self.maps.iter_mut().zip(starts).for_each(|(map, terms)| map.terms.extend(terms));
    }

    /// Whether an axis that a map names is folded.
    pub(crate) fn folds(&self, axis: usize) -> bool {
        (self.parallel..STARTS).contains(&axis)
    }

    /// Whether any map in `access` (or in the reads it takes values from) uses an axis for which `is` holds.
    pub(crate) fn uses(&self, access: &Access, all: &[Access], is: &dyn Fn(usize) -> bool) -> bool {
        let map = |m: MapId| self.maps[m].terms.iter().any(|(a, _)| is(*a as usize));
        map(access.linear)
            || access.checks.iter().any(|c| match c {
                Check::Limit { index, .. } | Check::Holes { index, .. } | Check::Digit { index, .. } => map(*index),
                Check::Value { read, .. } => self.uses(&all[*read], all, is),
            })
    }
}

fn remove(map: &mut Affine, axis: u16) {
    map.terms.retain(|(a, _)| *a != axis);
    map.terms.iter_mut().filter(|(a, _)| *a > axis).for_each(|(a, _)| *a -= 1);
}

/// Whether index arithmetic on it cannot overflow.
fn is_small(map: &Affine) -> bool {
    const LIMIT: i64 = 1 << 31;
    map.offset.abs() < 1 << 60 && map.terms.iter().all(|(_, c)| c.abs() < LIMIT)
}

fn affine_binary(op: Binary, a: Affine, b: Affine) -> Option<Affine> {
    const LIMIT: i64 = 1 << 31;
    match op {
        Binary::Add => Some(a + b),
        Binary::Sub => Some(a - b),
        Binary::Mul if b.terms.is_empty() && b.offset.abs() < LIMIT && a.offset.abs() < LIMIT => Some(a * b.offset),
        Binary::Mul if a.terms.is_empty() && a.offset.abs() < LIMIT && b.offset.abs() < LIMIT => Some(b * a.offset),
        _ => None,
    }
}
