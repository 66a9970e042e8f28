//! Kernels as text. Axes, reads, registers and folds are numbered by position, so a line says no more than the value
//! holds; the words for coordinates (`holes`, `digit`, `found`) are those in which an op writes its kernel.
//!
//! ```text
//! nest (f32[64, 32], f32[32, 10]) -> f32[64, 10] {
//!   par a0: 64, a1: 10
//!   fold a2: 32 of 64 at 32
//!   r0 = in0[a0, a2]
//!   r1 = in1[2*a2-1, a1] else -inf
//!   body {
//!     v0: f32 = read r0
//!     v1: f32 = read r1
//!     v2: f32 = mul v0, v1
//!   }
//!   f0: f32 = sum v2
//!   epilogue {
//!     v0: f32 = folded f0.0
//!   }
//!   out0[a0, a1] = v0
//! }
//! scatter (i32[8], f32[8], f32[10]) -> f32[10] {
//!   …
//!   out0[found(r0)] = sum v0 onto in2
//! }
//! group (f32[64, 10]) -> f32[64, 10] {
//!   rows 64
//!   local f32[64]
//!   m0 (in0) -> (local0) = nest (f32[64, 10]) -> f32[64] {
//!     …
//!   }
//!   m1 (in0, local0) -> (out0) = nest (f32[64, 10], f32[64]) -> f32[64, 10] {
//!     …
//!   }
//! }
//! ```
//!
//! Attention, which is neither, is in [`kernel_attention`](super::kernel_attention).

use std::fmt::{self, Display, Formatter};

use super::kernel_attention::print_attention;
use super::value::{FloatText, write_list, write_types};
use crate::kernel::{
    Affine, Axis, Beyond, BufferType, Coord, Group, Kernel, Literal, LoopNest, Passed, Read, Scalar, ScalarOp, Scatter,
};

/// Prints `kernel` from the middle of a line that is indented by `indent` spaces, up to its closing brace.
pub(crate) fn print_kernel(kernel: &Kernel, f: &mut Formatter<'_>, indent: usize) -> fmt::Result {
    match kernel {
        Kernel::Nest(nest) => print_nest(nest, f, indent),
        Kernel::Scatter(scatter) => print_scatter(scatter, f, indent),
        Kernel::Group(group) => print_group(group, f, indent),
        Kernel::Attention(attention) => print_attention("attention", attention, f, indent),
        Kernel::AttentionGrad(attention) => print_attention("attention_grad", attention, f, indent),
    }
}

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        print_kernel(self, f, 0)
    }
}

fn print_nest(nest: &LoopNest, f: &mut Formatter<'_>, indent: usize) -> fmt::Result {
    let inner = indent + 2;
    print_head("nest", &nest.operands, &nest.results, f)?;
    print_axes(&nest.axes, f, inner)?;
    print_reads(&nest.reads, f, inner)?;
    print_scalar("body", &nest.body, f, inner)?;
    for (k, fold) in nest.folds.iter().enumerate() {
        write!(f, "{:inner$}f{k}: {} = {} ", "", fold.dtype, fold.monoid.name())?;
        write_list(f, fold.inputs.iter().map(|r| format!("v{r}")))?;
        writeln!(f)?;
    }
    print_scalar("epilogue", &nest.epilogue, f, inner)?;
    for write in &nest.writes {
        write!(f, "{:inner$}out{}[", "", write.result)?;
        write_list(f, &write.coords)?;
        writeln!(f, "] = v{}", write.value)?;
    }
    write!(f, "{:indent$}}}", "")
}

fn print_scatter(scatter: &Scatter, f: &mut Formatter<'_>, indent: usize) -> fmt::Result {
    let inner = indent + 2;
    print_head("scatter", &scatter.operands, std::slice::from_ref(&scatter.result), f)?;
    print_axes(&scatter.axes, f, inner)?;
    print_reads(&scatter.reads, f, inner)?;
    print_scalar("body", &scatter.body, f, inner)?;
    write!(f, "{:inner$}out0[", "")?;
    write_list(f, &scatter.at)?;
    write!(f, "] = {} v{}", scatter.monoid.name(), scatter.value)?;
    if let Some(operand) = scatter.init {
        write!(f, " onto in{operand}")?;
    }
    write!(f, "\n{:indent$}}}", "")
}

fn print_group(group: &Group, f: &mut Formatter<'_>, indent: usize) -> fmt::Result {
    let inner = indent + 2;
    print_head("group", &group.operands, &group.results, f)?;
    if !group.rows.is_empty() {
        write!(f, "{:inner$}rows ", "")?;
        write_list(f, &group.rows)?;
        writeln!(f)?;
    }
    if !group.locals.is_empty() {
        write!(f, "{:inner$}local ", "")?;
        write_list(f, &group.locals)?;
        writeln!(f)?;
    }
    for (m, member) in group.members.iter().enumerate() {
        write!(f, "{:inner$}m{m} (", "")?;
        write_list(f, &member.reads)?;
        f.write_str(") -> (")?;
        write_list(f, &member.writes)?;
        f.write_str(") = ")?;
        print_nest(&member.nest, f, inner)?;
        writeln!(f)?;
    }
    write!(f, "{:indent$}}}", "")
}

impl Display for Passed {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Passed::Operand(i) => write!(f, "in{i}"),
            Passed::Result(i) => write!(f, "out{i}"),
            Passed::Local(i) => write!(f, "local{i}"),
        }
    }
}

pub(super) fn print_head(
    kind: &str,
    operands: &[BufferType],
    results: &[BufferType],
    f: &mut Formatter<'_>,
) -> fmt::Result {
    write!(f, "{kind} (")?;
    write_list(f, operands)?;
    f.write_str(") -> ")?;
    write_types(f, results)?;
    f.write_str(" {\n")
}

/// A line per run of axes of one kind: `par a0: 64, a1: 10`.
fn print_axes(axes: &[Axis], f: &mut Formatter<'_>, indent: usize) -> fmt::Result {
    let mut first = 0;
    for run in axes.chunk_by(|a, b| a.fold == b.fold) {
        write!(f, "{:indent$}{} ", "", if run[0].fold { "fold" } else { "par" })?;
        write_list(f, run.iter().enumerate().map(|(i, axis)| AxisText(first + i, axis)))?;
        writeln!(f)?;
        first += run.len();
    }
    Ok(())
}

struct AxisText<'a>(usize, &'a Axis);

impl Display for AxisText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Axis { extent, origin, whole, .. } = self.1;
        write!(f, "a{}: {extent}", self.0)?;
        if (*origin, whole) == (0, extent) { Ok(()) } else { write!(f, " of {whole} at {origin}") }
    }
}

fn print_reads(reads: &[Read], f: &mut Formatter<'_>, indent: usize) -> fmt::Result {
    for (k, read) in reads.iter().enumerate() {
        write!(f, "{:indent$}r{k} = in{}[", "", read.operand)?;
        write_list(f, &read.coords)?;
        f.write_str("]")?;
        if let Some(fill) = read.fill {
            write!(f, " else {fill}")?;
        }
        writeln!(f)?;
    }
    Ok(())
}

/// Nothing for an empty program.
fn print_scalar(name: &str, program: &Scalar, f: &mut Formatter<'_>, indent: usize) -> fmt::Result {
    if program.insts.is_empty() {
        return Ok(());
    }
    writeln!(f, "{:indent$}{name} {{", "")?;
    for (i, inst) in program.insts.iter().enumerate() {
        writeln!(f, "{:indent$}  v{i}: {} = {}", "", inst.dtype, inst.op)?;
    }
    writeln!(f, "{:indent$}}}", "")
}

impl Display for ScalarOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ScalarOp::Literal(x) => write!(f, "{x}"),
            ScalarOp::Read(r) => write!(f, "read r{r}"),
            ScalarOp::Valid(r) => write!(f, "valid r{r}"),
            ScalarOp::Index(a) => write!(f, "index a{a}"),
            ScalarOp::Folded { fold, part } => write!(f, "folded f{fold}.{part}"),
            ScalarOp::Philox { key, index, step } => write!(f, "philox {key:#x}, v{index}, v{step}"),
            ScalarOp::Unary(op, a) => write!(f, "{} v{a}", op.name()),
            ScalarOp::Binary(op, a, b) => write!(f, "{} v{a}, v{b}", op.name()),
            ScalarOp::Select(a, b, c) => write!(f, "select v{a}, v{b}, v{c}"),
            ScalarOp::Fma(a, b, c) => write!(f, "fma v{a}, v{b}, v{c}"),
            ScalarOp::Cast(a) => write!(f, "cast v{a}"),
        }
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Int(i) => write!(f, "{i}"),
            Literal::Float(x) => write!(f, "{}", FloatText(*x)),
        }
    }
}

impl Display for Affine {
    /// `2*a0+a1-1`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, (axis, c)) in self.terms.iter().enumerate() {
            f.write_str(match (*c < 0, i > 0) {
                (true, _) => "-",
                (false, true) => "+",
                (false, false) => "",
            })?;
            if c.unsigned_abs() != 1 {
                write!(f, "{}*", c.unsigned_abs())?;
            }
            write!(f, "a{axis}")?;
        }
        match (self.terms.is_empty(), self.offset) {
            (true, offset) => write!(f, "{offset}"),
            (false, 0) => Ok(()),
            (false, offset) => write!(f, "{offset:+}"),
        }
    }
}

impl Display for Coord {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Coord::Affine(index) => write!(f, "{index}"),
            Coord::Holes { index, step } => write!(f, "holes({index})/{step}"),
            Coord::Digit { index, divide, modulo } => write!(f, "digit({index})/{divide} mod {modulo}"),
            Coord::Value { read, beyond: Beyond::Outside } => write!(f, "found(r{read})"),
            Coord::Value { read, beyond: Beyond::Clamp } => write!(f, "clamp(r{read})"),
        }
    }
}
