//! Running a plan without a device: discrete events in virtual time over all devices, step after step. Values are
//! symbols, the names of all that they came from; memory begins as poison. It does not look for faults, as the verifier
//! does, with which it shares no code: it does what the instructions say, and notices when somebody uses bytes that do not
//! hold what they are named for, or waits for what never comes.
//!
//! ```
//! # use thalweg_graph::plan::{Plan, simulate::{simulate, Free, Options}};
//! # let plan = Plan::parse("plan \"empty\" program \"run\" { }").unwrap();
//! let simulation = simulate(&plan, &Free, &Options::default()).expect("no harm");
//! println!("{} steps in {:?}", simulation.steps.len(), simulation.end);
//! ```
//!
//! The first run takes the time that the costs say; its timeline is the prediction. Others take any time: devices and
//! channels slower than each other by orders of magnitude, bytes of a posted buffer read anywhere between `post` and `sent`,
//! a slot written anywhere between `post` and `wait`. All runs have to end the same.

mod bytes;
mod harm;
mod in_place;
mod kernels;
mod machine;
mod network;
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use harm::{Harm, HarmKind};

use super::{Channel, ChannelId, Launch, Place, Plan};

/// What things cost, in time.
pub trait Cost {
    /// How long a launch runs.
    fn launch(&self, device: u16, launch: &Launch) -> Duration;
    /// How long it takes to move this many bytes within a device.
    fn copy(&self, device: u16, bytes: u64) -> Duration;
    /// How long the first byte of a channel is on its way, and how long after it the last one arrives.
    fn channel(&self, channel: &Channel) -> (Duration, Duration);
}

/// Nothing takes any time: for questions of order alone.
#[derive(Clone, Copy, Debug)]
pub struct Free;

impl Cost for Free {
    fn launch(&self, _: u16, _: &Launch) -> Duration {
        Duration::ZERO
    }
    fn copy(&self, _: u16, _: u64) -> Duration {
        Duration::ZERO
    }
    fn channel(&self, _: &Channel) -> (Duration, Duration) {
        (Duration::ZERO, Duration::ZERO)
    }
}

/// How much is simulated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Steps in a row. Three show what goes wrong from one step to the next and to the one after.
    pub steps: usize,
    /// A run with any timing for each of these.
    pub seeds: std::ops::Range<u64>,
    /// Whether all devices begin with the same state, byte for byte.
    pub replicas: bool,
}

impl Default for Options {
    /// Three steps, six seeds, each device with state of its own.
    fn default() -> Self {
        Self { steps: 3, seeds: 0..6, replicas: false }
    }
}

/// The name of a value by all that it came from.
pub type Provenance = u64;

/// What a step came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StepOutcome {
    /// What the driver was given, by label and first element.
    pub returned: BTreeMap<(Arc<str>, u64), Provenance>,
    /// State of each device behind the step.
    pub state: Vec<Provenance>,
}

/// An instruction in virtual time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interval {
    /// Which step, from 0.
    pub step: usize,
    /// Which instruction.
    pub place: Place,
    /// When its device came to it.
    pub reached: Duration,
    /// When it could be done.
    pub begin: Duration,
    /// When it was done.
    pub end: Duration,
}

/// A value on its way between devices, in virtual time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// Which step of the sender, from 0.
    pub step: usize,
    /// By which channel.
    pub channel: ChannelId,
    /// Its bytes.
    pub bytes: u64,
    /// When it was posted.
    pub posted: Duration,
    /// When the sender had its buffer back.
    pub taken: Duration,
    /// When it had arrived.
    pub arrived: Duration,
}

/// What a plan does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Simulation {
    /// Step by step; the same in all runs.
    pub steps: Vec<StepOutcome>,
    /// Every instruction of the run with exact costs, in the order in which they ended.
    pub timeline: Vec<Interval>,
    /// What crossed between devices in it, in the order of arrival.
    pub transfers: Vec<Transfer>,
    /// When it was over.
    pub end: Duration,
    /// What computes for nobody: in no step of this run anybody used what it made.
    pub waste: Vec<Place>,
}

/// Runs a plan, sound or not, and says what it does or to what harm it comes.
pub fn simulate(plan: &Plan, cost: &dyn Cost, options: &Options) -> Result<Simulation, Box<Harm>> {
    let kernels = kernels::Kernels::new(plan)?;
    let exact = run::Run::new(plan, cost, options, &kernels, None)?.run()?;
    for seed in options.seeds.clone() {
        let other = run::Run::new(plan, cost, options, &kernels, Some(seed))?.run()?;
        if let Some(step) = (0..exact.steps.len()).find(|step| other.steps[*step] != exact.steps[*step]) {
            let message = "it ends otherwise than with exact costs".into();
            let (kind, at) = (HarmKind::Timing, other.end);
            return Err(Box::new(Harm { kind, seed: Some(seed), step, at, place: None, message }));
        }
    }
    Ok(exact)
}
