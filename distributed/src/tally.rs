//! Control messages, counted by kind at the driver. A step costs each worker four of them, two each way, whatever crosses its
//! channels; that is a promise, and promises are counted. Signs of life go by the clock and not by steps, so that they have
//! a kind of their own.

use std::sync::Mutex;

use thalweg_runtime::executor::ControlMessages;

use crate::lock;
use crate::message::{Order, Report};

/// What was said to a worker and heard of it.
#[derive(Default)]
pub(crate) struct Tally(Mutex<ControlMessages>);

impl Tally {
    pub(crate) fn said(&self, order: &Order) {
        *lock(&self.0).sent.entry(order.kind()).or_default() += 1;
    }
    pub(crate) fn heard(&self, report: &Report) {
        *lock(&self.0).heard.entry(report.kind()).or_default() += 1;
    }
    pub(crate) fn so_far(&self) -> ControlMessages {
        lock(&self.0).clone()
    }
}

impl Order {
    fn kind(&self) -> &'static str {
        match self {
            Order::Welcome { .. } => "welcome",
            Order::Refuse(_) => "refuse",
            Order::ReserveState(_) => "reserve",
            Order::Load(_) => "load",
            Order::Unload(_) => "unload",
            Order::Write(..) => "write",
            Order::Read(..) => "read",
            Order::Reserved(_) => "reserved",
            Order::Save(_) => "save",
            Order::Time(_) => "time",
            Order::Clock => "clock",
            Order::Strategy(..) => "strategy",
            Order::Watch(_) => "watch",
            Order::Crossed => "crossed",
            Order::Open(..) => "open",
            Order::Run { .. } => "run",
            Order::Decide { .. } => "decide",
            Order::Abort { .. } => "abort",
            Order::Leave => "leave",
        }
    }
}

impl Report {
    fn kind(&self) -> &'static str {
        match self {
            Report::Join { .. } => "join",
            Report::Ready => "ready",
            Report::Answer(_) => "answer",
            Report::Saved(_) => "saved",
            Report::Alive { .. } => "alive",
            Report::Voted { .. } => "voted",
            Report::Done { .. } => "done",
            Report::Failed { .. } => "failed",
        }
    }
}
