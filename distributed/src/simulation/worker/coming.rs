//! How a simulated worker comes into a term: what the rim around the real `Joining` does ([`coming`](crate::coming)).

use super::{Conn, Ground, PATIENCE, Purpose, RETRY, Timer, Worker};
use crate::auth::Party;
use crate::joining;
use crate::machine::Exit;

impl Worker {
    pub(super) fn join(&mut self, ground: &mut Ground, event: joining::Event) {
        let commands = self.joining.handle(ground.now, event);
        for command in commands {
            match command {
                joining::Command::Seek => {
                    ground.point(self.pid, false, "seeking");
                    if ground.disk.over {
                        return self.join(ground, joining::Event::Ended(Exit::Left));
                    }
                    let Some(port) = ground.disk.address else {
                        return self.join(ground, joining::Event::Ended(Exit::Lost("no driver".into())));
                    };
                    self.driver = Some(ground.dial(self.pid, port, Purpose::Control));
                }
                joining::Command::Open { .. } => {
                    ground.point(self.pid, false, "opening");
                    self.turn += 1;
                    self.opening = true;
                    let after = ground.random.micros(100, 5_000);
                    ground.wake(self.pid, after, Timer::Opened(self.turn));
                }
                joining::Command::Meet { seat, reach } => {
                    let (term, from) = (seat.term, Party::Worker(seat.rank));
                    self.seat = Some(seat);
                    self.opening = false;
                    for (rank, address) in reach {
                        let to = Party::Worker(rank);
                        let conn = ground.dial(self.pid, address.port(), Purpose::Data { term, from, to });
                        self.reaching.insert(conn, to);
                    }
                    ground.point(self.pid, false, "meeting");
                    for (conn, purpose) in std::mem::take(&mut self.knocks) {
                        self.knock(ground, conn, purpose);
                    }
                    for envelope in std::mem::take(&mut self.early) {
                        self.hear(ground, envelope);
                    }
                }
                joining::Command::TurnAway => ground.truth.count("turned away"),
                joining::Command::TakePart => self.take_part(ground),
                joining::Command::HangUp => {}
                joining::Command::Rest => {
                    self.forget(ground);
                    ground.wake(self.pid, RETRY, Timer::Rest);
                }
                joining::Command::Finish(outcome) => {
                    if let (Err(why), false) = (&outcome, ground.is_dead(self.pid)) {
                        let (pid, patient) = (self.pid, ground.now.saturating_sub(self.met) >= PATIENCE);
                        if !patient {
                            ground.truth.accuse(|| {
                                format!("process {pid} ends, and has not looked for a driver for long: {why}")
                            });
                        }
                        ground.truth.count("worker gives up");
                        ground.note(|| format!("process {pid} gives up: {why}"));
                    }
                    self.forget(ground);
                    self.ended = Some(outcome);
                }
            }
        }
    }
    /// Nothing of a term is left.
    pub(super) fn forget(&mut self, ground: &mut Ground) {
        for conn in self.driver.take().into_iter().chain(std::mem::take(&mut self.peers).into_values()) {
            ground.close(self.pid, conn);
        }
        for conn in std::mem::take(&mut self.reaching).into_keys().chain(self.knocks.drain(..).map(|(conn, _)| conn)) {
            ground.close(self.pid, conn);
        }
        if let Some(port) = self.port.take() {
            ground.unbind(port);
        }
        (self.seat, self.machine, self.joined, self.opening) = (None, None, false, false);
        self.early.clear();
        self.turn += 1;
    }
    pub(super) fn knock(&mut self, ground: &mut Ground, conn: Conn, purpose: Purpose) {
        let Some(seat) = &self.seat else { return self.knocks.push((conn, purpose)) };
        let Purpose::Data { term, from, to } = purpose else { return ground.close(self.pid, conn) };
        if term != seat.term || to != self.me() || self.machine.is_some() {
            return ground.close(self.pid, conn);
        }
        ground.admit(conn);
        self.meets(ground, from, conn);
    }
    pub(super) fn meets(&mut self, ground: &mut Ground, party: Party, conn: Conn) {
        let one = *self.peers.entry(party).or_insert(conn);
        if one != conn {
            ground.close(self.pid, conn);
        }
        self.join(ground, joining::Event::Met(party));
    }
}
