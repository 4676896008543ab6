//! How long a join waits for a peer that may be holding back broadcasts.

use bytes::BytesMut;
use tokio::time::Instant;

use super::*;

struct Nobody;

impl Local for Nobody {
    fn deliver(&self, _: Broadcast) {}
}

/// The link of a peer that has been told everything, and has confirmed nothing since.
const LINK: u64 = 7;
const PEER: Instance = [7; 16];

/// A mesh with that link.
async fn mesh() -> Mesh {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (cluster, name) = ("c".to_owned(), "a".to_owned());
    let config = MeshConfig {
        identity: Identity { cluster, name, instance: [1; 16], ip: None, port: 1 },
        keys: Keys::new("token".into()),
        peer_buffer: 1 << 20,
        routing: Routing::default(),
        timing: Timing::default(),
    };
    let mesh = Mesh::start(config, listener, Arc::new(transport::Tcp), Arc::new(Nobody));
    mesh.set_patterns(&[]);
    {
        let mut wanted = mesh.0.wanted.lock();
        wanted.confirm(LINK, PEER, 0);
        let mut told = BytesMut::new();
        // The topics, then that these are all.
        wanted.take(LINK, &mut told);
        wanted.take(LINK, &mut told);
    }
    mesh
}

#[tokio::test(start_paused = true)]
async fn a_join_waits_for_a_peer_that_does_not_confirm_so_long_and_goes_on() {
    let (mesh, begun) = (mesh().await, Instant::now());
    mesh.subscribe(&"room:1".into()).await;
    assert_eq!((begun.elapsed(), mesh.0.metrics.unconfirmed.get()), (CONFIRM_WAIT, 1));
}

#[tokio::test(start_paused = true)]
async fn a_join_waits_no_longer_than_until_its_topic_is_confirmed() {
    let (mesh, begun) = (mesh().await, Instant::now());
    let peer = async {
        tokio::time::sleep(CONFIRM_WAIT / 2).await;
        mesh.0.wanted.lock().confirm(LINK, PEER, u64::MAX);
    };
    tokio::join!(mesh.subscribe(&"room:1".into()), peer);
    assert_eq!((begun.elapsed(), mesh.0.metrics.unconfirmed.get()), (CONFIRM_WAIT / 2, 0));
    mesh.subscribe(&"room:1".into()).await;
    assert_eq!(begun.elapsed(), CONFIRM_WAIT / 2, "it is known by now");
}
