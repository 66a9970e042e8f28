//! Scalar programs as WGSL, instruction by instruction, each meaning what the interpreter says. Only what somebody needs
//! is written.

use thalweg_graph::kernel::{Binary, Inst, Literal, Reg, Scalar, ScalarOp, Unary};
use thalweg_graph::types::DType;

use super::Unsupported;
use super::expr::{Repr, Value, fits, literal};
use super::index::{Frame, read};
use super::shader::{Param, Shader};

/// Writes what the registers `wanted` need; gives their values. `folded` holds the state of each fold, part by part.
pub(super) fn program(
    sh: &mut Shader,
    frame: &mut Frame<'_>,
    program: &Scalar,
    wanted: &[Reg],
    folded: &[Vec<Value>],
) -> Result<Vec<Value>, Unsupported> {
    let mut needed = vec![false; program.insts.len()];
    wanted.iter().for_each(|r| needed[usize::from(*r)] = true);
    for i in (0..program.insts.len()).rev().filter(|i| needed[*i]).collect::<Vec<_>>() {
        mark(program, i, &mut needed);
    }
    let mut values: Vec<Option<Value>> = vec![None; program.insts.len()];
    for (i, inst) in program.insts.iter().enumerate().filter(|(i, _)| needed[*i]) {
        let value =
            instruction(sh, frame, inst, folded, &|r| values[usize::from(r)].clone().expect("marked as needed"))?;
        let named = match inst.op {
            ScalarOp::Literal(_) | ScalarOp::Read(_) | ScalarOp::Valid(_) => value,
            _ => Value::new(sh.bind("v", &value.text), value.repr),
        };
        values[i] = Some(named);
    }
    Ok(wanted.iter().map(|r| values[usize::from(*r)].clone().expect("just written")).collect())
}

/// Marks what instruction `i` uses, and what that uses.
fn mark(program: &Scalar, i: usize, needed: &mut [bool]) {
    let mut open = vec![i];
    while let Some(i) = open.pop() {
        for r in program.insts[i].op.uses() {
            if !std::mem::replace(&mut needed[usize::from(r)], true) {
                open.push(usize::from(r));
            }
        }
    }
}

fn instruction(
    sh: &mut Shader,
    frame: &mut Frame<'_>,
    inst: &Inst,
    folded: &[Vec<Value>],
    reg: &dyn Fn(Reg) -> Value,
) -> Result<Value, Unsupported> {
    Ok(match &inst.op {
        ScalarOp::Literal(x) => literal(sh, *x, inst.dtype),
        ScalarOp::Read(k) => read(sh, frame, usize::from(*k))?.value,
        ScalarOp::Valid(k) => Value::new(read(sh, frame, usize::from(*k))?.inside, Repr::Bool),
        ScalarOp::Index(a) => index(sh, frame, usize::from(*a)),
        ScalarOp::Folded { fold, part } => folded[usize::from(*fold)][usize::from(*part)].clone(),
        ScalarOp::Philox { key, index, step } => {
            let [low, high] = [*key as u32 as i32, (*key >> 32) as u32 as i32].map(|w| sh.param(Param::Number(w)));
            let (index, step) = (reg(*index).wide(), reg(*step).wide());
            Value::new(format!("philox_word(u32({low}), u32({high}), {index}, {step})"), Repr::U32)
        }
        ScalarOp::Unary(op, a) => unary(*op, &reg(*a))?,
        ScalarOp::Binary(op, a, b) => binary(*op, &reg(*a), &reg(*b))?,
        ScalarOp::Select(c, a, b) => {
            let (c, a, b) = (reg(*c).text, reg(*a), reg(*b));
            match (a.repr, b.repr) {
                (Repr::Narrow(l1, h1), Repr::Narrow(l2, h2)) => {
                    Value::new(format!("select({}, {}, {c})", b.text, a.text), Repr::Narrow(l1.min(l2), h1.max(h2)))
                }
                (Repr::Narrow(..) | Repr::Wide, _) => {
                    Value::new(format!("select({}, {}, {c})", b.wide(), a.wide()), Repr::Wide)
                }
                (repr, _) => Value::new(format!("select({}, {}, {c})", b.text, a.text), repr),
            }
        }
        ScalarOp::Fma(a, b, c) => {
            let repr = Repr::of(inst.dtype);
            let name = if repr == Repr::Pair { "pair_fma" } else { "fma" };
            Value::rounded(format!("{name}({}, {}, {})", reg(*a).text, reg(*b).text, reg(*c).text), repr)
        }
        ScalarOp::Cast(a) => cast(&reg(*a), inst.dtype),
    })
}

/// The global index along an axis.
fn index(sh: &mut Shader, frame: &Frame<'_>, a: usize) -> Value {
    let (axis, at) = (&frame.axes[a], &frame.at[a]);
    let (low, high) = (axis.origin as i64, (axis.origin + axis.extent.max(1) - 1) as i64);
    if axis.origin == 0 {
        return Value::new(at.clone(), Repr::Narrow(0, high));
    }
    if fits(low, high) {
        let origin = sh.number(low);
        return Value::new(format!("({at} + {origin})"), Repr::Narrow(low, high));
    }
    let origin = literal(sh, Literal::Int(low), DType::I64).wide();
    Value::new(format!("i64_add(i64_of({at}), {origin})"), Repr::Wide)
}

fn unary(op: Unary, a: &Value) -> Result<Value, Unsupported> {
    let x = &a.text;
    if a.repr == Repr::Pair {
        return Ok(match op {
            Unary::Not => Value::new(format!("({x}.x == 0.0)"), Repr::Bool),
            Unary::IsNan => Value::new(format!("is_nan({x}.x)"), Repr::Bool),
            Unary::Neg => Value::new(format!("(-{x})"), Repr::Pair),
            Unary::Tanh | Unary::Erf => return Err(Unsupported::F64),
            op => Value::new(format!("pair_{}({x})", op.name()), Repr::Pair),
        });
    }
    Ok(single(op, a))
}

/// A function of a value that is no pair.
fn single(op: Unary, a: &Value) -> Value {
    let x = &a.text;
    let same = |text: String| Value::new(text, a.repr);
    let truth = |text: String| Value::new(text, Repr::Bool);
    match (op, a.repr) {
        (Unary::Not, Repr::Bool) => truth(format!("!{x}")),
        (Unary::Not, Repr::Wide) => truth(format!("(({x}.x | {x}.y) == 0u)")),
        (Unary::Not, Repr::U8 | Repr::U32) => truth(format!("({x} == 0u)")),
        (Unary::Not, Repr::I32 | Repr::Narrow(..)) => truth(format!("({x} == 0)")),
        (Unary::Not, _) => truth(format!("({x} == 0.0)")),
        (Unary::IsNan, repr) => truth(if repr.is_float() { format!("is_nan({x})") } else { "false".into() }),
        (_, Repr::Bool) | (Unary::Abs, Repr::U8 | Repr::U32) => a.clone(),
        (Unary::Floor, repr) if !repr.is_float() => a.clone(),
        (Unary::Neg, Repr::U8) => same(format!("((0u - {x}) & 0xffu)")),
        (Unary::Neg, Repr::U32) => same(format!("(0u - {x})")),
        (Unary::Neg, Repr::I32) => same(format!("(0 - {x})")),
        (Unary::Neg, Repr::Narrow(low, high)) if fits(-high, -low) => {
            Value::new(format!("(0 - {x})"), Repr::Narrow(-high, -low))
        }
        (Unary::Neg, Repr::Narrow(..) | Repr::Wide) => Value::new(format!("i64_neg({})", a.wide()), Repr::Wide),
        (Unary::Abs, Repr::I32) => same(format!("abs({x})")),
        (Unary::Abs, Repr::Narrow(low, high)) if low > i64::from(i32::MIN) => {
            Value::new(format!("abs({x})"), Repr::Narrow(0, high.abs().max(low.abs())))
        }
        (Unary::Abs, Repr::Narrow(..) | Repr::Wide) => Value::new(format!("i64_abs({})", a.wide()), Repr::Wide),
        (Unary::Sign, Repr::U8 | Repr::U32) => same(format!("min({x}, 1u)")),
        (Unary::Sign, Repr::I32) => same(format!("sign({x})")),
        (Unary::Sign, Repr::Narrow(..)) => Value::new(format!("sign({x})"), Repr::Narrow(-1, 1)),
        (Unary::Sign, Repr::Wide) => same(format!("i64_sign({x})")),
        (op, repr) => {
            let name = match op {
                Unary::Neg => return same(format!("(-{x})")),
                Unary::Abs => "abs",
                Unary::Sign => "sign_of",
                Unary::Exp => "exp_of",
                Unary::Log => "log_of",
                Unary::Sqrt => "sqrt",
                Unary::Tanh => "tanh_of",
                Unary::Sin => "sin_of",
                Unary::Cos => "cos_of",
                Unary::Erf => "erf_of",
                Unary::Floor => "floor",
                Unary::Not | Unary::IsNan => unreachable!("above"),
            };
            Value::rounded(format!("{name}({x})"), repr)
        }
    }
}

/// A function of two values of one type.
pub(super) fn binary(op: Binary, a: &Value, b: &Value) -> Result<Value, Unsupported> {
    Ok(match (a.repr, b.repr) {
        (Repr::Pair, _) => of_pairs(op, &a.text, &b.text)?,
        (Repr::Bool, _) => of_truths(op, &a.text, &b.text),
        (Repr::Narrow(l1, h1), Repr::Narrow(l2, h2)) => {
            of_narrow(op, &a.text, &b.text, (l1, h1), (l2, h2)).unwrap_or_else(|| of_wide(op, &a.wide(), &b.wide()))
        }
        (Repr::Narrow(..) | Repr::Wide, _) => of_wide(op, &a.wide(), &b.wide()),
        (repr @ (Repr::F32 | Repr::F16 | Repr::BF16), _) => of_floats(op, &a.text, &b.text, repr),
        (repr, _) => of_words(op, &a.text, &b.text, repr),
    })
}

fn of_pairs(op: Binary, a: &str, b: &str) -> Result<Value, Unsupported> {
    let text = match op {
        Binary::Ne => format!("!pair_eq({a}, {b})"),
        Binary::Rem => return Err(Unsupported::F64),
        op => format!("pair_{}({a}, {b})", op.name()),
    };
    Ok(Value::new(text, if op.compares() { Repr::Bool } else { Repr::Pair }))
}

/// The infix operator that a comparison is, where the values have an order.
fn comparison(op: Binary) -> Option<&'static str> {
    Some(match op {
        Binary::Lt => "<",
        Binary::Le => "<=",
        Binary::Eq => "==",
        Binary::Ne => "!=",
        _ => return None,
    })
}

fn of_truths(op: Binary, a: &str, b: &str) -> Value {
    // What integers 0 and 1 give, and whether that is other than 0.
    let text = match op {
        Binary::Add | Binary::Max | Binary::Or => format!("({a} | {b})"),
        Binary::Mul | Binary::Div | Binary::Min | Binary::And => format!("({a} & {b})"),
        Binary::Sub | Binary::Ne | Binary::Xor => format!("({a} != {b})"),
        Binary::Eq => format!("({a} == {b})"),
        Binary::Lt => format!("(!{a} & {b})"),
        Binary::Le => format!("(!{a} | {b})"),
        Binary::Shl => a.into(),
        Binary::Shr => format!("({a} & !{b})"),
        Binary::Rem | Binary::Pow => "false".into(),
    };
    Value::new(text, Repr::Bool)
}

fn of_floats(op: Binary, a: &str, b: &str, repr: Repr) -> Value {
    if op == Binary::Ne {
        // NaN differs from everything, also where a compiler thinks in ordered comparisons.
        return Value::new(format!("!({a} == {b})"), Repr::Bool);
    }
    if let Some(infix) = comparison(op) {
        return Value::new(format!("({a} {infix} {b})"), Repr::Bool);
    }
    let text = match op {
        Binary::Add => format!("({a} + {b})"),
        Binary::Sub => format!("({a} - {b})"),
        Binary::Mul => format!("({a} * {b})"),
        Binary::Div => format!("({a} / {b})"),
        Binary::Rem => format!("rem_of({a}, {b})"),
        Binary::Pow => format!("pow_of({a}, {b})"),
        Binary::Max => return Value::new(format!("max_nan({a}, {b})"), repr),
        Binary::Min => return Value::new(format!("min_nan({a}, {b})"), repr),
        _ => unreachable!("verified: not for floats"),
    };
    Value::rounded(text, repr)
}

/// Integers of up to 32 bits.
fn of_words(op: Binary, a: &str, b: &str, repr: Repr) -> Value {
    if let Some(infix) = comparison(op) {
        return Value::new(format!("({a} {infix} {b})"), Repr::Bool);
    }
    let ty = repr.wgsl();
    let bits = if repr == Repr::U8 { 7 } else { 31 };
    let text = match op {
        Binary::Add => format!("({a} + {b})"),
        Binary::Sub => format!("({a} - {b})"),
        Binary::Mul => format!("({a} * {b})"),
        Binary::Div => format!("{ty}_div({a}, {b})"),
        Binary::Rem => format!("{ty}_rem({a}, {b})"),
        Binary::Max => format!("max({a}, {b})"),
        Binary::Min => format!("min({a}, {b})"),
        Binary::And => format!("({a} & {b})"),
        Binary::Or => format!("({a} | {b})"),
        Binary::Xor => format!("({a} ^ {b})"),
        Binary::Shl => format!("({a} << (u32({b}) & {bits}u))"),
        Binary::Shr => format!("({a} >> (u32({b}) & {bits}u))"),
        _ => unreachable!("verified: not for integers"),
    };
    let wraps = repr == Repr::U8 && matches!(op, Binary::Add | Binary::Sub | Binary::Mul | Binary::Shl);
    Value::new(if wraps { format!("({text} & 0xffu)") } else { text }, repr)
}

/// i64s that fit 32 bits, where their result does too.
fn of_narrow(op: Binary, a: &str, b: &str, (l1, h1): (i64, i64), (l2, h2): (i64, i64)) -> Option<Value> {
    if let Some(infix) = comparison(op) {
        return Some(Value::new(format!("({a} {infix} {b})"), Repr::Bool));
    }
    let size = l1.abs().max(h1.abs());
    let products = [l1 * l2, l1 * h2, h1 * l2, h1 * h2];
    let (text, (low, high)) = match op {
        Binary::Add => (format!("({a} + {b})"), (l1 + l2, h1 + h2)),
        Binary::Sub => (format!("({a} - {b})"), (l1 - h2, h1 - l2)),
        Binary::Mul => (format!("({a} * {b})"), (*products.iter().min()?, *products.iter().max()?)),
        Binary::Div => (format!("i32_div({a}, {b})"), (-size, size)),
        Binary::Rem => (format!("i32_rem({a}, {b})"), (-size, size)),
        Binary::Max => (format!("max({a}, {b})"), (l1.max(l2), h1.max(h2))),
        Binary::Min => (format!("min({a}, {b})"), (l1.min(l2), h1.min(h2))),
        _ => return None,
    };
    fits(low, high).then(|| Value::new(text, Repr::Narrow(low, high)))
}

fn of_wide(op: Binary, a: &str, b: &str) -> Value {
    let (text, truth) = match op {
        Binary::Lt => (format!("i64_lt({a}, {b})"), true),
        Binary::Le => (format!("!i64_lt({b}, {a})"), true),
        Binary::Eq => (format!("i64_eq({a}, {b})"), true),
        Binary::Ne => (format!("!i64_eq({a}, {b})"), true),
        Binary::And => (format!("({a} & {b})"), false),
        Binary::Or => (format!("({a} | {b})"), false),
        Binary::Xor => (format!("({a} ^ {b})"), false),
        Binary::Pow => unreachable!("verified: not for integers"),
        op => (format!("i64_{}({a}, {b})", op.name()), false),
    };
    Value::new(text, if truth { Repr::Bool } else { Repr::Wide })
}

/// A value in another type.
pub(super) fn cast(a: &Value, to: DType) -> Value {
    let (x, repr) = (&a.text, Repr::of(to));
    let text = match (repr, a.repr) {
        (Repr::Bool, Repr::Bool) => x.clone(),
        (Repr::Bool, Repr::Wide) => format!("(({x}.x | {x}.y) != 0u)"),
        (Repr::Bool, Repr::U8 | Repr::U32) => format!("({x} != 0u)"),
        (Repr::Bool, Repr::I32 | Repr::Narrow(..)) => format!("({x} != 0)"),
        (Repr::Bool, Repr::Pair) => format!("!({x}.x == 0.0)"),
        (Repr::Bool, _) => format!("!({x} == 0.0)"),
        (Repr::Pair, from) => match from {
            Repr::Pair => x.clone(),
            Repr::Bool => format!("pair_of(select(0.0, 1.0, {x}))"),
            Repr::U8 => format!("pair_of(f32({x}))"),
            Repr::U32 => format!("pair_from_u32({x})"),
            Repr::I32 | Repr::Narrow(..) => format!("pair_from_i64(i64_of({x}))"),
            Repr::Wide => format!("pair_from_i64({x})"),
            Repr::F32 | Repr::F16 | Repr::BF16 => format!("pair_of({x})"),
        },
        (Repr::F32 | Repr::F16 | Repr::BF16, from) => {
            let float = match from {
                Repr::Bool => format!("select(0.0, 1.0, {x})"),
                Repr::Wide => format!("i64_to_f32({x})"),
                Repr::Pair => format!("{x}.x"),
                from if from.is_float() => x.clone(),
                _ => format!("f32({x})"),
            };
            return if repr == from { a.clone() } else { Value::rounded(float, repr) };
        }
        (Repr::U8 | Repr::U32, from) => {
            let word = match from {
                Repr::Bool => format!("select(0u, 1u, {x})"),
                Repr::Wide => format!("{x}.x"),
                Repr::Pair if repr == Repr::U8 => format!("min(i64_within_u32(pair_to_i64({x})), 255u)"),
                Repr::Pair => format!("i64_within_u32(pair_to_i64({x}))"),
                from if from.is_float() && repr == Repr::U8 => format!("min(f32_to_u32({x}), 255u)"),
                from if from.is_float() => format!("f32_to_u32({x})"),
                _ => format!("u32({x})"),
            };
            if repr == Repr::U8 { format!("({word} & 0xffu)") } else { word }
        }
        (Repr::I32, from) => match from {
            Repr::Bool => format!("select(0, 1, {x})"),
            Repr::Wide => format!("i32({x}.x)"),
            Repr::Pair => format!("i64_within_i32(pair_to_i64({x}))"),
            from if from.is_float() => format!("f32_to_i32({x})"),
            _ => format!("i32({x})"),
        },
        (Repr::Wide | Repr::Narrow(..), from) => {
            let (text, repr) = match from {
                Repr::Bool => (format!("select(0, 1, {x})"), Repr::Narrow(0, 1)),
                Repr::U8 => (format!("i32({x})"), Repr::Narrow(0, 255)),
                Repr::U32 => (format!("vec2<u32>({x}, 0u)"), Repr::Wide),
                Repr::I32 => (x.clone(), Repr::Narrow(i64::from(i32::MIN), i64::from(i32::MAX))),
                Repr::Wide | Repr::Narrow(..) => return a.clone(),
                Repr::Pair => (format!("pair_to_i64({x})"), Repr::Wide),
                _ => (format!("f32_to_i64({x})"), Repr::Wide),
            };
            return Value::new(text, repr);
        }
    };
    Value::new(text, repr)
}
