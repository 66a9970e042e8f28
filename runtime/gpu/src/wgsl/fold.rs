//! What folds keep and how it combines: with one more point, and with what other threads have kept. The tree of a fold
//! depends on the nest alone.

use thalweg_graph::kernel::interpret::{Number, neutral};
use thalweg_graph::kernel::{Binary, Fold, Literal, Monoid};
use thalweg_graph::types::DType;

use super::Unsupported;
use super::expr::{Repr, Value, literal};
use super::scalar::binary;
use super::shader::{LANES, Shader};

/// The state of one fold, in variables.
pub(super) struct State<'a> {
    fold: &'a Fold,
    /// One per part.
    pub(super) parts: Vec<Value>,
}

impl<'a> State<'a> {
    /// Declares the neutral state.
    pub(super) fn declare(sh: &mut Shader, fold: &'a Fold) -> Result<Self, Unsupported> {
        let plain = matches!(fold.monoid, Monoid::Sum | Monoid::Prod | Monoid::Max | Monoid::Min);
        if fold.dtype == DType::F64 && !plain {
            return Err(Unsupported::F64);
        }
        let mut parts = vec![];
        for (part, number) in neutral(fold.monoid, fold.dtype).into_iter().enumerate() {
            let dtype = fold.monoid.part_dtype(part, fold.dtype);
            let repr = Repr::of(dtype);
            let number = match number {
                Number::Int(i) => Literal::Int(i),
                Number::Float(x) => Literal::Float(x),
            };
            let start = in_repr(&literal(sh, number, dtype), repr);
            let name = sh.name("f");
            sh.line(format!("var {name}: {} = {start};", repr.wgsl()));
            parts.push(Value::new(name, repr));
        }
        Ok(Self { fold, parts })
    }
    fn set(&self, sh: &mut Shader, part: usize, value: &Value) {
        let to = &self.parts[part];
        sh.line(format!("{} = {};", to.text, in_repr(value, to.repr)));
    }
    fn keep(&self, text: String) -> Value {
        Value::rounded(text, self.parts[0].repr)
    }

    /// Takes in one more point.
    pub(super) fn take(&self, sh: &mut Shader, inputs: &[Value]) {
        let (s, x) = (&self.parts, &inputs[0]);
        match self.fold.monoid {
            Monoid::MeanM2 => {
                let [mean, m2, n] = [0, 1, 2].map(|i| s[i].text.clone());
                let x = &x.text;
                let count = sh.bind("n", self.keep(format!("({n} + 1.0)")).text);
                let delta = sh.bind("d", self.keep(format!("({x} - {mean})")).text);
                let step = self.keep(format!("({delta} / {count})")).text;
                let moved = sh.bind("d", self.keep(format!("({mean} + {step})")).text);
                let left = self.keep(format!("({x} - {moved})")).text;
                let square = self.keep(format!("({delta} * {left})")).text;
                let m2 = self.keep(format!("({m2} + {square})"));
                self.set(sh, 1, &m2);
                self.set(sh, 0, &self.keep(moved));
                self.set(sh, 2, &self.keep(count));
            }
            Monoid::LogSumExp => {
                let one = Value::new("1.0", s[0].repr);
                self.join_exponentials(sh, &[x.clone(), one]);
            }
            _ => self.join(sh, inputs),
        }
    }

    /// Takes in what another thread has kept, part by part.
    pub(super) fn join(&self, sh: &mut Shader, other: &[Value]) {
        let s = &self.parts;
        let op = match self.fold.monoid {
            Monoid::Sum => Binary::Add,
            Monoid::Prod => Binary::Mul,
            Monoid::Max => Binary::Max,
            Monoid::Min => Binary::Min,
            Monoid::Any => Binary::Or,
            Monoid::All => Binary::And,
            Monoid::ArgMax | Monoid::ArgMin => return self.join_extremes(sh, other),
            Monoid::LogSumExp => return self.join_exponentials(sh, other),
            Monoid::MeanM2 => return self.join_moments(sh, other),
        };
        // Of pairs there is a sum, a product and an order.
        if let Ok(joined) = binary(op, &s[0], &other[0]) {
            self.set(sh, 0, &joined);
        }
    }

    fn join_extremes(&self, sh: &mut Shader, other: &[Value]) {
        let (best, at, x, i) = (&self.parts[0], &self.parts[1], &other[0], &other[1]);
        let (less, more) = if self.fold.monoid == Monoid::ArgMax { (best, x) } else { (x, best) };
        let before = format!("i64_lt({}, {})", i.wide(), at.wide());
        let order = |op, a: &Value, b: &Value| binary(op, a, b).map_or_else(|_| "false".into(), |v| v.text);
        let (better, same) = (order(Binary::Lt, less, more), order(Binary::Eq, best, x));
        let (better, same) = if best.repr.is_float() {
            let (b, x) = (format!("is_nan({})", best.text), format!("is_nan({})", x.text));
            (format!("(!{b} & ({x} | {better}))"), format!("({same} | ({b} & {x}))"))
        } else {
            (better, same)
        };
        sh.open(format!("if ({better} | ({same} & {before}))"));
        self.set(sh, 0, x);
        self.set(sh, 1, i);
        sh.close();
    }

    /// (maximum, Σ exp(x − maximum)).
    fn join_exponentials(&self, sh: &mut Shader, other: &[Value]) {
        let [m, s] = [0, 1].map(|i| self.parts[i].text.clone());
        let (x, t) = (&other[0].text, &other[1].text);
        let top = sh.bind("d", format!("max_nan({m}, {x})"));
        let part = |y: &str, sum: &str| {
            let exp = self.keep(format!("exp_of({})", self.keep(format!("({y} - {top})")).text)).text;
            // Nothing was seen where the sum is 0, and equals need no exponential, which would be that of ∞ − ∞.
            format!("select({exp}, 1.0, ({y} == {top}) | ({sum} == 0.0))")
        };
        let mine = self.keep(format!("({s} * {})", part(&m, &s))).text;
        let theirs = self.keep(format!("({t} * {})", part(x, t))).text;
        let sum = sh.bind("d", self.keep(format!("({mine} + {theirs})")).text);
        self.set(sh, 1, &self.keep(sum));
        self.set(sh, 0, &Value::new(top, self.parts[0].repr));
    }

    /// (mean, Σ squared deviations, count), by Chan's merge.
    fn join_moments(&self, sh: &mut Shader, other: &[Value]) {
        let [mean, m2, n] = [0, 1, 2].map(|i| self.parts[i].text.clone());
        let [mean_b, m2_b, n_b] = [0, 1, 2].map(|i| other[i].text.clone());
        sh.open(format!("if ({n_b} > 0.0)"));
        let count = sh.bind("n", self.keep(format!("({n} + {n_b})")).text);
        let delta = sh.bind("d", self.keep(format!("({mean_b} - {mean})")).text);
        let share = sh.bind("d", self.keep(format!("({n_b} / {count})")).text);
        let square = self.keep(format!("({delta} * {delta} * {n} * {share})")).text;
        self.set(sh, 1, &self.keep(format!("({m2} + {m2_b} + {square})")));
        self.set(sh, 0, &self.keep(format!("({mean} + {delta} * {share})")));
        self.set(sh, 2, &self.keep(count));
        sh.close();
    }

    /// Bytes of workgroup memory that [`State::across`] takes.
    pub(super) fn shared_bytes(fold: &Fold) -> u32 {
        let part = |i| fold.monoid.part_dtype(i, fold.dtype).size_bytes().max(4) as u32;
        LANES * (0..fold.monoid.parts()).map(part).sum::<u32>()
    }

    /// Combines what all threads of the workgroup have kept, by halves; the first one then has it.
    pub(super) fn across(sh: &mut Shader, states: &[Self]) {
        let mut shared = vec![];
        for state in states {
            let mut names = vec![];
            for part in &state.parts {
                let name = sh.name("g");
                let ty = if part.repr == Repr::Bool { "u32" } else { part.repr.wgsl() };
                sh.workgroup(&name, &format!("array<{ty}, {LANES}>"));
                names.push(name);
            }
            shared.push(names);
        }
        let put = |sh: &mut Shader| {
            for (state, names) in states.iter().zip(&shared) {
                for (part, name) in state.parts.iter().zip(names) {
                    let text = &part.text;
                    let text = if part.repr == Repr::Bool { format!("select(0u, 1u, {text})") } else { text.clone() };
                    sh.line(format!("{name}[lane] = {text};"));
                }
            }
        };
        put(sh);
        sh.line("workgroupBarrier();");
        sh.open(format!("for (var half = {}u; half > 0u; half = half >> 1u)", LANES / 2));
        sh.open("if (lane < half)");
        for (state, names) in states.iter().zip(&shared) {
            let mut other = vec![];
            for (part, name) in state.parts.iter().zip(names) {
                let text = format!("{name}[lane + half]");
                let text = if part.repr == Repr::Bool { format!("({text} != 0u)") } else { text };
                other.push(Value::new(sh.bind("o", text), part.repr));
            }
            state.join(sh, &other);
        }
        put(sh);
        sh.close();
        sh.line("workgroupBarrier();");
        sh.close();
    }
}

/// A value in the type that a variable has: i64s are two words there.
fn in_repr(value: &Value, repr: Repr) -> String {
    if repr == Repr::Wide { value.wide() } else { value.text.clone() }
}
