//! Which parts of the arenas a dispatch is bound to. A binding shows so many bytes and no more, and a shader has so many
//! bindings; arenas and tensors may be larger than either. So a buffer lies in one window where it can, and otherwise
//! in several that follow each other, among which its accesses choose.

use std::ops::Range;

use thalweg_graph::plan::Memory;

use crate::wgsl::Seen;

/// Bytes of an arena.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) memory: Memory,
    /// Where the buffer begins.
    pub(crate) start: u64,
    /// What is looked at.
    pub(crate) range: Range<u64>,
}

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

/// How buffers share windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// What fits a window lies in one: accesses to it choose nothing.
    Whole,
    /// As few windows as can be: buffers may begin in one and end in the next.
    Fewest,
}

/// Which windows a launch is bound to, and which of them each of its buffers lies in.
#[derive(Debug, PartialEq)]
pub(crate) struct Windows {
    pub(crate) all: Vec<Window>,
    /// By buffer.
    pub(crate) seen: Vec<Seen>,
    /// Bytes from one window to the next, where a buffer lies in several.
    pub(crate) stride: u64,
}

/// Windows that follow each other, the last of which may grow.
struct Run {
    memory: Memory,
    first: usize,
    start: u64,
    end: u64,
}

impl Windows {
    /// Windows of at most `largest` bytes that show all of `spans`: a whole arena where a binding can, else neighbours
    /// together.
    pub(crate) fn over(
        spans: &[Span],
        reserved: &dyn Fn(Memory) -> u64,
        largest: u64,
        align: u64,
        sharing: Sharing,
    ) -> Self {
        let mut out = Windows { all: vec![], seen: vec![Seen::default(); spans.len()], stride: largest };
        for memory in Memory::ALL {
            let mut here: Vec<usize> = (0..spans.len()).filter(|i| spans[*i].memory == memory).collect();
            if here.is_empty() {
                continue;
            }
            if reserved(memory) <= largest {
                here.iter().for_each(|i| out.seen[*i] = Seen { slot: out.all.len(), windows: 1 });
                out.all.push(Window { memory, start: 0, end: None });
                continue;
            }
            here.sort_by_key(|i| spans[*i].range.start);
            let mut open: Option<Run> = None;
            for i in here {
                let Range { start, end } = spans[i].range.clone();
                // Behind the last word there may be a part of one.
                let (start, end) = (start / align * align, end.next_multiple_of(4).max(start / align * align + 4));
                let joins = open.as_ref().is_some_and(|run| {
                    let which = |byte: u64| (byte - run.start) / largest;
                    let windows = which(run.end - 1);
                    match sharing {
                        // A large one lies in several anyhow.
                        Sharing::Whole => {
                            let whole = which(start) == which(end - 1) || end - start > largest;
                            whole && which(end - 1) <= windows
                        }
                        Sharing::Fewest => which(start) <= windows,
                    }
                });
                if !joins {
                    out.close(open.take());
                    open = Some(Run { memory, first: out.all.len(), start, end });
                }
                let Some(run) = &mut open else { continue };
                run.end = run.end.max(end);
                let (first, last) = ((start - run.start) / largest, (end - 1 - run.start) / largest);
                let windows = (last - first + 1) as usize;
                out.seen[i] = Seen { slot: run.first + first as usize, windows };
            }
            out.close(open);
        }
        out
    }
    fn close(&mut self, run: Option<Run>) {
        let Some(Run { memory, start, end, .. }) = run else { return };
        let mut at = start;
        while at < end {
            self.all.push(Window { memory, start: at, end: Some(end.min(at + self.stride)) });
            at += self.stride;
        }
    }
    /// Where buffer `i` begins, counted from its first window: before it, where that shows a later part alone.
    pub(crate) fn offset(&self, i: usize, spans: &[Span]) -> i64 {
        spans[i].start as i64 - self.all[self.seen[i].slot].start as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(range: Range<u64>) -> Span {
        Span { memory: Memory::Scratch, start: range.start, range }
    }
    fn over(spans: &[Span], sharing: Sharing) -> Windows {
        Windows::over(spans, &|_| 1 << 20, 4096, 256, sharing)
    }

    #[test]
    fn every_byte_is_in_the_windows_of_its_buffer() {
        let lists = [
            vec![0..100, 200..300, 5000..5100],
            vec![100..5000, 5000..9000, 9000..9004],
            vec![300..20_000, 0..300, 20_000..20_001, 700_000..800_000],
            vec![0..4096, 4096..8192, 8192..12_288],
        ];
        for ranges in lists {
            let spans: Vec<Span> = ranges.into_iter().map(span).collect();
            let mut counts = vec![];
            for sharing in [Sharing::Whole, Sharing::Fewest] {
                let windows = over(&spans, sharing);
                counts.push(windows.all.len());
                for w in &windows.all {
                    let bytes = w.end.expect("not the whole arena") - w.start;
                    assert!(w.start % 256 == 0 && bytes <= 4096 && bytes % 4 == 0, "{w:?}");
                }
                for (i, s) in spans.iter().enumerate() {
                    let Seen { slot, windows: count } = windows.seen[i];
                    let of = &windows.all[slot..slot + count];
                    assert!(of[0].start <= s.range.start && of[count - 1].end >= Some(s.range.end), "{s:?} {of:?}");
                    assert!(of.windows(2).all(|w| w[0].end == Some(w[1].start) && w[1].start - w[0].start == 4096));
                    let fits = s.range.end - s.range.start / 256 * 256 <= 4096;
                    assert!(sharing == Sharing::Fewest || !fits || count == 1, "{s:?} {of:?}");
                }
            }
            assert!(counts[1] <= counts[0], "{spans:?}: {counts:?}");
        }
    }

    #[test]
    fn an_arena_that_fits_is_one_window() {
        let windows = Windows::over(&[span(0..10), span(64..4000)], &|_| 4096, 4096, 256, Sharing::Whole);
        assert_eq!(windows.all, [Window { memory: Memory::Scratch, start: 0, end: None }]);
        assert_eq!(windows.seen, [Seen { slot: 0, windows: 1 }; 2]);
    }
}
