//! What a session notes of its steps while somebody wants to know: sums per launch (a profile), and the last steps with
//! every event (a trace). The device's timings are taken after each step, so that memory does not grow with their number.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use thalweg_graph::ir::Site;
use thalweg_graph::plan::{Instruction, Plan};

use super::Session;
use crate::device::{Device, Loaded, Timing};
use crate::trace::{LaunchInfo, SessionEvent, Span, StepTrace, Trace};

/// What one launch took.
#[derive(Clone, Debug)]
pub struct ProfileRow {
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

/// Notes while they are wanted; nothing at first.
#[derive(Default)]
pub(super) struct Recorder {
    profile: Option<Profile>,
    trace: Option<Tracer>,
    known: HashMap<(Loaded, usize), Arc<LaunchInfo>>,
}

#[derive(Default)]
struct Profile {
    rows: BTreeMap<(usize, usize), ProfileRow>,
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
}

impl Recorder {
    fn is_on(&self) -> bool {
        self.profile.is_some() || self.trace.is_some()
    }
    /// The time, where a trace wants it.
    pub(super) fn now(&self, device: &dyn Device) -> Option<Duration> {
        self.trace.as_ref().map(|_| device.now())
    }
    /// Notes that the session did something from `start` until now.
    pub(super) fn session(
        &mut self,
        device: &dyn Device,
        start: Option<Duration>,
        kind: &'static str,
        name: &Arc<str>,
        bytes: usize,
    ) {
        if let (Some(tracer), Some(start)) = (&mut self.trace, start) {
            let span = Span { start, took: device.now().saturating_sub(start) };
            tracer.session.push(SessionEvent { span, kind, name: name.clone(), bytes: bytes as u64 });
        }
    }
    /// Notes a step of `plan` that began at `start`, and what the device timed since the last one.
    pub(super) fn step(
        &mut self,
        device: &mut dyn Device,
        plan: &Plan,
        loaded: Loaded,
        start: Option<Duration>,
        done: bool,
    ) {
        if !self.is_on() {
            return;
        }
        let timings: Vec<Timing> = device.time(true).into_iter().filter(|t| t.loaded == loaded).collect();
        let known = &mut self.known;
        let mut info = |t: &Timing| {
            let make = || Arc::new(describe(&*device, plan, t));
            known.entry((t.loaded, t.instruction)).or_insert_with(make).clone()
        };
        if let Some(profile) = &mut self.profile {
            for timing in &timings {
                let row = profile.rows.entry((timing.loaded.0, timing.instruction)).or_insert_with(|| {
                    let LaunchInfo { program, label, site, strategy, .. } = (*info(timing)).clone();
                    ProfileRow { program, label, site, strategy, runs: 0, total: Duration::ZERO }
                });
                row.runs += 1;
                row.total += timing.took;
            }
        }
        let (Some(tracer), Some(start)) = (&mut self.trace, start) else { return };
        let span = |t: &Timing| Span { start: t.start, took: t.took };
        let launches = timings.iter().map(|t| (span(t), info(t))).collect();
        let session = std::mem::take(&mut tracer.session);
        let span = Span { start, took: device.now().saturating_sub(start) };
        let step = StepTrace { program: plan.program.clone(), index: tracer.seen, span, done, session, launches };
        tracer.seen += 1;
        if tracer.steps.len() == tracer.keep {
            tracer.steps.pop_front();
        }
        tracer.steps.push_back(step);
    }
    /// Forgets a plan whose number may be given again.
    pub(super) fn unloaded(&mut self, loaded: Loaded) {
        self.known.retain(|(of, _), _| *of != loaded);
        if let Some(profile) = &mut self.profile {
            let mut rows = profile.rows.split_off(&(loaded.0, 0));
            let mut later = rows.split_off(&(loaded.0 + 1, 0));
            profile.rows.append(&mut later);
            profile.gone.extend(rows.into_values());
        }
    }
}

fn describe(device: &dyn Device, plan: &Plan, timing: &Timing) -> LaunchInfo {
    let strategy = device.strategy(timing.loaded, timing.instruction);
    let program = plan.program.clone();
    let part = &plan.devices[0];
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
        self.device.time(true);
        self.recorder.profile = Some(Profile::default());
    }
    /// Stops timing; what each launch took, summed over the steps since the start, longest first.
    pub fn finish_profile(&mut self) -> Vec<ProfileRow> {
        let profile = self.recorder.profile.take().unwrap_or_default();
        self.device.time(self.recorder.is_on());
        let mut rows: Vec<_> = profile.rows.into_values().chain(profile.gone).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.total));
        rows
    }
    /// Starts noting what happens when, from here on; the last `keep` steps are kept, at least one.
    pub fn start_trace(&mut self, keep: usize) {
        self.device.time(true);
        let (steps, session) = (VecDeque::new(), vec![]);
        self.recorder.trace = Some(Tracer { keep: keep.max(1), seen: 0, steps, session });
    }
    /// Stops noting; the last steps since the start.
    pub fn finish_trace(&mut self) -> Trace {
        let tracer = self.recorder.trace.take();
        self.device.time(self.recorder.is_on());
        let (process, device) = (self.graph.name.clone(), self.device.target().name());
        let Some(Tracer { seen, steps, .. }) = tracer else { return Trace { process, device, ..Trace::default() } };
        Trace { process, device, dropped: seen - steps.len() as u64, steps }
    }
}
