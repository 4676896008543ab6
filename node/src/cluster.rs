//! Links a program's node to others by the mesh, when it has no configuration file that says how.
//! The whole node does the same in `run::parts`.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use sluice_node_api::config::Routing;
use tokio::net::{TcpListener, TcpStream};

use crate::{
    hub::Hub,
    keys::Keys,
    mesh::{Mesh, MeshConfig, Timing, handshake::Identity, transport::Tcp},
};

/// Bytes that may wait for one peer.
const PEER_BUFFER: usize = 8 << 20;
const LOOK: Duration = Duration::from_millis(20);
const KNOCK: Duration = Duration::from_millis(500);

/// Takes links of other nodes on `listener`, dials `peers`, and carries `hub`'s broadcasts. All
/// nodes of a cluster have the same `secret`; `name` tells them apart.
///
/// # Errors
///
/// When the listener has no address.
pub fn join(
    hub: &Hub,
    listener: TcpListener,
    peers: &[SocketAddr],
    secret: impl Into<Bytes>,
    name: impl Into<String>,
) -> std::io::Result<Mesh> {
    let own = listener.local_addr()?;
    let identity = Identity {
        cluster: "sluice".into(),
        name: name.into(),
        instance: hub.instance(),
        ip: Some(own.ip()).filter(|ip| !ip.is_unspecified()),
        port: own.port(),
    };
    let config = MeshConfig {
        identity,
        keys: Keys::new(secret.into()),
        peer_buffer: PEER_BUFFER,
        routing: Routing::default(),
        timing: Timing::default(),
    };
    let mesh = Mesh::start(config, listener, Arc::new(Tcp), Arc::new(hub.clone()));
    hub.set_adapter(Arc::new(mesh.clone()));
    mesh.set_discovered(&peers.iter().copied().collect::<BTreeSet<_>>());
    mesh.set_whole();
    Ok(mesh)
}

/// Ends when `mesh` is linked both ways to each of `peers` that is up; those that take no
/// connection are not waited for. Bounded by `limit`.
pub async fn linked(mesh: &Mesh, peers: &[SocketAddr], limit: Duration) {
    let all = async {
        for peer in peers {
            let address = peer.to_string();
            let linked = || {
                let found = mesh.peers().into_iter().find(|known| known.address == address);
                found.is_some_and(|known| known.inbound && known.outbound)
            };
            while !linked() && is_up(*peer).await {
                tokio::time::sleep(LOOK).await;
            }
        }
    };
    let _ = tokio::time::timeout(limit, all).await;
}

async fn is_up(peer: SocketAddr) -> bool {
    let knock = tokio::time::timeout(KNOCK, TcpStream::connect(peer));
    matches!(knock.await, Ok(Ok(_)))
}
