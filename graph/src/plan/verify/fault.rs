//! What is wrong with a plan: which rule, where, in words. Faults are data with places, not only text, so that a picture
//! of the plan can mark them; and there is an end to their list, for one mistake can show at every instruction.

use std::fmt::Write;

use crate::ir::Site;
use crate::plan::{Instruction, Plan};

/// More faults than these are not listed.
const MOST_FAULTS: usize = 100;

/// An instruction of a plan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// Which device, by its place in the plan.
    pub device: u16,
    /// Which of its instructions.
    pub instruction: usize,
}

/// Which rule is broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FaultKind {
    /// A kernel is not sound by itself.
    Kernel,
    /// Something is named that is not there.
    Missing,
    /// Types do not fit.
    Type,
    /// A buffer or an arena is not what it may be.
    Buffer,
    /// A channel is not used as channels are: once, at its ends, in the body.
    Channel,
    /// Bytes are read that are not there, or no longer.
    Unwritten,
    /// Bytes are touched that are the peer's: of a slot behind its grant, or posted and not yet taken.
    Lent,
    /// A launch or a copy uses bytes for two things at once.
    Clash,
    /// State is written in the body, twice, or read after its update.
    State,
    /// Nobody needs what is computed.
    Waste,
    /// Instructions wait for each other in a circle. Places are the circle, in order.
    Hang,
}

/// One thing that is wrong with a plan. Prints as the device, the instruction and what is wrong there, with source lines.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Which rule.
    pub kind: FaultKind,
    /// On which device, where it is one.
    pub device: Option<u16>,
    /// The instructions it is about; none where it is about no instruction.
    pub places: Vec<Place>,
    message: String,
}

/// Faults as they are found.
pub(super) struct Faults<'a> {
    plan: &'a Plan,
    list: Vec<Fault>,
    /// How many there are, listed or not: checks rely on there being none.
    found: usize,
}

impl<'a> Faults<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        Self { plan, list: vec![], found: 0 }
    }
    pub(super) fn list(self) -> Vec<Fault> {
        self.list
    }
    pub(super) fn count(&self) -> usize {
        self.found
    }
    /// A fault of no device or of several: the message says of which.
    pub(super) fn add(&mut self, kind: FaultKind, places: Vec<Place>, message: String) {
        self.found += 1;
        if self.list.len() < MOST_FAULTS {
            self.list.push(Fault { kind, device: None, places, message });
        }
    }
    /// A fault of one device, perhaps of one instruction. It says where, and a launch's line.
    pub(super) fn at(
        &mut self,
        kind: FaultKind,
        device: u16,
        instruction: Option<usize>,
        what: impl FnOnce() -> String,
    ) {
        self.found += 1;
        if self.list.len() >= MOST_FAULTS {
            return;
        }
        let of = &self.plan.devices[usize::from(device)];
        let mut message = format!("{}: ", of.device);
        if let Some(at) = instruction {
            let _ = write!(message, "{at}: ");
        }
        message.push_str(&what());
        if let Some(Instruction::Launch(launch)) = instruction.and_then(|at| of.instructions.get(at))
            && launch.site != Site::default()
        {
            let _ = write!(message, " (from {})", launch.site);
        }
        let places = instruction.map(|instruction| Place { device, instruction }).into_iter().collect();
        self.list.push(Fault { kind, device: Some(device), places, message });
    }
}
