//! A null replay: the processes, sockets, hops and bytes of a plan, and nothing else; no launch runs, nothing is copied and no
//! checksum taken. It is what a plan's communication would take if all else were free, and so what the real thing is measured
//! by. What comes out means nothing.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use thalweg_graph::lower::Target;
use thalweg_graph::plan::{Memory, Plan};
use thalweg_runtime::device::{Lent, Loaded};
use thalweg_runtime::{AbortFlag, Device, DeviceError, Timing};

/// Bytes that are written at a time where nobody has written yet.
const TOUCHED_BYTES: u64 = 1 << 20;

/// A device that is asked for everything and does nothing.
pub(crate) struct Null(pub(crate) Box<dyn Device>);

impl Device for Null {
    fn target(&self) -> &dyn Target {
        self.0.target()
    }
    fn reserve_state(&mut self, bytes: u64) -> Result<(), DeviceError> {
        self.0.reserve_state(bytes)
    }
    fn load(&mut self, plan: &Arc<Plan>, part: usize) -> Result<Loaded, DeviceError> {
        let loaded = self.0.load(plan, part)?;
        // What was never written is one page of zeros to the system, and in every cache: sending it would cost less than
        // sending what a plan sends.
        let zeros = vec![0; TOUCHED_BYTES as usize];
        for memory in Memory::ALL.into_iter().filter(|m| *m != Memory::State) {
            let there = self.0.reserved(memory);
            for at in (0..there).step_by(TOUCHED_BYTES as usize) {
                self.0.write(memory, at, &zeros[..TOUCHED_BYTES.min(there - at) as usize])?;
            }
        }
        Ok(loaded)
    }
    fn unload(&mut self, loaded: Loaded) {
        self.0.unload(loaded);
    }
    fn run(&mut self, _: Loaded, _: Range<usize>, _: Option<&AbortFlag>) -> Result<(), DeviceError> {
        Ok(())
    }
    fn borrows(&self) -> bool {
        self.0.borrows()
    }
    fn run_lent(
        &mut self,
        _: Loaded,
        _: Range<usize>,
        _: Option<&AbortFlag>,
        _: &mut [Lent<'_>],
    ) -> Result<(), DeviceError> {
        Ok(())
    }
    fn time(&mut self, on: bool) -> Vec<Timing> {
        self.0.time(on)
    }
    fn now(&self) -> Duration {
        self.0.now()
    }
    fn strategy(&self, _: Loaded, _: usize) -> String {
        "nothing".into()
    }
    fn write(&mut self, memory: Memory, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        // Variables are written between steps alone; what arrives in one is written elsewhere.
        if memory == Memory::State { self.0.write(memory, offset, bytes) } else { Ok(()) }
    }
    fn read(&mut self, _: Memory, _: u64, _: &mut [u8]) -> Result<(), DeviceError> {
        Ok(())
    }
    fn peek(&self, memory: Memory, offset: u64, len: usize) -> Option<&[u8]> {
        self.0.peek(memory, offset, len)
    }
    fn reserved(&self, memory: Memory) -> u64 {
        self.0.reserved(memory)
    }
}
