//! The CPU as a device: arenas in host memory, kernels compiled once per distinct text, launches on a fixed number of
//! threads. Nothing is allocated while a step runs.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thalweg_graph::kernel::Kernel;
use thalweg_graph::lower::Target;
use thalweg_graph::plan::lend::lendable as lendable_buffer;
use thalweg_graph::plan::{Buffer, BufferId, Endpoint, Instruction, Memory, Plan};
use thalweg_runtime::device::{AbortFlag, Device, DeviceError, Lent, Loaded, Timing};
use thalweg_runtime::memory::HostArenas;

use crate::isa::Isa;
use crate::kernel::CompiledKernel;
use crate::scratch;

/// Some or all cores of this machine.
pub struct CpuDevice {
    target: CpuTarget,
    pool: Option<rayon::ThreadPool>,
    arenas: HostArenas,
    plans: Vec<Option<LoadedPlan>>,
    /// Pointers of the step and of the launch that is running; kept to be reused.
    pointers: Pointers,
    /// When this device was made; what timings count from.
    epoch: Instant,
    timings: Option<Vec<Timing>>,
}

// SAFETY: the pointers are only filled and used within one call of `run`.
unsafe impl Send for CpuDevice {}

#[derive(Default)]
struct Pointers {
    /// Where each [`Base`] begins.
    bases: Vec<*mut u8>,
    reads: Vec<*const u8>,
    writes: Vec<*mut u8>,
}

struct LoadedPlan {
    actions: Vec<Action>,
    /// By channel, the buffer for which the caller's memory may stand in, and whether it is written.
    lendable: Vec<Option<(Place, bool)>>,
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

/// What a place counts from: one of the arenas, in the order of [`Memory::ALL`], or, behind them, the memory of a channel.
type Base = usize;

#[derive(Clone)]
struct Place {
    base: Base,
    offset: usize,
    bytes: usize,
}

impl Place {
    fn of(buffer: &Buffer) -> Self {
        let Range { start, end } = buffer.range();
        // The order of `Memory::ALL` is that of its variants.
        Self { base: buffer.memory as Base, offset: start as usize, bytes: (end - start) as usize }
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
            target: CpuTarget { name: name.into(), compiled: Mutex::default() },
            pool: (threads > 1).then(pool).transpose().map_err(failed)?,
            arenas: HostArenas::default(),
            plans: vec![],
            pointers: Default::default(),
            epoch: Instant::now(),
            timings: None,
        })
    }

    fn reserve(&mut self, memory: Memory, needed: u64) -> Result<(), DeviceError> {
        let room = self.arenas.reserve(memory, needed);
        let (device, memory) = (self.target.name(), memory.name());
        room.then_some(()).ok_or(DeviceError::OutOfMemory { device, memory, needed, detail: String::new() })
    }
}

/// What lowering asks of a CPU, and the kernels that it has compiled so far.
struct CpuTarget {
    name: Arc<str>,
    compiled: Mutex<HashMap<Kernel, Arc<CompiledKernel>>>,
}

impl CpuTarget {
    fn compiled(&self) -> MutexGuard<'_, HashMap<Kernel, Arc<CompiledKernel>>> {
        // What is in the table is whole, whatever happened to who held it.
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn compile(&self, kernel: &Kernel) -> Result<Arc<CompiledKernel>, String> {
        if let Some(found) = self.compiled().get(kernel) {
            return Ok(found.clone());
        }
        let compiled = Arc::new(CompiledKernel::compile(kernel).map_err(|e| e.to_string())?);
        self.compiled().insert(kernel.clone(), compiled.clone());
        Ok(compiled)
    }
}

impl Target for CpuTarget {
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
        &self.target
    }
    fn reserve_state(&mut self, bytes: u64) -> Result<(), DeviceError> {
        self.reserve(Memory::State, bytes)
    }
    fn load(&mut self, plan: &Arc<Plan>, part: usize) -> Result<Loaded, DeviceError> {
        let device = &plan.devices[part];
        self.reserve(Memory::Scratch, device.scratch_bytes)?;
        self.reserve(Memory::Staging, device.staging_bytes)?;
        let mut lendable = Vec::with_capacity(plan.channels.len());
        let mut places: Vec<Place> = device.buffers.values().iter().map(Place::of).collect();
        let inside = |b: &Buffer| b.range().end <= self.arenas.reserved(b.memory);
        let fits: Vec<bool> = device.buffers.values().iter().map(inside).collect();
        for (channel, ends) in plan.channels.iter() {
            lendable.push(lendable_buffer(device, channel).map(|id| {
                let place = &mut places[id.0 as usize];
                let bytes = place.bytes;
                let lent = Place { base: Memory::ALL.len() + channel.0 as usize, offset: 0, bytes };
                (std::mem::replace(place, lent), ends.from == Endpoint::Device(part as u16))
            }));
        }
        let mut actions = Vec::with_capacity(device.instructions.len());
        let mut thread_bytes = 0;
        for instruction in &device.instructions {
            let failed = |label: &Arc<str>, cause: String| DeviceError::Launch {
                device: self.target.name(),
                label: label.clone(),
                cause,
            };
            actions.push(match instruction {
                Instruction::Launch(launch) => {
                    let kernel =
                        self.target.compile(&plan.kernels[launch.kernel]).map_err(|e| failed(&launch.label, e))?;
                    let find = |ids: &[BufferId]| ids.iter().map(|b| places[b.0 as usize].clone()).collect::<Vec<_>>();
                    let (reads, writes) = (find(&launch.reads), find(&launch.writes));
                    let (offset, bytes) = launch.workspace;
                    let fits = launch.reads.iter().chain(&launch.writes).all(|b| fits[b.0 as usize])
                        && bytes >= kernel.workspace_bytes() as u64
                        && offset.checked_add(bytes).is_some_and(|end| end <= self.arenas.reserved(Memory::Scratch));
                    if !fits {
                        return Err(failed(&launch.label, "the plan leaves its arenas".into()));
                    }
                    thread_bytes = thread_bytes.max(kernel.thread_bytes());
                    Action::Launch { kernel, reads, writes, workspace: offset }
                }
                Instruction::Copy { from, to } => {
                    Action::Copy { from: places[from.0 as usize].clone(), to: places[to.0 as usize].clone() }
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
        self.plans[slot] = Some(LoadedPlan { actions, lendable });
        Ok(Loaded(slot))
    }
    fn unload(&mut self, loaded: Loaded) {
        self.plans[loaded.0] = None;
        self.target.compiled().retain(|_, k| Arc::strong_count(k) > 1);
    }
    fn run(&mut self, loaded: Loaded, range: Range<usize>, abort: Option<&AbortFlag>) -> Result<(), DeviceError> {
        self.run_lent(loaded, range, abort, &mut [])
    }
    fn borrows(&self) -> bool {
        true
    }
    fn run_lent(
        &mut self,
        loaded: Loaded,
        range: Range<usize>,
        abort: Option<&AbortFlag>,
        lent: &mut [Lent<'_>],
    ) -> Result<(), DeviceError> {
        let Self { plans, arenas, pool, pointers, epoch, timings, .. } = self;
        let Pointers { bases, reads: reads_at, writes: writes_at } = pointers;
        let LoadedPlan { actions, lendable } = plans[loaded.0].as_ref().expect("a loaded plan");
        bases.clear();
        bases.extend(Memory::ALL.map(|m| arenas.bytes_mut(m).as_mut_ptr()));
        // What is not lent is where the plan says; what nobody may lend, nobody looks for here.
        let planned = |place: &Option<(Place, bool)>, bases: &[*mut u8]| match place {
            Some((place, _)) => bases[place.base].wrapping_add(place.offset),
            None => std::ptr::null_mut(),
        };
        lendable.iter().for_each(|place| bases.push(planned(place, bases)));
        for lent in lent {
            let (channel, at, bytes, writable) = match lent {
                Lent::Feed(channel, bytes) => (*channel, bytes.as_ptr().cast_mut(), bytes.len(), false),
                Lent::Output(channel, bytes) => (*channel, bytes.as_mut_ptr(), bytes.len(), true),
            };
            let fits = lendable[channel.0 as usize].as_ref().is_some_and(|(p, w)| (p.bytes, *w) == (bytes, writable));
            assert!(fits, "{bytes} bytes are lent for channel {channel}, which does not borrow them");
            bases[Memory::ALL.len() + channel.0 as usize] = at;
        }
        let at = |place: &Place| bases[place.base].wrapping_add(place.offset);
        for (instruction, action) in actions[range.clone()].iter().enumerate() {
            let started = timings.as_ref().map(|_| Instant::now());
            if abort.is_some_and(AbortFlag::is_raised) {
                return Err(DeviceError::Aborted);
            }
            match action {
                Action::Launch { kernel, reads, writes, workspace } => {
                    reads_at.clear();
                    writes_at.clear();
                    reads_at.extend(reads.iter().map(|r| at(r).cast_const()));
                    writes_at.extend(writes.iter().map(at));
                    let scratch = bases[Memory::Scratch as usize].wrapping_add(*workspace as usize);
                    // SAFETY: the plan was verified (types, lifetimes, aliasing only where a kernel may write in place)
                    // `load` checked that every place and the workspace lie inside the arenas, and what is lent has the
                    // size of the buffer that it stands in for. Feeds are only read: `lendable` saw that nobody writes
                    // them.
                    unsafe { kernel.run(reads_at, writes_at, scratch, pool.as_ref()) };
                }
                Action::Copy { from, to } => {
                    // SAFETY: both places are as large as above; `copy` allows overlap.
                    unsafe { std::ptr::copy(at(from).cast_const(), at(to), from.bytes) };
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
    fn peek(&self, memory: Memory, offset: u64, len: usize) -> Option<&[u8]> {
        Some(self.arenas.slice(memory, offset..offset + len as u64))
    }
    fn reserved(&self, memory: Memory) -> u64 {
        self.arenas.reserved(memory)
    }
}
