//! Sound plans of several devices by chance: values that are computed, fed, fetched, sent on and kept as state, in one
//! global order in time, of which each device's program is the part that it sees. Slots are granted before they are
//! waited for or behind their last reader; buffers share bytes where their lives do not cross.

#![allow(unreachable_pub)] // A module of a test.

use crate::common::Die;
use crate::plan::{each, f32s, reverse};
use thalweg_graph::Site;
use thalweg_graph::id::{Arena, Id};
use thalweg_graph::plan::{
    Buffer, BufferId, Channel, ChannelId, DevicePlan, Endpoint, Instruction, KernelId, Launch, Memory, Plan,
};

/// A value on a device, and the stretch of time in which it needs its bytes.
struct Held {
    device: usize,
    from: f64,
    until: f64,
    slot: bool,
    read: bool,
}

/// What happens on a device at a time; values by number.
enum Act {
    Launch(usize, Vec<usize>, usize),
    Feed(ChannelId, usize),
    Post(ChannelId, usize),
    Sent(ChannelId),
    Grant(ChannelId),
    Wait(ChannelId, usize),
}

struct Maker {
    die: Die,
    devices: usize,
    held: Vec<Held>,
    acts: Vec<(f64, usize, Act)>,
    channels: Arena<ChannelId, Channel>,
    now: f64,
}

impl Maker {
    fn roll(&mut self, n: usize) -> usize {
        self.die.roll(n)
    }
    /// A time between two.
    fn time(&mut self, a: f64, b: f64) -> f64 {
        a + (b - a) * (1 + self.roll(998)) as f64 / 1000.0
    }
    fn channel(&mut self, from: Endpoint, to: Endpoint) -> ChannelId {
        let label = format!("x{}", self.channels.len()).into();
        self.channels.push(Channel { from, to, ty: f32s(&[4]), start: 0, label })
    }
    fn value(&mut self, device: usize, slot: bool) -> usize {
        let now = self.now;
        self.held.push(Held { device, from: now, until: now, slot, read: false });
        self.held.len() - 1
    }
    fn reads(&mut self, value: usize, until: f64) {
        let held = &mut self.held[value];
        (held.until, held.read) = (held.until.max(until), true);
    }
    fn act(&mut self, time: f64, device: usize, act: Act) {
        self.acts.push((time, device, act));
    }
    fn feed(&mut self, device: usize) {
        let channel = self.channel(Endpoint::Driver, Endpoint::Device(device as u16));
        let value = self.value(device, true);
        self.act(self.now, device, Act::Feed(channel, value));
    }
    fn fetch(&mut self, value: usize, at: f64) {
        let device = self.held[value].device;
        let channel = self.channel(Endpoint::Device(device as u16), Endpoint::Driver);
        self.reads(value, at);
        self.act(at, device, Act::Post(channel, value));
    }
    fn launch(&mut self) {
        let x = self.roll(self.held.len());
        let device = self.held[x].device;
        let like: Vec<usize> = (0..self.held.len()).filter(|v| self.held[*v].device == device).collect();
        let y = like[self.roll(like.len())];
        let kernel = self.roll(3);
        let reads = if kernel == 1 { vec![x, y] } else { vec![x] };
        reads.iter().for_each(|v| self.reads(*v, self.now));
        let to = self.value(device, false);
        self.act(self.now, device, Act::Launch(kernel, reads, to));
    }
    /// Sends a value to another device; `end` is when all bodies end.
    fn send(&mut self, end: f64) {
        let x = self.roll(self.held.len());
        let from = self.held[x].device;
        let to = (from + 1 + self.roll(self.devices - 1)) % self.devices;
        let channel = self.channel(Endpoint::Device(from as u16), Endpoint::Device(to as u16));
        let (posted, waited) = (self.now + 0.2, self.now + 0.8);
        let sent = if self.roll(2) == 0 { posted + 0.1 } else { self.time(posted, end) };
        self.reads(x, sent);
        self.act(posted, from, Act::Post(channel, x));
        self.act(sent, from, Act::Sent(channel));
        let value = self.value(to, true);
        self.act(waited, to, Act::Wait(channel, value));
        // Granted before: from then on the bytes are taken. Granted behind the last reader, which is not known yet.
        if self.roll(2) == 0 {
            let granted = if self.roll(2) == 0 { self.now } else { self.time(-1.0, self.now) };
            self.held[value].from = granted;
            self.act(granted, to, Act::Grant(channel));
        } else {
            self.held[value].from = f64::NEG_INFINITY;
            self.act(f64::NAN, to, Act::Grant(channel));
        }
    }
}

/// A plan of two or three devices, from a seed.
pub fn any_plan(seed: u64) -> Plan {
    let mut die = Die(seed);
    let devices = 2 + die.roll(2);
    let count = 4 + die.roll(14);
    let end = count as f64 + 10.0;
    let mut m = Maker { die, devices, held: vec![], acts: vec![], channels: Arena::default(), now: 0.0 };
    (0..devices).for_each(|d| {
        m.feed(d);
        m.now += 1.0;
    });
    for _ in 0..count {
        match m.roll(8) {
            0 => m.feed((m.now as usize) % devices),
            1..=3 => m.send(end),
            _ => m.launch(),
        }
        m.now += 1.0;
    }
    let updates = m.roll(3) > 0;
    let mut tails = vec![None; devices];
    for v in 0..m.held.len() {
        let device = m.held[v].device;
        if updates && tails[device].is_none() && m.roll(3) == 0 {
            tails[device] = Some(v);
            m.reads(v, f64::INFINITY);
        } else if !m.held[v].read || m.roll(8) == 0 {
            let at = m.time(m.held[v].until.max(m.held[v].from).max(0.0) + 1.0, end + 1.0);
            m.fetch(v, at);
        }
    }
    late_grants(&mut m, end);
    let parts = (0..devices).map(|d| part(&mut m, d, tails[d], updates)).collect();
    let mut kernels: Arena<KernelId, _> = Arena::default();
    kernels.push(each(&[4], 1, |x| x(0).exp()));
    kernels.push(each(&[4], 2, |x| x(0) + x(1)));
    kernels.push(reverse());
    let (graph, program) = ("random".into(), "run".into());
    Plan { graph, program, bindings: Default::default(), kernels, channels: m.channels, devices: parts }
}

/// A grant behind the wait stands behind the last reader too, in the body; if there is no room, before the wait.
fn late_grants(m: &mut Maker, end: f64) {
    for i in 0..m.acts.len() {
        let (time, device, Act::Grant(channel)) = &m.acts[i] else { continue };
        let (device, channel) = (*device, *channel);
        if !time.is_nan() {
            continue;
        }
        let waited = m.acts.iter().find_map(|(time, _, act)| match act {
            Act::Wait(of, value) if *of == channel => Some((*time, *value)),
            _ => None,
        });
        let (waited, value) = waited.expect("what is granted is waited for");
        let last = m.held[value].until.max(waited);
        let at = if last.is_finite() { m.time(last.max(0.0) + 0.001, last.max(end) + 2.0) } else { waited - 0.7 };
        if last.is_finite() {
            m.held[value].until = f64::INFINITY;
        }
        m.acts[i] = (at, device, Act::Grant(channel));
    }
}

/// The program of a device: lives, addresses, instructions in order of time.
fn part(m: &mut Maker, d: usize, tail: Option<usize>, updates: bool) -> DevicePlan {
    let mut acts: Vec<&(f64, usize, Act)> = m.acts.iter().filter(|(_, device, _)| *device == d).collect();
    acts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut buffers: Arena<BufferId, Buffer> = Arena::default();
    let mut ids = vec![BufferId(0); m.held.len()];
    let mut arenas = [0u64; 3];
    let mut placed: Vec<(Memory, u64, f64, f64)> = Vec::new();
    for (v, held) in m.held.iter().enumerate().filter(|(_, held)| held.device == d) {
        let memory = if held.slot { Memory::Staging } else { Memory::Scratch };
        // An element-wise kernel may write over what nobody reads later.
        let over = m.acts.iter().find_map(|(_, _, act)| match act {
            Act::Launch(0 | 1, reads, to) if *to == v => {
                let last = |x: &&usize| {
                    let x = &m.held[**x];
                    x.until <= held.from && !x.slot && x.from.is_finite()
                };
                reads.iter().find(last).copied()
            }
            _ => None,
        });
        let crosses = |offset: u64| {
            placed
                .iter()
                .any(|(m, at, from, until)| *m == memory && *at == offset && *from <= held.until && held.from <= *until)
        };
        let free = (0..).map(|n| 16 * n).find(|offset| !crosses(*offset)).expect("there is always a next one");
        let offset = match over.filter(|_| v % 2 == 0) {
            Some(x) => buffers[ids[x]].offset,
            None => free,
        };
        ids[v] = buffers.push(Buffer { memory, offset, ty: f32s(&[4]), pieces: vec![] });
        placed.push((memory, offset, held.from, held.until));
        arenas[memory as usize] = arenas[memory as usize].max(offset + 16);
    }
    let launch = |kernel: usize, reads: Vec<BufferId>, to: BufferId| {
        let (kernel, label, site) = (KernelId::new(kernel), "op".into(), Site::default());
        Instruction::Launch(Launch { kernel, reads, writes: vec![to], workspace: (0, 0), label, site })
    };
    let mut instructions: Vec<Instruction> = acts
        .into_iter()
        .map(|(_, _, act)| match act {
            Act::Launch(kernel, reads, to) => launch(*kernel, reads.iter().map(|v| ids[*v]).collect(), ids[*to]),
            Act::Feed(channel, v) | Act::Wait(channel, v) => Instruction::Wait { channel: *channel, buffer: ids[*v] },
            Act::Post(channel, v) => Instruction::Post { channel: *channel, buffer: ids[*v] },
            Act::Sent(channel) => Instruction::Sent(*channel),
            Act::Grant(channel) => Instruction::Grant(*channel),
        })
        .collect();
    if updates {
        instructions.push(Instruction::Commit);
        if let Some(v) = tail {
            let state = buffers.push(Buffer { memory: Memory::State, offset: 0, ty: f32s(&[4]), pieces: vec![] });
            instructions.push(launch(1, vec![state, ids[v]], state));
        }
    }
    let [_, scratch_bytes, staging_bytes] = arenas;
    let device = format!("cpu:{d}").into();
    DevicePlan { device, state_bytes: 16, scratch_bytes, staging_bytes, buffers, instructions }
}
