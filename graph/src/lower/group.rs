//! Groups: launches that hand rows to each other become one, which walks blocks of rows while they are in the cache. A
//! softmax is one launch, and so is a chain with several readers; what only its members read has no place in memory.
//!
//! A group runs where its last member stood. So it takes no more members once a launch outside has read what one of them
//! writes. Contractions and updates stay alone: the one runs as a product, the others join over flat segments.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::fuse::{Kept, joined};
use super::{Places, Root, Step};
use crate::kernel::{Axis, BufferType, Group, Kernel, LoopNest, Member, Passed};

/// Groups do not grow beyond this.
const MAX_MEMBERS: usize = 16;
const MAX_VALUES: usize = 32;
const MAX_ROW_AXES: usize = 8;
/// Fewer rows than this are no work for several threads: grouped only where everything is small anyway.
const MIN_ROWS: u64 = 16;
const SMALL: u64 = 16 << 10;

/// Groups launches. What is fetched or an update reads stays a result.
pub(super) fn group(steps: Vec<Step>, kept: Kept<'_>) -> Vec<Step> {
    let Kept { places, fetched, updates, .. } = kept;
    let mut groups: Vec<Draft> = Vec::new();
    let mut maker: HashMap<Root, usize> = HashMap::new();
    for (i, step) in steps.iter().enumerate() {
        let nest = groupable(step, places, updates);
        let read = step.reads.iter().flat_map(|r| places.leaves(*r));
        let mut sources: Vec<usize> = read.filter_map(|r| maker.get(&r).copied()).collect();
        sources.sort_unstable();
        sources.dedup();
        // The latest first: earlier ones it may read too, and they then end before it.
        let found = sources.iter().rev().find_map(|g| Some((*g, groups[*g].rows_with(nest?, step, &steps, kept)?)));
        sources
            .iter()
            .filter(|g| found.as_ref().is_none_or(|(into, _)| into != *g))
            .for_each(|g| groups[*g].ended = true);
        let into = found.map(|(g, rows)| {
            groups[g].rows = rows;
            groups[g].members.push(i);
            g
        });
        let into = into.unwrap_or_else(|| {
            let rows = nest.map_or(vec![], own_rows);
            groups.push(Draft { ended: rows.is_empty(), rows, members: vec![i] });
            groups.len() - 1
        });
        maker.extend(step.writes.iter().map(|w| (*w, into)));
    }
    groups.sort_by_key(|g| g.members.last().copied());
    let mut readers: HashMap<Root, HashSet<usize>> = HashMap::new();
    for (i, step) in steps.iter().enumerate() {
        for read in &step.reads {
            readers.entry(*read).or_default().insert(i);
        }
    }
    let mut slots: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
    let mut out = Vec::new();
    for draft in groups {
        let members: Vec<Step> = draft.members.iter().filter_map(|i| slots[*i].take()).collect();
        let outside = |root: &Root| {
            let elsewhere = readers.get(root).is_some_and(|r| r.iter().any(|i| !draft.members.contains(i)));
            elsewhere || fetched.contains(root) || updates.contains(root)
        };
        match <[Step; 1]>::try_from(members) {
            Ok([alone]) => out.push(alone),
            Err(members) => out.push(build(draft.rows, members, &outside)),
        }
    }
    out
}

struct Draft {
    rows: Vec<u64>,
    /// By place.
    members: Vec<usize>,
    /// It takes no more members.
    ended: bool,
}

impl Draft {
    /// The shared axes if `step` joined; `None` if it cannot.
    fn rows_with(&self, nest: &LoopNest, step: &Step, steps: &[Step], kept: Kept<'_>) -> Option<Vec<u64>> {
        let Kept { places, limits, .. } = kept;
        if self.ended || self.members.len() >= MAX_MEMBERS {
            return None;
        }
        // What others wait for must not wait for what they send.
        if self.members.last().is_some_and(|m| steps[*m].level != step.level) {
            return None;
        }
        let made: HashSet<Root> = self.members.iter().flat_map(|m| &steps[*m].writes).copied().collect();
        // What lies in a row is not read row by row.
        let hidden = |r: &Root| !made.contains(r) && places.leaves(*r).iter().any(|leaf| made.contains(leaf));
        if step.reads.iter().any(hidden) {
            return None;
        }
        let mut values: HashSet<Root> = made.clone();
        values.extend(self.members.iter().flat_map(|m| &steps[*m].reads).chain(&step.reads).chain(&step.writes));
        if values.len() > MAX_VALUES.min(limits.buffers) {
            return None;
        }
        let own = own_rows(nest);
        let mut shared = own.iter().zip(&self.rows).take_while(|(a, b)| a == b).count();
        let passes: Vec<usize> = (0..step.reads.len()).filter(|k| made.contains(&step.reads[*k])).collect();
        let stays = |shared: usize| passes.iter().all(|k| nest.reads_within_rows(*k, &own[..shared]));
        while shared > 0 && !stays(shared) {
            shared -= 1;
        }
        let count: u64 = own[..shared].iter().product();
        let largest = passes.iter().map(|k| nest.operands[*k].len() as u64).max()?;
        let row_bytes: u64 = passes.iter().map(|k| nest.operands[*k].size_bytes() / count.max(1)).sum();
        // All that passes, with this member.
        let members = self.members.iter().map(|m| &steps[*m]).chain([step]);
        let read = members.flat_map(|s| s.reads.iter().zip(s.kernel.operands())).filter(|(r, _)| made.contains(r));
        let passed: HashMap<Root, u64> =
            read.map(|(r, t)| (*r, (t.len() * t.dtype.size_bytes().max(4)) as u64)).collect();
        let group_bytes = passed.values().sum::<u64>() / count.max(1);
        let worth = (count >= MIN_ROWS || largest <= SMALL)
            && row_bytes <= limits.row_bytes
            && group_bytes <= limits.group_bytes;
        (shared > 0 && worth).then(|| own[..shared].to_vec())
    }
}

/// The nest of a launch that may be a member.
fn groupable<'a>(step: &'a Step, places: &Places, updates: &HashSet<Root>) -> Option<&'a LoopNest> {
    let Kernel::Nest(nest) = &step.kernel else { return None };
    let plain = step.writes.iter().all(|w| places.is_scratch(*w) && !updates.contains(w));
    let empty = nest.axes.iter().any(|a| a.extent == 0) || nest.operands.iter().any(BufferType::is_empty);
    (plain && !empty && nest.contraction().is_none()).then_some(nest)
}

/// The most leading axes that rows of this nest alone can have.
fn own_rows(nest: &LoopNest) -> Vec<u64> {
    let uncut = |a: &&Axis| **a == Axis::new(a.extent, false);
    let mut rows: Vec<u64> = nest.axes.iter().take_while(uncut).take(MAX_ROW_AXES).map(|a| a.extent).collect();
    while !(0..nest.results.len()).all(|r| nest.writes_within_rows(r, &rows)) && rows.pop().is_some() {}
    rows
}

/// One launch of `members`; `outside` says what others look at.
fn build(rows: Vec<u64>, members: Vec<Step>, outside: &dyn Fn(&Root) -> bool) -> Step {
    let mut group = Group { operands: vec![], results: vec![], locals: vec![], rows, members: vec![] };
    let mut known: HashMap<Root, Passed> = HashMap::new();
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    let mut label: Option<Arc<str>> = None;
    let Some((site, level)) = members.last().map(|s| (s.site.clone(), s.level)) else {
        unreachable!("a group has members")
    };
    for step in members {
        let Kernel::Nest(nest) = step.kernel else { unreachable!("members are nests") };
        let operand = |(root, ty): (&Root, &BufferType)| {
            *known.entry(*root).or_insert_with(|| {
                reads.push(*root);
                group.operands.push(ty.clone());
                Passed::Operand(reads.len() as u16 - 1)
            })
        };
        let from: Vec<Passed> = step.reads.iter().zip(&nest.operands).map(operand).collect();
        let result = |(root, ty): (&Root, &BufferType)| {
            let passed = if outside(root) {
                writes.push(*root);
                group.results.push(ty.clone());
                Passed::Result(writes.len() as u16 - 1)
            } else {
                group.locals.push(ty.clone());
                Passed::Local(group.locals.len() as u16 - 1)
            };
            known.insert(*root, passed);
            passed
        };
        let to: Vec<Passed> = step.writes.iter().zip(&nest.results).map(result).collect();
        group.members.push(Member { nest, reads: from, writes: to });
        label = Some(label.map_or(step.label.clone(), |l| joined(&l, " | ", &step.label).into()));
    }
    Step { level, kernel: group.into(), reads, writes, label: label.unwrap_or_default(), site }
}
