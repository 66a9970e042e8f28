//! Three ops that exist only here, graphs built of them, and a die for mutations. Not the real ops: the text and the
//! bytes must not depend on any.

#![allow(dead_code, missing_docs, unreachable_pub)] // Each test uses its part.

use std::any::Any;
use std::sync::Arc;

use thalweg_graph::attrs::{AttrList, Attrs};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::op::GradientOf;
use thalweg_graph::types::Types;
use thalweg_graph::{
    Accuracy, Bindings, Builder, DType, Dim, DynOp, Graph, Init, Mode, OpError, Registry, Schema, Shape, Site,
    TensorType, Value, VarKind, attrs,
};

attrs! {
    /// Two tensors mixed: the type of the first. Has an attribute of every sort.
    pub struct Mix {
        pad: [u64; 2] = [0, 0], rate: f64 = 1.0, stream: u64 = 0, label: String = String::new(), flip: bool = false,
        to: DType = DType::F32, axes: Vec<i64> = vec![], shape: Shape = Shape::scalar(),
    }
}
attrs! {
    /// Largest of each row and where it is.
    pub struct Top {}
}
attrs! {
    /// Any number of tensors joined along their first axis.
    pub struct Join {}
}

fn infer_mix(operands: &[TensorType]) -> Result<Types, OpError> {
    Ok(vec![operands[0].clone()])
}
fn infer_top(operands: &[TensorType]) -> Result<Types, OpError> {
    thalweg_graph::require!(operands[0].rank() == 2, "top.C1", "needs a matrix, got {}", operands[0]);
    let rows = operands[0].shape[0].clone();
    Ok(vec![operands[0].dtype.of([rows.clone()]), DType::I32.of([rows])])
}
fn infer_join(operands: &[TensorType]) -> Result<Types, OpError> {
    let mut shape = operands[0].shape.clone();
    for other in &operands[1..] {
        let joined = shape.first().zip(other.shape.first()).and_then(|(a, b)| a.plus(b));
        shape.0[0] = joined.ok_or_else(|| OpError::new("join.C1", "cannot be joined"))?;
    }
    Ok(vec![operands[0].dtype.of(shape)])
}

macro_rules! test_op {
    ($op:ident, $name:literal, $operands:expr, $results:expr, $infer:ident) => {
        impl DynOp for $op {
            fn schema(&self) -> &'static Schema {
                const SCHEMA: Schema =
                    Schema { name: $name, operands: $operands, results: $results, accuracy: Accuracy::Exact };
                &SCHEMA
            }
            fn attrs(&self) -> AttrList {
                Attrs::attrs(self)
            }
            fn infer(&self, operands: &[TensorType]) -> Result<Types, OpError> {
                $infer(operands)
            }
            fn lower(&self, _: &[BufferType], _: &[BufferType]) -> Option<Kernel> {
                None
            }
            fn expand(&self, _: &Builder, _: &[Value], _: Mode) -> Option<Vec<Value>> {
                None
            }
            fn gradient(&self, _: &Builder, _: GradientOf<'_>) -> Option<Vec<Option<Value>>> {
                None
            }
            fn bind(&self, bindings: &Bindings) -> Option<Arc<dyn DynOp>> {
                Some(Arc::new(Attrs::bind(self, bindings)?))
            }
            fn as_any(&self) -> &dyn Any {
                self
            }
        }
    };
}
test_op!(Mix, "mix", &["lhs", "rhs"], &["out"], infer_mix);
test_op!(Top, "top", &["rows"], &["values", "indices"], infer_top);
test_op!(Join, "join", &["first", "others*"], &["out"], infer_join);

/// The ops of these tests.
pub fn registry() -> Registry {
    let mut registry = Registry::structural();
    registry.add("mix", |attrs, _| Ok(Arc::new(Mix::from_attrs("mix", attrs)?)));
    registry.add("top", |attrs, _| Ok(Arc::new(Top::from_attrs("top", attrs)?)));
    registry.add("join", |attrs, _| Ok(Arc::new(Join::from_attrs("join", attrs)?)));
    registry
}

/// A small training graph with every feature of the text.
pub fn digits() -> Graph {
    let at = |line| Site { file: "examples/digits: a.rs".into(), line, column: 9 };
    let g = Builder::new("digits");
    g.set_seed(7);
    let batch = g.dim("batch", 1, 512, at(1));
    let image = g.input("image", DType::F32.of([batch.clone(), Dim::Fixed(8)]), at(2));
    let (hidden, weight) = g.scope("body", || {
        let init = Init::Uniform { low: -0.25, high: 0.25 };
        let weight = g.variable("weight", DType::F32.of([8, 8]), VarKind::Param, init, "adamw", at(3)).expect("fresh");
        let read = g.read(weight, at(3));
        let mix = Mix { pad: [1, 1], rate: 0.5, flip: true, shape: Shape::from([batch.clone()]), ..Mix::default() };
        let mixed = g.apply(Arc::new(mix), &[image, read], at(4))[0];
        g.name(mixed, "hid\"den\n");
        (mixed, weight)
    });
    let joined = g.apply(Arc::new(Join {}), &[hidden, image, image], at(5))[0];
    let soft = g.derived(&g.node(hidden), Some("softmax".into()), || g.apply(Arc::new(Top {}), &[joined], at(5)));
    let step = g.variable("step", DType::I64.of(()), VarKind::Counter, Init::Constant(-0.0), "", at(6)).expect("fresh");
    let read = g.read(weight, at(7));
    let new = g.apply(Arc::new(Mix { to: DType::BF16, ..Mix::default() }), &[read, image], at(7))[0];
    let now = g.read(step, at(8));
    g.program(
        "train",
        vec![("loss".into(), soft[0]), ("where".into(), soft[1])],
        vec![(weight, new), (step, now)],
        at(9),
    );
    g.program("predict", vec![("hidden".into(), hidden)], vec![], at(10));
    g.finish().expect("this is a sound graph")
}

/// Repeatable noise.
pub struct Die(pub u64);

impl Die {
    /// A number below `n`, which is not 0.
    pub fn roll(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % n as u64) as usize
    }
    /// Text with a few characters or stretches removed, repeated, replaced or put in.
    pub fn mutate_text(&mut self, text: &str) -> String {
        const BITS: &[&str] = &[
            "{",
            "}",
            "[",
            "]",
            "(",
            ")",
            ",",
            ":",
            "=",
            "->",
            "..=",
            "\"",
            "\\",
            "%0",
            "%99999999999",
            "$0",
            "a0",
            "v1",
            "f0.",
            "r0",
            "in9",
            "out0",
            "-",
            "/",
            "//",
            "\n",
            "0x",
            "18446744073709551616",
            "1e999",
            "nan(",
            "é",
            "\u{0}",
            "batch",
            "*",
            "holes(",
            "else",
            "from",
            "@",
            "program",
            "return",
        ];
        let mut chars: Vec<char> = text.chars().collect();
        for _ in 0..1 + self.roll(3) {
            let at = self.roll(chars.len().max(1)).min(chars.len());
            let end = (at + 1 + self.roll(6)).min(chars.len());
            let piece: Vec<char> = match self.roll(4) {
                0 => vec![],
                1 => BITS[self.roll(BITS.len())].chars().collect(),
                2 => chars[at..end].iter().chain(&chars[at..end]).copied().collect(),
                _ => {
                    let from = self.roll(chars.len().max(1)).min(chars.len());
                    chars[from..(from + 8).min(chars.len())].to_vec()
                }
            };
            chars.splice(at..if self.roll(2) == 0 { at } else { end }, piece);
        }
        chars.into_iter().collect()
    }
    /// Bytes with a few flipped, removed or put in.
    pub fn mutate_bytes(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..1 + self.roll(3) {
            // The frame's head is rarely of interest.
            let at = (if self.roll(20) == 0 { 0 } else { 12 } + self.roll(out.len().max(1)))
                .min(out.len().saturating_sub(1));
            match self.roll(4) {
                0 => out[at] ^= 1 << self.roll(8),
                1 => out[at] = [0, 1, 0x7f, 0x80, 0xff][self.roll(5)],
                2 => out.insert(at, self.roll(256) as u8),
                _ if out.len() > 1 => drop(out.remove(at)),
                _ => {}
            }
        }
        out
    }
}
