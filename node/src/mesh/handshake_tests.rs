//! The handshake's promises, tried without a network.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::super::codec::{MAX_HANDSHAKE_FRAME, take};
use super::*;

fn who(cluster: &str, name: &str) -> Identity {
    let mut instance = [0; 16];
    instance[..name.len().min(16)].copy_from_slice(&name.as_bytes()[..name.len().min(16)]);
    Identity { cluster: cluster.into(), name: name.into(), instance, ip: None, port: 4001 }
}

fn token(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn unframe(bytes: &Bytes) -> (u8, Bytes) {
    take(&mut BytesMut::from(&bytes[..]), MAX_HANDSHAKE_FRAME).unwrap().unwrap()
}

fn run(
    dialer: (&Identity, Bytes),
    acceptor: (&Identity, Bytes),
    tamper: impl Fn(usize, Bytes) -> Bytes,
) -> (Result<Remote, Refusal>, Result<Remote, Refusal>) {
    let (d, hello) = Dialer::start(dialer.0, dialer.1, [1; 32]);
    let hello = unframe(&tamper(0, hello));
    let (a, challenge) = match Acceptor::hello(acceptor.0, vec![acceptor.1], [2; 32], hello) {
        Ok(ok) => ok,
        Err(e) => return (Err(Refusal::Malformed), Err(e)),
    };
    let (d, proof) = match d.challenge(unframe(&tamper(1, challenge))) {
        Ok(ok) => ok,
        Err(e) => return (Err(e), Err(Refusal::Malformed)),
    };
    match a.proof(unframe(&tamper(2, proof))) {
        Ok((remote, welcome)) => (d.welcome(unframe(&tamper(3, welcome))), Ok(remote)),
        Err(e) => (Err(Refusal::Malformed), Err(e)),
    }
}

fn untouched(_: usize, b: Bytes) -> Bytes {
    b
}

#[test]
fn both_ends_learn_who_the_other_is() {
    let (d, a) = (who("ns/chat", "chat-0"), who("ns/chat", "chat-1"));
    let (at_dialer, at_acceptor) = run((&d, token("t")), (&a, token("t")), untouched);
    assert_eq!(at_dialer.unwrap().name, "chat-1");
    let peer = at_acceptor.unwrap();
    assert_eq!((peer.name.as_str(), peer.address), ("chat-0", Some((None, 4001))));
}

#[test]
fn wrong_token_and_other_cluster_are_refused() {
    let (d, a) = (who("ns/chat", "chat-0"), who("ns/chat", "chat-1"));
    let refused = run((&d, token("t")), (&a, token("u")), untouched);
    assert_eq!(refused.1, Err(Refusal::Token));
    let other = who("ns/other", "chat-1");
    assert_eq!(run((&d, token("t")), (&other, token("t")), untouched).1, Err(Refusal::Cluster));
}

#[test]
fn an_acceptor_takes_each_of_its_tokens_and_answers_by_the_same() {
    let (d, a) = (who("ns/chat", "chat-0"), who("ns/chat", "chat-1"));
    for (held, linked) in [("new", true), ("old", true), ("older", false)] {
        let (dialer, hello) = Dialer::start(&d, token(held), [1; 32]);
        let tokens = vec![token("new"), token("old")];
        let (acceptor, challenge) = Acceptor::hello(&a, tokens, [2; 32], unframe(&hello)).unwrap();
        let (proving, proof) = dialer.challenge(unframe(&challenge)).unwrap();
        let taken = acceptor.proof(unframe(&proof));
        assert_eq!(taken.is_ok(), linked, "{held}");
        if let Ok((_, welcome)) = taken {
            assert_eq!(proving.welcome(unframe(&welcome)).unwrap().name, "chat-1");
        }
    }
}

#[test]
fn an_acceptor_without_the_token_is_not_believed() {
    let d = who("c", "d");
    let (dialer, _) = Dialer::start(&d, token("t"), [1; 32]);
    let (proving, _) = dialer.challenge((CHALLENGE, Bytes::from(vec![2; 32]))).unwrap();
    let mut welcome = BytesMut::new();
    put_text(&mut welcome, "evil");
    welcome.put_slice(&[9; 16]);
    welcome.put_slice(&[0; 32]);
    assert_eq!(proving.welcome((WELCOME, welcome.freeze())), Err(Refusal::Token));
}

#[test]
fn a_proof_fits_one_nonce_only() {
    let (d, a) = (who("c", "d"), who("c", "a"));
    let (dialer, hello) = Dialer::start(&d, token("t"), [1; 32]);
    let (_, proof) = dialer.challenge((CHALLENGE, Bytes::from(vec![2; 32]))).unwrap();
    let (again, _) = Acceptor::hello(&a, vec![token("t")], [3; 32], unframe(&hello)).unwrap();
    assert_eq!(again.proof(unframe(&proof)).unwrap_err(), Refusal::Token);
}

proptest! {
    /// Whatever single byte is changed on the way, at least one end refuses, and no end takes
    /// the other for somebody else.
    #[test]
    fn a_changed_byte_is_noticed(message in 0_usize..4, at in 0_usize..200, flip in 1_u8..=255) {
        let (d, a) = (who("ns/chat", "chat-0"), who("ns/chat", "chat-1"));
        let hit = std::cell::Cell::new(false);
        let (x, y) = run((&d, token("t")), (&a, token("t")), |n, bytes| {
            // The length and kind are not under the code; a wrong one is refused as such.
            if n != message || at + 5 >= bytes.len() { return bytes }
            let mut bytes = bytes.to_vec();
            bytes[at + 5] ^= flip;
            hit.set(true);
            bytes.into()
        });
        prop_assert_eq!(hit.get(), x.is_err() || y.is_err());
    }

    #[test]
    fn any_bytes_are_refused(kind in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let me = who("c", "a");
        prop_assert!(Acceptor::hello(&me, vec![token("t")], [0; 32], (kind, body.into())).is_err());
    }
}
