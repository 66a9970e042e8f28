//! Connections that threads wait at, encrypted: as plain ones, byte for byte, and whoever reads is in nobody's way.

use std::net::TcpListener;
use std::thread;
use std::time::Instant;

use super::*;
use crate::auth::{JobKey, Party, Pass, Purpose, admit, greet};
use crate::background;
use crate::socket::Socket;
use crate::tls::Tls;

/// More than sockets hold, so that whoever writes has to wait for whoever reads.
const MUCH: usize = 24 << 20;

/// How long nobody reads.
const BEFORE_READING: Duration = Duration::from_millis(200);

/// Both ends of an authenticated connection.
fn pair(encrypted: bool) -> (Stream, Stream) {
    let pass = Pass { key: JobKey::random().expect("numbers"), term: 1, purpose: Purpose::Data };
    let tls = encrypted.then(|| Tls::new(pass.key.job()).expect("a certificate"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let asks = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    let is_asked = listener.accept().expect("it connects").0;
    let (asks, is_asked) = background::wait(async {
        let [asks, is_asked] = [asks, is_asked].map(|tcp| {
            tcp.set_nonblocking(true)?;
            tokio::net::TcpStream::from_std(tcp)
        });
        let (one, other) = (Party::Worker(1), Party::Worker(2));
        Ok(tokio::join!(greet(asks?, tls.as_ref(), &pass, one, other), admit(is_asked?, tls.as_ref(), &pass, other)))
    })
    .expect("a thread");
    let blocking = |socket: Socket| socket.into_blocking().expect("it is open");
    (blocking(asks.expect("the key is right")), blocking(is_asked.expect("the key is right").1))
}

fn bytes(seed: usize) -> Vec<u8> {
    (0..MUCH).map(|i| (i * 7 + i / 251 + seed) as u8).collect()
}

/// Both write, and nobody reads for a while: then both are read, although both writers are still waiting.
#[test]
fn who_writes_keeps_nobody_from_reading() {
    for encrypted in [false, true] {
        let (one, other) = pair(encrypted);
        let (mine, theirs) = (bytes(1), bytes(2));
        let mut read = [vec![0; MUCH], vec![0; MUCH]];
        let started = Instant::now();
        thread::scope(|scope| {
            for ((stream, mine), read) in [(&one, &mine), (&other, &theirs)].into_iter().zip(&mut read) {
                let (mut to, mut from) = (stream.try_clone().expect("open"), stream.try_clone().expect("open"));
                scope.spawn(move || to.write_all(mine).expect("it is read"));
                scope.spawn(move || {
                    thread::sleep(BEFORE_READING);
                    from.read_exact(read).expect("it is written");
                });
            }
        });
        let rate = 2.0 * MUCH as f64 / (started.elapsed() - BEFORE_READING).as_secs_f64() / 1e9;
        println!("encrypted {encrypted}: {rate:.2} GB/s, both ways together");
        assert!(read == [theirs, mine]);
    }
}

#[test]
fn what_is_written_in_one_go_is_sent_in_one_go_and_ends_where_it_ends() {
    let (mut one, mut other) = pair(true);
    let n = one.write_vectored(&[IoSlice::new(&[]), IoSlice::new(b"head"), IoSlice::new(b"body")]).expect("open");
    assert_eq!(n, 8);
    let mut read = [0; 8];
    assert_eq!((other.read(&mut read).expect("open"), &read), (8, b"headbody"));
    // Nothing comes within the limit.
    other.set_read_timeout(Some(Duration::from_millis(20))).expect("open");
    let error = other.read(&mut read).expect_err("nothing was written");
    assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
    one.write_all(b"x").expect("open");
    one.shutdown(Shutdown::Both).expect("open");
    other.set_read_timeout(None).expect("open");
    assert_eq!((other.read(&mut read).expect("the end"), read[0]), (1, b'x'));
    assert_eq!(other.read(&mut read).expect("the end"), 0);
    assert!(one.write_all(b"x").is_err());
}

/// Somebody on the way flips a bit: nothing of the record is read.
#[test]
fn what_was_changed_on_the_way_is_not_read() {
    let (one, mut other) = pair(true);
    let tls = one.tls.as_ref().expect("it is encrypted");
    let mut sent = vec![];
    {
        let mut session = lock(&tls.session);
        session.writer().write_all(b"four").expect("room");
        session.write_tls(&mut sent).expect("memory");
    }
    let last = sent.len() - 1;
    sent[last] ^= 1;
    (&one.tcp).write_all(&sent).expect("open");
    let error = other.read(&mut [0; 4]).expect_err("it was changed");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
}
