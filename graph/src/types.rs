//! What a tensor is, without its data: element type and shape. Shapes are numbers except for *named, bounded
//! dimensions* (`batch`), so a dimension is a polynomial in names: one graph serves every batch size, and a
//! mistake is found for all of them at once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The type of one element.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum DType {
    /// Truth value, one byte, 0 or 1.
    Bool,
    /// Unsigned byte.
    U8,
    /// Unsigned 32-bit integer; random bits.
    U32,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer; indices in scalar programs.
    I64,
    /// IEEE half precision. Storage: arithmetic rounds after every operation.
    F16,
    /// Brain float. Storage: arithmetic rounds after every operation.
    BF16,
    /// IEEE single precision, the default.
    F32,
    /// IEEE double precision.
    F64,
}

impl DType {
    /// Every element type.
    pub const ALL: [DType; 9] =
        [DType::Bool, DType::U8, DType::U32, DType::I32, DType::I64, DType::F16, DType::BF16, DType::F32, DType::F64];
    /// Bytes of one element.
    pub const fn size_bytes(self) -> usize {
        match self {
            DType::Bool | DType::U8 => 1,
            DType::F16 | DType::BF16 => 2,
            DType::U32 | DType::I32 | DType::F32 => 4,
            DType::I64 | DType::F64 => 8,
        }
    }
    /// Whether this is a floating-point type.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }
    /// Whether this is an integer type (truth values are not).
    pub const fn is_int(self) -> bool {
        matches!(self, DType::U8 | DType::U32 | DType::I32 | DType::I64)
    }
    /// The name used in text: `f32`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::U8 => "u8",
            DType::U32 => "u32",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => "f64",
        }
    }
    /// The type called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }
    /// The type in which a sum of this type is accumulated: f32 for halves, else itself.
    pub const fn accumulator(self) -> DType {
        match self {
            DType::F16 | DType::BF16 => DType::F32,
            d => d,
        }
    }
    /// A tensor type of this element type.
    pub fn of(self, shape: impl Into<Shape>) -> TensorType {
        TensorType { dtype: self, shape: shape.into() }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Values for named dimensions: `batch` = 64.
pub type Bindings = BTreeMap<Arc<str>, u64>;

/// One extent: a number, or a polynomial over named dimensions such as `batch`, `2*batch` or `batch+1`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Dim {
    /// A plain number.
    Fixed(u64),
    /// Terms (coefficient, sorted names), sorted by names, none zero, at least one of them named.
    Poly(Arc<Vec<(i64, Vec<Arc<str>>)>>),
}

impl Dim {
    /// The dimension called `name`.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Dim::Poly(Arc::new(vec![(1, vec![name.into()])]))
    }
    /// The number, if it is one.
    pub fn fixed(&self) -> Option<u64> {
        match self {
            Dim::Fixed(n) => Some(*n),
            Dim::Poly(_) => None,
        }
    }
    fn terms(&self) -> Vec<(i64, Vec<Arc<str>>)> {
        match self {
            Dim::Fixed(0) => vec![],
            Dim::Fixed(n) => vec![(*n as i64, vec![])],
            Dim::Poly(terms) => terms.to_vec(),
        }
    }
    /// Collects like terms. `None` on overflow or when the result is a negative number.
    pub fn from_terms(terms: impl IntoIterator<Item = (i64, Vec<Arc<str>>)>) -> Option<Self> {
        let mut sum: BTreeMap<Vec<Arc<str>>, i64> = BTreeMap::new();
        for (coefficient, mut names) in terms {
            names.sort();
            let entry = sum.entry(names).or_default();
            *entry = entry.checked_add(coefficient)?;
        }
        sum.retain(|_, c| *c != 0);
        if sum.keys().all(|names| names.is_empty()) {
            return Some(Dim::Fixed(u64::try_from(sum.values().next().copied().unwrap_or(0)).ok()?));
        }
        Some(Dim::Poly(Arc::new(sum.into_iter().map(|(names, c)| (c, names)).collect())))
    }
    /// The sum, unless it overflows.
    pub fn plus(&self, other: &Dim) -> Option<Dim> {
        match (self, other) {
            (Dim::Fixed(a), Dim::Fixed(b)) => a.checked_add(*b).map(Dim::Fixed),
            _ => Dim::from_terms(self.terms().into_iter().chain(other.terms())),
        }
    }
    /// The difference, unless it overflows or is a negative number. Whether `n-1` may be negative is asked where the bounds of
    /// `n` are known: [`never_negative`](crate::bounds::never_negative).
    pub fn minus(&self, other: &Dim) -> Option<Dim> {
        if let (Dim::Fixed(a), Dim::Fixed(b)) = (self, other) {
            return a.checked_sub(*b).map(Dim::Fixed);
        }
        let mut terms = self.terms();
        for (c, names) in other.terms() {
            terms.push((c.checked_neg()?, names));
        }
        Dim::from_terms(terms)
    }
    /// The product, unless it overflows.
    pub fn times(&self, other: &Dim) -> Option<Dim> {
        if let (Dim::Fixed(a), Dim::Fixed(b)) = (self, other) {
            return a.checked_mul(*b).map(Dim::Fixed);
        }
        let mut out = Vec::new();
        for (a, left) in self.terms() {
            for (b, right) in other.terms() {
                out.push((a.checked_mul(b)?, left.iter().chain(&right).cloned().collect()));
            }
        }
        Dim::from_terms(out)
    }
    /// The quotient where it is exact for every binding: by a divisor of all coefficients, or by a single term.
    pub fn exact_quotient(&self, by: &Dim) -> Option<Dim> {
        if self == by && *by != Dim::Fixed(0) {
            return Some(Dim::Fixed(1));
        }
        if let (Dim::Fixed(a), Dim::Fixed(b)) = (self, by) {
            return (*b != 0 && a % b == 0).then(|| Dim::Fixed(a / b));
        }
        let divisor = by.terms();
        let [(divide_by, names)] = &divisor[..] else { return None };
        let mut out = Vec::new();
        for (c, mut left) in self.terms() {
            if c % divide_by != 0 {
                return None;
            }
            for name in names {
                left.remove(left.iter().position(|n| n == name)?);
            }
            out.push((c / divide_by, left));
        }
        Dim::from_terms(out)
    }
    /// The number under `bindings`; names without a binding stay. `None` on overflow or a negative number.
    pub fn bind(&self, bindings: &Bindings) -> Option<Dim> {
        let Dim::Poly(terms) = self else { return Some(self.clone()) };
        let mut out = Vec::new();
        for (c, names) in terms.iter() {
            let (mut c, mut left) = (*c, Vec::new());
            for name in names {
                match bindings.get(name) {
                    Some(n) => c = c.checked_mul(i64::try_from(*n).ok()?)?,
                    None => left.push(name.clone()),
                }
            }
            out.push((c, left));
        }
        Dim::from_terms(out)
    }
    /// The names it mentions.
    pub fn names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = self.terms().into_iter().flat_map(|(_, n)| n).collect();
        names.sort();
        names.dedup();
        names
    }
}

impl From<u64> for Dim {
    fn from(n: u64) -> Self {
        Dim::Fixed(n)
    }
}
impl From<usize> for Dim {
    fn from(n: usize) -> Self {
        Dim::Fixed(n as u64)
    }
}
impl From<i32> for Dim {
    /// For literals. A negative literal is no extent.
    #[track_caller]
    fn from(n: i32) -> Self {
        Dim::Fixed(u64::try_from(n).expect("an extent is not negative"))
    }
}
impl From<&Dim> for Dim {
    fn from(d: &Dim) -> Self {
        d.clone()
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dim::Poly(terms) = self else {
            return write!(f, "{}", self.fixed().unwrap_or(0));
        };
        // Named terms first, as people write them; the constant (no names) sorts first and is printed last.
        let (constant, named): (Vec<_>, Vec<_>) = terms.iter().partition(|(_, n)| n.is_empty());
        for (k, (c, names)) in named.into_iter().chain(constant).enumerate() {
            let sign = if *c < 0 {
                "-"
            } else if k > 0 {
                "+"
            } else {
                ""
            };
            f.write_str(sign)?;
            if names.is_empty() || c.unsigned_abs() != 1 {
                write!(f, "{}", c.unsigned_abs())?;
                f.write_str(if names.is_empty() { "" } else { "*" })?;
            }
            f.write_str(&names.join("*"))?;
        }
        Ok(())
    }
}
impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Extents, outermost first. Tensors are row-major.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape(pub Vec<Dim>);

impl Shape {
    /// The shape of a scalar.
    pub fn scalar() -> Self {
        Shape(Vec::new())
    }
    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }
    /// All extents as numbers, if they are.
    pub fn fixed(&self) -> Option<Vec<u64>> {
        self.0.iter().map(Dim::fixed).collect()
    }
    /// Number of elements, unless it overflows.
    pub fn elements(&self) -> Option<Dim> {
        self.0.iter().try_fold(Dim::Fixed(1), |n, d| n.times(d))
    }
    /// The shape under `bindings`.
    pub fn bind(&self, bindings: &Bindings) -> Option<Shape> {
        self.0.iter().map(|d| d.bind(bindings)).collect::<Option<_>>().map(Shape)
    }
}

impl std::ops::Deref for Shape {
    type Target = [Dim];
    fn deref(&self) -> &[Dim] {
        &self.0
    }
}
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.0.iter().enumerate() {
            write!(f, "{}{d}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }
}
impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl<D: Into<Dim>, const N: usize> From<[D; N]> for Shape {
    fn from(dims: [D; N]) -> Self {
        Shape(dims.into_iter().map(Into::into).collect())
    }
}
impl From<Vec<Dim>> for Shape {
    fn from(dims: Vec<Dim>) -> Self {
        Shape(dims)
    }
}
impl From<&[Dim]> for Shape {
    fn from(dims: &[Dim]) -> Self {
        Shape(dims.to_vec())
    }
}
impl From<&[u64]> for Shape {
    fn from(dims: &[u64]) -> Self {
        Shape(dims.iter().map(|d| Dim::Fixed(*d)).collect())
    }
}
impl From<&Shape> for Shape {
    fn from(s: &Shape) -> Self {
        s.clone()
    }
}
impl From<()> for Shape {
    fn from((): ()) -> Self {
        Shape::scalar()
    }
}

/// A shape from numbers and named dimensions alike: `shape![batch, 1, 8, 8]`.
#[macro_export]
macro_rules! shape {
    ($($dim:expr),* $(,)?) => { $crate::Shape(vec![$($crate::Dim::from($dim.clone())),*]) };
}

/// What a value is: `f32[batch, 10]`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: Shape,
}

impl TensorType {
    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.rank()
    }
    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    /// The type under `bindings`.
    pub fn bind(&self, bindings: &Bindings) -> Option<TensorType> {
        Some(TensorType { dtype: self.dtype, shape: self.shape.bind(bindings)? })
    }
    /// Bytes of a tensor of this type, if its extents are numbers and the product fits.
    pub fn size_bytes(&self) -> Option<u64> {
        self.shape.elements()?.fixed()?.checked_mul(self.dtype.size_bytes() as u64)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}
impl fmt::Debug for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The types of an op's results, in order.
pub type Types = Vec<TensorType>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dims_do_arithmetic_over_names() {
        let b = Dim::named("batch");
        let both = b.times(&Dim::Fixed(8)).expect("it is small");
        assert_eq!(both.to_string(), "8*batch");
        assert_eq!(both.exact_quotient(&Dim::Fixed(2)).expect("8 is even").to_string(), "4*batch");
        assert_eq!(both.exact_quotient(&b), Some(Dim::Fixed(8)));
        assert_eq!(both.exact_quotient(&Dim::Fixed(3)), None);
        assert_eq!(b.plus(&Dim::Fixed(1)).expect("it is small").to_string(), "batch+1");
        assert_eq!(both.bind(&Bindings::from([("batch".into(), 4)])), Some(Dim::Fixed(32)));
        assert_eq!(both.minus(&b).expect("b is in it").to_string(), "7*batch");
        assert_eq!(both.minus(&Dim::Fixed(1)).expect("it depends").to_string(), "8*batch-1");
        assert_eq!(
            b.plus(&Dim::Fixed(1)).expect("it is small").minus(&both.minus(&both).expect("0")),
            b.plus(&1.into())
        );
        assert_eq!(b.minus(&b.plus(&Dim::Fixed(1)).expect("it is small")), None, "it is -1");
        assert_eq!(Dim::Fixed(u64::MAX).times(&Dim::Fixed(2)), None);
    }
}
