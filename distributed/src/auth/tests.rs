//! Who is let in and who is not: without the key, with somebody else's words, and from in between.

use tokio::io::{DuplexStream, duplex};
use tokio::net::TcpListener;

use super::*;
use crate::background;
use crate::socket::STRANGER_BYTES;

fn pass(key: &JobKey) -> Pass {
    Pass { key: key.clone(), term: 1, purpose: Purpose::Data }
}
fn key() -> JobKey {
    JobKey::random().expect("numbers")
}
/// What comes of it, on the calling thread.
fn wait<T>(what: impl Future<Output = T>) -> T {
    background::wait(async { Ok(what.await) }).expect("a thread")
}
fn pipe() -> (DuplexStream, DuplexStream) {
    duplex(4096)
}
/// Two ends of a TCP connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let there = TcpStream::connect(listener.local_addr().expect("it is bound")).await.expect("it listens");
    (there, listener.accept().await.expect("it connects").0)
}
fn tls(pass: &Pass) -> Tls {
    Tls::new(pass.key.job()).expect("a certificate")
}

/// What comes of it when one side has `theirs` and the other `ours`.
fn meet(
    theirs: Pass,
    ours: Pass,
    to: Party,
    encrypted: [bool; 2],
) -> (Result<(), AuthError>, Result<Party, AuthError>) {
    let [there, here] = [(encrypted[0], &theirs), (encrypted[1], &ours)].map(|(e, p)| e.then(|| tls(p)));
    wait(async {
        let (asks, is_asked) = pair().await;
        tokio::join!(async { greet(asks, there.as_ref(), &theirs, Party::Worker(1), to).await.map(|_| ()) }, async {
            admit(is_asked, here.as_ref(), &ours, Party::Worker(2)).await.map(|(party, _)| party)
        },)
    })
}

#[test]
fn who_holds_the_key_is_let_in() {
    let key = JobKey::from_hex(&key().to_hex()).expect("a key");
    for encrypted in [false, true] {
        let (asked, admitted) = meet(pass(&key), pass(&key), Party::Worker(2), [encrypted; 2]);
        asked.expect("the key is right");
        assert_eq!(admitted.expect("the key is right"), Party::Worker(1));
    }
}

/// The name of the job is no secret: somebody who knows it and not the key.
#[test]
fn who_knows_the_jobs_name_and_not_its_key_is_not() {
    let key = key();
    let (mut there, mut here) = pipe();
    let error = wait(async {
        let liar = async {
            let hello = Hello::new(&pass(&key), Party::Worker(1), Party::Worker(2)).expect("numbers");
            there.write_all(&hello.bytes).await.expect("it listens");
            let mut said = [0; 64];
            there.read_exact(&mut said).await.expect("it answers");
            // Its own proof, sent back.
            there.write_all(&said[32..]).await.expect("it listens");
        };
        let pass = pass(&key);
        let examined = examine(&mut here, &None, &pass, Party::Worker(2), "somebody".into());
        tokio::join!(liar, examined).1.expect_err("it has no key")
    });
    assert!(matches!(error, AuthError::Key(_)), "{error}");
}

#[test]
fn who_answers_without_the_key_is_not_believed() {
    let (mut there, mut here) = pipe();
    let error = wait(async {
        let liar = async {
            let mut hello = [0; HELLO];
            there.read_exact(&mut hello).await.expect("it asks");
            there.write_all(&[7; 64]).await.expect("it listens");
        };
        let pass = pass(&key());
        let proved = prove(&mut here, &None, &pass, Party::Worker(1), Party::Worker(2), "rank 2");
        tokio::join!(liar, proved).1.expect_err("it has no key")
    });
    assert!(matches!(error, AuthError::Key(_)), "{error}");
}

#[test]
fn other_jobs_terms_purposes_and_addresses_are_not_let_in() {
    let (key, other) = (key(), key());
    let to = Party::Worker(2);
    for (theirs, to, what) in [
        (pass(&other), to, "job"),
        (Pass { term: 2, ..pass(&key) }, to, "term"),
        (Pass { purpose: Purpose::Control, ..pass(&key) }, to, "kind"),
        (pass(&key), Party::Worker(3), "address"),
    ] {
        let (asked, admitted) = meet(theirs, pass(&key), to, [false; 2]);
        let error = admitted.expect_err("it is another").to_string();
        assert!(error.contains(what) && asked.is_err(), "{error}");
    }
    let error = wait(async {
        let (mut there, here) = pair().await;
        there.write_all(&[b'G'; HELLO]).await.expect("it listens");
        admit(here, None, &pass(&key), to).await.map(|_| ()).expect_err("it talks nonsense")
    });
    assert!(matches!(error, AuthError::Stranger(_)), "{error}");
}

/// All that somebody said who was let in, said again.
#[test]
fn a_handshake_that_was_recorded_serves_no_second_time() {
    let (key, me) = (key(), Party::Worker(2));
    let pass = pass(&key);
    let mut recorded = vec![];
    wait(async {
        let ((mut asks, mut near), (mut far, mut is_asked)) = (pipe(), pipe());
        let mut between = async || {
            let (mut hello, mut answer, mut proof) = ([0; HELLO], [0; 64], [0; 32]);
            near.read_exact(&mut hello).await.expect("it asks");
            far.write_all(&hello).await.expect("it listens");
            far.read_exact(&mut answer).await.expect("it answers");
            near.write_all(&answer).await.expect("it listens");
            near.read_exact(&mut proof).await.expect("it proves");
            far.write_all(&proof).await.expect("it listens");
            recorded.extend_from_slice(&[&hello[..], &proof].concat());
        };
        let (asked, admitted, ()) = tokio::join!(
            prove(&mut asks, &None, &pass, Party::Worker(1), me, "rank 2"),
            examine(&mut is_asked, &None, &pass, me, "somebody".into()),
            between(),
        );
        asked.expect("nothing was changed");
        admitted.expect("nothing was changed");
    });
    let again = wait(async {
        let (mut there, mut here) = pipe();
        there.write_all(&recorded).await.expect("room");
        examine(&mut here, &None, &pass, me, "somebody".into()).await
    });
    assert!(matches!(again, Err(AuthError::Key(_))), "{again:?}");
}

#[test]
fn who_is_not_encrypted_is_not_let_in_where_others_are() {
    for (encrypted, says) in [([false, true], "start it with --tls"), ([true, false], "start it with --plaintext")] {
        let key = key();
        let (asked, admitted) = meet(pass(&key), pass(&key), Party::Worker(2), encrypted);
        let error = admitted.expect_err("they do not speak the same").to_string();
        assert!(error.contains(says), "{error}");
        let error = asked.expect_err("they do not speak the same").to_string();
        assert!(error.contains("TLS"), "{error}");
    }
}

#[test]
fn a_certificate_of_another_job_is_not_taken() {
    let (ours, other) = (pass(&key()), pass(&key()));
    let (asked, admitted) = meet(ours, other, Party::Worker(2), [true; 2]);
    let error = asked.expect_err("it is of another job").to_string();
    assert!(error.contains("certificate"), "{error}");
    assert!(admitted.is_err());
}

/// Somebody between two who hold the key, who speaks TLS with both and passes on all that they say. He has a certificate in the
/// name of the job: anybody can make one.
#[test]
fn who_stands_between_and_speaks_tls_with_both_is_refused_by_both() {
    let key = key();
    let (pass, to) = (pass(&key), Party::Worker(2));
    let [ours, theirs, his] = [tls(&pass), tls(&pass), tls(&pass)];
    let (asked, admitted, ()) = wait(async {
        let ((asks, near), (far, is_asked)) = (pair().await, pair().await);
        let between = async {
            let (near, far) = tokio::join!(Socket::be_asked(near, Some(&his)), Socket::ask(far, Some(&his)));
            let (mut near, mut far) = (near.expect("it cannot tell"), far.expect("it cannot tell"));
            let (mut hello, mut answer) = ([0; HELLO], [0; 64]);
            near.read_exact(&mut hello).await.expect("it asks");
            far.write_all(&hello).await.expect("it listens");
            far.read_exact(&mut answer).await.expect("it answers");
            near.write_all(&answer).await.expect("it listens");
            // Who asked proves nothing to him.
            assert_eq!(near.read(&mut [0; 32]).await.unwrap_or(0), 0);
        };
        let greeted = async { greet(asks, Some(&ours), &pass, Party::Worker(1), to).await.map(|_| ()) };
        let examined = async { admit(is_asked, Some(&theirs), &pass, to).await.map(|(party, _)| party) };
        tokio::join!(greeted, examined, between)
    });
    let error = asked.expect_err("it is not the connection that it was made for");
    assert!(matches!(error, AuthError::Key(_)), "{error}");
    assert!(matches!(admitted, Err(AuthError::Closed { .. })), "{admitted:?}");
}

/// Nor has the other side to rely on that: his own answer and both proofs, without the key, over another connection.
#[test]
fn a_proof_of_one_connection_is_none_of_another() {
    let key = key();
    let pass = pass(&key);
    let bindings = [None, Some([1; 32]), Some([2; 32])];
    for (ours, theirs) in bindings.iter().flat_map(|a| bindings.map(|b| (a, b))) {
        let (asked, admitted) = wait(async {
            let ((mut asks, mut is_asked), to) = (pipe(), Party::Worker(2));
            let asking = async {
                let hello = Hello::new(&pass, Party::Worker(1), to).expect("numbers");
                asks.write_all(&hello.bytes).await.expect("it listens");
                let answer: [u8; NONCE] = exactly(&mut asks, "it").await?;
                let proof: [u8; 32] = exactly(&mut asks, "it").await?;
                // It goes on whatever it was answered.
                let mine = hello.proof(&pass.key, "who asks", &answer, ours);
                asks.write_all(mine.as_bytes()).await.expect("it listens");
                Ok::<_, AuthError>(proof == *hello.proof(&pass.key, "who was asked", &answer, ours).as_bytes())
            };
            tokio::join!(asking, examine(&mut is_asked, &theirs, &pass, to, "somebody".into()))
        });
        let same = *ours == theirs;
        assert_eq!((asked.expect("it answers"), admitted.is_ok()), (same, same), "{ours:?} and {theirs:?}");
    }
}

/// A stranger costs a fixed amount: what he sends beyond that is not read.
#[test]
fn a_stranger_is_read_so_many_bytes_of_and_no_more() {
    wait(async {
        let (mut there, here) = pair().await;
        let endless = tokio::spawn(async move {
            // Until nobody listens.
            while there.write_all(&[7; 1024]).await.is_ok() {}
        });
        let mut socket = Socket::be_asked(here, None).await.expect("it is open");
        let mut read = vec![0; STRANGER_BYTES];
        socket.read_exact(&mut read).await.expect("so many may come");
        let error = socket.read(&mut read).await.expect_err("it is too much").to_string();
        assert!(error.contains("who has not proved the key"), "{error}");
        socket.trust();
        let mut more = vec![0; 4 * STRANGER_BYTES];
        socket.read_exact(&mut more).await.expect("he is none any more");
        drop(socket);
        endless.await.expect("no panic");
    });
}
