//! Typed attributes of ops. `attrs!` declares a struct with defaults; printing, parsing, equality and binding of named
//! dimensions follow from it, so that an op says each attribute once. Only what differs from the default is printed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::value::FloatText;
use crate::types::{Bindings, DType, Shape};

/// An attribute's value as text and bytes hold it. Floats compare by bits, so that NaN equals itself and −0.0 is not
/// lost for a default of 0.0.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum AttrValue {
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float; printed with a point or an exponent, so that it is told from an integer.
    Float(f64),
    /// A quoted string.
    Text(String),
    /// An element type.
    DType(DType),
    /// A list of integers, `[1, -2]`.
    Ints(Vec<i64>),
    /// A shape, `shape[batch, 8]`.
    Shape(Shape),
}

impl PartialEq for AttrValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (AttrValue::Bool(a), AttrValue::Bool(b)) => a == b,
            (AttrValue::Int(a), AttrValue::Int(b)) => a == b,
            (AttrValue::Float(a), AttrValue::Float(b)) => a.to_bits() == b.to_bits(),
            (AttrValue::Text(a), AttrValue::Text(b)) => a == b,
            (AttrValue::DType(a), AttrValue::DType(b)) => a == b,
            (AttrValue::Ints(a), AttrValue::Ints(b)) => a == b,
            (AttrValue::Shape(a), AttrValue::Shape(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for AttrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttrValue::Bool(b) => write!(f, "{b}"),
            AttrValue::Int(i) => write!(f, "{i}"),
            AttrValue::Float(x) => write!(f, "{}", FloatText(*x)),
            AttrValue::Text(s) => write!(f, "{s:?}"),
            AttrValue::DType(d) => write!(f, "{d}"),
            AttrValue::Ints(list) => write!(f, "{list:?}"),
            AttrValue::Shape(s) => write!(f, "shape{s}"),
        }
    }
}

/// Attributes as text and bytes hold them: name and value, in the order of declaration.
pub type AttrList = Vec<(String, AttrValue)>;

/// Why attributes are no such op.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AttrError {
    /// No attribute of that name.
    #[error("`{op}` has no attribute `{name}`; it has {}", known.join(", "))]
    Unknown {
        /// The op.
        op: String,
        /// What was given.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// A value of another sort.
    #[error("attribute `{name}` of `{op}` cannot be {value}")]
    Sort {
        /// The op.
        op: String,
        /// The attribute.
        name: &'static str,
        /// What was given.
        value: AttrValue,
    },
    /// No op of that name.
    #[error("there is no op `{0}`")]
    NoSuchOp(String),
}

/// What is to be known of an attribute without a value at hand: for documents and for other languages.
#[derive(Clone, Debug, PartialEq)]
pub struct AttrField {
    /// Its name.
    pub name: &'static str,
    /// What it is, as its author has written it.
    pub doc: String,
    /// Of which sort it is.
    pub sort: AttrSort,
    /// Its value unless another is given.
    pub default: AttrValue,
}

/// Which values an attribute takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum AttrSort {
    Bool,
    Int,
    Float,
    Text,
    DType,
    Ints,
    /// Two integers, for height and width.
    Pair,
    Shape,
}

/// The text of a doc comment's lines, each as the compiler has it: `doc = " text"`.
pub fn doc_text(lines: &[&str]) -> String {
    let text = |line: &&str| {
        let quoted = line.trim().strip_prefix("doc")?.trim_start().strip_prefix('=')?.trim();
        let text = quoted.trim_start_matches(['r', '#']).trim_end_matches('#');
        let text = text.strip_prefix('"')?.strip_suffix('"')?.to_string();
        Some(if quoted.starts_with('r') { text } else { text.replace("\\\"", "\"").replace("\\\\", "\\") })
    };
    lines.iter().filter_map(text).map(|l| l.trim().to_string()).collect::<Vec<_>>().join("\n")
}

/// A Rust type that can be an attribute.
pub trait Attr: Sized + Clone {
    /// Of which sort it is.
    const SORT: AttrSort;
    /// As it is held in text and bytes.
    fn to_value(&self) -> AttrValue;
    /// Back again; `None` for a value of another sort.
    fn from_value(value: &AttrValue) -> Option<Self>;
    /// With named dimensions replaced. `None` on overflow.
    fn bind(&self, _bindings: &Bindings) -> Option<Self> {
        Some(self.clone())
    }
}

macro_rules! attr {
    ($($rust:ty: $variant:ident, $sort:ident, $to:expr, $from:expr;)*) => { $(
        impl Attr for $rust {
            const SORT: AttrSort = AttrSort::$sort;
            fn to_value(&self) -> AttrValue { let to: fn(&$rust) -> _ = $to; AttrValue::$variant(to(self)) }
            fn from_value(value: &AttrValue) -> Option<Self> {
                let AttrValue::$variant(v) = value else { return None };
                #[allow(clippy::redundant_closure_call)]
                $from(v)
            }
        }
    )* };
}
attr! {
    bool: Bool, Bool, |b| *b, |b: &bool| Some(*b);
    i64: Int, Int, |i| *i, |i: &i64| Some(*i);
    u64: Int, Int, |i| *i as i64, |i: &i64| Some(*i as u64);
    String: Text, Text, |s| s.clone(), |s: &String| Some(s.clone());
    DType: DType, DType, |d| *d, |d: &DType| Some(*d);
    Vec<i64>: Ints, Ints, |v| v.clone(), |v: &Vec<i64>| Some(v.clone());
    [u64; 2]: Ints, Pair, |v| v.map(|x| x as i64).to_vec(), |v: &Vec<i64>| pair(v);
}
impl Attr for f64 {
    const SORT: AttrSort = AttrSort::Float;
    fn to_value(&self) -> AttrValue {
        AttrValue::Float(*self)
    }
    fn from_value(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Float(x) => Some(*x),
            AttrValue::Int(i) => Some(*i as f64),
            _ => None,
        }
    }
}
impl Attr for Shape {
    const SORT: AttrSort = AttrSort::Shape;
    fn to_value(&self) -> AttrValue {
        AttrValue::Shape(self.clone())
    }
    fn from_value(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Shape(s) => Some(s.clone()),
            _ => None,
        }
    }
    fn bind(&self, bindings: &Bindings) -> Option<Self> {
        self.bind(bindings)
    }
}
fn pair(v: &[i64]) -> Option<[u64; 2]> {
    let [a, b] = v else { return None };
    Some([u64::try_from(*a).ok()?, u64::try_from(*b).ok()?])
}

/// What `attrs!` gives a struct.
pub trait Attrs: Sized + Clone + Default + fmt::Debug + Send + Sync + 'static {
    /// Every attribute's name.
    const NAMES: &'static [&'static str];
    /// What the op is, as its author has written it.
    fn doc() -> String;
    /// What there is to know of every attribute.
    fn fields() -> Vec<AttrField>;
    /// The attributes that differ from their defaults.
    fn attrs(&self) -> AttrList;
    /// Back again.
    fn from_attrs(op: &str, list: &[(String, AttrValue)]) -> Result<Self, AttrError>;
    /// With named dimensions replaced. `None` on overflow.
    fn bind(&self, bindings: &Bindings) -> Option<Self>;
}

/// Declares an op's attributes: `attrs! { /// Doc. pub struct MatMul { transpose_lhs: bool = false } }`.
#[macro_export]
macro_rules! attrs {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$fdoc:meta])* $field:ident: $ty:ty = $default:expr),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty),* }
        impl Default for $name {
            fn default() -> Self { Self { $($field: $default),* } }
        }
        impl $crate::attrs::Attrs for $name {
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];
            fn doc() -> String {
                $crate::attrs::doc_text(&[$(stringify!($doc)),*])
            }
            #[allow(unused_variables)]
            fn fields() -> Vec<$crate::attrs::AttrField> {
                let default = Self::default();
                vec![$($crate::attrs::AttrField {
                    name: stringify!($field),
                    doc: $crate::attrs::doc_text(&[$(stringify!($fdoc)),*]),
                    sort: <$ty as $crate::attrs::Attr>::SORT,
                    default: $crate::attrs::Attr::to_value(&default.$field),
                }),*]
            }
            #[allow(unused_variables, unused_mut)]
            fn attrs(&self) -> $crate::attrs::AttrList {
                let (default, mut list) = (Self::default(), Vec::new());
                $(
                    let value = $crate::attrs::Attr::to_value(&self.$field);
                    if value != $crate::attrs::Attr::to_value(&default.$field) {
                        list.push((stringify!($field).to_string(), value));
                    }
                )*
                list
            }
            #[allow(unused_mut)]
            fn from_attrs(
                op: &str,
                list: &[(String, $crate::attrs::AttrValue)],
            ) -> Result<Self, $crate::attrs::AttrError> {
                let mut out = Self::default();
                for (name, value) in list {
                    match name.as_str() {
                        $(stringify!($field) => {
                            out.$field = $crate::attrs::Attr::from_value(value).ok_or_else(|| {
                                $crate::attrs::AttrError::Sort {
                                    op: op.to_string(), name: stringify!($field), value: value.clone(),
                                }
                            })?;
                        })*
                        _ => return Err($crate::attrs::AttrError::Unknown {
                            op: op.to_string(), name: name.clone(), known: Self::NAMES.to_vec(),
                        }),
                    }
                }
                Ok(out)
            }
            #[allow(unused_variables)]
            fn bind(&self, bindings: &$crate::Bindings) -> Option<Self> {
                Some(Self { $($field: $crate::attrs::Attr::bind(&self.$field, bindings)?),* })
            }
        }
    };
}

#[cfg(test)]
#[allow(unreachable_pub)] // What the macro declares is its callers' API.
mod tests {
    use super::*;

    crate::attrs! {
        /// Says "no \\ more".
        ///
        /// Second line.
        pub struct Said {
            /// Which `one`.
            one: i64 = -3,
            /// Two of them.
            pair: [u64; 2] = [1, 2],
        }
    }

    #[test]
    fn what_was_written_of_attributes_is_known() {
        assert_eq!(Said::doc(), "Says \"no \\\\ more\".\n\nSecond line.");
        let field = |name, doc: &str, sort, default| AttrField { name, doc: doc.into(), sort, default };
        assert_eq!(
            Said::fields(),
            [
                field("one", "Which `one`.", AttrSort::Int, AttrValue::Int(-3)),
                field("pair", "Two of them.", AttrSort::Pair, AttrValue::Ints(vec![1, 2])),
            ]
        );
    }
}
