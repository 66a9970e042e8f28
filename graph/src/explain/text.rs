//! An explanation as tables, for a terminal. What takes longest comes first where order means nothing.

use std::fmt::{self, Display, Formatter};

use super::{Explanation, LaunchRow};
use crate::plan::mib;

/// Launches that take less are counted and not listed, unless they are among the first.
const LISTED: usize = 40;

impl Explanation {
    /// Every launch, not only those that take longest: `{:#}` prints them as well.
    fn launches(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let measured = self.launches.iter().any(|l| l.measured_seconds.is_some());
        let mut order: Vec<&LaunchRow> = self.launches.iter().collect();
        let off = |l: &LaunchRow| l.measured_seconds.map_or(0.0, |m| (m - l.seconds).abs());
        if measured {
            order.sort_by(|a, b| off(b).total_cmp(&off(a)));
        } else if !f.alternate() && order.len() > LISTED {
            order.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        }
        let listed = if f.alternate() { order.len() } else { order.len().min(LISTED) };
        let head = if measured { "predicted  measured   error" } else { "predicted" };
        writeln!(f, "\n{:<8}  {head}  {:>9}  {:>9}  launch", "device", "Mflop", "kB")?;
        for l in &order[..listed] {
            let device = &self.devices[usize::from(l.device)].device;
            write!(f, "{device:<8}  {:>6.1} µs", l.seconds * 1e6)?;
            if measured {
                match l.measured_seconds {
                    Some(m) => write!(f, "  {:>5.1} µs  {:>+5.0}%", m * 1e6, 100.0 * (l.seconds / m - 1.0))?,
                    None => write!(f, "  {:>8}  {:>6}", "–", "–")?,
                }
            }
            writeln!(f, "  {:>9.2}  {:>9.1}  {}: {}", l.flops / 1e6, l.bytes / 1e3, short(&l.label), l.why)?;
        }
        if listed < order.len() {
            let rest: f64 = order[listed..].iter().map(|l| l.seconds).sum();
            writeln!(f, "          {:>6.1} µs  in {} more (--all)", rest * 1e6, order.len() - listed)?;
        }
        Ok(())
    }
}

/// A label that is made of many is cut: the first says where it is.
pub(super) fn short(label: &str) -> String {
    const MOST: usize = 60;
    if label.chars().count() <= MOST {
        return label.into();
    }
    label.chars().take(MOST - 1).chain(['…']).collect()
}

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, program `{}`: a step of {:.1} µs predicted",
            self.graph,
            self.program,
            self.step_seconds * 1e6
        )?;
        self.launches(f)?;
        if !self.channels.is_empty() {
            writeln!(f, "\n{:<18}  predicted  {:>9}  channel", "between", "kB")?;
            for c in &self.channels {
                let ends = format!("{} → {}", c.from, c.to);
                let (seconds, bytes) = (c.seconds * 1e6, c.bytes as f64 / 1e3);
                writeln!(f, "{ends:<18}  {seconds:>6.1} µs  {bytes:>9.1}  #{} {}", c.channel, short(&c.label))?;
            }
        }
        if !self.parameters.is_empty() {
            writeln!(f, "\nparameters are kept by servers")?;
            for row in &self.parameters {
                let on = row.on.iter().map(|(device, bytes)| format!("{device} ({:.1} kB)", *bytes as f64 / 1e3));
                writeln!(f, "{:<28}  {}", row.parameter, on.collect::<Vec<_>>().join(", "))?;
            }
        }
        writeln!(f, "\n{:<8}  {:>9}  {:>9}  {:>9}  memory", "device", "busy", "idle", "kB sent")?;
        for d in &self.devices {
            let (busy, idle) = (d.busy_seconds * 1e6, d.idle_seconds * 1e6);
            let sent = d.sent_bytes as f64 / 1e3;
            write!(f, "{:<8}  {busy:>6.1} µs  {idle:>6.1} µs  {sent:>9.1}  {}", d.device, d.memory)?;
            match d.memory_bytes {
                Some(room) => writeln!(f, "; it may use {:.1}", mib(room))?,
                None => writeln!(f)?,
            }
        }
        let total: u64 = self.devices.iter().map(|d| d.memory.total_bytes()).sum();
        write!(f, "memory in all: {:.1} MiB, beside what is fed and returned", mib(total))?;
        match self.snapshot_bytes {
            Some(bytes) => writeln!(f, "; {:.1} more from the first save on", mib(bytes))?,
            None => writeln!(f)?,
        }
        writeln!(f, "\ncritical path (what ends the step; runs of one device are added up)")?;
        let mut rows = self.path.iter().peekable();
        while let Some(first) = rows.next() {
            let (mut seconds, mut more) = (first.seconds, 0);
            // Launches one behind the other on one device are one line.
            while let Some(next) = rows.next_if(|r| r.place == first.place) {
                (seconds, more) = (seconds + next.seconds, more + 1);
            }
            let more = if more > 0 { format!(" … and {more} more") } else { String::new() };
            let (begin, what) = (first.begin_seconds * 1e6, short(&first.what));
            writeln!(f, "at {begin:>9.1} µs  {:>9.1} µs  {}  {what}{more}", seconds * 1e6, first.place)?;
        }
        if let Some(a) = &self.analysis {
            writeln!(
                f,
                "\nmeasured over {} steps: a step of {:.1} µs, predicted {:+.0} %; median error of the {} launches of 20 µs \
                 and more, weighted by time: {:.0} %",
                a.steps,
                a.step_seconds * 1e6,
                100.0 * a.step_error,
                a.launches,
                100.0 * a.median_error
            )?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let unknown: Vec<&str> = self.devices.iter().filter(|d| !d.rates_known).map(|d| &*d.device).collect();
        if !unknown.is_empty() {
            let list = unknown.join(", ");
            writeln!(f, "note: {list} was not measured: times are of a default, `thalweg devices --measure` measures")?;
        }
        Ok(())
    }
}
