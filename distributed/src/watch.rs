//! What workers note of their steps while the driver wants to know: when each launch ran and what its channels did, on the
//! device's own clock. It is asked for between steps, so that a step costs no message more for being watched.
//!
//! A worker says numbers only: instructions, channels, nanoseconds. What they are called the driver knows from its own plan.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thalweg_graph::plan::{ChannelId, Endpoint};
use thalweg_runtime::device::Loaded;
use thalweg_runtime::executor::Prepared;
use thalweg_runtime::trace::{ChannelEvent, Span};
use thalweg_runtime::{Executor, Timing};

use crate::message::Order;
use crate::remote::Remote;

/// When an instruction ran.
#[derive(Serialize, Deserialize)]
struct Timed {
    plan: u32,
    instruction: u32,
    start: u64,
    took: u64,
}

/// What was posted to a channel, or waited for.
#[derive(Serialize, Deserialize)]
struct Crossed {
    posted: bool,
    channel: u32,
    start: u64,
    took: u64,
    bytes: u64,
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

/// A worker's answer to an order that is about watching; an error if it is about something else.
pub(crate) fn answer(
    order: &Order,
    executor: &mut Executor,
    plans: &[Option<(Prepared, u64)>],
) -> Result<(u64, Vec<u8>), String> {
    let encoded = |bytes: Result<Vec<u8>, postcard::Error>| bytes.map(|b| (0, b)).map_err(|e| e.to_string());
    match order {
        Order::Clock => Ok((nanos(executor.devices()[0].now()), vec![])),
        Order::Time(on) => {
            // Plans have other numbers on the device than here.
            let plan = |loaded: Loaded| plans.iter().position(|p| p.as_ref().is_some_and(|p| p.0.loaded(0) == loaded));
            let timed = |t: Timing| {
                let (plan, instruction) = (plan(t.loaded)? as u32, t.instruction as u32);
                Some(Timed { plan, instruction, start: nanos(t.start), took: nanos(t.took) })
            };
            let timings = executor.device_mut(0).time(*on);
            encoded(postcard::to_stdvec(&timings.into_iter().filter_map(timed).collect::<Vec<_>>()))
        }
        Order::Strategy(plan, instruction) => {
            let known = plans.get(*plan as usize).and_then(Option::as_ref);
            let (prepared, _) = known.ok_or_else(|| format!("there is no plan {plan}"))?;
            let part = executor.part(0);
            let instructions = prepared.plan().devices.get(part).map_or(0, |d| d.instructions.len());
            if *instruction as usize >= instructions {
                return Err(format!("plan {plan} has no instruction {instruction}"));
            }
            let text = executor.devices()[0].strategy(prepared.loaded(0), *instruction as usize);
            Ok((0, text.into_bytes()))
        }
        Order::Watch(on) => {
            executor.watch_channels(*on);
            Ok((0, vec![]))
        }
        Order::Crossed => {
            let crossed = |e: ChannelEvent| {
                let (start, took) = (nanos(e.span.start), nanos(e.span.took));
                Crossed { posted: e.kind == "post", channel: e.channel.0, start, took, bytes: e.bytes }
            };
            let events = executor.crossed().into_iter().flatten().map(crossed);
            encoded(postcard::to_stdvec(&events.collect::<Vec<_>>()))
        }
        other => Err(format!("{other:?} is nothing to be done between steps")),
    }
}

/// At the driver. Of a worker that is gone there is nothing to see; that it is gone is told elsewhere.
impl Remote {
    /// What its clock says.
    pub(crate) fn clock(&self) -> Duration {
        self.ask(&Order::Clock, &[]).map_or(Duration::ZERO, |(now, _)| Duration::from_nanos(now))
    }
    /// Has instructions timed from here on, or no longer; gives what was timed so far.
    pub(crate) fn time(&self, on: bool) -> Vec<Timing> {
        let Ok((_, bytes)) = self.ask(&Order::Time(on), &[]) else { return vec![] };
        let timings: Vec<Timed> = postcard::from_bytes(&bytes).unwrap_or_default();
        let timing = |t: Timed| Timing {
            loaded: Loaded(t.plan as usize),
            instruction: t.instruction as usize,
            start: Duration::from_nanos(t.start),
            took: Duration::from_nanos(t.took),
        };
        timings.into_iter().map(timing).collect()
    }
    /// How it runs an instruction, for people.
    pub(crate) fn strategy(&self, plan: Loaded, instruction: usize) -> String {
        let said = self.ask(&Order::Strategy(plan.0 as u32, instruction as u32), &[]);
        said.map_or_else(|e| e.to_string(), |(_, text)| String::from_utf8_lossy(&text).into_owned())
    }
    /// Has channels watched from here on, or no longer.
    pub(crate) fn watch(&self, on: bool) {
        let _ = self.ask(&Order::Watch(on), &[]);
    }
    /// What crossed its channels in the last step, which was one of this plan. What comes from the caller or goes there is
    /// called as it is where the caller is in the same process.
    pub(crate) fn crossed(&self, prepared: &Prepared) -> Vec<ChannelEvent> {
        let Ok((_, bytes)) = self.ask(&Order::Crossed, &[]) else { return vec![] };
        let events: Vec<Crossed> = postcard::from_bytes(&bytes).unwrap_or_default();
        let event = |e: Crossed| {
            let id = ChannelId(e.channel);
            let channel = prepared.plan().channels.get(id)?;
            let kind = match (e.posted, channel.from, channel.to) {
                (true, _, Endpoint::Driver) => "fetch",
                (true, ..) => "post",
                (false, Endpoint::Driver, _) => "feed",
                (false, ..) => "wait",
            };
            let (start, took) = (Duration::from_nanos(e.start), Duration::from_nanos(e.took));
            let name: Arc<str> = channel.label.clone();
            Some(ChannelEvent { span: Span { start, took }, kind, channel: id, name, bytes: e.bytes })
        };
        events.into_iter().filter_map(event).collect()
    }
}
