//! How devices of one step wait for each other, and how all of them stop waiting: what is waited for lies behind a lock,
//! and whoever changes it wakes whoever sleeps there. Not a channel of the standard library: those know neither that a
//! step is given up nor that nobody is left who could send.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::device::{AbortFlag, DeviceError};

/// How often a sleeper looks whether the step was given up from outside: that only raises a flag.
const LOOK: Duration = Duration::from_millis(20);
/// Looks before falling asleep. What is a microsecond away is not worth two calls of the system; more would be taken
/// from a device that has work.
const LOOKS_AWAKE: usize = 40;

/// Something that is waited for.
#[derive(Default)]
pub(super) struct Gate<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner<T> {
    value: T,
    asleep: usize,
}

impl<T> Gate<T> {
    pub(super) fn new(value: T) -> Self {
        Self { inner: Mutex::new(Inner { value, asleep: 0 }), changed: Condvar::new() }
    }
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // Values are changed in one go: one that was left by a panic is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Changes the value, and wakes who sleeps.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut inner = self.lock();
        let result = change(&mut inner.value);
        let asleep = inner.asleep > 0;
        drop(inner);
        if asleep {
            self.changed.notify_all();
        }
        result
    }
    /// Wakes who sleeps, to look again.
    pub(super) fn wake(&self) {
        self.change(|_| ());
    }
    /// Waits until `ready` gives something, which it may take out.
    ///
    /// # Errors
    /// [`DeviceError::Aborted`] once the step is given up, and what `stalled` says when nobody has done anything for as long
    /// as `watch` allows.
    pub(super) fn wait<R>(
        &self,
        watch: &Watch,
        mut ready: impl FnMut(&mut T) -> Option<R>,
        stalled: impl FnOnce() -> DeviceError,
    ) -> Result<R, DeviceError> {
        for _ in 0..LOOKS_AWAKE {
            if let Some(result) = ready(&mut self.lock().value) {
                return Ok(result);
            }
            (0..16).for_each(|_| std::hint::spin_loop());
        }
        watch.busy.fetch_sub(1, Ordering::AcqRel);
        let result = self.sleep(watch, &mut ready, stalled);
        watch.busy.fetch_add(1, Ordering::AcqRel);
        result
    }
    /// Waits until `ready` gives something, and no longer than `still` says.
    pub(super) fn wait_while<R>(
        &self,
        mut ready: impl FnMut(&mut T) -> Option<R>,
        still: &dyn Fn() -> bool,
    ) -> Option<R> {
        let mut inner = self.lock();
        loop {
            if let Some(result) = ready(&mut inner.value) {
                return Some(result);
            }
            if !still() {
                return None;
            }
            inner.asleep += 1;
            inner = self.changed.wait_timeout(inner, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            inner.asleep -= 1;
        }
    }
    fn sleep<R>(
        &self,
        watch: &Watch,
        ready: &mut dyn FnMut(&mut T) -> Option<R>,
        stalled: impl FnOnce() -> DeviceError,
    ) -> Result<R, DeviceError> {
        let mut inner = self.lock();
        let (mut since, mut seen) = (Instant::now(), watch.progress());
        loop {
            if let Some(result) = ready(&mut inner.value) {
                return Ok(result);
            }
            if watch.stop.is_raised() {
                // Whoever comes here later sees it too, also if it was raised from outside and is taken back.
                watch.stop.raise();
                return Err(DeviceError::Aborted);
            }
            let now = watch.progress();
            if now != seen || watch.busy.load(Ordering::Acquire) > 0 {
                (since, seen) = (Instant::now(), now);
            } else if since.elapsed() >= watch.limit {
                return Err(stalled());
            }
            inner.asleep += 1;
            let woken = self.changed.wait_timeout(inner, LOOK.min(watch.limit));
            inner = woken.unwrap_or_else(PoisonError::into_inner).0;
            inner.asleep -= 1;
        }
    }
}

/// What all devices of a step share: whether it goes on, and why not.
pub(super) struct Watch {
    /// Ends the bodies that are running.
    pub(super) stop: AbortFlag,
    /// How long nobody may do anything.
    pub(super) limit: Duration,
    cause: Mutex<Option<DeviceError>>,
    /// Devices that are neither waiting nor done.
    busy: AtomicUsize,
    /// Counts what may end somebody's waiting.
    progress: AtomicU64,
    /// By device, the instruction at which it is.
    at: Arc<[AtomicUsize]>,
    /// All bodies have ended: what fails now fails half-way.
    pub(super) meeting: Gate<Meeting>,
}

/// Where all devices come together, once in a step.
#[derive(Default)]
pub(super) struct Meeting {
    arrived: usize,
    /// Whether all go on to their tails.
    decided: Option<bool>,
}

impl Watch {
    /// Of as many devices as say in `at` how far they are.
    pub(super) fn new(at: Arc<[AtomicUsize]>, stop: AbortFlag, limit: Duration) -> Self {
        Self {
            stop,
            limit,
            cause: Mutex::default(),
            busy: AtomicUsize::new(at.len()),
            progress: AtomicU64::new(0),
            at,
            meeting: Gate::default(),
        }
    }
    fn progress(&self) -> u64 {
        self.progress.load(Ordering::Acquire)
    }
    /// Somebody may go on now.
    pub(super) fn moved(&self) {
        self.progress.fetch_add(1, Ordering::AcqRel);
    }
    /// Device `index` has come to this instruction.
    pub(super) fn arrive_at(&self, index: usize, instruction: usize) {
        self.at[index].store(instruction, Ordering::Relaxed);
    }
    /// Where device `index` is.
    pub(super) fn at(&self, index: usize) -> usize {
        self.at[index].load(Ordering::Relaxed)
    }
    /// One device less to wait for.
    pub(super) fn done(&self) {
        self.moved();
        self.busy.fetch_sub(1, Ordering::AcqRel);
    }
    /// Gives the step up. The first cause counts; that others were stopped is none.
    pub(super) fn fail(&self, error: DeviceError) {
        let mut cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        if cause.is_none() || (*cause == Some(DeviceError::Aborted) && error != DeviceError::Aborted) {
            *cause = Some(error);
        }
        drop(cause);
        self.stop.raise();
        self.meeting.wake();
    }
    /// The body of one of the devices has ended. Waits for the others; then says whether `agrees` lets all go on.
    ///
    /// # Errors
    /// As [`Gate::wait`].
    pub(super) fn meet(
        &self,
        agrees: &(dyn Fn() -> bool + Sync),
        stalled: impl FnOnce() -> DeviceError,
    ) -> Result<bool, DeviceError> {
        let last = self.at.len();
        self.meeting.change(|m| {
            m.arrived += 1;
            // The last moment at which a step can be given up: behind one lock, so that all or none go on.
            if m.arrived == last && !self.stop.is_raised() {
                m.decided = Some(agrees());
            }
        });
        self.moved();
        self.meeting.wait(self, |m| m.decided, stalled)
    }
    /// What came of it: whether all went on, or why not; and whether that was after all had met.
    pub(super) fn into_outcome(self) -> (Result<(), DeviceError>, Option<bool>) {
        let cause = self.cause.into_inner().unwrap_or_else(PoisonError::into_inner);
        let decided = self.meeting.lock().value.decided;
        (cause.map_or(Ok(()), Err), decided)
    }
}
