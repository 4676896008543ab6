//! What nodes hear whatever topics they have subscribers of: presence, letters about long-poll
//! sessions, and `disconnect`, which must reach a node whose subscription of a socket's id is still
//! under way (`P-CON-10`). Without I/O.
//!
//! The bytes are `version (u8) · instance (16) · what (u8) · content`, on the channel of all nodes
//! or that of one. `what` is the kind of a signal, or 0: a broadcast, whose content is `payload kind
//! (u8) · topic length (u16 BE) · event length (u16 BE) · topic · event · payload`.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::RedisConfig;
use super::envelope::{Bad, VERSION};
use crate::arrivals::DISCONNECT;
use crate::pubsub::{Broadcast, Instance, Kind, Signal};
use crate::queue::Item;

const FIXED: usize = 1 + 16 + 1;
const BROADCAST: u8 = 0;

/// What one node has said to the others.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// To a part of each.
    Signal(Signal),
    /// To the sockets of an id.
    Broadcast(Broadcast),
    /// A kind that this version does not know.
    Unknown,
}

/// The channel of all nodes, or of one; never that of a topic.
pub(super) fn channel(cluster: &str, to: Option<&Instance>) -> String {
    let mut name = format!("sluice.nodes:{cluster}");
    if let Some(instance) = to {
        name.push(':');
        instance.iter().for_each(|byte| name.push_str(&format!("{byte:02x}")));
    }
    name
}

/// Whether a broadcast is for every node. An event of that name on a topic of channels is one too
/// many for nodes without subscribers, and does no harm.
pub(super) fn is_for_all(broadcast: &Broadcast) -> bool {
    &*broadcast.event == DISCONNECT
}

fn start(config: &RedisConfig, what: u8, content: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(FIXED + content);
    out.put_u8(VERSION);
    out.put_slice(&config.instance);
    out.put_u8(what);
    out
}

fn item(config: &RedisConfig, to: Option<&Instance>, bytes: BytesMut) -> Item {
    Item { head: channel(&config.cluster, to).into(), payload: bytes.freeze(), until: None }
}

/// A signal to one other node, or to all.
pub(super) fn encode_signal(config: &RedisConfig, to: Option<&Instance>, signal: &Signal) -> Item {
    let (what, content) = signal.parts();
    let mut out = start(config, what, content.len());
    out.put_slice(content);
    item(config, to, out)
}

/// A broadcast to all other nodes; `None` when a name is over 65,535 bytes.
pub(super) fn encode_broadcast(config: &RedisConfig, b: &Broadcast) -> Option<Item> {
    let lengths = [u16::try_from(b.topic.len()).ok()?, u16::try_from(b.event.len()).ok()?];
    let mut out = start(config, BROADCAST, 5 + b.topic.len() + b.event.len() + b.payload.len());
    out.put_u8(b.kind.to_byte());
    lengths.into_iter().for_each(|length| out.put_u16(length));
    out.put_slice(b.topic.as_bytes());
    out.put_slice(b.event.as_bytes());
    out.put_slice(&b.payload);
    Some(item(config, None, out))
}

/// What was said, and by whom.
pub(super) fn decode(bytes: &[u8]) -> Result<(Instance, Said), Bad> {
    match bytes.first() {
        Some(&version) if version != VERSION => Err(Bad::Version(version)),
        _ => parse(bytes).ok_or(Bad::Malformed),
    }
}

fn parse(bytes: &[u8]) -> Option<(Instance, Said)> {
    let (fixed, content) = bytes.split_first_chunk::<FIXED>()?;
    let (instance, what) = fixed[1..].split_first_chunk::<16>()?;
    let said = match *what.first()? {
        BROADCAST => Said::Broadcast(broadcast(content)?),
        what => Signal::from_parts(what, Bytes::copy_from_slice(content))
            .map_or(Said::Unknown, Said::Signal),
    };
    Some((*instance, said))
}

fn broadcast(content: &[u8]) -> Option<Broadcast> {
    let ([kind, lengths @ ..], rest) = content.split_first_chunk::<5>()?;
    let length = |at: usize| usize::from(u16::from_be_bytes([lengths[at], lengths[at + 1]]));
    let (topic, rest) = rest.split_at_checked(length(0))?;
    let (event, payload) = rest.split_at_checked(length(2))?;
    Some(Broadcast {
        topic: Arc::from(std::str::from_utf8(topic).ok()?),
        event: Arc::from(std::str::from_utf8(event).ok()?),
        kind: Kind::from_byte(*kind)?,
        payload: Bytes::copy_from_slice(payload),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config() -> RedisConfig {
        RedisConfig { url_file: "x".into(), cluster: "a/b".into(), instance: [7; 16], buffer: 1 }
    }

    #[test]
    fn channels_of_nodes_are_those_of_no_topic() {
        let names = [channel("a/b", None), channel("a/b", Some(&[255; 16])), channel("a", None)];
        assert_eq!(names[1], format!("sluice.nodes:a/b:{}", "ff".repeat(16)));
        for name in &names {
            assert!(!name.starts_with(&super::super::envelope::channel("", "")), "{name}");
        }
    }

    #[test]
    fn a_kind_of_a_later_version_is_told_from_what_is_broken() {
        let of = |what: u8, content: &[u8]| {
            decode(&[&[VERSION][..], &[7; 16], &[what], content].concat())
        };
        assert_eq!(of(200, b"x"), Ok(([7; 16], Said::Unknown)));
        assert_eq!(of(BROADCAST, &[0, 0, 9, 0, 0, b'x']), Err(Bad::Malformed));
        assert_eq!(decode(&[VERSION; 4]), Err(Bad::Malformed));
        assert_eq!(decode(&[VERSION + 1; 40]), Err(Bad::Version(VERSION + 1)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            topic in ".{0,30}", event in ".{0,30}",
            payload in proptest::collection::vec(any::<u8>(), 0..300), binary: bool,
        ) {
            let kind = if binary { Kind::Binary } else { Kind::Json };
            let payload = Bytes::from(payload);
            let signal = Signal::Presence(payload.clone());
            let b = Broadcast { topic: topic.into(), event: event.into(), kind, payload };
            let item = encode_broadcast(&config(), &b).unwrap();
            prop_assert_eq!(decode(&item.payload), Ok(([7; 16], Said::Broadcast(b))));
            let item = encode_signal(&config(), Some(&[1; 16]), &signal);
            prop_assert_eq!(decode(&item.payload), Ok(([7; 16], Said::Signal(signal))));
        }

        #[test]
        fn any_bytes_are_a_word_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&bytes);
        }
    }
}
