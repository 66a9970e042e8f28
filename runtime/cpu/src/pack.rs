//! Copies part of an operand into a matrix. What a border or a hole leaves out depends on a few axes only; over those,
//! the copy is listed once, as runs, when the kernel is compiled; over all others the list repeats with an offset.

use crate::domain::{Access, Check, Domain};

/// A run of elements at constant steps in source and destination.
#[derive(Clone, Copy, Debug)]
struct Run {
    from: i64,
    to: i64,
    len: i64,
    from_step: i64,
    to_step: i64,
}

/// An axis along which the list of runs repeats.
#[derive(Clone, Copy, Debug)]
struct Repeat {
    count: i64,
    from: i64,
    to: i64,
}

/// How to copy one operand's part of a block.
#[derive(Clone, Debug)]
pub(crate) struct Packing {
    runs: Vec<Run>,
    repeats: Vec<Repeat>,
    /// The repeat whose count a block may shorten.
    cut: Option<usize>,
    /// Elements of the matrix.
    pub(crate) elements: usize,
    /// Some elements are never written and stay zero.
    pub(crate) has_gaps: bool,
}

/// Most points that are listed.
const LISTED: i64 = 1 << 18;

impl Packing {
    /// `axes` are (axis, count, step in the matrix); `None` if the list would be too long.
    pub(crate) fn new(
        access: &Access,
        domain: &Domain,
        axes: &[(usize, i64, i64)],
        checked: &dyn Fn(usize) -> bool,
        cut: Option<usize>,
    ) -> Option<Self> {
        let linear = &domain.maps[access.linear];
        let step = |a: usize| linear.coefficient(a as u16);
        let inner = axes.iter().filter(|(a, ..)| Some(*a) != cut && step(*a) != 0).min_by_key(|(a, ..)| step(*a).abs());
        let inner = inner.map_or(usize::MAX, |(a, ..)| *a);
        let (mut listed, mut repeats): (Vec<_>, Vec<_>) =
            axes.iter().copied().partition(|(a, ..)| checked(*a) || *a == inner);
        listed.sort_by_key(|(a, ..)| *a == inner);
        repeats.sort_by_key(|(_, _, to)| -to);
        if listed.iter().map(|l| l.1).product::<i64>() > LISTED {
            return None;
        }
        let mut runs = Runs::default();
        let mut point = vec![0i64; domain.extents.len()];
        list(&listed, &mut point, &mut |point| {
            let to = listed.iter().map(|(a, _, to)| point[*a] * to).sum();
            runs.add(locate(access, domain, point), to);
        });
        let runs = runs.done();
        Some(Self {
            elements: axes.iter().map(|a| a.1).product::<i64>() as usize,
            has_gaps: runs.iter().map(|r| r.len).sum::<i64>() != listed.iter().map(|l| l.1).product::<i64>(),
            cut: cut.and_then(|c| repeats.iter().position(|(a, ..)| *a == c)),
            repeats: repeats.iter().map(|(a, count, to)| Repeat { count: *count, from: step(*a), to: *to }).collect(),
            runs,
        })
    }

    /// Copies from `from`, the place of the block's first point, with `cut` steps of the cut axis.
    ///
    /// # Safety
    /// The runs lie in the operand; `to` has [`Packing::elements`] elements.
    pub(crate) unsafe fn copy<T: Copy>(&self, from: *const T, to: *mut T, cut: i64) {
        // SAFETY: the caller's promise.
        unsafe { self.repeat(0, from, to, cut) }
    }
    unsafe fn repeat<T: Copy>(&self, level: usize, from: *const T, to: *mut T, cut: i64) {
        let Some(repeat) = self.repeats.get(level) else {
            for run in &self.runs {
                // SAFETY: the caller's promise.
                unsafe { run.copy(from.wrapping_offset(run.from as isize), to.wrapping_offset(run.to as isize)) };
            }
            return;
        };
        let count = if self.cut == Some(level) { cut } else { repeat.count };
        for i in 0..count {
            let (from, to) =
                (from.wrapping_offset((i * repeat.from) as isize), to.wrapping_offset((i * repeat.to) as isize));
            // SAFETY: the caller's promise.
            unsafe { self.repeat(level + 1, from, to, cut) };
        }
    }
}

impl Run {
    #[inline(always)]
    unsafe fn copy<T: Copy>(&self, from: *const T, to: *mut T) {
        let len = self.len as usize;
        // SAFETY: the caller's promise; the pieces of short runs overlap instead of leaving a rest.
        unsafe {
            if self.from_step != 1 || self.to_step != 1 {
                for i in 0..len as isize {
                    *to.offset(i * self.to_step as isize) = *from.offset(i * self.from_step as isize);
                }
            } else if len > 32 {
                to.copy_from_nonoverlapping(from, len);
            } else if len >= 16 {
                copy_twice::<T, 16>(from, to, len);
            } else if len >= 8 {
                copy_twice::<T, 8>(from, to, len);
            } else if len >= 4 {
                copy_twice::<T, 4>(from, to, len);
            } else {
                (0..len).for_each(|i| *to.add(i) = *from.add(i));
            }
        }
    }
}

/// Copies `len` elements, between `N` and twice that.
#[inline(always)]
unsafe fn copy_twice<T: Copy, const N: usize>(from: *const T, to: *mut T, len: usize) {
    // SAFETY: both pieces lie in the run.
    unsafe {
        let (head, tail) =
            (from.cast::<[T; N]>().read_unaligned(), from.add(len - N).cast::<[T; N]>().read_unaligned());
        to.cast::<[T; N]>().write_unaligned(head);
        to.add(len - N).cast::<[T; N]>().write_unaligned(tail);
    }
}

/// Calls `visit` at every point of `axes`, the last fastest.
fn list(axes: &[(usize, i64, i64)], point: &mut [i64], visit: &mut dyn FnMut(&[i64])) {
    let Some(((axis, count, _), rest)) = axes.split_first() else { return visit(point) };
    for i in 0..*count {
        point[*axis] = i;
        list(rest, point, visit);
    }
    point[*axis] = 0;
}

/// The element at `point` relative to the block's first, if it is inside.
fn locate(access: &Access, domain: &Domain, point: &[i64]) -> Option<i64> {
    let linear = &domain.maps[access.linear];
    let mut at = linear.at(point) - linear.offset;
    for check in &access.checks {
        let (i, extent, stride) = match *check {
            Check::Limit { index, extent } => (domain.maps[index].at(point), extent, 0),
            Check::Holes { index, step, extent, stride } => {
                let i = domain.maps[index].at(point);
                (if i.rem_euclid(step) == 0 { i.div_euclid(step) } else { -1 }, extent, stride)
            }
            Check::Digit { .. } | Check::Value { .. } => return None,
        };
        if i < 0 || i >= extent {
            return None;
        }
        at += i * stride;
    }
    Some(at)
}

/// Gathers points into runs.
#[derive(Default)]
struct Runs {
    done: Vec<Run>,
    open: Option<Run>,
}
impl Runs {
    fn add(&mut self, from: Option<i64>, to: i64) {
        let Some(from) = from else { return };
        if let Some(run) = &mut self.open {
            let (from_step, to_step) = (from - run.from, to - run.to);
            if run.len == 1 && to_step > 0 {
                (run.from_step, run.to_step, run.len) = (from_step, to_step, 2);
                return;
            }
            if from_step == run.from_step * run.len && to_step == run.to_step * run.len {
                run.len += 1;
                return;
            }
        }
        self.done.extend(self.open.replace(Run { from, to, len: 1, from_step: 1, to_step: 1 }));
    }
    fn done(mut self) -> Vec<Run> {
        self.done.extend(self.open);
        self.done
    }
}
