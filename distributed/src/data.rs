//! The data plane: a connection to every other process, a thread that reads each, and what crosses channels on them. A
//! reader takes a slot once it has been granted and reads straight into it; it never waits for a device that computes, but
//! for a step that has not begun here yet. Devices send on their own threads: the reader at the other end always reads.
//!
//! Steps are numbered by attempts. Of a step that was given up frames may still be under way: they are read and dropped. A
//! frame that cannot be is damage, and damage ends the connection, the step and the job; nothing is sent again.

use std::collections::HashMap;
use std::fmt;
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use thalweg_graph::plan::{ChannelId, Endpoint, Plan};
use thalweg_runtime::executor::{Prepared, Wire};
use thalweg_runtime::{DeviceError, crash};

use crate::auth::{JobKey, Party};
use crate::frame::{FrameError, Header, Kind};
use crate::message::Cause;
use crate::stream::Stream;
use crate::striped::{Inbound, Outbound, Refused, STALL_LIMIT};
use crate::{HostError, lock, patience, tuning};

/// How much is read at once, so that a small value comes with its header and the next; of a larger one the rest goes straight
/// to its place.
const READ_AHEAD_BYTES: usize = 8 << 10;

/// The step that runs here.
#[derive(Default)]
struct Current {
    /// The number of the newest.
    step: u64,
    /// None between steps.
    running: Option<Running>,
    failure: Option<Cause>,
    /// The job is over: who reads may go.
    closed: bool,
}

#[derive(Clone)]
struct Running {
    prepared: Prepared,
    /// A prefix of the plan's hash.
    plan: u64,
}

/// What is called once when something breaks.
type OnBreak = Box<dyn Fn(&Cause) + Send + Sync>;

/// All connections of one process.
pub(crate) struct DataPlane {
    me: Party,
    job: u64,
    term: u32,
    peers: HashMap<Party, Mutex<Outbound>>,
    /// All connections, to be ended while somebody writes to them.
    ends: Vec<Stream>,
    /// Checksums of what is sent are neither taken nor looked at.
    null: bool,
    current: Mutex<Current>,
    changed: Condvar,
    on_break: OnBreak,
}

fn party(end: Endpoint) -> Party {
    match end {
        Endpoint::Driver => Party::Driver,
        Endpoint::Device(rank) => Party::Worker(rank),
    }
}

/// Where something crosses, for people.
struct Crossing<'a>(Option<&'a Plan>, Header);

impl fmt::Display for Crossing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Header { step, channel, .. } = self.1;
        let label = self.0.and_then(|p| p.channels.get(ChannelId(channel))).map_or("?", |c| &*c.label);
        write!(f, "channel #{channel} \"{label}\", step {step}")
    }
}

impl DataPlane {
    /// Over connections that have been made, those to one peer in their order; `on_break` hears once of the first that breaks.
    pub(crate) fn new(
        me: Party,
        key: &JobKey,
        term: u32,
        peers: Vec<(Party, Stream)>,
        null: bool,
        on_break: OnBreak,
    ) -> Result<Arc<Self>, HostError> {
        let failed = || HostError::io("cannot use a connection");
        let (mut to, mut from) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        let mut ends = vec![];
        for (peer, stream) in peers {
            tuning::prepare(stream.tcp());
            stream.set_write_timeout(Some(patience(STALL_LIMIT))).map_err(failed())?;
            // Between values there is no limit: the header's first byte is waited for again and again.
            stream.set_read_timeout(Some(patience(STALL_LIMIT))).map_err(failed())?;
            from.entry(peer).or_default().push(stream.try_clone().map_err(failed())?);
            ends.push(stream.try_clone().map_err(failed())?);
            to.entry(peer).or_default().push(stream);
        }
        let peers = to.into_iter().map(|(peer, streams)| (peer, Mutex::new(Outbound::new(streams)))).collect();
        let (current, changed) = (Mutex::default(), Condvar::new());
        let plane = Arc::new(Self { me, job: key.job(), term, peers, ends, null, current, changed, on_break });
        for (peer, streams) in from {
            let (plane, from) = (plane.clone(), Inbound::new(streams, READ_AHEAD_BYTES).map_err(failed())?);
            let reading = thread::Builder::new().name(format!("from {peer}"));
            let reading = reading.spawn(move || plane.read_all(peer, from));
            reading.map_err(HostError::io("cannot start a thread"))?;
        }
        Ok(plane)
    }
    fn lock(&self) -> MutexGuard<'_, Current> {
        lock(&self.current)
    }
    /// In which term.
    pub(crate) fn term(&self) -> u32 {
        self.term
    }
    /// A step begins here.
    pub(crate) fn begin(&self, step: u64, prepared: &Prepared, plan: u64) {
        let mut current = self.lock();
        (current.step, current.running) = (step, Some(Running { prepared: prepared.clone(), plan }));
        self.changed.notify_all();
    }
    /// It has ended.
    pub(crate) fn end(&self) {
        self.lock().running = None;
        self.changed.notify_all();
    }
    /// Whether this step still runs.
    pub(crate) fn runs(&self, step: u64) -> bool {
        let current = self.lock();
        current.step == step && current.running.is_some() && !current.closed
    }
    /// What broke, if anything has.
    pub(crate) fn failure(&self) -> Option<Cause> {
        self.lock().failure.clone()
    }
    /// Ends all connections.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
        self.ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
    }
    fn fail(&self, cause: Cause) {
        let mut current = self.lock();
        if current.closed || current.failure.is_some() {
            return;
        }
        current.failure = Some(cause.clone());
        drop(current);
        self.changed.notify_all();
        (self.on_break)(&cause);
    }
    /// The step that runs, for whoever sends.
    fn running(&self) -> Option<(u64, Running)> {
        let current = self.lock();
        current.running.clone().map(|r| (current.step, r))
    }
    fn header(&self, kind: Kind, step: u64, plan: u64, channel: ChannelId) -> Header {
        let (last, over, chunk, len, crc) = (true, 1, 0, 0, 0);
        Header { kind, last, over, job: self.job, term: self.term, plan, step, channel: channel.0, chunk, len, crc }
    }
    fn transmit(&self, kind: Kind, channel: ChannelId, bytes: &[u8]) -> Result<(), DeviceError> {
        let nothing = |cause: &str| DeviceError::Elsewhere { place: self.me.to_string().into(), cause: cause.into() };
        let (step, Running { prepared, plan }) = self.running().ok_or_else(|| nothing("no step runs"))?;
        let of = &prepared.plan().channels[channel];
        let to = party(if kind == Kind::Grant { of.from } else { of.to });
        let stream = self.peers.get(&to).ok_or_else(|| nothing("no connection leads there"))?;
        let header = self.header(kind, step, plan, channel);
        let sent = lock(stream).send(header, bytes, !self.null);
        sent.map_err(|error| {
            let crossing = Crossing(Some(prepared.plan()), header);
            let cause = format!("sending {crossing} from {} to {to} failed: {error}", self.me);
            self.fail(Cause::Unreachable(cause.clone()));
            DeviceError::Elsewhere { place: self.me.to_string().into(), cause }
        })
    }

    /// Reads all that a peer sends, until the connection ends.
    fn read_all(&self, peer: Party, mut from: Inbound) {
        let mut spare = vec![];
        let (header, refused) = loop {
            if let Err(ended) = self.read_one(peer, &mut from, &mut spare) {
                break ended;
            }
        };
        let plan = self.lock().running.as_ref().map(|r| r.prepared.plan().clone());
        let place = header.map(|h| Crossing(plan.as_deref(), h).to_string());
        let way = format!("from {peer} to {}", self.me);
        let place = place.map_or(way.clone(), |p| format!("{p}, {way}"));
        let cause = match refused {
            Refused::Closed => None,
            Refused::Frame(error) if error.is_damage() => Some(Cause::Damage(format!("{place}: {error}"))),
            Refused::Frame(error) => Some(Cause::Unreachable(format!("{place}: {error}"))),
            Refused::Wrong(what) => Some(Cause::Damage(format!("{place}: {what}"))),
        };
        // Told first: else whoever sends to this peer would say that the connection was closed, and not why.
        cause.into_iter().for_each(|cause| self.fail(cause));
        from.shut();
    }
    /// Reads one value or grant. An error comes with the header as far as one was read.
    fn read_one(&self, peer: Party, from: &mut Inbound, spare: &mut Vec<u8>) -> Result<(), (Option<Header>, Refused)> {
        let header = Header::read(&mut from.first).map_err(|e| (None, e.into()))?;
        let with = |refused: Refused| (Some(header), refused);
        if (header.job, header.term) != (self.job, self.term) {
            return Err(with(FrameError::Foreign { job: header.job, term: header.term }.into()));
        }
        let running = self.step_of(&header).map_err(with)?;
        let Some(running) = running else { return from.drop_value(header, spare, !self.null).map_err(with) };
        let wrong = |what: String| Err(with(Refused::Wrong(what)));
        let (plan, id) = (running.prepared.plan(), ChannelId(header.channel));
        if running.plan != header.plan {
            return wrong(format!("it is of plan {:016x}, and {:016x} runs here", header.plan, running.plan));
        }
        let Some(channel) = plan.channels.get(id) else { return wrong("there is no such channel".into()) };
        let ends = [party(channel.from), party(channel.to)];
        match header.kind {
            Kind::Grant if ends == [self.me, peer] => running.prepared.granted(id),
            Kind::Value if ends == [peer, self.me] => {
                let still = || self.runs(header.step);
                let Some(mut slot) = running.prepared.slot(id, &still) else {
                    return from.drop_value(header, spare, !self.null).map_err(with);
                };
                crash::point("mid-hop");
                from.value(header, slot.bytes_mut(), !self.null).map_err(with)?;
                slot.whole();
            }
            _ => return wrong(format!("this channel leads from {} to {}", ends[0], ends[1])),
        }
        Ok(())
    }
    /// What runs here when a frame arrives; nothing if its step has ended. Waits for a step that has not begun here.
    fn step_of(&self, header: &Header) -> Result<Option<Running>, Refused> {
        let mut current = self.lock();
        loop {
            if current.closed {
                return Err(Refused::Closed);
            }
            if header.step > current.step + 1 {
                return Err(Refused::Wrong(format!("step {} is the newest here", current.step)));
            }
            if header.step <= current.step {
                let same = header.step == current.step;
                return Ok(current.running.clone().filter(|_| same));
            }
            current = self.changed.wait(current).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Wire for DataPlane {
    fn send(&self, channel: ChannelId, bytes: &[u8]) -> Result<(), DeviceError> {
        self.transmit(Kind::Value, channel, bytes)
    }
    fn grant(&self, channel: ChannelId) -> Result<(), DeviceError> {
        self.transmit(Kind::Grant, channel, &[])
    }
}

#[cfg(test)]
mod tests;
