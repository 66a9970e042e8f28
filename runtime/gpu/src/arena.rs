//! A device's arenas: three storage buffers, as large as plans say, which never grow during a step. A kernel sees of them
//! what it needs, through bindings that are windows: an arena may be larger than the largest binding, a tensor may not.

use std::ops::Range;

use thalweg_graph::plan::Memory;

use crate::context::Context;

/// The three arenas.
pub(crate) struct Arenas {
    buffers: [Option<wgpu::Buffer>; 3],
    /// Counts buffers made: what is bound to older ones has to be bound anew.
    pub(crate) made: u64,
    /// Where bytes are copied to be read; as large as the largest read so far, up to [`READ_BYTES`].
    readback: Option<wgpu::Buffer>,
}

/// More is read in pieces.
const READ_BYTES: u64 = 32 << 20;

/// A part of an arena that one binding shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    /// Which arena.
    pub(crate) memory: Memory,
    /// First byte, as storage bindings are aligned.
    pub(crate) start: u64,
    /// First byte behind it; none: the arena's end.
    pub(crate) end: Option<u64>,
}

impl Arenas {
    pub(crate) fn new() -> Self {
        Self { buffers: [None, None, None], made: 0, readback: None }
    }
    /// The buffer of an arena, once it has been reserved.
    pub(crate) fn buffer(&self, memory: Memory) -> Option<&wgpu::Buffer> {
        self.buffers[memory as usize].as_ref()
    }
    /// Bytes reserved.
    pub(crate) fn reserved(&self, memory: Memory) -> u64 {
        self.buffer(memory).map_or(0, wgpu::Buffer::size)
    }
    /// Makes an arena at least so large; its content stays. `false` if there is no room: all is then as it was.
    #[must_use]
    pub(crate) fn reserve(&mut self, context: &Context, memory: Memory, bytes: u64) -> bool {
        let old = self.buffer(memory);
        let Some(size) = bytes.max(256).checked_next_multiple_of(256) else { return false };
        if old.is_some_and(|b| b.size() >= bytes) {
            return true;
        }
        if size > context.device.limits().max_buffer_size {
            return false;
        }
        let made = context.checked(|| {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
            let described =
                wgpu::BufferDescriptor { label: Some(memory.name()), size, usage, mapped_at_creation: false };
            let buffer = context.device.create_buffer(&described);
            if let Some(old) = old {
                let mut encoder = context.device.create_command_encoder(&Default::default());
                encoder.copy_buffer_to_buffer(old, 0, &buffer, 0, old.size());
                context.queue.submit([encoder.finish()]);
            }
            buffer
        });
        let Ok(buffer) = made else { return false };
        self.buffers[memory as usize] = Some(buffer);
        self.made += 1;
        true
    }
    /// Writes bytes; after what was submitted before, before what is submitted later.
    pub(crate) fn write(&mut self, context: &Context, memory: Memory, offset: u64, bytes: &[u8]) -> Result<(), String> {
        let end = offset + bytes.len() as u64;
        let Some(buffer) = self.buffer(memory).filter(|b| b.size() >= end).cloned() else {
            return Err("a write leaves its arena".into());
        };
        // Whole words can be written; what shares a word with others is read first.
        let (first, last) = (offset / 4 * 4, end.next_multiple_of(4));
        let put = |at: u64, bytes: &[u8]| context.checked(|| context.queue.write_buffer(&buffer, at, bytes));
        if (first, last) == (offset, end) {
            return put(offset, bytes).map_err(|e| e.to_string());
        }
        let mut words = vec![0; (last - first) as usize];
        self.read(context, memory, first, &mut words)?;
        let inside = (offset - first) as usize;
        words[inside..inside + bytes.len()].copy_from_slice(bytes);
        put(first, &words).map_err(|e| e.to_string())
    }
    /// Reads bytes, when all that was submitted before is done.
    pub(crate) fn read(
        &mut self,
        context: &Context,
        memory: Memory,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), String> {
        let end = offset + bytes.len() as u64;
        let Some(buffer) = self.buffer(memory).filter(|b| b.size() >= end).cloned() else {
            return Err("a read leaves its arena".into());
        };
        let mut at = offset;
        for piece in bytes.chunks_mut(READ_BYTES as usize) {
            let range = at..at + piece.len() as u64;
            at = range.end;
            self.read_piece(context, &buffer, range, piece)?;
        }
        Ok(())
    }
    fn read_piece(
        &mut self,
        context: &Context,
        buffer: &wgpu::Buffer,
        range: Range<u64>,
        to: &mut [u8],
    ) -> Result<(), String> {
        let (first, last) = (range.start / 4 * 4, range.end.next_multiple_of(4));
        let size = last - first;
        if self.readback.as_ref().is_none_or(|b| b.size() < size) {
            let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
            let size = size.next_power_of_two().max(4096);
            let described = wgpu::BufferDescriptor { label: Some("readback"), size, usage, mapped_at_creation: false };
            let made = context.checked(|| context.device.create_buffer(&described));
            self.readback = Some(made.map_err(|e| e.to_string())?);
        }
        let Some(readback) = &self.readback else { return Err("no buffer to read through".into()) };
        let (send, receive) = std::sync::mpsc::channel();
        let submitted = context.checked(|| {
            let mut encoder = context.device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(buffer, first, readback, 0, size);
            let index = context.queue.submit([encoder.finish()]);
            readback.slice(..size).map_async(wgpu::MapMode::Read, move |outcome| {
                // Nobody listens if waiting has failed.
                let _ = send.send(outcome);
            });
            index
        });
        let submitted = submitted.map_err(|e| e.to_string())?;
        let wait = wgpu::PollType::Wait { submission_index: Some(submitted), timeout: None };
        context.device.poll(wait).map_err(|e| e.to_string())?;
        receive.recv().map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        let inside = (range.start - first) as usize;
        {
            let mapped = readback.slice(..size).get_mapped_range().map_err(|e| e.to_string())?;
            to.copy_from_slice(&mapped[inside..inside + to.len()]);
        }
        readback.unmap();
        Ok(())
    }
}
