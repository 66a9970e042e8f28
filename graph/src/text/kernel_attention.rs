//! Attention and its gradient as text: what is not said by the types of operands and results is three lines. `causal` is
//! printed only where it holds.
//!
//! ```text
//! attention (f32[8, 128, 6, 64], f32[8, 128, 6, 64], f32[8, 128, 6, 64]) -> (f32[8, 128, 6, 64], f32[8, 128, 6]) {
//!   rows 1
//!   scale 0.125
//!   causal
//! }
//! ```

use std::fmt::{self, Formatter};

use super::kernel_print::print_head;
use super::lex::{Cursor, ParseError};
use super::value::{parse_buffer_type, parse_literal, parse_types};
use crate::kernel::{Attention, Kernel};

pub(super) fn print_attention(kind: &str, attention: &Attention, f: &mut Formatter<'_>, indent: usize) -> fmt::Result {
    let inner = indent + 2;
    print_head(kind, &attention.operands, &attention.results, f)?;
    writeln!(f, "{:inner$}rows {}", "", attention.rows)?;
    writeln!(f, "{:inner$}scale {}", "", attention.scale)?;
    if attention.causal {
        writeln!(f, "{:inner$}causal", "")?;
    }
    write!(f, "{:indent$}}}", "")
}

pub(super) fn parse_attention(cursor: &mut Cursor<'_>) -> Result<Kernel, ParseError> {
    let gradient = cursor.bump().text == "attention_grad";
    let operands = cursor.list("(", ")", parse_buffer_type)?;
    cursor.expect("->")?;
    let results = parse_types(cursor, parse_buffer_type)?;
    cursor.expect("{")?;
    cursor.expect("rows")?;
    let rows = cursor.int("an axis")?;
    cursor.expect("scale")?;
    let scale = parse_literal(cursor)?;
    let causal = cursor.eat("causal");
    cursor.expect("}")?;
    let attention = Attention { operands, results, rows, causal, scale };
    Ok(if gradient { Kernel::AttentionGrad(attention) } else { Kernel::Attention(attention) })
}
