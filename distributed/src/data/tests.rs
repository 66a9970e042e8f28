//! What a peer can do to a step: it has the key, and sends what it likes.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use thalweg_graph::plan::Memory;
use thalweg_runtime::executor::{Exchange, Fetch};
use thalweg_runtime::{AbortFlag, Executor, ReferenceDevice};

use super::*;
use crate::frame;

/// Four numbers from device 1 to a variable of device 0.
fn pair() -> Arc<Plan> {
    let text = r#"plan "pair" program "run" {
      #0: f32[4] = device 1 -> device 0 "sum"
      device 0 "zero" state 64 scratch 0 staging 64 {
        b0: f32[4] = staging at 0
        b1: f32[4] = state at 0
        grant #0
        wait #0 b0
        commit
        copy b0 -> b1
      }
      device 1 "one" state 64 scratch 0 staging 0 {
        b0: f32[4] = state at 0
        post #0 b0
        sent #0
      }
    }"#;
    let plan = Plan::parse(text).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(plan.verify(), Vec::<String>::new());
    Arc::new(plan)
}

/// The same, where device 0 grants after it has done something else.
fn granted_late() -> Arc<Plan> {
    let text = pair().to_string().replace("state 64 scratch 0 staging 64", "state 128 scratch 64 staging 64");
    let text = text.replacen("grant #0", "copy b1 -> b2\n grant #0", 1);
    let text = text.replacen(
        "b1: f32[4] = state at 0",
        "b1: f32[4] = state at 0\n b2: f32[4] = scratch at 0\n b3: f32[4] = state at 64",
        1,
    );
    let text = text.replacen("copy b0 -> b1", "copy b0 -> b1\n copy b2 -> b3", 1);
    let plan = Plan::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(plan.verify(), Vec::<String>::new(), "{text}");
    Arc::new(plan)
}

/// One rank of two, and what the other has of it: a socket.
struct Victim {
    executor: Executor,
    prepared: Prepared,
    plane: Arc<DataPlane>,
    peer: TcpStream,
    key: JobKey,
    plan: u64,
    /// Whether what broke was told before this end closed the connection, so that nobody here could tell of that instead.
    told_in_time: Arc<AtomicBool>,
}

impl Victim {
    fn new() -> Self {
        Self::of(0, &pair())
    }
    fn of(rank: u16, plan: &Arc<Plan>) -> Self {
        let key = JobKey::random().expect("numbers");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let peer = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let (stream, _) = listener.accept().expect("it connects");
        let flag: Arc<OnceLock<AbortFlag>> = Arc::default();
        let raised = flag.clone();
        let (probe, told_in_time) = (stream.try_clone().expect("open"), Arc::new(AtomicBool::new(false)));
        let told = told_in_time.clone();
        let on_break = Box::new(move |_: &Cause| {
            // Nothing is sent by this; it fails where the connection has been ended.
            told.store(std::io::Write::write(&mut &probe, &[]).is_ok(), Ordering::SeqCst);
            raised.get().into_iter().for_each(AbortFlag::raise);
        });
        let peers = vec![(Party::Worker(1 - rank), Stream::plain(stream))];
        let plane = DataPlane::new(Party::Worker(rank), &key, 1, peers, false, on_break);
        let plane = plane.expect("threads start");
        let device = Box::new(ReferenceDevice::default());
        let mut executor = Executor::hosting(vec![device], vec![rank], plane.clone()).expect("threads start");
        flag.set(executor.abort_flag()).expect("set once");
        executor.reserve_state(&[plan.devices[usize::from(rank)].state_bytes]).expect("room");
        let prepared = executor.load(plan).expect("room");
        Self { executor, prepared, plane, peer, key, plan: crate::short(&plan.hash().0), told_in_time }
    }
    fn header(&self, step: u64) -> Header {
        let (kind, last, over, chunk, len, crc) = (Kind::Value, true, 1, 0, 0, 0);
        Header { kind, last, over, job: self.key.job(), term: 1, plan: self.plan, step, channel: 0, chunk, len, crc }
    }
    fn frame(&self, step: u64, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![];
        frame::write_all(&mut out, self.header(step), bytes, true).expect("memory");
        out
    }
    fn send(&mut self, bytes: &[u8]) {
        std::io::Write::write_all(&mut self.peer, bytes).expect("it listens");
    }
    fn run(&mut self, step: u64) -> Result<bool, DeviceError> {
        self.plane.begin(step, &self.prepared, self.plan);
        let exchange = Exchange { feeds: &[&[]], draws: &[], fetches: vec![Fetch::Nothing], agrees: &|| true };
        let outcome = self.executor.run(&self.prepared, exchange);
        self.plane.end();
        outcome
    }
    fn state(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.executor.device_mut(0).read(Memory::State, 0, &mut bytes).expect("it is there");
        bytes
    }
    /// What sent bytes come to: the cause. Nothing was updated, and the connection is closed.
    fn breaks(mut self, bytes: &[u8], closes: bool) -> Cause {
        let good = self.frame(1, &[1; 16]);
        self.send(&good);
        assert_eq!(self.run(1), Ok(true));
        self.send(bytes);
        if closes {
            self.peer.shutdown(Shutdown::Write).expect("it is open");
        }
        let started = Instant::now();
        assert_eq!(self.run(2), Err(DeviceError::Aborted));
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(self.state(), [1; 16], "nothing was updated");
        self.peer.set_read_timeout(Some(Duration::from_secs(5))).expect("it is open");
        let closed = match self.peer.read(&mut [0; 8]) {
            Ok(n) => n == 0,
            Err(e) => e.kind() == std::io::ErrorKind::ConnectionReset,
        };
        assert!(closed, "the connection is closed");
        assert!(self.told_in_time.load(Ordering::SeqCst), "the cause is told first");
        self.plane.failure().expect("something broke")
    }
}

#[test]
fn values_arrive_in_any_number_of_steps_also_ahead_of_them() {
    let mut victim = Victim::new();
    for step in 1..5 {
        let bytes = [step as u8; 16];
        let frame = victim.frame(step, &bytes);
        victim.send(&frame);
        // It waits at the door.
        thread::sleep(Duration::from_millis(if step == 2 { 30 } else { 0 }));
        assert_eq!(victim.run(step), Ok(true));
        assert_eq!(victim.state(), bytes);
    }
    assert_eq!(victim.plane.failure(), None);
}

/// The next frame that a victim sends, and the value in it.
fn next(peer: &mut TcpStream) -> (Header, [u8; 16]) {
    let mut bytes = [0; 16];
    let header = Header::read(peer).expect("a frame");
    let n = header.payload(peer, &mut bytes, true).expect("its bytes");
    assert_eq!(n, if header.kind == Kind::Value { 16 } else { 0 });
    (header, bytes)
}

#[test]
fn a_slot_that_is_granted_late_is_written_late() {
    let plan = granted_late();
    let mut receiver = Victim::of(0, &plan);
    let mut sender = Victim::of(1, &plan);
    sender.executor.device_mut(0).write(Memory::State, 0, &[7; 16]).expect("it is there");
    let (mut from, mut to) = (receiver.peer.try_clone().expect("open"), sender.peer.try_clone().expect("open"));
    for step in 1..4 {
        let early = Header { kind: Kind::Grant, plan: sender.plan, ..sender.header(step) };
        thread::scope(|scope| {
            let sending = scope.spawn(|| sender.run(step));
            to.set_read_timeout(Some(Duration::from_millis(50))).expect("open");
            assert!(matches!(Header::read_next(&mut to), Err(FrameError::Io(_))), "nothing was granted yet");
            to.set_read_timeout(None).expect("open");
            let receiving = scope.spawn(|| receiver.run(step));
            let (grant, _) = next(&mut from);
            assert_eq!((grant.kind, grant.step), (Kind::Grant, step));
            frame::write_all(&mut to, early, &[], true).expect("open");
            let (value, bytes) = next(&mut to);
            assert_eq!((value.kind, value.step, bytes), (Kind::Value, step, [7; 16]));
            let header = Header { job: grant.job, ..value };
            frame::write_all(&mut from, header, &bytes, true).expect("open");
            assert_eq!(sending.join().expect("no panic"), Ok(true));
            assert_eq!(receiving.join().expect("no panic"), Ok(true));
        });
        assert_eq!(receiver.state(), [7; 16]);
    }
}

#[test]
fn what_is_left_of_a_step_that_was_given_up_is_dropped() {
    let mut victim = Victim::new();
    let flag = victim.executor.abort_flag();
    let stopper = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        flag.raise();
    });
    assert_eq!(victim.run(1), Err(DeviceError::Aborted));
    stopper.join().expect("no panic");
    victim.executor.abort_flag().clear();
    for (step, byte) in [(1, 1), (2, 2)] {
        let frame = victim.frame(step, &[byte; 16]);
        victim.send(&frame);
    }
    assert_eq!(victim.run(2), Ok(true));
    assert_eq!(victim.state(), [2; 16]);
}

#[test]
fn a_flipped_bit_ends_the_step_and_is_named() {
    for at in [0, 9, frame::HEADER_BYTES - 1, frame::HEADER_BYTES, frame::HEADER_BYTES + 15] {
        let victim = Victim::new();
        let mut bytes = victim.frame(2, &[2; 16]);
        bytes[at] ^= 4;
        let Cause::Damage(text) = victim.breaks(&bytes, false) else { panic!("byte {at}") };
        assert!(text.contains("from rank 1 to rank 0"), "{text}");
        if at >= frame::HEADER_BYTES {
            assert!(text.contains("channel #0 \"sum\", step 2, ") && text.contains("checksum of chunk 0"), "{text}");
        }
    }
}

#[test]
fn a_connection_that_ends_in_a_frame_is_no_value() {
    for n in [0, 7, frame::HEADER_BYTES, frame::HEADER_BYTES + 15] {
        let victim = Victim::new();
        let bytes = victim.frame(2, &[2; 16])[..n].to_vec();
        let cause = victim.breaks(&bytes, true);
        assert!(matches!(&cause, Cause::Unreachable(_)), "{n} bytes: {cause:?}");
    }
}

#[test]
fn frames_that_do_not_belong_here_are_damage() {
    type Spoil = fn(&mut Header);
    let cases: [(Spoil, usize, &str); 8] = [
        (|_| {}, 17, "room for 16"),
        (|_| {}, 15, "15 bytes, where there should be 16"),
        (|h| h.step = 9, 16, "is the newest here"),
        (|h| h.plan ^= 1, 16, "runs here"),
        (|h| h.channel = 1, 16, "no such channel"),
        (|h| h.kind = Kind::Grant, 0, "leads from rank 1 to rank 0"),
        (|h| h.job ^= 1, 16, "another"),
        (|h| h.term = 2, 16, "another"),
    ];
    for (spoil, len, says) in cases {
        let victim = Victim::new();
        let mut header = victim.header(2);
        spoil(&mut header);
        let mut bytes = vec![];
        frame::write_all(&mut bytes, header, &vec![2; len], true).expect("memory");
        let Cause::Damage(text) = victim.breaks(&bytes, false) else { panic!("{says}") };
        assert!(text.contains(says), "{text}");
    }
}
