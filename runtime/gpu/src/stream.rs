//! What goes to the GPU and comes back: one recording that grows until somebody waits. Feeds, launches and what is read
//! afterwards are one submission; a submission costs more than ten launches.
//!
//! What is written to be read once (staging) goes through mapped buffers that are used again; the copy is part of the
//! recording, so that it lands after all that was recorded before.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use thalweg_graph::plan::Memory;
use thalweg_runtime::device::ReadInto;

use crate::arena::Arenas;
use crate::context::Context;
use crate::watch::Counts;

/// Bytes that are read through one map; more in several.
const READ_BYTES: u64 = 64 << 20;
/// Feeds share mapped buffers of this size; a larger one gets its own, which is kept as well.
const FEED_BYTES: u64 = 4 << 20;
/// A larger write than this goes around the mapped buffers: they are kept for as long as the device is.
const FEED_MOST: u64 = 256 << 20;
/// Launches that are recorded before the GPU is given them: enough to be worth a submission, few enough that it need not
/// wait long for its first.
const LAUNCHES_AT_ONCE: usize = 512;

/// The recording, and the buffers by which bytes cross.
pub(crate) struct Stream {
    encoder: Option<wgpu::CommandEncoder>,
    /// Launches in the recording.
    launches: usize,
    belt: Option<wgpu::util::StagingBelt>,
    /// Where bytes are copied to be read; as large as the most so far, up to [`READ_BYTES`].
    readback: Option<wgpu::Buffer>,
    pub(crate) counts: Arc<Counts>,
}

/// The whole words that something lies in.
fn words(piece: &ReadInto<'_>) -> (u64, u64) {
    (piece.offset / 4 * 4, (piece.offset + piece.bytes.len() as u64).next_multiple_of(4))
}

impl Stream {
    pub(crate) fn new() -> Self {
        Self { encoder: None, launches: 0, belt: None, readback: None, counts: Arc::default() }
    }
    /// The recording, begun if need be.
    pub(crate) fn encoder(&mut self, context: &Context) -> &mut wgpu::CommandEncoder {
        self.encoder.get_or_insert_with(|| context.device.create_command_encoder(&Default::default()))
    }
    /// Notes a recorded launch; says whether it is time to submit.
    pub(crate) fn launched(&mut self) -> bool {
        self.launches += 1;
        self.launches >= LAUNCHES_AT_ONCE
    }
    /// Hands over what was recorded.
    pub(crate) fn submit(&mut self, context: &Context) -> Result<Option<wgpu::SubmissionIndex>, String> {
        let Some(encoder) = self.encoder.take() else { return Ok(None) };
        self.launches = 0;
        self.counts.submissions.fetch_add(1, Ordering::Relaxed);
        let belt = &mut self.belt;
        let submitted = context.checked(|| {
            belt.iter_mut().for_each(wgpu::util::StagingBelt::finish);
            let index = context.queue.submit([encoder.finish()]);
            belt.iter_mut().for_each(wgpu::util::StagingBelt::recall);
            index
        });
        let submitted = submitted.map_err(|e| e.to_string())?;
        // Buffers come back and losses are heard of when wgpu looks.
        context.device.poll(wgpu::PollType::Poll).map_err(|e| e.to_string())?;
        Ok(Some(submitted))
    }
    /// Submits, and waits until all of it is done.
    pub(crate) fn wait(&mut self, context: &Context) -> Result<(), String> {
        self.submit(context)?;
        context.device.poll(wgpu::PollType::wait_indefinitely()).map(|_| ()).map_err(|e| e.to_string())
    }
    /// Writes bytes; after what was recorded before, before what is recorded later.
    pub(crate) fn write(
        &mut self,
        context: &Context,
        arenas: &Arenas,
        memory: Memory,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), String> {
        let end = offset + bytes.len() as u64;
        let Some(buffer) = arenas.buffer(memory).filter(|b| b.size() >= end) else {
            return Err("a write leaves its arena".into());
        };
        // Whole words can be written; what shares a word with others is read first.
        let (first, last) = (offset / 4 * 4, end.next_multiple_of(4));
        if (first, last) == (offset, end) {
            return self.put(context, buffer, memory, offset, bytes);
        }
        let mut words = vec![0; (last - first) as usize];
        let inside = (offset - first) as usize;
        let mut edges: Vec<u64> = vec![];
        edges.extend((first < offset).then_some(first));
        edges.extend((end < last && (last - 4 > first || first == offset)).then_some(last - 4));
        let mut known = vec![[0; 4]; edges.len()];
        let pieces = edges.iter().zip(&mut known).map(|(at, k)| ReadInto { memory, offset: *at, bytes: k });
        self.read(context, arenas, &mut pieces.collect::<Vec<_>>())?;
        edges.iter().zip(&known).for_each(|(at, k)| words[(at - first) as usize..][..4].copy_from_slice(k));
        words[inside..inside + bytes.len()].copy_from_slice(bytes);
        self.put(context, buffer, memory, first, &words)
    }
    /// Writes whole words.
    fn put(
        &mut self,
        context: &Context,
        buffer: &wgpu::Buffer,
        memory: Memory,
        at: u64,
        bytes: &[u8],
    ) -> Result<(), String> {
        let Some(size) = wgpu::BufferSize::new(bytes.len() as u64) else { return Ok(()) };
        // Variables are written when a session begins, once: buffers kept for that would be a second copy of the model.
        if memory != Memory::Staging || size.get() > FEED_MOST {
            self.submit(context)?;
            return context.checked(|| context.queue.write_buffer(buffer, at, bytes)).map_err(|e| e.to_string());
        }
        self.encoder(context);
        let Self { belt, encoder: Some(encoder), .. } = self else { return Err("no recording".into()) };
        let belt = belt.get_or_insert_with(|| {
            wgpu::util::StagingBelt::new(context.device.clone(), FEED_BYTES.min(context.buffer_bytes))
        });
        let put = || belt.write_buffer(encoder, buffer, at, size).copy_from_slice(bytes);
        context.checked(put).map_err(|e| e.to_string())
    }
    /// Reads bytes, when all that was recorded before is done: one submission and one map, or as many as the size asks
    /// for.
    pub(crate) fn read(
        &mut self,
        context: &Context,
        arenas: &Arenas,
        pieces: &mut [ReadInto<'_>],
    ) -> Result<(), String> {
        // Cut into what one map takes.
        let most = READ_BYTES.min(context.buffer_bytes / 4 * 4);
        let mut rest: Vec<ReadInto<'_>> = Vec::with_capacity(pieces.len());
        for ReadInto { memory, offset, bytes } in pieces.iter_mut() {
            let end = *offset + bytes.len() as u64;
            if arenas.reserved(*memory) < end {
                return Err("a read leaves its arena".into());
            }
            let cut = bytes.chunks_mut(most as usize - 8).zip((*offset..).step_by(most as usize - 8));
            rest.extend(cut.map(|(bytes, offset)| ReadInto { memory: *memory, offset, bytes }));
        }
        while !rest.is_empty() {
            let (mut count, mut size) = (0, 0);
            while let Some((first, last)) = rest.get(count).map(words) {
                if count > 0 && size + last - first > most {
                    break;
                }
                (count, size) = (count + 1, size + last - first);
            }
            let later = rest.split_off(count);
            self.read_at_once(context, arenas, &mut rest, size)?;
            rest = later;
        }
        Ok(())
    }
    fn read_at_once(
        &mut self,
        context: &Context,
        arenas: &Arenas,
        pieces: &mut [ReadInto<'_>],
        size: u64,
    ) -> Result<(), String> {
        if self.readback.as_ref().is_none_or(|b| b.size() < size) {
            let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
            let size = size.next_power_of_two().clamp(4096, READ_BYTES).min(context.buffer_bytes);
            let described = wgpu::BufferDescriptor { label: Some("readback"), size, usage, mapped_at_creation: false };
            let made = context.checked(|| context.device.create_buffer(&described));
            self.readback = Some(made.map_err(|e| e.to_string())?);
        }
        let Some(readback) = self.readback.clone() else { return Err("no buffer to read through".into()) };
        let encoder = self.encoder(context);
        let mut at = 0;
        for piece in pieces.iter() {
            let (first, last) = words(piece);
            let buffer = arenas.buffer(piece.memory).ok_or("an arena that was not reserved")?;
            encoder.copy_buffer_to_buffer(buffer, first, &readback, at, last - first);
            at += last - first;
        }
        let submitted = self.submit(context)?;
        with_mapped(context, &readback, size, submitted, |mapped| {
            let mut at = 0;
            for piece in pieces.iter_mut() {
                let (first, last) = words(piece);
                let inside = (at + piece.offset - first) as usize;
                piece.bytes.copy_from_slice(&mapped[inside..inside + piece.bytes.len()]);
                at += last - first;
            }
        })
    }
}

/// Maps the first `size` bytes of a buffer once `submitted` is done, and shows them to `look`.
pub(crate) fn with_mapped(
    context: &Context,
    buffer: &wgpu::Buffer,
    size: u64,
    submitted: Option<wgpu::SubmissionIndex>,
    look: impl FnOnce(&[u8]),
) -> Result<(), String> {
    let (send, receive) = std::sync::mpsc::channel();
    let asked = context.checked(|| {
        buffer.slice(..size).map_async(wgpu::MapMode::Read, move |outcome| {
            // Nobody listens if waiting has failed.
            let _ = send.send(outcome);
        });
    });
    asked.map_err(|e| e.to_string())?;
    context
        .device
        .poll(wgpu::PollType::Wait { submission_index: submitted, timeout: None })
        .map_err(|e| e.to_string())?;
    receive.recv().map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    {
        let mapped = buffer.slice(..size).get_mapped_range().map_err(|e| e.to_string())?;
        look(&mapped);
    }
    buffer.unmap();
    Ok(())
}
