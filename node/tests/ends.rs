//! How channels of a program end: what `terminate` is told, and how long it may take. Each test names the
//! rule that it stands for.

mod plane;

use std::sync::Arc;

use parking_lot::Mutex;
use plane::{Node, PATIENCE, ok, session::Session};
use serde_json::json;
use sluice_node::{
    channel::{
        Accept, Channel, Connect, Ctx, End, JoinError, Mount, Payload, Refused, Router, UserSocket,
    },
    pubsub::{Broadcast, Kind},
    server::Builder,
};
use sluice_node_api::{
    admin::{DrainMode, DrainPhase, DrainRequest},
    config::NodeConfig,
};
use tokio::time::{Duration, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

/// What channels write down: `topic: what`.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn write(&self, topic: &str, what: &str) {
        self.0.lock().push(format!("{topic}: {what}"));
    }

    fn has(&self, line: &str) -> bool {
        self.0.lock().iter().any(|known| known == line)
    }
}

impl UserSocket for Diary {
    async fn connect(&self, _: &Connect) -> Result<Accept, Refused> {
        Ok(Accept::new().id("users:anna").assign(self.clone()))
    }
}

/// Writes down how it ends, and speaks when its socket does, on `loud` whatever ends it; on `slow` it takes
/// its time, on `endless` all there is.
struct Writer(Diary);

/// Writes down that it was let go of.
struct Held<'a>(&'a Diary, &'a str);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.write(self.1, "let go of");
    }
}

impl Channel for Writer {
    type Info = ();

    async fn join(_: Payload, ctx: &Ctx) -> Result<(Self, Payload), JoinError> {
        let diary = ctx.socket().assign::<Diary>().ok_or("a socket without a diary")?.clone();
        diary.write(ctx.topic(), "joined");
        Ok((Self(diary), Payload::empty()))
    }

    async fn terminate(&mut self, end: End, ctx: &Ctx) {
        self.0.write(ctx.topic(), &format!("{end:?}"));
        if end == End::Disconnected || ctx.topic() == "loud" {
            let _ = ctx.push("last_words", json!({}));
        }
        let _held = Held(&self.0, ctx.topic());
        match ctx.topic() {
            "slow" => sleep(Duration::from_millis(500)).await,
            "endless" => std::future::pending().await,
            _ => {}
        }
        self.0.write(ctx.topic(), "done");
    }
}

async fn node(diary: &Diary) -> Node {
    let mut config = NodeConfig::default();
    config.listen.http = "127.0.0.1:0".into();
    let channels = Router::new().channel::<Writer>("*");
    let mount = Mount::new("/socket", diary.clone()).channels(channels);
    let shutdown = CancellationToken::new();
    let builder = Builder::new(&config).mount(mount).shards(2);
    let (hub, address) = builder.start(shutdown.clone()).await.expect("a free port");
    Node { hub, address, shutdown }
}

fn drain(node: &Node) {
    node.hub.start_drain(DrainRequest {
        mode: DrainMode::Immediate,
        initial_delay_seconds: 0.0,
        wait_seconds: 0.0,
        batch_size: 1,
        batch_interval_seconds: 1.0,
        ttl_seconds: 60.0,
    });
}

#[tokio::test]
async fn p_err_5_p_drain_3_a_drained_socket_closes_with_1012_and_its_channels_terminate_unheard() {
    let diary = Diary::default();
    let node = node(&diary).await;
    let mut client = node.joined("a").await;
    client.join("b").await;
    drain(&node);
    // No `phx_close`, no `phx_error`, and nothing of what they say at the end.
    let next = client.message().await;
    assert!(
        matches!(&next, Message::Close(Some(frame)) if u16::from(frame.code) == 1012),
        "{next}"
    );
    for topic in ["a", "b"] {
        let line = format!("{topic}: Disconnected");
        node.until(&line, |_| diary.has(&line)).await;
    }
    timeout(PATIENCE, node.hub.drained()).await.expect("drained");
    assert_eq!(node.hub.drain_status().phase, DrainPhase::Drained);
    node.until("no channel", |hub| hub.counts() == Default::default()).await;
}

#[tokio::test]
async fn p_err_5_whatever_ends_a_socket_its_channels_terminate() {
    for end in ["lost", "closed", "undecodable", "disconnected", "shutdown"] {
        let diary = Diary::default();
        let node = node(&diary).await;
        let mut client = node.joined("a").await;
        match end {
            "lost" => drop(client),
            "closed" => client.0.close(None).await.expect("open"),
            "undecodable" => client.raw(Message::text("x")).await,
            "disconnected" => node.hub.broadcast(Broadcast {
                topic: "users:anna".into(),
                event: "disconnect".into(),
                kind: Kind::Json,
                payload: "{}".into(),
            }),
            _ => node.shutdown.cancel(),
        }
        node.until(end, |_| diary.has("a: Disconnected")).await;
        node.until(end, |_| diary.has("a: done")).await;
    }
}

#[tokio::test]
async fn p_join_5_the_channel_before_has_time_to_end_and_is_killed_when_it_does_not() {
    let diary = Diary::default();
    let node = node(&diary).await;
    let mut client = node.client().await;
    for topic in ["slow", "endless"] {
        client.join(topic).await;
        client.send(json!(["5", "6", topic, "phx_join", {}])).await;
        assert_eq!(client.next().await, ok("5", "6", topic));
        assert_eq!(client.next().await, json!(["1", "1", topic, "phx_close", {}]));
    }
    let lines: Vec<_> = diary.0.lock().clone();
    let of = |topic: &str| -> Vec<_> {
        let lines = lines.iter().filter_map(|line| line.strip_prefix(topic)?.strip_prefix(": "));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(of("slow"), ["joined", "Replaced", "done", "let go of", "joined"]);
    assert_eq!(of("endless"), ["joined", "Replaced", "let go of", "joined"]);
}

#[tokio::test]
async fn p_join_2_p_join_5_what_a_replaced_channel_says_last_follows_the_reply_and_precedes_its_close()
 {
    let node = node(&Diary::default()).await;
    let mut client = node.joined("loud").await;
    client.send(json!(["5", "6", "loud", "phx_join", {}])).await;
    assert_eq!(client.next().await, ok("5", "6", "loud"));
    assert_eq!(client.next().await, json!(["1", null, "loud", "last_words", {}]));
    assert_eq!(client.next().await, json!(["1", "1", "loud", "phx_close", {}]));
    // One that is left speaks after it is closed (`P-LEAVE-1`).
    client.send(json!(["5", "7", "loud", "phx_leave", {}])).await;
    assert_eq!(client.next().await, ok("5", "7", "loud"));
    assert_eq!(client.next().await, json!(["5", "5", "loud", "phx_close", {}]));
    assert_eq!(client.next().await, json!(["5", null, "loud", "last_words", {}]));
}

/// Panics at the end of each of its sockets.
struct Cursed;

impl UserSocket for Cursed {
    async fn connect(&self, _: &Connect) -> Result<Accept, Refused> {
        Ok(Accept::new().on_end(|code| panic!("on purpose, of {code}")))
    }
}

#[tokio::test]
async fn a_panic_at_the_end_of_a_socket_costs_no_other_anything() {
    let mut config = NodeConfig::default();
    config.listen.http = "127.0.0.1:0".into();
    let shutdown = CancellationToken::new();
    let cursed = Mount::new("/cursed", Cursed).longpoll(PATIENCE);
    let builder = Builder::new(&config).shards(1).mount(cursed).mount(Mount::open("/socket"));
    let (hub, address) = builder.start(shutdown.clone()).await.expect("a free port");
    let node = Node { hub, address, shutdown };
    let mut bystander = node.client().await;
    // Many of them at once, so that ends and beginnings meet in one turn of the shard.
    let ends = (0..40).map(|_| async {
        let session = Session::open(address, "/cursed").await;
        session.post(&["[".to_owned()]).await
    });
    let statuses = futures::future::join_all(ends).await;
    assert!(statuses.iter().all(|status| *status == 410), "{statuses:?}");
    bystander.is_quiet().await;
    node.until("all are gone", |hub| hub.counts().connections == 1).await;
}
