//! Variables over several devices, seen as whole arrays. Where one lies in one piece on one device, it is read and written
//! there directly; and where all do, as they do on a single device, all at once.

use std::ops::Range;

use thalweg_graph::Array;
use thalweg_graph::id::Arena;
use thalweg_graph::ir::{Graph, VarId};
use thalweg_graph::lower::{Share, StateLayout, StateMap};

use crate::device::DeviceError;
use crate::executor::Executor;

/// Bytes of a variable that are made at once.
const FILL_BYTES: u64 = 1 << 20;

/// Where the variables of a session lie.
pub(crate) struct Spread {
    /// Where they lie in a copy that holds each once: how checkpoints have them, whatever devices there are.
    pub(crate) layout: StateLayout,
    shares: Arena<VarId, Vec<Piece>>,
    /// The copy and the one device's state are the same bytes.
    is_layout: bool,
}

/// A share with what is known of it.
struct Piece {
    share: Share,
    /// Whether its elements are not those of pieces before it.
    is_read: bool,
    /// It is the whole variable in its own order.
    is_whole: bool,
}

impl Spread {
    /// What `map` says of the variables of `graph`, over so many devices.
    ///
    /// # Errors
    /// With everything that is wrong with the map.
    pub(crate) fn new(graph: &Graph, map: &StateMap, devices: usize) -> Result<Self, Vec<String>> {
        let layout = StateLayout::of(graph);
        let mut faults = vec![];
        if map.bytes.len() != devices || map.shares.len() != graph.state.len() {
            let (d, v) = (map.bytes.len(), map.shares.len());
            let (devices_here, variables) = (devices, graph.state.len());
            faults.push(format!(
                "the state of {v} variables on {d} devices, where there are {variables} on {devices_here}"
            ));
            return Err(faults);
        }
        let mut shares: Arena<VarId, Vec<Piece>> = Arena::default();
        for (id, variable) in graph.state.iter() {
            let (mut pieces, mut known) = (vec![], Known::default());
            let slot = &layout.slots[id];
            for share in &map.shares[id] {
                if let Err(why) = fits(share, slot.ty.len() as u64, slot.ty.dtype, &map.bytes) {
                    faults.push(format!("variable `{}`: {why}", variable.name));
                    continue;
                }
                let runs = share.runs();
                let is_whole = matches!(runs[..], [(0, 0, n)] if n == slot.ty.len() as u64);
                let mut is_read = false;
                runs.iter().for_each(|(there, _, n)| is_read |= known.add(*there..there + n));
                pieces.push(Piece { share: share.clone(), is_read, is_whole });
            }
            if let Some(missing) = known.first_gap(slot.ty.len() as u64) {
                faults.push(format!("variable `{}`: element {missing} lies nowhere", variable.name));
            }
            shares.push(pieces);
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let is_layout = devices == 1 && *map == StateMap::single(&layout);
        Ok(Self { layout, shares, is_layout })
    }
    /// Everywhere that it lies.
    pub(crate) fn shares(&self, id: VarId) -> impl Iterator<Item = &Share> {
        self.shares[id].iter().map(|piece| &piece.share)
    }
    /// Reads a variable.
    pub(crate) fn read(&self, executor: &mut Executor, id: VarId, into: &mut [u8]) -> Result<(), DeviceError> {
        let element = self.layout.slots[id].ty.dtype.size_bytes();
        let mut bytes = vec![];
        for Piece { share, is_whole, .. } in self.shares[id].iter().filter(|p| p.is_read) {
            if *is_whole {
                executor.read_state(share.device, share.offset, into)?;
                continue;
            }
            bytes.resize(share.ty.size_bytes() as usize, 0);
            executor.read_state(share.device, share.offset, &mut bytes)?;
            for (there, here) in runs(share, element) {
                into[there].copy_from_slice(&bytes[here]);
            }
        }
        Ok(())
    }
    /// Writes a variable, wherever it lies.
    pub(crate) fn write(&self, executor: &mut Executor, id: VarId, from: &[u8]) -> Result<(), DeviceError> {
        let element = self.layout.slots[id].ty.dtype.size_bytes();
        let mut bytes = vec![];
        for Piece { share, is_whole, .. } in &self.shares[id] {
            if *is_whole {
                executor.write_state(share.device, share.offset, from)?;
                continue;
            }
            bytes.resize(share.ty.size_bytes() as usize, 0);
            for (there, here) in runs(share, element) {
                bytes[here].copy_from_slice(&from[there]);
            }
            executor.write_state(share.device, share.offset, &bytes)?;
        }
        Ok(())
    }
    /// Writes a variable, wherever it lies, from what `elements` gives of it, a stretch at a time: so that it is not there a
    /// second time.
    pub(crate) fn fill(
        &self,
        executor: &mut Executor,
        id: VarId,
        elements: impl Fn(Range<u64>) -> Array,
    ) -> Result<(), DeviceError> {
        let ty = &self.layout.slots[id].ty;
        let (count, size) = (ty.len() as u64, ty.dtype.size_bytes() as u64);
        let most = FILL_BYTES / size;
        let (whole, parts): (Vec<&Piece>, Vec<&Piece>) = self.shares[id].iter().partition(|p| p.is_whole);
        for start in (0..count).step_by(most as usize).filter(|_| !whole.is_empty()) {
            let stretch = elements(start..count.min(start + most));
            for Piece { share, .. } in &whole {
                executor.write_state(share.device, share.offset + start * size, stretch.bytes())?;
            }
        }
        for Piece { share, .. } in parts {
            let (mut bytes, mut at) = (Vec::new(), share.offset);
            for (there, _, n) in share.runs() {
                let (mut there, end) = (there, there + n);
                while there < end {
                    // Stretches end where lines do: a device may not be able to write less than a word.
                    let n = (end - there).min(most - bytes.len() as u64 / size);
                    bytes.extend_from_slice(elements(there..there + n).bytes());
                    there += n;
                    if bytes.len() as u64 / size == most {
                        executor.write_state(share.device, at, &bytes)?;
                        at += bytes.len() as u64;
                        bytes.clear();
                    }
                }
            }
            if !bytes.is_empty() {
                executor.write_state(share.device, at, &bytes)?;
            }
        }
        Ok(())
    }
    /// Copies all variables to a buffer as long as the layout says.
    pub(crate) fn read_all(&self, executor: &mut Executor, into: &mut [u8]) -> Result<(), DeviceError> {
        if self.is_layout {
            return if into.is_empty() { Ok(()) } else { executor.read_state(0, 0, into) };
        }
        self.layout.slots.iter().try_for_each(|(id, _)| self.read(executor, id, &mut into[self.range(id)]))
    }
    /// Copies all variables from such a buffer.
    pub(crate) fn write_all(&self, executor: &mut Executor, from: &[u8]) -> Result<(), DeviceError> {
        if self.is_layout {
            return if from.is_empty() { Ok(()) } else { executor.write_state(0, 0, from) };
        }
        self.layout.slots.iter().try_for_each(|(id, _)| self.write(executor, id, &from[self.range(id)]))
    }
    fn range(&self, id: VarId) -> Range<usize> {
        let slot = &self.layout.slots[id];
        slot.offset as usize..(slot.offset + slot.ty.size_bytes()) as usize
    }
}

/// Bytes of the variable, and the same here.
fn runs(share: &Share, element: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let bytes = move |at: u64, n: u64| at as usize * element..(at + n) as usize * element;
    share.runs().into_iter().map(move |(there, here, n)| (bytes(there, n), bytes(here, n)))
}

fn fits(share: &Share, elements: u64, dtype: thalweg_graph::DType, devices: &[u64]) -> Result<(), String> {
    let Some(room) = devices.get(usize::from(share.device)) else {
        return Err(format!("there is no device {}", share.device));
    };
    let view: Option<u64> = share.view.iter().try_fold(1u64, |n, extent| n.checked_mul(*extent));
    let ranks = [share.start.len(), share.ty.rank()] == [share.view.len(); 2];
    let axes = share.start.iter().zip(&share.ty.shape).zip(&share.view);
    let inside = axes.into_iter().all(|((start, n), extent)| start.checked_add(*n).is_some_and(|end| end <= *extent));
    if view != Some(elements) || !ranks || !inside || share.ty.dtype != dtype {
        return Err(format!("a share {} at {:?} of {:?} is no part of it", share.ty, share.start, share.view));
    }
    let end = share.offset.checked_add(share.ty.size_bytes());
    if end.is_some_and(|end| end <= *room) { Ok(()) } else { Err("a share leaves its arena".into()) }
}

/// Elements that are known to lie somewhere: runs that neither overlap nor touch.
#[derive(Default)]
struct Known(std::collections::BTreeMap<u64, u64>);

impl Known {
    /// Adds a run; says whether any of it is new.
    fn add(&mut self, run: Range<u64>) -> bool {
        let around = self.0.range(..=run.start).next_back().map(|(start, end)| (*start, *end));
        if run.is_empty() || around.is_some_and(|(_, end)| end >= run.end) {
            return false;
        }
        let start = around.filter(|(_, end)| *end >= run.start).map_or(run.start, |(start, _)| start);
        let mut end = run.end;
        let touched: Vec<u64> = self.0.range(start..=run.end).map(|(start, _)| *start).collect();
        for start in touched {
            end = end.max(self.0.remove(&start).unwrap_or(0));
        }
        self.0.insert(start, end);
        true
    }
    /// The first element below `count` that lies nowhere.
    fn first_gap(&self, count: u64) -> Option<u64> {
        let reached = self.0.get(&0).copied().unwrap_or(0);
        (reached < count).then_some(reached)
    }
}

#[cfg(test)]
mod tests {
    use thalweg_graph::id::Id;
    use thalweg_graph::ir::Variable;
    use thalweg_graph::kernel::BufferType;
    use thalweg_graph::{DType, Init, VarKind};

    use super::*;
    use crate::reference::ReferenceDevice;

    /// A variable of two rows and three columns on three devices: whole, its last two columns, and its first again.
    fn spread() -> (Executor, Spread) {
        let (name, group, init) = ("v".into(), "".into(), Init::Constant(0.0));
        let (ty, kind) = (DType::U8.of([2, 3]), VarKind::Param);
        let state = [Variable { name, ty, kind, init, group }].into_iter().collect();
        let graph = Graph { state, ..Graph::default() };
        let share = |device, offset, columns: u64, first: u64| Share {
            device,
            offset,
            ty: BufferType { dtype: DType::U8, shape: vec![2, columns] },
            view: vec![2, 3],
            start: vec![0, first],
        };
        let shares = vec![share(1, 2, 2, 1), share(2, 1, 1, 0), share(0, 0, 3, 0)];
        let map = StateMap { bytes: vec![64; 3], shares: [shares].into_iter().collect() };
        let spread = Spread::new(&graph, &map, 3).expect("it is all there");
        let devices = (0..3).map(|_| Box::new(ReferenceDevice::default()) as _).collect();
        let mut executor = Executor::new(devices).expect("threads start");
        executor.reserve_state(&map.bytes).expect("room");
        (executor, spread)
    }

    #[test]
    fn a_variable_is_written_wherever_it_lies_and_read_once() {
        let (mut executor, spread) = spread();
        let (v, written) = (VarId::new(0), [1, 2, 3, 4, 5, 6]);
        spread.write(&mut executor, v, &written).expect("it is there");
        let mut at = |device| {
            let mut bytes = [0; 8];
            executor.read_state(device, 0, &mut bytes).expect("it is there");
            bytes
        };
        assert_eq!(at(0), [1, 2, 3, 4, 5, 6, 0, 0]);
        assert_eq!(at(1), [0, 0, 2, 3, 5, 6, 0, 0]);
        assert_eq!(at(2), [0, 1, 4, 0, 0, 0, 0, 0]);
        // The third share has nothing new.
        executor.write_state(0, 0, &[9; 6]).expect("it is there");
        let mut read = [0; 6];
        spread.read(&mut executor, v, &mut read).expect("it is there");
        assert_eq!(read, written);
        let mut all = [0; 64];
        spread.read_all(&mut executor, &mut all).expect("it is there");
        assert_eq!(all[..6], written);
        all[..6].copy_from_slice(&[6, 5, 4, 3, 2, 1]);
        spread.write_all(&mut executor, &all).expect("it is there");
        spread.read(&mut executor, v, &mut read).expect("it is there");
        assert_eq!(read, [6, 5, 4, 3, 2, 1]);
    }

    #[test]
    fn a_variable_is_filled_a_stretch_at_a_time() {
        // Rows of 700 KiB: stretches of 1 MiB begin and end inside of them. Device 0 has all of it, 1 and 2 a half of each row.
        let columns = 700u64 << 10;
        let ty = BufferType { dtype: DType::U8, shape: vec![3, columns] };
        let (name, group, init) = ("v".into(), "".into(), Init::Constant(0.0));
        let variable = Variable { name, ty: DType::U8.of([3, columns]), kind: VarKind::Param, init, group };
        let graph = Graph { state: [variable].into_iter().collect(), ..Graph::default() };
        let share = |device, columns_here: u64, first: u64| Share {
            device,
            offset: 0,
            ty: BufferType { dtype: DType::U8, shape: vec![3, columns_here] },
            view: ty.shape.clone(),
            start: vec![0, first],
        };
        let shares = vec![share(0, columns, 0), share(1, columns / 2, 0), share(2, columns / 2, columns / 2)];
        let map = StateMap { bytes: vec![3 * columns; 3], shares: [shares].into_iter().collect() };
        let spread = Spread::new(&graph, &map, 3).expect("it is all there");
        let devices = (0..3).map(|_| Box::new(ReferenceDevice::default()) as _).collect();
        let mut executor = Executor::new(devices).expect("threads start");
        executor.reserve_state(&map.bytes).expect("room");
        let byte = |i: u64| (i * 7 + i / 251) as u8;
        let made = |range: Range<u64>| {
            assert!(range.end - range.start <= FILL_BYTES);
            let bytes: Vec<u8> = range.map(byte).collect();
            Array::from_slice(&[bytes.len() as u64], &bytes)
        };
        spread.fill(&mut executor, VarId::new(0), made).expect("it is there");
        let mut at = |device: u16, bytes: u64| {
            let mut all = vec![0; bytes as usize];
            executor.read_state(device, 0, &mut all).expect("it is there");
            all
        };
        assert!(at(0, 3 * columns) == (0..3 * columns).map(byte).collect::<Vec<_>>());
        for (device, first) in [(1, 0), (2, columns / 2)] {
            let half = (0..3).flat_map(|row| (0..columns / 2).map(move |i| byte(row * columns + first + i)));
            assert!(at(device, 3 * columns / 2) == half.collect::<Vec<_>>(), "device {device}");
        }
    }

    #[test]
    fn runs_are_joined_and_gaps_are_seen() {
        let mut known = Known::default();
        assert!(known.add(4..6) && known.add(0..2) && known.add(8..9));
        assert_eq!(known.first_gap(9), Some(2));
        assert!(!known.add(4..6) && !known.add(5..6) && !known.add(3..3));
        assert!(known.add(1..5), "some of it is new");
        assert_eq!((known.first_gap(9), known.first_gap(6)), (Some(6), None));
        assert!(known.add(6..8));
        assert_eq!((known.first_gap(9), known.0.len()), (None, 1));
    }
}
