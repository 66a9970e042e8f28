//! Memory for one thread's registers: a thread-local block that grows to the largest kernel seen and stays, so that a
//! step in steady state allocates nothing.

use std::cell::RefCell;

/// A cache line, so that the block is aligned for every vector.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

thread_local! {
    static BLOCK: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with at least `bytes` bytes aligned to 64, of unspecified content. Not reentrant.
pub(crate) fn with<R>(bytes: usize, work: impl FnOnce(*mut u8) -> R) -> R {
    BLOCK.with(|block| {
        let mut block = block.borrow_mut();
        let lines = bytes.div_ceil(64);
        if block.len() < lines {
            block.resize(lines, Line([0; 64]));
        }
        work(block.as_mut_ptr().cast())
    })
}

/// Makes room on every thread that launches run on, so that none of them has to while a step runs.
pub(crate) fn reserve(bytes: usize, pool: Option<&rayon::ThreadPool>) {
    with(bytes, |_| ());
    if let Some(pool) = pool {
        pool.broadcast(|_| with(bytes, |_| ()));
    }
}
