//! A whole job in one thread, from one seed: driver, workers, launcher, what is between them and what goes wrong with them, in
//! virtual time. The machines that decide are those of the processes that people run ([`membership`](crate::membership),
//! [`coordinator`](crate::coordinator), [`joining`](crate::joining), [`machine`](crate::machine)); the rims around them are
//! modelled, since they are what sockets, threads, files and clocks are for.
//!
//! `THALWEG_SEED=123 cargo test --release -p thalweg-distributed one_seed -- --ignored --nocapture` tells all that happens in
//! one run.

mod driver;
mod faults;
mod network;
mod session;
mod strike;
mod tests;
mod truth;
mod worker;

use std::collections::BTreeMap;
use std::time::Duration;

use driver::{Driver, Ended};
use faults::{Faults, Mutant, When};
use network::{Ground, Happening, Notice, Pid, Random, mix};
use truth::Truth;
use worker::Worker;

/// How often the launcher looks.
const LOOK: Duration = Duration::from_millis(5);
/// How long workers may stay once the driver has ended: as in `launch.rs`.
const PARTING_LIMIT: Duration = Duration::from_secs(5);
/// A job ends within so long of the last thing that went wrong: twice a driver's patience, and what a job takes.
const PROGRESS_LIMIT: Duration = Duration::from_secs(200);

/// What came of a run.
struct Run {
    /// What should not have been, if anything.
    wrong: Option<String>,
    counts: BTreeMap<String, u64>,
    trace: Vec<String>,
    events: u64,
    took: Duration,
}

/// A job, seen from outside.
struct Job {
    ground: Ground,
    driver: Option<Driver>,
    workers: BTreeMap<Pid, Worker>,
    /// By rank, the process that has it; ended ones that nobody replaces are `None`.
    crew: Vec<Option<Pid>>,
    restarts: u32,
    pids: Pid,
    /// When the driver had ended for good, and whether well.
    over: Option<(Duration, bool)>,
}

/// A run with the faults that the seed draws.
fn run(seed: u64, mutant: Option<Mutant>, traces: bool) -> Run {
    let faults = Faults::draw(&mut Random(mix(seed)), mutant);
    Job::new(seed, faults, traces).run()
}

impl Job {
    fn new(seed: u64, faults: Faults, traces: bool) -> Self {
        let mut ground = Ground::new(seed, faults, Truth::new(seed), traces);
        let world = 1 + ground.random.below(4) as usize;
        ground.size = (8 + ground.random.below(16), 3 + ground.random.below(5));
        // Most jobs may start processes anew more often than they will have to.
        let restarts = if ground.random.one_in(4) { ground.random.below(3) as u32 } else { 100 };
        ground.disk.expected = world;
        let times: Vec<Duration> = ground
            .faults
            .planned
            .iter()
            .filter_map(|p| if let When::At(at) = p.when { Some(at) } else { None })
            .collect();
        times.iter().for_each(|at| ground.at(*at, Happening::Fault));
        ground.at(LOOK, Happening::Launcher);
        let mut job = Self {
            ground,
            driver: None,
            workers: BTreeMap::new(),
            crew: vec![None; world],
            restarts,
            pids: 0,
            over: None,
        };
        job.start_driver();
        for rank in 0..world {
            job.start_worker(rank);
        }
        job
    }
    fn start_driver(&mut self) {
        self.pids += 1;
        self.ground.driver = self.pids;
        self.driver = Some(Driver::start(self.pids, &mut self.ground));
    }
    fn start_worker(&mut self, rank: usize) {
        self.pids += 1;
        self.ground.workers.push(self.pids);
        self.crew[rank] = Some(self.pids);
        self.workers.insert(self.pids, Worker::start(self.pids, rank as u16, &mut self.ground));
    }

    fn run(mut self) -> Run {
        let mut events = 0;
        while self.ground.truth.wrong.is_none() {
            let Some(((at, sequence), what)) = self.ground.queue.pop_first() else { break };
            self.ground.now = at;
            events += 1;
            if at > self.ground.calm + PROGRESS_LIMIT {
                let what = if self.over.is_some() { "workers are left" } else { "the job does not end" };
                self.ground.truth.accuse(|| format!("{what} {PROGRESS_LIMIT:?} after the last fault"));
            }
            match what {
                Happening::Fault => self.ground.strike_due(),
                Happening::Launcher => {
                    if self.launch() {
                        break;
                    }
                }
                Happening::To(pid, notice) => {
                    if let Some(until) = self.ground.stopped.get(&pid).copied().filter(|until| *until > at) {
                        self.ground.queue.insert((until, sequence), Happening::To(pid, notice));
                    } else if !self.ground.is_dead(pid) && self.ground.passes(pid, &notice) {
                        self.notice(pid, notice);
                    }
                }
            }
        }
        let Ground { truth, trace, now, .. } = self.ground;
        Run { wrong: truth.wrong, counts: truth.counts, trace: trace.unwrap_or_default(), events, took: now }
    }
    fn notice(&mut self, pid: Pid, notice: Notice) {
        let ground = &mut self.ground;
        if !matches!(notice, Notice::Timer(_)) {
            ground.note(|| format!("  to {pid}: {notice:?}"));
        }
        if let Some(driver) = self.driver.as_mut().filter(|d| d.pid == pid) {
            driver.notice(ground, notice);
            if driver.ended.is_some() {
                ground.end(pid, false);
            }
        } else if let Some(worker) = self.workers.get_mut(&pid) {
            worker.notice(ground, notice);
            if worker.ended.is_some() {
                ground.end(pid, false);
            }
        }
    }

    /// What the launcher does, as in `launch.rs`. Whether the job is over and nobody is left.
    fn launch(&mut self) -> bool {
        let now = self.ground.now;
        if self.over.is_none() {
            self.look_after_driver();
        }
        if self.over.is_none() {
            self.look_after_workers();
        }
        if let Some((since, _)) = self.over {
            let left: Vec<Pid> = self.workers.keys().copied().filter(|pid| !self.ground.is_dead(*pid)).collect();
            if left.is_empty() {
                return true;
            }
            if now > since + PARTING_LIMIT {
                // Who is stopped or cut off cannot know.
                let well = |pid: &Pid| {
                    self.ground.stopped.get(pid).is_none_or(|until| *until + PARTING_LIMIT < now)
                        && !self.ground.is_cut_off(*pid)
                };
                if left.iter().any(well) {
                    self.ground.truth.accuse(|| format!("the job is over, and processes {left:?} are left"));
                }
                left.iter().for_each(|pid| self.ground.end(*pid, true));
            }
        }
        self.ground.at(now + LOOK, Happening::Launcher);
        false
    }
    fn look_after_driver(&mut self) {
        let Some(driver) = &self.driver else { return };
        if !self.ground.is_dead(driver.pid) {
            return;
        }
        let ended = driver.ended.clone();
        let now = self.ground.now;
        match ended {
            Some(ended) => {
                if let Ended::Badly(why) = &ended {
                    // With nobody left there is nothing to go on with; nor if all were stopped before anybody knew of them.
                    let lost = |pid: &Pid| {
                        let well = self.ground.stopped.get(pid).is_none_or(|until| *until < now)
                            && !self.ground.is_cut_off(*pid);
                        !well && !self.ground.truth.was_member(*pid)
                    };
                    let hopeless = self.ground.disk.expected == 0 || self.crew.iter().flatten().all(lost);
                    if !hopeless {
                        self.ground.truth.accuse(|| format!("the driver gives up: {why}"));
                    }
                    self.ground.truth.count("ended: nobody was left");
                } else {
                    self.ground.truth.count("ended: well");
                }
                self.over = Some((now, ended == Ended::Well));
            }
            None => {
                if self.ground.random.one_in(2) && self.ground.disk.lose() {
                    self.ground.truth.count("unsynced writes lost");
                }
                if self.restarts == 0 {
                    self.ground.truth.count("ended: without a driver");
                    self.over = Some((now, false));
                } else {
                    self.restarts -= 1;
                    self.ground.truth.count("driver started anew");
                    self.ground.note(|| "launcher: the driver is started anew".into());
                    self.start_driver();
                }
            }
        }
        if self.over.is_some() && !self.ground.is(Mutant::TellsNobody) {
            self.ground.disk.over = true;
        }
    }
    fn look_after_workers(&mut self) {
        for rank in 0..self.crew.len() {
            let Some(pid) = self.crew[rank] else { continue };
            if self.ground.disk.fenced.contains(&pid) && !self.ground.is_dead(pid) {
                self.ground.truth.count("fenced and ended");
                self.ground.kill(pid, "because it is fenced");
            }
            if !self.ground.is_dead(pid) {
                continue;
            }
            let worker = self.workers.remove(&pid).and_then(|w| w.ended);
            let left = matches!(worker, Some(Ok(())));
            if self.restarts > 0 && !left {
                self.restarts -= 1;
                self.ground.truth.count("worker started anew");
                self.ground.note(|| format!("launcher: rank {rank} is started anew"));
                self.start_worker(rank);
            } else {
                self.crew[rank] = None;
                self.ground.disk.expected = self.crew.iter().flatten().count();
                let expected = self.ground.disk.expected;
                self.ground.truth.count("goes on with fewer");
                self.ground.note(|| format!("launcher: {expected} workers are left"));
            }
        }
    }
}
