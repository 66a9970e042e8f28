//! A device that runs plans through the kernel interpreter: slow, and right by definition. It separates mistakes of
//! lowering from mistakes of a real device's kernels.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thalweg_graph::array::Array;
use thalweg_graph::kernel::interpret::{Precision, Values, run};
use thalweg_graph::kernel::{BufferType, Kernel};
use thalweg_graph::lower::Target;
use thalweg_graph::plan::{BufferId, Instruction, Memory, Plan};

use crate::device::{AbortFlag, Device, DeviceError, Loaded, Timing};
use crate::memory::HostArenas;

/// The interpreter as a device.
pub struct ReferenceDevice {
    arenas: HostArenas,
    plans: Vec<Option<(Arc<Plan>, usize)>>,
    epoch: Instant,
}

impl Default for ReferenceDevice {
    fn default() -> Self {
        Self { arenas: HostArenas::default(), plans: vec![], epoch: Instant::now() }
    }
}

/// What lowering asks of the interpreter.
struct ReferenceTarget;

impl Target for ReferenceTarget {
    fn name(&self) -> Arc<str> {
        "reference".into()
    }
    fn workspace_bytes(&self, _: &Kernel) -> u64 {
        0
    }
    fn runs_epilogues(&self) -> bool {
        true
    }
    fn runs_groups(&self) -> bool {
        true
    }
}

impl ReferenceDevice {
    fn reserve(&mut self, memory: Memory, needed: u64) -> Result<(), DeviceError> {
        let room = self.arenas.reserve(memory, needed);
        let (device, memory) = (self.target().name(), memory.name());
        room.then_some(()).ok_or(DeviceError::OutOfMemory { device, memory, needed, detail: String::new() })
    }
    fn get(&self, plan: &Plan, part: usize, id: BufferId, ty: &BufferType) -> Values {
        let buffer = &plan.devices[part].buffers[id];
        let mut array = Array::zeros(ty.dtype, &ty.shape);
        array.bytes_mut().copy_from_slice(self.arenas.slice(buffer.memory, buffer.range()));
        Values::from_array(&array)
    }
}

impl Device for ReferenceDevice {
    fn target(&self) -> &dyn Target {
        &ReferenceTarget
    }
    fn reserve_state(&mut self, bytes: u64) -> Result<(), DeviceError> {
        self.reserve(Memory::State, bytes)
    }
    fn load(&mut self, plan: &Arc<Plan>, part: usize) -> Result<Loaded, DeviceError> {
        for memory in Memory::ALL {
            self.reserve(memory, plan.devices[part].bytes(memory))?;
        }
        self.plans.push(Some((plan.clone(), part)));
        Ok(Loaded(self.plans.len() - 1))
    }
    fn unload(&mut self, loaded: Loaded) {
        self.plans[loaded.0] = None;
    }
    fn run(&mut self, loaded: Loaded, range: Range<usize>, abort: Option<&AbortFlag>) -> Result<(), DeviceError> {
        let (plan, part) = self.plans[loaded.0].clone().expect("a loaded plan");
        for instruction in &plan.devices[part].instructions[range] {
            if abort.is_some_and(AbortFlag::is_raised) {
                return Err(DeviceError::Aborted);
            }
            match instruction {
                Instruction::Launch(launch) => {
                    let kernel = &plan.kernels[launch.kernel];
                    let operands: Vec<Values> =
                        launch.reads.iter().zip(kernel.operands()).map(|(b, t)| self.get(&plan, part, *b, t)).collect();
                    let results = run(kernel, &operands.iter().collect::<Vec<_>>(), Precision::Exact);
                    for (id, values) in launch.writes.iter().zip(results) {
                        let buffer = &plan.devices[part].buffers[*id];
                        self.arenas.slice_mut(buffer.memory, buffer.range()).copy_from_slice(values.to_array().bytes());
                    }
                }
                Instruction::Copy { from, to } => {
                    let (from, to) = (&plan.devices[part].buffers[*from], &plan.devices[part].buffers[*to]);
                    let bytes = self.arenas.slice(from.memory, from.range()).to_vec();
                    self.arenas.slice_mut(to.memory, to.range()).copy_from_slice(&bytes);
                }
                other => unreachable!("the executor handles {other:?}"),
            }
        }
        Ok(())
    }
    fn time(&mut self, _: bool) -> Vec<Timing> {
        // How long the interpreter takes says nothing about anything.
        vec![]
    }
    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
    fn strategy(&self, _: Loaded, _: usize) -> String {
        "interpreter".into()
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
