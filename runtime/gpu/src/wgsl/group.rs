//! Groups in one dispatch: a workgroup takes a block of rows through all members in turn. What passes between members stays
//! in workgroup memory; a result that a later member reads is written to both. Where that does not fit, members are
//! dispatches one after the other.

use std::collections::BTreeMap;

use thalweg_graph::kernel::{Group, LoopNest, Passed};
use thalweg_graph::types::DType;

use super::Unsupported;
use super::domain::Domain;
use super::expr::Repr;
use super::fold::State;
use super::index::{countable, decode};
use super::nest::{SHARED_BYTES, at_point, frame_of, points};
use super::shader::{Dispatch, LANES, Place, Shader};

/// Folds this long are shared by the threads of a workgroup, where there are fewer of them than threads.
const LONG_FOLD: u64 = LANES as u64;
/// Points of a block that keep a workgroup busy for a while.
const BLOCK_POINTS: u64 = 256;
/// The most rows of a block.
const MOST_ROWS: u64 = 32;

/// How a group runs in one dispatch.
pub(super) struct Blocks {
    /// Rows of a block.
    rows: u64,
    /// What is kept in workgroup memory, and elements of a row of it.
    kept: BTreeMap<Passed, (DType, u64)>,
}

/// Elements of workgroup memory for `n`: eight sizes per power of two, so that few texts differ in them alone.
fn room(n: u64) -> u64 {
    n.next_multiple_of((n.next_power_of_two() / 16).max(1))
}

fn element_bytes(dtype: DType) -> u64 {
    dtype.size_bytes().max(4) as u64
}

/// Points of the parallel axes behind the rows, and of the folds.
fn inside(nest: &LoopNest, rows: usize) -> [u64; 2] {
    let points = |axes: &[thalweg_graph::kernel::Axis]| axes.iter().fold(1u64, |n, a| n.saturating_mul(a.extent));
    let parallel = nest.parallel_axes();
    [points(&nest.axes[rows..parallel]), points(&nest.axes[parallel..])]
}

impl Blocks {
    /// `None` where what passes does not fit.
    pub(super) fn of(group: &Group) -> Option<Self> {
        // A part of a group keeps as much of a row as the whole.
        let leading = &group.members.first()?.nest.axes[..group.rows.len()];
        let all_rows = leading.iter().try_fold(1u64, |n, a| n.checked_mul(a.whole))?.max(1);
        let mut kept = BTreeMap::new();
        for passed in group.members.iter().flat_map(|m| &m.reads).filter(|p| !matches!(p, Passed::Operand(_))) {
            let ty = group.ty(*passed)?;
            if ty.dtype == DType::F64 {
                return None;
            }
            kept.insert(*passed, (ty.dtype, ty.len() as u64 / all_rows));
        }
        let longest = group.members.iter().flat_map(|m| inside(&m.nest, group.rows.len())).max()?.max(1);
        let mut rows = (BLOCK_POINTS / longest).clamp(1, MOST_ROWS);
        rows = 1 << rows.ilog2();
        loop {
            let blocks = Self { rows, kept };
            if blocks.shared_bytes(group) <= u64::from(SHARED_BYTES) {
                return Some(blocks);
            }
            kept = blocks.kept;
            rows = Some(rows / 2).filter(|n| *n > 0)?;
        }
    }
    fn shares_folds(&self, nest: &LoopNest, rows: usize) -> bool {
        let [points, folded] = inside(nest, rows);
        !nest.folds.is_empty() && folded >= LONG_FOLD && self.rows.saturating_mul(points) < u64::from(LANES)
    }
    fn shared_bytes(&self, group: &Group) -> u64 {
        let of_values =
            self.kept.values().map(|(dtype, run)| room(run.saturating_mul(self.rows)) * element_bytes(*dtype));
        let together = group.members.iter().filter(|m| self.shares_folds(&m.nest, group.rows.len()));
        let of_folds = together.flat_map(|m| &m.nest.folds).map(|f| u64::from(State::shared_bytes(f)));
        of_values.chain(of_folds).fold(0, u64::saturating_add)
    }
    /// How it runs, for people.
    pub(super) fn strategy(&self) -> String {
        format!("a workgroup per {} rows through all members", self.rows)
    }
    /// The dispatch; `place` says where an operand or a result lies.
    pub(super) fn dispatch(&self, group: &Group, place: &dyn Fn(&Passed) -> Place) -> Result<Dispatch, Unsupported> {
        countable(&group.operands)?;
        countable(&group.results)?;
        let mut sh = Shader::default();
        let rows = points(group.rows.iter().copied())?;
        let groups = rows.div_ceil(self.rows);
        let count = sh.number(groups as i64);
        sh.line(format!("if (at >= u32({count})) {{ return; }}"));
        let first = sh.bind("first", format!("i32(at) * {}", self.rows));
        let here = if self.rows == 1 {
            "1".to_string()
        } else {
            let rows = sh.number(rows as i64);
            sh.bind("here", format!("min({}, {rows} - {first})", self.rows))
        };
        // The first row of all that this part of a group, if it is one, has.
        let leading = group.members.first().map_or(&[][..], |m| &m.nest.axes[..group.rows.len()]);
        let before = leading.iter().fold(0i64, |n, a| n * a.whole as i64 + a.origin as i64);
        let before = sh.number(before);
        let mut kept: BTreeMap<Passed, Place> = BTreeMap::new();
        for (k, (passed, (dtype, run))) in self.kept.iter().enumerate() {
            let repr = Repr::of(*dtype);
            let ty = if repr == Repr::Bool { "u32" } else { repr.wgsl() };
            sh.workgroup(&format!("kept{k}"), &format!("array<{ty}, {}>", room(run * self.rows)));
            let run = sh.number(*run as i64);
            sh.line(format!("let base{k} = ({before} + {first}) * {run};"));
            let seen = Default::default();
            kept.insert(*passed, Place { buffer: 0, seen, within: 0, home: 0, kept: Some(k) });
        }
        for (m, member) in group.members.iter().enumerate() {
            if m > 0 {
                sh.line("workgroupBarrier();");
            }
            let nest = &member.nest;
            let reads: Vec<Place> =
                member.reads.iter().map(|p| kept.get(p).copied().unwrap_or_else(|| place(p))).collect();
            let targets = |p: &Passed| {
                let memory = (!matches!(p, Passed::Local(_))).then(|| place(p));
                memory.into_iter().chain(kept.get(p).copied()).collect::<Vec<Place>>()
            };
            let writes: Vec<Vec<Place>> = member.writes.iter().map(targets).collect();
            let domain = Domain::of(nest);
            let mut frame = frame_of(nest, &domain, &reads);
            let together = self.shares_folds(nest, group.rows.len());
            let [each, folded] = inside(nest, group.rows.len());
            let each = sh.number(each as i64);
            let (name, count) = (sh.name("t"), sh.bind("n", format!("u32({here} * {each})")));
            let (from, by) = if together { ("0u".into(), 1) } else { ("lane".to_string(), LANES) };
            sh.open(format!("for (var {name} = {from}; {name} < {count}; {name} += {by}u)"));
            let parallel: Vec<usize> = (0..nest.parallel_axes()).collect();
            decode(&mut sh, &format!("(u32({first} * {each}) + {name})"), &domain.axes, &parallel, &mut frame.at);
            at_point(&mut sh, nest, &domain, &mut frame, together.then_some(folded), &writes)?;
            sh.close();
        }
        Ok(sh.finish(groups))
    }
}
