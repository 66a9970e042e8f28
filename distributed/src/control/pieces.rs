//! A message and the bytes that belong to it, cut into what goes over the wire, and put together again. How much may come is
//! known from the message's kind before it does; room is made for what has come, and not for what is said to follow.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::wire::Message;

/// The most bytes of a piece.
pub(super) const PIECE_BYTES: usize = 1 << 20;

/// What came over the wire.
#[derive(Debug)]
pub(crate) enum Heard<M> {
    /// A message, and how many bytes follow it.
    Message(M, u64),
    Piece(Bytes),
}

/// Why there is no message.
#[derive(PartialEq, Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("the connection was closed")]
    Closed,
    #[error("nothing was said within {0:?}")]
    Late(Duration),
    #[error("the connection failed: {0}")]
    Lost(String),
    #[error("{behind} bytes follow a message that may have {room}")]
    Long { behind: u64, room: u64 },
    #[error("a piece of {got} bytes where {left} are to follow")]
    Order { got: usize, left: u64 },
    #[error("a message that makes no sense: {0}")]
    Malformed(&'static str),
}

/// What goes over the wire.
pub(super) fn cut<M: Message>(message: &M, bytes: &[u8]) -> io::Result<impl IntoIterator<Item = M::Wire>> {
    let (behind, room) = (bytes.len() as u64, message.room());
    if behind > room {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, MessageError::Long { behind, room }));
    }
    let pieces = bytes.chunks(PIECE_BYTES).map(|piece| M::piece(Bytes::copy_from_slice(piece)));
    Ok(std::iter::once(message.to_wire(behind)).chain(pieces))
}

/// Puts a message together.
pub(super) struct Pieces<M> {
    /// With the bytes that are still to follow.
    begun: Option<(M, u64)>,
    bytes: Vec<u8>,
}

impl<M> Default for Pieces<M> {
    fn default() -> Self {
        Self { begun: None, bytes: vec![] }
    }
}

impl<M: Message> Pieces<M> {
    /// Whether nothing of a message is there that is not whole.
    pub(super) fn is_empty(&self) -> bool {
        self.begun.is_none()
    }
    /// What has come, once it is whole.
    pub(super) fn add(&mut self, heard: Heard<M>) -> Result<Option<(M, Vec<u8>)>, MessageError> {
        let (message, left) = match (heard, self.begun.take()) {
            (Heard::Message(message, behind), None) => {
                let room = message.room();
                if behind > room {
                    return Err(MessageError::Long { behind, room });
                }
                (message, behind)
            }
            (Heard::Piece(piece), Some((message, left))) => {
                let got = piece.len();
                if got == 0 || got > PIECE_BYTES || got as u64 > left {
                    return Err(MessageError::Order { got, left });
                }
                self.bytes.extend_from_slice(&piece);
                (message, left - got as u64)
            }
            (Heard::Piece(piece), None) => return Err(MessageError::Order { got: piece.len(), left: 0 }),
            (Heard::Message(..), Some(_)) => return Err(MessageError::Malformed("bytes were to follow the last one")),
        };
        if left == 0 {
            return Ok(Some((message, std::mem::take(&mut self.bytes))));
        }
        self.begun = Some((message, left));
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use thalweg_graph::plan::Memory;

    use super::super::proto;
    use super::*;
    use crate::message::{Order, Report};

    /// What comes of a message on the wire, and of the bytes with it.
    fn carried<M: Message + Clone>(message: &M, bytes: &[u8]) -> Result<(M, Vec<u8>), MessageError> {
        let (mut pieces, mut whole) = (Pieces::default(), None);
        for wire in cut(message, bytes).expect("it may be so long") {
            assert!(whole.is_none(), "it is whole already");
            let wire = M::Wire::decode(&wire.encode_to_vec()[..]).expect("it was just written");
            whole = pieces.add(M::from_wire(wire)?)?;
        }
        Ok(whole.expect("it is whole"))
    }

    #[test]
    fn messages_come_with_what_is_behind_them() {
        for bytes in [0, 10, PIECE_BYTES, 2 * PIECE_BYTES + 1] {
            let bytes: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
            let order = Order::Write(Memory::State, 7);
            let (heard, behind) = carried(&order, &bytes).expect("a message");
            assert!(heard == order && behind == bytes);
        }
    }

    #[test]
    fn nothing_is_longer_than_its_kind_may_be() {
        let long = cut(&Order::Abort { step: 3 }, &[1]).err().expect("it has no bytes").to_string();
        assert!(long.contains("1 bytes follow a message that may have 0"), "{long}");
        let heard = Heard::Message(Order::Load([7; 32]), u64::MAX);
        let error = Pieces::default().add(heard).expect_err("no plan is so long");
        assert!(matches!(error, MessageError::Long { behind: u64::MAX, .. }), "{error}");
    }

    #[test]
    fn pieces_are_what_was_announced_or_nothing() {
        let load = || Heard::Message(Order::Load([7; 32]), 5);
        let piece = |n: usize| Heard::Piece(vec![0; n].into());
        for (first, then, what) in [
            (piece(1), piece(1), "a piece of 1 bytes where 0 are to follow"),
            (load(), piece(0), "a piece of 0 bytes where 5 are to follow"),
            (load(), piece(6), "a piece of 6 bytes where 5 are to follow"),
            (load(), load(), "bytes were to follow the last one"),
        ] {
            let mut pieces = Pieces::default();
            let outcome = pieces.add(first).and_then(|_| pieces.add(then));
            let error = outcome.expect_err("it is out of order").to_string();
            assert!(error.contains(what), "{error}");
        }
    }

    proptest! {
        /// Whatever a peer says: a message or an error; and never room for more than has come.
        #[test]
        fn any_bytes_are_messages_or_errors(all in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..6)) {
            let (mut orders, mut reports) = (Pieces::<Order>::default(), Pieces::<Report>::default());
            for bytes in &all {
                if let Ok(wire) = proto::Order::decode(&bytes[..]) {
                    let _ = Order::from_wire(wire).and_then(|heard| orders.add(heard));
                }
                if let Ok(wire) = proto::Report::decode(&bytes[..]) {
                    let _ = Report::from_wire(wire).and_then(|heard| reports.add(heard));
                }
                prop_assert!(orders.bytes.capacity() < 1024 && reports.bytes.capacity() < 1024);
            }
        }
        /// A sound message of which a few bytes were changed.
        #[test]
        fn any_change_of_a_message_is_a_message_or_an_error(at in 0_usize..100, to in any::<u8>(), cut_off in 0_usize..100) {
            for order in super::super::samples::orders() {
                let mut bytes = order.to_wire(3).encode_to_vec();
                let (at, n) = (at % bytes.len(), bytes.len());
                bytes[at] = to;
                bytes.truncate(n.max(cut_off));
                if let Ok(wire) = proto::Order::decode(&bytes[..]) {
                    let _ = Order::from_wire(wire).and_then(|heard| Pieces::default().add(heard));
                }
            }
        }
    }
}
