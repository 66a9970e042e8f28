//! What is between the processes of a simulated job: virtual time and what happens in it, connections, the disk, and who is
//! dead or stopped. A connection delivers in order or breaks; two connections know nothing of each other's order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::faults::{Faults, Mutant};
use super::truth::Truth;
use crate::auth::{HANDSHAKE_LIMIT, Party};
use crate::message::{Order, Report};

/// A process, never to be used again by another.
pub(super) type Pid = u32;
/// A connection.
pub(super) type Conn = u64;

/// Numbers from a seed: SplitMix64, as Steele, Lea and Flood have it (OOPSLA 2014).
pub(super) struct Random(pub(super) u64);
impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
    /// Less than `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    pub(super) fn micros(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(from + self.below(to - from))
    }
}

pub(super) fn mix(seed: u64) -> u64 {
    let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Purpose {
    Control,
    /// What channels of a term carry, to this party from that one.
    Data {
        term: u32,
        from: Party,
        to: Party,
    },
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Body {
    Order(Order, u64),
    Report(Report, u64),
    /// What one worker sends another in a step.
    Hop {
        step: u64,
        value: u64,
    },
    /// What the driver feeds: the how-manieth batch.
    Feed {
        step: u64,
        batch: u64,
    },
    Fetch {
        step: u64,
    },
}

#[derive(Clone, PartialEq, Debug)]
pub(super) struct Envelope {
    pub(super) term: u32,
    pub(super) body: Body,
    /// What came is not what was sent.
    pub(super) damaged: bool,
}

/// What a process notices.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Notice {
    /// Somebody would connect to this port.
    Knock {
        conn: Conn,
        port: u16,
        purpose: Purpose,
    },
    Connected(Conn),
    Refused(Conn),
    Message(Conn, Envelope),
    Closed(Conn),
    Timer(Timer),
}

/// What a process has asked time for. A number tells whether it still wants to know.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Timer {
    Look,
    Beat,
    Rest,
    Opened(u64),
    Hands(u64),
    Stopped(u64),
    Save(u64),
}

pub(super) enum Happening {
    To(Pid, Notice),
    /// The launcher looks.
    Launcher,
    /// The next fault that is due by its time.
    Fault,
}

struct Link {
    ends: [Pid; 2],
    purpose: Purpose,
    /// By end, when the last of what it is sent arrives.
    last: [Duration; 2],
    /// By end, whether nothing arrives any more.
    closed: [bool; 2],
}

/// One write of a file by the driver, as far as a crash can undo it.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Disk {
    pub(super) address: Option<u16>,
    pub(super) expected: usize,
    pub(super) over: bool,
    pub(super) fenced: BTreeSet<Pid>,
    /// Who was welcomed to the last term.
    pub(super) members: Vec<Pid>,
    /// The last term, as it is read, and as it is after a crash.
    pub(super) term: u32,
    pub(super) synced_term: u32,
    /// Values of variables after so many steps, and whether they are on the disk.
    pub(super) shards: BTreeMap<u64, (u64, bool)>,
    /// Manifests: of so many steps, and whether their names are on the disk.
    pub(super) manifests: BTreeMap<u64, bool>,
}

impl Disk {
    /// What was not synced is gone.
    pub(super) fn lose(&mut self) -> bool {
        let before = self.clone();
        self.term = self.synced_term;
        self.shards.retain(|_, (_, synced)| *synced);
        self.manifests.retain(|_, synced| *synced);
        *self != before
    }
}

/// All but the processes.
pub(super) struct Ground {
    pub(super) now: Duration,
    sequence: u64,
    pub(super) queue: BTreeMap<(Duration, u64), Happening>,
    pub(super) random: Random,
    pub(super) faults: Faults,
    pub(super) disk: Disk,
    pub(super) truth: Truth,
    links: BTreeMap<Conn, Link>,
    ports: BTreeMap<u16, Pid>,
    made: u64,
    pub(super) dead: BTreeSet<Pid>,
    pub(super) stopped: BTreeMap<Pid, Duration>,
    /// Those are cut off from all others, for so long.
    pub(super) cut_off: Vec<(BTreeSet<Pid>, Duration)>,
    /// When the last thing that goes wrong is over, as far as is known.
    pub(super) calm: Duration,
    /// What was said in terms, by which connection and to which of its ends, to be said again at the wrong time.
    pub(super) said: Vec<(Conn, usize, Envelope)>,
    /// How many steps make the job, and after how many each it saves.
    pub(super) size: (u64, u64),
    /// Whether the caller ends bodies now and then. Where nobody does, a body that hangs does so for good.
    pub(super) aborts: bool,
    /// Who drives, and who works.
    pub(super) driver: Pid,
    pub(super) workers: Vec<Pid>,
    pub(super) trace: Option<Vec<String>>,
}

impl Ground {
    pub(super) fn new(seed: u64, faults: Faults, truth: Truth, traces: bool) -> Self {
        let (now, queue, links) = (Duration::ZERO, BTreeMap::new(), BTreeMap::new());
        Self {
            now,
            sequence: 0,
            queue,
            random: Random(mix(seed ^ 0x7468_616c)),
            faults,
            disk: Disk::default(),
            truth,
            links,
            ports: BTreeMap::new(),
            made: 0,
            dead: BTreeSet::new(),
            stopped: BTreeMap::new(),
            cut_off: vec![],
            calm: now,
            said: vec![],
            size: (0, 0),
            aborts: seed.is_multiple_of(4),
            driver: 0,
            workers: vec![],
            trace: traces.then(Vec::new),
        }
    }
    pub(super) fn is(&self, mutant: Mutant) -> bool {
        self.faults.mutant == Some(mutant)
    }
    /// Notes a line of what happens, if anybody wants to read it.
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now.as_secs_f64();
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now:10.4} {}", line()));
        }
    }
    pub(super) fn number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }
    pub(super) fn at(&mut self, when: Duration, what: Happening) {
        self.sequence += 1;
        self.queue.insert((when, self.sequence), what);
    }
    pub(super) fn is_dead(&self, pid: Pid) -> bool {
        self.dead.contains(&pid)
    }
    /// Wakes a process that long from now.
    pub(super) fn wake(&mut self, pid: Pid, after: Duration, timer: Timer) {
        self.at(self.now + after, Happening::To(pid, Notice::Timer(timer)));
    }

    /// A port of a process.
    pub(super) fn bind(&mut self, pid: Pid) -> u16 {
        let port = 1 + self.number() as u16;
        self.ports.insert(port, pid);
        port
    }
    pub(super) fn unbind(&mut self, port: u16) {
        self.ports.remove(&port);
    }
    pub(super) fn address(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }
    /// From when on two can hear each other.
    fn reachable(&self, a: Pid, b: Pid) -> Duration {
        let apart = |(side, _): &&(BTreeSet<Pid>, Duration)| side.contains(&a) != side.contains(&b);
        self.cut_off.iter().filter(apart).map(|(_, until)| *until).max().unwrap_or_default()
    }
    /// Whether a process was cut off from others just now.
    pub(super) fn is_cut_off(&self, pid: Pid) -> bool {
        let now = self.now;
        let holds = |(side, until): &(BTreeSet<Pid>, Duration)| {
            *until + HANDSHAKE_LIMIT >= now && (side.contains(&pid) || side.contains(&self.driver))
        };
        self.cut_off.iter().any(holds)
    }
    fn delay(&mut self) -> Duration {
        // Most are quick, a few take long.
        let most = if self.random.one_in(20) { 20_000 } else { 600 };
        self.random.micros(20, most)
    }
    /// Connects to a port. Comes back as connected, or refused.
    pub(super) fn dial(&mut self, from: Pid, port: u16, purpose: Purpose) -> Conn {
        let conn = self.number();
        if self.spend(from) {
            return conn;
        }
        let to = self.ports.get(&port).copied().filter(|pid| !self.is_dead(*pid));
        let (delay, now) = (self.delay(), self.now);
        let arrives = to.map(|to| (to, self.reachable(from, to).max(now) + delay));
        match arrives.filter(|(_, at)| *at < now + HANDSHAKE_LIMIT) {
            Some((to, at)) => {
                let link = Link { ends: [from, to], purpose, last: [at, at], closed: [false, false] };
                self.links.insert(conn, link);
                self.at(at, Happening::To(to, Notice::Knock { conn, port, purpose }));
            }
            None => {
                let at = if to.is_some() { now + HANDSHAKE_LIMIT } else { now + delay };
                self.at(at, Happening::To(from, Notice::Refused(conn)));
            }
        }
        conn
    }
    /// Lets in who has knocked.
    pub(super) fn admit(&mut self, conn: Conn) {
        self.deliver(conn, 0, Notice::Connected(conn));
    }
    pub(super) fn send(&mut self, from: Pid, conn: Conn, term: u32, body: Body) {
        if self.spend(from) {
            return;
        }
        let Some(link) = self.links.get(&conn) else { return };
        let end = usize::from(link.ends[0] == from);
        let envelope = Envelope { term, body, damaged: false };
        if matches!(envelope.body, Body::Order(..) | Body::Report(..)) {
            self.said.push((conn, end, envelope.clone()));
        }
        let damaged = self.faults.damages(from, &envelope);
        if damaged {
            let to = link.ends[end];
            self.truth.blame(from, to, self.now, false);
        }
        self.deliver(conn, end, Notice::Message(conn, Envelope { damaged, ..envelope }));
    }
    pub(super) fn deliver(&mut self, conn: Conn, end: usize, notice: Notice) {
        let delay = self.delay();
        let Some(link) = self.links.get(&conn) else { return };
        let [a, b] = link.ends;
        let at = (self.reachable(a, b).max(self.now) + delay).max(link.last[end]);
        if link.closed[end] {
            return;
        }
        let to = link.ends[end];
        self.links.get_mut(&conn).expect("it is there").last[end] = at;
        self.at(at, Happening::To(to, notice));
    }
    /// Closes this end; the other hears of it after what was sent.
    pub(super) fn close(&mut self, from: Pid, conn: Conn) {
        if self.is_dead(from) {
            return;
        }
        self.shut(from, conn);
    }
    fn shut(&mut self, from: Pid, conn: Conn) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let mine = usize::from(link.ends[1] == from);
        if !link.closed[mine] {
            link.closed[mine] = true;
            self.deliver(conn, 1 - mine, Notice::Closed(conn));
        }
    }
    /// Whether a notice still reaches this process by this connection; a close is the last that does.
    pub(super) fn passes(&mut self, to: Pid, notice: &Notice) -> bool {
        let (Notice::Message(conn, _) | Notice::Closed(conn) | Notice::Connected(conn)) = notice else { return true };
        let Some(link) = self.links.get_mut(conn) else { return false };
        let end = usize::from(link.ends[1] == to);
        let open = !link.closed[end];
        link.closed[end] |= matches!(notice, Notice::Closed(_));
        open
    }
    /// Breaks a connection, both ways: what is under way may be lost, and a message that was begun is.
    pub(super) fn break_off(&mut self, conn: Conn) {
        let Some([a, b]) = self.links.get(&conn).map(|l| l.ends) else { return };
        for pid in [a, b] {
            let at = self.reachable(a, b).max(self.now) + self.random.micros(0, 800);
            self.at(at, Happening::To(pid, Notice::Closed(conn)));
        }
    }
    /// The open connections of a process.
    pub(super) fn open(&self, of: Pid) -> Vec<(Conn, Purpose, Pid, usize)> {
        let mine = self.links.iter().filter(|(_, l)| l.ends.contains(&of) && l.closed == [false, false]);
        mine.map(|(conn, l)| {
            (*conn, l.purpose, if l.ends[0] == of { l.ends[1] } else { l.ends[0] }, usize::from(l.ends[1] == of))
        })
        .collect()
    }
    /// A process ends, by itself or by force: the system closes what it has open. What a killed one sent may be lost with it.
    pub(super) fn end(&mut self, pid: Pid, killed: bool) {
        if !self.dead.insert(pid) {
            return;
        }
        self.ports.retain(|_, owner| *owner != pid);
        for (conn, ..) in self.open(pid) {
            if killed && self.random.one_in(2) { self.break_off(conn) } else { self.shut(pid, conn) }
        }
    }
    /// Something that the world can see: it may be the last that this process does. Gives whether it is dead.
    pub(super) fn spend(&mut self, pid: Pid) -> bool {
        if !self.is_dead(pid) && self.faults.is_doomed(pid) {
            self.kill(pid, "between two messages");
        }
        self.is_dead(pid)
    }
    /// Kills a process.
    pub(super) fn kill(&mut self, pid: Pid, why: &str) {
        self.note(|| format!("process {pid} is killed {why}"));
        self.truth.crash(pid, self.now);
        self.end(pid, true);
    }
}
