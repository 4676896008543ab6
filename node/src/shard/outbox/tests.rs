//! Bounds by bytes and age, and what is dropped past them.

use proptest::prelude::*;

use super::*;

thread_local! {
    static LEDGER: Rc<Ledger> = Rc::default();
}

fn frame(fill: u8, len: usize, loss: Loss) -> Frame {
    LEDGER.with(|ledger| Waiting::new(ledger, vec![fill; len].into(), loss))
}

fn must(len: usize) -> Frame {
    frame(0, len, Loss::Never)
}

fn may(topic: &str, len: usize) -> Frame {
    frame(1, len, Loss::Broadcast(topic.into()))
}

fn latest(topic: &str, event: &str) -> Frame {
    frame(2, 10, Loss::Latest(topic.into(), event.into()))
}

fn empty() -> Outbox {
    Outbox::new(MAX_BYTES, LEDGER.with(Rc::clone))
}

fn outbox(frames: &[usize]) -> Outbox {
    let mut outbox = empty();
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
        Loss::Latest(topic, event) => format!("{topic}.{event}"),
        Loss::Told(..) => String::from_utf8(frame.bytes.to_vec()).expect("text"),
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
    let mut outbox = empty();
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
    let mut large = empty();
    (0..6).for_each(|_| large.push(may("a", MAX_BYTES)));
    large.shed(Excess::Bytes, tell);
    assert_eq!(waits(&large), ["a-3", "+", "+", "+"], "a few large frames may be sent");
}

#[test]
fn only_the_latest_of_a_topic_and_event_waits() {
    let mut outbox = empty();
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
    let mut old = empty();
    (0..3).for_each(|_| old.push(latest("a", "x")));
    let start = Instant::now();
    assert!(!old.is_stuck(start) && old.is_stuck(start + MAX_AGE));
    assert_eq!(old.shed(Excess::Age, tell), Shed::default(), "the last state is of worth");
}

#[tokio::test(start_paused = true)]
async fn what_may_be_dropped_is_too_old_alone_and_what_must_arrive_is_not() {
    let start = Instant::now();
    let mut outbox = empty();
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

#[test]
fn for_want_of_memory_all_goes_that_may_and_the_room_for_it() {
    let mut outbox = empty();
    (0..100).for_each(|_| outbox.push(may("a", 10)));
    outbox.push(latest("b", "x"));
    outbox.push(must(10));
    outbox.advance(1);
    assert_eq!(outbox.shed(Excess::Memory, tell).dropped, 100);
    assert_eq!(waits(&outbox), ["+", "a-99", "b-1", "!"], "one is begun");
    assert!(outbox.frames.capacity() < 10, "{}", outbox.frames.capacity());
    outbox.clear();
    assert_eq!((waits(&outbox).len(), outbox.bytes, outbox.begun), (1, 9, 1));
}

#[test]
fn a_frame_for_many_counts_once_and_its_parts_are_those_of_whom_it_waits_for() {
    let held = || LEDGER.with(|ledger| ledger.held());
    let mut all: Vec<_> = (0..4).map(|_| empty()).collect();
    let shared = may("a", 4000);
    all.iter_mut().for_each(|outbox| outbox.push(shared.clone()));
    let size = shared.size();
    drop(shared);
    assert!((4000..4500).contains(&held()), "{}", held());
    let room = all[0].room();
    assert_eq!(all[0].weight(), room + size / 4);
    all.truncate(1);
    assert_eq!((all[0].weight(), held()), (room + size, room + size));
    all[0].take();
    assert_eq!((all[0].weight(), held()), (0, 0));
}

proptest! {
    #[test]
    fn every_byte_is_sent_once(lens in proptest::collection::vec(1usize..50, 1..100), step in 1usize..200) {
        let mut outbox = empty();
        let mut want = Vec::new();
        for (i, len) in lens.iter().enumerate() {
            want.extend(vec![i as u8; *len]);
            outbox.push(frame(i as u8, *len, Loss::Never));
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
        let mut outbox = empty();
        let (mut pushed, mut musts, mut dropped) = (0, 0, 0);
        let (mut sent, mut sent_musts, mut told) = (0, 0, 0);
        let mut now = Instant::now();
        let mut pop = |outbox: &mut Outbox, bytes: usize| {
            let (mut left, mut whole) = (bytes, 0);
            for (i, frame) in outbox.frames.iter().enumerate() {
                let len = frame.bytes.len() - if i == 0 { outbox.begun } else { 0 };
                if left < len {
                    break;
                }
                left -= len;
                whole += 1;
                match &frame.loss {
                    Loss::Never => sent_musts += 1,
                    Loss::Broadcast(_) | Loss::Latest(..) => sent += 1,
                    Loss::Told(_, count) => told += count,
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
                6 if size % 8 == 0 => {
                    dropped += outbox.shed(Excess::Memory, tell).dropped;
                    let lossy = outbox.frames.iter().skip(1).any(|f| matches!(f.loss, Loss::Broadcast(_)));
                    prop_assert!(!lossy);
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
            prop_assert_eq!(outbox.bytes + outbox.begun, sum);
            prop_assert_eq!(outbox.weight(), LEDGER.with(|ledger| ledger.held()));
        }
        let rest = outbox.bytes;
        pop(&mut outbox, rest);
        prop_assert!(outbox.is_empty());
        prop_assert_eq!(LEDGER.with(|ledger| ledger.held()), 0);
        prop_assert_eq!((sent + dropped, told, sent_musts), (pushed, dropped, musts));
    }
}
