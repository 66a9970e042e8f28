//! Kernels from text; see [`kernel_print`](super::kernel_print) for what it looks like. It reads what is written and no
//! more: whether the kernel is sound is for [`Kernel::verify`] to say, so that an unsound one can be printed, looked at
//! and read back.

use std::collections::BTreeMap;

use super::kernel_attention::parse_attention;
use super::lex::{Cursor, Kind, ParseError};
use super::value::{parse_buffer_type, parse_dtype, parse_literal, parse_types};
use crate::kernel::{
    Affine, Axis, Beyond, Binary, BufferType, Coord, Fold, Group, Inst, Kernel, LoopNest, Member, Monoid, Passed, Read,
    Reg, Scalar, ScalarOp, Scatter, Unary, Write,
};

impl Kernel {
    /// The kernel that `text` says, sound or not: see [`Kernel::verify`].
    pub fn parse(text: &str) -> Result<Kernel, ParseError> {
        let mut cursor = Cursor::new(text);
        let kernel = parse_kernel(&mut cursor)?;
        cursor.finish()?;
        Ok(kernel)
    }
}

/// Reads a kernel, to its closing brace.
pub(crate) fn parse_kernel(cursor: &mut Cursor<'_>) -> Result<Kernel, ParseError> {
    if cursor.sees("group") {
        return parse_group(cursor).map(Kernel::Group);
    }
    if cursor.sees("attention") || cursor.sees("attention_grad") {
        return parse_attention(cursor);
    }
    let scatter = cursor.sees("scatter");
    if !scatter && !cursor.sees("nest") {
        return Err(cursor.unexpected("a kernel: `nest`, `scatter`, `group`, `attention` or `attention_grad`"));
    }
    cursor.bump();
    let operands = cursor.list("(", ")", parse_buffer_type)?;
    cursor.expect("->")?;
    let result_at = cursor.at();
    let mut results = parse_types(cursor, parse_buffer_type)?;
    cursor.expect("{")?;
    let axes = parse_axes(cursor)?;
    let reads = parse_reads(cursor)?;
    let body = parse_scalar("body", cursor)?;
    let kernel = if scatter {
        let one = results.pop().filter(|_| results.is_empty());
        let result = one.ok_or_else(|| cursor.error_at(result_at, "a scatter has one result"))?;
        Kernel::Scatter(parse_scatter(operands, result, axes, reads, body, cursor)?)
    } else {
        let (mut folds, mut writes) = (Vec::new(), Vec::new());
        while cursor.sees_numbered("f").is_some() {
            cursor.in_order("f", folds.len())?;
            folds.push(parse_fold(cursor)?);
        }
        let epilogue = parse_scalar("epilogue", cursor)?;
        while cursor.sees_numbered("out").is_some() {
            writes.push(parse_write(cursor)?);
        }
        Kernel::Nest(LoopNest { operands, results, axes, reads, body, folds, epilogue, writes })
    };
    if !cursor.sees("}") {
        let what = if scatter { "`}`" } else { "a line of a nest (axes, reads, body, folds, epilogue, writes) or `}`" };
        return Err(cursor.unexpected(what));
    }
    cursor.bump();
    Ok(kernel)
}

fn parse_group(cursor: &mut Cursor<'_>) -> Result<Group, ParseError> {
    cursor.bump();
    let operands = cursor.list("(", ")", parse_buffer_type)?;
    cursor.expect("->")?;
    let results = parse_types(cursor, parse_buffer_type)?;
    cursor.expect("{")?;
    let rows = if cursor.eat("rows") { parse_run(cursor, |c| c.int("an extent"))? } else { vec![] };
    let locals = if cursor.eat("local") { parse_run(cursor, parse_buffer_type)? } else { vec![] };
    let mut members = Vec::new();
    while cursor.sees_numbered("m").is_some() {
        cursor.in_order("m", members.len())?;
        let reads = cursor.list("(", ")", parse_passed)?;
        cursor.expect("->")?;
        let writes = cursor.list("(", ")", parse_passed)?;
        cursor.expect("=")?;
        if !cursor.sees("nest") {
            return Err(cursor.unexpected("a member of a group: `nest`"));
        }
        let Kernel::Nest(nest) = parse_kernel(cursor)? else { unreachable!("it says `nest`") };
        members.push(Member { nest, reads, writes });
    }
    if !cursor.sees("}") {
        return Err(cursor.unexpected("a line of a group (rows, local, members) or `}`"));
    }
    cursor.bump();
    Ok(Group { operands, results, locals, rows, members })
}

/// One or more, between commas.
fn parse_run<T>(
    cursor: &mut Cursor<'_>,
    item: impl Fn(&mut Cursor<'_>) -> Result<T, ParseError>,
) -> Result<Vec<T>, ParseError> {
    let mut list = vec![item(cursor)?];
    while cursor.eat(",") {
        list.push(item(cursor)?);
    }
    Ok(list)
}

fn parse_passed(cursor: &mut Cursor<'_>) -> Result<Passed, ParseError> {
    if cursor.sees_numbered("out").is_some() {
        return cursor.numbered("out", "a result").map(Passed::Result);
    }
    if cursor.sees_numbered("local").is_some() {
        return cursor.numbered("local", "a local").map(Passed::Local);
    }
    cursor.numbered("in", "what a member reads or writes: `in0`, `out0` or `local0`").map(Passed::Operand)
}

fn parse_scatter(
    operands: Vec<BufferType>,
    result: BufferType,
    axes: Vec<Axis>,
    reads: Vec<Read>,
    body: Scalar,
    cursor: &mut Cursor<'_>,
) -> Result<Scatter, ParseError> {
    cursor.in_order("out", 0)?;
    let at = cursor.list("[", "]", parse_coord)?;
    cursor.expect("=")?;
    let monoid = parse_monoid(cursor)?;
    let value = cursor.numbered("v", "a register")?;
    let init = if cursor.eat("onto") { Some(cursor.numbered("in", "an operand")?) } else { None };
    Ok(Scatter { operands, result, axes, reads, body, value, at, monoid, init })
}

fn parse_axes(cursor: &mut Cursor<'_>) -> Result<Vec<Axis>, ParseError> {
    let mut axes = Vec::new();
    while cursor.sees("par") || cursor.sees("fold") {
        let fold = cursor.bump().text == "fold";
        loop {
            cursor.in_order("a", axes.len())?;
            cursor.expect(":")?;
            let mut axis = Axis::new(cursor.int("an extent")?, fold);
            if cursor.eat("of") {
                axis.whole = cursor.int("the whole extent")?;
                cursor.expect("at")?;
                axis.origin = cursor.int("an origin")?;
            }
            axes.push(axis);
            if !cursor.eat(",") {
                break;
            }
        }
    }
    Ok(axes)
}

fn parse_reads(cursor: &mut Cursor<'_>) -> Result<Vec<Read>, ParseError> {
    let mut reads = Vec::new();
    while cursor.sees_numbered("r").is_some() {
        cursor.in_order("r", reads.len())?;
        cursor.expect("=")?;
        let operand = cursor.numbered("in", "an operand")?;
        let coords = cursor.list("[", "]", parse_coord)?;
        let fill = if cursor.eat("else") { Some(parse_literal(cursor)?) } else { None };
        reads.push(Read { operand, coords, fill });
    }
    Ok(reads)
}

fn parse_coord(cursor: &mut Cursor<'_>) -> Result<Coord, ParseError> {
    let token = cursor.peek();
    let name = if token.kind == Kind::Word { token.text } else { "" };
    if !matches!(name, "holes" | "digit" | "found" | "clamp") {
        return parse_affine(cursor).map(Coord::Affine);
    }
    cursor.bump();
    cursor.expect("(")?;
    if matches!(name, "found" | "clamp") {
        let read = cursor.numbered("r", "a read")?;
        cursor.expect(")")?;
        return Ok(Coord::Value { read, beyond: if name == "clamp" { Beyond::Clamp } else { Beyond::Outside } });
    }
    let index = parse_affine(cursor)?;
    cursor.expect(")")?;
    cursor.expect("/")?;
    let divide = cursor.int("a divisor")?;
    if name == "holes" {
        return Ok(Coord::Holes { index, step: divide });
    }
    cursor.expect("mod")?;
    Ok(Coord::Digit { index, divide, modulo: cursor.int("a modulus")? })
}

/// Reads a sum of axes and numbers in any order; like terms are collected.
fn parse_affine(cursor: &mut Cursor<'_>) -> Result<Affine, ParseError> {
    let at = cursor.at();
    let mut terms: BTreeMap<u16, i128> = BTreeMap::new();
    let mut offset = 0i128;
    let mut negative = cursor.eat("-");
    loop {
        let mut factor = 1i128;
        let number = cursor.peek().kind == Kind::Int;
        if number {
            factor = i128::from(cursor.int::<u64>("a number")?);
        }
        let signed = if negative { -factor } else { factor };
        // Each summand is below 2^64, so that no text long enough to overflow an i128 fits in memory.
        if number && !cursor.eat("*") {
            offset += signed;
        } else {
            *terms.entry(cursor.numbered("a", "a coordinate: a number or an axis")?).or_default() += signed;
        }
        negative = cursor.eat("-");
        if !negative && !cursor.eat("+") {
            break;
        }
    }
    let small = |x: i128| i64::try_from(x).map_err(|_| cursor.error_at(at, "a coefficient is out of range"));
    terms.retain(|_, c| *c != 0);
    let terms = terms.into_iter().map(|(axis, c)| Ok((axis, small(c)?))).collect::<Result<_, _>>()?;
    Ok(Affine { terms, offset: small(offset)? })
}

fn parse_scalar(name: &str, cursor: &mut Cursor<'_>) -> Result<Scalar, ParseError> {
    let mut program = Scalar::default();
    if !cursor.eat(name) {
        return Ok(program);
    }
    cursor.expect("{")?;
    while !cursor.eat("}") {
        cursor.in_order("v", program.insts.len())?;
        cursor.expect(":")?;
        let dtype = parse_dtype(cursor)?;
        cursor.expect("=")?;
        program.insts.push(Inst { dtype, op: parse_op(cursor)? });
    }
    Ok(program)
}

fn parse_op(cursor: &mut Cursor<'_>) -> Result<ScalarOp, ParseError> {
    let token = cursor.peek();
    if token.kind != Kind::Word || matches!(token.text, "inf" | "nan") {
        return parse_literal(cursor).map(ScalarOp::Literal);
    }
    let reg = |cursor: &mut Cursor<'_>| cursor.numbered("v", "a register");
    let next = |cursor: &mut Cursor<'_>| cursor.expect(",").and_then(|()| reg(cursor));
    let (unary, binary) = (Unary::from_name(token.text), Binary::from_name(token.text));
    if unary.is_none()
        && binary.is_none()
        && !matches!(token.text, "read" | "valid" | "index" | "folded" | "philox" | "select" | "fma" | "cast")
    {
        return Err(cursor.unexpected("a scalar operation"));
    }
    cursor.bump();
    if let Some(op) = unary {
        return Ok(ScalarOp::Unary(op, reg(cursor)?));
    }
    if let Some(op) = binary {
        return Ok(ScalarOp::Binary(op, reg(cursor)?, next(cursor)?));
    }
    Ok(match token.text {
        "read" => ScalarOp::Read(cursor.numbered("r", "a read")?),
        "valid" => ScalarOp::Valid(cursor.numbered("r", "a read")?),
        "index" => ScalarOp::Index(cursor.numbered("a", "an axis")?),
        "folded" => {
            let fold = cursor.numbered("f", "a fold")?;
            cursor.expect(".")?;
            ScalarOp::Folded { fold, part: cursor.int("a part")? }
        }
        "philox" => {
            let key = cursor.int("a key")?;
            ScalarOp::Philox { key, index: next(cursor)?, step: next(cursor)? }
        }
        "select" => ScalarOp::Select(reg(cursor)?, next(cursor)?, next(cursor)?),
        "fma" => ScalarOp::Fma(reg(cursor)?, next(cursor)?, next(cursor)?),
        _ => ScalarOp::Cast(reg(cursor)?),
    })
}

fn parse_monoid(cursor: &mut Cursor<'_>) -> Result<Monoid, ParseError> {
    let token = cursor.peek();
    let monoid = Monoid::from_name(token.text).filter(|_| token.kind == Kind::Word);
    let monoid = monoid.ok_or_else(|| cursor.unexpected("a way to combine values, like `sum`"))?;
    cursor.bump();
    Ok(monoid)
}

fn parse_fold(cursor: &mut Cursor<'_>) -> Result<Fold, ParseError> {
    cursor.expect(":")?;
    let dtype = parse_dtype(cursor)?;
    cursor.expect("=")?;
    let monoid = parse_monoid(cursor)?;
    let mut inputs: Vec<Reg> = Vec::new();
    if cursor.sees_numbered("v").is_some() {
        inputs.push(cursor.numbered("v", "a register")?);
        while cursor.eat(",") {
            inputs.push(cursor.numbered("v", "a register")?);
        }
    }
    Ok(Fold { monoid, inputs, dtype })
}

fn parse_write(cursor: &mut Cursor<'_>) -> Result<Write, ParseError> {
    let result = cursor.numbered("out", "a result")?;
    let coords = cursor.list("[", "]", parse_affine)?;
    cursor.expect("=")?;
    Ok(Write { result, value: cursor.numbered("v", "a register")?, coords })
}
