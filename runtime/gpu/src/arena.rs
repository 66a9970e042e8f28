//! A device's arenas: three storage buffers, as large as plans say, which never grow during a step. A kernel sees of them
//! what it needs, through bindings that are windows: an arena may be larger than the largest binding
//! ([`crate::windows`]).

use thalweg_graph::plan::Memory;

use crate::context::Context;

/// The three arenas.
pub(crate) struct Arenas {
    buffers: [Option<wgpu::Buffer>; 3],
    /// Counts buffers made: what is bound to older ones has to be bound anew.
    pub(crate) made: u64,
}

impl Arenas {
    pub(crate) fn new() -> Self {
        Self { buffers: [None, None, None], made: 0 }
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
        if size > context.buffer_bytes {
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
}
