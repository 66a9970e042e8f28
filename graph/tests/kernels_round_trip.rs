//! Kernels: any sound kernel prints, parses and travels unchanged; whatever else is parsed is refused with its place and
//! never a panic.

#![allow(missing_docs)]

mod common;

use common::Die;
use proptest::prelude::*;
use thalweg_graph::DType;
use thalweg_graph::kernel::build::{Axes, digit, found, holes, index, lit, philox, read, read_or, sum, valid};
use thalweg_graph::kernel::interpret::{Number, Precision, Values, run};
use thalweg_graph::kernel::{
    Affine, Attention, Axis, Beyond, Binary, BufferType, Coord, Fold, Inst, Kernel, Literal, LoopNest, Monoid, Read,
    Scalar, ScalarOp, Scatter, Unary, Write,
};

fn buffer(dtype: DType, shape: &[u64]) -> BufferType {
    BufferType { dtype, shape: shape.to_vec() }
}

/// A nest with every sort of coordinate.
fn window() -> Kernel {
    let mut axes = Axes::new();
    let ([i, j], [k]) = (axes.par([4, 3]), axes.fold([5]));
    let row = read(1, [i]);
    let odd = read_or(0, [found(row), (j * 2 + k - 1i64).into(), holes(i - k, 2)], f64::NEG_INFINITY);
    let even = read(2, [digit(i * 15 + j * 5 + k, 4, 7)]);
    let noise = philox(0x1234_5678_9abc_def0, index(i * 3 + j), index(k)).cast(DType::F32);
    let inside = valid(odd.clone()).cast(DType::F32);
    let value = sum(odd.max(even) * inside + noise) / lit(5.0);
    axes.nest(
        &[buffer(DType::F32, &[9, 7, 2]), buffer(DType::I32, &[4]), buffer(DType::F32, &[7])],
        &[buffer(DType::F32, &[4, 3])],
        [value],
    )
}

fn scatter() -> Kernel {
    let mut axes = Axes::new();
    let [i, j] = axes.par([8, 4]);
    let operands = [buffer(DType::I32, &[8]), buffer(DType::F32, &[8, 4]), buffer(DType::F32, &[10, 4])];
    axes.scatter(&operands, &operands[2], Some(2), Monoid::Sum, [found(read(0, [i])), j.into()], read(1, [i, j]))
}

/// Causal attention with interleaved heads, and its gradient.
fn attention() -> [Kernel; 2] {
    let f32s = |shape: &[u64]| buffer(DType::F32, shape);
    let (query, key, value) = (f32s(&[2, 5, 3, 4]), f32s(&[2, 7, 3, 4]), f32s(&[2, 7, 3, 6]));
    let (out, numbers) = (f32s(&[2, 5, 3, 6]), f32s(&[2, 5, 3]));
    let of = |operands, results| Attention { operands, results, rows: 1, causal: true, scale: Literal::Float(0.5) };
    let matrices = vec![query, key, value];
    let operands = [&matrices[..], &[out.clone(), numbers.clone(), numbers.clone()]].concat();
    [Kernel::Attention(of(matrices.clone(), vec![out, numbers])), Kernel::AttentionGrad(of(operands, matrices))]
}

#[test]
fn attention_prints_as_expected_and_comes_back() {
    let [forward, gradient] = attention();
    insta::assert_snapshot!(forward, @r#"
    attention (f32[2, 5, 3, 4], f32[2, 7, 3, 4], f32[2, 7, 3, 6]) -> (f32[2, 5, 3, 6], f32[2, 5, 3]) {
      rows 1
      scale 0.5
      causal
    }
    "#);
    assert!(gradient.to_string().starts_with("attention_grad (f32[2, 5, 3, 4], "), "{gradient}");
    for mut kernel in [forward, gradient] {
        for causal in [true, false] {
            let (Kernel::Attention(a) | Kernel::AttentionGrad(a)) = &mut kernel else { panic!("it is attention") };
            a.causal = causal;
            assert_eq!(kernel.verify(), Vec::<String>::new());
            assert_eq!(Kernel::parse(&kernel.to_string()), Ok(kernel.clone()));
            assert_eq!(Kernel::from_bytes(&kernel.to_bytes()), Ok(kernel.clone()));
        }
    }
}

#[test]
fn unsound_attention_is_refused() {
    for kernel in attention() {
        let faults = |change: &dyn Fn(&mut Attention)| {
            let mut kernel = kernel.clone();
            let (Kernel::Attention(a) | Kernel::AttentionGrad(a)) = &mut kernel else { panic!("it is attention") };
            change(a);
            kernel.verify().join("; ")
        };
        let refused = |expected: &str, change: &dyn Fn(&mut Attention)| {
            let found = faults(change);
            assert!(found.contains(expected), "{found} should say: {expected}");
        };
        refused("operands and gives", &|a| drop(a.operands.pop()));
        refused("operands and gives", &|a| a.results.push(a.results[0].clone()));
        refused("rows on axis 3", &|a| a.rows = 3);
        refused("rows on axis 65535", &|a| a.rows = u16::MAX);
        refused("rows on axis 1", &|a| a.operands[1].shape.push(1));
        refused("rows on axis 0", &|a| {
            a.rows = 0;
            a.operands.iter_mut().take(3).for_each(|t| t.shape.truncate(1));
        });
        refused("one float type", &|a| a.operands[0].dtype = DType::I32);
        refused("one float type", &|a| a.operands[2].dtype = DType::F64);
        refused("parts differ", &|a| a.operands[1].shape[2] = 4);
        refused("do not fit keys", &|a| a.operands[1].shape[3] = 5);
        refused("or these values", &|a| a.operands[2].shape[1] = 8);
        refused("9 queries in order and only 7 keys", &|a| a.operands[0].shape[1] = 9);
        refused("no finite float", &|a| a.scale = Literal::Float(f64::NAN));
        refused("no finite float", &|a| a.scale = Literal::Int(1));
        refused("should be f32[2, ", &|a| a.results[0].shape[0] = 3);
        refused("should be f32[2, ", &|a| a.results[1].dtype = DType::F64);
        refused("too large", &|a| a.operands[0].shape[0] = 1 << 50);
    }
}

#[test]
fn kernels_print_as_expected() {
    insta::assert_snapshot!(window(), @r#"
    nest (f32[9, 7, 2], i32[4], f32[7]) -> f32[4, 3] {
      par a0: 4, a1: 3
      fold a2: 5
      r0 = in1[a0]
      r1 = in0[found(r0), 2*a1+a2-1, holes(a0-a2)/2] else -inf
      r2 = in2[digit(15*a0+5*a1+a2)/4 mod 7]
      body {
        v0: f32 = read r1
        v1: f32 = read r2
        v2: f32 = max v0, v1
        v3: bool = valid r1
        v4: f32 = cast v3
        v5: f32 = mul v2, v4
        v6: i64 = index a0
        v7: i64 = 3
        v8: i64 = mul v6, v7
        v9: i64 = index a1
        v10: i64 = add v8, v9
        v11: i64 = index a2
        v12: u32 = philox 0x123456789abcdef0, v10, v11
        v13: f32 = cast v12
        v14: f32 = add v5, v13
      }
      f0: f32 = sum v14
      epilogue {
        v0: f32 = folded f0.0
        v1: f32 = 5.0
        v2: f32 = div v0, v1
      }
      out0[a0, a1] = v2
    }
    "#);
    insta::assert_snapshot!(scatter(), @r#"
    scatter (i32[8], f32[8, 4], f32[10, 4]) -> f32[10, 4] {
      par a0: 8, a1: 4
      r0 = in0[a0]
      r1 = in1[a0, a1]
      body {
        v0: f32 = read r1
      }
      out0[found(r0), a1] = sum v0 onto in2
    }
    "#);
}

#[test]
fn a_cut_axis_says_where_it_lies() {
    let mut kernel = scatter();
    let Kernel::Scatter(scatter) = &mut kernel else { panic!("it is a scatter") };
    (scatter.axes[0].origin, scatter.axes[0].whole) = (8, 32);
    let text = kernel.to_string();
    assert!(text.contains("par a0: 8 of 32 at 8, a1: 4"), "{text}");
    assert_eq!(Kernel::parse(&text), Ok(kernel));
}

#[test]
fn mistakes_are_reported_at_their_place() {
    let refused = |from: &str, to: &str| {
        let text = window().to_string();
        assert!(text.contains(from), "{text}");
        Kernel::parse(&text.replacen(from, to, 1)).expect_err("it is refused").to_string()
    };
    insta::assert_snapshot!(refused("fold a2", "fold a3"), @r#"
    line 3, column 8: expected `a2`, the next in order, found `a3`
      |   fold a3: 5
      |        ^
    "#);
    insta::assert_snapshot!(refused("= sum", "= summ"), @r#"
    line 24, column 13: expected a way to combine values, like `sum`, found `summ`
      |   f0: f32 = summ v14
      |             ^
    "#);
    insta::assert_snapshot!(refused("max v", "maxx v"), @r#"
    line 10, column 15: expected a scalar operation, found `maxx`
      |     v2: f32 = maxx v0, v1
      |               ^
    "#);
    insta::assert_snapshot!(refused("mod 7", "7"), @r#"
    line 6, column 35: expected `mod`, found `7`
      |   r2 = in2[digit(15*a0+5*a1+a2)/4 7]
      |                                   ^
    "#);
    insta::assert_snapshot!(refused("a0: 4", "a0: 99999999999999999999"), @r#"
    line 2, column 11: `99999999999999999999` is out of range for an extent
      |   par a0: 99999999999999999999, a1: 3
      |           ^
    "#);
}

/// Draws choices from a list, zeros when it is used up, so that kernels shrink with the list.
struct Draw<'a>(std::slice::Iter<'a, u64>);

impl Draw<'_> {
    fn below(&mut self, n: usize) -> usize {
        (self.0.next().copied().unwrap_or(0) % n as u64) as usize
    }
    fn one<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
    fn literal(&mut self) -> Literal {
        let raw = self.0.next().copied().unwrap_or(0);
        match self.below(4) {
            0 => Literal::Int(self.one(&[0, 1, -1, i64::MIN, i64::MAX])),
            1 => Literal::Float(self.one(&[0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 5e-324])),
            2 => Literal::Int(raw as i64),
            _ => Literal::Float(f64::from_bits(raw)),
        }
    }
    fn shape(&mut self) -> Vec<u64> {
        (0..self.below(4)).map(|_| self.below(6) as u64).collect()
    }
    fn axes(&mut self, fold: bool) -> Vec<Axis> {
        let count = self.below(4);
        let mut axes: Vec<Axis> = (0..count).map(|_| Axis::new(self.below(6) as u64, fold)).collect();
        for axis in &mut axes {
            if self.below(3) == 0 {
                axis.origin = self.below(9) as u64;
                axis.whole = axis.origin + axis.extent + self.below(9) as u64;
            }
        }
        axes
    }
    fn affine(&mut self, axes: &[Axis], signed: bool) -> Affine {
        let factors: &[i64] = if signed { &[-1, 1, 2, -7, 1 << 40] } else { &[1, 3, 1 << 40] };
        let mut terms = Vec::new();
        for axis in 0..axes.len() {
            if self.below(2) == 1 {
                terms.push((axis as u16, self.one(factors)));
            }
        }
        Affine { terms, offset: self.one(if signed { &[0, -1, 5, -(1 << 50)] } else { &[0, 1, 1 << 50] }) }
    }
    /// A coordinate after `reads`, of which the ones in `ints` read integers.
    fn coord(&mut self, axes: &[Axis], ints: &[u16]) -> Coord {
        match self.below(5) {
            0 => Coord::Holes { index: self.affine(axes, true), step: 1 + self.below(1 << 20) as u64 },
            1 => Coord::Digit {
                index: self.affine(axes, false),
                divide: 1 + self.below(1 << 40) as u64,
                modulo: 1 + self.below(1 << 40) as u64,
            },
            2 if !ints.is_empty() => {
                Coord::Value { read: self.one(ints), beyond: self.one(&[Beyond::Clamp, Beyond::Outside]) }
            }
            _ => Coord::Affine(self.affine(axes, true)),
        }
    }
    fn reads(&mut self, operands: &[BufferType], axes: &[Axis]) -> Vec<Read> {
        let mut reads: Vec<Read> = Vec::new();
        for _ in 0..self.below(5) {
            let ints: Vec<u16> = (0..reads.len() as u16)
                .filter(|r| operands[reads[usize::from(*r)].operand as usize].dtype.is_int())
                .collect();
            let operand = self.below(operands.len());
            let coords = (0..operands[operand].rank()).map(|_| self.coord(axes, &ints)).collect();
            reads.push(Read { operand: operand as u16, coords, fill: Some(self.literal()) });
        }
        reads
    }
    /// A program over what `leaves` gives, in which every instruction fits its operands.
    fn scalar(&mut self, leaves: &[Inst]) -> Scalar {
        let mut program = Scalar::default();
        for _ in 0..1 + self.below(12) {
            let of: Vec<DType> = program.insts.iter().map(|i| i.dtype).collect();
            let leaf = of.is_empty() || self.below(4) == 0;
            let inst = if leaf { self.leaf(leaves) } else { self.inst(&of) };
            program.insts.push(inst);
        }
        program
    }
    fn leaf(&mut self, leaves: &[Inst]) -> Inst {
        if leaves.is_empty() || self.below(3) == 0 {
            return Inst { dtype: self.one(&DType::ALL), op: ScalarOp::Literal(self.literal()) };
        }
        self.one(leaves)
    }
    fn inst(&mut self, of: &[DType]) -> Inst {
        let a = self.below(of.len());
        let dtype = of[a];
        let like = |want: DType| (0..of.len()).filter(|r| of[*r] == want).map(|r| r as u16).collect::<Vec<_>>();
        let (twins, bools, longs) = (like(dtype), like(DType::Bool), like(DType::I64));
        let (a, b, c) = (a as u16, self.one(&twins), self.one(&twins));
        let cast = Inst { dtype: self.one(&DType::ALL), op: ScalarOp::Cast(a) };
        match self.below(6) {
            0 => {
                let op = self.one(Unary::ALL);
                let truth = matches!(op, Unary::Not | Unary::IsNan);
                let any = truth || matches!(op, Unary::Neg | Unary::Abs | Unary::Sign | Unary::Floor);
                let unary = Inst { dtype: if truth { DType::Bool } else { dtype }, op: ScalarOp::Unary(op, a) };
                if any || dtype.is_float() { unary } else { cast }
            }
            1 | 2 => {
                let op = self.one(Binary::ALL);
                let bitwise = matches!(op, Binary::And | Binary::Or | Binary::Xor | Binary::Shl | Binary::Shr);
                let dtype_of = if op.compares() { DType::Bool } else { dtype };
                let fits = if dtype.is_float() { !bitwise } else { op != Binary::Pow };
                if fits { Inst { dtype: dtype_of, op: ScalarOp::Binary(op, a, b) } } else { cast }
            }
            3 if !bools.is_empty() => Inst { dtype, op: ScalarOp::Select(self.one(&bools), b, c) },
            4 if dtype.is_float() => Inst { dtype, op: ScalarOp::Fma(a, b, c) },
            5 if !longs.is_empty() => {
                let key = self.0.next().copied().unwrap_or(0);
                let op = ScalarOp::Philox { key, index: self.one(&longs), step: self.one(&longs) };
                Inst { dtype: DType::U32, op }
            }
            _ => cast,
        }
    }
    fn kernel(&mut self) -> Kernel {
        let count = 1 + self.below(3);
        let mut operands: Vec<_> = (0..count).map(|_| buffer(self.one(&DType::ALL), &self.shape())).collect();
        let parallel = self.axes(false);
        let scatters = self.below(3) == 0;
        let folded = if scatters { vec![] } else { self.axes(true) };
        let axes = [&parallel[..], &folded].concat();
        let reads = self.reads(&operands, &axes);
        let mut leaves = Vec::new();
        for (r, read) in (0u16..).zip(&reads) {
            leaves.push(Inst { dtype: operands[read.operand as usize].dtype, op: ScalarOp::Read(r) });
            leaves.push(Inst { dtype: DType::Bool, op: ScalarOp::Valid(r) });
        }
        let indices = |n: usize| (0..n as u16).map(|a| Inst { dtype: DType::I64, op: ScalarOp::Index(a) });
        leaves.extend(indices(axes.len()));
        let body = self.scalar(&leaves);
        if scatters {
            let value = self.below(body.insts.len()) as u16;
            let result = buffer(body.dtype(value), &self.shape());
            let at = result.shape.iter().map(|_| self.coord(&axes, &[])).collect();
            let init = (self.below(2) == 0).then_some(operands.len() as u16);
            operands.extend(init.map(|_| result.clone()));
            let monoid = self.one(&[Monoid::Sum, Monoid::Prod, Monoid::Max, Monoid::Min]);
            return Kernel::Scatter(Scatter { operands, result, axes, reads, body, value, at, monoid, init });
        }
        let (folds, mut leaves) = self.folds(&body);
        leaves.extend(indices(parallel.len()));
        if folded.is_empty() {
            let plain = (0u16..).zip(&reads);
            leaves.extend(
                plain.map(|(r, read)| Inst { dtype: operands[read.operand as usize].dtype, op: ScalarOp::Read(r) }),
            );
        }
        let epilogue = self.scalar(&leaves);
        let shape: Vec<u64> = parallel.iter().map(|a| a.extent).collect();
        let coords: Vec<Affine> = (0..parallel.len() as u16).map(Affine::axis).collect();
        let (mut results, mut writes) = (Vec::new(), Vec::new());
        for result in 0..1 + self.below(3) as u16 {
            let value = self.below(epilogue.insts.len()) as u16;
            results.push(buffer(epilogue.dtype(value), &shape));
            writes.push(Write { result, value, coords: coords.clone() });
        }
        Kernel::Nest(LoopNest { operands, results, axes, reads, body, folds, epilogue, writes })
    }
    /// Folds of registers of `body`, and the instructions that look at them.
    fn folds(&mut self, body: &Scalar) -> (Vec<Fold>, Vec<Inst>) {
        let (mut folds, mut leaves) = (Vec::new(), Vec::new());
        let longs: Vec<u16> = (0..body.insts.len() as u16).filter(|r| body.dtype(*r) == DType::I64).collect();
        for _ in 0..self.below(4) {
            let value = self.below(body.insts.len()) as u16;
            let (dtype, monoid) = (body.dtype(value), self.one(Monoid::ALL));
            let fits = match monoid {
                Monoid::Any | Monoid::All => dtype == DType::Bool,
                Monoid::MeanM2 | Monoid::LogSumExp => dtype.is_float(),
                Monoid::ArgMax | Monoid::ArgMin => !longs.is_empty(),
                _ => true,
            };
            if fits {
                let mut inputs = vec![value];
                if monoid.inputs() == 2 {
                    inputs.push(self.one(&longs));
                }
                for part in 0..monoid.parts() {
                    let op = ScalarOp::Folded { fold: folds.len() as u16, part: part as u16 };
                    leaves.push(Inst { dtype: monoid.part_dtype(part, dtype), op });
                }
                folds.push(Fold { monoid, inputs, dtype });
            }
        }
        (folds, leaves)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sound_kernel_round_trips(choices in prop::collection::vec(any::<u64>(), 0..300)) {
        let kernel = Draw(choices.iter()).kernel();
        let text = kernel.to_string();
        prop_assert_eq!(kernel.verify(), Vec::<String>::new(), "{}", text);
        prop_assert_eq!(Kernel::parse(&text), Ok(kernel.clone()), "{}", text);
        prop_assert_eq!(Kernel::from_bytes(&kernel.to_bytes()), Ok(kernel), "{}", text);
    }
}

fn kernels() -> [Kernel; 4] {
    let [forward, gradient] = attention();
    [window(), scatter(), forward, gradient]
}

#[test]
fn mutated_text_never_panics_and_is_refused_with_its_place() {
    let mut die = Die(3);
    for text in kernels().map(|k| k.to_string()) {
        let cuts = text.char_indices().map(|(i, _)| text[..i].to_string());
        let mutants: Vec<String> = cuts.chain((0..20_000).map(|_| die.mutate_text(&text))).collect();
        for mutant in &mutants {
            match Kernel::parse(mutant) {
                Ok(kernel) => {
                    kernel.verify();
                    assert_eq!(Kernel::parse(&kernel.to_string()), Ok(kernel), "{mutant}");
                }
                Err(error) => {
                    assert!((1..=mutant.matches('\n').count() + 1).contains(&error.line), "{mutant}\n{error}");
                    assert!(error.column >= 1 && !error.message.is_empty(), "{mutant}\n{error}");
                }
            }
        }
    }
}

#[test]
fn mutated_bytes_never_panic_and_only_canonical_ones_are_accepted() {
    let mut die = Die(4);
    for bytes in kernels().map(|k| k.to_bytes()) {
        let cuts = (0..bytes.len()).map(|n| bytes[..n].to_vec());
        let mutants: Vec<Vec<u8>> = cuts.chain((0..20_000).map(|_| die.mutate_bytes(&bytes))).collect();
        for mutant in &mutants {
            match Kernel::from_bytes(mutant) {
                Ok(kernel) => assert_eq!(&kernel.to_bytes(), mutant),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

#[test]
fn a_read_of_its_own_value_is_refused_without_recursion() {
    let text =
        "nest (i32[2]) -> i32[2] { par a0: 2 r0 = in0[found(r0)] else 0 epilogue { v0: i32 = read r0 } out0[a0] = v0 }";
    let kernel = Kernel::parse(text).expect("it parses");
    assert!(!kernel.verify().is_empty());
    assert!(Kernel::from_bytes(&kernel.to_bytes()).is_err());
}

/// `x − Σ x`, row by row.
const GROUP: &str = "group (f32[8, 4]) -> f32[8, 4] {
  rows 8
  local f32[8]
  m0 (in0) -> (local0) = nest (f32[8, 4]) -> f32[8] {
    par a0: 8
    fold a1: 4
    r0 = in0[a0, a1]
    body {
      v0: f32 = read r0
    }
    f0: f32 = sum v0
    epilogue {
      v0: f32 = folded f0.0
    }
    out0[a0] = v0
  }
  m1 (in0, local0) -> (out0) = nest (f32[8, 4], f32[8]) -> f32[8, 4] {
    par a0: 8, a1: 4
    r0 = in0[a0, a1]
    r1 = in1[a0]
    epilogue {
      v0: f32 = read r0
      v1: f32 = read r1
      v2: f32 = sub v0, v1
    }
    out0[a0, a1] = v2
  }
}";

#[test]
fn a_group_comes_back_and_means_its_members_in_turn() {
    let group = Kernel::parse(GROUP).expect("it is a group");
    assert_eq!(group.to_string(), GROUP);
    assert_eq!(group.verify(), Vec::<String>::new());
    assert!(group.may_write_in_place(0, 0), "every row is read before it is written");
    let data = (0..32).map(|i| Number::Float(f64::from(i))).collect();
    let x = Values { ty: group.operands()[0].clone(), data };
    let result = run(&group, &[&x], Precision::Exact).remove(0);
    assert_eq!(result.data[..5], [-6.0, -5.0, -4.0, -3.0, -18.0].map(Number::Float));
}

#[test]
fn a_group_whose_rows_meet_is_refused() {
    let faults = |changes: &[(&str, &str)]| {
        let text = changes.iter().fold(GROUP.to_string(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        });
        Kernel::parse(&text).expect("it reads").verify()
    };
    // A sum of columns is whole after all rows only; a row read upside down is another's; so is what is written so.
    let columns = [("local f32[8]", "local f32[8, 4]"), ("(in0) -> (local0)", "(in0) -> (local1)")];
    assert!(!faults(&columns).is_empty());
    assert_eq!(faults(&[("r1 = in1[a0]", "r1 = in1[-a0+7]")]), ["member m1 reads local0 beyond its row"]);
    assert_eq!(faults(&[("r1 = in1[a0]", "r1 = in1[0]")]), ["member m1 reads local0 beyond its row"]);
    let others = faults(&[("rows 8", "rows 4")]);
    assert_eq!(others[0], "member m0 does not lead with the shared axes");
    let early = faults(&[("(in0) -> (local0)", "(in0) -> (local1)"), ("local f32[8]", "local f32[8], f32[8]")]);
    assert_eq!(early, ["member m1 reads local0 before it is written"]);
    let twice = faults(&[("(in0, local0) -> (out0)", "(in0, local0) -> (in0)")]);
    assert_eq!(twice, ["member m1 writes in0, which is an operand or written already", "no member writes out0"]);
    // Whoever reads another row than it writes, before or while it is written, must not find it written over.
    let turns =
        [("in0[a0, a1]\n    body", "in0[-a0+7, a1]\n    body"), ("in0[a0, a1]\n    r1", "in0[-a0+7, a1]\n    r1")];
    for (from, to) in turns {
        assert!(GROUP.contains(from));
        let turned = Kernel::parse(&GROUP.replacen(from, to, 1)).expect("it reads");
        assert_eq!((turned.verify(), turned.may_write_in_place(0, 0)), (vec![], false));
    }
}
