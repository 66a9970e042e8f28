//! Plans as pictures: a frame per device, in it what it does in order, and what crosses between devices with its bytes.
//! Launches of one scope that follow each other are one box, forward and backward apart, or a network of a hundred layers
//! would be a picture of a thousand boxes.

mod svg;
mod text;

pub use svg::plan_svg;
pub use text::{plan_dot, plan_mermaid};

use std::collections::BTreeMap;

use crate::id::Id;
use crate::plan::{BufferId, DevicePlan, Endpoint, Instruction, Plan};

/// More boxes than these on a device are drawn by coarser scopes.
const MOST_BOXES: usize = 48;

/// One colour per device, in turn: fill and border.
const COLOURS: [(&str, &str); 6] = [
    ("#dbeafe", "#1d4ed8"),
    ("#dcfce7", "#15803d"),
    ("#fef3c7", "#b45309"),
    ("#fce7f3", "#be185d"),
    ("#ede9fe", "#6d28d9"),
    ("#e5e7eb", "#374151"),
];

/// Launches that follow each other.
struct Figure {
    device: usize,
    name: String,
    launches: usize,
    /// Seconds, where they are known.
    seconds: f64,
}

/// What crosses from one box to another.
#[derive(Default)]
struct Crossing {
    channels: usize,
    bytes: u64,
}

struct Drawing<'a> {
    plan: &'a Plan,
    figures: Vec<Figure>,
    /// By the boxes it leaves and arrives at.
    crossings: BTreeMap<(usize, usize), Crossing>,
}

impl<'a> Drawing<'a> {
    /// `seconds` gives what the launch of a device at an instruction takes, where that is known.
    fn new(plan: &'a Plan, seconds: &dyn Fn(usize, usize) -> f64) -> Self {
        let mut drawing = Self { plan, figures: vec![], crossings: BTreeMap::new() };
        let mut posted: BTreeMap<usize, usize> = BTreeMap::new();
        let mut waited: BTreeMap<usize, usize> = BTreeMap::new();
        for (d, part) in plan.devices.iter().enumerate() {
            let depth = (1..=3).rev().find(|depth| boxes(part, *depth).1 <= MOST_BOXES).unwrap_or(1);
            let (of, _) = boxes(part, depth);
            let first = drawing.figures.len();
            for (at, found) in of.iter().enumerate() {
                let Some((number, name)) = found else { continue };
                if first + number == drawing.figures.len() {
                    drawing.figures.push(Figure { device: d, name: name.clone(), launches: 0, seconds: 0.0 });
                }
                let figure = &mut drawing.figures[first + number];
                figure.launches += 1;
                figure.seconds += seconds(d, at);
            }
            for (at, what) in part.instructions.iter().enumerate() {
                let near = |mut places: Box<dyn Iterator<Item = usize>>| {
                    places.find_map(|i| of[i].as_ref().map(|(number, _)| first + number))
                };
                match what {
                    Instruction::Post { channel, buffer } => {
                        let wrote = writer(part, *buffer, at).and_then(|i| of[i].as_ref()).map(|(n, _)| first + n);
                        let before = wrote.or_else(|| near(Box::new((0..at).rev())));
                        posted.extend(before.map(|b| (channel.index(), b)));
                    }
                    Instruction::Wait { channel, .. } => {
                        let after = near(Box::new(at..of.len()));
                        waited.extend(after.map(|b| (channel.index(), b)));
                    }
                    _ => {}
                }
            }
        }
        for (id, channel) in plan.channels.iter() {
            if channel.from == Endpoint::Driver || channel.to == Endpoint::Driver {
                continue;
            }
            let (Some(from), Some(to)) = (posted.get(&id.index()), waited.get(&id.index())) else { continue };
            let crossing = drawing.crossings.entry((*from, *to)).or_default();
            crossing.channels += 1;
            crossing.bytes += channel.ty.size_bytes();
        }
        drawing
    }
    fn title(&self) -> String {
        format!("{}: {}", self.plan.graph, self.plan.program)
    }
    /// The boxes of a device, by number.
    fn of(&self, device: usize) -> impl Iterator<Item = (usize, &Figure)> {
        self.figures.iter().enumerate().filter(move |(_, f)| f.device == device)
    }
}

impl Figure {
    /// What is written beneath its name.
    fn detail(&self) -> String {
        let launches = if self.launches == 1 { "1 launch".into() } else { format!("{} launches", self.launches) };
        if self.seconds > 0.0 { format!("{launches}, {:.0} µs", self.seconds * 1e6) } else { launches }
    }
}

impl Crossing {
    fn label(&self) -> String {
        let bytes = match self.bytes {
            b if b < 10_000 => format!("{b} B"),
            b if b < 10_000_000 => format!("{:.0} kB", b as f64 / 1e3),
            b => format!("{:.0} MB", b as f64 / 1e6),
        };
        if self.channels == 1 { bytes } else { format!("{bytes} in {}", self.channels) }
    }
}

/// By instruction, the number and name of its box; and how many there are.
fn boxes(part: &DevicePlan, depth: usize) -> (Vec<Option<(usize, String)>>, usize) {
    let mut of = vec![None; part.instructions.len()];
    let (mut count, mut last): (usize, Option<(&str, String)>) = (0, None);
    for (at, launch) in part.launches() {
        let phase = match &launch.label {
            _ if at >= part.tail_start() => "update",
            label if label.contains("gradient of") => "backward",
            _ => "forward",
        };
        let scope = launch.label.split_once(": ").map(|(scope, _)| scope);
        let scope = scope.map(|s| s.split('.').take(depth).collect::<Vec<_>>().join("."));
        // What has no scope belongs to what it stands behind.
        let new = match (&last, scope) {
            (Some((p, _)), None) if *p == phase => None,
            (_, None) => Some((phase, String::new())),
            (Some((p, s)), Some(scope)) if *p == phase && *s == scope => None,
            (_, Some(scope)) => Some((phase, scope)),
        };
        if let Some(new) = new {
            count += 1;
            last = Some(new);
        }
        if let Some((phase, scope)) = &last {
            let name = if scope.is_empty() { (*phase).to_string() } else { format!("{scope} ({phase})") };
            of[at] = Some((count - 1, name));
        }
    }
    (of, count)
}

/// The last launch before an instruction that writes a buffer, or a piece of it.
fn writer(part: &DevicePlan, buffer: BufferId, before: usize) -> Option<usize> {
    let mut all: Vec<BufferId> = part.buffers[buffer].pieces.iter().map(|p| p.buffer).collect();
    all.push(buffer);
    let writes = |at: &usize| match &part.instructions[*at] {
        Instruction::Launch(launch) => launch.writes.iter().any(|w| all.contains(w)),
        _ => false,
    };
    (0..before).rev().find(writes)
}
