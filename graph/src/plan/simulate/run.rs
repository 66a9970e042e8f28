//! One run: devices at their instructions, and a queue of what will happen when. Each device does one thing at a time and
//! stands still at a channel or at the end of the bodies until it may go on; nothing is decided but by the queue, whose
//! times are the costs, or costs and noise of a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::bytes::name;
use super::harm::{Happened, Harm, HarmKind};
use super::kernels::Kernels;
use super::machine::{Machine, Running};
use super::network::{Link, links};
use super::{Cost, Interval, Options, Simulation, StepOutcome};
use crate::id::Id;
use crate::plan::{ChannelId, Endpoint, Instruction, Place, Plan};

/// Noise is added to costs of this much, in seconds: large beside the clock's nanosecond, so that few things coincide.
const TICK: f64 = 1e-3;

/// What happens at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// Bytes of what is posted are read.
    Looked(ChannelId),
    /// The last of them has been.
    Taken(ChannelId),
    /// The slot is written.
    Landed(ChannelId),
    /// All of it is there.
    Arrived(ChannelId),
    /// A device is done with its instruction.
    Done(usize),
}

pub(super) struct Device<'a> {
    pub(super) machine: Machine<'a>,
    at: usize,
    pub(super) step: usize,
    /// When it came to its instruction, and when it began it.
    reached: Duration,
    begun: Option<Duration>,
    running: Option<Running>,
    /// How many bodies it has ended.
    bodies: usize,
    /// How much slower than it should it is.
    slow: f64,
}

pub(super) struct Run<'a> {
    pub(super) plan: &'a Plan,
    pub(super) cost: &'a dyn Cost,
    options: &'a Options,
    pub(super) seed: Option<u64>,
    noise: u64,
    pub(super) now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    queued: u64,
    pub(super) devices: Vec<Device<'a>>,
    pub(super) links: Vec<Option<Link>>,
    /// How often each channel was posted and waited for in the steps under way, by its ends here.
    pub(super) uses: Vec<[usize; 2]>,
    pub(super) slow: Vec<f64>,
    pub(super) result: Simulation,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        cost: &'a dyn Cost,
        options: &'a Options,
        kernels: &'a Kernels,
        seed: Option<u64>,
    ) -> Result<Self, Box<Harm>> {
        let result = Simulation {
            steps: vec![StepOutcome { state: vec![0; plan.devices.len()], ..StepOutcome::default() }; options.steps],
            timeline: vec![],
            transfers: vec![],
            end: Duration::ZERO,
            waste: vec![],
        };
        let (queue, now, noise) = (BinaryHeap::new(), Duration::ZERO, name(("noise", seed)));
        let uses = vec![[0, 0]; plan.channels.len()];
        let (devices, links, slow) = (vec![], links(plan), vec![]);
        let mut run =
            Self { plan, cost, options, seed, noise, now, queue, queued: 0, devices, links, uses, slow, result };
        run.slow = (0..plan.channels.len()).map(|_| run.factor()).collect();
        for (index, part) in plan.devices.iter().enumerate() {
            let state = if options.replicas { name("state") } else { name(("state", index)) };
            let machine = Machine::new(plan, part, kernels, state);
            let (slow, reached) = (run.factor(), Duration::ZERO);
            run.devices.push(Device { machine, at: 0, step: 0, reached, begun: None, running: None, bodies: 0, slow });
        }
        // Ends that are not there: nobody could even load this.
        for (id, channel) in plan.channels.iter() {
            let there = |end| matches!(end, Endpoint::Device(d) if usize::from(d) < plan.devices.len());
            let joins = [channel.from, channel.to].iter().any(|end| there(*end))
                && [channel.from, channel.to].iter().all(|end| *end == Endpoint::Driver || there(*end))
                && channel.from != channel.to;
            if !joins {
                let (kind, message) = (HarmKind::Malformed, format!("{id} does not join two ends that are there"));
                return Err(Box::new(Harm { kind, seed, step: 0, at: Duration::ZERO, place: None, message }));
            }
        }
        Ok(run)
    }

    /// A number below 1, by the seed.
    fn random(&mut self) -> f64 {
        self.noise = self.noise.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mixed = (self.noise ^ (self.noise >> 29)).wrapping_mul(0xbf58476d1ce4e5b9);
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
    /// From a hundredth to a hundred, as likely small as large.
    fn factor(&mut self) -> f64 {
        100f64.powf(2.0 * self.random() - 1.0)
    }
    /// A duration with noise in it, if this run has a seed: never exactly as long as another.
    pub(super) fn noisy(&mut self, duration: Duration, slow: f64) -> Duration {
        if self.seed.is_none() {
            return duration;
        }
        let seconds = (duration.as_secs_f64() + TICK) * slow * (0.01 + self.factor().min(10.0));
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX / 1_000_000)
    }
    /// Some time between two.
    pub(super) fn between(&mut self, a: Duration, b: Duration) -> Duration {
        if self.seed.is_none() { b } else { a + b.saturating_sub(a).mul_f64(self.random()) }
    }
    pub(super) fn at(&mut self, time: Duration, event: Event) {
        self.queued += 1;
        self.queue.push(Reverse((time, self.queued, event)));
    }

    fn harm(&self, device: Option<usize>, (kind, message): Happened) -> Box<Harm> {
        let of = device.map(|d| (d, &self.devices[d]));
        let place = of.map(|(d, of)| Place { device: d as u16, instruction: of.at });
        let message = match of {
            Some((d, of)) => {
                let part = &self.plan.devices[d];
                let what = part.instructions.get(of.at).map_or("the end of the step".into(), |i| format!("`{i}`"));
                format!("{} at {}, {what}: {message}", part.device, of.at)
            }
            None => message,
        };
        let step = of.map_or_else(|| self.devices.iter().map(|d| d.step).min().unwrap_or(0), |(_, of)| of.step);
        Box::new(Harm { kind, seed: self.seed, step, at: self.now, place, message })
    }

    pub(super) fn run(mut self) -> Result<Simulation, Box<Harm>> {
        self.poll()?;
        while let Some(Reverse((time, _, event))) = self.queue.pop() {
            self.now = time;
            match event {
                Event::Done(device) => {
                    self.done(device).map_err(|what| self.harm(Some(device), what))?;
                    self.devices[device].at += 1;
                }
                Event::Looked(id) | Event::Taken(id) | Event::Landed(id) | Event::Arrived(id) => {
                    self.travels(id, event).map_err(|what| self.harm(None, what))?;
                }
            }
            self.poll()?;
        }
        let waiting: Vec<String> = (0..self.devices.len()).filter_map(|d| self.waits(d)).collect();
        if !waiting.is_empty() {
            return Err(self.harm(None, (HarmKind::Hang, waiting.join("; "))));
        }
        self.result.end = self.now;
        for (device, part) in self.plan.devices.iter().enumerate() {
            for (instruction, what) in part.instructions.iter().enumerate() {
                let computes = matches!(what, Instruction::Launch(_) | Instruction::Copy { .. });
                if computes && !self.devices[device].machine.used[instruction] && self.options.steps > 0 {
                    self.result.waste.push(Place { device: device as u16, instruction });
                }
            }
        }
        Ok(self.result)
    }

    /// What a device that has not done all its steps stands at.
    fn waits(&self, d: usize) -> Option<String> {
        let (device, part) = (&self.devices[d], &self.plan.devices[d]);
        let at = part.instructions.get(device.at).map_or("the end of the step".into(), |i| format!("`{i}`"));
        let left = device.step < self.options.steps;
        left.then(|| format!("{} waits at {}, {at}, in step {}", part.device, device.at, device.step))
    }

    /// Lets every device go on that can.
    fn poll(&mut self) -> Result<(), Box<Harm>> {
        // One that goes on may let another: ends of bodies and grants take no time of their own.
        loop {
            let mut moved = false;
            for d in 0..self.devices.len() {
                while self.devices[d].begun.is_none() && self.devices[d].step < self.options.steps {
                    let went = self.go_on(d).map_err(|what| self.harm(Some(d), what))?;
                    moved |= went;
                    if !went {
                        break;
                    }
                }
            }
            if !moved {
                return Ok(());
            }
        }
    }

    /// Begins the instruction that a device is at, or ends its step. Gives whether it could.
    fn go_on(&mut self, d: usize) -> Result<bool, Happened> {
        let (at, step) = (self.devices[d].at, self.devices[d].step);
        let Some(instruction) = self.plan.devices[d].instructions.get(at) else {
            return self.step_ends(d).map(|()| true);
        };
        let cost = match instruction {
            Instruction::Launch(launch) => {
                self.devices[d].running = Some(self.devices[d].machine.begin(launch)?);
                self.cost.launch(d as u16, launch)
            }
            Instruction::Copy { from, to } => {
                let bytes = self.devices[d].machine.copy(at, *from, *to)?;
                self.cost.copy(d as u16, bytes)
            }
            Instruction::Commit => {
                self.devices[d].bodies = step + 1;
                if self.devices.iter().any(|other| other.bodies <= step) {
                    return Ok(false);
                }
                self.devices[d].machine.commit()?;
                Duration::ZERO
            }
            Instruction::Snapshot => Duration::ZERO,
            Instruction::Grant(id) => self.grant(d, *id)?,
            Instruction::Sent(id) => match self.sent(d, *id)? {
                Some(cost) => cost,
                None => return Ok(false),
            },
            Instruction::Post { channel, buffer } => match self.post(d, *channel, *buffer)? {
                Some(cost) => cost,
                None => return Ok(false),
            },
            Instruction::Wait { channel, buffer } => match self.wait(d, *channel, *buffer)? {
                Some(cost) => cost,
                None => return Ok(false),
            },
        };
        let slow = self.devices[d].slow;
        let end = self.now.saturating_add(self.noisy(cost, slow));
        self.devices[d].begun = Some(self.now);
        self.at(end, Event::Done(d));
        Ok(true)
    }

    /// The instruction that a device is at is over.
    fn done(&mut self, d: usize) -> Result<(), Happened> {
        let device = &mut self.devices[d];
        let (step, instruction) = (device.step, device.at);
        let begin = device.begun.take().unwrap_or(self.now);
        if let Some(running) = device.running.take()
            && let Some(Instruction::Launch(launch)) = self.plan.devices[d].instructions.get(instruction)
        {
            device.machine.end(instruction, launch, &running)?;
        }
        let reached = std::mem::replace(&mut device.reached, self.now);
        if self.seed.is_none() {
            let place = Place { device: d as u16, instruction };
            self.result.timeline.push(Interval { step, place, reached, begin, end: self.now });
        }
        Ok(())
    }

    fn step_ends(&mut self, d: usize) -> Result<(), Happened> {
        let protocol = |message: String| Err((HarmKind::Protocol, message));
        for (id, channel) in self.plan.channels.iter() {
            let me = Endpoint::Device(d as u16);
            for (end, here, verb) in [(0, channel.from == me, "posted"), (1, channel.to == me, "waited for")] {
                let times = if here { std::mem::take(&mut self.uses[id.index()][end]) } else { 1 };
                if times != 1 {
                    return protocol(format!("{id} was {verb} {times} times in the step"));
                }
            }
            if self.links[id.index()].as_ref().is_some_and(|link| link.from == d && link.unsent.is_some()) {
                return protocol(format!("{id} was posted, and its buffer not taken back"));
            }
        }
        let device = &mut self.devices[d];
        let state = device.machine.step_ends()?;
        self.result.steps[device.step].state[d] = state;
        device.bodies = device.step + 1;
        device.step += 1;
        device.at = 0;
        Ok(())
    }
}
