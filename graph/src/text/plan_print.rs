//! Plans as text: what is bound, the kernels, what crosses boundaries, then each device with its arenas, buffers and
//! instructions. Nothing is derived or summed up here, as a picture would: every number of the plan is printed, and none
//! that is not, so that unsound plans print (and come back) as well. Source lines only under `{:#}`.
//!
//! ```text
//! plan "digits" program "train" batch=64 {
//!   k0 = nest (f32[64, 10]) -> f32[64, 10] {
//!     …
//!   }
//!   #0: f32[64, 1, 8, 8] = driver -> device 0 at 4096 "image"
//!   device 0 "cpu:0" state 81952 scratch 4718592 staging 16640 {
//!     b0: f32[64, 1, 8, 8] = staging at 0
//!     b1: f32[1000] = scratch at 64 of b3[0..990], b4[2..12]
//!     wait #0 b0
//!     launch k0 b0, b2 -> b3 work 4096 bytes at 128 "body.conv1: conv2d" at "a.rs:3:9"
//!     post #1 b3
//!     sent #1
//!     grant #0
//!     snapshot
//!     commit
//!     copy b3 -> b4
//!   }
//! }
//! ```

use std::fmt::{self, Display, Formatter};

use super::kernel_print::print_kernel;
use super::value::{write_list, write_site};
use crate::plan::{Buffer, BufferId, Channel, ChannelId, DevicePlan, Endpoint, Instruction, Launch, Piece, Plan};
use crate::verify::is_name;

impl Display for Plan {
    /// The plan as text; with `{:#}` each launch also says its source line.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "plan {:?} program {:?}", self.graph, self.program)?;
        for (i, (name, value)) in self.bindings.iter().enumerate() {
            f.write_str(if i > 0 { ", " } else { " " })?;
            if is_name(name) { write!(f, "{name}={value}")? } else { write!(f, "{name:?}={value}")? }
        }
        f.write_str(" {\n")?;
        for (id, kernel) in self.kernels.iter() {
            write!(f, "  {id} = ")?;
            print_kernel(kernel, f, 2)?;
            f.write_str("\n")?;
        }
        for (id, channel) in self.channels.iter() {
            print_channel(id, channel, f)?;
        }
        for (index, device) in self.devices.iter().enumerate() {
            print_device(index, device, f)?;
        }
        f.write_str("}")
    }
}

impl Display for Endpoint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Driver => f.write_str("driver"),
            Endpoint::Device(index) => write!(f, "device {index}"),
        }
    }
}

fn print_channel(id: ChannelId, channel: &Channel, f: &mut Formatter<'_>) -> fmt::Result {
    let Channel { from, to, ty, start, label } = channel;
    write!(f, "  {id}: {ty} = {from} -> {to} ")?;
    if *start != 0 {
        write!(f, "at {start} ")?;
    }
    writeln!(f, "{label:?}")
}

fn print_device(index: usize, device: &DevicePlan, f: &mut Formatter<'_>) -> fmt::Result {
    let DevicePlan { device: name, state_bytes, scratch_bytes, staging_bytes, buffers, instructions } = device;
    writeln!(f, "  device {index} {name:?} state {state_bytes} scratch {scratch_bytes} staging {staging_bytes} {{")?;
    for (id, buffer) in buffers.iter() {
        print_buffer(id, buffer, f)?;
    }
    for instruction in instructions {
        f.write_str("    ")?;
        instruction.fmt(f)?;
        f.write_str("\n")?;
    }
    f.write_str("  }\n")
}

fn print_buffer(id: BufferId, buffer: &Buffer, f: &mut Formatter<'_>) -> fmt::Result {
    let Buffer { memory, offset, ty, pieces } = buffer;
    write!(f, "    {id}: {ty} = {} at {offset}", memory.name())?;
    if !pieces.is_empty() {
        f.write_str(" of ")?;
        write_list(f, pieces)?;
    }
    f.write_str("\n")
}

impl Display for Piece {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Piece { buffer, start, end } = self;
        write!(f, "{buffer}[{start}..{end}]")
    }
}

impl Display for Instruction {
    /// As it stands in a plan; with `{:#}` a launch also says its source line.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Instruction::Launch(launch) => print_launch(launch, f),
            Instruction::Copy { from, to } => write!(f, "copy {from} -> {to}"),
            Instruction::Grant(channel) => write!(f, "grant {channel}"),
            Instruction::Post { channel, buffer } => write!(f, "post {channel} {buffer}"),
            Instruction::Sent(channel) => write!(f, "sent {channel}"),
            Instruction::Wait { channel, buffer } => write!(f, "wait {channel} {buffer}"),
            Instruction::Snapshot => f.write_str("snapshot"),
            Instruction::Commit => f.write_str("commit"),
        }
    }
}

fn print_launch(launch: &Launch, f: &mut Formatter<'_>) -> fmt::Result {
    let Launch { kernel, reads, writes, workspace: (offset, bytes), label, site } = launch;
    write!(f, "launch {kernel} ")?;
    write_list(f, reads)?;
    f.write_str(if reads.is_empty() { "-> " } else { " -> " })?;
    write_list(f, writes)?;
    f.write_str(if writes.is_empty() { "" } else { " " })?;
    if (*offset, *bytes) != (0, 0) {
        write!(f, "work {bytes} bytes at {offset} ")?;
    }
    write!(f, "{label:?}")?;
    write_site(f, site)
}
