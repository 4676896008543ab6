//! Which shards of this node have subscribers of a topic, and the same told to the other nodes.
//!
//! It never touches a socket. One topic's calls to the adapter are made in order, under the lock
//! that orders its shards.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use crate::pubsub::{Adapter, Broadcast, Instance, Signal};

const STRIPES: usize = 64;
/// A join never waits longer for the other nodes.
const LONGEST_SUBSCRIBE: Duration = Duration::from_secs(10);

/// Shards by their number.
pub(crate) type Shards = SmallVec<[u16; 8]>;
/// Ends when broadcasts made on other nodes arrive here.
pub(crate) type Ready = Shared<BoxFuture<'static, ()>>;

/// The node's subscriptions, by topic.
pub(crate) struct Interest {
    adapter: RwLock<Arc<dyn Adapter>>,
    /// What is of interest, subscribed or not.
    patterns: Mutex<Vec<Arc<str>>>,
    hasher: RandomState,
    stripes: Box<[RwLock<Stripe>]>,
}

type Stripe = HashMap<Arc<str>, Topic>;

struct Topic {
    shards: Shards,
    ready: Option<Ready>,
    /// The adapter knows of it.
    told: bool,
}

impl Default for Interest {
    fn default() -> Self {
        Self {
            adapter: RwLock::new(Arc::new(Alone)),
            patterns: Mutex::default(),
            hasher: RandomState::new(),
            stripes: (0..STRIPES).map(|_| RwLock::default()).collect(),
        }
    }
}

impl Interest {
    fn stripe(&self, topic: &str) -> &RwLock<Stripe> {
        &self.stripes[self.hasher.hash_one(topic) as usize % STRIPES]
    }

    /// Puts another adapter in force and subscribes every topic through it.
    pub(crate) fn set_adapter(&self, adapter: Arc<dyn Adapter>) {
        *self.adapter.write() = adapter;
        for stripe in &self.stripes {
            for (name, topic) in stripe.write().iter_mut().filter(|(_, topic)| topic.told) {
                topic.ready = self.subscribe(name);
            }
        }
        let patterns = self.patterns.lock();
        self.adapter.read().set_patterns(&patterns);
    }

    /// Has topics that match patterns be of interest, whether or not they have subscribers. What
    /// `read` gives is what counts: of two calls at once the later one's.
    pub(crate) fn set_patterns(&self, read: impl FnOnce() -> Vec<Arc<str>>) {
        let mut patterns = self.patterns.lock();
        let new = read();
        if *patterns != new {
            *patterns = new;
            self.adapter.read().set_patterns(&patterns);
        }
    }

    /// `None`: done already.
    fn subscribe(&self, topic: &Arc<str>) -> Option<Ready> {
        let mut subscribe = self.adapter.read().subscribe(topic);
        if (&mut subscribe).now_or_never().is_some() {
            return None;
        }
        let bounded = async move {
            // Missing what others send meanwhile is better than joining later still.
            let _ = tokio::time::timeout(LONGEST_SUBSCRIBE, subscribe).await;
        };
        let ready = bounded.boxed().shared();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(ready.clone());
        }
        Some(ready)
    }

    /// `shard` has a subscriber of `topic`, or will have. Gives the node's one copy of the name,
    /// and what to wait for.
    pub(crate) fn acquire(&self, topic: Arc<str>, shard: u16) -> (Arc<str>, Option<Ready>) {
        self.enter(topic, shard, true)
    }

    /// `shard` has a socket of this name. The adapter is not told: what is broadcast on a name is for
    /// all nodes (`P-CON-10`). Gives the node's one copy of it.
    pub(crate) fn acquire_name(&self, name: Arc<str>, shard: u16) -> Arc<str> {
        self.enter(name, shard, false).0
    }

    fn enter(&self, topic: Arc<str>, shard: u16, tell: bool) -> (Arc<str>, Option<Ready>) {
        let mut topics = self.stripe(&topic).write();
        match topics.entry(topic) {
            Entry::Occupied(mut entry) => {
                let name = entry.key().clone();
                let known = entry.get_mut();
                if tell && !known.told {
                    known.told = true;
                    known.ready = self.subscribe(&name);
                }
                if !known.shards.contains(&shard) {
                    known.shards.push(shard);
                }
                if known.ready.as_ref().is_some_and(|ready| ready.peek().is_some()) {
                    known.ready = None;
                }
                (name, known.ready.clone())
            }
            Entry::Vacant(entry) => {
                let name = entry.key().clone();
                let ready = if tell { self.subscribe(&name) } else { None };
                let shards = SmallVec::from_slice(&[shard]);
                entry.insert(Topic { shards, ready: ready.clone(), told: tell });
                (name, ready)
            }
        }
    }

    /// `shard` has no subscriber of `topic`, nor a socket of that name, any more.
    pub(crate) fn release(&self, topic: &Arc<str>, shard: u16) {
        let mut topics = self.stripe(topic).write();
        let Some(known) = topics.get_mut(topic) else { return };
        known.shards.retain(|other| *other != shard);
        if known.shards.is_empty() {
            let told = known.told;
            topics.remove(topic);
            if told {
                self.adapter.read().unsubscribe(topic);
            }
        }
    }

    /// The shards with subscribers of `topic`.
    pub(crate) fn shards(&self, topic: &str) -> Shards {
        let topics = self.stripe(topic).read();
        topics.get(topic).map(|known| known.shards.clone()).unwrap_or_default()
    }

    /// Sends a signal to one other node, or to all; not after `until`.
    pub(crate) fn signal(&self, to: Option<Instance>, signal: &Signal, until: Option<Instant>) {
        self.adapter.read().signal(to, signal, until);
    }

    /// Whether the other nodes could be heard now, if they said something.
    pub(crate) fn is_up(&self) -> bool {
        self.adapter.read().is_up()
    }

    /// Sends to the other nodes.
    pub(crate) fn send(&self, broadcast: &Broadcast) {
        self.adapter.read().send(broadcast);
    }
}

/// The adapter of a node without others.
struct Alone;

impl Adapter for Alone {
    fn send(&self, _: &Broadcast) {}
    fn subscribe(&self, _: &Arc<str>) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }
    fn unsubscribe(&self, _: &Arc<str>) {}
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);

    impl Adapter for Log {
        fn send(&self, _: &Broadcast) {}
        fn subscribe(&self, topic: &Arc<str>) -> BoxFuture<'static, ()> {
            self.0.lock().push(format!("+{topic}"));
            std::future::ready(()).boxed()
        }
        fn unsubscribe(&self, topic: &Arc<str>) {
            self.0.lock().push(format!("-{topic}"));
        }
        fn set_patterns(&self, patterns: &[Arc<str>]) {
            self.0.lock().push(patterns.join(" "));
        }
    }

    /// Never hears of anything from others.
    struct Deaf;

    impl Adapter for Deaf {
        fn send(&self, _: &Broadcast) {}
        fn subscribe(&self, _: &Arc<str>) -> BoxFuture<'static, ()> {
            std::future::pending().boxed()
        }
        fn unsubscribe(&self, _: &Arc<str>) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_join_waits_so_long_for_an_adapter_that_hears_nothing_and_the_next_not_at_all() {
        let (interest, begun) = (Interest::default(), tokio::time::Instant::now());
        interest.set_adapter(Arc::new(Deaf));
        let (_, ready) = interest.acquire("t".into(), 0);
        let (_, also) = interest.acquire("t".into(), 1);
        futures::future::join(ready.expect("a wait"), also.expect("the same")).await;
        assert_eq!(begun.elapsed(), LONGEST_SUBSCRIBE);
        assert!(interest.acquire("t".into(), 2).1.is_none());
    }

    #[test]
    fn the_adapter_hears_of_a_name_only_once_it_is_a_topic_too_and_of_patterns_after_topics() {
        let log = Arc::new(Log::default());
        let interest = Interest::default();
        interest.set_patterns(|| vec!["room:*".into(), "lobby".into()]);
        let name = interest.acquire_name("anna".into(), 0);
        interest.acquire("t".into(), 0);
        interest.set_adapter(log.clone());
        interest.set_patterns(|| vec!["room:*".into(), "lobby".into()]);
        interest.acquire_name("bert".into(), 0);
        interest.release(&"bert".into(), 0);
        interest.acquire(name.clone(), 1);
        interest.acquire(name.clone(), 2);
        assert_eq!(interest.shards("anna").as_slice(), [0, 1, 2]);
        (0..3).for_each(|shard| interest.release(&name, shard));
        interest.set_patterns(Vec::new);
        assert_eq!(*log.0.lock(), ["+t", "room:* lobby", "+anna", "-anna", ""]);
    }

    #[test]
    fn the_adapter_hears_of_the_first_and_the_last_shard_only() {
        let log = Arc::new(Log::default());
        let interest = Interest::default();
        let (early, _) = interest.acquire("early".into(), 3);
        interest.set_adapter(log.clone());
        let (name, ready) = interest.acquire("t".into(), 0);
        assert!(ready.is_none(), "nothing to wait for");
        let (again, _) = interest.acquire("t".into(), 1);
        assert!(Arc::ptr_eq(&name, &again), "one copy of a name a node");
        assert_eq!(interest.shards("t").as_slice(), [0, 1]);
        interest.release(&name, 0);
        interest.release(&name, 0);
        assert_eq!(interest.shards("t").as_slice(), [1]);
        interest.release(&name, 1);
        interest.release(&early, 3);
        assert!(interest.shards("t").is_empty());
        assert_eq!(*log.0.lock(), ["+early", "", "+t", "-t", "-early"]);
    }
}
