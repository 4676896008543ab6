use proptest::prelude::*;

use super::super::codec::{Frame, decode};
use super::super::heard::{Heard, Marker};
use super::super::words::{What, Words};
use super::*;

/// Another node, as far as it goes: what is on its way to it and back is there until it is taken.
#[derive(Default)]
struct Peer {
    heard: Heard,
    marker: Marker,
    /// The link that it dials, as it knows it.
    link: u64,
    told: VecDeque<Words>,
    confirmed: VecDeque<u64>,
}

impl Peer {
    fn wants(&self, topic: &str) -> bool {
        self.heard.wants(topic, self.marker.mark(topic))
    }
}

struct World {
    wanted: Wanted,
    peers: [Peer; 2],
    links: u64,
    now: Instant,
    /// The topics with subscribers here, and the joins that wait.
    topics: BTreeMap<Arc<str>, Option<oneshot::Receiver<()>>>,
    patterns: Vec<Arc<str>>,
}

const TOPICS: usize = 14;

fn topic(n: usize) -> Arc<str> {
    format!("t{}", n % TOPICS).into()
}

fn patterns(n: usize) -> Vec<Arc<str>> {
    let all: [&[&str]; 4] = [&[], &["t1*"], &["t1*", "t2"], &["t2", "t3"]];
    all[n % all.len()].iter().map(|one| Arc::from(*one)).collect()
}

impl World {
    fn new(bounds: Bounds) -> Self {
        let peers = Default::default();
        let now = Instant::now();
        let wanted = Wanted::new(bounds);
        let topics = BTreeMap::new();
        let mut world = Self { wanted, peers, links: 0, now, topics, patterns: Vec::new() };
        (0..2).for_each(|p| world.dial(p));
        world
    }

    /// A peer finds its link broken, and dials anew; its first word is on its way.
    fn dial(&mut self, p: usize) {
        self.links += 1;
        let peer = &mut self.peers[p];
        peer.heard.reset();
        peer.told.clear();
        peer.confirmed = VecDeque::from([0]);
        peer.link = self.links;
    }

    fn take(&mut self, p: usize) {
        let mut out = BytesMut::new();
        self.wanted.take(self.peers[p].link, &mut out);
        while let Some(frame) = decode(&mut out).unwrap() {
            let Frame::Interest(words) = frame else { panic!("not of interest: {frame:?}") };
            self.peers[p].told.push_back(words);
        }
    }

    fn hear(&mut self, p: usize) {
        let peer = &mut self.peers[p];
        if let Some(words) = peer.told.pop_front() {
            peer.heard.hear(&words, &peer.marker);
            peer.confirmed.push_back(words.number);
        }
    }

    fn confirm(&mut self, p: usize) {
        if let Some(number) = self.peers[p].confirmed.pop_front() {
            self.wanted.confirm(self.peers[p].link, [p as u8; 16], number);
        }
    }

    fn step(&mut self, what: u8, n: usize) {
        let p = n % 2;
        match what {
            0..=5 => {
                let topic = topic(n);
                if !self.topics.contains_key(&topic) {
                    let wait = self.wanted.want(&topic);
                    self.topics.insert(topic, wait);
                }
            }
            6..=8 => {
                if self.topics.remove(&topic(n)).is_some() {
                    self.wanted.unwant(&topic(n), self.now);
                }
            }
            9 => {
                self.patterns = patterns(n);
                self.wanted.set_patterns(&self.patterns);
            }
            10..=12 => self.take(p),
            13..=16 => self.hear(p),
            17..=19 => self.confirm(p),
            20 => {
                // A link that broke is waited for this long, but no longer.
                for p in 0..2 {
                    self.confirm(p);
                }
                self.now += Duration::from_millis(n as u64 % 3000);
                self.wanted.expire(self.now);
            }
            21 => {
                // Here first; the peer goes on as before until it dials.
                self.wanted.unlink(self.peers[p].link, false, self.now);
                self.peers[p].told.clear();
                self.peers[p].confirmed.clear();
                if n % 4 < 2 {
                    self.check();
                    let topic = topic(n / 4);
                    if !self.topics.contains_key(&topic) {
                        let wait = self.wanted.want(&topic);
                        self.topics.insert(topic, wait);
                    }
                    self.check();
                }
                self.dial(p);
            }
            _ => {
                // There first.
                let old = self.peers[p].link;
                self.dial(p);
                self.check();
                self.wanted.unlink(old, true, self.now);
            }
        }
        self.check();
    }

    /// No peer holds back what is broadcast on a topic whose join has been answered.
    fn check(&mut self) {
        for (topic, wait) in &mut self.topics {
            if wait.as_mut().is_some_and(|wait| wait.try_recv().is_ok()) {
                *wait = None;
            }
            for peer in self.peers.iter().filter(|_| wait.is_none()) {
                assert!(peer.wants(topic), "{topic} is held back");
            }
        }
    }

    /// Everything that is on its way arrives.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 100_000, "it never ends");
            (0..2).for_each(|p| self.take(p));
            if self.peers.iter().all(|peer| peer.told.is_empty() && peer.confirmed.is_empty()) {
                break;
            }
            for p in 0..2 {
                self.hear(p);
                self.confirm(p);
            }
        }
        self.check();
    }
}

const SMALL: Bounds = Bounds { topics: 8, changes: 5, lingering: 4, portion: 7 };

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_peer_ever_holds_back_what_has_been_joined_and_in_the_end_each_sends_only_that(
        steps in proptest::collection::vec((0u8..24, any::<usize>()), 0..250)
    ) {
        let mut world = World::new(SMALL);
        world.wanted.set_patterns(&[]);
        for (what, n) in steps {
            world.step(what, n);
        }
        world.settle();
        world.now += LINGER + LOST;
        world.wanted.expire(world.now);
        world.settle();
        prop_assert!(world.topics.values().all(Option::is_none), "every join is answered");
        prop_assert!(world.wanted.waiting.is_empty() && world.wanted.lost.is_empty());
        prop_assert!(world.wanted.lingering.is_empty() && world.wanted.log.last() > 0);
        let kept = world.patterns.clone();
        let kept = |topic: &str| kept.iter().any(|pattern| matches(pattern, topic));
        prop_assert_eq!(world.wanted.topics.len(), world.topics.len());
        for n in 0..TOPICS {
            let topic = topic(n);
            let wanted = world.wanted.too_many || kept(&topic) || world.topics.contains_key(&topic);
            for peer in &world.peers {
                prop_assert_eq!(peer.wants(&topic), wanted, "{}", topic);
            }
        }
    }
}

fn settled(topics: usize) -> World {
    let mut world = World::new(Bounds::default());
    world.wanted.set_patterns(&["kept:*".into()]);
    for n in 0..topics {
        world.step(0, n);
    }
    world.settle();
    world
}

#[test]
fn nothing_is_told_before_the_patterns_are_known() {
    let mut world = World::new(Bounds::default());
    world.step(0, 1);
    world.settle();
    assert!(world.peers.iter().all(|peer| peer.heard.topics().is_none()));
    world.wanted.set_patterns(&[]);
    world.settle();
    assert!(world.peers.iter().all(|peer| peer.heard.topics() == Some(1)));
}

#[test]
fn who_comes_back_soon_need_not_wait_and_neither_does_who_joins_what_is_kept() {
    let mut world = settled(1);
    let (topic, now) = (topic(0), world.now);
    world.wanted.unwant(&topic, now);
    world.wanted.expire(now + LINGER / 2);
    assert!(world.wanted.want(&topic).is_none(), "it was confirmed before");
    world.wanted.expire(now + LINGER * 2);
    assert!(world.wanted.want(&topic).is_none() && world.wanted.told == 1);
    assert!(world.wanted.want(&"kept:1".into()).is_none() && world.wanted.told == 1);
    world.wanted.unwant(&topic, now);
    world.wanted.expire(now + LINGER);
    assert!(world.wanted.want(&topic).is_some(), "it was given up");
}

#[test]
fn who_falls_behind_is_told_anew_and_what_is_kept_for_it_is_bounded() {
    let mut world = settled(1);
    let bounds = world.wanted.bounds;
    // One peer takes everything, the other nothing.
    for n in 0..bounds.changes + 10 {
        world.wanted.want(&format!("more:{n}").into());
        world.take(0);
    }
    assert!(world.wanted.log.last() as usize > bounds.changes);
    assert!(world.peers[0].told.iter().all(|words| words.what == What::On));
    world.take(1);
    let first = world.peers[1].told.front().map(|words| words.what);
    assert_eq!(first, Some(What::Everything));
    world.settle();
    let known = world.peers.each_ref().map(|peer| peer.heard.topics());
    assert_eq!(known, [Some(bounds.changes + 11); 2]);
}

#[test]
fn until_it_confirms_that_it_has_heard_so_who_is_told_anew_may_hold_back() {
    let mut world = settled(1);
    for n in 0..=world.wanted.bounds.changes {
        world.wanted.want(&format!("more:{n}").into());
        world.take(0);
        world.hear(0);
        world.confirm(0);
    }
    let mut wait = world.wanted.want(&"new".into()).expect("none has confirmed it");
    while world.peers[1].told.back().is_none_or(|words| words.what != What::Whole) {
        world.take(1);
        assert!(world.wanted.want(&"new".into()).is_some());
    }
    world.wanted.expire(world.now);
    assert!(wait.try_recv().is_err() && world.wanted.want(&"new".into()).is_some());
    world.settle();
    assert!(wait.try_recv().is_ok() && world.peers[1].wants("new"));
}

#[test]
fn with_too_many_topics_peers_send_everything_until_half_of_them_are_gone() {
    let mut world = World::new(SMALL);
    world.wanted.set_patterns(&[]);
    for n in 0..SMALL.topics {
        world.step(0, n);
    }
    world.settle();
    assert!(!world.peers[0].wants("other"));
    world.step(0, SMALL.topics);
    world.settle();
    assert!(world.peers[0].wants("other") && world.topics.values().all(Option::is_none));
    for n in 0..=SMALL.topics / 2 {
        assert!(world.peers[0].wants("other"), "{n}");
        world.step(6, n);
        world.now += LINGER;
        world.wanted.expire(world.now);
        world.settle();
    }
    assert!(!world.peers[0].wants("other") && world.peers[0].wants(&topic(SMALL.topics)));
}

#[test]
fn a_join_waits_for_a_peer_that_may_not_have_noticed_a_cut_but_not_for_long() {
    let mut world = settled(1);
    for expected in [true, false] {
        world.wanted.unlink(world.peers[0].link, expected, world.now);
        world.wanted.unlink(world.peers[1].link, true, world.now);
        let mut wait = world.wanted.want(&format!("new:{expected}").into());
        assert_eq!(wait.is_some(), !expected);
        world.wanted.expire(world.now + LOST / 2);
        assert!(wait.as_mut().is_none_or(|wait| wait.try_recv().is_err()));
        world.wanted.expire(world.now + LOST);
        assert!(wait.as_mut().is_none_or(|wait| wait.try_recv().is_ok()));
        (0..2).for_each(|p| world.dial(p));
        world.settle();
    }
}

#[test]
fn a_topic_or_pattern_too_long_for_a_frame_does_no_harm() {
    let mut world = settled(0);
    let long: Arc<str> = "x".repeat(1 << 16).into();
    assert!(world.wanted.want(&long).is_none());
    world.wanted.unwant(&long, world.now);
    world.wanted.set_patterns(&[long]);
    world.settle();
    assert!(world.peers[0].wants("anything"), "rather too much");
}
