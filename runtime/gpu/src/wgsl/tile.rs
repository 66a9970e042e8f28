//! The text of a product: a workgroup makes a tile of the result. Step by step of depth it gathers a strip of either
//! operand into workgroup memory, through the nest's own reads, so that windows, borders and holes are nothing special;
//! each thread then multiplies its rows with its columns in registers. Sums are f32 and added in the order of depth.
//!
//! Strips are vectors of four rows that lie a quarter of the tile apart: neighbouring threads load, keep and store
//! neighbouring rows, and workgroup memory is read and written four at a time.

use thalweg_graph::kernel::{LoopNest, Reg};

use super::Unsupported;
use super::expr::{Repr, Value};
use super::index::{Found, Frame, countable, decode, read_padded};
use super::nest::{frame_of, store_all};
use super::product::{DEPTH, Product};
use super::scalar::program;
use super::shader::{Dispatch, LANES, Param, Place, Shader};
use thalweg_graph::types::DType;

/// A contraction as dispatches: tiles, and then, where depth was cut, the sums of its parts.
pub(super) fn tiles(
    product: &Product,
    nest: &LoopNest,
    reads: &[Place],
    writes: &[Place],
    workspace: Place,
) -> Result<Vec<Dispatch>, Unsupported> {
    countable(&nest.operands)?;
    countable(&nest.results)?;
    let cut = product.parts[0] > 1;
    let mut all = vec![of_tiles(product, nest, reads, writes, cut.then_some(workspace))?];
    if cut {
        all.push(of_parts(product, nest, reads, writes, workspace)?);
    }
    Ok(all)
}

/// A float that no compiler knows: −0, which nothing that is added to it is changed by, or 0.
fn zero(sh: &mut Shader, negative: bool) -> String {
    let bits = if negative { i32::MIN } else { 0 };
    let param = sh.param(Param::Number(bits));
    sh.bind("z", format!("bitcast<f32>({param})"))
}

/// Where the next steps of depth lie along each axis, when there are several: made by a few threads while products are
/// added, since every load would divide for it otherwise.
struct Steps {
    /// By axis of depth; none: a step is the index.
    tables: Vec<String>,
}

impl Steps {
    fn new(sh: &mut Shader, product: &Product) -> Self {
        let several = product.depth.len() > 1;
        let tables: Vec<String> = product.depth.iter().filter(|_| several).map(|_| sh.name("steps")).collect();
        tables.iter().for_each(|t| sh.workgroup(t, &format!("array<i32, {DEPTH}>")));
        Self { tables }
    }
    /// Writes down the steps from `k0` on. What lies beyond the last is not looked at.
    fn fill(&self, sh: &mut Shader, frame: &mut Frame<'_>, product: &Product, k0: &str) {
        if self.tables.is_empty() {
            return;
        }
        sh.open(format!("if (lane < {DEPTH}u)"));
        decode(sh, &format!("(u32({k0}) + lane)"), &product.domain.axes, &product.depth, &mut frame.at);
        for (axis, table) in product.depth.iter().zip(&self.tables) {
            sh.line(format!("{table}[lane] = {};", frame.at[*axis]));
        }
        sh.close();
    }
    /// The indices of step `kk` of those that were written down, which is step `k`.
    fn look_up(&self, sh: &mut Shader, frame: &mut Frame<'_>, product: &Product, [kk, k]: [&str; 2]) {
        match &product.depth[..] {
            [axis] => frame.at[*axis] = k.into(),
            axes => {
                for (axis, table) in axes.iter().zip(&self.tables) {
                    frame.at[*axis] = sh.bind("a", format!("{table}[{kk}]"));
                }
            }
        }
    }
}

/// One side's strip: how threads load it.
struct Strip {
    side: usize,
    /// Vectors of four rows, and vectors between the beginnings of steps of depth: one more, so that neighbouring steps
    /// are in other banks.
    vectors: u64,
    stride: u64,
    memory: String,
    /// The first row, and how many there are in all.
    first: String,
    count: String,
    /// What stands for rows and steps beyond the last: products of both are −0.
    pad: String,
    along_depth: bool,
    /// Where rows are looked up, by axis, when they are not decoded by the thread that loads them.
    tables: Vec<String>,
    /// By row of the thread's vector: its index along each axis, and whether it is one.
    rows: Vec<(Vec<String>, String)>,
}

impl Strip {
    fn new(sh: &mut Shader, product: &Product, nest: &LoopNest, side: usize, first: &str) -> Self {
        let size = product.tile.size(side);
        let (vectors, stride) = (size / 4, size / 4 + 1);
        let memory = sh.name("strip");
        sh.workgroup(&memory, &format!("array<vec4<f32>, {}>", stride * DEPTH));
        let count = sh.number(product.points(&product.sides[side]) as i64);
        let pad = zero(sh, side == 0);
        let along_depth = product.loads_along_depth(nest, side);
        let mut strip = Self {
            side,
            vectors,
            stride,
            memory,
            first: first.into(),
            count,
            pad,
            along_depth,
            tables: vec![],
            rows: vec![],
        };
        let axes = &product.sides[side];
        let mut at = vec!["0".to_string(); nest.axes.len()];
        if !along_depth {
            let q = sh.bind("q", format!("i32(lane % {vectors}u)"));
            let rows = sh.repeat(4, |sh, e| {
                let row = sh.bind("row", format!("{first} + {q} + {}", vectors * e as u64));
                decode(sh, &format!("u32({row})"), &product.domain.axes, axes, &mut at);
                strip.rows.push((at.clone(), format!("({row} < {})", strip.count)));
                Ok::<(), std::convert::Infallible>(())
            });
            let Ok(()) = rows;
        } else if axes.len() > 1 {
            sh.open(format!("if (lane < {size}u)"));
            decode(sh, &format!("(u32({first}) + lane)"), &product.domain.axes, axes, &mut at);
            for axis in axes {
                let table = sh.name("table");
                sh.workgroup(&table, &format!("array<i32, {size}>"));
                sh.line(format!("{table}[lane] = {};", at[*axis]));
                strip.tables.push(table);
            }
            sh.close();
        }
        strip
    }

    /// Loads the strip from step `k0` on, of steps before `end`.
    fn load(
        &self,
        sh: &mut Shader,
        frame: &mut Frame<'_>,
        product: &Product,
        nest: &LoopNest,
        steps: &Steps,
        [k0, end]: [&str; 2],
    ) -> Result<(), Unsupported> {
        let Self { vectors, stride, memory, first, count, .. } = self;
        let passes = vectors * DEPTH / u64::from(LANES);
        let (s, axes) = (sh.name("s"), &product.sides[self.side]);
        let each_pass = format!("for (var {s} = 0; {s} < {passes}; {s}++)");
        let depth = |sh: &mut Shader, frame: &mut Frame<'_>, kk: &str| {
            let k = sh.bind("k", format!("{k0} + {kk}"));
            steps.look_up(sh, frame, product, [kk, &k]);
            sh.bind("ok", format!("{k} < {end}"))
        };
        let (q, kk, within);
        if self.along_depth {
            kk = sh.bind("kk", format!("i32(lane % {DEPTH}u)"));
            within = depth(sh, frame, &kk);
            sh.open(each_pass);
            q = sh.bind("q", format!("i32(lane / {DEPTH}u) + {s} * {}", u64::from(LANES) / DEPTH));
        } else {
            sh.open(each_pass);
            kk = sh.bind("kk", format!("i32(lane / {vectors}u) + {s} * {}", u64::from(LANES) / vectors));
            within = depth(sh, frame, &kk);
            q = format!("i32(lane % {vectors}u)");
        }
        let mut four = vec![];
        sh.repeat(4, |sh, e| {
            let wanted = if self.along_depth {
                let local = sh.bind("row", format!("{q} + {}", vectors * e as u64));
                match (&axes[..], &self.tables[..]) {
                    ([axis], _) => frame.at[*axis] = sh.bind("a", format!("{first} + {local}")),
                    (_, tables) => {
                        for (axis, table) in axes.iter().zip(tables) {
                            frame.at[*axis] = sh.bind("a", format!("{table}[{local}]"));
                        }
                    }
                }
                sh.bind("ok", format!("{within} & ({first} + {local} < {count})"))
            } else {
                let (at, is_row) = &self.rows[e];
                axes.iter().for_each(|a| frame.at[*a].clone_from(&at[*a]));
                sh.bind("ok", format!("{within} & {is_row}"))
            };
            let (read, reg) = product.factors[self.side];
            let value = read_padded(sh, frame, read, &wanted, &self.pad)?;
            frame.found[read] = Some(Found { value, inside: "true".into() });
            four.push(program(sh, frame, &nest.body, &[reg], &[])?.remove(0).text);
            frame.found[read] = None;
            Ok(())
        })?;
        sh.line(format!("{memory}[{kk} * {stride} + {q}] = vec4<f32>({});", four.join(", ")));
        sh.close();
        Ok(())
    }
}

fn of_tiles(
    product: &Product,
    nest: &LoopNest,
    reads: &[Place],
    writes: &[Place],
    partial: Option<Place>,
) -> Result<Dispatch, Unsupported> {
    let mut sh = Shader::default();
    let mut frame = frame_of(nest, &product.domain, reads);
    let tile = product.tile;
    let counts = [0, 1].map(|s| product.points(&product.sides[s]).div_ceil(tile.size(s)));
    let groups = counts[0] * counts[1] * product.parts[0] * product.points(&product.matrices);
    let count = sh.number(groups as i64);
    sh.line(format!("if (at >= u32({count})) {{ return; }}"));
    let mut rest = "at".to_string();
    let mut next = |sh: &mut Shader, count: u64, name: &str| {
        if count == 1 {
            return sh.bind(name, "0u");
        }
        let count = sh.number(count as i64);
        let (digit, above) = (sh.bind(name, format!("{rest} % u32({count})")), format!("{rest} / u32({count})"));
        rest = sh.bind("rest", above);
        digit
    };
    let column = next(&mut sh, counts[1], "tile");
    let row = next(&mut sh, counts[0], "tile");
    let part = next(&mut sh, product.parts[0], "part");
    let firsts = [(row, 0), (column, 1)].map(|(t, s)| sh.bind("first", format!("i32({t}) * {}", tile.size(s))));
    decode(&mut sh, &rest, &product.domain.axes, &product.matrices, &mut frame.at);
    let steps = sh.number(product.points(&product.depth) as i64);
    let (begin, end) = match partial {
        None => ("0".to_string(), steps),
        Some(_) => {
            let each = sh.number(product.parts[1] as i64);
            let begin = sh.bind("begin", format!("i32({part}) * {each}"));
            let end = sh.bind("end", format!("min({begin} + {each}, {steps})"));
            (begin, end)
        }
    };
    let [across, down] = [tile.threads[1], tile.threads[0]];
    let down_at = sh.bind("y", format!("i32(lane / {across}u)"));
    let across_at = sh.bind("x", format!("i32(lane % {across}u)"));
    let strips = [0, 1].map(|s| Strip::new(&mut sh, product, nest, s, &firsts[s]));
    let listed = Steps::new(&mut sh, product);
    listed.fill(&mut sh, &mut frame, product, &begin);
    if strips.iter().any(|s| !s.tables.is_empty()) || !listed.tables.is_empty() {
        sh.line("workgroupBarrier();");
    }

    let [rows, vectors] = [tile.each[0], tile.each[1] / 4];
    let nothing = zero(&mut sh, true);
    let sums: Vec<Vec<String>> =
        (0..rows).map(|i| (0..vectors).map(|j| format!("c{i}_{j}")).collect::<Vec<_>>()).collect();
    sums.iter().flatten().for_each(|c| sh.line(format!("var {c} = vec4<f32>({nothing});")));
    sh.open(format!("for (var k0 = {begin}; k0 < {end}; k0 += {DEPTH})"));
    for strip in &strips {
        strip.load(&mut sh, &mut frame, product, nest, &listed, ["k0", &end])?;
    }
    sh.line("workgroupBarrier();");
    listed.fill(&mut sh, &mut frame, product, &format!("(k0 + {DEPTH})"));
    sh.open(format!("for (var k = 0; k < {DEPTH}; k++)"));
    let vector = |sh: &mut Shader, strip: &Strip, at: &str, by: u64| {
        sh.bind("v", format!("{}[k * {} + {at} + {by}]", strip.memory, strip.stride))
    };
    let a: Vec<_> = (0..rows / 4).map(|i| vector(&mut sh, &strips[0], &down_at, i * down)).collect();
    let b: Vec<_> = (0..vectors).map(|j| vector(&mut sh, &strips[1], &across_at, j * across)).collect();
    for (i, row) in sums.iter().enumerate() {
        for (c, b) in row.iter().zip(&b) {
            sh.line(format!("{c} = fma(vec4<f32>({}.{}), {b}, {c});", a[i / 4], ["x", "y", "z", "w"][i % 4]));
        }
    }
    sh.close();
    sh.line("workgroupBarrier();");
    sh.close();

    // What becomes of the sums is written once, for any of the thread's elements.
    let i = sh.name("i");
    sh.open(format!("for (var {i} = 0; {i} < {rows}; {i}++)"));
    let row = format!("{} + {down_at} + ({i} >> 2u) * {down} + ({i} & 3) * {}", firsts[0], strips[0].vectors);
    let row = sh.bind("row", row);
    sh.open(format!("if ({row} < {})", strips[0].count));
    let chosen: Vec<_> = (0..vectors).map(|_| sh.name("s")).collect();
    chosen.iter().for_each(|s| sh.line(format!("var {s}: vec4<f32>;")));
    sh.open(format!("switch {i}"));
    for (n, row) in sums.iter().enumerate() {
        let set: Vec<_> = chosen.iter().zip(row).map(|(s, c)| format!("{s} = {c};")).collect();
        let case = if n + 1 == sums.len() { "default".to_string() } else { format!("case {n}") };
        sh.line(format!("{case}: {{ {} }}", set.join(" ")));
    }
    sh.close();
    decode(&mut sh, &format!("u32({row})"), &product.domain.axes, &product.sides[0], &mut frame.at);
    let j = sh.name("j");
    sh.open(format!("for (var {j} = 0; {j} < {}; {j}++)", tile.each[1]));
    let column = format!("{} + {across_at} + ({j} >> 2u) * {across} + ({j} & 3) * {}", firsts[1], strips[1].vectors);
    let column = sh.bind("column", column);
    sh.open(format!("if ({column} < {})", strips[1].count));
    let sum = match &chosen[..] {
        [one] => format!("{one}[{j} & 3]"),
        all => format!("select({}[{j} & 3], {}[{j} & 3], {j} > 3)", all[0], all[1]),
    };
    let sum = sh.bind("sum", sum);
    match partial {
        Some(place) => {
            let elements = sh.number(product.elements() as i64);
            let at = format!("((i32({rest}) * {} + {row}) * {} + {column})", strips[0].count, strips[1].count);
            let index = sh.bind("w", format!("i32({part}) * {elements} + {at}"));
            super::memory::store(&mut sh, place, DType::F32, &index, &Value::new(sum, Repr::F32));
        }
        None => {
            decode(&mut sh, &format!("u32({column})"), &product.domain.axes, &product.sides[1], &mut frame.at);
            finish(&mut sh, &mut frame, product, nest, writes, &sum)?;
        }
    }
    (0..4).for_each(|_| sh.close());
    Ok(sh.finish(groups))
}

/// The sums of the parts of depth, a thread per element.
fn of_parts(
    product: &Product,
    nest: &LoopNest,
    reads: &[Place],
    writes: &[Place],
    partial: Place,
) -> Result<Dispatch, Unsupported> {
    let mut sh = Shader::default();
    let mut frame = frame_of(nest, &product.domain, reads);
    let thread = sh.bind("t", format!("at * {LANES}u + lane"));
    let count = sh.number(product.elements() as i64);
    sh.line(format!("if ({thread} >= u32({count})) {{ return; }}"));
    let (nothing, parts) = (zero(&mut sh, true), sh.number(product.parts[0] as i64));
    sh.line(format!("var sum = {nothing};"));
    sh.open(format!("for (var part = 0; part < {parts}; part++)"));
    let one = super::memory::load(&mut sh, partial, DType::F32, &format!("part * {count} + i32({thread})"));
    sh.line(format!("sum = sum + {};", one.text));
    sh.close();
    let axes: Vec<usize> =
        [&product.matrices, &product.sides[0], &product.sides[1]].into_iter().flatten().copied().collect();
    decode(&mut sh, &thread, &product.domain.axes, &axes, &mut frame.at);
    finish(&mut sh, &mut frame, product, nest, writes, "sum")?;
    Ok(sh.finish(product.elements().div_ceil(u64::from(LANES))))
}

/// What becomes of a sum.
fn finish(
    sh: &mut Shader,
    frame: &mut Frame<'_>,
    product: &Product,
    nest: &LoopNest,
    writes: &[Place],
    sum: &str,
) -> Result<(), Unsupported> {
    let sum = Value::rounded(sum.into(), Repr::of(product.dtype));
    let sum = Value::new(sh.bind("sum", &sum.text), sum.repr);
    product.depth.iter().for_each(|a| frame.at[*a] = "0".into());
    let wanted: Vec<Reg> = nest.writes.iter().map(|w| w.value).collect();
    let values = program(sh, frame, &nest.epilogue, &wanted, &[vec![sum]])?;
    let writes: Vec<Vec<Place>> = writes.iter().map(|w| vec![*w]).collect();
    store_all(sh, nest, &product.domain, &frame.at, &writes, &values);
    Ok(())
}
