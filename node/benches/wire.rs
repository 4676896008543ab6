//! What bytes cost without a socket: the codec of frames, and the serializers. `cargo bench -p sluice-node`.

use bytes::Bytes;
use divan::{Bencher, black_box, counter::BytesCount};
use sluice_node::{
    frame::{self, Decoder},
    message::{Body, Outgoing, Ref, Status},
    pubsub::{Broadcast, Kind},
    serializer::Version,
};

/// Bytes of text in a message.
const SIZES: [usize; 3] = [32, 512, 16_384];
/// Frames that come at once.
const FRAMES: usize = 16;
const LIMIT: usize = 8_000_000;

fn main() {
    divan::main();
}

fn text(size: usize) -> String {
    format!(r#"{{"text":"{}"}}"#, "x".repeat(size))
}

fn push(version: Version, size: usize) -> String {
    let payload = text(size);
    match version {
        Version::V1 => format!(
            r#"{{"topic":"room:lobby","event":"message","payload":{payload},"ref":"7","join_ref":"1"}}"#
        ),
        Version::V2 => format!(r#"["1","7","room:lobby","message",{payload}]"#),
    }
}

/// A client's text frame, masked.
fn masked(text: &str) -> Vec<u8> {
    let mask = [0x5a, 0x13, 0xc4, 0x77];
    let bytes = text.bytes().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask);
    let mut frame = frame::text(text.as_bytes()).to_vec();
    frame[1] |= 0x80;
    let head = frame.len() - text.len();
    frame.truncate(head);
    frame.extend(mask);
    frame.extend(bytes);
    frame
}

/// Sixteen frames in one read, as they come from a client that is busy.
#[divan::bench(args = SIZES)]
fn decode_frames(bencher: Bencher<'_, '_>, size: usize) {
    let all = masked(&push(Version::V2, size)).repeat(FRAMES);
    bencher.counter(BytesCount::new(all.len())).with_inputs(|| all.clone()).bench_refs(|all| {
        let (mut decoder, mut bytes, mut count) = (Decoder::default(), &mut all[..], 0);
        while let Ok(Some(item)) = decoder.next(&mut bytes, LIMIT) {
            black_box(item);
            count += 1;
        }
        assert_eq!(count, FRAMES);
    });
}

/// The same, cut at every hundredth byte.
#[divan::bench(args = SIZES)]
fn decode_frames_in_pieces(bencher: Bencher<'_, '_>, size: usize) {
    let all = masked(&push(Version::V2, size)).repeat(FRAMES);
    bencher.counter(BytesCount::new(all.len())).with_inputs(|| all.clone()).bench_refs(|all| {
        let (mut decoder, mut count) = (Decoder::default(), 0);
        for mut piece in all.chunks_mut(100) {
            while let Ok(Some(item)) = decoder.next(&mut piece, LIMIT) {
                black_box(item);
                count += 1;
            }
        }
        assert_eq!(count, FRAMES);
    });
}

#[divan::bench(args = SIZES)]
fn encode_frame(bencher: Bencher<'_, '_>, size: usize) {
    let text = text(size);
    bencher.counter(BytesCount::new(text.len())).bench(|| frame::text(black_box(text.as_bytes())));
}

fn decode(bencher: Bencher<'_, '_>, version: Version, size: usize) {
    let text = push(version, size);
    bencher.counter(BytesCount::new(text.len())).bench(|| {
        let decoded = version.decode(black_box(&text)).map(|message| message.topic.len());
        assert!(decoded.is_ok());
    });
}

#[divan::bench(args = SIZES)]
fn decode_v1(bencher: Bencher<'_, '_>, size: usize) {
    decode(bencher, Version::V1, size);
}

#[divan::bench(args = SIZES)]
fn decode_v2(bencher: Bencher<'_, '_>, size: usize) {
    decode(bencher, Version::V2, size);
}

#[divan::bench(args = SIZES)]
fn decode_v2_binary(bencher: Bencher<'_, '_>, size: usize) {
    let mut bytes = vec![0, 1, 1, 10, 7];
    bytes.extend_from_slice(b"17room:lobbymessage");
    bytes.resize(bytes.len() + size, 9);
    bencher.counter(BytesCount::new(bytes.len())).bench(|| {
        let decoded = Version::V2.decode_binary(black_box(&bytes)).map(|m| m.topic.len());
        assert!(decoded.is_ok());
    });
}

fn broadcast(version: Version, bencher: Bencher<'_, '_>, size: usize) {
    let payload = Bytes::from(text(size));
    let (topic, event) = ("room:lobby".into(), "message".into());
    let broadcast = Broadcast { topic, event, kind: Kind::Json, payload };
    bencher.counter(BytesCount::new(size)).bench(|| {
        let mut out = Vec::new();
        assert!(version.encode_broadcast(black_box(&broadcast), &mut out).is_ok());
        out
    });
}

#[divan::bench(args = SIZES)]
fn encode_broadcast_v1(bencher: Bencher<'_, '_>, size: usize) {
    broadcast(Version::V1, bencher, size);
}

#[divan::bench(args = SIZES)]
fn encode_broadcast_v2(bencher: Bencher<'_, '_>, size: usize) {
    broadcast(Version::V2, bencher, size);
}

#[divan::bench]
fn encode_reply_v2(bencher: Bencher<'_, '_>) {
    let reference = |text| Ref::from_json(text).unwrap_or_default();
    let reply = Outgoing {
        join_ref: reference("\"1\""),
        reference: reference("\"7\""),
        topic: "room:lobby".into(),
        body: Body::Reply(Status::Ok, Kind::Json, Bytes::from_static(b"{}")),
    };
    bencher.bench(|| {
        let mut out = Vec::new();
        assert!(Version::V2.encode(black_box(&reply), &mut out).is_ok());
        out
    });
}
