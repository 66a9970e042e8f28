//! A step on several devices: each on its own thread, until all have ended. Whatever ends one ends all, and afterwards every
//! channel is as it was before the first step.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use thalweg_graph::plan::Endpoint;

use super::gate::Watch;
use super::seat::{Fetch, Seat, Stops, describe};
use super::{Exchange, Executor, Prepared};
use crate::device::DeviceError;

impl Executor {
    /// [`Executor::run`] where there are several devices.
    pub(super) fn together(&mut self, prepared: &Prepared, exchange: Exchange<'_>) -> Result<bool, DeviceError> {
        let Exchange { feeds, fetches, agrees, .. } = exchange;
        let plan = &*prepared.0;
        let Self { devices, threads: Some(threads), hosts, abort, wait_limit, torn, events, position, .. } = self
        else {
            unreachable!("devices that have others beside them have threads")
        };
        let watch = Watch::new(position.begin(prepared), abort.within(), *wait_limit);
        let mut of_each: Vec<Vec<Fetch<'_>>> = Vec::with_capacity(devices.len());
        of_each.resize_with(devices.len(), || {
            let mut list = Vec::with_capacity(fetches.len());
            list.resize_with(fetches.len(), Fetch::default);
            list
        });
        for (at, (channel, fetch)) in plan.plan.channels.values().iter().zip(fetches).enumerate() {
            if let (Endpoint::Device(from), true) = (channel.from, hosts.has_caller()) {
                of_each[usize::from(from)][at] = fetch;
            }
        }
        let mut seats = Vec::with_capacity(devices.len());
        for (index, (device, fetches)) in devices.iter_mut().zip(of_each).enumerate() {
            let mut held = Vec::with_capacity(feeds.len());
            held.resize_with(feeds.len(), || None);
            let (device, part, stops) = (&mut **device, &plan.parts[index], Stops::Together(&watch));
            let (events, wire) = (events.as_ref().map(|_| vec![]), hosts.wire());
            seats.push(Mutex::new(Seat {
                device,
                index,
                plan,
                part,
                feeds,
                fetches,
                agrees,
                stops,
                wire,
                held,
                events,
            }));
        }
        let crossed = threads.broadcast(|thread| {
            let mut seat = seats[thread.index()].lock().unwrap_or_else(PoisonError::into_inner);
            let error = match catch_unwind(AssertUnwindSafe(|| seat.walk())) {
                Ok(walked) => walked.err(),
                Err(panic) => Some(DeviceError::Panicked {
                    device: plan.plan.devices[plan.parts[thread.index()].of].device.clone(),
                    doing: describe(&plan.plan, plan.parts[thread.index()].of, watch.at(thread.index())),
                    message: said(&*panic),
                }),
            };
            if let Some(error) = error {
                watch.fail(error);
                plan.wake();
            }
            watch.done();
            seat.leave();
            seat.events.take().unwrap_or_default()
        });
        drop(seats);
        position.end();
        if let Some(events) = events {
            *events = crossed;
        }
        match watch.into_outcome() {
            (Ok(()), decided) => Ok(decided.unwrap_or(false)),
            (Err(cause), Some(true)) => {
                let error = DeviceError::Torn { cause: Box::new(cause) };
                *torn = Some(error.clone());
                Err(error)
            }
            (Err(cause), _) => Err(cause),
        }
    }
}

/// What a panic says.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
