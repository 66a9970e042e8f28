//! What happened when, step by step, as a Chrome trace: open the file in Perfetto (ui.perfetto.dev) or `chrome://tracing`.
//! Times come from the device's own clock in whole nanoseconds, so that what was nested is nested to the last digit.
//!
//! In the trace's words this host is a process, the session is its thread 0 and each device a thread of its own from 1.
//! Times are in microseconds. Channels between devices will be flow arrows between threads.

use std::collections::VecDeque;
use std::fmt::{self, Display, Formatter, Write as _};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use thalweg_graph::ir::Site;

/// The steps that were recorded; the last few where there were more than were to be kept.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// What runs: the graph's name.
    pub process: Arc<str>,
    /// The device's name.
    pub device: Arc<str>,
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
    /// What the session did: making the plan, feeds, fetches.
    pub session: Vec<SessionEvent>,
    /// What the device did.
    pub launches: Vec<(Span, Arc<LaunchInfo>)>,
}

/// A stretch of time, from the device's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Since the device was made.
    pub start: Duration,
    /// How long it took.
    pub took: Duration,
}

/// What the session does around the launches of a step.
#[derive(Clone, Debug)]
pub struct SessionEvent {
    /// When.
    pub span: Span,
    /// `plan`, `feed` or `fetch`.
    pub kind: &'static str,
    /// Of what: an input, an output or a program.
    pub name: Arc<str>,
    /// Bytes copied.
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

/// The host, for now the only one.
const PID: u32 = 1;
const SESSION: u32 = 0;
const DEVICE: u32 = 1;

impl Trace {
    /// Writes it in the Trace Event Format, an event per line.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, mut out: impl io::Write) -> io::Result<()> {
        writeln!(
            out,
            "{{\"displayTimeUnit\": \"ns\", \"otherData\": {{\"droppedSteps\": {}}}, \"traceEvents\": [",
            self.dropped
        )?;
        let named = |kind, tid, name: &str| {
            format!(
                r#"{{"ph": "M", "name": "{kind}", "pid": {PID}, "tid": {tid}, "args": {{"name": {}}}}}"#,
                Text(name)
            )
        };
        writeln!(out, "{},", named("process_name", SESSION, &self.process))?;
        writeln!(out, "{},", named("thread_name", SESSION, "session"))?;
        write!(out, "{}", named("thread_name", DEVICE, &self.device))?;
        for step in &self.steps {
            let args = format!(r#""step": {}, "done": {}"#, step.index, step.done);
            event(&mut out, SESSION, "step", &step.program, step.span, &args)?;
            for e in &step.session {
                event(&mut out, SESSION, e.kind, &e.name, e.span, &format!(r#""bytes": {}"#, e.bytes))?;
            }
            for (span, launch) in &step.launches {
                let LaunchInfo { site, strategy, flops, bytes, .. } = &**launch;
                let (site, strategy) = (site.to_string(), Text(strategy));
                let args =
                    format!(r#""site": {}, "strategy": {strategy}, "flops": {flops}, "bytes": {bytes}"#, Text(&site));
                event(&mut out, DEVICE, "launch", &launch.label, *span, &args)?;
            }
        }
        writeln!(out, "\n]}}")?;
        out.flush()
    }
}

fn event(out: &mut impl io::Write, tid: u32, kind: &str, name: &str, span: Span, args: &str) -> io::Result<()> {
    let (name, ts, dur) = (Text(name), Micros(span.start), Micros(span.took));
    let head = format!(r#""ph": "X", "pid": {PID}, "tid": {tid}, "cat": "{kind}", "name": {name}"#);
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
