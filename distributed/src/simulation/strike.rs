//! Faults as they happen: who is hit, and who may be blamed for it.

use std::time::Duration;

use super::faults::{FOR_GOOD_MS, Fault, Planned, When};
use super::network::{Body, Ground, Notice, Pid, Purpose};
use crate::message::Report;

impl Ground {
    /// A process passes a point, at which something may go wrong.
    pub(super) fn point(&mut self, pid: Pid, driver: bool, point: &'static str) {
        if self.is_dead(pid) {
            return;
        }
        for planned in self.faults.passed(driver, point) {
            let who = if driver { "driver" } else { "worker" };
            if matches!(planned.fault, Fault::Kill) {
                self.truth.count(format!("{who} killed at {point}"));
            }
            self.strike(planned, pid);
        }
    }
    /// What is due by its time.
    pub(super) fn strike_due(&mut self) {
        let now = self.now;
        let due = |p: &Planned| matches!(p.when, When::At(at) if at <= now);
        let (due, rest): (Vec<Planned>, _) = std::mem::take(&mut self.faults.planned).into_iter().partition(due);
        self.faults.planned = rest;
        for planned in due {
            let alive: Vec<Pid> = self.workers.iter().copied().filter(|pid| !self.is_dead(*pid)).collect();
            let pid = match (planned.driver, alive.len()) {
                (true, _) => self.driver,
                (false, 0) => continue,
                (false, n) => alive[planned.which as usize % n],
            };
            self.strike(planned, pid);
        }
    }
    /// Until then a process is not to be blamed for nothing; if it is the driver, nobody is.
    fn excuse(&mut self, pid: Pid, until: Duration) {
        self.truth.blame(pid, pid, until, true);
        if pid == self.driver {
            for worker in self.workers.clone() {
                self.truth.blame(worker, worker, until, true);
            }
        }
        // What stays as it is has to be got over.
        let passing = until < self.now + Duration::from_millis(FOR_GOOD_MS);
        self.calm = self.calm.max(if passing { until } else { self.now });
    }
    fn strike(&mut self, planned: Planned, pid: Pid) {
        if self.is_dead(pid) {
            return;
        }
        let now = self.now;
        self.calm = self.calm.max(now);
        self.note(|| format!("fault: {:?} of process {pid}", planned.fault));
        let who = if pid == self.driver { "driver" } else { "worker" };
        match planned.fault {
            Fault::Kill => {
                self.truth.count(format!("{who} killed"));
                self.kill(pid, "");
            }
            Fault::KillSoon(left) => {
                self.truth.count(format!("{who} killed between messages"));
                self.faults.doom(pid, left);
            }
            Fault::Stop(ms) => {
                self.truth.count(format!("{who} stopped"));
                let until = now + Duration::from_millis(ms);
                // Until the last who stopped it lets it go on.
                let until = until.max(self.stopped.get(&pid).copied().unwrap_or_default());
                self.stopped.insert(pid, until);
                self.excuse(pid, until);
            }
            Fault::CutOff(ms) => {
                self.truth.count(format!("{who} cut off"));
                let until = now + Duration::from_millis(ms);
                self.cut_off.push(([pid].into(), until));
                self.excuse(pid, until);
            }
            Fault::BreakControl(n) | Fault::BreakData(n) => {
                let control = matches!(planned.fault, Fault::BreakControl(_));
                let mut open = self.open(pid);
                open.retain(|(_, purpose, ..)| (*purpose == Purpose::Control) == control);
                let Some((conn, _, other, _)) = open.get(n as usize % open.len().max(1)).copied() else { return };
                self.truth.count(if control { "control connection broken" } else { "data connection broken" });
                self.truth.blame(pid, other, now, control);
                self.break_off(conn);
            }
            Fault::Damage => self.faults.damage(pid),
            Fault::OldTerm(n) => self.tell_old(pid, n),
            Fault::Twice(_) => {
                let answers = |body: &Body| {
                    matches!(body, Body::Report(Report::Voted { .. } | Report::Done { .. } | Report::Failed { .. }, _))
                };
                let Some((conn, end, envelope)) = self.said.iter().rev().find(|(.., e)| answers(&e.body)).cloned()
                else {
                    return;
                };
                self.truth.count("a report came twice");
                self.deliver(conn, end, Notice::Message(conn, envelope));
            }
        }
    }
    /// Somebody hears what was said in an earlier term.
    fn tell_old(&mut self, pid: Pid, n: u64) {
        let mut open = self.open(pid);
        open.retain(|(_, purpose, ..)| *purpose == Purpose::Control);
        let Some((conn, _, other, _)) = open.first().copied() else { return };
        let newest = self.said.iter().map(|(.., e)| e.term).max().unwrap_or_default();
        let end = usize::from(n.is_multiple_of(4));
        let old: Vec<_> = self.said.iter().filter(|(_, to, e)| *to == end && (1..newest).contains(&e.term)).collect();
        let Some((.., envelope)) = old.get(n as usize / 4 % old.len().max(1)) else { return };
        let envelope = envelope.clone();
        self.note(|| format!("fault: {envelope:?} is said once more between {pid} and {other}"));
        self.truth.count(if end == 1 { "report of an old term" } else { "order of an old term" });
        self.truth.blame(pid, other, self.now, true);
        self.deliver(conn, end, Notice::Message(conn, envelope));
    }
}
