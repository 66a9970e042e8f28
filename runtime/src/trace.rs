//! What happened when, step by step, as a Chrome trace: open the file in Perfetto (ui.perfetto.dev) or `chrome://tracing`.
//! Times come from the devices' own clocks in whole nanoseconds, so that what was nested is nested to the last digit.
//!
//! In the trace's words the session is a process and so is each device, with a thread for its launches and one for what
//! crosses its channels: a GPU does both at once. What crosses between devices is an arrow from its `post` to its `wait`.
//! Times are in microseconds.

use std::collections::VecDeque;
use std::fmt::{self, Display, Formatter, Write as _};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use thalweg_graph::ir::Site;
use thalweg_graph::plan::ChannelId;

/// The steps that were recorded; the last few where there were more than were to be kept.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// What runs: the graph's name.
    pub process: Arc<str>,
    /// The devices' names.
    pub devices: Vec<Arc<str>>,
    /// By device, how far what it timed may be off: its clock was compared with the trace's when the trace began.
    pub clock_errors: Vec<Duration>,
    /// Oldest first.
    pub steps: VecDeque<StepTrace>,
    /// How many older ones were dropped.
    pub dropped: u64,
}

/// One step.
#[derive(Clone, Debug)]
pub struct StepTrace {
    /// Which program ran.
    pub program: Arc<str>,
    /// Which one of those recorded, from 0.
    pub index: u64,
    /// From start to end.
    pub span: Span,
    /// Whether it went through; a step that failed or was given up did not.
    pub done: bool,
    /// What the session did: making the plan.
    pub session: Vec<SessionEvent>,
    /// What the devices did, in their order.
    pub devices: Vec<DeviceTrace>,
}

/// What one device did in a step.
#[derive(Clone, Debug, Default)]
pub struct DeviceTrace {
    /// Launches and copies.
    pub launches: Vec<(Span, Arc<LaunchInfo>)>,
    /// Feeds, fetches, and what crossed between devices.
    pub channels: Vec<ChannelEvent>,
}

/// A stretch of time, on the trace's clock: the first device's, or the caller's where devices are in other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Since that clock was started.
    pub start: Duration,
    /// How long it took.
    pub took: Duration,
}

/// What the session does around steps.
#[derive(Clone, Debug)]
pub struct SessionEvent {
    /// When.
    pub span: Span,
    /// `plan`.
    pub kind: &'static str,
    /// Of what program.
    pub name: Arc<str>,
}

/// What a device does at its channels. Waiting for the other end counts.
#[derive(Clone, Debug)]
pub struct ChannelEvent {
    /// When.
    pub span: Span,
    /// `feed`, `fetch`, `post` or `wait`.
    pub kind: &'static str,
    /// By which channel; the first where several were fetched at once.
    pub channel: ChannelId,
    /// The channel's label, or those of all that were fetched.
    pub name: Arc<str>,
    /// Bytes that crossed.
    pub bytes: u64,
}

/// What is known of an instruction before it runs.
#[derive(Clone, Debug)]
pub struct LaunchInfo {
    /// The program.
    pub program: Arc<str>,
    /// What is computed.
    pub label: Arc<str>,
    /// Where it was asked for.
    pub site: Site,
    /// How the device does it.
    pub strategy: String,
    /// Arithmetic operations that the kernel asks for.
    pub flops: f64,
    /// Bytes that it reads and writes.
    pub bytes: f64,
}

/// The session's process; devices follow.
const SESSION: u32 = 1;
/// Threads of a device's process.
const LAUNCHES: u32 = 0;
const CHANNELS: u32 = 1;

impl Trace {
    /// Writes it in the Trace Event Format, an event per line.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, mut out: impl io::Write) -> io::Result<()> {
        writeln!(
            out,
            "{{\"displayTimeUnit\": \"ns\", \"otherData\": {{\"droppedSteps\": {}, \"clockErrorsUs\": [{}]}}, \"traceEvents\": [",
            self.dropped,
            self.clock_errors.iter().map(|e| Micros(*e).to_string()).collect::<Vec<_>>().join(", ")
        )?;
        let named = |kind, (pid, tid): Row, name: &str| {
            let name = Text(name);
            format!(r#"{{"ph": "M", "name": "{kind}", "pid": {pid}, "tid": {tid}, "args": {{"name": {name}}}}}"#)
        };
        write!(out, "{}", named("process_name", (SESSION, 0), &self.process))?;
        write!(out, ",\n{}", named("thread_name", (SESSION, 0), "session"))?;
        for (index, device) in self.devices.iter().enumerate() {
            let pid = process(index);
            write!(out, ",\n{}", named("process_name", (pid, LAUNCHES), device))?;
            write!(out, ",\n{}", named("thread_name", (pid, LAUNCHES), "launches"))?;
            write!(out, ",\n{}", named("thread_name", (pid, CHANNELS), "channels"))?;
        }
        for step in &self.steps {
            let args = format!(r#""step": {}, "done": {}"#, step.index, step.done);
            event(&mut out, (SESSION, 0), "step", &step.program, step.span, &args)?;
            for e in &step.session {
                event(&mut out, (SESSION, 0), e.kind, &e.name, e.span, "")?;
            }
            for (index, device) in step.devices.iter().enumerate() {
                device.write(&mut out, process(index), step.index)?;
            }
        }
        writeln!(out, "\n]}}")?;
        out.flush()
    }
}

impl DeviceTrace {
    fn write(&self, out: &mut impl io::Write, pid: u32, step: u64) -> io::Result<()> {
        for (span, launch) in &self.launches {
            let LaunchInfo { site, strategy, flops, bytes, .. } = &**launch;
            let (site, strategy) = (site.to_string(), Text(strategy));
            let args =
                format!(r#""site": {}, "strategy": {strategy}, "flops": {flops}, "bytes": {bytes}"#, Text(&site));
            event(out, (pid, LAUNCHES), "launch", &launch.label, *span, &args)?;
        }
        for e in &self.channels {
            let ChannelEvent { span, kind, channel, name, bytes } = e;
            let args = format!(r#""channel": "{channel}", "bytes": {bytes}"#);
            event(out, (pid, CHANNELS), kind, name, *span, &args)?;
            // An arrow joins the ends of both, where the bytes changed hands; just before them, for it belongs to what it lies in.
            let arrow = match *kind {
                "post" => r#""ph": "s""#,
                "wait" => r#""ph": "f", "bp": "e""#,
                _ => continue,
            };
            let end = span.start + span.took.saturating_sub(Duration::from_nanos(1));
            let (name, id, ts) = (Text(name), format!("{step}.{}", channel.0), Micros(end));
            let row = format!(r#""pid": {pid}, "tid": {CHANNELS}"#);
            write!(
                out,
                ",\n{{{arrow}, {row}, \"cat\": \"channel\", \"name\": {name}, \"id\": \"{id}\", \"ts\": {ts}}}"
            )?;
        }
        Ok(())
    }
}

/// A process and its thread.
type Row = (u32, u32);

/// The process of a device.
fn process(device: usize) -> u32 {
    SESSION + 1 + device as u32
}

fn event(out: &mut impl io::Write, (pid, tid): Row, kind: &str, name: &str, span: Span, args: &str) -> io::Result<()> {
    let (name, ts, dur) = (Text(name), Micros(span.start), Micros(span.took));
    let head = format!(r#""ph": "X", "pid": {pid}, "tid": {tid}, "cat": "{kind}", "name": {name}"#);
    write!(out, ",\n{{{head}, \"ts\": {ts}, \"dur\": {dur}, \"args\": {{{args}}}}}")
}

/// A duration in microseconds, exactly.
struct Micros(Duration);

impl Display for Micros {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        write!(f, "{}.{:03}", nanos / 1000, nanos % 1000)
    }
}

/// A JSON string.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c < ' ' => write!(f, "\\u{:04x}", c as u32)?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}
