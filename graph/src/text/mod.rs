//! One text format, for people, goldens and diffs: graphs, kernels and plans print, and what was printed parses back to the
//! same value. Not a serialization that happens to be readable: every line carries its type, defaults are left out, and
//! a mistake is reported with its line and column.
//!
//! White space and line ends mean nothing; `//` starts a comment. Names are quoted with Rust's escapes. All of it can be
//! embedded: printers take an indentation, parsers take the cursor wherever it stands.

mod graph_parse;
mod graph_print;
mod kernel_attention;
mod kernel_parse;
mod kernel_print;
pub(crate) mod lex;
mod plan_parse;
mod plan_print;
pub(crate) mod value;

#[allow(unused_imports)] // The entrances for the texts that embed these.
pub(crate) use {
    graph_parse::parse_graph, graph_print::print_graph, kernel_parse::parse_kernel, kernel_print::print_kernel,
};

pub use lex::{Excerpt, ParseError};
