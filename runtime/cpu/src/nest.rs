//! Loop nests on tiles: which points run together, in which order folds walk, and how a launch is cut into pieces.
//! All of it follows from the nest alone. Threads only take pieces; a long fold with few results is cut into a fixed
//! number of partial folds whose states meet in the workspace.

use thalweg_graph::kernel::{LoopNest, Reg};

use crate::access::{self, Writer};
use crate::ahead::Ahead;
use crate::domain::{Access, Domain, Lowered};
use crate::fold::{Accumulator, Parts};
use crate::isa::Isa;
use crate::pool::{self, Shared};
use crate::program::{Layout, Machine, Program, Slot, Slots, Source};
use crate::scratch;
use crate::tile::{LANES, Origin, Tile, Walk};

/// A nest that runs on tiles.
#[derive(Debug)]
pub(crate) struct TileNest {
    isa: Isa,
    is_empty: bool,
    tile: Tile,
    parallel: Walk,
    fold: Walk,
    /// Steps of the fold; none when it has no points.
    steps: usize,
    body: Program,
    accumulators: Vec<Accumulator>,
    inputs: Vec<[Slot; 2]>,
    epilogue: Program,
    writers: Vec<(Writer, Slot)>,
    layout: Layout,
    /// It computes long enough on a tile for the memory of the next to arrive meanwhile.
    fetches_ahead: bool,
    /// Partial folds per parallel tile; 1 when the fold is not cut.
    chunks: usize,
    /// Nanoseconds of one parallel tile, a guess.
    tile_cost: f64,
}

/// The same nest before a tile is chosen.
struct Draft<'a> {
    nest: &'a LoopNest,
    domain: Domain,
    accesses: Vec<Access>,
    body: Vec<Lowered>,
    epilogue: Vec<Lowered>,
    writes: Vec<usize>,
}

impl TileNest {
    pub(crate) fn compile(nest: &LoopNest) -> Self {
        Draft::new(nest, Domain::collapse).best()
    }
    /// The same nest over a block of `counts` points along its first axes, wherever that starts. It folds as this one
    /// does, to the same bits.
    pub(crate) fn compile_block(&self, nest: &LoopNest, counts: &[u64]) -> Self {
        let draft = Draft::new(nest, |domain| domain.collapse_block(counts));
        // Without a fold no tile changes a bit.
        let mut block =
            if nest.folds.is_empty() { draft.best() } else { draft.build(Tile::in_block(&draft.domain, &self.tile)) };
        block.chunks = 1;
        block
    }
    /// Says that result `result` is read as soon as it is written: it stays in the caches.
    pub(crate) fn keep_near(&mut self, result: usize) {
        self.writers.iter_mut().filter(|(w, _)| w.result == result).for_each(|(w, _)| w.streams = false);
    }
    /// Whether the fold is cut into parts.
    pub(crate) fn is_cut(&self) -> bool {
        self.chunks > 1
    }
    /// Bytes of a thread's memory that running takes.
    pub(crate) fn thread_bytes(&self) -> usize {
        self.layout.bytes
    }
    /// Nanoseconds of all tiles, a guess.
    pub(crate) fn cost(&self) -> f64 {
        self.parallel.tiles as f64 * self.tile_cost
    }
    pub(crate) fn strategy(&self) -> String {
        let Self { tile, parallel, chunks, .. } = self;
        let mut text = format!("tiles of {} lanes", tile.parallel_lanes());
        if tile.fold_lanes() > 1 {
            text = format!("tiles of {}×{} lanes, folded", tile.fold_lanes(), tile.parallel_lanes());
        } else if !self.accumulators.is_empty() {
            text += &format!(", {} steps", self.steps);
        }
        if *chunks > 1 { format!("{text}, in {chunks} parts") } else { format!("{text} × {}", parallel.tiles) }
    }
    pub(crate) fn workspace_bytes(&self) -> usize {
        if self.chunks == 1 { 0 } else { self.parallel.tiles * self.chunks * self.state_bytes() }
    }
    /// Bytes of one partial state in the workspace.
    fn state_bytes(&self) -> usize {
        let lanes = self.tile.parallel_lanes();
        let parts = self.accumulators.iter().flat_map(|a| (0..a.parts.len()).map(|p| a.lane_bytes(p)));
        parts.map(|bytes| (bytes * lanes).next_multiple_of(64)).sum()
    }

    /// # Safety
    /// See `CompiledKernel::run`.
    pub(crate) unsafe fn run(
        &self,
        operands: &[*const u8],
        results: &[*mut u8],
        workspace: *mut u8,
        pool: Option<&rayon::ThreadPool>,
    ) {
        if self.is_empty {
            return;
        }
        let shared = Shared((operands, results, workspace));
        let with_machine = |work: &dyn Fn(&Machine<'_>, &[*mut u8], *mut u8)| {
            let (operands, results, workspace) = shared.get();
            scratch::with(self.layout.bytes, |memory| {
                // SAFETY: the block has the layout's size; operands are live by the caller's promise.
                let machine = unsafe { Machine::new(self.isa, operands, &self.layout, memory) };
                work(&machine, results, workspace);
            });
        };
        let tiles = self.parallel.tiles;
        if self.chunks > 1 {
            pool::for_each(pool, tiles * self.chunks, self.cost(), |piece| {
                with_machine(&|machine, _, workspace| {
                    let (tile, chunk) = (piece / self.chunks, piece % self.chunks);
                    // SAFETY: each piece has its own state in the workspace.
                    unsafe { self.partial(machine, tile, chunk, workspace.add(piece * self.state_bytes())) };
                });
            });
        }
        // Few enough pieces that starting one (its constants) costs nothing beside its tiles.
        let pieces = tiles.min(64);
        pool::for_each(pool, pieces, if self.chunks > 1 { 0.0 } else { self.cost() }, |piece| {
            with_machine(&|machine, results, workspace| {
                // SAFETY: operands, results and slots are as compiled; tiles write disjoint elements.
                unsafe {
                    machine.constants(&self.body);
                    machine.constants(&self.epilogue);
                    for tile in tiles * piece / pieces..tiles * (piece + 1) / pieces {
                        self.run_tile(machine, tile, [0; _], results, workspace);
                    }
                    if self.writers.iter().any(|(w, _)| w.streams) {
                        access::streamed();
                    }
                }
            });
        });
    }

    /// Runs a block that starts at `start`, in a thread's memory of [`TileNest::thread_bytes`].
    ///
    /// # Safety
    /// See `CompiledKernel::run`; the block lies in the nest's domain.
    pub(crate) unsafe fn run_block(
        &self,
        start: &Origin,
        operands: &[*const u8],
        results: &[*mut u8],
        memory: *mut u8,
    ) {
        // SAFETY: as in `run`; a fold that is not cut needs no workspace.
        unsafe {
            let machine = Machine::new(self.isa, operands, &self.layout, memory);
            machine.constants(&self.body);
            machine.constants(&self.epilogue);
            for tile in 0..self.parallel.tiles {
                self.run_tile(&machine, tile, *start, results, std::ptr::null_mut());
            }
        }
    }

    unsafe fn run_tile(
        &self,
        machine: &Machine<'_>,
        tile: usize,
        mut origin: Origin,
        results: &[*mut u8],
        workspace: *mut u8,
    ) {
        let next = (self.fetches_ahead && tile + 1 < self.parallel.tiles).then(|| {
            let mut next = origin;
            self.parallel.seek(tile + 1, &mut next);
            next
        });
        let mut ahead = Ahead::new(next);
        let points = self.parallel.seek(tile, &mut origin);
        // SAFETY: the caller's promise.
        unsafe {
            if self.chunks == 1 {
                self.fold(machine, &mut origin, points, 0..self.steps, &mut ahead);
            } else {
                self.gather(machine, workspace.add(tile * self.chunks * self.state_bytes()), points);
            }
            // Values are computed where they belong, unless that is where an operand is still to be read.
            let in_place = |writer: &Writer| {
                let to = results[writer.result];
                if machine.operands.contains(&to.cast_const()) { None } else { writer.in_place(&origin, to) }
            };
            for (writer, slot) in self.writers.iter().rev() {
                let Some(place) = in_place(writer) else { continue };
                machine.write_to(*slot, place);
                if let Some(then) = next.as_ref().and_then(|next| writer.in_place(next, results[writer.result])) {
                    ahead.add(then, place, points * writer.dtype.size_bytes(), true);
                }
            }
            machine.tile(&self.epilogue, &origin, points, &mut ahead);
            for (writer, slot) in &self.writers {
                let (from, to) = (machine.register(*slot), results[writer.result]);
                if in_place(writer) != Some(from) {
                    access::store(self.isa, writer, &origin, from, points, to);
                }
            }
        }
    }

    /// Folds some steps of a tile; the states end in the first `points` lanes of the accumulators.
    unsafe fn fold(
        &self,
        machine: &Machine<'_>,
        origin: &mut Origin,
        points: usize,
        steps: std::ops::Range<usize>,
        ahead: &mut Ahead,
    ) {
        if self.accumulators.is_empty() {
            return;
        }
        let lanes = self.tile.fold_lanes() * points;
        // SAFETY: accumulators have the tile's lanes.
        unsafe {
            // All that is folded at once.
            if self.steps == 1 && self.accumulators.iter().all(Accumulator::starts_with_values) {
                machine.tile(&self.body, origin, lanes, ahead);
                let n = self.fold.seek(steps.start, origin) * points;
                machine.step(&self.body, origin, n, ahead);
                for (accumulator, inputs) in self.accumulators.iter().zip(&self.inputs) {
                    let values = machine.register(inputs[0]).cast_const();
                    accumulator.fold_values(self.isa, self.parts(machine, accumulator), values, n / points, points);
                }
                return;
            }
            for accumulator in &self.accumulators {
                accumulator.clear(self.parts(machine, accumulator), lanes);
            }
            let ahead = &mut Ahead::new(None);
            machine.tile(&self.body, origin, lanes, ahead);
            for step in steps {
                let n = self.fold.seek(step, origin) * points;
                machine.step(&self.body, origin, n, ahead);
                for (accumulator, inputs) in self.accumulators.iter().zip(&self.inputs) {
                    let inputs = inputs.map(|s| machine.register(s).cast_const());
                    accumulator.accumulate(self.isa, self.parts(machine, accumulator), inputs, n);
                }
            }
            for accumulator in &self.accumulators {
                accumulator.fold_lanes(self.isa, self.parts(machine, accumulator), self.tile.fold_lanes(), points);
            }
        }
    }
    unsafe fn parts(&self, machine: &Machine<'_>, accumulator: &Accumulator) -> Parts {
        let mut parts = [std::ptr::null_mut(); 3];
        // SAFETY: slots are those of the layout.
        parts.iter_mut().zip(&accumulator.parts).for_each(|(p, s)| *p = unsafe { machine.register(*s) });
        parts
    }

    /// Folds one chunk of a tile into `state`.
    unsafe fn partial(&self, machine: &Machine<'_>, tile: usize, chunk: usize, state: *mut u8) {
        let mut origin: Origin = [0; _];
        let points = self.parallel.seek(tile, &mut origin);
        let steps = self.steps * chunk / self.chunks..self.steps * (chunk + 1) / self.chunks;
        // SAFETY: the caller's promise.
        unsafe {
            machine.constants(&self.body);
            self.fold(machine, &mut origin, points, steps, &mut Ahead::new(None));
            for (accumulator, to) in self.accumulators.iter().zip(self.states(state)) {
                for (p, part) in self.parts(machine, accumulator).into_iter().take(accumulator.parts.len()).enumerate()
                {
                    to[p].copy_from_nonoverlapping(part, points * accumulator.lane_bytes(p));
                }
            }
        }
    }
    /// Where the parts of each accumulator lie in a partial state.
    fn states(&self, state: *mut u8) -> impl Iterator<Item = Parts> + '_ {
        let lanes = self.tile.parallel_lanes();
        let mut next = state;
        self.accumulators.iter().map(move |accumulator| {
            let mut parts = [std::ptr::null_mut(); 3];
            for (p, part) in parts.iter_mut().enumerate().take(accumulator.parts.len()) {
                *part = next;
                next = next.wrapping_add((accumulator.lane_bytes(p) * lanes).next_multiple_of(64));
            }
            parts
        })
    }
    /// Merges the partial states of a tile by a balanced tree and brings the result into the accumulators.
    unsafe fn gather(&self, machine: &Machine<'_>, states: *mut u8, points: usize) {
        let state = |chunk: usize| states.wrapping_add(chunk * self.state_bytes());
        let mut apart = 1;
        // SAFETY: the partial states lie in the workspace, one behind the other.
        unsafe {
            while apart < self.chunks {
                for chunk in (0..self.chunks - apart).step_by(2 * apart) {
                    let pairs = self.states(state(chunk)).zip(self.states(state(chunk + apart)));
                    for (accumulator, (into, from)) in self.accumulators.iter().zip(pairs) {
                        accumulator.merge(self.isa, into, from, points);
                    }
                }
                apart *= 2;
            }
            for (accumulator, from) in self.accumulators.iter().zip(self.states(state(0))) {
                for (p, part) in self.parts(machine, accumulator).into_iter().take(accumulator.parts.len()).enumerate()
                {
                    part.copy_from_nonoverlapping(from[p], points * accumulator.lane_bytes(p));
                }
            }
        }
    }
}

impl<'a> Draft<'a> {
    fn new(nest: &'a LoopNest, collapse: impl FnOnce(&mut Domain)) -> Self {
        let mut domain = Domain::new(&nest.axes);
        let accesses = domain.accesses(&nest.reads, &nest.operands, &nest.axes);
        let body = domain.program(&nest.body, &nest.axes);
        let epilogue = domain.program(&nest.epilogue, &nest.axes);
        let writes = nest.writes.iter().map(|w| domain.linear(&w.coords, &nest.results[w.result as usize])).collect();
        collapse(&mut domain);
        Draft { nest, domain, accesses, body, epilogue, writes }
    }
    fn best(&self) -> TileNest {
        let candidates = self.tiles().into_iter().map(|tile| self.build(tile));
        let best = candidates.min_by(|a, b| a.cost().total_cmp(&b.cost()));
        best.unwrap_or_else(|| self.build(Tile::new(&self.domain, 1, LANES)))
    }
    /// Tiles worth considering: along the parallel axes, along the fold, and mixtures.
    fn tiles(&self) -> Vec<Tile> {
        let mut tiles = vec![Tile::new(&self.domain, 1, LANES)];
        if !self.nest.folds.is_empty() && !self.domain.fold_is_empty {
            for parallel in [1, 4, 8, 16, 32, 64, 128] {
                let tile = Tile::new(&self.domain, LANES / parallel, parallel);
                if tile.fold_lanes() > 1 && !tiles.contains(&tile) {
                    tiles.push(tile);
                }
            }
        }
        if self.nest.folds.is_empty() {
            // Where something is read across the grain: the axis along which it is contiguous.
            let grain = |access: &Access| {
                let unit = |(axis, c): &(u16, i64)| (*c == 1).then_some(usize::from(*axis));
                self.domain.maps[access.linear].terms.iter().find_map(unit).filter(|axis| *axis < self.domain.parallel)
            };
            let turned = self.accesses.iter().filter_map(grain).filter_map(|axis| Tile::turned(&self.domain, axis));
            turned.for_each(|tile| {
                if !tiles.contains(&tile) {
                    tiles.push(tile)
                }
            });
        }
        tiles
    }

    fn build(&self, tile: Tile) -> TileNest {
        let Self { nest, domain, accesses, .. } = self;
        let mut slots = Slots::default();
        let accumulators: Vec<_> = nest.folds.iter().map(|f| Accumulator::new(f.monoid, f.dtype, &mut slots)).collect();
        let source = |code, outputs, folded, folds| Source { code, accesses, domain, outputs, folded, folds };
        let inputs: Vec<Reg> = nest.folds.iter().flat_map(|f| f.inputs.clone()).collect();
        let body = Program::compile(&source(&self.body, &inputs, &[], true), &tile, &mut slots);
        let folded: Vec<_> = accumulators.iter().map(|a| a.parts.clone()).collect();
        let values: Vec<Reg> = nest.writes.iter().map(|w| w.value).collect();
        let inner = tile.without_fold();
        let epilogue = Program::compile(&source(&self.epilogue, &values, &folded, false), &inner, &mut slots);
        let writer = |(write, map): (&thalweg_graph::kernel::Write, &usize)| {
            let result = write.result as usize;
            let writer = Writer::new(result, &nest.results[result], &domain.maps[*map], &inner);
            (writer, epilogue.slot(write.value))
        };
        let parallel = Walk::new(domain, &tile, 0..domain.parallel);
        let fold = Walk::new(domain, &tile, domain.parallel..domain.extents.len());
        let steps = if domain.fold_is_empty { 0 } else { fold.tiles };
        let few = parallel.tiles < 4 && steps >= 64;
        let fold_inputs = |f: &thalweg_graph::kernel::Fold| {
            let slot = |i: usize| f.inputs.get(i).map_or(0, |r| body.slot(*r));
            [slot(0), slot(1)]
        };
        let (lanes, merges) = (tile.lanes() as f64, (tile.fold_lanes() as f64).log2().ceil());
        let per_fold = steps as f64 * (15.0 + 0.1 * lanes) + merges * 8.0 + lanes * 0.1;
        let body_cost = if nest.folds.is_empty() { 0.0 } else { steps as f64 * body.cost() };
        TileNest {
            isa: Isa::detect(),
            is_empty: domain.is_empty,
            tile_cost: 20.0 + body_cost + nest.folds.len() as f64 * per_fold + epilogue.cost(),
            chunks: if few && !nest.folds.is_empty() { (steps / 16).min(16) } else { 1 },
            fetches_ahead: body.computes() + epilogue.computes() >= 4,
            layout: Layout::new(&slots, body.depth.max(epilogue.depth)),
            inputs: nest.folds.iter().map(fold_inputs).collect(),
            writers: nest.writes.iter().zip(&self.writes).map(writer).collect(),
            tile,
            parallel,
            fold,
            steps,
            body,
            accumulators,
            epilogue,
        }
    }
}
