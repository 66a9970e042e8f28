//! What a session notes of its steps while somebody wants to know: sums per launch (a profile), and the last steps with
//! every event (a trace). The devices' timings are taken after each step, so that memory does not grow with their number.
//!
//! Every device has a clock of its own. The executor's is that of the trace; what devices timed is moved by how far their
//! clocks were from it when the trace began. Of a device in another process that is known to half of how long a question
//! takes there and back, and the trace says so.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use thalweg_graph::ir::Site;
use thalweg_graph::plan::{Instruction, Plan};

use super::Session;
use crate::device::{Device, Timing};
use crate::executor::{Executor, Prepared};
use crate::trace::{ChannelEvent, DeviceTrace, LaunchInfo, SessionEvent, Span, StepTrace, Trace};

/// What one launch took.
#[derive(Clone, Debug)]
pub struct ProfileRow {
    /// The device.
    pub device: Arc<str>,
    /// The program.
    pub program: Arc<str>,
    /// What is computed.
    pub label: Arc<str>,
    /// Where it was asked for.
    pub site: Site,
    /// How the device does it.
    pub strategy: String,
    /// How often it ran.
    pub runs: u64,
    /// In all.
    pub total: Duration,
}

/// An instruction of a plan on a device: the device's place, the plan's number there, the instruction's place.
type At = (usize, usize, usize);

/// Notes while they are wanted; nothing at first.
#[derive(Default)]
pub(super) struct Recorder {
    profile: Option<Profile>,
    trace: Option<Tracer>,
    known: HashMap<At, Arc<LaunchInfo>>,
}

#[derive(Default)]
struct Profile {
    rows: BTreeMap<At, ProfileRow>,
    /// Of plans that have been unloaded.
    gone: Vec<ProfileRow>,
}

struct Tracer {
    /// How many steps are kept.
    keep: usize,
    seen: u64,
    steps: VecDeque<StepTrace>,
    /// Of the step that runs.
    session: Vec<SessionEvent>,
    /// By device: what its clock has to be moved by.
    behind: Vec<Behind>,
}

/// How far a clock is behind another one, or before it.
#[derive(Default)]
struct Behind {
    add: Duration,
    take: Duration,
    /// It may be off by so much.
    error: Duration,
}

impl Behind {
    fn of(clock: &dyn Device, executor: &Executor) -> Self {
        // Of some looks at both the one in which the least time passed: nobody held it up. The other clock was read at any
        // time in between; half-way, for all that is known.
        let look = |_| {
            let (before, there, after) = (executor.now(), clock.now(), executor.now());
            (after.saturating_sub(before), before, there)
        };
        let (passed, before, there) = (0..16).map(look).min().unwrap_or_default();
        let here = before + passed / 2;
        Self { add: here.saturating_sub(there), take: there.saturating_sub(here), error: passed - passed / 2 }
    }
    fn moved(&self, span: Span) -> Span {
        Span { start: (span.start + self.add).saturating_sub(self.take), ..span }
    }
}

impl Recorder {
    fn is_on(&self) -> bool {
        self.profile.is_some() || self.trace.is_some()
    }
    /// The time, where a trace wants it.
    pub(super) fn now(&self, executor: &Executor) -> Option<Duration> {
        self.trace.as_ref().map(|_| executor.now())
    }
    /// Notes that the session did something from `start` until now.
    pub(super) fn session(
        &mut self,
        executor: &Executor,
        start: Option<Duration>,
        kind: &'static str,
        name: &Arc<str>,
    ) {
        if let (Some(tracer), Some(start)) = (&mut self.trace, start) {
            let span = Span { start, took: executor.now().saturating_sub(start) };
            tracer.session.push(SessionEvent { span, kind, name: name.clone() });
        }
    }
    /// Notes a step that began at `start`, and what the devices timed since the last one.
    pub(super) fn step(&mut self, executor: &mut Executor, prepared: &Prepared, start: Option<Duration>, done: bool) {
        if !self.is_on() {
            return;
        }
        let (plan, mut crossed) = (prepared.plan().clone(), executor.crossed());
        crossed.resize_with(executor.devices().len(), Vec::new);
        let mut devices = Vec::with_capacity(crossed.len());
        for (index, channels) in crossed.into_iter().enumerate() {
            let loaded = prepared.loaded(index);
            // A device of another process may say anything.
            let instructions = plan.devices[index].instructions.len();
            let is_of = |t: &Timing| t.loaded == loaded && t.instruction < instructions;
            let timings = executor.device_mut(index).time(true).into_iter().filter(is_of).collect();
            let device = &*executor.devices()[index];
            devices.push(self.of_device(index, device, &plan, timings, channels));
        }
        let (Some(tracer), Some(start)) = (&mut self.trace, start) else { return };
        let session = std::mem::take(&mut tracer.session);
        let end = executor.now();
        let span = Span { start, took: end.saturating_sub(start) };
        let step = StepTrace { program: plan.program.clone(), index: tracer.seen, span, done, session, devices };
        tracer.seen += 1;
        if tracer.steps.len() == tracer.keep {
            tracer.steps.pop_front();
        }
        tracer.steps.push_back(step);
    }
    fn of_device(
        &mut self,
        index: usize,
        device: &dyn Device,
        plan: &Plan,
        timings: Vec<Timing>,
        channels: Vec<ChannelEvent>,
    ) -> DeviceTrace {
        let known = &mut self.known;
        let mut info = |t: &Timing| {
            let make = || Arc::new(describe(device, plan, index, t));
            known.entry((index, t.loaded.0, t.instruction)).or_insert_with(make).clone()
        };
        if let Some(profile) = &mut self.profile {
            for timing in &timings {
                let row = profile.rows.entry((index, timing.loaded.0, timing.instruction)).or_insert_with(|| {
                    let LaunchInfo { program, label, site, strategy, .. } = (*info(timing)).clone();
                    let (device, total) = (device.target().name(), Duration::ZERO);
                    ProfileRow { device, program, label, site, strategy, runs: 0, total }
                });
                row.runs += 1;
                row.total += timing.took;
            }
        }
        let Some(tracer) = &self.trace else { return DeviceTrace::default() };
        let behind = &tracer.behind[index];
        let span = |t: &Timing| behind.moved(Span { start: t.start, took: t.took });
        let launches = timings.iter().map(|t| (span(t), info(t))).collect();
        let channels = channels.into_iter().map(|e| ChannelEvent { span: behind.moved(e.span), ..e }).collect();
        DeviceTrace { launches, channels }
    }
    /// Forgets a plan whose numbers may be given again.
    pub(super) fn unloaded(&mut self, prepared: &Prepared, devices: usize) {
        let all: Vec<(usize, usize)> = (0..devices).map(|d| (d, prepared.loaded(d).0)).collect();
        let is_of = |(device, loaded, _): &At| all.contains(&(*device, *loaded));
        self.known.retain(|at, _| !is_of(at));
        if let Some(profile) = &mut self.profile {
            let (gone, rows) = std::mem::take(&mut profile.rows).into_iter().partition(|(at, _)| is_of(at));
            profile.rows = rows;
            let gone: BTreeMap<At, ProfileRow> = gone;
            profile.gone.extend(gone.into_values());
        }
    }
}

fn describe(device: &dyn Device, plan: &Plan, index: usize, timing: &Timing) -> LaunchInfo {
    let strategy = device.strategy(timing.loaded, timing.instruction);
    let program = plan.program.clone();
    let part = &plan.devices[index];
    match &part.instructions[timing.instruction] {
        Instruction::Launch(launch) => {
            let cost = plan.kernels[launch.kernel].cost();
            let (flops, bytes) = (cost.flops, cost.bytes_read + cost.bytes_written);
            LaunchInfo { program, label: launch.label.clone(), site: launch.site.clone(), strategy, flops, bytes }
        }
        other => {
            let bytes = match other {
                Instruction::Copy { from, .. } => 2.0 * part.buffers[*from].ty.size_bytes() as f64,
                _ => 0.0,
            };
            LaunchInfo { program, label: "copy".into(), site: Site::default(), strategy, flops: 0.0, bytes }
        }
    }
}

impl Session {
    /// Starts timing every launch from here on.
    pub fn start_profile(&mut self) {
        self.time(true);
        self.recorder.profile = Some(Profile::default());
    }
    /// Stops timing; what each launch took, summed over the steps since the start, longest first.
    pub fn finish_profile(&mut self) -> Vec<ProfileRow> {
        let profile = self.recorder.profile.take().unwrap_or_default();
        self.time(self.recorder.is_on());
        let mut rows: Vec<_> = profile.rows.into_values().chain(profile.gone).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.total));
        rows
    }
    /// Starts noting what happens when, from here on; the last `keep` steps are kept, at least one.
    pub fn start_trace(&mut self, keep: usize) {
        self.time(true);
        self.executor.watch_channels(true);
        let (steps, session, behind) = (VecDeque::new(), vec![], self.clocks());
        self.recorder.trace = Some(Tracer { keep: keep.max(1), seen: 0, steps, session, behind });
    }
    fn clocks(&self) -> Vec<Behind> {
        let executor = &self.executor;
        let behind = executor.devices().iter().enumerate().map(|(i, d)| match executor.is_clock(i) {
            true => Behind::default(),
            false => Behind::of(&**d, executor),
        });
        behind.collect()
    }
    /// Has devices that took the place of others watched as those were. They have clocks of their own; and where they are not
    /// as many as before, the steps so far are those of other devices.
    pub(super) fn watch_again(&mut self) {
        if !self.recorder.is_on() {
            return;
        }
        self.time(true);
        if self.recorder.trace.is_some() {
            self.executor.watch_channels(true);
            let behind = self.clocks();
            if let Some(tracer) = &mut self.recorder.trace {
                if tracer.behind.len() != behind.len() {
                    tracer.steps.clear();
                }
                tracer.behind = behind;
            }
        }
    }
    /// Stops noting; the last steps since the start.
    pub fn finish_trace(&mut self) -> Trace {
        let tracer = self.recorder.trace.take();
        self.executor.watch_channels(false);
        self.time(self.recorder.is_on());
        let process = self.graph.name.clone();
        let devices = self.executor.devices().iter().map(|d| d.target().name()).collect();
        let Some(Tracer { seen, steps, behind, .. }) = tracer else {
            return Trace { process, devices, ..Trace::default() };
        };
        let clock_errors = behind.iter().map(|b| b.error).collect();
        Trace { process, devices, clock_errors, dropped: seen - steps.len() as u64, steps }
    }
    fn time(&mut self, on: bool) {
        (0..self.executor.devices().len()).for_each(|i| drop(self.executor.device_mut(i).time(on)));
    }
}
