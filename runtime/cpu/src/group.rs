//! Groups by blocks of rows. A thread takes a block, runs every member on it, and what members hand to each other stays in
//! a piece of its own memory that is as large as a block. Each member folds as it would alone, so the bits are the same as
//! those of the launches one after the other.

use thalweg_graph::kernel::{BufferType, Group, Member, Passed};

use crate::access;
use crate::contract::Contraction;
use crate::nest::TileNest;
use crate::pool::{self, Shared};
use crate::scratch;
use crate::tile::{Origin, STARTS};

/// What a block touches should stay in the second-level cache.
const BLOCK_BYTES: u64 = 384 << 10;
/// A block of fewer elements spends its time on starting members.
const BLOCK_ELEMENTS: u64 = 16 << 10;
/// So many blocks leave something for every thread, if they need not be smaller for it than that.
const BLOCKS: u64 = 32;

/// Groups whose blocks take more than this of a thread's memory have locals in the plan's workspace.
const MOST_BYTES: usize = 8 << 20;

#[derive(Debug)]
pub(crate) struct TileGroup {
    members: Vec<BlockMember>,
    /// Per shared axis: extent and points per block.
    axes: Vec<(u64, u64)>,
    blocks: usize,
    /// How locals lie in a thread's memory, behind registers and pointers.
    locals: Vec<Carried>,
    /// Where pointers to a member's operands begin, and how many there can be before those to its results.
    pointers: usize,
    most_reads: usize,
    /// Of a thread's memory.
    bytes: usize,
    /// Nanoseconds of all blocks, a guess.
    cost: f64,
}

#[derive(Debug)]
struct BlockMember {
    /// For a block of full size, and for the last along an axis that blocks do not divide.
    full: TileNest,
    rest: Option<TileNest>,
    reads: Vec<Passed>,
    writes: Vec<Passed>,
}

/// A local of the group.
#[derive(Debug)]
struct Carried {
    offset: usize,
    row_bytes: usize,
}

impl TileGroup {
    /// `None` where members had better run alone.
    pub(crate) fn compile(group: &Group) -> Option<Self> {
        let alone: Vec<TileNest> = group.members.iter().map(|m| TileNest::compile(&m.nest)).collect();
        let is_product = |m: &Member| Contraction::is_likely(&m.nest);
        if alone.iter().any(TileNest::is_cut) || group.members.iter().any(is_product) {
            return None;
        }
        let count = group.row_count()?;
        let counts = block_counts(group, count);
        let axes: Vec<(u64, u64)> = group.rows.iter().copied().zip(counts.iter().copied()).collect();
        // At most one axis is divided, and only blocks at its end are smaller.
        let rest: Option<Vec<u64>> = axes.iter().any(|(e, c)| e % c != 0).then(|| {
            let end = |(extent, count): &(u64, u64)| if extent % count == 0 { *count } else { extent % count };
            axes.iter().map(end).collect()
        });
        let passes = |value: &Passed| group.members.iter().any(|m| m.reads.contains(value));
        let member = |(m, alone): (&Member, &TileNest)| {
            let block = |counts: &[u64]| {
                let mut block = alone.compile_block(&m.nest, counts);
                (0..m.writes.len()).filter(|w| passes(&m.writes[*w])).for_each(|w| block.keep_near(w));
                block
            };
            let (full, rest) = (block(&counts), rest.as_deref().map(block));
            BlockMember { full, rest, reads: m.reads.clone(), writes: m.writes.clone() }
        };
        let members: Vec<BlockMember> = group.members.iter().zip(&alone).map(member).collect();
        let blocks = axes.iter().map(|(e, c)| e.div_ceil(*c)).product::<u64>() as usize;
        let nests = || members.iter().flat_map(|m| m.rest.iter().chain([&m.full]));
        let pointers = nests().map(TileNest::thread_bytes).max()?.next_multiple_of(64);
        let most_reads = members.iter().map(|m| m.reads.len()).max()?;
        let most_writes = members.iter().map(|m| m.writes.len()).max()?;
        let mut bytes = pointers + ((most_reads + most_writes) * size_of::<*mut u8>()).next_multiple_of(64);
        let mut locals = Vec::with_capacity(group.locals.len());
        for local in &group.locals {
            let row_bytes = (local.size_bytes() / count) as usize;
            locals.push(Carried { offset: bytes, row_bytes });
            // A line between them, so that they do not all compete for the same sets of the cache.
            bytes += (row_bytes * counts.iter().product::<u64>() as usize).next_multiple_of(64) + 64;
        }
        // What a thread keeps of its own is no business of the plan's, so it has to be little whatever the group says.
        if bytes > MOST_BYTES {
            return None;
        }
        let cost = members.iter().map(|m| m.full.cost()).sum::<f64>() * blocks as f64;
        Some(Self { members, axes, blocks, locals, pointers, most_reads, bytes, cost })
    }

    pub(crate) fn thread_bytes(&self) -> usize {
        self.bytes
    }
    pub(crate) fn strategy(&self) -> String {
        let rows: u64 = self.axes.iter().map(|a| a.0).product();
        let at_once: u64 = self.axes.iter().map(|a| a.1).product();
        format!("{} nests over {rows} rows, {at_once} at a time", self.members.len())
    }

    /// # Safety
    /// See `CompiledKernel::run`.
    pub(crate) unsafe fn run(&self, operands: &[*const u8], results: &[*mut u8], pool: Option<&rayon::ThreadPool>) {
        let shared = Shared((operands, results));
        let pieces = self.blocks.min(64);
        pool::for_each(pool, pieces, self.cost, |piece| {
            let (operands, results) = shared.get();
            scratch::with(self.bytes, |memory| {
                for block in self.blocks * piece / pieces..self.blocks * (piece + 1) / pieces {
                    // SAFETY: blocks write disjoint rows; the memory is as large as was asked for.
                    unsafe { self.run_block(block, operands, results, memory) };
                }
                access::streamed();
            });
        });
    }

    unsafe fn run_block(&self, block: usize, operands: &[*const u8], results: &[*mut u8], memory: *mut u8) {
        let mut start: Origin = [0; _];
        let (mut index, mut row, mut run, mut is_rest) = (block as u64, 0, 1, false);
        for (d, (extent, count)) in self.axes.iter().enumerate().rev() {
            let along = extent.div_ceil(*count);
            let first = index % along * count;
            index /= along;
            start[STARTS + d] = first as i64;
            row += first * run;
            run *= extent;
            is_rest |= first + count > *extent;
        }
        let place = |value: &Passed| match value {
            Passed::Operand(i) => operands[usize::from(*i)].cast_mut(),
            Passed::Result(i) => results[usize::from(*i)],
            Passed::Local(i) => {
                // As if all rows were there: members address rows as they do in memory.
                let Carried { offset, row_bytes } = self.locals[usize::from(*i)];
                memory.wrapping_add(offset).wrapping_sub(row as usize * row_bytes)
            }
        };
        // SAFETY: pointers lie behind the registers, in memory that was counted; rows of operands, results and locals are
        // those of this block, by the group's rule.
        unsafe {
            let from = memory.add(self.pointers).cast::<*const u8>();
            let to = memory.add(self.pointers).cast::<*mut u8>().add(self.most_reads);
            for member in &self.members {
                member.reads.iter().enumerate().for_each(|(k, r)| *from.add(k) = place(r).cast_const());
                member.writes.iter().enumerate().for_each(|(k, w)| *to.add(k) = place(w));
                let nest = if is_rest { member.rest.as_ref().unwrap_or(&member.full) } else { &member.full };
                let from = std::slice::from_raw_parts(from, member.reads.len());
                let to = std::slice::from_raw_parts(to, member.writes.len());
                nest.run_block(&start, from, to, memory);
            }
        }
    }
}

/// Points per shared axis in a block: whole inner axes as far as they fit.
fn block_counts(group: &Group, count: u64) -> Vec<u64> {
    let values = || group.operands.iter().chain(&group.results).chain(&group.locals);
    let by_row = |ty: &BufferType| if ty.len() as u64 >= count { ty.size_bytes() / count } else { 0 };
    let row_bytes: u64 = values().map(by_row).sum::<u64>().max(1);
    let longest = values().map(|ty| (ty.len() as u64 / count).max(1)).max().unwrap_or(1);
    let mut room = (count / BLOCKS).max(BLOCK_ELEMENTS.div_ceil(longest)).min(BLOCK_BYTES / row_bytes).clamp(1, count);
    if room < count && room > 16 {
        room -= room % 16;
    }
    let mut counts = vec![1; group.rows.len()];
    for (extent, points) in group.rows.iter().zip(&mut counts).rev() {
        *points = room.clamp(1, *extent);
        if *points < *extent {
            break;
        }
        room /= extent;
    }
    counts
}
