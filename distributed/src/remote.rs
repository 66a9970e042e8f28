//! A worker as the driver has it: a connection on which orders are answered, and a [`Device`] that stands for the one there.
//! What lowering has to know of it a twin says, a device of the same kind in this process on which nothing is loaded.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use thalweg_graph::Hash;
use thalweg_graph::lower::Target;
use thalweg_graph::plan::{Memory, Plan};
use thalweg_runtime::checkpoint::{Pending, ShardOrder, ShardReport};
use thalweg_runtime::device::Loaded;
use thalweg_runtime::{AbortFlag, Device, DeviceError, Timing, crash};

use crate::control::Line;
use crate::message::Order;
use crate::tally::Tally;
use crate::{BEAT, SILENCE_LIMIT, lock, patience};

/// Bytes of state that one message carries.
const STRETCH_BYTES: usize = 4 << 20;

/// What came of an order, and the bytes with it.
pub(crate) type Answer = (Result<u64, String>, Vec<u8>);

/// The way to a worker.
pub(crate) struct Remote {
    pub(crate) name: Arc<str>,
    pub(crate) process: u32,
    pub(crate) line: Line<Order>,
    pub(crate) answers: Mutex<Receiver<Answer>>,
    /// Who waits for what it saves.
    pub(crate) saved: Mutex<Option<Sender<Result<ShardReport, String>>>>,
    /// What its device was doing when it last said so.
    pub(crate) doing: Mutex<String>,
    /// When it last said anything.
    pub(crate) heard: Mutex<Instant>,
    pub(crate) tally: Tally,
}

impl Remote {
    /// It has said something.
    pub(crate) fn hear(&self) {
        *lock(&self.heard) = Instant::now();
    }
    /// What is to be said of a worker that has not been heard of for too long.
    pub(crate) fn silence(&self) -> Option<String> {
        let silent = lock(&self.heard).elapsed() > patience(SILENCE_LIMIT);
        silent.then(|| format!("it has not been heard of for {SILENCE_LIMIT:?}"))
    }
    /// Says something, and counts it.
    ///
    /// # Errors
    /// If the connection does not take it.
    pub(crate) fn say(&self, order: &Order, bytes: &[u8]) -> std::io::Result<()> {
        self.tally.said(order);
        self.line.say(order, bytes)
    }
    /// Says something that is answered, and waits for the answer.
    ///
    /// # Errors
    /// If it is gone, or says that it cannot.
    pub(crate) fn ask(&self, order: &Order, bytes: &[u8]) -> Result<(u64, Vec<u8>), DeviceError> {
        let gone = |cause: String| DeviceError::Gone { place: self.name.clone(), cause };
        let answers = lock(&self.answers);
        self.say(order, bytes).map_err(|e| gone(format!("it is gone: {e}")))?;
        let (result, bytes) = loop {
            match answers.recv_timeout(BEAT) {
                Ok(answer) => break answer,
                Err(RecvTimeoutError::Timeout) => self.silence().map_or(Ok(()), |why| Err(gone(why)))?,
                Err(RecvTimeoutError::Disconnected) => return Err(gone("it is gone".into())),
            }
        };
        Ok((result.map_err(|cause| DeviceError::Elsewhere { place: self.name.clone(), cause })?, bytes))
    }
}

/// Ends the connections to all of them.
pub(crate) fn hang_up(remotes: &[Arc<Remote>]) {
    // All at once first: whoever does not answer keeps the others no longer.
    remotes.iter().for_each(|remote| remote.line.finish());
    remotes.iter().for_each(|remote| remote.line.hang_up());
}

/// A device that a worker hosts.
pub(crate) struct RemoteDevice {
    pub(crate) remote: Arc<Remote>,
    pub(crate) twin: Box<dyn Device>,
}

impl Device for RemoteDevice {
    fn target(&self) -> &dyn Target {
        self.twin.target()
    }
    fn reserve_state(&mut self, bytes: u64) -> Result<(), DeviceError> {
        self.remote.ask(&Order::ReserveState(bytes), &[]).map(|_| ())
    }
    fn load(&mut self, plan: &Arc<Plan>, _: usize) -> Result<Loaded, DeviceError> {
        crash::point("loading");
        let bytes = plan.to_bytes();
        let (number, _) = self.remote.ask(&Order::Load(Hash::of(&bytes).0), &bytes)?;
        Ok(Loaded(number as usize))
    }
    fn unload(&mut self, loaded: Loaded) {
        // Who is gone has unloaded everything.
        let _ = self.remote.ask(&Order::Unload(loaded.0 as u32), &[]);
    }
    fn run(&mut self, _: Loaded, _: std::ops::Range<usize>, _: Option<&AbortFlag>) -> Result<(), DeviceError> {
        let cause = "its launches are run there".into();
        Err(DeviceError::Elsewhere { place: self.remote.name.clone(), cause })
    }
    fn borrows(&self) -> bool {
        self.twin.borrows()
    }
    fn time(&mut self, on: bool) -> Vec<Timing> {
        self.remote.time(on)
    }
    fn now(&self) -> Duration {
        self.remote.clock()
    }
    fn strategy(&self, loaded: Loaded, instruction: usize) -> String {
        self.remote.strategy(loaded, instruction)
    }
    fn write(&mut self, memory: Memory, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        crash::point("restoring");
        let stretches = bytes.chunks(STRETCH_BYTES).enumerate();
        let mut at = stretches.map(|(i, bytes)| (offset + (i * STRETCH_BYTES) as u64, bytes));
        at.try_for_each(|(at, bytes)| self.remote.ask(&Order::Write(memory, at), bytes).map(|_| ()))
    }
    fn read(&mut self, memory: Memory, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        for (i, into) in bytes.chunks_mut(STRETCH_BYTES).enumerate() {
            let at = offset + (i * STRETCH_BYTES) as u64;
            let (_, read) = self.remote.ask(&Order::Read(memory, at, into.len() as u32), &[])?;
            if read.len() != into.len() {
                let cause = format!("it gave {} bytes, not {}", read.len(), into.len());
                return Err(DeviceError::Elsewhere { place: self.remote.name.clone(), cause });
            }
            into.copy_from_slice(&read);
        }
        Ok(())
    }
    fn save(&mut self, order: &ShardOrder) -> Result<Pending, DeviceError> {
        let (sender, receiver) = mpsc::channel();
        *lock(&self.remote.saved) = Some(sender);
        self.remote.ask(&Order::Save(order.clone()), &[])?;
        let name = self.remote.name.clone();
        Ok(Box::new(move || match receiver.recv() {
            Ok(report) => report.map_err(|cause| DeviceError::Elsewhere { place: name, cause }),
            Err(_) => Err(DeviceError::Gone { place: name, cause: "it is gone, and was saving".into() }),
        }))
    }
    fn reserved(&self, memory: Memory) -> u64 {
        // Nothing, of who is gone.
        self.remote.ask(&Order::Reserved(memory), &[]).map_or(0, |(bytes, _)| bytes)
    }
}
