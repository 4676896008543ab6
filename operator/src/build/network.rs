//! Services, ServiceAccount and PodDisruptionBudget. What decides where a Service's traffic goes is
//! rendered even at its default: a field that is left out, an apply leaves to whoever changed it.

use serde_json::{Value, json};
use sluice_crds::{ExternalTrafficPolicy, ServiceType, SessionAffinity, names};

use super::{Cluster, Kind, Object, node_selector};

/// A port of a Service that leads to the pods' port of the same name.
pub(super) fn port(name: &str, port: impl Into<i32>) -> Value {
    json!({ "name": name, "port": port.into(), "targetPort": name, "protocol": "TCP" })
}

/// The Service whose DNS records are the cluster's members, ready or not: a node that starts must
/// find the others before it is ready.
pub(super) fn headless_service(cluster: &Cluster<'_>) -> Object {
    let name = names::headless_service(cluster.name);
    Object::new(
        Kind::Service,
        json!({
            "metadata": cluster.metadata(&name, names::COMPONENT_NODE),
            "spec": {
                "type": "ClusterIP",
                "clusterIP": "None",
                "publishNotReadyAddresses": true,
                "selector": node_selector(cluster.name),
                "ports": [
                    port("mesh", names::MESH_PORT),
                    port("admin", names::ADMIN_PORT),
                    port("publish", names::PUBLISH_PORT),
                ],
            },
        }),
    )
}

/// The Service that backends publish to: every ready pod, one that drains included. By the headless
/// one they would find pods that are not ready, too.
pub(super) fn publish_service(cluster: &Cluster<'_>) -> Object {
    let name = names::publish_service(cluster.name);
    Object::new(
        Kind::Service,
        json!({
            "metadata": cluster.metadata(&name, names::COMPONENT_NODE),
            "spec": {
                "type": "ClusterIP",
                "publishNotReadyAddresses": false,
                "internalTrafficPolicy": "Cluster",
                "selector": node_selector(cluster.name),
                "ports": [port("publish", names::PUBLISH_PORT)],
            },
        }),
    )
}

/// The Service that clients connect to: pods that accept, by a label that the operator patches.
pub(super) fn client_service(cluster: &Cluster<'_>) -> Object {
    let service = &cluster.spec.service;
    let mut selector = node_selector(cluster.name);
    selector[names::ACCEPTING_LABEL] = "true".into();
    let mut http = port("http", service.port);
    if let Some(node_port) = service.node_port {
        http["nodePort"] = node_port.into();
    }
    let mut spec = json!({
        "type": match service.type_ {
            ServiceType::ClusterIP => "ClusterIP",
            ServiceType::NodePort => "NodePort",
            ServiceType::LoadBalancer => "LoadBalancer",
        },
        "publishNotReadyAddresses": false,
        "internalTrafficPolicy": "Cluster",
        "selector": selector,
        "sessionAffinity": match service.session_affinity {
            SessionAffinity::None => "None",
            SessionAffinity::ClientIP => "ClientIP",
        },
        "ports": [http],
    });
    // It does not go with another type: there it is refused.
    if service.type_ != ServiceType::ClusterIP {
        let policy = service.external_traffic_policy.unwrap_or(ExternalTrafficPolicy::Cluster);
        spec["externalTrafficPolicy"] = json!(policy);
    }
    if let Some(ranges) = &service.load_balancer_source_ranges {
        spec["loadBalancerSourceRanges"] = json!(ranges);
    }
    let mut metadata = cluster.metadata(cluster.name, names::COMPONENT_NODE);
    metadata["annotations"] = json!(service.annotations);
    Object::new(Kind::Service, json!({ "metadata": metadata, "spec": spec }))
}

/// The pods' ServiceAccount, without any right. It is made even when the spec names another: pods
/// of an older revision may still need it.
pub(super) fn service_account(cluster: &Cluster<'_>) -> Object {
    Object::new(
        Kind::ServiceAccount,
        json!({
            "metadata": cluster.metadata(cluster.name, names::COMPONENT_NODE),
            "automountServiceAccountToken": false,
        }),
    )
}

/// One pod at a time; a pod that isn't ready protects nobody and may always go.
pub(super) fn disruption_budget(cluster: &Cluster<'_>) -> Object {
    let selector: Value = node_selector(cluster.name);
    Object::new(
        Kind::PodDisruptionBudget,
        json!({
            "metadata": cluster.metadata(cluster.name, names::COMPONENT_NODE),
            "spec": {
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": { "matchLabels": selector },
            },
        }),
    )
}
