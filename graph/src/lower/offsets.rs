//! Offsets in the scratch and staging arenas. Each tensor lives from the launch that writes it to the last that reads
//! it; an element-wise result takes the place of an operand that dies there; what remains is placed largest first at
//! the lowest offset where nothing alive lies. The peak is thus known before anything runs.

use super::{Action, Home, Places, Root, Slot, state::ALIGN};

pub(super) struct Offsets {
    /// By root; only scratch and staging roots have one.
    pub(super) of: Vec<u64>,
    /// By action.
    pub(super) workspaces: Vec<u64>,
    pub(super) scratch_bytes: u64,
    pub(super) staging_bytes: u64,
}

/// Bytes that are alive together from `birth` to `death`, both included.
struct Storage {
    birth: usize,
    death: usize,
    bytes: u64,
    members: Vec<(Root, u64)>,
    workspace_of: Option<usize>,
    offset: u64,
}

pub(super) fn assign(places: &mut Places, actions: &[Slot], workspaces: &[u64]) -> Offsets {
    let count = places.places.len();
    let mut life: Vec<Option<(usize, usize)>> = vec![None; count];
    let touch = |root: Root, at: usize, life: &mut Vec<Option<(usize, usize)>>| {
        let span = life[root.0].get_or_insert((at, at));
        span.1 = span.1.max(at);
    };
    for (at, slot) in actions.iter().enumerate() {
        for root in slot.reads().iter().chain(slot.writes()) {
            places.leaves(*root).into_iter().for_each(|leaf| touch(leaf, at, &mut life));
        }
    }

    let mut storage_of: Vec<Option<usize>> = vec![None; count];
    let mut storages: Vec<Storage> = Vec::new();
    // Neighbours first: they have no choice.
    for chain in places.chains() {
        let mut storage =
            Storage { birth: usize::MAX, death: 0, bytes: 0, members: vec![], workspace_of: None, offset: 0 };
        for member in chain {
            // Even what nobody looks at takes its room: what is behind it must not move up.
            let (birth, death) = life[member.0].unwrap_or((usize::MAX, 0));
            storage.birth = storage.birth.min(birth);
            storage.death = storage.death.max(death);
            storage.members.push((member, storage.bytes));
            storage.bytes += places.at(member).ty.size_bytes();
            storage_of[member.0] = Some(storages.len());
        }
        if storage.birth <= storage.death {
            storages.push(storage);
        }
    }
    let in_row: Vec<bool> = storage_of.iter().map(Option::is_some).collect();
    for (at, slot) in actions.iter().enumerate() {
        for (w, root) in slot.writes().iter().enumerate() {
            if !places.is_scratch(*root) || storage_of[root.0].is_some() {
                continue;
            }
            let Some((birth, death)) = life[root.0] else { continue };
            let taken = in_place(slot, w, at, places, &life, &in_row, &storage_of, &storages);
            let index = taken.unwrap_or_else(|| {
                let bytes = places.at(*root).ty.size_bytes();
                storages.push(Storage { birth, death, bytes, members: vec![], workspace_of: None, offset: 0 });
                storages.len() - 1
            });
            storages[index].death = storages[index].death.max(death);
            storages[index].members.push((*root, 0));
            storage_of[root.0] = Some(index);
        }
        if workspaces[at] > 0 {
            let workspace_of = Some(at);
            storages.push(Storage {
                birth: at,
                death: at,
                bytes: workspaces[at],
                members: vec![],
                workspace_of,
                offset: 0,
            });
        }
    }

    let scratch_bytes = place_all(&mut storages);
    let mut out = Offsets { of: vec![0; count], workspaces: vec![0; actions.len()], scratch_bytes, staging_bytes: 0 };
    for storage in &storages {
        storage.members.iter().for_each(|(root, inside)| out.of[root.0] = storage.offset + inside);
        if let Some(at) = storage.workspace_of {
            out.workspaces[at] = storage.offset;
        }
    }
    for (i, place) in places.places.iter().enumerate().filter(|(_, p)| p.home == Home::Staging) {
        out.of[i] = out.staging_bytes;
        out.staging_bytes = (out.staging_bytes + place.ty.size_bytes()).next_multiple_of(ALIGN);
    }
    out
}

/// The storage of an operand that dies at `at` and over which result `w` may be written.
#[allow(clippy::too_many_arguments)]
fn in_place(
    slot: &Slot,
    w: usize,
    at: usize,
    places: &Places,
    life: &[Option<(usize, usize)>],
    in_row: &[bool],
    storage_of: &[Option<usize>],
    storages: &[Storage],
) -> Option<usize> {
    let Slot::Do(Action::Launch(step)) = slot else { return None };
    step.reads.iter().enumerate().find_map(|(r, root)| {
        let index = storage_of[root.0]?;
        let free = places.is_scratch(*root)
            && !in_row[root.0]
            && life[root.0]?.1 == at
            && storages[index].death == at
            && step.reads.iter().filter(|other| *other == root).count() == 1
            && !step.writes.iter().any(|other| storage_of[other.0] == Some(index));
        (free && step.kernel.may_write_in_place(w, r)).then_some(index)
    })
}

/// Places every storage; gives the peak.
fn place_all(storages: &mut [Storage]) -> u64 {
    let mut order: Vec<usize> = (0..storages.len()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(storages[*i].bytes), storages[*i].birth));
    let mut placed: Vec<usize> = Vec::with_capacity(order.len());
    let mut peak = 0;
    for i in order {
        let (birth, death, bytes) = (storages[i].birth, storages[i].death, storages[i].bytes);
        let alive = placed.iter().filter(|p| storages[**p].birth <= death && birth <= storages[**p].death);
        let mut busy: Vec<(u64, u64)> =
            alive.map(|p| (storages[*p].offset, storages[*p].offset + storages[*p].bytes)).collect();
        busy.sort_unstable();
        let mut offset = 0u64;
        for (start, end) in busy {
            if offset + bytes <= start {
                break;
            }
            offset = offset.max(end.next_multiple_of(ALIGN));
        }
        storages[i].offset = offset;
        peak = peak.max(offset + bytes);
        placed.push(i);
    }
    peak.next_multiple_of(ALIGN)
}
