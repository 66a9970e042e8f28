//! Values over two connections: they come whole whichever is faster, and whatever goes wrong on either ends both.

use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use super::*;
use crate::frame::{HEADER_BYTES, Kind};

/// Bytes of a value of nine parts, the last of which is short.
const BYTES: usize = 8 * CHUNK_BYTES + 13;

/// As many connections: where they are written, and where they are read.
fn connected(count: usize) -> (Vec<Stream>, Inbound) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let pair = |_| {
        let to = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        (Stream::plain(to), Stream::plain(listener.accept().expect("it connects").0))
    };
    let (to, from): (Vec<_>, Vec<_>) = (0..count).map(pair).unzip();
    for stream in to.iter().chain(&from) {
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("it is open");
    }
    (to, Inbound::new(from, 8 << 10).expect("handles"))
}

fn header() -> Header {
    let (kind, last, over, chunk, len, crc) = (Kind::Value, false, 2, 0, 0, 0);
    Header { kind, last, over, job: 1, term: 2, plan: 3, step: 4, channel: 5, chunk, len, crc }
}

fn value(seed: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| ((i * 7 + i / 251) ^ seed) as u8).collect()
}

/// What goes by each of two connections for a value.
fn frames(bytes: &[u8]) -> [Vec<u8>; 2] {
    let mut out = [vec![], vec![]];
    frame::write_over(&mut out, header(), bytes, true).expect("memory");
    out
}

/// What comes of reading a value of which `sent` goes by two connections; `then` those are closed.
fn received(sent: [Vec<u8>; 2], room: usize, then_close: bool) -> (Result<Vec<u8>, Refused>, Vec<Stream>) {
    let (to, mut from) = connected(2);
    let (mut into, started) = (vec![0; room], Instant::now());
    let read = thread::scope(|scope| {
        for (stream, bytes) in to.iter().zip(&sent) {
            let mut stream = stream.try_clone().expect("a handle");
            scope.spawn(move || {
                // Whoever reads may end it before all is written.
                let _ = stream.write_all(bytes);
                if then_close {
                    let _ = stream.shutdown(Shutdown::Write);
                }
            });
        }
        let first = Header::read(&mut from.first).expect("a header");
        let read = from.value(first, &mut into, true);
        if read.is_err() {
            let open = |end: &mut Stream| end.write(&[]).is_ok();
            assert!(
                from.ends.iter_mut().all(open),
                "nobody can tell of a connection that was closed before of why it was"
            );
            from.shut();
        }
        read
    });
    assert!(started.elapsed() < Duration::from_secs(4), "nobody waits for what cannot come");
    (read.map(|()| into), to)
}

fn refused(sent: [Vec<u8>; 2], then_close: bool) -> (Refused, Vec<Stream>) {
    let (read, to) = received(sent, BYTES, then_close);
    (read.expect_err("it is not as it was sent"), to)
}

#[test]
fn parts_go_by_each_connection_in_turn() {
    let bytes = value(0, BYTES);
    let sent = frames(&bytes);
    for (number, sent) in sent.iter().enumerate() {
        let (mut rest, mut chunks) = (&sent[..], vec![]);
        while !rest.is_empty() {
            let part = Header::read(&mut rest).expect("a header");
            let mut room = vec![0; CHUNK_BYTES];
            let n = part.payload(&mut rest, &mut room, true).expect("its bytes");
            let at = part.chunk as usize * CHUNK_BYTES;
            assert!(room[..n] == bytes[at..at + n], "part {}", part.chunk);
            chunks.push(part.chunk);
        }
        let turns: Vec<u32> = (0..9).filter(|chunk| chunk % 2 == number as u32).collect();
        assert_eq!(chunks, turns);
    }
}

#[test]
fn values_come_whole_and_in_their_order_whatever_their_size() {
    let (to, mut from) = connected(2);
    let sizes = [10, SPREAD_BYTES - 1, SPREAD_BYTES, 3, BYTES, BYTES, 1];
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut out = Outbound::new(to);
            for (seed, size) in sizes.into_iter().enumerate() {
                out.send(header(), &value(seed, size), true).expect("it listens");
            }
        });
        for (seed, size) in sizes.into_iter().enumerate() {
            let first = Header::read(&mut from.first).expect("a header");
            assert_eq!(usize::from(first.over), if size < SPREAD_BYTES { 1 } else { 2 });
            // Every third is of a step that was given up.
            if seed % 3 == 2 {
                assert!(from.drop_value(first, &mut vec![], true).is_ok(), "{size} bytes");
                continue;
            }
            let mut into = vec![0; size];
            assert!(from.value(first, &mut into, true).is_ok(), "{size} bytes");
            assert!(into == value(seed, size), "{size} bytes");
        }
    });
}

#[test]
fn damage_on_either_connection_is_named_and_ends_both() {
    for number in [0, 1] {
        for at in [HEADER_BYTES + 5, HEADER_BYTES + CHUNK_BYTES + 9, 2 * HEADER_BYTES + CHUNK_BYTES] {
            let mut sent = frames(&value(1, BYTES));
            sent[number][at] ^= 4;
            let (refused, to) = refused(sent, false);
            let Refused::Frame(error) = refused else { panic!("connection {number}, byte {at}") };
            assert!(error.is_damage(), "{error}");
            let text = error.to_string();
            assert!(text.contains("checksum") && text.contains("connection 2 of 2") == (number == 1), "{text}");
            for mut stream in to {
                let ended = match stream.read(&mut [0]) {
                    Ok(n) => n == 0,
                    Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
                };
                assert!(ended, "all connections are closed");
            }
        }
    }
}

#[test]
fn a_connection_that_dies_while_the_other_lives_is_no_value() {
    for number in [0, 1] {
        let mut sent = frames(&value(1, BYTES));
        let half = sent[number].len() / 2 + 7;
        sent[number].truncate(half);
        let (refused, _) = refused(sent, true);
        let Refused::Frame(error) = refused else { panic!("connection {number}") };
        assert!(!error.is_damage(), "{error}");
        let text = error.to_string();
        assert!(text.contains("middle of a frame"), "{text}");
        assert_eq!(text.contains("connection 2 of 2"), number == 1, "{text}");
    }
}

#[test]
fn parts_that_do_not_belong_are_refused() {
    // The second connection's parts in another order; those of another value; fewer and more bytes than there should be.
    let good = frames(&value(1, BYTES));
    let part = HEADER_BYTES + CHUNK_BYTES;
    let swapped = [&good[1][part..2 * part], &good[1][..part], &good[1][2 * part..]].concat();
    let other = Header { channel: 6, ..header() };
    let mut of_other = [vec![], vec![]];
    frame::write_over(&mut of_other, other, &value(1, BYTES), true).expect("memory");
    for (second, says) in [(swapped, "out of order"), (of_other[1].clone(), "out of order")] {
        let (refused, _) = refused([good[0].clone(), second], false);
        let Refused::Wrong(what) = refused else { panic!("{says}") };
        assert!(what.contains(says) && what.contains("connection 2 of 2"), "{what}");
    }
    for bytes in [BYTES - 1, BYTES + 1] {
        let (refused, _) = refused(frames(&value(1, bytes)), false);
        let Refused::Wrong(what) = refused else { panic!("{bytes} bytes") };
        assert!(what.contains("part 8 of 9 has"), "{what}");
    }
    let (_, mut from) = connected(2);
    let three = Header { over: 3, ..header() };
    let Err(Refused::Wrong(what)) = from.value(three, &mut [0; 8], true) else { panic!("there are two") };
    assert!(what.contains("over 3 connections, and there are 2"), "{what}");
}

#[test]
fn who_asks_says_which_of_how_many_connections_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    let (from, _) = listener.accept().expect("it connects");
    let (mut to, mut from) = (Stream::plain(to), Stream::plain(from));
    announce(&mut to, 1, 2).expect("it is open");
    assert_eq!(announced(&mut from).expect("it was said"), (1, 2));
    announce(&mut to, 2, 2).expect("it is open");
    assert!(announced(&mut from).is_err(), "there is no third of two");
    assert_eq!(connections(1 << 20), 1, "no machine has so many cores");
    assert_eq!(connections(0), CONNECTIONS);
}
