//! What is said by control as the fuzzer takes it: bytes of a connection, each message after its length.

use prost::Message as _;

use super::pieces::{Pieces, cut};
use super::proto;
use super::samples;
use super::wire::Message;
use crate::control::MessageError;
use crate::message::{Order, Report};

/// Hears what is said until something is wrong or nothing follows; whether nothing was wrong. What was understood has to be
/// the same when it is said again.
///
/// # Panics
/// If it is not.
fn hear<M: Message + Clone + PartialEq>(mut bytes: &[u8]) -> Result<(), MessageError> {
    let mut pieces = Pieces::<M>::default();
    let no_message = |_| MessageError::Malformed("no message");
    while !bytes.is_empty() {
        let wire = M::Wire::decode_length_delimited(&mut bytes).map_err(no_message)?;
        let Some((message, behind)) = pieces.add(M::from_wire(wire)?)? else { continue };
        let mut again = (Pieces::<M>::default(), None);
        for wire in cut(&message, &behind).expect("it came so long") {
            let wire = M::Wire::decode(&wire.encode_to_vec()[..]).expect("it was just written");
            again.1 = again.0.add(M::from_wire(wire)?)?;
        }
        assert!(again.1.is_some_and(|again| again == (message, behind)), "what is said again is the same");
    }
    if pieces.is_empty() { Ok(()) } else { Err(MessageError::Closed) }
}

/// What a driver may say to a worker.
pub(crate) fn orders(bytes: &[u8]) -> bool {
    hear::<Order>(bytes).is_ok()
}

/// What a worker may say to a driver.
pub(crate) fn reports(bytes: &[u8]) -> bool {
    hear::<Report>(bytes).is_ok()
}

fn said<M: Message>(messages: &[M], behind: impl Fn(&M) -> usize) -> Vec<u8> {
    let mut bytes = vec![];
    for message in messages {
        let behind = vec![7; behind(message)];
        let wires = cut(message, &behind).expect("it may be so long");
        wires.into_iter().for_each(|wire| bytes.extend(wire.encode_length_delimited_to_vec()));
    }
    bytes
}

/// Conversations to begin with: each message alone where it is long, the others together.
pub(crate) fn corpus() -> Vec<(&'static str, String, Vec<u8>)> {
    let orders = samples::orders();
    let (long, short): (Vec<_>, Vec<_>) =
        orders.into_iter().partition(|o| o.room() > 0 || matches!(o, Order::Save(_) | Order::Welcome { .. }));
    let mut all = vec![("order", "short".to_string(), said(&short, |_| 0))];
    for (i, order) in long.into_iter().enumerate() {
        let bytes = said(&[order], |o| if o.room() > 0 { 40 } else { 0 });
        all.push(("order", format!("long-{i}"), bytes));
    }
    // A piece that nothing announced.
    let stray = proto::Order { said: Some(proto::order::Said::Piece(vec![1, 2].into())), behind: 0 };
    all.push(("order", "bad-stray-piece".into(), stray.encode_length_delimited_to_vec()));
    // Of which nothing comes.
    let promise = Order::Load([7; 32]).to_wire(200 << 20);
    all.push(("order", "bad-promise".into(), promise.encode_length_delimited_to_vec()));
    let (saved, others): (Vec<_>, Vec<_>) =
        samples::reports().into_iter().partition(|r| matches!(r, Report::Saved(_) | Report::Done { .. }));
    all.push(("report", "others".into(), said(&others, |r| if r.room() > 0 { 3 } else { 0 })));
    all.push(("report", "saved".into(), said(&saved, |_| 0)));
    all
}
