//! A device's arenas in host memory: three runs of bytes that are allocated when plans are loaded and never during a
//! step. They come from the system as zeros that nobody has written: a page that no step touches takes no memory.

use bytemuck::allocation::try_zeroed_slice_box;
use thalweg_graph::plan::Memory;

/// A cache line; also the widest vector.
const LINE: usize = 64;

/// Bytes that pass from hand to hand, 64-byte aligned. Not a vector of lines: of what is aligned to more than a word, Rust
/// writes the zeros itself, and so touches every page.
#[derive(Default)]
pub(crate) struct LineBuffer {
    memory: Box<[u8]>,
    /// Where the first line begins.
    start: usize,
    bytes: usize,
}

impl LineBuffer {
    /// `bytes` zeros; nothing if there is no such memory.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        let bytes = usize::try_from(bytes).ok()?;
        let memory = try_zeroed_slice_box(bytes.checked_add(LINE - 1)?).ok()?;
        let start = <[u8]>::as_ptr(&memory).align_offset(LINE);
        (start < LINE).then_some(Self { memory, start, bytes })
    }
    /// How many bytes it can have.
    pub(crate) fn room(&self) -> u64 {
        self.memory.len().saturating_sub(LINE - 1) as u64
    }
    /// Makes it so long; what is in it is unspecified. No longer than there is room.
    pub(crate) fn set_bytes(&mut self, bytes: u64) {
        self.bytes = bytes.min(self.room()) as usize;
    }
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.bytes]
    }
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.bytes]
    }
}

/// State, scratch and staging, each 64-byte aligned.
#[derive(Default)]
pub struct HostArenas {
    arenas: [LineBuffer; 3],
}

impl HostArenas {
    fn index(memory: Memory) -> usize {
        match memory {
            Memory::State => 0,
            Memory::Scratch => 1,
            Memory::Staging => 2,
        }
    }
    /// Makes an arena at least `bytes` long. Of state, old bytes stay and new ones are zero; of the others, which mean nothing
    /// between steps, all are unspecified when the arena grows. `false` if there is no such memory: the arenas are then as they
    /// were.
    #[must_use]
    pub fn reserve(&mut self, memory: Memory, bytes: u64) -> bool {
        let arena = &mut self.arenas[Self::index(memory)];
        let Some(bytes) = bytes.checked_next_multiple_of(LINE as u64) else { return false };
        if bytes <= arena.bytes().len() as u64 {
            return true;
        }
        let Some(mut larger) = LineBuffer::new(bytes) else { return false };
        if memory == Memory::State {
            larger.bytes_mut()[..arena.bytes().len()].copy_from_slice(arena.bytes());
        }
        *arena = larger;
        true
    }
    /// Bytes reserved.
    pub fn reserved(&self, memory: Memory) -> u64 {
        self.bytes(memory).len() as u64
    }
    /// The bytes of an arena.
    pub fn bytes(&self, memory: Memory) -> &[u8] {
        self.arenas[Self::index(memory)].bytes()
    }
    /// The bytes of an arena, to write.
    pub fn bytes_mut(&mut self, memory: Memory) -> &mut [u8] {
        self.arenas[Self::index(memory)].bytes_mut()
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
