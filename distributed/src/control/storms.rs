//! Control connections over a network in which anything happens: turmoil's, in one thread, on virtual time, from one
//! number. Links are cut and come back, messages are held up, connections break after any byte, the driver dies and is started
//! again. Client, server and pieces are the real ones, over the real handshake; what blocks around them (the background thread,
//! listeners, sockets) has no place in one thread, and real sockets are the [other tests'](super::tests).
//!
//! The driver says numbered words, a few ahead of the answers, with bytes that follow from their numbers. So each end knows what
//! has to come next, on each connection from the first word on.

mod snapping;

use std::cell::RefCell;
use std::error::Error;
use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use thalweg_graph::plan::Memory;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::UnboundedReceiverStream;
use turmoil::net::{TcpListener, TcpStream};

use super::client::call_over;
use super::server::{Ticket, serve};
use super::*;
use crate::auth::{HANDSHAKE_LIMIT, JobKey, Party, Pass, Purpose, examine, in_time, prove};
use crate::message::{Order, Report};
use snapping::Wire;

const SEEDS: u64 = 250;
const WORKERS: usize = 2;
const PORT: u16 = 7700;
/// How far the network is looked at, each time.
const TICK: Duration = Duration::from_millis(5);
/// For so long things go wrong; then all is well again.
const FAULTY: Duration = Duration::from_secs(10);
/// Words of a conversation, and how many go ahead of their answers.
const WORDS: u64 = 40;
const AHEAD: u64 = 3;
/// What a tick and a slow link may add to a time limit.
const SLACK: Duration = Duration::from_secs(1);

/// Numbers of one seed.
#[derive(Clone)]
struct Die(u64);
impl Die {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 33) % n
    }
}

/// What came of it.
#[derive(Default, Debug)]
struct Tally {
    connections: u32,
    conversations: u32,
    /// Connections that broke, by what was said of it.
    closed: u32,
    lost: u32,
    /// Connections that did not come about.
    refused: u32,
    cut: u32,
    held: u32,
    died: u32,
    /// That broke after so many bytes.
    snapped: u32,
    words: u64,
    /// Tasks of the driver's that panicked, which nobody waits for.
    panics: u32,
}

type Shared = Rc<RefCell<Tally>>;

/// Counts a task that panics.
struct Watched(Shared);
impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.borrow_mut().panics += 1;
        }
    }
}

/// What is said as this word of a connection, and the bytes with it.
fn word(connection: u32, number: u64) -> (Order, Vec<u8>) {
    let mut die = Die(u64::from(connection) << 32 | number);
    match die.below(64) {
        // Two pieces.
        0 if number > 0 => (Order::Load([number as u8; 32]), bytes((1 << 20) + die.below(300_000))),
        1..8 if number > 0 => (Order::Load([number as u8; 32]), bytes(die.below(60_000))),
        8..24 if number > 0 => (Order::Write(Memory::State, number), bytes(1 + die.below(5000))),
        _ => (Order::Run { step: number, loaded: connection, draws: [].into() }, vec![]),
    }
}

/// And what is answered.
fn answer(number: u64) -> (Report, Vec<u8>) {
    match number % 3 {
        0 => (Report::Answer(Ok(number)), bytes(number * 997)),
        _ => (Report::Voted { step: number }, vec![]),
    }
}

fn bytes(n: u64) -> Vec<u8> {
    (0..n).map(|i| (i >> 3) as u8).collect()
}

/// As [`Line::say`], which blocks where the connection takes nothing.
async fn say<M: Message>(line: &Line<M>, message: &M, bytes: &[u8]) -> io::Result<()> {
    let queue = lock(&line.end.queue).clone().ok_or_else(closed)?;
    let began = Instant::now();
    for wire in pieces::cut(message, bytes)? {
        Line::<M>::queue_soon(&queue, wire).await?;
    }
    assert!(began.elapsed() < STALL_LIMIT + SLACK, "saying took {:?}", began.elapsed());
    Ok(())
}

/// What is said next: something, or an error, in the time in which ends find out about each other.
async fn hear<M: Message, A: Message>(hearing: &mut Hearing<M, A>) -> Result<(M, Vec<u8>), MessageError> {
    let began = Instant::now();
    let heard = hearing.heard().await;
    let most = KEEP_ALIVE.0 + KEEP_ALIVE.1 + SLACK;
    assert!(began.elapsed() < most, "hearing took {:?}", began.elapsed());
    heard
}

/// An error has one cause, which is not that somebody said what makes no sense; and then nothing is heard or said any more.
async fn over<M: Message, A: Message>(
    error: MessageError,
    line: &Line<A>,
    hearing: &mut Hearing<M, A>,
    leave: &A,
    tally: &Shared,
) {
    match error {
        MessageError::Closed => tally.borrow_mut().closed += 1,
        MessageError::Lost(_) => tally.borrow_mut().lost += 1,
        other => panic!("nobody said what makes no sense: {other}"),
    }
    assert!(hear(hearing).await.is_err(), "nothing comes after an error");
    assert!(say(line, leave, &[]).await.is_err(), "who is gone is not spoken to");
    let began = Instant::now();
    while line.is_open() {
        sleep(TICK).await;
        assert!(began.elapsed() < KEEP_ALIVE.0 + KEEP_ALIVE.1 + SLACK, "the connection stays open");
    }
}

/// The driver's part.
async fn converse(attending: Attending, connection: u32, tally: Shared) {
    let _watched = Watched(tally.clone());
    let Attending { line, mut hearing, .. } = attending;
    let mut die = Die(connection.into());
    for number in 0..WORDS + AHEAD {
        // So that a conversation lasts long enough to be disturbed.
        sleep(TICK * die.below(8) as u32).await;
        if number < WORDS {
            let (order, bytes) = word(connection, number);
            if say(&line, &order, &bytes).await.is_err() {
                // Why is heard.
                let error = loop {
                    match hear(&mut hearing).await {
                        Ok(_) => {}
                        Err(error) => break error,
                    }
                };
                return over(error, &line, &mut hearing, &Order::Leave, &tally).await;
            }
        }
        if let Some(answered) = number.checked_sub(AHEAD) {
            match hear(&mut hearing).await {
                Ok(heard) => assert!(heard == answer(answered), "answer {answered} is the next one, and whole"),
                Err(error) => return over(error, &line, &mut hearing, &Order::Leave, &tally).await,
            }
        }
    }
    // Whether that arrives or not: the worker ends the connection.
    let _ = say(&line, &Order::Leave, &[]).await;
    line.finish();
    let last = hear(&mut hearing).await;
    assert!(matches!(last, Err(MessageError::Closed | MessageError::Lost(_))), "{last:?}");
}

/// A door, until it is crashed.
async fn driver(pass: Pass, tally: Shared) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    let (admitted, incoming) = tokio::sync::mpsc::unbounded_channel();
    let (arrived, arrivals) = mpsc::channel();
    spawn_local(serve(UnboundedReceiverStream::new(incoming), arrived));
    let of_door = tally.clone();
    spawn_local(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let (pass, admitted, watched) = (pass.clone(), admitted.clone(), Watched(of_door.clone()));
            spawn_local(async move {
                let _watched = watched;
                let began = Instant::now();
                let asked =
                    in_time("a stranger", examine(&mut tcp, &None, &pass, Party::Driver, "a stranger".into())).await;
                assert!(began.elapsed() < HANDSHAKE_LIMIT + SLACK, "a handshake took {:?}", began.elapsed());
                let Ok(party) = asked else { return };
                let (open, handle) = Handle::new(Box::new(|| {}));
                let ticket = Some(Ticket::new(party, handle));
                let _ = admitted.send(Ok(Wire { tcp, left: usize::MAX, _open: open, ticket }));
            });
        }
    });
    loop {
        while let Ok(attending) = arrivals.try_recv() {
            let attending = attending.map_err(io::Error::other)?;
            assert_eq!(attending.party, Party::Joining);
            tally.borrow_mut().connections += 1;
            let connection = tally.borrow().connections;
            spawn_local(converse(attending, connection, tally.clone()));
        }
        sleep(TICK).await;
    }
}

/// Makes a connection, and listens until it ends; whether the conversation came to its end.
async fn attend_once(pass: &Pass, left: usize, tally: &Shared) -> Result<bool, Box<dyn Error>> {
    let began = Instant::now();
    let connecting = background::within(HANDSHAKE_LIMIT, TcpStream::connect(("driver", PORT))).await;
    let mut tcp = connecting?;
    in_time("the driver", prove(&mut tcp, &None, pass, Party::Joining, Party::Driver, "the driver")).await?;
    let (open, handle) = Handle::new(Box::new(|| {}));
    let wire = Wire { tcp, left, _open: open, ticket: None };
    let called = background::within(HANDSHAKE_LIMIT, call_over(wire, handle)).await;
    assert!(began.elapsed() < 3 * HANDSHAKE_LIMIT + SLACK, "coming took {:?}", began.elapsed());
    let (line, mut orders) = called?;
    let mut connection = 0;
    for number in 0.. {
        let error = match hear(&mut orders).await {
            Ok((Order::Leave, _)) => {
                assert_eq!(number, WORDS, "nothing was left out");
                return Ok(true);
            }
            Ok(heard) => {
                if let (0, Order::Run { loaded, .. }) = (number, &heard.0) {
                    connection = *loaded;
                }
                assert!(heard == word(connection, number), "word {number} is the next one, and whole: {:?}", heard.0);
                tally.borrow_mut().words += 1;
                let (report, bytes) = answer(number);
                match say(&line, &report, &bytes).await {
                    Ok(()) => continue,
                    // Why is heard, after what was said before.
                    Err(_) => loop {
                        match hear(&mut orders).await {
                            Ok(_) => {}
                            Err(error) => break error,
                        }
                    },
                }
            }
            Err(error) => error,
        };
        over(error, &line, &mut orders, &Report::Ready, tally).await;
        return Ok(false);
    }
    unreachable!("there are as many numbers")
}

/// Attends again and again, until a conversation has come to its end when nothing went wrong any more.
async fn worker(pass: Pass, mut die: Die, tally: Shared) -> Result<(), Box<dyn Error>> {
    loop {
        let faulty = turmoil::elapsed() < FAULTY;
        let snaps = faulty && die.below(2) == 0;
        let left = if snaps { die.below(400_000) as usize } else { usize::MAX };
        tally.borrow_mut().snapped += u32::from(snaps);
        match attend_once(&pass, left, &tally).await {
            Ok(true) => {
                tally.borrow_mut().conversations += 1;
                if !faulty {
                    return Ok(());
                }
            }
            Ok(false) => {}
            Err(_) => tally.borrow_mut().refused += 1,
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// One storm; gives what came of it.
fn storm(seed: u64) -> Tally {
    let (mut die, tally) = (Die(seed), Shared::default());
    let mut builder = turmoil::Builder::new();
    builder.rng_seed(seed).tick_duration(TICK).enable_random_order();
    builder.simulation_duration(FAULTY + Duration::from_secs(120));
    builder.min_message_latency(Duration::from_millis(1)).max_message_latency(Duration::from_millis(1 + die.below(40)));
    let mut sim = builder.build();
    let pass = Pass { key: JobKey::from_hex(&"5f".repeat(32)).expect("a key"), term: 1, purpose: Purpose::Control };
    let of_driver = (pass.clone(), tally.clone());
    sim.host("driver", move || driver(of_driver.0.clone(), of_driver.1.clone()));
    let names: Vec<String> = (0..WORKERS).map(|i| format!("worker{i}")).collect();
    for (i, name) in names.iter().enumerate() {
        sim.client(name.as_str(), worker(pass.clone(), Die(seed << 8 | i as u64), tally.clone()));
    }
    let (mut next, mut is_dead) = (Duration::ZERO, false);
    let mut cut = [false; WORKERS];
    let mut held = [false; WORKERS];
    loop {
        let (now, mut count) = (sim.elapsed(), tally.borrow_mut());
        let faulty = now < FAULTY;
        if now >= next || !faulty {
            next = now + Duration::from_millis(50 + die.below(2500));
            let which = die.below(WORKERS as u64) as usize;
            for (i, name) in names.iter().enumerate() {
                let turn = if faulty { i == which && die.below(3) == 0 } else { cut[i] };
                match (turn, cut[i]) {
                    (true, false) => {
                        sim.partition(name.as_str(), "driver");
                        count.cut += 1;
                    }
                    (true, true) => sim.repair(name.as_str(), "driver"),
                    (false, _) => {}
                }
                cut[i] ^= turn;
                let turn = if faulty { i == which && !cut[i] && die.below(3) == 0 } else { held[i] };
                match (turn, held[i]) {
                    (true, false) => {
                        sim.hold(name.as_str(), "driver");
                        count.held += 1;
                    }
                    (true, true) => sim.release(name.as_str(), "driver"),
                    (false, _) => {}
                }
                held[i] ^= turn;
            }
            if is_dead || (faulty && die.below(5) == 0) {
                match is_dead {
                    true => sim.bounce("driver"),
                    false => {
                        sim.crash("driver");
                        count.died += 1;
                    }
                }
                is_dead = !is_dead;
            }
        }
        drop(count);
        if sim.step().unwrap_or_else(|error| panic!("{error}")) {
            break;
        }
    }
    drop(sim);
    assert_eq!(tally.borrow().panics, 0, "of the driver's tasks");
    Rc::into_inner(tally).expect("nobody is left").into_inner()
}

#[test]
fn in_any_weather_words_come_in_order_and_once_and_calls_end() {
    let began = std::time::Instant::now();
    let (first, many) = match std::env::var("THALWEG_STORM").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => (seed, 1),
        None => (0, SEEDS),
    };
    let mut all = Tally::default();
    for seed in first..first + many {
        let came = catch_unwind(AssertUnwindSafe(|| storm(seed)));
        let t = came.unwrap_or_else(|_| panic!("in storm {seed}: THALWEG_STORM={seed} is this one alone"));
        all.connections += t.connections;
        all.conversations += t.conversations;
        (all.closed, all.lost, all.refused) = (all.closed + t.closed, all.lost + t.lost, all.refused + t.refused);
        (all.cut, all.held, all.died) = (all.cut + t.cut, all.held + t.held, all.died + t.died);
        (all.snapped, all.words) = (all.snapped + t.snapped, all.words + t.words);
    }
    println!("{many} storms in {:.1} s: {all:?}", began.elapsed().as_secs_f64());
    if many == SEEDS {
        let faults = [all.cut, all.held, all.died, all.snapped, all.closed, all.lost, all.refused];
        assert!(faults.iter().all(|n| u64::from(*n) > SEEDS / 4), "all of it happened: {all:?}");
    }
}
