//! Finds the other nodes: by a DNS name's addresses, by a fixed list, or both.
//!
//! What is found is a set of addresses to dial; whether a node answers there, and which, is the
//! mesh's business. A lookup that fails, or that finds nothing, keeps the last view of its name
//! (section 13, G-4, of the protocol notes): a name server that is away must not cut a cluster in
//! pieces.

pub mod dns;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use sluice_node_api::config::Discovery as Config;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between two lookups while the node is alone or its peers are changing.
pub const QUICK: Duration = Duration::from_secs(1);
/// How long lookups stay quick after the last change, or after the node came to be alone.
pub const QUICK_FOR: Duration = Duration::from_secs(60);

/// Turns a name into addresses.
pub trait Lookup: Send + Sync + 'static {
    /// The addresses of `name`, and how long they may be relied on.
    ///
    /// # Errors
    /// Why there are none, for the log.
    fn lookup<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Found, String>>;
}

/// What a [`Lookup`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The addresses, in no order.
    pub ips: Vec<IpAddr>,
    /// The answer's TTL.
    pub ttl: Duration,
}

/// Splits `host:port` or `[v6]:port`; `None` if it is neither.
pub fn split_host_port(text: &str) -> Option<(String, u16)> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Some((addr.ip().to_string(), addr.port())).filter(|_| addr.port() != 0);
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|p| *p != 0)?;
    let ok = (1..=253).contains(&host.len())
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    ok.then(|| (host.to_owned(), port))
}

/// The view of the other nodes, and when to look again. Pure.
pub struct View {
    interval: Duration,
    own: Option<SocketAddr>,
    fixed: BTreeSet<SocketAddr>,
    by_name: BTreeMap<(String, u16), BTreeSet<IpAddr>>,
    quick_until: Instant,
    was_alone: bool,
}

impl View {
    /// The view that `config` asks for, without this node's `own` mesh address.
    pub fn new(config: &Config, own: Option<SocketAddr>, now: Instant) -> Self {
        let mut view = Self {
            interval: Duration::from_secs(5),
            own,
            fixed: BTreeSet::new(),
            by_name: BTreeMap::new(),
            quick_until: now + QUICK_FOR,
            was_alone: true,
        };
        if let Some(dns) = &config.dns {
            view.interval = Duration::from_secs(dns.interval_seconds.into());
            view.by_name.insert((dns.name.clone(), dns.port), BTreeSet::new());
        }
        for (host, port) in config.peers.iter().filter_map(|p| split_host_port(p)) {
            match host.parse::<IpAddr>() {
                Ok(ip) => _ = view.fixed.insert(SocketAddr::new(ip.to_canonical(), port)),
                Err(_) => _ = view.by_name.insert((host, port), BTreeSet::new()),
            }
        }
        view
    }

    /// The names to look up.
    pub fn names(&self) -> Vec<(String, u16)> {
        self.by_name.keys().cloned().collect()
    }

    /// Takes the answer for one of [`View::names`]; whether it changed anything. An empty answer
    /// changes nothing: a node that asks is itself among its name's addresses.
    pub fn answer(&mut self, name: &(String, u16), ips: &[IpAddr], now: Instant) -> bool {
        let Some(last) = self.by_name.get_mut(name) else { return false };
        let new: BTreeSet<IpAddr> = ips.iter().map(IpAddr::to_canonical).collect();
        if new.is_empty() || *last == new {
            return false;
        }
        *last = new;
        self.quick_until = now + QUICK_FOR;
        true
    }

    /// Every other node's address.
    pub fn peers(&self) -> BTreeSet<SocketAddr> {
        let by_name = self
            .by_name
            .iter()
            .flat_map(|((_, port), ips)| ips.iter().map(|ip| SocketAddr::new(*ip, *port)));
        by_name.chain(self.fixed.iter().copied()).filter(|a| Some(*a) != self.own).collect()
    }

    /// Whether it says anything yet. A name that was never answered says nothing, least of all that
    /// there are no other nodes.
    pub fn says(&self) -> bool {
        self.by_name.values().all(|ips| !ips.is_empty()) || !self.peers().is_empty()
    }

    /// How long to wait before looking again.
    pub fn pause(&mut self, alone: bool, ttl: Duration, now: Instant) -> Duration {
        if alone && !self.was_alone {
            self.quick_until = now + QUICK_FOR;
        }
        self.was_alone = alone;
        // After a change the names settle within seconds; a node alone for good asks no one much.
        let settled = now + QUICK_FOR > self.quick_until + Duration::from_secs(10);
        if now < self.quick_until && (alone || !settled) {
            return QUICK.min(self.interval);
        }
        self.interval.min(ttl.max(QUICK))
    }
}

/// Counts of lookups.
#[derive(Clone, Default)]
pub struct DiscoveryMetrics {
    lookups: Family<ResultLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

impl DiscoveryMetrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("discovery_lookups", "Lookups of names", self.lookups.clone());
    }

    fn count(&self, result: &'static str) {
        self.lookups.get_or_create(&ResultLabel { result }).inc();
    }
}

/// Looks again and again, and hands each view that says anything to `apply`, until `stop`. `alone`
/// tells whether no other node is linked.
pub async fn run(
    mut view: View,
    lookup: Arc<dyn Lookup>,
    metrics: DiscoveryMetrics,
    alone: impl Fn() -> bool + Send,
    apply: impl Fn(&BTreeSet<SocketAddr>) + Send,
    stop: CancellationToken,
) {
    let tell = |view: &View| {
        if view.says() {
            apply(&view.peers());
        }
    };
    tell(&view);
    let mut failing = false;
    loop {
        let mut ttl = Duration::MAX;
        let mut failed = None;
        for name in view.names() {
            let answer = tokio::select! {
                a = lookup.lookup(&name.0) => a,
                () = stop.cancelled() => return,
            };
            match answer {
                Ok(found) => {
                    metrics.count("ok");
                    ttl = ttl.min(found.ttl);
                    if view.answer(&name, &found.ips, Instant::now()) {
                        info!(name = name.0, peers = view.peers().len(), "the peers changed");
                    }
                }
                Err(error) => {
                    metrics.count("error");
                    failed = Some((name.0, error));
                }
            }
        }
        if let Some((name, error)) = &failed
            && !failing
        {
            warn!(name, error, "a lookup failed: the last view of the peers stays");
        }
        failing = failed.is_some();
        tell(&view);
        let pause = view.pause(alone(), ttl, Instant::now());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests;
