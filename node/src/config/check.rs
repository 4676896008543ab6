//! What a configuration must mean beyond being well formed. Pure; finds every problem at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use sluice_node_api::config::{
    Adapter, ChannelRule, CheckOrigin, HistoryRule, LiveConfig, NodeConfig, Origin, PresenceRule,
};

use crate::{arrivals::DISCONNECT, message::matches};

/// (field, what is wrong with it).
pub type Found = Vec<(String, String)>;

/// Longest pause of a drain, in seconds: a day.
const MAX_SECONDS: f64 = 86_400.0;
/// Longest name, URL or claim, in bytes.
pub(super) const MAX_TEXT: usize = 2048;
/// Most topic rules.
const MAX_RULES: usize = 256;
/// Most allowed origins.
const MAX_ORIGINS: usize = 256;
/// Largest client message that still fits the mesh.
const MAX_MESSAGE: u64 = 16_000_000;

/// Checks a [`NodeConfig`]; empty when all is well. Files it names are not looked at.
pub fn check_node(c: &NodeConfig) -> Found {
    let mut out = Out::default();
    out.that("cluster", (1..=255).contains(&c.cluster.len()), "must have 1 to 255 bytes");
    listen(c, &mut out);
    discovery(c, &mut out);
    pubsub(c, &mut out);
    socket(c, &mut out);
    super::auth::check(&c.auth, &mut out);
    super::webhooks::check(c.webhooks.as_ref(), &mut out);
    out.that("shutdownSeconds", c.shutdown_seconds <= 86_400, "must be at most 86400");
    out.0
}

/// Checks a [`LiveConfig`]; empty when all is well.
pub fn check_live(c: &LiveConfig) -> Found {
    let mut out = Out::default();
    out.that("channels", c.channels.len() <= MAX_RULES, "must be at most 256 rules");
    let mut seen = BTreeMap::new();
    for (i, rule) in c.channels.iter().enumerate().take(MAX_RULES) {
        let at = format!("channels[{i}]");
        check_rule(&at, rule, &mut out);
        if let Some(first) = seen.insert(rule.topic.as_str(), i) {
            let reason = format!("{:?} is the topic of channels[{first}] already", rule.topic);
            out.add(&format!("{at}.topic"), reason);
        }
    }
    for (field, value) in [
        ("drain.initialDelaySeconds", c.drain.initial_delay_seconds),
        ("drain.waitSeconds", c.drain.wait_seconds),
        ("drain.batchIntervalSeconds", c.drain.batch_interval_seconds),
        ("drain.timeoutSeconds", c.drain.timeout_seconds.unwrap_or_default()),
    ] {
        // False for NaN too.
        out.that(field, (0.0..=MAX_SECONDS).contains(&value), "must be 0 to 86400 seconds");
    }
    out.that("drain.batchSize", c.drain.batch_size >= 1, "must be at least 1");
    let buffered =
        c.limits.max_buffered_bytes.is_none_or(|most| (16 << 20..=1 << 40).contains(&most));
    out.that("limits.maxBufferedBytes", buffered, "must be 16777216 to 1099511627776");
    out.0
}

/// Topic rules that are valid and of no use: one before them takes all their topics.
pub fn never_used(c: &LiveConfig) -> Found {
    let covers = |rule: &ChannelRule, other: &ChannelRule| {
        rule.topic.ends_with('*') && matches(&rule.topic, other.topic.trim_end_matches('*'))
    };
    let rules = c.channels.iter().take(MAX_RULES).enumerate();
    let found = rules.filter_map(|(i, rule)| {
        let first = c.channels[..i].iter().position(|before| covers(before, rule))?;
        let topic = &c.channels[first].topic;
        let reason =
            format!("never used: channels[{first}], {topic:?}, takes all its topics first");
        Some((format!("channels[{i}]"), reason))
    });
    found.collect()
}

/// What is found.
#[derive(Default)]
pub(super) struct Out(Found);

impl Out {
    pub(super) fn found(self) -> Found {
        self.0
    }
    pub(super) fn add(&mut self, field: &str, reason: impl Into<String>) {
        self.0.push((field.to_owned(), reason.into()));
    }
    /// Checks that it is a URL by which this node can ask.
    pub(super) fn url(&mut self, field: &str, url: &str) {
        let http = ["https://", "http://"].iter().any(|scheme| url.starts_with(scheme));
        let has_host = |uri: http::Uri| {
            let port = uri.authority().is_some_and(|host| match host.as_str().rsplit_once(':') {
                // Of an IPv6 address without a port.
                Some((_, port)) if port.ends_with(']') => true,
                Some((_, port)) => port.parse::<u16>().is_ok_and(|port| port > 0),
                None => true,
            });
            port && uri.host().is_some_and(|host| !host.is_empty())
        };
        let ok = http && url.len() <= MAX_TEXT && url.parse().is_ok_and(has_host);
        self.that(
            field,
            ok,
            "must be a URL with a host, and a port of 1 to 65535 if any: `https://…`",
        );
    }
    pub(super) fn that(&mut self, field: &str, ok: bool, must: &str) {
        if !ok {
            self.add(field, must);
        }
    }
}

fn check_rule(at: &str, rule: &ChannelRule, out: &mut Out) {
    let topic = format!("{at}.topic");
    out.that(&topic, (1..=255).contains(&rule.topic.len()), "must have 1 to 255 bytes");
    let stars = rule.topic.matches('*').count();
    let trailing = stars == 0 || stars == 1 && rule.topic.ends_with('*');
    out.that(&topic, trailing, "may have one `*`, as its last character");
    out.that(&topic, rule.topic != "phoenix", "`phoenix` is reserved for heartbeats");
    let events = format!("{at}.events");
    out.that(&events, rule.events.len() <= 64, "must be at most 64 events");
    let mut seen = BTreeSet::new();
    for e in &rule.events {
        out.that(&events, (1..=255).contains(&e.len()), "an event must have 1 to 255 bytes");
        out.that(&events, !e.starts_with("phx_"), "events `phx_*` are reserved");
        let must = "`disconnect` closes sockets and is never relayed: give yours another name";
        out.that(&events, e != DISCONNECT, must);
        if !seen.insert(e) {
            out.add(&events, format!("{e:?} stands there twice"));
        }
    }
    super::auth::check_join(at, rule.join.as_ref(), out);
    super::webhooks::check_rule(at, rule.webhooks.as_ref(), out);
    check_presence(&format!("{at}.presence"), rule.presence.as_ref(), out);
    check_history(&format!("{at}.history"), rule.history.as_ref(), out);
    let rate = rule.max_messages_per_second.is_none_or(|rate| (1..=100_000).contains(&rate));
    out.that(&format!("{at}.maxMessagesPerSecond"), rate, "must be 1 to 100000");
    let payload = (1..=8_000_000).contains(&rule.max_payload_bytes);
    out.that(&format!("{at}.maxPayloadBytes"), payload, "must be 1 to 8000000");
}

fn check_presence(at: &str, presence: Option<&PresenceRule>, out: &mut Out) {
    let Some(rule) = presence else { return };
    let both = rule.key_claim.is_some() && rule.key_param.is_some();
    out.that(at, !both, "takes its key from a claim or from a parameter, not from both");
    let short = |name: &String| (1..=255).contains(&name.len());
    for (field, name) in [("keyClaim", &rule.key_claim), ("keyParam", &rule.key_param)] {
        let ok = name.as_ref().is_none_or(short);
        out.that(&format!("{at}.{field}"), ok, "must have 1 to 255 bytes");
    }
    for (field, names) in [("metaClaims", &rule.meta_claims), ("metaFields", &rule.meta_fields)] {
        let field = format!("{at}.{field}");
        out.that(&field, names.len() <= 16, "must be at most 16 names");
        out.that(&field, names.iter().all(short), "a name must have 1 to 255 bytes");
        let own = names.iter().any(|name| name == "online_at" || name.starts_with("phx_"));
        out.that(&field, !own, "`online_at` and `phx_*` are written by presence itself");
    }
    let bytes = (64..=16_384).contains(&rule.max_meta_bytes);
    out.that(&format!("{at}.maxMetaBytes"), bytes, "must be 64 to 16384");
}

fn check_history(at: &str, history: Option<&HistoryRule>, out: &mut Out) {
    let Some(rule) = history else { return };
    out.that(&format!("{at}.size"), (1..=1000).contains(&rule.size), "must be 1 to 1000");
    let age = (1..=86_400).contains(&rule.max_age_seconds);
    out.that(&format!("{at}.maxAgeSeconds"), age, "must be 1 to 86400");
    let bytes = (1024..=1 << 20).contains(&rule.max_bytes);
    out.that(&format!("{at}.maxBytes"), bytes, "must be 1024 to 1048576");
}

fn listen(c: &NodeConfig, out: &mut Out) {
    let mut seen: Vec<(SocketAddr, &str)> = Vec::new();
    for (field, value) in [
        ("listen.http", &c.listen.http),
        ("listen.mesh", &c.listen.mesh),
        ("listen.admin", &c.listen.admin),
        ("listen.publish", &c.listen.publish),
    ] {
        match value.parse::<SocketAddr>() {
            Err(_) => out.add(field, format!("{value:?} is no address: write `ip:port`")),
            Ok(a) if a.port() != 0 => {
                if let Some((taken, other)) = seen.iter().find(|(other, _)| overlap(a, *other)) {
                    out.add(field, format!("{value} is taken by {other}, {taken}"));
                }
                seen.push((a, field));
            }
            Ok(_) => {}
        }
    }
}

/// Whether not both can be listened on. `[::]` takes the addresses of IPv4 as well.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let (a_ip, b_ip) = (a.ip().to_canonical(), b.ip().to_canonical());
    let all = |ip: IpAddr, of: IpAddr| ip.is_unspecified() && (ip.is_ipv6() || of.is_ipv4());
    a.port() == b.port() && (a_ip == b_ip || all(a_ip, b_ip) || all(b_ip, a_ip))
}

fn discovery(c: &NodeConfig, out: &mut Out) {
    if let Some(dns) = &c.discovery.dns {
        let ok = (1..=253).contains(&dns.name.len())
            && dns.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        out.that("discovery.dns.name", ok, "must be a DNS name");
        out.that("discovery.dns.port", dns.port != 0, "must be 1 to 65535");
        let interval = (1..=3600).contains(&dns.interval_seconds);
        out.that("discovery.dns.intervalSeconds", interval, "must be 1 to 3600");
    }
    out.that("discovery.peers", c.discovery.peers.len() <= 1024, "must be at most 1024 peers");
    for (i, peer) in c.discovery.peers.iter().enumerate() {
        if crate::discovery::split_host_port(peer).is_none() {
            let field = format!("discovery.peers[{i}]");
            out.add(&field, format!("{peer:?} is no address: write `host:port`"));
        }
    }
    let finds = c.discovery.dns.is_some() || !c.discovery.peers.is_empty();
    if finds && c.pubsub.adapter == Adapter::Mesh && c.tokens.mesh_file.is_none() {
        let reason = "needs `tokens.meshFile`: without a token there are no links between nodes";
        out.add("discovery", reason);
    }
}

fn pubsub(c: &NodeConfig, out: &mut Out) {
    let ok = (65_536..=1 << 32).contains(&c.pubsub.peer_buffer_bytes);
    out.that("pubsub.peerBufferBytes", ok, "must be 65536 to 4294967296");
    if c.pubsub.adapter == Adapter::Redis && c.pubsub.redis.is_none() {
        out.add("pubsub.adapter", "Redis needs `pubsub.redis.urlFile`");
    }
}

fn socket(c: &NodeConfig, out: &mut Out) {
    let s = &c.socket;
    // Clients take `.` and `..` out of a URL before they ask.
    let part = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    let path = s.path.strip_prefix('/').is_some_and(|parts| parts.split('/').all(part));
    let must = "must be a path such as `/socket`, without a slash at its end, and without `.`, `..` or \
                nothing between two slashes";
    out.that("socket.path", path, must);
    let frame = (1024..=MAX_MESSAGE).contains(&s.max_frame_bytes);
    out.that("socket.maxFrameBytes", frame, "must be 1024 to 16000000");
    out.that("socket.idleTimeoutSeconds", s.idle_timeout_seconds >= 1, "must be at least 1");
    out.that("socket.maxChannels", s.max_channels >= 1, "must be at least 1");
    for (field, rate) in [
        ("socket.maxJoinsPerSecond", s.max_joins_per_second),
        ("socket.maxMessagesPerSecond", s.max_messages_per_second),
    ] {
        let ok = rate.is_none_or(|rate| (1..=100_000).contains(&rate));
        out.that(field, ok, "must be 1 to 100000");
    }
    let connects = s.max_connects_per_second >= 1;
    out.that("socket.maxConnectsPerSecond", connects, "must be at least 1");
    origins(c, out);
}

fn origins(c: &NodeConfig, out: &mut Out) {
    let host = c.socket.host.as_deref();
    let parsed = host.map(|host| Origin::parse(&format!("//{host}")));
    let plain = |origin: &Origin| origin.port.is_none() && !origin.host.starts_with('*');
    let ok = parsed.is_none_or(|origin| origin.as_ref().is_some_and(plain));
    out.that("socket.host", ok, "must be a host such as `chat.example.com`, without a port");
    match &c.socket.check_origin {
        CheckOrigin::Off => {}
        CheckOrigin::Host => {
            out.that("socket.checkOrigin", host.is_some(), "true needs `socket.host`");
        }
        CheckOrigin::List(list) => {
            out.that(
                "socket.checkOrigin",
                list.len() <= MAX_ORIGINS,
                "must be at most 256 origins",
            );
            for (i, text) in list.iter().enumerate().take(MAX_ORIGINS) {
                if Origin::parse(text).is_none() {
                    let field = format!("socket.checkOrigin[{i}]");
                    let reason = "is no origin: write `//host`, `scheme://host:port` or `//*.host`";
                    out.add(&field, format!("{text:?} {reason}"));
                }
            }
        }
    }
}
