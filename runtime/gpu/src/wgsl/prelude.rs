//! The functions that shaders call, of which each gets only what it names: compilers' time grows with the text.

use std::fmt::Write;
use std::sync::OnceLock;

/// A function, by name, and those that it calls.
struct Function {
    name: &'static str,
    text: &'static str,
    calls: Vec<usize>,
}

fn functions() -> &'static [Function] {
    static ALL: OnceLock<Vec<Function>> = OnceLock::new();
    ALL.get_or_init(|| {
        let files = [include_str!("prelude.wgsl"), include_str!("pairs.wgsl")];
        let blocks = files.iter().flat_map(|f| f.split("\n\n")).filter_map(|block| {
            let text = &block[if block.starts_with("fn ") { 0 } else { block.find("\nfn ")? + 1 }..];
            let name = text.strip_prefix("fn ")?.split('(').next()?;
            Some((name, text.trim_end()))
        });
        let all: Vec<_> = blocks.collect();
        let of = |(i, (name, text)): (usize, &(&'static str, &'static str))| {
            let calls = (0..all.len()).filter(|j| *j != i && is_named(all[*j].0, text)).collect();
            Function { name, text, calls }
        };
        all.iter().enumerate().map(of).collect()
    })
}

/// Whether `text` calls the function.
fn is_named(name: &str, text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(name)
        .any(|(at, _)| text[at + name.len()..].starts_with('(') && !text[..at].chars().next_back().is_some_and(word))
}

/// Appends every function that `code` calls, and those that they call, once each and callees first.
pub(super) fn append_used(code: &str, to: &mut String) {
    let all = functions();
    let mut done = vec![false; all.len()];
    fn visit(i: usize, all: &[Function], done: &mut [bool], to: &mut String) {
        if !std::mem::replace(&mut done[i], true) {
            all[i].calls.iter().for_each(|j| visit(*j, all, done, to));
            let _ = writeln!(to, "\n{}", all[i].text);
        }
    }
    for i in 0..all.len() {
        if is_named(all[i].name, code) {
            visit(i, all, &mut done, to);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_shader_gets_what_it_names_and_what_that_calls_and_nothing_else() {
        let mut text = String::new();
        super::append_used("let y = sin_of(x); // not exp", &mut text);
        let names: Vec<_> = text.lines().filter_map(|l| l.strip_prefix("fn ")?.split('(').next()).collect();
        let place = |name| names.iter().position(|n| *n == name);
        assert!(place("mul_high") < place("u64_mul") && place("u64_mul") < place("sin_of"), "{names:?}");
        assert_eq!(names.iter().filter(|n| **n == "from_bits").count(), 1);
        assert!(!names.contains(&"exp_of"), "{names:?}");
    }
}
