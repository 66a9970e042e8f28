//! Fetching and storing tiles. Where every lane is inside and offsets are affine, a fetch is a pointer, a copy or a
//! gather; anything else (holes, digits, values, edges) first computes each lane's offset and whether it is inside.

use thalweg_graph::DType;
use thalweg_graph::kernel::BufferType;

use crate::domain::{Access, Check, Domain};
use crate::isa::multiversion;
use crate::kind::{Lane, Stored, with_stored};
use crate::tile::{LANES, LaneMap, Pattern, Tile};

/// An access seen from a tile.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) operand: usize,
    pub(crate) dtype: DType,
    linear: LaneMap,
    checks: Vec<LaneCheck>,
    fill: u64,
    absent: bool,
    /// Some check is more than a limit.
    indirect: bool,
    /// Frames of per-lane offsets that locating takes.
    depth: usize,
}

#[derive(Debug)]
enum LaneCheck {
    Limit { index: LaneMap, extent: i64 },
    Holes { index: LaneMap, step: i64, extent: i64, stride: i64 },
    Digit { index: LaneMap, divide: i64, modulo: i64, extent: i64, stride: i64 },
    Value { read: usize, clamp: bool, extent: i64, stride: i64 },
}

/// Per-lane offsets under construction: one for each level of values within values.
#[repr(C, align(64))]
pub(crate) struct Offsets {
    pub(crate) at: [i64; LANES],
    index: [i64; LANES],
    pub(crate) inside: [u8; LANES],
}

/// Readers for `accesses` on `tile`.
pub(crate) fn readers(accesses: &[Access], domain: &Domain, tile: &Tile) -> Vec<Reader> {
    let mut readers: Vec<Reader> = Vec::new();
    for access in accesses {
        readers.push(Reader::new(access, domain, tile, &readers));
    }
    readers
}

impl Reader {
    pub(crate) fn new(access: &Access, domain: &Domain, tile: &Tile, earlier: &[Reader]) -> Self {
        let map = |m: usize| tile.lane_map(&domain.maps[m]);
        let mut depth = 1;
        let check = |c: &Check| match *c {
            Check::Limit { index, extent } => LaneCheck::Limit { index: map(index), extent },
            Check::Holes { index, step, extent, stride } => {
                LaneCheck::Holes { index: map(index), step, extent, stride }
            }
            Check::Digit { index, divide, modulo, extent, stride } => {
                LaneCheck::Digit { index: map(index), divide, modulo, extent, stride }
            }
            Check::Value { read, clamp, extent, stride } => {
                depth = depth.max(1 + earlier[read].depth);
                LaneCheck::Value { read, clamp, extent, stride }
            }
        };
        let checks: Vec<_> = access.checks.iter().map(check).collect();
        Self {
            operand: access.operand,
            dtype: access.dtype,
            linear: map(access.linear),
            indirect: checks.iter().any(|c| !matches!(c, LaneCheck::Limit { .. })),
            checks,
            fill: access.fill.unwrap_or(0),
            absent: access.absent,
            depth,
        }
    }
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }
    /// A guess at nanoseconds per lane.
    pub(crate) fn cost(&self, lanes: usize) -> f64 {
        self.linear.cost(self.dtype.size_bytes(), lanes)
            + 0.3 * self.checks.len() as f64
            + 2.0 * f64::from(self.indirect)
    }
    /// Whether all lanes of every tile read one element, which is there.
    pub(crate) fn is_uniform(&self) -> bool {
        !self.absent && self.checks.is_empty() && matches!(self.linear.pattern, Pattern::Linear(0))
    }
    /// The length of rows along which everything about a lane is affine, if rows are worth it: nothing but limits.
    #[inline]
    fn rows(&self) -> Option<usize> {
        let limits = self.checks.iter().map(|c| match c {
            LaneCheck::Limit { index, .. } => index.run(),
            _ => Some(0),
        });
        let run = limits.chain([self.linear.run()]).flatten().min().unwrap_or(LANES);
        (!self.absent && run >= 8).then_some(run)
    }
    /// Whether all lanes of the tile are surely inside.
    #[inline]
    fn is_inside(&self, origin: &[i64]) -> bool {
        !self.absent
            && !self.indirect
            && self.checks.iter().all(|c| match c {
                LaneCheck::Limit { index, extent } => {
                    let at = index.at(origin);
                    at + index.min >= 0 && at + index.max < *extent
                }
                _ => false,
            })
    }
    /// The tile as it lies in memory, where it does: contiguous, inside, of the register's own type.
    #[inline]
    pub(crate) fn in_place(&self, cx: &Tiles<'_>) -> Option<*const u8> {
        let contiguous = matches!(self.linear.pattern, Pattern::Linear(1));
        let plain = !is_half(self.dtype);
        (contiguous && plain && self.is_inside(cx.origin)).then(|| self.place(cx.operands, cx.origin))
    }
    /// Where the first lane of a tile lies, if it is inside.
    #[inline]
    pub(crate) fn place(&self, operands: &[*const u8], origin: &[i64]) -> *const u8 {
        let offset = self.linear.at(origin) as isize * self.dtype.size_bytes() as isize;
        operands[self.operand].wrapping_offset(offset)
    }
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// What fetching needs to know.
#[derive(Clone, Copy)]
pub(crate) struct Tiles<'a> {
    /// All readers of the program.
    pub(crate) readers: &'a [Reader],
    pub(crate) operands: &'a [*const u8],
    /// First point of the tile.
    pub(crate) origin: &'a [i64],
    /// At least as many as the deepest reader needs.
    pub(crate) offsets: *mut Offsets,
}

multiversion! {
    /// Finds where each of the first `n` lanes of `reader` lies, into the first frame of `offsets`.
    ///
    /// # Safety
    /// Operands are live and of the kernel's types; `offsets` has [`Reader::depth`] frames; `n` is at most [`LANES`].
    pub(crate) unsafe fn locate(reader: &Reader, cx: &Tiles<'_>, n: usize) {
        // SAFETY: the caller's promise.
        unsafe { locate_lanes(reader, cx, cx.offsets, n) }
    }
}

#[inline(always)]
unsafe fn locate_lanes(reader: &Reader, cx: &Tiles<'_>, offsets: *mut Offsets, n: usize) {
    // SAFETY: frames are distinct; the reference is not used across the call that fills the next frame.
    let Offsets { at, index: found, inside } = unsafe { &mut *offsets };
    let (at, found, inside) = (&mut at[..n], &mut found[..n], &mut inside[..n]);
    reader.linear.write(cx.origin, at);
    inside.fill(u8::from(!reader.absent));
    for check in &reader.checks {
        let (extent, stride) = match check {
            LaneCheck::Limit { index, extent } => {
                index.write(cx.origin, found);
                (*extent, 0)
            }
            LaneCheck::Holes { index, step, extent, stride } => {
                index.write(cx.origin, found);
                for (i, ok) in found.iter_mut().zip(inside.iter_mut()) {
                    *ok &= u8::from(i.rem_euclid(*step) == 0);
                    *i = i.div_euclid(*step);
                }
                (*extent, *stride)
            }
            LaneCheck::Digit { index, divide, modulo, extent, stride } => {
                index.write(cx.origin, found);
                found.iter_mut().for_each(|i| *i = (*i / divide) % modulo);
                (*extent, *stride)
            }
            LaneCheck::Value { read, clamp, extent, stride } => {
                // SAFETY: the caller counted one more frame for each level of values.
                unsafe { values(&cx.readers[*read], cx, offsets.add(1), found) };
                if *clamp && *extent > 0 {
                    found.iter_mut().for_each(|i| *i = (*i).clamp(0, extent - 1));
                }
                (*extent, *stride)
            }
        };
        for ((i, o), ok) in found.iter().zip(at.iter_mut()).zip(inside.iter_mut()) {
            *ok &= u8::from(*i >= 0) & u8::from(*i < extent);
            *o = o.wrapping_add(i.wrapping_mul(stride));
        }
    }
}

/// The integers that `reader` finds.
#[inline(never)]
unsafe fn values(reader: &Reader, cx: &Tiles<'_>, offsets: *mut Offsets, out: &mut [i64]) {
    with_stored!(reader.dtype, S => {
        // SAFETY: the caller's promise; a lane that is inside lies in the operand.
        unsafe {
            locate_lanes(reader, cx, offsets, out.len());
            let (operand, offsets) = (cx.operands[reader.operand].cast::<S>(), &*offsets);
            for (l, o) in out.iter_mut().enumerate() {
                *o = if offsets.inside[l] != 0 {
                    (*operand.wrapping_offset(offsets.at[l] as isize)).load().index()
                } else {
                    <<S as Stored>::Reg as Lane>::decode(reader.fill).index()
                };
            }
        }
    })
}

multiversion! {
    /// Fetches the first `n` lanes into the register `out`.
    ///
    /// # Safety
    /// As for [`locate`]; `out` has room for a register.
    pub(crate) unsafe fn fetch(reader: &Reader, cx: &Tiles<'_>, n: usize, out: *mut u8) {
        with_stored!(reader.dtype, S => {
            // SAFETY: the caller's promise: `out` holds at least `n` lanes and overlaps nothing that is read.
            unsafe {
                let out = std::slice::from_raw_parts_mut(out.cast::<<S as Stored>::Reg>(), n);
                fetch_lanes::<S>(reader, cx, out);
            }
        })
    }
}

#[inline(always)]
unsafe fn fetch_lanes<S: Stored>(reader: &Reader, cx: &Tiles<'_>, out: &mut [S::Reg]) {
    let operand = cx.operands[reader.operand].cast::<S>();
    let n = out.len();
    if !reader.is_inside(cx.origin) {
        let fill = S::Reg::decode(reader.fill);
        if let Some(run) = reader.rows() {
            // SAFETY: as below.
            return unsafe { fetch_edges::<S>(reader, cx, run.min(n), fill, out) };
        }
        // SAFETY: the caller's promise; a lane that is inside lies in the operand.
        unsafe {
            locate_lanes(reader, cx, cx.offsets, n);
            let offsets = &*cx.offsets;
            for ((o, at), inside) in out.iter_mut().zip(&offsets.at).zip(&offsets.inside) {
                *o = if *inside != 0 { (*operand.wrapping_offset(*at as isize)).load() } else { fill };
            }
        }
        return;
    }
    let from = operand.wrapping_offset(reader.linear.at(cx.origin) as isize);
    // SAFETY: all lanes are inside, so each of these offsets lies in the operand.
    unsafe {
        match &reader.linear.pattern {
            Pattern::Linear(0) => out.fill((*from).load()),
            Pattern::Linear(1) => load_run::<S>(from, out),
            Pattern::Linear(step) => {
                let step = *step as isize;
                out.iter_mut().enumerate().for_each(|(l, o)| *o = (*from.offset(l as isize * step)).load());
            }
            Pattern::Turned { run, unit } => {
                // By column: a column lies in one line, and the register in the nearest cache.
                let rows = n.div_ceil(*run);
                for column in 0..(*run).min(n) {
                    let from = from.offset(column as isize * *unit as isize);
                    let rows = if column + (rows - 1) * run < n { rows } else { rows - 1 };
                    for row in 0..rows {
                        *out.get_unchecked_mut(row * run + column) = (*from.add(row)).load();
                    }
                }
            }
            Pattern::Table { relative, run, unit: 1 } if *run >= 8 => {
                for (row, o) in out.chunks_mut(*run).enumerate() {
                    load_run::<S>(from.offset(relative[row * run] as isize), o);
                }
            }
            Pattern::Table { relative, run, unit: 0 } if *run >= 8 => {
                for (row, o) in out.chunks_mut(*run).enumerate() {
                    o.fill((*from.offset(relative[row * run] as isize)).load());
                }
            }
            Pattern::Table { relative, .. } => {
                out.iter_mut().zip(relative.iter()).for_each(|(o, r)| *o = (*from.offset(*r as isize)).load());
            }
        }
    }
}

/// Fetches row by row: of the lanes of a row, those inside all limits follow each other.
#[inline(always)]
unsafe fn fetch_edges<S: Stored>(reader: &Reader, cx: &Tiles<'_>, run: usize, fill: S::Reg, out: &mut [S::Reg]) {
    let operand = cx.operands[reader.operand].cast::<S>();
    let n = out.len();
    for start in (0..n).step_by(run) {
        let (first, step) = reader.linear.row(cx.origin, start);
        let mut inside = (0, run.min(n - start) as i64);
        for check in &reader.checks {
            let LaneCheck::Limit { index, extent } = check else { continue };
            let (first, step) = index.row(cx.origin, start);
            // The lanes with 0 ≤ first + lane · step < extent.
            let (low, high) = match step {
                0 if (0..*extent).contains(&first) => continue,
                0 => (0, 0),
                1.. => (
                    (-first).div_euclid(step) + i64::from((-first).rem_euclid(step) != 0),
                    (extent - 1 - first).div_euclid(step) + 1,
                ),
                _ => (-((extent - 1 - first).div_euclid(-step)), first.div_euclid(-step) + 1),
            };
            inside = (inside.0.max(low), inside.1.min(high));
        }
        let row = &mut out[start..(start + run).min(n)];
        let (low, high) = (inside.0.clamp(0, row.len() as i64) as usize, inside.1.max(0) as usize);
        let high = high.clamp(low, row.len());
        row[..low].fill(fill);
        row[high..].fill(fill);
        let from = operand.wrapping_offset(first as isize);
        let row = &mut row[low..high];
        // SAFETY: these lanes are inside.
        unsafe {
            match step as isize {
                1 => load_run::<S>(from.wrapping_add(low), row),
                step => {
                    let from = from.wrapping_offset(low as isize * step);
                    row.iter_mut()
                        .enumerate()
                        .for_each(|(l, o)| *o = (*from.wrapping_offset(l as isize * step)).load());
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn load_run<S: Stored>(from: *const S, out: &mut [S::Reg]) {
    // SAFETY: the caller promises that the whole run lies in the operand.
    unsafe {
        if S::PLAIN {
            std::ptr::copy_nonoverlapping(from.cast::<S::Reg>(), out.as_mut_ptr(), out.len());
        } else {
            out.iter_mut().enumerate().for_each(|(l, o)| *o = (*from.add(l)).load());
        }
    }
}

/// Where a tile of results goes.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) result: usize,
    pub(crate) dtype: DType,
    linear: LaneMap,
    /// It writes around the caches: so much that whoever reads it finds nothing of it there anyway.
    pub(crate) streams: bool,
}

impl Writer {
    /// Results of so many bytes leave the caches before they are read. Written through them, they would be read first.
    const STREAMED_BYTES: u64 = 12 << 20;

    pub(crate) fn new(result: usize, of: &BufferType, map: &thalweg_graph::kernel::Affine, tile: &Tile) -> Self {
        let linear = tile.lane_map(map);
        let side_by_side = matches!(linear.pattern, Pattern::Linear(1)) && !is_half(of.dtype);
        let streams = cfg!(target_arch = "x86_64") && side_by_side && of.size_bytes() >= Self::STREAMED_BYTES;
        Self { result, dtype: of.dtype, linear, streams }
    }
    /// Where the tile lies in the result `to`, if it lies there as in a register.
    #[inline]
    pub(crate) fn in_place(&self, origin: &[i64], to: *mut u8) -> Option<*mut u8> {
        let as_register = matches!(self.linear.pattern, Pattern::Linear(1)) && !is_half(self.dtype);
        (as_register && !self.streams)
            .then(|| to.wrapping_offset(self.linear.at(origin) as isize * self.dtype.size_bytes() as isize))
    }
}

multiversion! {
    /// Stores the first `n` lanes of the register `from`.
    ///
    /// # Safety
    /// `to` is a live result of the writer's type; `from` is a register of at least `n` lanes, which may be the very
    /// memory that is written.
    pub(crate) unsafe fn store(writer: &Writer, origin: &[i64], from: *const u8, n: usize, to: *mut u8) {
        with_stored!(writer.dtype, S => {
            // SAFETY: the caller's promise; verified writes lie in their result.
            unsafe { store_lanes::<S>(writer, origin, from.cast(), n, to.cast()) }
        })
    }
}

#[inline(always)]
unsafe fn store_lanes<S: Stored>(writer: &Writer, origin: &[i64], from: *const S::Reg, n: usize, to: *mut S) {
    let to = to.wrapping_offset(writer.linear.at(origin) as isize);
    // SAFETY: the caller's promise.
    unsafe {
        match &writer.linear.pattern {
            Pattern::Linear(1) if S::PLAIN && writer.streams => stream(from.cast(), n * size_of::<S>(), to.cast()),
            Pattern::Linear(1) if S::PLAIN => std::ptr::copy(from, to.cast::<S::Reg>(), n),
            Pattern::Linear(step) => {
                let step = *step as isize;
                (0..n).for_each(|l| *to.offset(l as isize * step) = S::store(*from.add(l)));
            }
            Pattern::Turned { run, unit } => {
                let at = |l: usize| (l / run) as isize + (l % run) as isize * *unit as isize;
                (0..n).for_each(|l| *to.offset(at(l)) = S::store(*from.add(l)));
            }
            Pattern::Table { relative, run, unit: 1 } if S::PLAIN && *run >= 8 => {
                for start in (0..n).step_by(*run) {
                    let to = to.offset(relative[start] as isize).cast::<S::Reg>();
                    std::ptr::copy(from.add(start), to, (*run).min(n - start));
                }
            }
            Pattern::Table { relative, .. } => {
                (0..n).for_each(|l| *to.offset(relative[l] as isize) = S::store(*from.add(l)));
            }
        }
    }
}

/// Copies bytes around the caches. Other threads see them after [`streamed`].
#[inline(always)]
unsafe fn stream(from: *const u8, bytes: usize, to: *mut u8) {
    // Whole lines: what is before and behind them goes the usual way.
    let before = to.align_offset(64).min(bytes);
    let lines = (bytes - before) / 64 * 64;
    // SAFETY: the caller's promise: so many bytes lie at both places, apart from each other.
    unsafe {
        to.copy_from_nonoverlapping(from, before);
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
            let (from, to) = (from.add(before).cast::<__m128i>(), to.add(before).cast::<__m128i>());
            (0..lines / 16).for_each(|i| _mm_stream_si128(to.add(i), _mm_loadu_si128(from.add(i))));
        }
        #[cfg(not(target_arch = "x86_64"))]
        to.add(before).copy_from_nonoverlapping(from.add(before), lines);
        let done = before + lines;
        to.add(done).copy_from_nonoverlapping(from.add(done), bytes - done);
    }
}

/// Makes what this thread has streamed visible to whoever it tells that it is done.
pub(crate) fn streamed() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every machine of this architecture has it.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}
