//! Plans from text; see [`plan_print`](super::plan_print) for what it looks like. It reads what is written and no more:
//! whether ids exist, buffers fit and the order is right is for [`Plan::verify`] to say, so that an unsound plan can be
//! written down, looked at and read back. No number in the text is believed: lists grow by what is written, never by
//! what is announced.

use std::sync::Arc;

use super::kernel_parse::parse_kernel;
use super::lex::{Cursor, Kind, ParseError};
use super::value::{parse_buffer_type, parse_site};
use crate::id::Arena;
use crate::ir::Site;
use crate::plan::{
    Buffer, BufferId, Channel, ChannelId, DevicePlan, Endpoint, Instruction, KernelId, Launch, Memory, Piece, Plan,
};
use crate::types::Bindings;

impl Plan {
    /// The plan that `text` says, sound or not: see [`Plan::verify`].
    pub fn parse(text: &str) -> Result<Plan, ParseError> {
        let mut cursor = Cursor::new(text);
        let plan = parse_plan(&mut cursor)?;
        cursor.finish()?;
        Ok(plan)
    }
}

fn parse_plan(cursor: &mut Cursor<'_>) -> Result<Plan, ParseError> {
    cursor.expect("plan")?;
    let graph = cursor.text("the graph's name, quoted")?.into();
    cursor.expect("program")?;
    let program = cursor.text("the program's name, quoted")?.into();
    let bindings = parse_bindings(cursor)?;
    cursor.expect("{")?;
    let (kernels, channels) = (Arena::default(), Arena::default());
    let mut plan = Plan { graph, program, bindings, kernels, channels, devices: vec![] };
    while !cursor.eat("}") {
        if cursor.sees_numbered("k").is_some() {
            cursor.in_order("k", plan.kernels.len())?;
            cursor.expect("=")?;
            plan.kernels.push(parse_kernel(cursor)?);
        } else if cursor.peek().kind == Kind::Id {
            plan.channels.push(parse_channel(cursor, plan.channels.len())?);
        } else if cursor.sees("device") {
            plan.devices.push(parse_device(cursor, plan.devices.len())?);
        } else {
            return Err(cursor.unexpected("a line of a plan (`k0 = `, `#0:`, `device 0`) or `}`"));
        }
    }
    Ok(plan)
}

/// Values of named dimensions; nothing where there are none. A name that is no word is quoted.
fn parse_bindings(cursor: &mut Cursor<'_>) -> Result<Bindings, ParseError> {
    let mut bindings = Bindings::new();
    while !cursor.sees("{") {
        if !bindings.is_empty() {
            cursor.expect(",")?;
        }
        let at = cursor.at();
        let name: Arc<str> = match cursor.peek().kind {
            Kind::Text => cursor.text("a dimension's name")?.into(),
            _ => cursor.word("a dimension's name or `{`")?.into(),
        };
        cursor.expect("=")?;
        if bindings.insert(name.clone(), cursor.int("an extent")?).is_some() {
            return Err(cursor.error_at(at, format!("dimension `{}` is bound twice", super::lex::shorten(&name))));
        }
    }
    Ok(bindings)
}

fn parse_channel(cursor: &mut Cursor<'_>, count: usize) -> Result<Channel, ParseError> {
    let at = cursor.at();
    let id = channel(cursor)?;
    if id.0 as usize != count {
        return Err(cursor.error_at(at, format!("expected `#{count}`, the next in order, found `{id}`")));
    }
    cursor.expect(":")?;
    let ty = parse_buffer_type(cursor)?;
    cursor.expect("=")?;
    let from = parse_endpoint(cursor)?;
    cursor.expect("->")?;
    let to = parse_endpoint(cursor)?;
    let start = if cursor.eat("at") { cursor.int("the first element")? } else { 0 };
    Ok(Channel { from, to, ty, start, label: cursor.text("the channel's label, quoted")?.into() })
}

fn parse_endpoint(cursor: &mut Cursor<'_>) -> Result<Endpoint, ParseError> {
    if cursor.eat("driver") {
        return Ok(Endpoint::Driver);
    }
    if !cursor.eat("device") {
        return Err(cursor.unexpected("`driver` or `device`"));
    }
    Ok(Endpoint::Device(cursor.int("a device's number")?))
}

fn parse_device(cursor: &mut Cursor<'_>, count: usize) -> Result<DevicePlan, ParseError> {
    cursor.expect("device")?;
    let at = cursor.at();
    let index: u64 = cursor.int("a device's number")?;
    if index != count as u64 {
        return Err(cursor.error_at(at, format!("expected device {count}, the next in order, found {index}")));
    }
    let device = cursor.text("the device's name, quoted")?.into();
    let mut bytes = |memory: Memory| {
        cursor.expect(memory.name())?;
        cursor.int("a number of bytes")
    };
    let (state_bytes, scratch_bytes) = (bytes(Memory::State)?, bytes(Memory::Scratch)?);
    let staging_bytes = bytes(Memory::Staging)?;
    cursor.expect("{")?;
    let (mut buffers, mut instructions) = (Arena::default(), Vec::new());
    while !cursor.eat("}") {
        if cursor.sees_numbered("b").is_some() {
            cursor.in_order("b", buffers.len())?;
            buffers.push(parse_buffer(cursor)?);
        } else {
            instructions.push(parse_instruction(cursor)?);
        }
    }
    Ok(DevicePlan { device, state_bytes, scratch_bytes, staging_bytes, buffers, instructions })
}

fn parse_buffer(cursor: &mut Cursor<'_>) -> Result<Buffer, ParseError> {
    cursor.expect(":")?;
    let ty = parse_buffer_type(cursor)?;
    cursor.expect("=")?;
    let memory = Memory::from_name(cursor.peek().text);
    let memory = memory.ok_or_else(|| cursor.unexpected("`state`, `scratch` or `staging`"))?;
    cursor.bump();
    cursor.expect("at")?;
    let offset = cursor.int("an offset")?;
    let mut pieces = Vec::new();
    if cursor.eat("of") {
        pieces.push(piece(cursor)?);
        while cursor.eat(",") {
            pieces.push(piece(cursor)?);
        }
    }
    Ok(Buffer { memory, offset, ty, pieces })
}

fn piece(cursor: &mut Cursor<'_>) -> Result<Piece, ParseError> {
    let buffer = buffer(cursor)?;
    cursor.expect("[")?;
    let start = cursor.int("an element's number")?;
    cursor.expect("..")?;
    let end = cursor.int("an element's number")?;
    cursor.expect("]")?;
    Ok(Piece { buffer, start, end })
}

fn buffer(cursor: &mut Cursor<'_>) -> Result<BufferId, ParseError> {
    cursor.numbered("b", "a buffer").map(BufferId)
}

fn channel(cursor: &mut Cursor<'_>) -> Result<ChannelId, ParseError> {
    cursor.id('#', "a channel, like `#0`").map(ChannelId)
}

/// Buffers with commas between them, perhaps none.
fn parse_buffers(cursor: &mut Cursor<'_>) -> Result<Vec<BufferId>, ParseError> {
    let mut buffers = Vec::new();
    if cursor.sees_numbered("b").is_some() {
        buffers.push(buffer(cursor)?);
        while cursor.eat(",") {
            buffers.push(buffer(cursor)?);
        }
    }
    Ok(buffers)
}

fn parse_instruction(cursor: &mut Cursor<'_>) -> Result<Instruction, ParseError> {
    let token = cursor.peek();
    let name = if token.kind == Kind::Word { token.text } else { "" };
    if !matches!(name, "launch" | "copy" | "grant" | "post" | "sent" | "wait" | "snapshot" | "commit") {
        return Err(cursor.unexpected("a buffer (`b0:`), an instruction or `}`"));
    }
    cursor.bump();
    Ok(match name {
        "launch" => Instruction::Launch(parse_launch(cursor)?),
        "copy" => {
            let from = buffer(cursor)?;
            cursor.expect("->")?;
            Instruction::Copy { from, to: buffer(cursor)? }
        }
        "grant" => Instruction::Grant(channel(cursor)?),
        "post" => Instruction::Post { channel: channel(cursor)?, buffer: buffer(cursor)? },
        "sent" => Instruction::Sent(channel(cursor)?),
        "wait" => Instruction::Wait { channel: channel(cursor)?, buffer: buffer(cursor)? },
        "snapshot" => Instruction::Snapshot,
        _ => Instruction::Commit,
    })
}

fn parse_launch(cursor: &mut Cursor<'_>) -> Result<Launch, ParseError> {
    let kernel = cursor.numbered("k", "a kernel").map(KernelId)?;
    let reads = parse_buffers(cursor)?;
    cursor.expect("->")?;
    let writes = parse_buffers(cursor)?;
    let mut workspace = (0, 0);
    if cursor.eat("work") {
        workspace.1 = cursor.int("a number of bytes")?;
        cursor.expect("bytes")?;
        cursor.expect("at")?;
        workspace.0 = cursor.int("an offset")?;
    }
    let label = cursor.text("the launch's label, quoted")?.into();
    let site = if cursor.eat("at") { parse_site(cursor)? } else { Site::default() };
    Ok(Launch { kernel, reads, writes, workspace, label, site })
}
