//! The CPU as a device: arenas in host memory, kernels compiled once per distinct text, launches on a fixed number of
//! threads. Nothing is allocated while a step runs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thalweg_graph::kernel::Kernel;
use thalweg_graph::lower::Target;
use thalweg_graph::plan::{Buffer, DevicePlan, Instruction, Memory, Plan};
use thalweg_runtime::device::{AbortFlag, Device, DeviceError, Lent, Loaded, Timing};
use thalweg_runtime::memory::HostArenas;

use crate::isa::Isa;
use crate::kernel::CompiledKernel;
use crate::scratch;

/// Some or all cores of this machine.
pub struct CpuDevice {
    name: Arc<str>,
    pool: Option<rayon::ThreadPool>,
    arenas: HostArenas,
    compiled: RefCell<HashMap<Kernel, Arc<CompiledKernel>>>,
    plans: Vec<Option<LoadedPlan>>,
    /// Pointers of the launch that is running; kept to be reused.
    pointers: (Vec<*const u8>, Vec<*mut u8>),
    /// When this device was made; what timings count from.
    epoch: Instant,
    timings: Option<Vec<Timing>>,
}

// SAFETY: the pointers are only filled and used within one call of `run`.
unsafe impl Send for CpuDevice {}

struct LoadedPlan {
    actions: Vec<Action>,
    /// See [`Device::borrows_feeds`].
    borrows: bool,
}

/// An instruction of a loaded plan, with everything looked up.
enum Action {
    Launch {
        kernel: Arc<CompiledKernel>,
        reads: Vec<Place>,
        writes: Vec<Place>,
        workspace: u64,
    },
    Copy {
        from: Place,
        to: Place,
    },
    /// The executor's.
    Other,
}

#[derive(Clone)]
struct Place {
    memory: Memory,
    range: Range<u64>,
}

impl Place {
    fn of(buffer: &Buffer) -> Self {
        Self { memory: buffer.memory, range: buffer.range() }
    }
}

impl CpuDevice {
    /// A device of `threads` threads; one thread runs everything on the caller's.
    ///
    /// # Errors
    /// If the threads cannot be started, or `THALWEG_ISA` asks for instructions that the machine has not.
    pub fn new(name: &str, threads: usize) -> Result<Self, DeviceError> {
        Isa::asked().map_err(|cause| DeviceError::Open { device: name.into(), cause })?;
        let named = |i| format!("cpu-{i}");
        let pool = || rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(named).build();
        let failed = |e: rayon::ThreadPoolBuildError| DeviceError::Open { device: name.into(), cause: e.to_string() };
        Ok(Self {
            name: name.into(),
            pool: (threads > 1).then(pool).transpose().map_err(failed)?,
            arenas: HostArenas::default(),
            compiled: RefCell::default(),
            plans: vec![],
            pointers: Default::default(),
            epoch: Instant::now(),
            timings: None,
        })
    }

    fn compile(&self, kernel: &Kernel) -> Result<Arc<CompiledKernel>, String> {
        if let Some(found) = self.compiled.borrow().get(kernel) {
            return Ok(found.clone());
        }
        let compiled = Arc::new(CompiledKernel::compile(kernel).map_err(|e| e.to_string())?);
        self.compiled.borrow_mut().insert(kernel.clone(), compiled.clone());
        Ok(compiled)
    }

    fn reserve(&mut self, memory: Memory, needed: u64) -> Result<(), DeviceError> {
        let room = self.arenas.reserve(memory, needed);
        let (device, memory) = (self.name.clone(), memory.name());
        room.then_some(()).ok_or(DeviceError::OutOfMemory { device, memory, needed })
    }
}

/// Whether feeds may stay where the caller has them: nothing is written to staging, and whatever is read of it lies in one
/// feed.
fn may_borrow(device: &DevicePlan, actions: &[Action]) -> bool {
    let arrives = |i: &Instruction| match i {
        Instruction::Wait { buffer, .. } => Some(Place::of(&device.buffers[*buffer])),
        _ => None,
    };
    let feeds: Vec<Place> = device.instructions.iter().filter_map(arrives).collect();
    let inside = |p: &Place| {
        let within = |f: &Place| f.memory == p.memory && f.range.start <= p.range.start && p.range.end <= f.range.end;
        p.memory != Memory::Staging || feeds.iter().any(within)
    };
    actions.iter().all(|action| match action {
        Action::Launch { reads, writes, .. } => {
            reads.iter().all(inside) && writes.iter().all(|w| w.memory != Memory::Staging)
        }
        Action::Copy { from, to } => inside(from) && to.memory != Memory::Staging,
        Action::Other => true,
    })
}

impl Target for CpuDevice {
    fn name(&self) -> Arc<str> {
        self.name.clone()
    }
    fn workspace_bytes(&self, kernel: &Kernel) -> u64 {
        self.compile(kernel).map_or(0, |k| k.workspace_bytes() as u64)
    }
    fn runs_epilogues(&self) -> bool {
        true
    }
    fn runs_groups(&self) -> bool {
        true
    }
}

impl Device for CpuDevice {
    fn target(&self) -> &dyn Target {
        self
    }
    fn reserve_state(&mut self, bytes: u64) -> Result<(), DeviceError> {
        self.reserve(Memory::State, bytes)
    }
    fn load(&mut self, plan: &Arc<Plan>, part: usize) -> Result<Loaded, DeviceError> {
        let device = &plan.devices[part];
        self.reserve(Memory::Scratch, device.scratch_bytes)?;
        self.reserve(Memory::Staging, device.staging_bytes)?;
        let mut actions = Vec::with_capacity(device.instructions.len());
        let mut thread_bytes = 0;
        for instruction in &device.instructions {
            let failed = |label: &Arc<str>, cause: String| DeviceError::Launch {
                device: self.name.clone(),
                label: label.clone(),
                cause,
            };
            actions.push(match instruction {
                Instruction::Launch(launch) => {
                    let kernel = self.compile(&plan.kernels[launch.kernel]).map_err(|e| failed(&launch.label, e))?;
                    let places = |ids: &[_]| ids.iter().map(|b| Place::of(&device.buffers[*b])).collect::<Vec<_>>();
                    let (reads, writes) = (places(&launch.reads), places(&launch.writes));
                    let (offset, bytes) = launch.workspace;
                    let inside = |p: &Place| p.range.end <= self.arenas.reserved(p.memory);
                    let fits = reads.iter().chain(&writes).all(inside)
                        && bytes >= kernel.workspace_bytes() as u64
                        && offset.checked_add(bytes).is_some_and(|end| end <= self.arenas.reserved(Memory::Scratch));
                    if !fits {
                        return Err(failed(&launch.label, "the plan leaves its arenas".into()));
                    }
                    thread_bytes = thread_bytes.max(kernel.thread_bytes());
                    Action::Launch { kernel, reads, writes, workspace: offset }
                }
                Instruction::Copy { from, to } => {
                    Action::Copy { from: Place::of(&device.buffers[*from]), to: Place::of(&device.buffers[*to]) }
                }
                _ => Action::Other,
            });
        }
        scratch::reserve(thread_bytes, self.pool.as_ref());
        let free = self.plans.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.plans.push(None);
            self.plans.len() - 1
        });
        self.plans[slot] = Some(LoadedPlan { borrows: may_borrow(device, &actions), actions });
        Ok(Loaded(slot))
    }
    fn unload(&mut self, loaded: Loaded) {
        self.plans[loaded.0] = None;
        self.compiled.borrow_mut().retain(|_, k| Arc::strong_count(k) > 1);
    }
    fn run(&mut self, loaded: Loaded, range: Range<usize>, abort: Option<&AbortFlag>) -> Result<(), DeviceError> {
        self.run_lent(loaded, range, abort, &[])
    }
    fn borrows_feeds(&self, loaded: Loaded) -> bool {
        self.plans[loaded.0].as_ref().is_some_and(|p| p.borrows)
    }
    fn run_lent(
        &mut self,
        loaded: Loaded,
        range: Range<usize>,
        abort: Option<&AbortFlag>,
        lent: &[Lent<'_>],
    ) -> Result<(), DeviceError> {
        let Self { plans, arenas, pool, pointers: (reads_at, writes_at), epoch, timings, .. } = self;
        let LoadedPlan { actions, .. } = plans[loaded.0].as_ref().expect("a loaded plan");
        let base = Memory::ALL.map(|m| arenas.bytes_mut(m).as_mut_ptr());
        // The order of `Memory::ALL` is that of its variants.
        let at = |place: &Place| base[place.memory as usize].wrapping_add(place.range.start as usize);
        // Only ever read through: `may_borrow` saw that nothing is written to staging.
        let from = |place: &Place| {
            let feed = |l: &Lent<'_>| l.range(place.range.clone()).map(<[u8]>::as_ptr);
            let found = if place.memory == Memory::Staging { lent.iter().find_map(feed) } else { None };
            found.unwrap_or_else(|| at(place).cast_const())
        };
        for (instruction, action) in actions[range.clone()].iter().enumerate() {
            let started = timings.as_ref().map(|_| Instant::now());
            if abort.is_some_and(AbortFlag::is_raised) {
                return Err(DeviceError::Aborted);
            }
            match action {
                Action::Launch { kernel, reads, writes, workspace } => {
                    reads_at.clear();
                    writes_at.clear();
                    reads_at.extend(reads.iter().map(from));
                    writes_at.extend(writes.iter().map(at));
                    let scratch = base[Memory::Scratch as usize].wrapping_add(*workspace as usize);
                    // SAFETY: the plan was verified (types, lifetimes, aliasing only where a kernel may write in place)
                    // and `load` checked that every place and the workspace lie inside the arenas.
                    unsafe { kernel.run(reads_at, writes_at, scratch, pool.as_ref()) };
                }
                Action::Copy { from: source, to } => {
                    let bytes = (source.range.end - source.range.start) as usize;
                    // SAFETY: both places lie inside arenas, as above; `copy` allows overlap.
                    unsafe { std::ptr::copy(from(source), at(to), bytes) };
                }
                Action::Other => unreachable!("channels and commits are the executor's"),
            }
            if let (Some(timings), Some(started)) = (timings.as_mut(), started) {
                let (start, took) = (started - *epoch, started.elapsed());
                timings.push(Timing { loaded, instruction: range.start + instruction, start, took });
            }
        }
        Ok(())
    }
    fn time(&mut self, on: bool) -> Vec<Timing> {
        std::mem::replace(&mut self.timings, on.then(Vec::new)).unwrap_or_default()
    }
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
    fn strategy(&self, loaded: Loaded, instruction: usize) -> String {
        match self.plans[loaded.0].as_ref().and_then(|p| p.actions.get(instruction)) {
            Some(Action::Launch { kernel, .. }) => kernel.strategy(),
            Some(Action::Copy { .. }) => "copy".into(),
            _ => String::new(),
        }
    }
    fn write(&mut self, memory: Memory, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.arenas.write(memory, offset, bytes);
        Ok(())
    }
    fn read(&mut self, memory: Memory, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.arenas.read(memory, offset, bytes);
        Ok(())
    }
    fn reserved(&self, memory: Memory) -> u64 {
        self.arenas.reserved(memory)
    }
}
