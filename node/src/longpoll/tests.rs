//! Two nodes, and a carrier of their letters that loses some or is away.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use sluice_node_api::config::{LiveConfig, Socket};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Posted,
    ask::{DEAD, ask},
    question::{Answer, Question},
    served,
    token::Session,
};
use crate::{
    keys::Keys,
    mesh::codec::encode_signal,
    plane::Plane,
    pubsub::{Adapter, Broadcast, Instance, Signal},
    shard::inbox::Task,
};

const WINDOW: Duration = Duration::from_secs(10);

/// Carries what one node says to the other.
#[derive(Default)]
struct Wire {
    from: Instance,
    to: Weak<Plane>,
    away: AtomicBool,
    /// So many letters are lost.
    lose: AtomicUsize,
}

impl Adapter for Wire {
    fn send(&self, _: &Broadcast) {}

    fn signal(&self, _: Option<Instance>, signal: &Signal, until: Option<std::time::Instant>) {
        assert!(until.is_some(), "no letter may be late");
        let one_less = |n: usize| n.checked_sub(1);
        let lost = self.lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok();
        // As between real nodes.
        let lost = lost || encode_signal(signal).is_none();
        if let (Signal::Poll(letter), Some(to)) = (signal, self.to.upgrade())
            && !lost
            && self.is_up()
        {
            served::receive(&to, self.from, letter);
        }
    }

    fn is_up(&self) -> bool {
        !self.away.load(Ordering::SeqCst)
    }

    fn subscribe(&self, _: &Arc<str>) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }

    fn unsubscribe(&self, _: &Arc<str>) {}
}

/// The node that asks, and the one with the session: a shard that does nothing by itself.
struct Pair {
    near: Arc<Plane>,
    far: Arc<Plane>,
    to_far: Arc<Wire>,
    to_near: Arc<Wire>,
}

fn plane() -> Arc<Plane> {
    let (live, stop) = (LiveConfig::default(), CancellationToken::new());
    let idle = Duration::from_secs(60);
    let secret = Keys::new(Bytes::new());
    Arc::new(Plane::new("a".into(), &Socket::default(), &live, idle, secret, 1, stop))
}

impl Pair {
    fn new() -> Self {
        let (near, far) = (plane(), plane());
        let wire = |from: &Arc<Plane>, to: &Arc<Plane>| {
            let (instance, to) = (from.instance, Arc::downgrade(to));
            let wire = Arc::new(Wire { from: instance, to, ..Wire::default() });
            from.interest.set_adapter(wire.clone());
            wire
        };
        let (to_far, to_near) = (wire(&near, &far), wire(&far, &near));
        Self { near, far, to_far, to_near }
    }

    fn ask(&self, question: Question) -> JoinHandle<Answer> {
        let session = Session { node: self.far.instance, shard: 0, slot: 1, id: 2 };
        let near = self.near.clone();
        tokio::spawn(async move { ask(&near, session, question).await })
    }

    fn poll(&self) -> JoinHandle<Answer> {
        self.ask(Question::Poll(WINDOW))
    }

    fn post(&self, bytes: usize) -> JoinHandle<Answer> {
        let posted = Posted { binary: true, bytes: Bytes::from(vec![7; bytes]) };
        self.ask(Question::Post(vec![posted], WINDOW))
    }

    /// What the session is asked now.
    fn asked(&self) -> Vec<Task> {
        let mut tasks = Vec::new();
        self.far.shards[0].inbox.take(&mut tasks);
        tasks
    }

    /// So many things that it is asked.
    async fn next<const N: usize>(&self) -> [Task; N] {
        let mut all = self.asked();
        while all.len() < N {
            self.far.shards[0].inbox.filled().await;
            all.extend(self.asked());
        }
        all.try_into().unwrap_or_else(|_| panic!("more than {N}"))
    }

    async fn polled(&self) -> oneshot::Sender<Vec<String>> {
        match self.next().await {
            [Task::Poll((1, 2), answer)] => answer,
            _ => panic!("no poll"),
        }
    }

    async fn posted(&self) -> oneshot::Sender<()> {
        match self.next().await {
            [Task::Post((1, 2), _, taken)] => taken,
            _ => panic!("no post"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn p_lp_7_what_is_lost_between_nodes_is_asked_again_and_done_once() {
    let pair = Pair::new();
    pair.to_far.lose.store(2, Ordering::SeqCst);
    pair.to_near.lose.store(1, Ordering::SeqCst);
    let post = pair.post(3);
    let taken = pair.posted().await;
    // It has not heard that the third one arrived.
    sleep(2 * DEAD).await;
    taken.send(()).expect("waits");
    assert_eq!(post.await.expect("an answer"), Answer::Taken);
    // Not even the answer arrives at first.
    pair.to_near.lose.store(2, Ordering::SeqCst);
    let post = pair.post(3);
    pair.posted().await.send(()).expect("waits");
    assert_eq!(post.await.expect("an answer"), Answer::Taken);
    assert!(pair.asked().is_empty(), "once each");
    // What was for the client is lost: it must not go on as if nothing had been.
    pair.to_near.lose.store(2, Ordering::SeqCst);
    let poll = pair.poll();
    pair.polled().await.send(vec!["[]".into()]).expect("waits");
    assert_eq!(poll.await.expect("an answer"), Answer::Gone);
}

#[tokio::test(start_paused = true)]
async fn p_lp_8_a_node_is_dead_after_two_seconds_but_not_while_nobody_can_be_heard() {
    let pair = Pair::new();
    pair.to_near.lose.store(usize::MAX, Ordering::SeqCst);
    let begun = Instant::now();
    assert_eq!(pair.post(3).await.expect("an answer"), Answer::Gone);
    assert_eq!(begun.elapsed(), DEAD);
    assert_eq!(pair.asked().len(), 1, "asked again, done once");
    pair.to_near.lose.store(0, Ordering::SeqCst);
    pair.to_far.away.store(true, Ordering::SeqCst);
    let (poll, post) = (pair.poll(), pair.post(3));
    sleep(2 * DEAD).await;
    pair.to_far.away.store(false, Ordering::SeqCst);
    for task in pair.next::<2>().await {
        match task {
            Task::Poll(_, answer) => answer.send(vec!["[]".into()]).expect("waits"),
            Task::Post(_, _, taken) => taken.send(()).expect("waits"),
            _ => panic!("nothing else was asked"),
        }
    }
    assert_eq!(poll.await.expect("an answer"), Answer::Messages(vec!["[]".into()]));
    assert_eq!(post.await.expect("an answer"), Answer::Taken);
}

#[tokio::test(start_paused = true)]
async fn p_lp_4_what_could_not_be_asked_within_the_window_is_never_asked() {
    let pair = Pair::new();
    pair.to_far.away.store(true, Ordering::SeqCst);
    let (poll, post) = (pair.poll(), pair.post(3));
    assert_eq!(poll.await.expect("an answer"), Answer::Messages(vec![]), "it lives, maybe");
    assert_eq!(post.await.expect("an answer"), Answer::Late);
    pair.to_far.away.store(false, Ordering::SeqCst);
    sleep(WINDOW).await;
    assert!(pair.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_nobody_waits_for_takes_no_message_away() {
    let pair = Pair::new();
    let (begun, poll) = (Instant::now(), pair.poll());
    let mut answer = pair.polled().await;
    poll.abort();
    answer.closed().await;
    assert!(begun.elapsed() < DEAD, "it would wait for {WINDOW:?}");
    // Nor one whose node ends: it is answered.
    let poll = pair.poll();
    let mut answer = pair.polled().await;
    sleep(DEAD).await;
    pair.near.shutdown.cancel();
    answer.closed().await;
    assert_eq!(poll.await.expect("an answer"), Answer::Messages(vec![]));
    assert!(pair.near.polls.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_of_another_node_and_has_not_arrived_is_bounded() {
    let pair = Pair::new();
    pair.to_far.away.store(true, Ordering::SeqCst);
    let first = pair.post(15 << 20);
    let others = [(); 3].map(|()| pair.post(15 << 20));
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    assert_eq!(pair.post(15 << 20).await.expect("an answer"), Answer::Gone);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    others.iter().for_each(JoinHandle::abort);
    pair.to_far.away.store(false, Ordering::SeqCst);
    let taken = pair.posted().await;
    pair.to_far.away.store(true, Ordering::SeqCst);
    // It has arrived: there is room again.
    let more = [(); 4].map(|()| pair.post(15 << 20));
    sleep(Duration::from_secs(1)).await;
    assert!(more.iter().all(|post| !post.is_finished()));
    taken.send(()).expect("waits");
    assert_eq!(first.await.expect("an answer"), Answer::Taken);
}

#[tokio::test(start_paused = true)]
async fn what_other_nodes_have_asked_is_answered_before_a_node_ends() {
    let pair = Pair::new();
    let poll = pair.poll();
    let answer = pair.polled().await;
    // The shard has ended, and left it in its inbox.
    pair.far.running.send_replace(0);
    pair.far.polls.served().await;
    assert_eq!(poll.await.expect("an answer"), Answer::Gone);
    drop(answer);
}

#[tokio::test(start_paused = true)]
async fn p_lp_7_the_largest_message_reaches_a_session_elsewhere_and_larger_ones_are_refused() {
    let pair = Pair::new();
    // The largest that a client may be allowed: in base64 it fits no frame.
    let largest = 16_000_000;
    let text = Bytes::from(vec![b'x'; largest - 3]);
    let messages = [(true, Bytes::from_static(b"abc")), (false, text)];
    let messages = messages.map(|(binary, bytes)| Posted { binary, bytes }).to_vec();
    let post = pair.ask(Question::Post(messages.clone(), WINDOW));
    let [Task::Post((1, 2), posted, taken)] = pair.next().await else { panic!("no post") };
    assert!(posted == messages, "as they were");
    taken.send(()).expect("waits");
    assert_eq!(post.await.expect("an answer"), Answer::Taken);
    let begun = Instant::now();
    assert_eq!(pair.post(17 << 20).await.expect("an answer"), Answer::TooLarge);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn p_lp_7_an_answer_that_no_letter_can_carry_ends_the_session_at_once_and_is_counted() {
    let pair = Pair::new();
    let dropped = || {
        let reason = crate::hub::Reason { reason: "longpoll" };
        pair.far.metrics.dropped.get_or_create(&reason).get()
    };
    let (begun, poll) = (Instant::now(), pair.poll());
    // As JSON in JSON it is twice as long.
    pair.polled().await.send(vec!["\"".repeat(8 << 20)]).expect("waits");
    assert_eq!(poll.await.expect("an answer"), Answer::Gone);
    assert_eq!((begun.elapsed(), dropped()), (Duration::ZERO, 1));
}
