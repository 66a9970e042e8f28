//! What the two ends of a control connection hear of each other, over real sockets, encrypted and not.

use std::thread;

use super::*;
use crate::access::{Access, Encryption};
use crate::auth::{JobKey, Party, Pass, Purpose};
use crate::frame;
use crate::message::{Order, Report};

const SOON: Duration = Duration::from_secs(10);

/// A driver's door, and how to come to it.
struct Door {
    reception: Reception,
    access: Access,
    pass: Pass,
}

impl Door {
    fn new(encryption: Encryption) -> Self {
        let pass = Pass { key: JobKey::random().expect("numbers"), term: 1, purpose: Purpose::Control };
        let address: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let access = Access::new(&pass.key, address.ip(), encryption).expect("a certificate");
        let port = access.bind(address).expect("a port");
        let reception = Reception::open(port, access.tls.clone(), pass.clone(), Party::Driver).expect("a thread");
        Self { reception, access, pass }
    }
    fn socket(&self) -> Socket {
        let address = self.reception.address();
        self.access.dial(address, &self.pass, Party::Joining, Party::Driver).expect("the key is right")
    }
    /// Both ends of a connection.
    fn pair(&self) -> (Attending, (Line<Report>, Hearing<Order, Report>)) {
        let there = attend(self.socket()).expect("it is taken");
        let here = self.reception.next(SOON).expect("somebody comes").expect("the key is right");
        assert_eq!(here.party, Party::Joining);
        (here, there)
    }
}

const WAYS: [Encryption; 2] = [Encryption::Never, Encryption::Always];

#[test]
fn both_sides_hear_what_is_said_in_order_and_with_all_its_bytes() {
    for way in WAYS {
        let door = Door::new(way);
        let (mut here, (line, mut orders)) = door.pair();
        let bytes: Vec<u8> = (0..9 << 20).map(|i: u32| (i >> 3) as u8).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                here.line.say(&Order::Load([1; 32]), &bytes).expect("it listens");
                for step in 0..100 {
                    here.line.say(&Order::Run { step, loaded: 0, draws: [].into() }, &[]).expect("it listens");
                }
            });
            let (order, behind) = orders.hear().expect("a message");
            assert!(order == Order::Load([1; 32]) && behind == bytes);
            for step in 0..100 {
                assert_eq!(orders.hear(), Ok((Order::Run { step, loaded: 0, draws: [].into() }, vec![])));
            }
        });
        line.say(&Report::Answer(Ok(3)), &bytes[..5]).expect("it listens");
        assert_eq!(here.hearing.hear(), Ok((Report::Answer(Ok(3)), bytes[..5].to_vec())));
    }
}

#[test]
fn who_hangs_up_has_been_heard_and_hears_no_more() {
    for (way, driver_first) in WAYS.iter().flat_map(|w| [(*w, true), (*w, false)]) {
        let door = Door::new(way);
        let (mut here, (line, mut orders)) = door.pair();
        let started = Instant::now();
        if driver_first {
            here.line.say(&Order::Leave, &[]).expect("it listens");
            let hearing = thread::spawn(move || {
                assert_eq!(orders.hear(), Ok((Order::Leave, vec![])));
                assert_eq!(orders.hear(), Err(MessageError::Closed));
            });
            here.line.hang_up();
            hearing.join().expect("no panic");
            assert_eq!(
                line.say(&Report::Alive { doing: String::new() }, &[]).expect_err("it was closed").kind(),
                io::ErrorKind::BrokenPipe
            );
        } else {
            line.say(&Report::Ready, &[]).expect("it listens");
            let hearing = thread::spawn(move || {
                assert_eq!(here.hearing.hear(), Ok((Report::Ready, vec![])));
                assert_eq!(here.hearing.hear(), Err(MessageError::Closed));
                here.line
            });
            let also = thread::spawn(move || assert_eq!(orders.hear(), Err(MessageError::Closed)));
            line.hang_up();
            let line = hearing.join().expect("no panic");
            also.join().expect("no panic");
            assert!(line.say(&Order::Leave, &[]).is_err());
        }
        // It has not waited in vain.
        assert!(started.elapsed() < PARTING_LIMIT / 2, "{:?}", started.elapsed());
    }
}

/// Nobody hears it: the other side is there, and looks at nothing.
#[test]
fn hanging_up_waits_for_nobody_for_long() {
    let door = Door::new(Encryption::Never);
    let (here, there) = door.pair();
    let started = Instant::now();
    here.line.hang_up();
    assert!(started.elapsed() < PARTING_LIMIT + SOON / 2, "{:?}", started.elapsed());
    drop(there);
}

#[test]
fn a_connection_that_breaks_is_heard_of() {
    for way in WAYS {
        let door = Door::new(way);
        let (here, (_line, mut orders)) = door.pair();
        // As the system does for a process that is killed.
        let hearing = thread::spawn(move || orders.hear());
        (here.line.end.cut)();
        assert_eq!(hearing.join().expect("no panic"), Err(MessageError::Closed));
    }
}

/// A worker that is told why it is not taken, by somebody who is gone at once.
#[test]
fn what_was_said_is_heard_also_when_its_ends_are_dropped() {
    for way in WAYS {
        let door = Door::new(way);
        let (here, (_line, mut orders)) = door.pair();
        here.line.say(&Order::Refuse("too old".into()), &[]).expect("it listens");
        drop(here);
        drop(door);
        assert_eq!(orders.hear(), Ok((Order::Refuse("too old".into()), vec![])));
        assert_eq!(orders.hear(), Err(MessageError::Closed));
    }
}

/// Whoever has the key attends once, and says what fits.
#[test]
fn who_says_too_much_is_not_listened_to() {
    let door = Door::new(Encryption::Never);
    let (mut here, (line, _orders)) = door.pair();
    let queue = lock(&line.end.queue).clone().expect("it is open");
    let said = proto::report::Said::Piece(vec![0; WIRE_BYTES].into());
    queue.try_send(proto::Report { said: Some(said), behind: 0 }).expect("room");
    assert!(matches!(here.hearing.hear(), Err(MessageError::Lost(_) | MessageError::Closed)));
    let (mut here, (line, _orders)) = door.pair();
    let queue = lock(&line.end.queue).clone().expect("it is open");
    let mut wire = Report::Ready.to_wire(0);
    wire.behind = 1;
    queue.try_send(wire).expect("room");
    assert_eq!(here.hearing.hear(), Err(MessageError::Long { behind: 1, room: 0 }));
    assert!(here.line.say(&Order::Leave, &[]).is_err(), "who is not listened to is not spoken to");
}

/// Prints what an exchange takes.
fn report(what: &str, exchange: impl FnMut(u64)) {
    let took = |exchange: &mut dyn FnMut(u64), n| {
        let started = Instant::now();
        exchange(n);
        started.elapsed()
    };
    let mut exchange = exchange;
    let mut all: Vec<Duration> = (0..2000).map(|n| took(&mut exchange, n)).collect();
    all.sort();
    println!("{what}: median {:?}, 95th of a hundred {:?}", all[all.len() / 2], all[all.len() * 95 / 100]);
}

/// What a word takes there and back: by gRPC, and by frames as values go. Printed, not judged.
#[test]
fn how_long_a_word_takes_there_and_back() {
    for way in WAYS {
        let door = Door::new(way);
        let (here, (line, orders)) = door.pair();
        let Attending { line: driver, mut hearing, .. } = here;
        let answering = orders.each(move |said| match said {
            Ok((Order::Run { step, .. }, _)) => line.say(&Report::Voted { step }, &[]).expect("it listens"),
            _ => line.finish(),
        });
        answering.expect("a thread");
        report(&format!("gRPC, encryption {way:?}"), |step| {
            driver.say(&Order::Run { step, loaded: 0, draws: [].into() }, &[]).expect("it listens");
            assert_eq!(hearing.hear(), Ok((Report::Voted { step }, vec![])));
        });
        driver.hang_up();
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut there = std::net::TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    let mut here = listener.accept().expect("it connects").0;
    [&there, &here].iter().for_each(|tcp| tcp.set_nodelay(true).expect("open"));
    let (kind, last, job, term, plan, step) = (frame::Kind::Grant, true, 0, 0, 0, 0);
    let (over, channel, chunk, len, crc) = (1, 0, 0, 0, 0);
    let header = frame::Header { kind, last, over, job, term, plan, step, channel, chunk, len, crc };
    let answering = thread::spawn(move || {
        while frame::Header::read(&mut there).is_ok() {
            frame::write_all(&mut there, header, &[], true).expect("it listens");
        }
    });
    report("frames over TCP", |_| {
        frame::write_all(&mut here, header, &[], true).expect("it listens");
        frame::Header::read(&mut here).expect("an answer");
    });
    drop(here);
    answering.join().expect("no panic");
}
