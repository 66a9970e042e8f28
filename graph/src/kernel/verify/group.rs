//! What a sound group is: sound members that lead with the shared axes, every value written once and before it is read,
//! and nothing that passes between members leaves its row. Blocks of rows may then run in any order, or at once.

use std::collections::BTreeSet;

use super::{Faults, verify_buffers, verify_nest};
use crate::kernel::{BufferType, Group, Passed};

/// So that a device can keep where a block starts beside the axes of a nest.
const MAX_ROW_AXES: usize = 8;

pub(super) fn verify_group(group: &Group, faults: &mut Faults) {
    verify_buffers(group.locals.iter(), faults);
    let rows = group.row_count().is_some_and(|n| n >= 1) && (1..=MAX_ROW_AXES).contains(&group.rows.len());
    if !faults.require(rows, || format!("a group needs 1 to {MAX_ROW_AXES} shared axes, none of them empty"))
        || !faults.list.is_empty()
    {
        return;
    }
    let mut written: BTreeSet<Passed> = BTreeSet::new();
    for (m, member) in group.members.iter().enumerate() {
        let nest = &member.nest;
        let mut found = Faults::default();
        verify_buffers(nest.operands.iter().chain(&nest.results), &mut found);
        if found.list.is_empty() {
            verify_nest(nest, &mut found);
        }
        let sound = found.list.is_empty();
        faults.list.extend(found.list.into_iter().map(|f| format!("member m{m}: {f}")));
        let typed = fits(group, &member.reads, &nest.operands) && fits(group, &member.writes, &nest.results);
        if !faults.require(typed, || format!("member m{m} does not get what its nest asks for")) || !sound {
            continue;
        }
        faults.require(nest.leads_with(&group.rows), || format!("member m{m} does not lead with the shared axes"));
        for (k, read) in member.reads.iter().enumerate().filter(|(_, r)| !matches!(r, Passed::Operand(_))) {
            faults.require(written.contains(read), || format!("member m{m} reads {read} before it is written"));
            let within = nest.reads_within_rows(k, &group.rows);
            faults.require(within, || format!("member m{m} reads {read} beyond its row"));
        }
        for (k, write) in member.writes.iter().enumerate() {
            let fresh = !matches!(write, Passed::Operand(_)) && written.insert(*write);
            faults.require(fresh, || format!("member m{m} writes {write}, which is an operand or written already"));
            let within = nest.writes_within_rows(k, &group.rows);
            faults.require(within, || format!("member m{m} writes {write} beyond its row"));
        }
    }
    for r in 0..group.results.len() {
        let result = Passed::Result(r as u16);
        faults.require(written.contains(&result), || format!("no member writes {result}"));
    }
}

/// Whether values are there and, element for element, of these types.
fn fits(group: &Group, values: &[Passed], types: &[BufferType]) -> bool {
    let alike = |(value, ty): (&Passed, &BufferType)| {
        group.ty(*value).is_some_and(|v| v.dtype == ty.dtype && v.checked_len() == ty.checked_len())
    };
    values.len() == types.len() && values.iter().zip(types).all(alike)
}
