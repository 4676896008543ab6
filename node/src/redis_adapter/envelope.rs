//! The bytes of a broadcast in Redis: `version (u8) · instance (16) · payload kind (u8) · event
//! length (u16 BE) · event · payload`, on the channel of its topic. Without I/O.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::RedisConfig;
use crate::mesh::handshake::Instance;
use crate::pubsub::{Broadcast, Kind};
use crate::queue::Item;

/// The version of the envelope; another one is refused.
pub(super) const VERSION: u8 = 2;
const FIXED: usize = 1 + 16 + 1 + 2;

/// Why bytes are no broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// An envelope of another version.
    Version(u8),
    /// No envelope.
    Malformed,
}

/// The channel of a topic.
pub(super) fn channel(cluster: &str, topic: &str) -> String {
    format!("sluice:{cluster}:{topic}")
}

/// The channel as head, the envelope as payload; `None` for an event over 65,535 bytes.
pub(super) fn encode(config: &RedisConfig, b: &Broadcast) -> Option<Item> {
    let event_len = u16::try_from(b.event.len()).ok()?;
    let mut out = BytesMut::with_capacity(FIXED + b.event.len() + b.payload.len());
    out.put_u8(VERSION);
    out.put_slice(&config.instance);
    out.put_u8(b.kind.to_byte());
    out.put_u16(event_len);
    out.put_slice(b.event.as_bytes());
    out.put_slice(&b.payload);
    let head = Bytes::from(channel(&config.cluster, &b.topic));
    Some(Item { head, payload: out.freeze(), until: None })
}

/// The broadcast and who sent it.
pub(super) fn decode(
    cluster: &str,
    channel: &str,
    bytes: &[u8],
) -> Result<(Instance, Broadcast), Bad> {
    match bytes.first() {
        Some(&version) if version != VERSION => Err(Bad::Version(version)),
        _ => parse(cluster, channel, bytes).ok_or(Bad::Malformed),
    }
}

fn parse(cluster: &str, channel: &str, bytes: &[u8]) -> Option<(Instance, Broadcast)> {
    let topic = channel.strip_prefix("sluice:")?.strip_prefix(cluster)?.strip_prefix(':')?;
    let (fixed, rest) = bytes.split_first_chunk::<FIXED>()?;
    let (instance, fixed) = fixed[1..].split_first_chunk::<16>()?;
    let (kind, len) = fixed.split_first()?;
    let len = usize::from(u16::from_be_bytes(*len.first_chunk()?));
    let event = std::str::from_utf8(rest.get(..len)?).ok()?;
    let broadcast = Broadcast {
        topic: Arc::from(topic),
        event: Arc::from(event),
        kind: Kind::from_byte(*kind)?,
        payload: Bytes::copy_from_slice(&rest[len..]),
    };
    Some((*instance, broadcast))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(cluster: &str) -> RedisConfig {
        RedisConfig { url_file: "x".into(), cluster: cluster.into(), instance: [7; 16], buffer: 1 }
    }

    #[test]
    fn another_version_is_told_from_what_is_no_envelope() {
        assert_eq!(decode("c", "sluice:c:t", &[1; 40]), Err(Bad::Version(1)));
        assert_eq!(decode("c", "sluice:c:t", &[VERSION; 4]), Err(Bad::Malformed));
        assert_eq!(decode("c", "sluice:c:t", &[]), Err(Bad::Malformed));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            cluster in "[a-z:/]{1,10}", topic in ".{0,30}", event in ".{0,30}",
            payload in proptest::collection::vec(any::<u8>(), 0..500), binary: bool,
        ) {
            let kind = if binary { Kind::Binary } else { Kind::Json };
            let b = Broadcast { topic: topic.into(), event: event.into(), kind, payload: payload.into() };
            let item = encode(&config(&cluster), &b).unwrap();
            let channel = std::str::from_utf8(&item.head).unwrap();
            let got = decode(&cluster, channel, &item.payload);
            prop_assert_eq!(got, Ok(([7; 16], b)));
        }

        #[test]
        fn any_bytes_are_an_envelope_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode("c", "sluice:c:t", &bytes);
            prop_assert!(decode("c", "sluice:d:t", &bytes).is_err());
        }
    }
}
