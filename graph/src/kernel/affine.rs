//! Where a loop point reads or writes: affine maps of the axes, and the three ways in which a coordinate is more
//! than affine (holes, digits, a value). Coordinates, not addresses: strides and layouts belong to devices.

use std::ops::{Add, Mul, Neg, Sub};

use serde::{Deserialize, Serialize};

use super::nest::{Axis, Beyond};

/// An axis as it is used while a nest is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AxisVar(pub u16);

/// `Σ coefficient · axis + offset`; terms sorted by axis, no coefficient zero.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Affine {
    /// (axis, coefficient).
    pub terms: Vec<(u16, i64)>,
    /// Constant part.
    pub offset: i64,
}

impl Affine {
    /// A constant.
    pub fn constant(offset: i64) -> Self {
        Self { terms: vec![], offset }
    }
    /// One axis.
    pub fn axis(axis: u16) -> Self {
        Self { terms: vec![(axis, 1)], offset: 0 }
    }
    /// The coefficient of `axis`.
    pub fn coefficient(&self, axis: u16) -> i64 {
        self.terms.iter().find(|(a, _)| *a == axis).map_or(0, |(_, c)| *c)
    }
    /// The axis, if this is exactly one axis.
    pub fn as_axis(&self) -> Option<u16> {
        match (&self.terms[..], self.offset) {
            ([(axis, 1)], 0) => Some(*axis),
            _ => None,
        }
    }
    /// The value at a point.
    pub fn at(&self, point: &[i64]) -> i64 {
        self.terms.iter().fold(self.offset, |sum, (a, c)| sum.wrapping_add(c.wrapping_mul(point[*a as usize])))
    }
    /// Smallest and largest value over a domain without empty axes; `None` on overflow.
    pub fn range(&self, axes: &[Axis]) -> Option<(i64, i64)> {
        let (mut low, mut high) = (self.offset, self.offset);
        for (axis, c) in &self.terms {
            let last = i64::try_from(axes.get(*axis as usize)?.extent).ok()?.checked_sub(1)?.max(0);
            let reach = c.checked_mul(last)?;
            low = low.checked_add(reach.min(0))?;
            high = high.checked_add(reach.max(0))?;
        }
        Some((low, high))
    }
    fn combine(mut self, other: &Affine, sign: i64) -> Self {
        for (axis, c) in &other.terms {
            match self.terms.binary_search_by_key(axis, |(a, _)| *a) {
                Ok(i) => self.terms[i].1 += sign * c,
                Err(i) => self.terms.insert(i, (*axis, sign * c)),
            }
        }
        self.terms.retain(|(_, c)| *c != 0);
        self.offset += sign * other.offset;
        self
    }
    /// All coefficients and the offset times `factor`.
    pub fn scaled(mut self, factor: i64) -> Self {
        self.terms.iter_mut().for_each(|(_, c)| *c *= factor);
        self.terms.retain(|(_, c)| *c != 0);
        self.offset *= factor;
        self
    }
}

impl From<AxisVar> for Affine {
    fn from(axis: AxisVar) -> Self {
        Affine::axis(axis.0)
    }
}
impl From<i64> for Affine {
    fn from(offset: i64) -> Self {
        Affine::constant(offset)
    }
}
impl<T: Into<Affine>> Add<T> for Affine {
    type Output = Affine;
    fn add(self, other: T) -> Affine {
        self.combine(&other.into(), 1)
    }
}
impl<T: Into<Affine>> Sub<T> for Affine {
    type Output = Affine;
    fn sub(self, other: T) -> Affine {
        self.combine(&other.into(), -1)
    }
}
impl Mul<i64> for Affine {
    type Output = Affine;
    fn mul(self, factor: i64) -> Affine {
        self.scaled(factor)
    }
}
impl Neg for Affine {
    type Output = Affine;
    fn neg(self) -> Affine {
        self.scaled(-1)
    }
}
impl<T: Into<Affine>> Add<T> for AxisVar {
    type Output = Affine;
    fn add(self, other: T) -> Affine {
        Affine::from(self) + other
    }
}
impl<T: Into<Affine>> Sub<T> for AxisVar {
    type Output = Affine;
    fn sub(self, other: T) -> Affine {
        Affine::from(self) - other
    }
}
impl Mul<i64> for AxisVar {
    type Output = Affine;
    fn mul(self, factor: i64) -> Affine {
        Affine::from(self).scaled(factor)
    }
}

/// One coordinate of a read.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Coord {
    /// An affine map of the axes.
    Affine(Affine),
    /// `index / step` where `step` divides it, outside elsewhere: dilation, the gradients of strided windows.
    Holes {
        /// Numerator.
        index: Affine,
        /// Divisor, at least 1.
        step: u64,
    },
    /// `index / divide mod modulo` (`index` is never negative): reshapes whose factors do not nest.
    Digit {
        /// A row-major position.
        index: Affine,
        /// Divisor, at least 1.
        divide: u64,
        /// Modulus, at least 1.
        modulo: u64,
    },
    /// What another, earlier read found there: gathers.
    Value {
        /// Which read of the same nest.
        read: u16,
        /// What happens when that is not a coordinate of the operand.
        beyond: Beyond,
    },
}

impl Coord {
    /// The affine map it is made from, unless it is a value.
    pub fn index(&self) -> Option<&Affine> {
        match self {
            Coord::Affine(index) | Coord::Holes { index, .. } | Coord::Digit { index, .. } => Some(index),
            Coord::Value { .. } => None,
        }
    }
}

impl From<Affine> for Coord {
    fn from(a: Affine) -> Self {
        Coord::Affine(a)
    }
}
impl From<AxisVar> for Coord {
    fn from(a: AxisVar) -> Self {
        Coord::Affine(a.into())
    }
}
impl From<i64> for Coord {
    fn from(offset: i64) -> Self {
        Coord::Affine(offset.into())
    }
}
