//! What has to hold in every run of the simulated job, whatever happens to it. It sees what no process sees: all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::network::{Pid, mix};
use crate::message::Cause;

/// A fault may be told of so long after it is over: silence is noticed late.
const ECHO: Duration = Duration::from_secs(16);

/// Why a run is not as it should be.
pub(super) type Wrong = String;

#[derive(Default)]
struct Term {
    /// The processes, by rank.
    members: Vec<Pid>,
    began: Duration,
    /// Whose bodies have ended, by step.
    ended: BTreeMap<u64, BTreeSet<u16>>,
    decided: BTreeMap<u64, bool>,
    /// Who has nothing more to say of a step.
    answered: BTreeSet<(u64, u16)>,
}

pub(super) struct Truth {
    seed: u64,
    terms: BTreeMap<u32, Term>,
    /// Until when something is, or was, wrong with a process.
    guilty: BTreeMap<Pid, Duration>,
    /// Until when connections between processes broke.
    broken: Duration,
    crashed: BTreeMap<Pid, Duration>,
    /// When the driver let go of a process.
    let_go: BTreeMap<Pid, Duration>,
    pub(super) wrong: Option<Wrong>,
    /// How often what happened.
    pub(super) counts: BTreeMap<String, u64>,
}

impl Truth {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            terms: BTreeMap::new(),
            guilty: BTreeMap::new(),
            broken: Duration::ZERO,
            crashed: BTreeMap::new(),
            let_go: BTreeMap::new(),
            wrong: None,
            counts: BTreeMap::new(),
        }
    }
    pub(super) fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }
    /// The first mistake is the one to look at.
    pub(super) fn accuse(&mut self, what: impl FnOnce() -> Wrong) {
        self.wrong.get_or_insert_with(what);
    }
    fn require(&mut self, holds: bool, what: impl FnOnce() -> Wrong) {
        if !holds {
            self.accuse(what);
        }
    }

    /// What the variables are after so many steps of an undisturbed job.
    pub(super) fn variables(&self, steps: u64) -> u64 {
        (0..steps).fold(mix(self.seed), |value, batch| self.update(value, batch))
    }
    /// What a step makes of the variables.
    pub(super) fn update(&self, value: u64, batch: u64) -> u64 {
        mix(value.rotate_left(17) ^ mix(self.seed ^ batch))
    }

    /// A process is at fault, or a connection between two.
    pub(super) fn blame(&mut self, a: Pid, b: Pid, until: Duration, whole: bool) {
        self.broken = self.broken.max(until);
        if whole {
            for pid in [a, b] {
                let known = self.guilty.entry(pid).or_default();
                *known = until.max(*known);
            }
        }
    }
    pub(super) fn crash(&mut self, pid: Pid, now: Duration) {
        self.blame(pid, pid, now, true);
        self.crashed.entry(pid).or_insert(now);
    }
    pub(super) fn begin(&mut self, number: u32, members: Vec<Pid>, began: Duration) {
        self.count("term begun");
        let fresh = !self.terms.contains_key(&number);
        self.require(fresh, || format!("there are two terms {number}"));
        self.terms.insert(number, Term { members, began, ..Term::default() });
    }
    /// Whether a process was ever welcomed.
    pub(super) fn was_member(&self, pid: Pid) -> bool {
        self.terms.values().any(|term| term.members.contains(&pid))
    }
    fn term(&mut self, number: u32) -> &mut Term {
        self.terms.entry(number).or_default()
    }
    pub(super) fn obeys(&mut self, rank: u16, of: u32, order: u32) {
        self.require(of == order, || format!("rank {rank} is in term {of} and does what it is told in term {order}"));
    }
    pub(super) fn body_ended(&mut self, term: u32, step: u64, rank: u16) {
        self.term(term).ended.entry(step).or_default().insert(rank);
    }
    pub(super) fn answered(&mut self, term: u32, step: u64, rank: u16) {
        self.term(term).answered.insert((step, rank));
    }
    pub(super) fn decided(&mut self, term: u32, step: u64, commit: bool) {
        self.term(term).decided.insert(step, commit);
    }
    /// A worker runs its tail.
    pub(super) fn commits(&mut self, term: u32, step: u64, rank: u16, batch: u64, value: u64) {
        let Term { members, ended, decided, .. } = self.term(term);
        let (all, done) = (members.len(), ended.get(&step).map_or(0, BTreeSet::len));
        let decided = decided.get(&step) == Some(&true);
        self.require(all == done, || {
            format!("rank {rank} commits step {step} of term {term}, and {done} of {all} bodies have ended")
        });
        self.require(decided, || {
            format!("rank {rank} commits step {step} of term {term}, which the driver did not decide")
        });
        let right = self.variables(batch + 1);
        self.require(value == right, || {
            format!("rank {rank} has other variables after step {step} of term {term}, which is batch {batch}, than it should have")
        });
    }
    /// Those are the variables, says whoever has read them.
    pub(super) fn read(&mut self, what: &str, steps: u64, value: u64) {
        let right = self.variables(steps);
        self.require(value == right, || format!("{what} after {steps} steps are not those of an undisturbed job"));
    }
    /// The driver has told why a term ended.
    pub(super) fn told(&mut self, term: u32, step: u64, stepping: bool, cause: &Cause, now: Duration) {
        self.count(match cause {
            Cause::Gone(_) => "told: gone",
            Cause::Unreachable(_) => "told: unreachable",
            Cause::Damage(_) => "told: damage",
            Cause::Fault(_) | Cause::Aborted => "told: other",
        });
        let (broken, guilty, crashed) = (self.broken, self.guilty.clone(), self.crashed.clone());
        let of = self.term(term);
        let (members, began) = (of.members.clone(), of.began);
        if let Cause::Gone(why) = cause {
            let rank = why
                .split_whitespace()
                .skip_while(|w| *w != "rank")
                .nth(1)
                .and_then(|r| r.trim_end_matches(':').parse::<usize>().ok());
            let pid = rank.and_then(|rank| members.get(rank));
            let justly = pid.and_then(|pid| guilty.get(pid)).is_some_and(|until| *until + ECHO >= began);
            self.require(justly, || format!("{why:?} is told at the end of term {term}, and nothing was wrong there"));
            return;
        }
        let silent = (0..).zip(&members).find(|(rank, pid)| {
            // It may have died just now, and nobody knows yet.
            crashed.get(pid).is_some_and(|at| *at + Duration::from_secs(1) < now)
                || (crashed.contains_key(pid) && !of.answered.contains(&(step, *rank)))
        });
        let silent = silent.filter(|_| stepping).map(|(rank, _)| rank);
        self.require(silent.is_none(), || {
            format!("{cause:?} is told at the end of term {term}, and rank {silent:?} has died")
        });
        self.require(broken + ECHO >= began, || {
            format!("{cause:?} is told at the end of term {term}, and no connection broke")
        });
    }
    pub(super) fn lets_go(&mut self, pid: Pid, now: Duration) {
        self.let_go.insert(pid, now);
    }
    /// A process is not to come back.
    pub(super) fn fences(&mut self, pid: Pid, now: Duration) {
        self.count("fenced");
        let since = self.let_go.get(&pid).copied().unwrap_or_default();
        let at_fault = self.guilty.get(&pid).is_some_and(|until| *until + ECHO >= now);
        let patient = now.saturating_sub(since) >= crate::membership::FENCE_LIMIT;
        self.require(at_fault || patient, || {
            let for_ms = (now - since).as_millis();
            format!("process {pid} is well and was let go {for_ms} ms ago, and is fenced")
        });
    }
}
