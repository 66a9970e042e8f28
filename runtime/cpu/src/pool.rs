//! Running the independent pieces of a launch, on the pool where that pays and inline where it does not. Who runs a
//! piece never changes what it computes.

use rayon::prelude::*;

/// Work below which a launch stays on its caller's thread, in nanoseconds: handing out pieces costs a few
/// microseconds, and a second thread has to earn it.
const WORTH_A_POOL: f64 = 60_000.0;

/// Runs `piece` for every number below `count`; `nanoseconds` is a guess at the work of all of them.
pub(crate) fn for_each(
    pool: Option<&rayon::ThreadPool>,
    count: usize,
    nanoseconds: f64,
    piece: impl Fn(usize) + Send + Sync,
) {
    match pool {
        Some(pool) if count > 1 && nanoseconds >= WORTH_A_POOL && pool.current_num_threads() > 1 => {
            pool.install(|| (0..count).into_par_iter().with_max_len(1).for_each(piece));
        }
        _ => (0..count).for_each(piece),
    }
}

/// A pointer that pieces running on several threads share; they write disjoint parts.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(pub(crate) T);
// SAFETY: only pointers to a launch's buffers are wrapped, and whoever runs pieces keeps their writes disjoint.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}
impl<T: Copy> Shared<T> {
    pub(crate) fn get(&self) -> T {
        self.0
    }
}
