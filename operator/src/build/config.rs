//! The node's configuration files: `node.yaml`, which is part of the pod template, and
//! `live.yaml`, which stands in a ConfigMap and rolls nothing.

use serde_json::{Value, json};
use sluice_crds::{Adapter, DiscoveryMode, Drain, SecretKeyRef, TimeoutPolicy, names};
use sluice_node_api::config::{
    CheckOrigin, Discovery, DnsDiscovery, DrainSettings, Limits, LiveConfig, NodeConfig, Origin,
    PubSub, RedisPubSub, Socket, Tokens,
};

use super::{Cluster, Error, Kind, Object};

/// Where all files of a node are mounted, read-only.
pub(super) const DIRECTORY: &str = "/etc/sluice";
/// Path of the static configuration file.
pub const CONFIG_PATH: &str = "/etc/sluice/node.yaml";
/// Seconds that a SIGTERM waits for its drain at the most.
///
/// Fixed, not derived from `spec.drain`: it is part of the pod template, and a change of the drain
/// must roll nothing. It is a bound, not a wait: a node without sockets ends at once, and pods
/// that the operator lets go have been drained. It counts for evictions and for pods that a person
/// deletes, and covers the default `drain.timeoutSeconds`; a shorter one is in the live settings.
pub const SHUTDOWN_SECONDS: u32 = 1800;
/// The pods' `terminationGracePeriodSeconds`: the above and a margin.
pub const GRACE_SECONDS: u32 = SHUTDOWN_SECONDS + 30;

/// The static configuration file.
pub(super) fn node_yaml(cluster: &Cluster<'_>) -> Result<String, Error> {
    let spec = cluster.spec;
    let token = |key: &str| Some(format!("{DIRECTORY}/tokens/{key}"));
    let DiscoveryMode::KubernetesDNS = spec.discovery.mode;
    let config = NodeConfig {
        cluster: format!("{}/{}", cluster.namespace, cluster.name),
        tokens: Tokens {
            mesh_file: token(names::MESH_TOKEN),
            admin_file: token(names::ADMIN_TOKEN),
            publish_file: token(names::PUBLISH_TOKEN),
        },
        discovery: Discovery {
            dns: Some(DnsDiscovery {
                name: cluster.address(&names::headless_service(cluster.name)),
                port: names::MESH_PORT,
                interval_seconds: spec.discovery.interval_seconds.max(1).unsigned_abs(),
            }),
            peers: Vec::new(),
        },
        pubsub: PubSub {
            adapter: spec.pubsub.adapter,
            routing: spec.pubsub.mesh.routing,
            peer_buffer_bytes: quantity(
                "spec.pubsub.mesh.peerBuffer",
                &spec.pubsub.mesh.peer_buffer.0,
            )?,
            redis: (spec.pubsub.adapter == Adapter::Redis)
                .then(|| RedisPubSub { url_file: format!("{DIRECTORY}/redis/url") }),
        },
        socket: Socket {
            check_origin: origins(&spec.socket)?,
            max_joins_per_second: spec.socket.max_joins_per_second.map(rate),
            max_messages_per_second: spec.socket.max_messages_per_second.map(rate),
            ..Socket::default()
        },
        auth: super::auth::config(&spec.auth),
        webhooks: spec.webhooks.as_ref().map(super::webhooks::config),
        live_file: Some(format!("{DIRECTORY}/live.yaml")),
        shutdown_seconds: SHUTDOWN_SECONDS,
        ..NodeConfig::default()
    };
    serde_saphyr::to_string(&config).map_err(|source| Error::Yaml { file: "node.yaml", source })
}

/// How many a second. The schema lets none through that is not positive.
fn rate(rate: i32) -> u32 {
    rate.max(1).unsigned_abs()
}

/// Which pages may open a socket. What a node would refuse must not reach one.
fn origins(socket: &sluice_crds::Socket) -> Result<CheckOrigin, Error> {
    let Some(list) = &socket.check_origin else { return Ok(CheckOrigin::Off) };
    match list.iter().find(|text| Origin::parse(text).is_none()) {
        Some(text) => Err(Error::Origin(text.clone())),
        None => Ok(CheckOrigin::List(list.clone())),
    }
}

/// The live configuration file.
pub(super) fn live_yaml(cluster: &Cluster<'_>) -> Result<String, Error> {
    let (drain, limits) = (&cluster.spec.drain, &cluster.spec.limits);
    let config = LiveConfig {
        channels: cluster.spec.channels.clone(),
        drain: DrainSettings {
            mode: drain.mode,
            initial_delay_seconds: f64::from(drain.initial_delay_seconds),
            wait_seconds: f64::from(drain.wait_seconds),
            batch_size: drain.batch_size(),
            batch_interval_seconds: f64::from(drain.batch_interval_seconds()),
            timeout_seconds: timeout(drain),
        },
        limits: Limits {
            max_connections: limits.max_connections.unwrap_or(0).max(0).unsigned_abs(),
            max_buffered_bytes: match &limits.max_buffered {
                Some(most) => Some(quantity("spec.limits.maxBuffered", &most.0)?),
                None => None,
            },
        },
    };
    serde_saphyr::to_string(&config).map_err(|source| Error::Yaml { file: "live.yaml", source })
}

/// What a drain that a SIGTERM starts may take, if that is less than [`SHUTDOWN_SECONDS`]. A pod that
/// is deleted can't be held: with `Hold` its clients have all the time that there is.
fn timeout(drain: &Drain) -> Option<f64> {
    let given = drain.timeout_seconds.max(0).unsigned_abs();
    let ends = drain.timeout_policy == TimeoutPolicy::Terminate && given < SHUTDOWN_SECONDS;
    ends.then(|| given.into())
}

/// The ConfigMap with the live file.
pub(super) fn config_map(cluster: &Cluster<'_>, live: &str) -> Object {
    Object::new(
        Kind::ConfigMap,
        json!({
            "metadata": cluster.metadata(cluster.name, names::COMPONENT_NODE),
            "data": { "live.yaml": live },
        }),
    )
}

/// A source of the volume with a node's files: a key of a Secret, at a path below [`DIRECTORY`].
pub(super) fn secret(from: &SecretKeyRef, path: &str) -> Value {
    let item = json!({ "key": from.key, "path": path });
    json!({ "secret": { "name": from.name, "items": [item] } })
}

fn quantity(field: &'static str, value: &str) -> Result<u64, Error> {
    bytes(value).ok_or_else(|| Error::Quantity { field, value: value.into() })
}

/// Bytes of a quantity such as `32Mi`, `1G`, `65536`.
fn bytes(quantity: &str) -> Option<u64> {
    let bytes = crate::diff::quantity(quantity)?;
    (bytes >= 1.0 && bytes <= 2f64.powi(40)).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn quantities_of_bytes() {
        assert_eq!(bytes("32Mi"), Some(32 << 20));
        assert_eq!(bytes("65536"), Some(65536));
        assert_eq!(bytes("1G"), Some(1_000_000_000));
        assert_eq!(bytes("0"), None);
        assert_eq!(bytes("1e30"), None);
        assert_eq!(bytes("much"), None);
    }
}
