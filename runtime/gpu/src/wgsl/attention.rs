//! Attention and its gradient, block by block: a workgroup takes a query (or, for the gradients of keys and values, a key)
//! and goes through the other side as many at a time as it has threads. Each thread makes one weight; then each adds
//! up its own columns over all weights of the block. No matrix of queries by keys is ever in memory, and every sum has one
//! order.

use thalweg_graph::kernel::{Attention, BufferType};
use thalweg_graph::types::DType;

use super::Unsupported;
use super::expr::{Repr, Value};
use super::index::countable;
use super::memory;
use super::nest::points;
use super::shader::{Dispatch, LANES, Param, Place, Shader};

/// A matrix or a column of numbers: one row per query or per key.
#[derive(Clone)]
struct Rows {
    place: Place,
    ty: BufferType,
    /// How many rows, of how many elements: expressions.
    count: String,
    columns: String,
    /// As a number.
    width: usize,
}

/// A shader for one side of attention, and what all of them know.
struct Side<'a> {
    sh: Shader,
    attention: &'a Attention,
    interleaved: String,
    queries: String,
    keys: String,
    scale: String,
}

impl<'a> Side<'a> {
    /// Opens a shader with a workgroup per row of a part.
    fn open(attention: &'a Attention, rows: usize) -> Result<Self, Unsupported> {
        if attention.operands[0].dtype == DType::F64 {
            return Err(Unsupported::F64);
        }
        countable(&attention.operands)?;
        countable(&attention.results)?;
        let mut sh = Shader::default();
        let groups = points([attention.parts() as u64, rows as u64].into_iter())?;
        let numbers = |k: usize| attention.matrix(&attention.operands[k]).count as i64;
        let query = &attention.operands[0];
        let outer_shape = BufferType { dtype: query.dtype, shape: query.shape[..query.rank() - 1].to_vec() };
        let interleaved = attention.numbers(&outer_shape).stride();
        let count = sh.number(groups as i64);
        sh.line(format!("if (at >= u32({count})) {{ return; }}"));
        let rows = sh.number(rows as i64);
        sh.line(format!("let row = i32(at % u32({rows}));"));
        sh.line(format!("let part = i32(at / u32({rows}));"));
        let name = |sh: &mut Shader, n: i64| {
            let n = sh.number(n);
            sh.bind("n", format!("i32({n})"))
        };
        let (queries, keys) = (name(&mut sh, numbers(0)), name(&mut sh, numbers(1)));
        let interleaved = name(&mut sh, interleaved as i64);
        let scale = sh.param(Param::Number((attention.scale() as f32).to_bits() as i32));
        let scale = sh.bind("scale", format!("bitcast<f32>({scale})"));
        sh.line(format!("let outer = part / {interleaved};"));
        sh.line(format!("let inner = part % {interleaved};"));
        Ok(Self { sh, attention, interleaved, queries, keys, scale })
    }
    /// An operand or a result; `of_keys`: with a row per key.
    fn rows(&mut self, ty: &BufferType, place: Place, of_keys: bool, numbers: bool) -> Rows {
        let count = if of_keys { self.keys.clone() } else { self.queries.clone() };
        let width = if numbers { 1 } else { self.attention.matrix(ty).columns };
        let columns = self.sh.number(width as i64);
        let columns = self.sh.bind("n", format!("i32({columns})"));
        Rows { place, ty: ty.clone(), count, columns, width }
    }
    /// The first element of a row.
    fn row(&mut self, of: &Rows, row: &str) -> String {
        let Rows { count, columns, .. } = of;
        let interleaved = &self.interleaved;
        self.sh.bind("s", format!("((outer * {count} + {row}) * {interleaved} + inner) * {columns}"))
    }
    /// An element, as an `f32`.
    fn load(&mut self, of: &Rows, index: &str) -> String {
        memory::load(&mut self.sh, of.place, of.ty.dtype, index).text
    }
    fn store(&mut self, to: &Rows, index: &str, value: &str) {
        memory::store(&mut self.sh, to.place, to.ty.dtype, index, &Value::new(value, Repr::F32))
    }
    /// The product of row `i` of one and row `j` of another.
    fn dot(&mut self, a: &Rows, i: &str, b: &Rows, j: &str) -> String {
        let (a0, b0) = (self.row(a, i), self.row(b, j));
        let (sum, c) = (self.sh.name("d"), self.sh.name("c"));
        self.sh.line(format!("var {sum} = 0.0;"));
        self.sh.open(format!("for (var {c} = 0; {c} < {}; {c}++)", a.columns));
        let (x, y) = (self.load(a, &format!("{a0} + {c}")), self.load(b, &format!("{b0} + {c}")));
        self.sh.line(format!("{sum} = {sum} + {x} * {y};"));
        self.sh.close();
        sum
    }
    /// How many keys the query of this workgroup sees.
    fn seen(&mut self, query: &str) -> String {
        let (queries, keys) = (&self.queries, &self.keys);
        let seen = if self.attention.causal { format!("{query} + 1 + {keys} - {queries}") } else { keys.clone() };
        self.sh.bind("seen", seen)
    }
    /// Declares a sum per column that this thread looks after.
    fn sums(&mut self, of: &Rows) -> Vec<String> {
        let each = of.width.div_ceil(LANES as usize);
        let names: Vec<_> = (0..each).map(|_| self.sh.name("x")).collect();
        names.iter().for_each(|x| self.sh.line(format!("var {x} = 0.0;")));
        names
    }
    /// Adds `weight` times row `row` to the sums.
    fn add(&mut self, sums: &[String], weight: &str, of: &Rows, row: &str) {
        let start = self.row(of, row);
        for (k, sum) in sums.iter().enumerate() {
            let column = format!("i32(lane) + {}", k * LANES as usize);
            self.sh.open(format!("if ({column} < {})", of.columns));
            let x = self.load(of, &format!("{start} + {column}"));
            self.sh.line(format!("{sum} = {sum} + {weight} * {x};"));
            self.sh.close();
        }
    }
    /// Writes the sums, each as `value` says, to row `row`.
    fn write(&mut self, sums: &[String], to: &Rows, row: &str, value: impl Fn(&str) -> String) {
        let start = self.row(to, row);
        for (k, sum) in sums.iter().enumerate() {
            let column = format!("i32(lane) + {}", k * LANES as usize);
            self.sh.open(format!("if ({column} < {})", to.columns));
            self.store(to, &format!("{start} + {column}"), &value(sum));
            self.sh.close();
        }
    }
    /// Combines a number of every thread by halves; all of them get the result.
    fn across(&mut self, mine: &str, join: impl Fn(&str, &str) -> String) -> String {
        let g = self.sh.name("g");
        self.sh.workgroup(&g, &format!("array<f32, {LANES}>"));
        self.sh.line(format!("{g}[lane] = {mine};"));
        self.sh.line("workgroupBarrier();");
        self.sh.open(format!("for (var half = {}u; half > 0u; half = half >> 1u)", LANES / 2));
        let joined = join(&format!("{g}[lane]"), &format!("{g}[lane + half]"));
        self.sh.line(format!("if (lane < half) {{ {g}[lane] = {joined}; }}"));
        self.sh.line("workgroupBarrier();");
        self.sh.close();
        self.sh.bind("all", format!("{g}[0]"))
    }
    /// Opens the loop over blocks of `first..end`: the block's start, and this thread's own row of it.
    fn blocks(&mut self, first: &str, end: &str) -> (String, String) {
        let b = self.sh.name("b");
        self.sh.open(format!("for (var {b} = {first}; {b} < {end}; {b} += {LANES})"));
        let own = self.sh.bind("j", format!("{b} + i32(lane)"));
        (b, own)
    }
    /// Opens the loop over the rows of a block, when all threads have put their weights.
    fn rows_of_block(&mut self, block: &str, end: &str) -> (String, String) {
        self.sh.line("workgroupBarrier();");
        let k = self.sh.name("k");
        self.sh.open(format!("for (var {k} = 0; {k} < min({LANES}, {end} - {block}); {k}++)"));
        let row = self.sh.bind("j", format!("{block} + {k}"));
        (k, row)
    }
    /// Closes both loops; weights may then be put again.
    fn end_block(&mut self) {
        self.sh.close();
        self.sh.line("workgroupBarrier();");
        self.sh.close();
    }
    fn finish(self, rows: usize) -> Vec<Dispatch> {
        let groups = self.attention.parts() * rows;
        if groups == 0 { vec![] } else { vec![self.sh.finish(groups as u64)] }
    }
}

/// `out` and `logsumexp`.
pub(super) fn forward(attention: &Attention, reads: &[Place], writes: &[Place]) -> Result<Vec<Dispatch>, Unsupported> {
    let queries = attention.matrix(&attention.operands[0]).count;
    let mut side = Side::open(attention, queries)?;
    let [query, key, value] = [0, 1, 2].map(|k| side.rows(&attention.operands[k], reads[k], k > 0, false));
    let out = side.rows(&attention.results[0], writes[0], false, false);
    let logsumexp = side.rows(&attention.results[1], writes[1], false, true);
    let seen = side.seen("row");

    let top = side.sh.name("top");
    side.sh.line(format!("var {top} = from_bits({}u);", f32::NEG_INFINITY.to_bits()));
    let (_, own) = side.blocks("0", &seen);
    side.sh.open(format!("if ({own} < {seen})"));
    let dot = side.dot(&query, "row", &key, &own);
    side.sh.line(format!("{top} = max_nan({top}, {dot} * {});", side.scale));
    side.sh.close();
    side.sh.close();
    let top = side.across(&top, |a, b| format!("max_nan({a}, {b})"));
    // Where all scores are −∞ any base will do, but −∞ less itself is none.
    let base = side.sh.bind("base", format!("select({top}, 0.0, bitcast<u32>({top}) == 0xff800000u)"));

    side.sh.workgroup("weights", &format!("array<f32, {LANES}>"));
    let sum = side.sh.name("sum");
    side.sh.line(format!("var {sum} = 0.0;"));
    let sums = side.sums(&value);
    let (block, own) = side.blocks("0", &seen);
    side.sh.open(format!("if ({own} < {seen})"));
    let dot = side.dot(&query, "row", &key, &own);
    let weight = side.sh.bind("w", format!("exp_of({dot} * {} - {base})", side.scale));
    side.sh.line(format!("{sum} = {sum} + {weight};"));
    side.sh.line(format!("weights[lane] = {weight};"));
    side.sh.close();
    let (k, row) = side.rows_of_block(&block, &seen);
    side.add(&sums, &format!("weights[{k}]"), &value, &row);
    side.end_block();
    let total = side.across(&sum, |a, b| format!("{a} + {b}"));
    side.write(&sums, &out, "row", |x| format!("select({x} / {total}, 0.0, {total} == 0.0)"));
    let at = side.row(&logsumexp, "row");
    side.sh.open("if (lane == 0u)");
    side.store(&logsumexp, &at, &format!("({base} + log_of({total}))"));
    side.sh.close();
    Ok(side.finish(queries))
}

/// `d_query`, then `d_key` and `d_value`.
pub(super) fn backward(attention: &Attention, reads: &[Place], writes: &[Place]) -> Result<Vec<Dispatch>, Unsupported> {
    let [queries, keys] = [0, 1].map(|k| attention.matrix(&attention.operands[k]).count);
    let mut all = vec![];
    for of_keys in [false, true] {
        let rows = if of_keys { keys } else { queries };
        let mut side = Side::open(attention, rows)?;
        let sh = |side: &mut Side<'_>, k: usize| side.rows(&attention.operands[k], reads[k], k == 1 || k == 2, k > 3);
        let [query, key, value, d_out, logsumexp, delta] = [0, 1, 2, 3, 4, 5].map(|k| sh(&mut side, k));
        side.sh.workgroup("scores", &format!("array<f32, {LANES}>"));
        side.sh.workgroup("weights", &format!("array<f32, {LANES}>"));
        let (first, end) = if of_keys {
            // The queries that see this key.
            let first = format!("max(0, row + {} - {})", side.queries, side.keys);
            (if attention.causal { side.sh.bind("first", first) } else { "0".into() }, side.queries.clone())
        } else {
            ("0".into(), side.seen("row"))
        };
        let (to_key, to_value) = if of_keys { (side.sums(&key), side.sums(&value)) } else { (vec![], vec![]) };
        let to_query = if of_keys { vec![] } else { side.sums(&query) };
        let (block, own) = side.blocks(&first, &end);
        side.sh.open(format!("if ({own} < {end})"));
        let (i, j) = if of_keys { (own.as_str(), "row") } else { ("row", own.as_str()) };
        let dot = side.dot(&query, i, &key, j);
        let (l, d) = (side.row(&logsumexp, i), side.row(&delta, i));
        let (l, d) = (side.load(&logsumexp, &l), side.load(&delta, &d));
        let weight = side.sh.bind("w", format!("exp_of({dot} * {} - {l})", side.scale));
        let d_weight = side.dot(&d_out, i, &value, j);
        side.sh.line(format!("weights[lane] = {weight};"));
        side.sh.line(format!("scores[lane] = {weight} * ({d_weight} - {d});"));
        side.sh.close();
        let (k, row) = side.rows_of_block(&block, &end);
        if of_keys {
            side.add(&to_key, &format!("scores[{k}]"), &query, &row);
            side.add(&to_value, &format!("weights[{k}]"), &d_out, &row);
        } else {
            side.add(&to_query, &format!("scores[{k}]"), &key, &row);
        }
        side.end_block();
        let scale = side.scale.clone();
        for (sums, k) in [(to_query, 0), (to_key, 1), (to_value, 2)].iter().filter(|(s, _)| !s.is_empty()) {
            let to = side.rows(&attention.results[*k], writes[*k], *k > 0, false);
            side.write(sums, &to, "row", |x| if *k < 2 { format!("({x} * {scale})") } else { x.to_string() });
        }
        all.extend(side.finish(rows));
    }
    Ok(all)
}
