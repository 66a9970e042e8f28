//! A device's arenas in host memory: three runs of bytes that are allocated when plans are loaded and never during a
//! step.

use thalweg_graph::plan::Memory;

/// A cache line; also the widest vector.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Bytes that pass from hand to hand, 64-byte aligned.
pub(crate) struct LineBuffer {
    lines: Vec<Line>,
    bytes: usize,
}

impl LineBuffer {
    /// `bytes` zeros; nothing if there is no such memory.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        let bytes = usize::try_from(bytes).ok()?;
        let mut lines = Vec::new();
        lines.try_reserve_exact(bytes.div_ceil(64)).ok()?;
        lines.resize(bytes.div_ceil(64), bytemuck::Zeroable::zeroed());
        Some(Self { lines, bytes })
    }
    pub(crate) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.bytes]
    }
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.bytes]
    }
}

/// State, scratch and staging, each 64-byte aligned.
#[derive(Default)]
pub struct HostArenas {
    arenas: [Vec<Line>; 3],
}

impl HostArenas {
    fn index(memory: Memory) -> usize {
        match memory {
            Memory::State => 0,
            Memory::Scratch => 1,
            Memory::Staging => 2,
        }
    }
    /// Makes an arena at least `bytes` long; new bytes are zero, old ones stay. `false` if there is no such memory: the
    /// arenas are then as they were.
    #[must_use]
    pub fn reserve(&mut self, memory: Memory, bytes: u64) -> bool {
        let arena = &mut self.arenas[Self::index(memory)];
        let Ok(lines) = usize::try_from(bytes.div_ceil(64)) else { return false };
        let more = lines.saturating_sub(arena.len());
        if more > 0 && arena.try_reserve_exact(more).is_err() {
            return false;
        }
        arena.resize(arena.len() + more, bytemuck::Zeroable::zeroed());
        true
    }
    /// Bytes reserved.
    pub fn reserved(&self, memory: Memory) -> u64 {
        self.arenas[Self::index(memory)].len() as u64 * 64
    }
    /// The bytes of an arena.
    pub fn bytes(&self, memory: Memory) -> &[u8] {
        bytemuck::cast_slice(&self.arenas[Self::index(memory)])
    }
    /// The bytes of an arena, to write.
    pub fn bytes_mut(&mut self, memory: Memory) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.arenas[Self::index(memory)])
    }
    /// Copies bytes into an arena.
    pub fn write(&mut self, memory: Memory, offset: u64, bytes: &[u8]) {
        self.slice_mut(memory, offset..offset + bytes.len() as u64).copy_from_slice(bytes);
    }
    /// Copies bytes out of an arena.
    pub fn read(&self, memory: Memory, offset: u64, bytes: &mut [u8]) {
        bytes.copy_from_slice(self.slice(memory, offset..offset + bytes.len() as u64));
    }
    /// `range` of an arena.
    pub fn slice(&self, memory: Memory, range: std::ops::Range<u64>) -> &[u8] {
        &self.bytes(memory)[range.start as usize..range.end as usize]
    }
    /// `range` of an arena, to write.
    pub fn slice_mut(&mut self, memory: Memory, range: std::ops::Range<u64>) -> &mut [u8] {
        &mut self.bytes_mut(memory)[range.start as usize..range.end as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_refused_and_nothing_is_lost() {
        let mut arenas = HostArenas::default();
        assert!(arenas.reserve(Memory::State, 100));
        arenas.bytes_mut(Memory::State)[99] = 7;
        assert!(!arenas.reserve(Memory::State, 1 << 62));
        assert_eq!((arenas.reserved(Memory::State), arenas.bytes(Memory::State)[99]), (128, 7));
    }
}
