//! A device on which something happens first, for tests of what goes wrong and when.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use thalweg_graph::lower::Target;
use thalweg_graph::plan::{Memory, Plan};
use thalweg_runtime::device::{AbortFlag, Device, DeviceError, Lent, Loaded, Timing};

/// A device that does something first whenever it is to run: `before` is given the number of the stretch and the flag.
struct Odd<F>(Box<dyn Device>, F, usize);

/// `device` with something to be done first.
pub(crate) fn odd<F>(device: Box<dyn Device>, before: F) -> Box<dyn Device>
where
    F: FnMut(usize, Option<&AbortFlag>) -> Result<(), DeviceError> + Send + 'static,
{
    Box::new(Odd(device, before, 0))
}

impl<F: FnMut(usize, Option<&AbortFlag>) -> Result<(), DeviceError> + Send> Device for Odd<F> {
    fn target(&self) -> &dyn Target {
        self.0.target()
    }
    fn reserve_state(&mut self, bytes: u64) -> Result<(), DeviceError> {
        self.0.reserve_state(bytes)
    }
    fn load(&mut self, plan: &Arc<Plan>, part: usize) -> Result<Loaded, DeviceError> {
        self.0.load(plan, part)
    }
    fn unload(&mut self, loaded: Loaded) {
        self.0.unload(loaded);
    }
    fn run(&mut self, loaded: Loaded, range: Range<usize>, abort: Option<&AbortFlag>) -> Result<(), DeviceError> {
        self.run_lent(loaded, range, abort, &mut [])
    }
    fn borrows(&self) -> bool {
        self.0.borrows()
    }
    fn run_lent(
        &mut self,
        loaded: Loaded,
        range: Range<usize>,
        abort: Option<&AbortFlag>,
        lent: &mut [Lent<'_>],
    ) -> Result<(), DeviceError> {
        self.2 += 1;
        (self.1)(self.2 - 1, abort)?;
        self.0.run_lent(loaded, range, abort, lent)
    }
    fn time(&mut self, on: bool) -> Vec<Timing> {
        self.0.time(on)
    }
    fn now(&self) -> Duration {
        self.0.now()
    }
    fn strategy(&self, loaded: Loaded, instruction: usize) -> String {
        self.0.strategy(loaded, instruction)
    }
    fn write(&mut self, memory: Memory, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.0.write(memory, offset, bytes)
    }
    fn read(&mut self, memory: Memory, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.0.read(memory, offset, bytes)
    }
    fn reserved(&self, memory: Memory) -> u64 {
        self.0.reserved(memory)
    }
}
