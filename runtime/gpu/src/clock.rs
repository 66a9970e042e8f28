//! When launches ran, by the GPU's own clock: each is a pass of its own with a mark before and after. The marks are read
//! when what was recorded is done, so that launches are timed as they run together, not one at a time.
//!
//! The GPU's clock has its own zero. Where that is on the host's clock is not asked for but bounded: nothing runs before it
//! was recorded, nor ends after it was seen to be done.

use std::time::Duration;

use thalweg_runtime::device::{Loaded, Timing};

use crate::context::Context;
use crate::stream::{Stream, with_mapped};

/// Launches between two readings; a query set holds no more marks.
const LAUNCHES: u32 = wgpu::QUERY_SET_MAX_QUERIES / 2;

/// Marks that are being made.
pub(crate) struct Clock {
    marks: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readback: wgpu::Buffer,
    /// Nanoseconds per tick.
    period: f64,
    /// What was recorded, two marks each.
    recorded: Vec<(Loaded, usize)>,
    /// When the first of it was, by the host.
    since: Duration,
    /// What to add to the GPU's nanoseconds to have the host's.
    zero: Option<f64>,
}

impl Clock {
    /// A clock, where the adapter has one.
    pub(crate) fn new(context: &Context) -> Option<Self> {
        if !context.timestamps {
            return None;
        }
        let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::QUERY_RESOLVE;
        let size = u64::from(LAUNCHES) * 16;
        let described = |usage| wgpu::BufferDescriptor { label: Some("marks"), size, usage, mapped_at_creation: false };
        let made = context.checked(|| {
            let count = LAUNCHES * 2;
            let set = wgpu::QuerySetDescriptor { label: Some("marks"), ty: wgpu::QueryType::Timestamp, count };
            let read = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
            let marks = context.device.create_query_set(&set);
            (marks, context.device.create_buffer(&described(usage)), context.device.create_buffer(&described(read)))
        });
        let (marks, resolved, readback) = made.ok()?;
        let period = f64::from(context.queue.get_timestamp_period());
        Some(Self { marks, resolved, readback, period, recorded: vec![], since: Duration::ZERO, zero: None })
    }
    /// Whether another launch can be marked before [`Clock::read`].
    pub(crate) fn has_room(&self) -> bool {
        self.recorded.len() < LAUNCHES as usize
    }
    /// The marks of a launch that is recorded now.
    pub(crate) fn mark(
        &mut self,
        loaded: Loaded,
        instruction: usize,
        now: Duration,
    ) -> wgpu::ComputePassTimestampWrites<'_> {
        if self.recorded.is_empty() {
            self.since = now;
        }
        let first = 2 * self.recorded.len() as u32;
        self.recorded.push((loaded, instruction));
        wgpu::ComputePassTimestampWrites {
            query_set: &self.marks,
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        }
    }
    /// Submits what was recorded, waits for it and says when each launch ran, in order and one after the other: where the
    /// GPU began one before the one before it had ended, its time counts from there.
    pub(crate) fn read(
        &mut self,
        context: &Context,
        stream: &mut Stream,
        now: impl Fn() -> Duration,
    ) -> Result<Vec<Timing>, String> {
        let count = self.recorded.len();
        if count == 0 {
            return stream.wait(context).map(|()| vec![]);
        }
        let size = count as u64 * 16;
        let encoder = stream.encoder(context);
        encoder.resolve_query_set(&self.marks, 0..2 * count as u32, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readback, 0, size);
        let submitted = stream.submit(context)?;
        let mut ticks: Vec<[u64; 2]> = vec![[0; 2]; count];
        with_mapped(context, &self.readback, size, submitted, |bytes| {
            bytemuck::cast_slice_mut(&mut ticks).copy_from_slice(bytes);
        })?;
        let (first, last) = (ticks[0][0] as f64 * self.period, ticks[count - 1][1] as f64 * self.period);
        let [since, done] = [self.since, now()].map(|d| d.as_nanos() as f64);
        let earliest = since - first;
        self.zero = Some(self.zero.unwrap_or(earliest).min(done - last).max(earliest));
        let host = |t: u64| (t as f64 * self.period + self.zero.unwrap_or_default()).max(since) as u64;
        let mut free = since as u64;
        let timings = self.recorded.drain(..).zip(&ticks).map(|((loaded, instruction), [from, to])| {
            let start = host(*from).max(free);
            free = host(*to).max(start);
            let [start, took] = [start, free - start].map(Duration::from_nanos);
            Timing { loaded, instruction, start, took }
        });
        Ok(timings.collect())
    }
}
