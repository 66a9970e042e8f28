//! What goes wrong in a run, all of it drawn from the seed: when, or at which named point, and what. And mistakes that can be
//! made on purpose, to see that they are noticed.

use std::time::Duration;

use super::network::{Body, Envelope, Pid, Random};

/// A machine that is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mutant {
    /// The driver takes the first vote for all.
    FirstVoteCounts,
    /// Whoever hears something does not look of which term it is.
    AnyTerm,
    /// A term begins before its number is on the disk.
    TermNotSynced,
    /// A manifest is published before what it names is on the disk.
    ManifestFirst,
    /// The last of the steps that were lost is not done again.
    ReplaysOneTooFew,
    /// Who has voted and loses the driver commits.
    CommitsAlone,
    /// It commits where the caller said no.
    CommitsAnyhow,
    /// Frames of a step that was given up are taken for the next one's.
    OldFrames,
    /// The first cause is told, not the deepest.
    FirstCause,
    /// A worker ignores that a connection to another broke.
    IgnoresBreaks,
    /// The driver does not mind silence.
    MindsNoSilence,
    /// Nobody is fenced.
    FencesNobody,
    /// Nobody is told that the job is over.
    TellsNobody,
}

pub(super) const MUTANTS: [Mutant; 13] = [
    Mutant::FirstVoteCounts,
    Mutant::AnyTerm,
    Mutant::TermNotSynced,
    Mutant::ManifestFirst,
    Mutant::ReplaysOneTooFew,
    Mutant::CommitsAlone,
    Mutant::CommitsAnyhow,
    Mutant::OldFrames,
    Mutant::FirstCause,
    Mutant::IgnoresBreaks,
    Mutant::MindsNoSilence,
    Mutant::FencesNobody,
    Mutant::TellsNobody,
];

/// Points that a driver passes.
pub(super) const DRIVER_POINTS: [&str; 15] = [
    "joining",
    "assembling",
    "welcomed",
    "loading",
    "restoring",
    "replaying",
    "running",
    "voted",
    "deciding",
    "snapshot",
    "unsynced",
    "unpublished",
    "published",
    "growing",
    "leaving",
];
/// Points that a worker passes.
pub(super) const WORKER_POINTS: [&str; 11] = [
    "seeking",
    "joined",
    "opening",
    "meeting",
    "ready",
    "loading",
    "restoring",
    "body",
    "mid-hop",
    "body-done",
    "committing",
];

/// Longer than any job takes.
pub(super) const FOR_GOOD_MS: u64 = 3_600_000;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// A process is killed.
    Kill,
    /// It is killed after it has said so many more things.
    KillSoon(u32),
    /// It is stopped for so many milliseconds.
    Stop(u64),
    /// It is cut off from all others, for so many milliseconds.
    CutOff(u64),
    /// Its control connection, the n-th of those of the driver, breaks.
    BreakControl(u64),
    /// One of its data connections breaks.
    BreakData(u64),
    /// The next thing that it sends another worker is damaged on the way.
    Damage,
    /// It is told something of an earlier term.
    OldTerm(u64),
    /// The driver hears a vote or an answer once more.
    Twice(u64),
}

/// When.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum When {
    At(Duration),
    /// A process passes a point for so many times in all.
    Passes(&'static str, u32),
}

/// One thing that goes wrong, with the driver or with a worker: which, by a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Planned {
    pub(super) driver: bool,
    pub(super) which: u64,
    pub(super) when: When,
    pub(super) fault: Fault,
}

/// All that goes wrong in a run.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) planned: Vec<Planned>,
    pub(super) mutant: Option<Mutant>,
    doomed: Option<(Pid, u32)>,
    damaging: Option<Pid>,
}

impl Faults {
    /// As many as six, of which some follow close on another.
    pub(super) fn draw(random: &mut Random, mutant: Option<Mutant>) -> Self {
        let (mut planned, mut at) = (vec![], Duration::ZERO);
        for _ in 0..random.below(7) {
            let driver = random.one_in(4);
            at = match random.below(7) {
                0 | 1 => at + random.micros(0, 5_000),
                2 | 3 => at + random.micros(0, 2_500_000),
                4 => random.micros(0, 70_000_000),
                _ => random.micros(0, 400_000),
            };
            let points = if driver { &DRIVER_POINTS[..] } else { &WORKER_POINTS[..] };
            let point = points[random.below(points.len() as u64) as usize];
            let when = if random.one_in(2) { When::At(at) } else { When::Passes(point, 1 + random.below(30) as u32) };
            // Some points are passed a few times only.
            let when = match when {
                When::Passes(point, n) if random.one_in(2) => When::Passes(point, 1 + n % 4),
                when => when,
            };
            let fault = match random.below(12) {
                0..=3 => Fault::Kill,
                4 => Fault::KillSoon(1 + random.below(6) as u32),
                // Workers also for good.
                5 | 6 if !driver && random.one_in(3) => {
                    if random.one_in(2) {
                        Fault::Stop(FOR_GOOD_MS)
                    } else {
                        Fault::CutOff(FOR_GOOD_MS)
                    }
                }
                // Or until the others have gone on without it.
                5 if !driver && random.one_in(4) => Fault::Stop(59_900 + random.below(500)),
                5 => Fault::Stop(10 + random.below(14_000)),
                6 => Fault::CutOff(10 + random.below(9_000)),
                7 => Fault::BreakControl(random.next()),
                8 => Fault::BreakData(random.next()),
                9 => Fault::Damage,
                10 => Fault::OldTerm(random.next()),
                _ => Fault::Twice(random.next()),
            };
            planned.push(Planned { driver, which: random.next(), when, fault });
        }
        Self { planned, mutant, doomed: None, damaging: None }
    }
    /// These and no others.
    pub(super) fn of(planned: Vec<Planned>) -> Self {
        Self { planned, ..Self::default() }
    }
    pub(super) fn doom(&mut self, pid: Pid, left: u32) {
        self.doomed = Some((pid, left));
    }
    /// Whether a process has said all that it may say.
    pub(super) fn is_doomed(&mut self, pid: Pid) -> bool {
        let Some((_, left)) = self.doomed.as_mut().filter(|(doomed, _)| *doomed == pid) else { return false };
        *left = left.saturating_sub(1);
        *left == 0
    }
    pub(super) fn damage(&mut self, pid: Pid) {
        self.damaging = Some(pid);
    }
    pub(super) fn damages(&mut self, from: Pid, what: &Envelope) -> bool {
        let damages = self.damaging == Some(from) && matches!(what.body, Body::Hop { .. });
        if damages {
            self.damaging = None;
        }
        damages
    }
    /// What is due because a process passes a point.
    pub(super) fn passed(&mut self, driver: bool, point: &str) -> Vec<Planned> {
        let mut due = vec![];
        self.planned.retain_mut(|planned| {
            let When::Passes(at, left) = &mut planned.when else { return true };
            if *at != point || planned.driver != driver {
                return true;
            }
            *left -= 1;
            let stays = *left > 0;
            if !stays {
                due.push(*planned);
            }
            stays
        });
        due
    }
}
