//! Types, numbers and attribute values: the small things that graphs, kernels and plans are written with. Numbers are
//! printed so that they come back bit for bit, which is why a float never prints without a point or an exponent and an
//! unusual NaN prints its bits.

use std::fmt;
use std::sync::Arc;

use super::lex::{Cursor, Kind, ParseError};
use crate::attrs::AttrValue;
use crate::ir::Site;
use crate::kernel::{BufferType, Literal};
use crate::types::{DType, Dim, Shape, TensorType};

/// A float as text: `1.0`, `-0.0`, `1e-7`, `inf`, `nan`, and `nan(0x…)` for a NaN with bits of its own.
pub(crate) struct FloatText(pub(crate) f64);

impl fmt::Display for FloatText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            x if x.to_bits() == f64::NAN.to_bits() => f.write_str("nan"),
            x if x.is_nan() => write!(f, "nan({:#x})", x.to_bits()),
            x => write!(f, "{x:?}"),
        }
    }
}

/// `items` with commas between them.
pub(crate) fn write_list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: impl IntoIterator<Item = T>,
) -> fmt::Result {
    for (i, item) in items.into_iter().enumerate() {
        f.write_str(if i > 0 { ", " } else { "" })?;
        write!(f, "{item}")?;
    }
    Ok(())
}

/// `f32[2]` for one, `(f32[2], i32[2])` for any other number of them.
pub(crate) fn write_types<T: fmt::Display>(f: &mut fmt::Formatter<'_>, types: &[T]) -> fmt::Result {
    let (open, close) = if types.len() == 1 { ("", "") } else { ("(", ")") };
    f.write_str(open)?;
    write_list(f, types)?;
    f.write_str(close)
}

/// Reads what [`write_types`] writes.
pub(crate) fn parse_types<T>(
    cursor: &mut Cursor<'_>,
    mut parse: impl FnMut(&mut Cursor<'_>) -> Result<T, ParseError>,
) -> Result<Vec<T>, ParseError> {
    if cursor.sees("(") { cursor.list("(", ")", parse) } else { Ok(vec![parse(cursor)?]) }
}

/// ` at "a.rs:3:9"`, where source lines are asked for (`{:#}`) and there is one.
pub(crate) fn write_site(f: &mut fmt::Formatter<'_>, site: &Site) -> fmt::Result {
    if !f.alternate() || *site == Site::default() {
        return Ok(());
    }
    let Site { file, line, column } = site;
    write!(f, " at {:?}", format!("{file}:{line}:{column}"))
}

/// Reads a source line, behind its `at`.
pub(crate) fn parse_site(cursor: &mut Cursor<'_>) -> Result<Site, ParseError> {
    let at = cursor.at();
    let text = cursor.text("a source line, quoted")?;
    let mut parts = text.rsplitn(3, ':');
    let mut number = || parts.next()?.parse().ok();
    let (column, line) = (number(), number());
    match (parts.next(), line, column) {
        (Some(file), Some(line), Some(column)) => Ok(Site { file: file.into(), line, column }),
        _ => Err(cursor.error_at(at, "a source line reads \"file:line:column\"")),
    }
}

/// Reads a number. With a point, an exponent or a name it is a float, else an integer.
pub(crate) fn parse_literal(cursor: &mut Cursor<'_>) -> Result<Literal, ParseError> {
    let what = "a number";
    let at = cursor.at();
    let mut ahead = cursor.clone();
    let negative = ahead.eat("-");
    if ahead.peek().kind == Kind::Int {
        return cursor.int(what).map(Literal::Int);
    }
    *cursor = ahead;
    let magnitude = if cursor.eat("inf") {
        f64::INFINITY
    } else if !negative && cursor.eat("nan") {
        parse_nan(cursor)?
    } else {
        let text = cursor.take(Kind::Float, what)?.text;
        let value = text.parse().ok().filter(|x: &f64| x.is_finite());
        value.ok_or_else(|| cursor.error_at(at, "this is out of range for a float"))?
    };
    Ok(Literal::Float(if negative { -magnitude } else { magnitude }))
}

fn parse_nan(cursor: &mut Cursor<'_>) -> Result<f64, ParseError> {
    if !cursor.eat("(") {
        return Ok(f64::NAN);
    }
    let at = cursor.at();
    let value = f64::from_bits(cursor.int("the bits of a NaN")?);
    cursor.expect(")")?;
    if value.is_nan() { Ok(value) } else { Err(cursor.error_at(at, "these are not the bits of a NaN")) }
}

/// Reads a number as a float; an integer is converted.
pub(crate) fn parse_float(cursor: &mut Cursor<'_>) -> Result<f64, ParseError> {
    parse_literal(cursor).map(Literal::as_f64)
}

/// Reads an element type.
pub(crate) fn parse_dtype(cursor: &mut Cursor<'_>) -> Result<DType, ParseError> {
    let token = cursor.peek();
    let dtype = DType::from_name(token.text).filter(|_| token.kind == Kind::Word);
    let dtype = dtype.ok_or_else(|| cursor.unexpected("an element type, like `f32`"))?;
    cursor.bump();
    Ok(dtype)
}

/// Reads the type of a buffer: all extents are numbers.
pub(crate) fn parse_buffer_type(cursor: &mut Cursor<'_>) -> Result<BufferType, ParseError> {
    let dtype = parse_dtype(cursor)?;
    Ok(BufferType { dtype, shape: cursor.list("[", "]", |c| c.int("an extent"))? })
}

/// Reads the type of a tensor.
pub(crate) fn parse_tensor_type(cursor: &mut Cursor<'_>) -> Result<TensorType, ParseError> {
    let dtype = parse_dtype(cursor)?;
    Ok(TensorType { dtype, shape: parse_shape(cursor)? })
}

fn parse_shape(cursor: &mut Cursor<'_>) -> Result<Shape, ParseError> {
    cursor.list("[", "]", parse_dim).map(Shape)
}

/// Reads an extent: a number, or a sum of products such as `8*batch+1`.
pub(crate) fn parse_dim(cursor: &mut Cursor<'_>) -> Result<Dim, ParseError> {
    let at = cursor.at();
    let mut terms: Vec<(i64, Vec<Arc<str>>)> = Vec::new();
    let mut negative = cursor.eat("-");
    loop {
        let mut factor = 1i128;
        let mut names = Vec::new();
        if cursor.peek().kind == Kind::Int {
            let number: u64 = cursor.int("an extent")?;
            if terms.is_empty() && !negative && !["*", "+", "-"].iter().any(|m| cursor.sees(m)) {
                return Ok(Dim::Fixed(number));
            }
            factor = i128::from(number);
        } else {
            names.push(cursor.word("an extent: a number or a name")?.into());
        }
        while cursor.eat("*") {
            names.push(cursor.word("a dimension's name")?.into());
        }
        let factor = i64::try_from(if negative { -factor } else { factor });
        terms.push((factor.map_err(|_| cursor.error_at(at, "a coefficient is out of range"))?, names));
        negative = cursor.eat("-");
        if !negative && !cursor.eat("+") {
            break;
        }
    }
    Dim::from_terms(terms).ok_or_else(|| cursor.error_at(at, "this extent is negative or out of range"))
}

/// Reads an attribute's value.
pub(crate) fn parse_attr(cursor: &mut Cursor<'_>) -> Result<AttrValue, ParseError> {
    let token = cursor.peek();
    match (token.kind, token.text) {
        (Kind::Text, _) => cursor.text("a string").map(AttrValue::Text),
        (Kind::Mark, "[") => cursor.list("[", "]", |c| c.int("an integer")).map(AttrValue::Ints),
        (Kind::Word, "true" | "false") => Ok(AttrValue::Bool(cursor.bump().text == "true")),
        (Kind::Word, "shape") => {
            cursor.bump();
            parse_shape(cursor).map(AttrValue::Shape)
        }
        (Kind::Int | Kind::Float, _) | (Kind::Mark, "-") | (Kind::Word, "inf" | "nan") => {
            Ok(match parse_literal(cursor)? {
                Literal::Int(i) => AttrValue::Int(i),
                Literal::Float(x) => AttrValue::Float(x),
            })
        }
        (Kind::Word, name) if DType::from_name(name).is_some() => parse_dtype(cursor).map(AttrValue::DType),
        _ => Err(cursor.unexpected("an attribute's value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_come_back_bit_for_bit() {
        let odd = f64::from_bits(0xfff8_0000_0000_0123);
        for x in [0.0, -0.0, 1.0, -1.5e-300, f64::MAX, 5e-324, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, odd] {
            let text = FloatText(x).to_string();
            let back = parse_literal(&mut Cursor::new(&text));
            assert_eq!(back, Ok(Literal::Float(x)), "{text}");
        }
        for text in ["nan(0x1)", "1e999", "-nan", "--1", "-"] {
            assert!(parse_literal(&mut Cursor::new(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn dims_come_back() {
        let (b, n) = (Dim::named("batch"), Dim::named("n"));
        let one = Dim::Fixed(1);
        let eight = b.times(&Dim::Fixed(8)).and_then(|d| d.plus(&one)).expect("small");
        let less =
            Dim::from_terms([(-1, vec!["n".into()]), (i64::MIN, vec!["b".into()]), (-7, vec![])]).expect("named");
        for dim in [Dim::Fixed(u64::MAX), b.clone(), eight, b.times(&n).expect("small"), less] {
            assert_eq!(parse_dim(&mut Cursor::new(&dim.to_string())), Ok(dim));
        }
        assert!(parse_dim(&mut Cursor::new("1-2")).is_err());
        assert!(parse_dim(&mut Cursor::new("9223372036854775808*b")).is_err());
    }
}
