//! Looking at a device that a session has taken: what it did so far, and taking its adapter away. A session owns its device,
//! so this is a handle of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::context::Context;

/// A device, seen from outside.
#[derive(Clone)]
pub struct Watch {
    pub(crate) context: Arc<Context>,
    pub(crate) counts: Arc<Counts>,
}

/// What a device did so far.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) submissions: AtomicU64,
    pub(crate) pipelines: AtomicU64,
}

impl Watch {
    /// How often the GPU was handed something to do.
    pub fn submissions(&self) -> u64 {
        self.counts.submissions.load(Ordering::Relaxed)
    }
    /// How many pipelines were compiled for the device's plans. What another device of this process has compiled is not
    /// compiled again.
    pub fn pipelines_compiled(&self) -> usize {
        self.counts.pipelines.load(Ordering::Relaxed) as usize
    }
    /// Gives the adapter up, as a driver does that is reset: for trying out what comes then. Devices that share the adapter
    /// with it are lost as well.
    pub fn lose(&self) {
        self.context.device.destroy();
    }
}
