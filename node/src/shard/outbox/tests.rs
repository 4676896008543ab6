//! Bounds by bytes and age, and what is dropped past them.

use proptest::prelude::*;

use super::*;
use crate::pubsub::{Broadcast, Kind};

fn must(len: usize) -> Frame {
    Frame { bytes: Bytes::from(vec![0; len]), loss: Loss::Never }
}

fn may(topic: &str, len: usize) -> Frame {
    let payload = Bytes::from_static(b"{}");
    let broadcast = Broadcast { topic: topic.into(), event: "e".into(), kind: Kind::Json, payload };
    let loss = Loss::Broadcast(Arc::new(Fanout::new(broadcast)));
    Frame { bytes: Bytes::from(vec![1; len]), loss }
}

fn latest(topic: &str, event: &str) -> Frame {
    let payload = Bytes::from_static(b"{}");
    let (topic, event) = (topic.into(), event.into());
    let broadcast = Broadcast { topic, event, kind: Kind::Json, payload };
    let loss = Loss::Latest(Arc::new(Fanout::new(broadcast)));
    Frame { bytes: Bytes::from(vec![2; 10]), loss }
}

fn outbox(frames: &[usize]) -> Outbox {
    let mut outbox = Outbox::default();
    frames.iter().for_each(|len| outbox.push(must(*len)));
    outbox
}

fn tell(topic: &Arc<str>, count: u64) -> Bytes {
    format!("{topic}-{count}").into()
}

/// What waits: `!` must arrive, `+` may be dropped, or what tells of drops.
fn waits(outbox: &Outbox) -> Vec<String> {
    let frames = outbox.frames.iter().map(|frame| match &frame.loss {
        Loss::Never => "!".to_owned(),
        Loss::Broadcast(_) => "+".to_owned(),
        Loss::Latest(one) => format!("{}.{}", one.topic(), one.event()),
        Loss::Told(_) => String::from_utf8(frame.bytes.to_vec()).expect("text"),
    });
    frames.collect()
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded_by_bytes_and_age() {
    let mut outbox = outbox(&[MAX_BYTES, 1, 1, 1]);
    assert!(!outbox.is_over(), "a few large frames may be sent");
    outbox.push(must(1));
    assert!(outbox.is_over());
    let start = Instant::now();
    assert!(!outbox.is_stuck(start));
    assert!(!outbox.is_stuck(start + MAX_AGE / 2));
    assert!(outbox.is_stuck(start + MAX_AGE));
    outbox.advance(MAX_BYTES + 4);
    assert!(!outbox.is_stuck(start + MAX_AGE * 2));
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_that_keeps_up_is_not_stuck() {
    let mut outbox = outbox(&[10, 10]);
    let start = Instant::now();
    for second in 0..60 {
        outbox.push(must(10));
        outbox.advance(10);
        assert!(!outbox.is_stuck(start + Duration::from_secs(second)));
    }
}

#[test]
fn clearing_keeps_a_frame_that_is_sent_in_part() {
    let mut outbox = outbox(&[10, 10, 10]);
    assert_eq!(outbox.advance(13), 1);
    assert_eq!(outbox.clear(), 1);
    assert_eq!(outbox.bytes, 7);
    outbox.advance(7);
    assert_eq!(outbox.clear(), 0);
    assert!(outbox.is_empty());
}

#[test]
fn the_oldest_are_dropped_and_told_in_their_place() {
    let mut outbox = Outbox::default();
    let quarter = MAX_BYTES / 4;
    for topic in ["a", "a", "b", "a"] {
        outbox.push(may(topic, quarter));
        outbox.push(must(1));
    }
    outbox.advance(10);
    assert!(!outbox.shed(Excess::Bytes, tell).late);
    assert_eq!(waits(&outbox), ["+", "!", "a-1", "!", "+", "!", "+", "!"], "one is begun");
    outbox.push(may("b", quarter));
    assert_eq!(outbox.shed(Excess::Bytes, tell).dropped, 1);
    outbox.push(may("a", quarter));
    assert_eq!(outbox.shed(Excess::Bytes, tell).dropped, 1);
    assert_eq!(waits(&outbox), ["+", "!", "a-2", "!", "b-1", "!", "!", "+", "+"]);
    let mut large = Outbox::default();
    (0..6).for_each(|_| large.push(may("a", MAX_BYTES)));
    large.shed(Excess::Bytes, tell);
    assert_eq!(waits(&large), ["a-3", "+", "+", "+"], "a few large frames may be sent");
}

#[test]
fn only_the_latest_of_a_topic_and_event_waits() {
    let mut outbox = Outbox::default();
    let push = |outbox: &mut Outbox, frame: Frame| {
        outbox.push(frame);
        outbox.shed(Excess::Superseded, tell).dropped
    };
    outbox.push(latest("a", "x"));
    outbox.advance(1);
    assert_eq!(push(&mut outbox, latest("a", "x")), 0, "one is begun");
    assert_eq!(push(&mut outbox, latest("a", "y")), 0, "another event");
    assert_eq!(push(&mut outbox, must(1)), 0);
    assert_eq!(push(&mut outbox, latest("b", "x")), 0, "another topic");
    assert_eq!(push(&mut outbox, latest("a", "x")), 1);
    assert_eq!(waits(&outbox), ["a.x", "a-1", "a.y", "!", "b.x", "a.x"]);
    assert_eq!(push(&mut outbox, latest("a", "x")), 1);
    assert_eq!(push(&mut outbox, latest("b", "x")), 1);
    assert_eq!(waits(&outbox), ["a.x", "a-2", "a.y", "!", "b-1", "a.x", "b.x"]);
    let mut old = Outbox::default();
    (0..3).for_each(|_| old.push(latest("a", "x")));
    let start = Instant::now();
    assert!(!old.is_stuck(start) && old.is_stuck(start + MAX_AGE));
    assert_eq!(old.shed(Excess::Age, tell), Shed::default(), "the last state is of worth");
}

#[tokio::test(start_paused = true)]
async fn what_may_be_dropped_is_too_old_alone_and_what_must_arrive_is_not() {
    let start = Instant::now();
    let mut outbox = Outbox::default();
    (0..3).for_each(|_| outbox.push(may("a", 10)));
    outbox.advance(1);
    assert!(!outbox.is_stuck(start));
    outbox.push(may("a", 10));
    assert!(outbox.is_stuck(start + MAX_AGE));
    assert_eq!(outbox.shed(Excess::Age, tell), Shed { dropped: 2, late: false });
    assert_eq!(waits(&outbox), ["+", "a-2", "+"], "the last has come since");
    outbox.push(must(10));
    assert!(!outbox.is_stuck(start + MAX_AGE));
    assert!(outbox.is_stuck(start + MAX_AGE * 2));
    assert_eq!(outbox.shed(Excess::Age, tell), Shed { dropped: 1, late: true });
    assert_eq!(waits(&outbox), ["+", "a-3", "!"]);
}

proptest! {
    #[test]
    fn every_byte_is_sent_once(lens in proptest::collection::vec(1usize..50, 1..100), step in 1usize..200) {
        let mut outbox = Outbox::default();
        let mut want = Vec::new();
        for (i, len) in lens.iter().enumerate() {
            want.extend(vec![i as u8; *len]);
            let bytes = Bytes::from(vec![i as u8; *len]);
            outbox.push(Frame { bytes, loss: Loss::Never });
        }
        let (mut got, mut whole) = (Vec::new(), 0);
        while !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = outbox.slices(&mut slices);
            let bytes: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).take(step).collect();
            let written = bytes.len();
            got.extend(bytes);
            whole += outbox.advance(written);
        }
        prop_assert_eq!((got, whole, outbox.bytes), (want, lens.len() as u64, 0));
    }

    /// Whatever is pushed, sent and dropped in whatever order.
    #[test]
    fn each_broadcast_is_sent_or_told_and_nothing_else_is_lost(
        steps in proptest::collection::vec((0u8..8, 1usize..60_000), 1..120)
    ) {
        let mut outbox = Outbox::default();
        let (mut pushed, mut musts, mut dropped) = (0, 0, 0);
        let (mut sent, mut sent_musts, mut told) = (0, 0, 0);
        let mut now = Instant::now();
        let mut pop = |outbox: &mut Outbox, bytes: usize| {
            let (mut left, mut whole) = (bytes, 0);
            for frame in &outbox.frames {
                if left < frame.bytes.len() {
                    break;
                }
                left -= frame.bytes.len();
                whole += 1;
                match &frame.loss {
                    Loss::Never => sent_musts += 1,
                    Loss::Broadcast(_) | Loss::Latest(_) => sent += 1,
                    Loss::Told(gap) => told += gap.count,
                }
            }
            assert_eq!(outbox.advance(bytes), whole);
        };
        for (what, size) in steps {
            match what {
                0..4 => {
                    outbox.push(may(["a", "b"][size % 2], size));
                    pushed += 1;
                }
                4 => {
                    outbox.push(must(size));
                    musts += 1;
                }
                5 => {
                    let bytes = size.min(outbox.bytes);
                    pop(&mut outbox, bytes);
                }
                6 if outbox.is_over() => {
                    dropped += outbox.shed(Excess::Bytes, tell).dropped;
                    let lossy = outbox.frames.iter().skip(1).any(|f| matches!(f.loss, Loss::Broadcast(_)));
                    prop_assert!(!outbox.is_over() || !lossy);
                }
                _ => {
                    now += MAX_AGE / 2;
                    if outbox.is_stuck(now) {
                        dropped += outbox.shed(Excess::Age, tell).dropped;
                    }
                }
            }
            let sum: usize = outbox.frames.iter().map(|frame| frame.bytes.len()).sum();
            prop_assert_eq!(outbox.bytes, sum);
        }
        let rest = outbox.bytes;
        pop(&mut outbox, rest);
        prop_assert!(outbox.is_empty());
        prop_assert_eq!((sent + dropped, told, sent_musts), (pushed, dropped, musts));
    }
}
