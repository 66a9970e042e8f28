//! Where the devices of this process are in the step that runs, for whoever asks from another thread: a step that takes long is
//! to be explained while it does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::seat::describe;
use super::{Inner, Prepared};

/// Where an executor's devices are.
#[derive(Clone, Default)]
pub struct Position(Arc<Spot>);

#[derive(Default)]
struct Spot {
    running: Mutex<Option<Prepared>>,
    /// By device, the instruction at which it is.
    at: Mutex<Arc<[AtomicUsize]>>,
}

impl Position {
    /// What each device is doing in words: its instruction's place, and the channel or launch; nothing between steps.
    pub fn describe(&self) -> Vec<String> {
        let running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let at = self.0.at.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Prepared(inner)) = running else { return vec![] };
        let Inner { plan, parts, .. } = &*inner;
        parts.iter().zip(at.iter()).map(|(part, at)| describe(plan, part.of, at.load(Ordering::Relaxed))).collect()
    }
    /// A step begins; gives where its devices say how far they are.
    pub(super) fn begin(&self, prepared: &Prepared) -> Arc<[AtomicUsize]> {
        let at: Arc<[AtomicUsize]> = prepared.0.parts.iter().map(|_| AtomicUsize::new(0)).collect();
        *self.0.at.lock().unwrap_or_else(PoisonError::into_inner) = at.clone();
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(prepared.clone());
        at
    }
    /// It has ended.
    pub(super) fn end(&self) {
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
