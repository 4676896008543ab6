//! The connection that subscribes. What is wanted is kept apart from what is confirmed, so that a
//! new connection subscribes everything again and a topic wanted, unwanted and wanted in between
//! ends up right.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt;
use redis::RedisResult;
use redis::aio::{PubSub, PubSubSink, PubSubStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::warn;

use super::envelope::{Bad, VERSION};
use super::failure::Failure;
use super::shared::{self, Said};
use super::{Inner, PATIENCE, PING, envelope, read_url, reconnect};
use crate::mesh::metrics::count;
use crate::pubsub::Signal;

/// Topics of one command.
const BATCH: usize = 512;
/// Between two looks for nodes that are not heard any more.
const LOOK: Duration = Duration::from_millis(500);

/// The topics that this node has subscribers of.
#[derive(Default)]
pub(super) struct Wanted {
    topics: HashMap<Arc<str>, Vec<oneshot::Sender<()>>>,
    confirmed: HashSet<Arc<str>>,
    dirty: HashSet<Arc<str>>,
    connected: bool,
}

impl Wanted {
    /// Wants `topic`; whether waiting for `tell` makes sense: not when it is confirmed already,
    /// nor when there is no connection that could confirm it.
    pub(super) fn want(&mut self, topic: &Arc<str>, tell: oneshot::Sender<()>) -> bool {
        let waiters = self.topics.entry(topic.clone()).or_default();
        if self.confirmed.contains(topic) && !self.dirty.contains(topic) {
            return false;
        }
        self.dirty.insert(topic.clone());
        if self.connected {
            waiters.retain(|w| !w.is_closed());
            waiters.push(tell);
        }
        self.connected
    }

    /// Wants `topic` no longer.
    pub(super) fn unwant(&mut self, topic: &Arc<str>) {
        if self.topics.remove(topic).is_some() {
            self.dirty.insert(topic.clone());
        }
    }

    /// How many are wanted.
    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    fn connected(&mut self) {
        self.connected = true;
        self.confirmed.clear();
        self.dirty = self.topics.keys().cloned().collect();
    }

    fn disconnected(&mut self) {
        self.connected = false;
        self.confirmed.clear();
        // Nobody will confirm: whoever waits goes on.
        for waiters in self.topics.values_mut() {
            *waiters = Vec::new();
        }
    }

    /// What to subscribe and what to unsubscribe now; both empty when all is as wanted.
    fn step(&mut self) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let some: Vec<Arc<str>> = self.dirty.iter().take(BATCH).cloned().collect();
        let (mut on, mut off) = (Vec::new(), Vec::new());
        for topic in some {
            self.dirty.remove(&topic);
            match (self.topics.contains_key(&topic), self.confirmed.contains(&topic)) {
                (true, false) => on.push(topic),
                (false, true) => off.push(topic),
                (true, true) => self.confirm(&[topic]),
                (false, false) => {}
            }
        }
        (on, off)
    }

    fn confirm(&mut self, topics: &[Arc<str>]) {
        for topic in topics {
            self.confirmed.insert(topic.clone());
            for waiter in self.topics.get_mut(topic).map(std::mem::take).unwrap_or_default() {
                let _ = waiter.send(());
            }
        }
    }
}

pub(super) async fn run(inner: Arc<Inner>) {
    let inner = &*inner;
    let work = |pubsub: PubSub| async move {
        inner.wanted.lock().connected();
        inner.nodes.lock().resume(Instant::now());
        let (sink, stream) = pubsub.split();
        let error = tokio::select! {
            e = keep_subscribed(inner, sink) => e.err().map(Failure::from),
            () = hear(inner, stream) => Some(Failure::closed()),
            () = miss(inner) => None,
            () = inner.leaving.cancelled() => None,
        };
        inner.subscriber_up.store(false, Ordering::Release);
        inner.wanted.lock().disconnected();
        if error.is_some() {
            inner.suspect.notify_one();
        }
        error
    };
    reconnect::keep(inner, "subscriber", || connect(inner), work).await;
}

async fn connect(inner: &Inner) -> Result<PubSub, Failure> {
    let client = read_url(&inner.config.url_file)?;
    let connected = timeout(PATIENCE, client.get_async_pubsub()).await;
    connected.map_err(|_| Failure::late())?.map_err(Failure::from)
}

/// Makes Redis's subscriptions those that are wanted, again and again; ends with an error.
async fn keep_subscribed(inner: &Inner, mut sink: PubSubSink) -> RedisResult<()> {
    let late = |_| redis::RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
    let own = [None, Some(&inner.config.instance)];
    let own = own.map(|to| shared::channel(&inner.config.cluster, to));
    timeout(PATIENCE, sink.subscribe(&own[..])).await.map_err(late)??;
    loop {
        loop {
            let (on, off) = inner.wanted.lock().step();
            if on.is_empty() && off.is_empty() && inner.wanted.lock().dirty.is_empty() {
                break;
            }
            let names = |topics: &[Arc<str>]| -> Vec<String> {
                topics.iter().map(|t| envelope::channel(&inner.config.cluster, t)).collect()
            };
            if !on.is_empty() {
                timeout(PATIENCE, sink.subscribe(names(&on))).await.map_err(late)??;
                inner.wanted.lock().confirm(&on);
            }
            if !off.is_empty() {
                timeout(PATIENCE, sink.unsubscribe(names(&off))).await.map_err(late)??;
                let mut wanted = inner.wanted.lock();
                for topic in &off {
                    wanted.confirmed.remove(topic);
                    if wanted.topics.contains_key(topic) {
                        wanted.dirty.insert(topic.clone());
                    }
                }
            }
        }
        inner.subscriber_up.store(true, Ordering::Release);
        tokio::select! {
            () = inner.changed.notified() => {}
            () = tokio::time::sleep(PING) => {
                timeout(PATIENCE, sink.ping::<redis::Value>()).await.map_err(late)??;
            }
        }
    }
}

/// Notices the nodes that are not heard any more; never ends.
async fn miss(inner: &Inner) {
    loop {
        tokio::time::sleep(LOOK).await;
        let silent = inner.nodes.lock().take_silent(Instant::now());
        for instance in silent {
            inner.metrics.silent.inc();
            inner.local.departed(instance);
        }
    }
}

/// Delivers what other nodes published, until the connection ends.
async fn hear(inner: &Inner, mut stream: PubSubStream) {
    let all = shared::channel(&inner.config.cluster, None);
    let mut told = false;
    while let Some(message) = stream.next().await {
        let Ok(channel) = message.get_channel::<String>() else { continue };
        let bytes = message.get_payload_bytes();
        let heard = match channel.starts_with(&all) {
            true => hear_node(inner, bytes),
            false => hear_topic(inner, &channel, bytes),
        };
        match heard {
            Ok(()) => {}
            Err(Bad::Malformed) => count(&inner.metrics.dropped, "malformed", 1),
            Err(Bad::Version(version)) => {
                count(&inner.metrics.dropped, "version", 1);
                if !told {
                    told = true;
                    warn!(
                        version,
                        "a node publishes in another version than {VERSION}; it is not heard"
                    );
                }
            }
        }
    }
}

fn hear_topic(inner: &Inner, channel: &str, bytes: &[u8]) -> Result<(), Bad> {
    let (instance, broadcast) = envelope::decode(&inner.config.cluster, channel, bytes)?;
    if instance != inner.config.instance {
        inner.metrics.received.inc();
        inner.local.deliver(broadcast);
    }
    Ok(())
}

fn hear_node(inner: &Inner, bytes: &[u8]) -> Result<(), Bad> {
    let (instance, said) = shared::decode(bytes)?;
    if instance == inner.config.instance {
        return Ok(());
    }
    inner.metrics.received.inc();
    match said {
        Said::Broadcast(broadcast) => inner.local.deliver(broadcast),
        // Who asks for a long-poll session need not say anything ever again.
        Said::Signal(letter @ Signal::Poll(_)) => inner.local.signal(instance, letter),
        Said::Signal(signal) if inner.nodes.lock().hear(instance, Instant::now()) => {
            inner.local.signal(instance, signal);
        }
        Said::Signal(_) => count(&inner.metrics.dropped, "nodes", 1),
        Said::Unknown => count(&inner.metrics.dropped, "unknown", 1),
    }
    Ok(())
}
