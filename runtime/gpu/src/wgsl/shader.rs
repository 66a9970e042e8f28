//! One shader in the making: its lines, its parameters, its bindings; and what comes of it. Parameters are bound when the
//! text is done, so that the same text serves any numbers.

use std::fmt::Write;

use super::prelude;
use super::shares_words;
use thalweg_graph::types::DType;

/// Threads of a workgroup.
pub(crate) const LANES: u32 = 64;

/// The bindings that a buffer is read and written through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The first.
    pub(crate) slot: usize,
    /// How many: more than one where a buffer is larger than a binding.
    pub(crate) windows: usize,
}

impl Default for Seen {
    fn default() -> Self {
        Self { slot: 0, windows: 1 }
    }
}

/// Where an operand or result is found: which buffer of the launch, in which bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Operands first, then results, then the workspace.
    pub(crate) buffer: usize,
    /// The bindings.
    pub(crate) seen: Seen,
    /// Bytes from the buffer's start.
    pub(crate) within: u64,
    /// An element that the bindings show, if there are any: the first, unless a launch is a part of one.
    pub(crate) home: i64,
    /// The array of workgroup memory that it is instead.
    pub(crate) kept: Option<usize>,
}

/// A number that a shader reads at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Param {
    /// Known from the kernel.
    Number(i32),
    /// Where a place begins in its binding, counted in elements of so many bytes.
    Start {
        /// Which place.
        place: Place,
        /// Bytes of an element.
        unit: u32,
    },
    /// Words from one binding of a buffer to the next.
    Stride,
}

/// One dispatch of one shader.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dispatch {
    /// The shader.
    pub(crate) text: String,
    /// What it reads as `p`.
    pub(crate) params: Vec<Param>,
    /// How many workgroups.
    pub(crate) groups: u64,
    /// By slot: whether it is used, and whether its words are shared by writes.
    pub(crate) slots: Vec<Slot>,
}

impl Dispatch {
    /// How many bindings of storage it has.
    pub(crate) fn bindings(&self) -> usize {
        self.slots.iter().map(|s| usize::from(s.words) + usize::from(s.parts)).sum()
    }
}

/// How a shader uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Slot {
    /// Read or written word by word.
    pub(crate) words: bool,
    /// Written in parts of words, atomically.
    pub(crate) parts: bool,
}

/// A shader that is being written.
pub(crate) struct Shader {
    lines: String,
    depth: usize,
    names: usize,
    params: Vec<Param>,
    /// The parameter that is asked for next, where the same text is written again.
    again: Option<usize>,
    slots: Vec<Slot>,
    /// Module-scope declarations.
    shared: String,
}

impl Default for Shader {
    fn default() -> Self {
        let (lines, shared) = (String::new(), String::new());
        // What `opaque` hides values behind.
        Self { lines, depth: 0, names: 0, params: vec![Param::Number(0)], again: None, slots: vec![], shared }
    }
}

impl Shader {
    /// Appends a line.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) {
        let indent = 2 + 2 * self.depth;
        let _ = writeln!(self.lines, "{:indent$}{}", "", text.as_ref());
    }
    /// Appends a line that opens a block.
    pub(crate) fn open(&mut self, text: impl AsRef<str>) {
        self.line(format!("{} {{", text.as_ref()));
        self.depth += 1;
    }
    /// Closes the innermost block.
    pub(crate) fn close(&mut self) {
        self.depth -= 1;
        self.line("}");
    }
    /// A fresh name.
    pub(crate) fn name(&mut self, stem: &str) -> String {
        self.names += 1;
        // Not `i32`, which is taken.
        format!("{stem}_{}", self.names)
    }
    /// Names the value of an expression.
    pub(crate) fn bind(&mut self, stem: &str, value: impl AsRef<str>) -> String {
        let name = self.name(stem);
        self.line(format!("let {name} = {};", value.as_ref()));
        name
    }
    /// A variable of the workgroup.
    pub(crate) fn workgroup(&mut self, name: &str, ty: &str) {
        let _ = writeln!(self.shared, "var<workgroup> {name}: {ty};");
    }
    /// A number from 0 to 2³¹ − 1 or below zero: 0 and 1 are structure, the others are parameters.
    pub(crate) fn number(&mut self, value: i64) -> String {
        match value {
            0 | 1 => value.to_string(),
            _ => self.param(Param::Number(value as i32)),
        }
    }
    /// Calls `write` as often as asked for, to write the same text for other points: all share the parameters of the first,
    /// so that compilers see that they are the same. (That two numbers are equal by chance is nothing to a text.)
    pub(crate) fn repeat<E>(
        &mut self,
        times: usize,
        mut write: impl FnMut(&mut Self, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let first = self.params.len();
        for i in 0..times {
            self.again = (i > 0).then_some(first);
            write(self, i)?;
        }
        self.again = None;
        Ok(())
    }
    /// A parameter's value.
    pub(crate) fn param(&mut self, param: Param) -> String {
        let i = self.again.filter(|i| self.params.get(*i) == Some(&param)).unwrap_or_else(|| {
            self.params.push(param);
            self.params.len() - 1
        });
        self.again = self.again.map(|_| i + 1);
        format!("p[{}].{}", i / 4, ["x", "y", "z", "w"][i % 4])
    }
    /// The name of a binding, to read words or write whole ones.
    pub(crate) fn words(&mut self, slot: usize) -> String {
        self.slot(slot).words = true;
        format!("m{slot}")
    }
    /// The name of a binding, to write parts of words.
    pub(crate) fn parts(&mut self, slot: usize) -> String {
        self.slot(slot).parts = true;
        format!("n{slot}")
    }
    fn slot(&mut self, slot: usize) -> &mut Slot {
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, Slot::default());
        }
        &mut self.slots[slot]
    }
    /// The first element of a place, as an expression.
    pub(crate) fn start(&mut self, place: Place, dtype: DType) -> String {
        let unit = if shares_words(dtype) { dtype.size_bytes() as u32 } else { 4 };
        self.param(Param::Start { place, unit })
    }
    /// The whole, to be run by `groups` workgroups.
    pub(crate) fn finish(self, groups: u64) -> Dispatch {
        let mut text = String::new();
        let vectors = self.params.len().div_ceil(4).max(1);
        let _ = writeln!(text, "@group(0) @binding(0) var<uniform> p: array<vec4<i32>, {vectors}>;");
        for (i, slot) in self.slots.iter().enumerate() {
            let (at, parts) = (1 + 2 * i, 2 + 2 * i);
            if slot.words {
                let _ = writeln!(text, "@group(0) @binding({at}) var<storage, read_write> m{i}: array<u32>;");
            }
            if slot.parts {
                let _ =
                    writeln!(text, "@group(0) @binding({parts}) var<storage, read_write> n{i}: array<atomic<u32>>;");
            }
        }
        text.push_str(&self.shared);
        prelude::append_used(&self.lines, &mut text);
        let _ = writeln!(text, "\n@compute @workgroup_size({LANES})");
        text.push_str("fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,\n");
        text.push_str("        @builtin(local_invocation_index) lane: u32) {\n");
        text.push_str("  let at = (group.z * groups.y + group.y) * groups.x + group.x;\n");
        text.push_str(&self.lines);
        text.push_str("}\n");
        Dispatch { text, params: self.params, groups, slots: self.slots }
    }
}
