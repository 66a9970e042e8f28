//! Memory that the next tile uses is brought nearer while this one is computed, a little with every instruction: a tile
//! is a page or less of each tensor, and hardware that fetches ahead stops where a page ends.

use crate::tile::Origin;

/// What is to be fetched for the next tile.
pub(crate) struct Ahead {
    /// Where that tile lies; none after the last.
    pub(crate) next: Option<Origin>,
    /// First byte and end of what is not fetched yet, and whether it will be written.
    places: [(usize, usize, bool); 6],
    added: usize,
    done: usize,
}

impl Ahead {
    /// Lines per instruction: few enough that they do not queue up before its own.
    const SOME: usize = 16;
    /// Fewer bytes than this are not worth it.
    const WORTH_BYTES: usize = 1024;

    pub(crate) fn new(next: Option<Origin>) -> Self {
        Self { next, places: [(0, 0, false); 6], added: 0, done: 0 }
    }
    /// Notes `bytes` bytes at `place` if they are not where this tile has them, `here`.
    pub(crate) fn add(&mut self, place: *const u8, here: *const u8, bytes: usize, written: bool) {
        let Some(free) = self.places.get_mut(self.added).filter(|_| place != here && bytes >= Self::WORTH_BYTES) else {
            return;
        };
        *free = (place as usize, place as usize + bytes, written);
        self.added += 1;
    }
    /// Fetches some of it.
    #[inline]
    pub(crate) fn fetch_some(&mut self) {
        if self.done == self.added {
            return;
        }
        let (next, end, written) = &mut self.places[self.done];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};
            for line in 0..Self::SOME {
                let place = (*next + 64 * line) as *const i8;
                // SAFETY: hints, which no address makes fail.
                unsafe {
                    if *written { _mm_prefetch::<_MM_HINT_ET0>(place) } else { _mm_prefetch::<_MM_HINT_T0>(place) }
                }
            }
        }
        *next += 64 * Self::SOME;
        self.done += usize::from(next >= end);
    }
}
