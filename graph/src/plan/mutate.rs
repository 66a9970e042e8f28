//! Plans with a mistake in them, every sort of mistake, by a seed: for showing that the verifier sees what does harm, and
//! for trying what a device or an executor does with a broken plan. A mutant may be harmless, and even sound.

use crate::id::Id;
use crate::plan::{Buffer, BufferId, ChannelId, DevicePlan, Instruction, KernelId, Memory, Plan};

/// What is done wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Operator {
    /// An instruction is missing.
    Drop,
    /// An instruction is done again, somewhere.
    Duplicate,
    /// Two instructions in a row change places.
    Swap,
    /// An instruction stands somewhere else.
    Move,
    /// An instruction uses another buffer, or another kernel.
    Retarget,
    /// An instruction uses another channel.
    Rechannel,
    /// A `grant` or a `sent` is missing, or stands elsewhere.
    Recredit,
    /// A buffer lies elsewhere.
    Shift,
    /// A buffer or an arena is smaller.
    Shrink,
    /// Two uses of channels on one device change places, so that its order is no longer that of the others.
    Reorder,
    /// An instruction is done by another device.
    Rehost,
    /// Something of the body is done in the tail, or the other way round.
    OverCommit,
}
use Operator::*;

impl Operator {
    /// Every one of them.
    pub const ALL: [Operator; 12] =
        [Drop, Duplicate, Swap, Move, Retarget, Rechannel, Recredit, Shift, Shrink, Reorder, Rehost, OverCommit];
}

/// A mutant of a plan.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// What was done wrong.
    pub operator: Operator,
    /// Where, in words.
    pub what: String,
    /// What came of it: never the plan that it was.
    pub plan: Plan,
}

/// `count` mutants of a plan, by a seed: each operator in its turn, made when they are asked for. Fewer where an operator
/// has nothing to work on.
pub fn mutants(plan: &Plan, seed: u64, count: usize) -> impl Iterator<Item = Mutant> {
    const ATTEMPTS: usize = 16;
    let mut die = Die(seed ^ 0x9e37_79b9_7f4a_7c15);
    let mut one = move |operator| {
        let mut plan_too = plan.clone();
        let what = die.change(&mut plan_too, operator)?;
        (plan_too != *plan).then_some(Mutant { operator, what, plan: plan_too })
    };
    let operators = Operator::ALL.into_iter().cycle().take(count);
    operators.filter_map(move |operator| (0..ATTEMPTS).find_map(|_| one(operator)))
}

struct Die(u64);

impl Die {
    /// A number below `n`; `None` if there is none.
    fn roll(&mut self, n: usize) -> Option<usize> {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        usize::try_from((self.0 >> 33) % u64::try_from(n).ok().filter(|n| *n > 0)?).ok()
    }
    fn one_of<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        self.roll(of.len()).map(|i| of[i])
    }

    /// Makes one mistake; says which. `None` where there is nothing to make it in.
    fn change(&mut self, plan: &mut Plan, operator: Operator) -> Option<String> {
        let (channels, kernels, devices) = (plan.channels.len(), plan.kernels.len(), plan.devices.len());
        let d = self.roll(devices)?;
        let device = &mut plan.devices[d];
        let (count, tail) = (device.instructions.len(), device.tail_start());
        let of_channels = |device: &DevicePlan, all: bool| -> Vec<usize> {
            let uses = |i: &Instruction| match i {
                Instruction::Grant(_) | Instruction::Sent(_) => true,
                Instruction::Post { .. } | Instruction::Wait { .. } => all,
                _ => false,
            };
            (0..count).filter(|at| uses(&device.instructions[*at])).collect()
        };
        let what = match operator {
            Drop => {
                let at = self.roll(count)?;
                format!("{at}: `{}` is missing", device.instructions.remove(at))
            }
            Duplicate => {
                let (at, to) = (self.roll(count)?, self.roll(count + 1)?);
                let again = device.instructions[at].clone();
                let what = format!("{at}: `{again}` again at {to}");
                device.instructions.insert(to, again);
                what
            }
            Swap => {
                let at = self.roll(count.checked_sub(1)?)?;
                device.instructions.swap(at, at + 1);
                format!("{at} and {}: `{}` comes first", at + 1, device.instructions[at])
            }
            Move => {
                let (at, to) = (self.roll(count)?, self.roll(count)?);
                shift(&mut device.instructions, at, to)
            }
            Retarget => {
                let at = self.roll(count)?;
                let buffer = BufferId::new(self.roll(device.buffers.len() + 1)?);
                let kernel = KernelId::new(self.roll(kernels + 1)?);
                let before = device.instructions[at].to_string();
                let mut slots = named(&mut device.instructions[at]);
                match self.roll(slots.len() + 1)? {
                    slot if slot < slots.len() => *slots[slot] = buffer,
                    _ => match &mut device.instructions[at] {
                        Instruction::Launch(launch) => launch.kernel = kernel,
                        _ => return None,
                    },
                }
                format!("{at}: `{before}` is `{}`", device.instructions[at])
            }
            Rechannel => {
                let at = self.one_of(&of_channels(device, true))?;
                let other = ChannelId::new(self.roll(channels + 1)?);
                let before = device.instructions[at].to_string();
                match &mut device.instructions[at] {
                    Instruction::Grant(channel)
                    | Instruction::Sent(channel)
                    | Instruction::Post { channel, .. }
                    | Instruction::Wait { channel, .. } => *channel = other,
                    _ => return None,
                }
                format!("{at}: `{before}` is `{}`", device.instructions[at])
            }
            Recredit => {
                let at = self.one_of(&of_channels(device, false))?;
                match self.roll(3)? {
                    0 => format!("{at}: `{}` is missing", device.instructions.remove(at)),
                    _ => {
                        let to = self.roll(count)?;
                        shift(&mut device.instructions, at, to)
                    }
                }
            }
            Shift => {
                let id = BufferId::new(self.roll(device.buffers.len())?);
                let offset = device.buffers[self.one_of(&device.buffers.ids().collect::<Vec<_>>())?].offset;
                let buffer: &mut Buffer = &mut device.buffers[id];
                let by = buffer.ty.dtype.size_bytes() as u64;
                buffer.offset = match self.roll(3)? {
                    0 => buffer.offset.saturating_add(by),
                    1 => buffer.offset.saturating_sub(by),
                    _ => offset,
                };
                format!("{id} lies at {}", buffer.offset)
            }
            Shrink => {
                let id = BufferId::new(self.roll(device.buffers.len() + 1)?);
                if id.index() < device.buffers.len() {
                    let axis = self.roll(device.buffers[id].ty.rank())?;
                    let extent = &mut device.buffers[id].ty.shape[axis];
                    *extent = extent.saturating_sub(1);
                    format!("{id} is {}", device.buffers[id].ty)
                } else {
                    let memory = self.one_of(&Memory::ALL)?;
                    let bytes = match memory {
                        Memory::State => &mut device.state_bytes,
                        Memory::Scratch => &mut device.scratch_bytes,
                        Memory::Staging => &mut device.staging_bytes,
                    };
                    let less = self.one_of(&[1, 4, 16, 64])?;
                    *bytes = bytes.saturating_sub(less);
                    format!("the {} arena has {bytes} bytes", memory.name())
                }
            }
            Reorder => {
                let uses = of_channels(device, true);
                let (a, b) = (self.one_of(&uses)?, self.one_of(&uses)?);
                device.instructions.swap(a, b);
                format!(
                    "{a} and {b}: `{}` and `{}` have changed places",
                    device.instructions[b], device.instructions[a]
                )
            }
            Rehost => {
                let (at, other) = (self.roll(count)?, self.roll(devices)?);
                let moved = device.instructions.remove(at);
                let to = self.roll(plan.devices[other].instructions.len() + 1)?;
                let what = format!("{at}: `{moved}` is device {other}'s at {to}");
                plan.devices[other].instructions.insert(to, moved);
                return Some(what);
            }
            OverCommit => {
                let (from, to) = if self.roll(2)? == 0 {
                    (self.roll(tail)?, tail.checked_add(self.roll(count + 1 - tail)?)?.min(count - 1))
                } else {
                    (tail.checked_add(self.roll(count - tail)?)?, self.roll(tail)?)
                };
                shift(&mut device.instructions, from, to)
            }
        };
        Some(format!("{}, {what}", device.device))
    }
}

/// Moves one instruction; says so.
fn shift(instructions: &mut Vec<Instruction>, from: usize, to: usize) -> String {
    let moved = instructions.remove(from);
    let what = format!("{from}: `{moved}` stands at {to}");
    instructions.insert(to, moved);
    what
}

/// Every buffer that an instruction names.
fn named(instruction: &mut Instruction) -> Vec<&mut BufferId> {
    match instruction {
        Instruction::Launch(launch) => launch.reads.iter_mut().chain(&mut launch.writes).collect(),
        Instruction::Copy { from, to } => vec![from, to],
        Instruction::Post { buffer, .. } | Instruction::Wait { buffer, .. } => vec![buffer],
        _ => vec![],
    }
}
