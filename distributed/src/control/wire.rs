//! Messages as the proto has them, both ways. What comes is believed in nothing: numbers fit or are refused, and what has to
//! be there is.

use std::net::SocketAddr;

use bytes::Bytes;
use thalweg_graph::plan::Memory;

use super::pieces::{Heard, MessageError};
use super::proto::{self, Empty, answer, cause, order, report, saved};
use super::{draws, save};
use crate::message::{Cause, Order, Report};

/// The most bytes of a plan.
const PLAN_BYTES: u64 = 256 << 20;
/// The most bytes of variables that go with one message.
const STRETCH_BYTES: u64 = 16 << 20;

type Refused = MessageError;

/// Something that is said.
pub(crate) trait Message: Sized + Send + 'static {
    /// As it is on the wire.
    type Wire: prost::Message + Default + 'static;
    /// Of a message that so many bytes follow.
    fn to_wire(&self, behind: u64) -> Self::Wire;
    /// A part of what follows.
    fn piece(bytes: Bytes) -> Self::Wire;
    /// What came.
    fn from_wire(wire: Self::Wire) -> Result<Heard<Self>, Refused>;
    /// The most bytes that may follow it.
    fn room(&self) -> u64;
}

fn missing<T>(part: Option<T>, what: &'static str) -> Result<T, Refused> {
    part.ok_or(Refused::Malformed(what))
}

fn address(text: &str) -> Result<SocketAddr, Refused> {
    text.parse().map_err(|_| Refused::Malformed("an address is none"))
}

fn to_rank(number: u32) -> Result<u16, Refused> {
    number.try_into().map_err(|_| Refused::Malformed("a rank is none"))
}

fn to_memory(memory: Memory) -> i32 {
    match memory {
        Memory::State => proto::Memory::State,
        Memory::Scratch => proto::Memory::Scratch,
        Memory::Staging => proto::Memory::Staging,
    }
    .into()
}

fn from_memory(number: i32) -> Result<Memory, Refused> {
    match proto::Memory::try_from(number) {
        Ok(proto::Memory::State) => Ok(Memory::State),
        Ok(proto::Memory::Scratch) => Ok(Memory::Scratch),
        Ok(proto::Memory::Staging) => Ok(Memory::Staging),
        _ => Err(Refused::Malformed("there is no such memory")),
    }
}

impl Message for Order {
    type Wire = proto::Order;

    fn to_wire(&self, behind: u64) -> proto::Order {
        use order::Said;
        let said = match self.clone() {
            Order::Welcome { term, rank, workers, device, threads, null } => {
                let workers = workers.iter().map(SocketAddr::to_string).collect();
                Said::Welcome(proto::Welcome { rank: rank.into(), workers, device, threads, term, null })
            }
            Order::Refuse(why) => Said::Refuse(why),
            Order::ReserveState(bytes) => Said::ReserveState(bytes),
            Order::Load(hash) => Said::Load(Bytes::copy_from_slice(&hash)),
            Order::Unload(plan) => Said::Unload(plan),
            Order::Write(memory, offset) => Said::Write(proto::Place { memory: to_memory(memory), offset }),
            Order::Read(memory, offset, bytes) => {
                Said::Read(proto::Stretch { memory: to_memory(memory), offset, bytes })
            }
            Order::Reserved(memory) => Said::Reserved(to_memory(memory)),
            Order::Time(on) => Said::Time(on),
            Order::Clock => Said::Clock(Empty {}),
            Order::Strategy(loaded, at) => Said::Strategy(proto::Instruction { loaded, at }),
            Order::Watch(on) => Said::Watch(on),
            Order::Crossed => Said::Crossed(Empty {}),
            Order::Open(number, spec) => Said::Open(draws::to_source(number, spec)),
            Order::Run { step, loaded, draws } => {
                Said::Run(proto::Run { step, loaded, draws: draws.iter().map(draws::to_draw).collect() })
            }
            Order::Decide { step, commit } => Said::Decide(proto::Decide { step, commit }),
            Order::Abort { step } => Said::Abort(step),
            Order::Leave => Said::Leave(Empty {}),
            Order::Save(order) => Said::Save(save::to_order(order)),
        };
        proto::Order { said: Some(said), behind }
    }
    fn piece(bytes: Bytes) -> proto::Order {
        proto::Order { said: Some(order::Said::Piece(bytes)), behind: 0 }
    }
    fn from_wire(proto::Order { said, behind }: proto::Order) -> Result<Heard<Self>, Refused> {
        use order::Said;
        let message = match missing(said, "an order that says nothing")? {
            Said::Piece(piece) => return Ok(Heard::Piece(piece)),
            Said::Welcome(proto::Welcome { rank, workers, device, threads, term, null }) => {
                let rank = to_rank(rank)?;
                let workers = workers.iter().map(|text| address(text)).collect::<Result<_, _>>()?;
                Order::Welcome { term, rank, workers, device, threads, null }
            }
            Said::Refuse(why) => Order::Refuse(why),
            Said::ReserveState(bytes) => Order::ReserveState(bytes),
            Said::Load(hash) => {
                let hash = hash.as_ref().try_into();
                Order::Load(hash.map_err(|_| Refused::Malformed("a hash that is none"))?)
            }
            Said::Unload(plan) => Order::Unload(plan),
            Said::Write(proto::Place { memory, offset }) => Order::Write(from_memory(memory)?, offset),
            Said::Read(proto::Stretch { memory, offset, bytes }) => Order::Read(from_memory(memory)?, offset, bytes),
            Said::Reserved(memory) => Order::Reserved(from_memory(memory)?),
            Said::Time(on) => Order::Time(on),
            Said::Clock(Empty {}) => Order::Clock,
            Said::Strategy(proto::Instruction { loaded, at }) => Order::Strategy(loaded, at),
            Said::Watch(on) => Order::Watch(on),
            Said::Crossed(Empty {}) => Order::Crossed,
            Said::Open(source) => draws::from_source(source)?,
            Said::Run(proto::Run { step, loaded, draws }) => {
                let draws = draws.into_iter().map(draws::from_draw).collect::<Result<_, _>>()?;
                Order::Run { step, loaded, draws }
            }
            Said::Decide(proto::Decide { step, commit }) => Order::Decide { step, commit },
            Said::Abort(step) => Order::Abort { step },
            Said::Leave(Empty {}) => Order::Leave,
            Said::Save(order) => Order::Save(save::from_order(order)?),
        };
        Ok(Heard::Message(message, behind))
    }
    fn room(&self) -> u64 {
        match self {
            Order::Load(_) => PLAN_BYTES,
            Order::Write(..) => STRETCH_BYTES,
            _ => 0,
        }
    }
}

impl Message for Report {
    type Wire = proto::Report;

    fn to_wire(&self, behind: u64) -> proto::Report {
        use report::Said;
        let said = match self.clone() {
            Report::Join { version, address, process, rank } => {
                let (address, rank) = (address.to_string(), rank.map(u32::from));
                Said::Join(proto::Join { version, address, process, rank })
            }
            Report::Ready => Said::Ready(Empty {}),
            Report::Answer(result) => {
                let result = match result {
                    Ok(number) => answer::Result::Number(number),
                    Err(why) => answer::Result::Refused(why),
                };
                Said::Answer(proto::Answer { result: Some(result) })
            }
            Report::Saved(result) => {
                let result = match result {
                    Ok(report) => saved::Result::Report(save::to_report(report)),
                    Err(why) => saved::Result::Refused(why),
                };
                Said::Saved(proto::Saved { result: Some(result) })
            }
            Report::Alive { doing } => Said::Alive(proto::Alive { doing }),
            Report::Voted { step } => Said::Voted(step),
            Report::Done { step, committed, carried } => {
                let carried = carried.into_iter();
                let carried = carried.map(|(channel, transfers, bytes, copied)| proto::Carried {
                    channel,
                    transfers,
                    bytes,
                    copied,
                });
                Said::Done(proto::Done { step, committed, carried: carried.collect() })
            }
            Report::Failed { step, cause, in_tail } => {
                let why = match cause {
                    Cause::Aborted => cause::Why::Aborted(Empty {}),
                    Cause::Unreachable(text) => cause::Why::Unreachable(text),
                    Cause::Fault(text) => cause::Why::Fault(text),
                    Cause::Gone(text) => cause::Why::Gone(text),
                    Cause::Damage(text) => cause::Why::Damage(text),
                };
                Said::Failed(proto::Failed { step, cause: Some(proto::Cause { why: Some(why) }), in_tail })
            }
        };
        proto::Report { said: Some(said), behind }
    }
    fn piece(bytes: Bytes) -> proto::Report {
        proto::Report { said: Some(report::Said::Piece(bytes)), behind: 0 }
    }
    fn from_wire(proto::Report { said, behind }: proto::Report) -> Result<Heard<Self>, Refused> {
        use report::Said;
        let message = match missing(said, "a report that says nothing")? {
            Said::Piece(piece) => return Ok(Heard::Piece(piece)),
            Said::Join(proto::Join { version, address: text, process, rank }) => {
                let rank = rank.map(to_rank).transpose()?;
                Report::Join { version, address: address(&text)?, process, rank }
            }
            Said::Ready(Empty {}) => Report::Ready,
            Said::Answer(proto::Answer { result }) => Report::Answer(match missing(result, "an answer without one")? {
                answer::Result::Number(number) => Ok(number),
                answer::Result::Refused(why) => Err(why),
            }),
            Said::Saved(proto::Saved { result }) => {
                Report::Saved(match missing(result, "a save that has come to nothing")? {
                    saved::Result::Report(report) => Ok(save::from_report(report)?),
                    saved::Result::Refused(why) => Err(why),
                })
            }
            Said::Alive(proto::Alive { doing }) => Report::Alive { doing },
            Said::Voted(step) => Report::Voted { step },
            Said::Done(proto::Done { step, committed, carried }) => {
                let carried = carried.into_iter().map(|c| (c.channel, c.transfers, c.bytes, c.copied)).collect();
                Report::Done { step, committed, carried }
            }
            Said::Failed(proto::Failed { step, cause, in_tail }) => {
                let why = cause.and_then(|c| c.why);
                let cause = match missing(why, "a failure without a cause")? {
                    cause::Why::Aborted(Empty {}) => Cause::Aborted,
                    cause::Why::Unreachable(text) => Cause::Unreachable(text),
                    cause::Why::Fault(text) => Cause::Fault(text),
                    cause::Why::Gone(text) => Cause::Gone(text),
                    cause::Why::Damage(text) => Cause::Damage(text),
                };
                Report::Failed { step, cause, in_tail }
            }
        };
        Ok(Heard::Message(message, behind))
    }
    fn room(&self) -> u64 {
        match self {
            Report::Answer(Ok(_)) => STRETCH_BYTES,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::super::samples::{orders, reports};
    use super::*;

    #[track_caller]
    fn survives<M: Message + PartialEq + std::fmt::Debug>(message: &M) {
        let bytes = message.to_wire(0).encode_to_vec();
        let wire = M::Wire::decode(&bytes[..]).expect("it was just written");
        let Ok(Heard::Message(heard, 0)) = M::from_wire(wire) else { panic!("{message:?}") };
        assert_eq!(heard, *message);
    }

    #[test]
    fn every_message_is_on_the_wire_what_it_is_here() {
        orders().iter().for_each(survives);
        reports().iter().for_each(survives);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        use order::Said;
        let welcome = |rank: u32, worker: &str| {
            Said::Welcome(proto::Welcome {
                rank,
                workers: vec![worker.into()],
                device: String::new(),
                threads: 1,
                term: 1,
                null: false,
            })
        };
        for (said, says) in [
            (None, "says nothing"),
            (Some(welcome(1 << 16, "127.0.0.1:1")), "a rank"),
            (Some(welcome(1, "localhost")), "an address"),
            (Some(Said::Load(vec![0; 31].into())), "a hash"),
            (Some(Said::Reserved(0)), "memory"),
            (Some(Said::Read(proto::Stretch { memory: 9, offset: 0, bytes: 1 })), "memory"),
        ] {
            let error = Order::from_wire(proto::Order { said, behind: 0 }).expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
        let failed = report::Said::Failed(proto::Failed { step: 1, cause: None, in_tail: false });
        for (said, says) in
            [(failed, "without a cause"), (report::Said::Answer(proto::Answer { result: None }), "an answer")]
        {
            let error = Report::from_wire(proto::Report { said: Some(said), behind: 0 }).expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
