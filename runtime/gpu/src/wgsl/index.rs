//! Where a point reads: coordinates as expressions, what has to hold for them to be inside, and the element they make
//! together. All of it is i32 arithmetic, which may wrap on the way: only what is compared has to fit.

use thalweg_graph::kernel::{Affine, Axis, Beyond, BufferType, Coord, Read};

use thalweg_graph::types::DType;

use super::Unsupported;
use super::expr::{Repr, Value, fits, literal};
use super::memory;
use super::shader::{Place, Shader};

/// The loop point that code is written for, and what it may read.
pub(super) struct Frame<'a> {
    /// The axes.
    pub(super) axes: &'a [Axis],
    /// The local index along each axis, as an `i32` expression.
    pub(super) at: Vec<String>,
    /// Where operands are read.
    pub(super) reads: &'a [Read],
    /// Types of the operands.
    pub(super) operands: &'a [BufferType],
    /// Where the operands lie.
    pub(super) places: &'a [Place],
    /// By read: the element that it finds, where that is one map of the axes.
    pub(super) plain: &'a [Option<Affine>],
    /// What has been read in this block.
    pub(super) found: Vec<Option<Found>>,
}

/// What a read found.
#[derive(Clone)]
pub(super) struct Found {
    /// The element, or the fill.
    pub(super) value: Value,
    /// Whether it is inside; `true` where that is known.
    pub(super) inside: String,
}

/// Refuses what cannot be counted in 32 bits, and more than single numbers of f64.
pub(super) fn countable(buffers: &[BufferType]) -> Result<(), Unsupported> {
    let words = |b: &BufferType| b.size_bytes().div_ceil(4).max(b.len() as u64);
    if buffers.iter().any(|b| b.dtype == DType::F64 && b.len() > 1) {
        return Err(Unsupported::F64);
    }
    match buffers.iter().find(|b| words(b) >= 1 << 31) {
        Some(b) => Err(Unsupported::TooLarge(format!("{b} has too many elements"))),
        None => Ok(()),
    }
}

/// Declares the indices of `axes` (numbers of them) at the row-major place `flat`, a `u32` expression.
pub(super) fn decode(sh: &mut Shader, flat: &str, axes: &[Axis], which: &[usize], at: &mut [String]) {
    let long: Vec<usize> = which.iter().copied().filter(|a| axes[*a].extent != 1).collect();
    let mut rest = flat.to_string();
    for (k, a) in long.iter().enumerate().rev() {
        at[*a] = if k == 0 {
            sh.bind("a", format!("i32({rest})"))
        } else {
            let extent = sh.number(axes[*a].extent as i64);
            let extent = sh.bind("e", format!("u32({extent})"));
            // A remainder is another division, which compilers do not always see.
            let (whole, above) = (rest.clone(), sh.bind("q", format!("{rest} / {extent}")));
            rest = above;
            sh.bind("a", format!("i32({whole} - {rest} * {extent})"))
        };
    }
}

/// `Σ coefficient · axis + offset`. Axes of one point are always 0.
pub(super) fn affine(sh: &mut Shader, map: &Affine, axes: &[Axis], at: &[String]) -> String {
    let mut terms = vec![];
    for (axis, c) in &map.terms {
        let axis = usize::from(*axis);
        if axes[axis].extent == 1 {
            continue;
        }
        let index = &at[axis];
        terms.push(match *c {
            1 => index.clone(),
            c => format!("{index} * {}", sh.number(c)),
        });
    }
    if map.offset != 0 || terms.is_empty() {
        terms.push(sh.number(map.offset));
    }
    format!("({})", terms.join(" + "))
}

/// A coordinate as an `i32` expression, and what has to hold for it to be inside an axis.
fn coordinate(
    sh: &mut Shader,
    frame: &mut Frame<'_>,
    coord: &Coord,
    extent: u64,
    checks: &mut Vec<String>,
) -> Result<String, Unsupported> {
    let map = |sh: &mut Shader, frame: &Frame<'_>, index: &Affine| {
        let range = index.range(frame.axes).filter(|(low, high)| fits(*low, *high));
        let Some(range) = range else { return Err(Unsupported::TooLarge("an index reaches too far".into())) };
        let text = affine(sh, index, frame.axes, &frame.at);
        Ok((sh.bind("c", text), range))
    };
    let mut below = |sh: &mut Shader, c: &str| {
        let extent = sh.number(extent as i64);
        checks.push(format!("({c} < {extent})"));
    };
    Ok(match coord {
        Coord::Affine(index) => {
            let (c, (low, high)) = map(sh, frame, index)?;
            if high as u64 >= extent {
                below(sh, &c);
            }
            if low < 0 {
                checks.push(format!("({c} >= 0)"));
            }
            c
        }
        Coord::Holes { index, step } => {
            let (i, (low, _)) = map(sh, frame, index)?;
            let step = sh.number(*step as i64);
            let c = sh.bind("c", format!("{i} / {step}"));
            below(sh, &c);
            checks.push(format!("({c} * {step} == {i})"));
            if low < 0 {
                checks.push(format!("({i} >= 0)"));
            }
            c
        }
        Coord::Digit { index, divide, modulo } => {
            let (i, (_, high)) = map(sh, frame, index)?;
            // Beyond 32 bits a divisor is larger than any index: one that is as large as 32 bits allow does the same.
            let most = i64::from(i32::MAX) as u64;
            let divided = if *divide == 1 {
                i
            } else if *divide > high as u64 {
                "0".into()
            } else {
                format!("{i} / {}", sh.number(*divide as i64))
            };
            let c = if high as u64 / divide < *modulo {
                sh.bind("c", divided)
            } else {
                let modulo = sh.number((*modulo).min(most) as i64);
                sh.bind("c", format!("({divided}) % {modulo}"))
            };
            if (*modulo).min(high as u64 / divide + 1) > extent {
                below(sh, &c);
            }
            c
        }
        Coord::Value { read: k, beyond } => {
            let found = read(sh, frame, usize::from(*k))?.value;
            let text = &found.text;
            let c = match found.repr {
                Repr::U8 => format!("i32({text})"),
                Repr::U32 => format!("i32(min({text}, 0x7fffffffu))"),
                Repr::Wide => format!("i64_coord({text})"),
                _ => text.clone(),
            };
            if *beyond == Beyond::Clamp && extent > 0 {
                let last = sh.number(extent as i64 - 1);
                sh.bind("c", format!("clamp({c}, 0, {last})"))
            } else {
                let c = sh.bind("c", c);
                below(sh, &c);
                checks.push(format!("({c} >= 0)"));
                c
            }
        }
    })
}

/// The coordinates of a place, and what has to hold for it to be inside.
pub(super) fn coordinates(
    sh: &mut Shader,
    frame: &mut Frame<'_>,
    coords: &[Coord],
    shape: &[u64],
) -> Result<(Vec<String>, Vec<String>), Unsupported> {
    let (mut at, mut checks) = (vec![], vec![]);
    for (coord, extent) in coords.iter().zip(shape) {
        at.push(coordinate(sh, frame, coord, *extent, &mut checks)?);
    }
    Ok((at, checks))
}

/// The row-major element at these coordinates.
fn flat(sh: &mut Shader, at: &[String], of: &BufferType) -> String {
    let mut terms = vec![];
    for ((c, stride), extent) in at.iter().zip(of.strides()).zip(&of.shape) {
        if *extent != 1 {
            let stride = sh.number(stride);
            terms.push(if stride == "1" { c.clone() } else { format!("{c} * {stride}") });
        }
    }
    if terms.is_empty() { "0".into() } else { terms.join(" + ") }
}

/// The row-major element that an affine place is.
pub(super) fn flat_affine(coords: &[Affine], of: &BufferType) -> Affine {
    coords.iter().zip(of.strides()).fold(Affine::constant(0), |sum, (c, stride)| sum + c.clone().scaled(stride))
}

/// The element that read `k` finds, and what has to hold for it to be inside.
fn locate(sh: &mut Shader, frame: &mut Frame<'_>, k: usize) -> Result<(String, Vec<String>), Unsupported> {
    // Without conditions the whole is one affine map.
    if let Some(map) = &frame.plain[k] {
        return Ok((affine(sh, map, frame.axes, &frame.at), vec![]));
    }
    let one = &frame.reads[k];
    let operand = &frame.operands[usize::from(one.operand)];
    let (at, checks) = coordinates(sh, frame, &one.coords, &operand.shape)?;
    Ok((flat(sh, &at, operand), checks))
}

/// What read `k` finds at this point; read once in a block.
pub(super) fn read(sh: &mut Shader, frame: &mut Frame<'_>, k: usize) -> Result<Found, Unsupported> {
    if let Some(found) = &frame.found[k] {
        return Ok(found.clone());
    }
    let one = &frame.reads[k];
    let operand = &frame.operands[usize::from(one.operand)];
    let place = frame.places[usize::from(one.operand)];
    let (index, checks) = locate(sh, frame, k)?;
    let found = match one.fill {
        Some(fill) if !checks.is_empty() => {
            let fill = literal(sh, fill.to(operand.dtype), operand.dtype);
            let inside = sh.bind("ok", checks.join(" & "));
            let repr = Repr::of(operand.dtype);
            let name = sh.name("r");
            let fill = if repr == Repr::Wide { fill.wide() } else { fill.text };
            sh.line(format!("var {name}: {} = {fill};", repr.wgsl()));
            if !operand.is_empty() {
                sh.open(format!("if ({inside})"));
                let value = memory::load(sh, place, operand.dtype, &index);
                sh.line(format!("{name} = {};", value.text));
                sh.close();
            }
            Found { value: Value::new(name, repr), inside }
        }
        _ => {
            let value = memory::load(sh, place, operand.dtype, &index);
            let name = sh.bind("r", value.text);
            Found { value: Value::new(name, value.repr), inside: "true".into() }
        }
    };
    frame.found[k] = Some(found.clone());
    Ok(found)
}

/// What read `k` finds where `wanted` holds, and `pad` elsewhere. Without a branch, so that many loads are under way
/// at a time: where there is nothing to read, the place's home is, of which there has to be one.
pub(super) fn read_padded(
    sh: &mut Shader,
    frame: &mut Frame<'_>,
    k: usize,
    wanted: &str,
    pad: &str,
) -> Result<Value, Unsupported> {
    let one = &frame.reads[k];
    let operand = &frame.operands[usize::from(one.operand)];
    let place = frame.places[usize::from(one.operand)];
    let (index, checks) = locate(sh, frame, k)?;
    let inside = match &checks[..] {
        [] => wanted.to_string(),
        checks => sh.bind("ok", format!("{wanted} & {}", checks.join(" & "))),
    };
    let home = sh.number(place.home);
    let index = sh.bind("i", format!("select({home}, {index}, {inside})"));
    let value = memory::load(sh, place, operand.dtype, &index);
    let text = match one.fill {
        Some(fill) if !checks.is_empty() => {
            let fill = literal(sh, fill.to(operand.dtype), operand.dtype).text;
            let found = sh.bind("r", format!("select({fill}, {}, {inside})", value.text));
            format!("select({pad}, {found}, {wanted})")
        }
        _ => format!("select({pad}, {}, {inside})", value.text),
    };
    Ok(Value::new(sh.bind("r", text), value.repr))
}
