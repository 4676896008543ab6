//! A managed Redis: one pod behind a Service, with a password from a Secret of its own.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use sluice_crds::names;

use super::{
    Cluster, Error, Kind, Object, meta::redis_selector, network::port, pods, workload::REVISIONS,
};

/// Secret key: the password.
pub const PASSWORD: &str = "password";
/// Secret key: the URL that nodes connect to, password included.
pub const URL: &str = "url";
/// Secret key: the part of Redis's configuration that holds the password. A file, so that the
/// password stands in no argument and no environment variable.
pub const AUTH_CONF: &str = "auth.conf";

const URL_START: &str = "redis://:";
const AUTH_START: &str = "requirepass ";
const PORT: u16 = 6379;
const CONTAINER: &str = "redis";

/// The content of [`URL`].
pub fn url(cluster: &Cluster<'_>, password: &str) -> String {
    format!("{URL_START}{}@{}", escaped(password, "%"), host(cluster))
}

/// The content of [`AUTH_CONF`]. Quoted only where it must be: another text starts Redis anew.
pub fn auth_conf(password: &str) -> String {
    let quote = if password.bytes().all(is_plain) { "" } else { "\"" };
    format!("{AUTH_START}{quote}{}{quote}\n", escaped(password, "\\x"))
}

/// Whether both are such as are made of a password here, or are not there. Of one's own, each may
/// say what the other must fit.
pub fn made_here(cluster: &Cluster<'_>, url: &str, auth_conf: &str) -> bool {
    let port = format!(":{PORT}");
    let relative =
        |url: &str| url.strip_suffix(&port).map(|url| url.trim_end_matches('.').to_owned());
    let host = relative(&format!("@{}", host(cluster)));
    let of_url = url.is_empty()
        || (url.starts_with(URL_START)
            && relative(url).zip(host).is_some_and(|(url, host)| url.ends_with(&host)));
    let of_file = auth_conf.is_empty()
        || (auth_conf.starts_with(AUTH_START) && auth_conf.lines().count() == 1);
    of_url && of_file
}

fn host(cluster: &Cluster<'_>) -> String {
    format!("{}:{PORT}", cluster.address(&names::redis(cluster.name)))
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// The text with each byte that could mean something else as `escape` and its two hex digits.
fn escaped(text: &str, escape: &str) -> String {
    let byte = |byte: u8| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("{escape}{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Whether `pod` mounts the Secret of its cluster's managed Redis.
pub fn uses_managed_redis(pod: &Pod, cluster: &str) -> bool {
    let secret = names::redis(cluster);
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| volume.projected.as_ref())
        .flat_map(|projected| projected.sources.iter().flatten())
        .filter_map(|source| source.secret.as_ref())
        .any(|source| source.name == secret)
}

/// The object or, if it is the StatefulSet of Redis, one whose pod starts anew when the digest of its
/// password file changes.
pub fn with_redis_auth<'a>(object: &'a Object, digest: Option<&str>) -> Cow<'a, Object> {
    let Some(digest) = digest.filter(|_| object.kind == Kind::StatefulSet) else {
        return Cow::Borrowed(object);
    };
    let mut object = object.clone();
    object.value["spec"]["template"]["metadata"]["annotations"][names::REDIS_AUTH_HASH] =
        digest.into();
    Cow::Owned(object)
}

/// Service and StatefulSet.
pub(super) fn objects(cluster: &Cluster<'_>) -> Result<Vec<Object>, Error> {
    let name = names::redis(cluster.name);
    let service = Object::new(
        Kind::Service,
        json!({
            "metadata": cluster.metadata(&name, names::COMPONENT_REDIS),
            "spec": {
                "type": "ClusterIP",
                "publishNotReadyAddresses": false,
                "internalTrafficPolicy": "Cluster",
                "selector": redis_selector(cluster.name),
                "ports": [port("redis", PORT)],
            },
        }),
    );
    Ok(vec![service, stateful_set(cluster, &name)?])
}

fn stateful_set(cluster: &Cluster<'_>, name: &str) -> Result<Object, Error> {
    let managed = cluster.spec.redis.managed.clone().unwrap_or_default();
    let image =
        if managed.image.is_empty() { &cluster.defaults.redis_image } else { &managed.image };
    let persistent = managed.persistence.is_some();
    let keep = if persistent {
        ["--appendonly", "yes", "--save", "60 1000"]
    } else {
        ["--appendonly", "no", "--save", ""]
    };
    let mut args = vec!["/etc/redis/auth.conf", "--dir", "/data"];
    args.extend(keep);
    let probe = json!({ "tcpSocket": { "port": "redis" }, "periodSeconds": 5 });
    let mut container = json!({
        "name": CONTAINER,
        "image": image,
        "args": args,
        "ports": [{ "name": "redis", "containerPort": PORT, "protocol": "TCP" }],
        "readinessProbe": probe,
        "livenessProbe": probe,
        "securityContext": pods::container_security(),
        "volumeMounts": [
            { "name": "auth", "mountPath": "/etc/redis", "readOnly": true },
            { "name": "data", "mountPath": "/data" },
        ],
    });
    if let Some(resources) = &managed.resources {
        container["resources"] = serde_json::to_value(resources)?;
    }
    let mut volumes = vec![json!({
        "name": "auth",
        "secret": {
            "secretName": name,
            "defaultMode": 0o440,
            "items": [{ "key": AUTH_CONF, "path": "auth.conf" }],
        },
    })];
    if !persistent {
        volumes.push(json!({ "name": "data", "emptyDir": {} }));
    }
    let mut spec = json!({
        "serviceName": name,
        "replicas": 1,
        // Left out, what somebody sets would stay, such as a pod of another name and an empty volume.
        "ordinals": { "start": 0 },
        "minReadySeconds": 0,
        // By the other policy a pod that can't start is never replaced by one that could
        // (kubernetes/kubernetes#67250).
        "podManagementPolicy": "Parallel",
        "revisionHistoryLimit": REVISIONS,
        // Left out, somebody's `OnDelete` would stay, and no change of Redis would reach its pod.
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
        "selector": { "matchLabels": redis_selector(cluster.name) },
        "template": {
            "metadata": { "labels": cluster.pod_labels(names::COMPONENT_REDIS) },
            "spec": {
                "serviceAccountName": cluster.name,
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "securityContext": pods::security(),
                "containers": [container],
                "volumes": volumes,
            },
        },
    });
    pods::Place {
        tolerations: &managed.tolerations,
        node_selector: &managed.node_selector,
        priority_class_name: &managed.priority_class_name,
        image_pull_secrets: &managed.image_pull_secrets,
    }
    .put_into(&mut spec["template"]["spec"])?;
    if let Some(persistence) = &managed.persistence {
        spec["volumeClaimTemplates"] = json!([claim(persistence, cluster)]);
        // What PubSub leaves on disk is of no use without its Redis. Somebody's hand on `replicas`,
        // which is undone, must not take it along.
        spec["persistentVolumeClaimRetentionPolicy"] =
            json!({ "whenDeleted": "Delete", "whenScaled": "Retain" });
    }
    let metadata = cluster.metadata(name, names::COMPONENT_REDIS);
    Ok(Object::new(Kind::StatefulSet, json!({ "metadata": metadata, "spec": spec })))
}

fn claim(persistence: &sluice_crds::Persistence, cluster: &Cluster<'_>) -> Value {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": persistence.size } },
    });
    if let Some(class) = &persistence.storage_class_name {
        spec["storageClassName"] = class.as_str().into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": { "name": "data", "labels": redis_selector(cluster.name) },
        "spec": spec,
    })
}
