//! What to do about an object that an apply can't bring back. The API server merges the applied ports
//! of a Service by number: a port that somebody renumbered is taken for another one, and the two then
//! collide by name or by node port, again and again. And what somebody added, an apply leaves: a port
//! that lets clients in where they must not come, an address from outside, the other bound of a
//! disruption budget, which may have one only. Pure.

use serde_json::{Map, Value, json};

use crate::build::Kind;

/// What decides where a Service's traffic goes, and is absent by default: rendered, it would have a
/// value to be taken for.
const ABSENT: [&str; 2] = ["externalIPs", "trafficDistribution"];
/// Who may come through a balancer. Somebody protects the cluster by it: it stays, but with a type that
/// has no balancer, where it is refused.
const SOURCES: &str = "loadBalancerSourceRanges";

/// Whether an answer of the API server to an apply may come from such a collision.
pub fn may_collide(code: u16) -> bool {
    matches!(code, 409 | 422 | 500)
}

/// A merge patch that takes out of `live` what an apply of `rendered` collides with, and fails if
/// `live` has changed; or nothing, when it does not.
pub fn patch(kind: Kind, rendered: &Value, live: &Value) -> Option<Value> {
    match kind {
        Kind::Service => service_patch(rendered, live),
        Kind::PodDisruptionBudget => budget_patch(rendered, live),
        _ => None,
    }
}

/// Whether the object can't be changed any more: it must be made anew, before kubelets have seen that
/// and no longer look for changes.
pub fn frozen(kind: Kind, live: &Value) -> bool {
    kind == Kind::ConfigMap && live["immutable"] == true
}

/// The disruption budget with the rendered bound in place of the other one.
fn budget_patch(rendered: &Value, live: &Value) -> Option<Value> {
    let version = live["metadata"]["resourceVersion"].as_str()?;
    let (wanted, there) = (&rendered["spec"], &live["spec"]);
    let other = wanted["minAvailable"].is_null() && !there["minAvailable"].is_null();
    other.then(|| {
        json!({
            "metadata": { "resourceVersion": version },
            "spec": { "minAvailable": null, "maxUnavailable": wanted["maxUnavailable"] },
        })
    })
}

/// A merge patch that makes of `live` what was rendered where an apply does not, and fails if `live`
/// has changed; or nothing, when nothing is in the way.
///
/// All else stays, the cluster's address above all; and a node port that was chosen by Kubernetes
/// stays with the port of the same name.
pub fn service_patch(rendered: &Value, live: &Value) -> Option<Value> {
    let version = live["metadata"]["resourceVersion"].as_str()?;
    let mut spec = Map::new();
    if let Some(ports) = ports(rendered, live) {
        spec.insert("ports".into(), ports);
    }
    let is_set = |value: &Value| match value {
        Value::Array(values) => !values.is_empty(),
        value => !value.is_null(),
    };
    let balanced = rendered["spec"]["type"] == "LoadBalancer";
    for field in ABSENT.into_iter().chain((!balanced).then_some(SOURCES)) {
        if !is_set(&rendered["spec"][field]) && is_set(&live["spec"][field]) {
            spec.insert(field.into(), Value::Null);
        }
    }
    let metadata = json!({ "resourceVersion": version });
    (!spec.is_empty()).then(|| json!({ "metadata": metadata, "spec": spec }))
}

/// All ports as they must be; `None`: they carry the rendered numbers.
fn ports(rendered: &Value, live: &Value) -> Option<Value> {
    let wanted = rendered["spec"]["ports"].as_array()?;
    let there = live["spec"]["ports"].as_array()?;
    let same_key = |a: &Value, b: &Value| {
        a["port"] == b["port"]
            && a["protocol"].as_str().unwrap_or("TCP") == b["protocol"].as_str().unwrap_or("TCP")
    };
    let matched =
        wanted.len() == there.len() && wanted.iter().all(|w| there.iter().any(|t| same_key(w, t)));
    if matched {
        return None;
    }
    let has_node_ports = rendered["spec"]["type"] != "ClusterIP";
    let ports = wanted
        .iter()
        .map(|wanted| {
            let mut port = wanted.clone();
            let before = there.iter().find(|there| there["name"] == wanted["name"]);
            let node_port = before.map(|before| &before["nodePort"]).filter(|n| n.is_number());
            if let (true, true, Some(node_port)) =
                (has_node_ports, port["nodePort"].is_null(), node_port)
            {
                port["nodePort"] = node_port.clone();
            }
            port
        })
        .collect();
    Some(Value::Array(ports))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(kind: &str, port: &Value) -> Value {
        json!({ "spec": { "type": kind, "ports": [port] } })
    }

    fn live(ports: &Value) -> Value {
        json!({
            "metadata": { "resourceVersion": "7" },
            "spec": { "type": "NodePort", "clusterIP": "10.0.0.1", "ports": ports },
        })
    }

    #[test]
    fn a_renumbered_port_is_replaced_and_its_node_port_kept() {
        let http = json!({ "name": "http", "port": 80, "targetPort": "http", "protocol": "TCP" });
        let drifted = live(&json!([
            { "name": "http", "port": 8080, "targetPort": "http", "protocol": "TCP", "nodePort": 30001 }
        ]));
        let patch = service_patch(&rendered("NodePort", &http), &drifted).unwrap();
        assert_eq!(
            patch,
            json!({ "metadata": { "resourceVersion": "7" }, "spec": { "ports": [
                { "name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "nodePort": 30001 }
            ] } })
        );
        let without = service_patch(&rendered("ClusterIP", &http), &drifted).unwrap();
        assert!(without["spec"]["ports"][0].get("nodePort").is_none());
        let mut chosen = http.clone();
        chosen["nodePort"] = 30500.into();
        let patch = service_patch(&rendered("NodePort", &chosen), &drifted).unwrap();
        assert_eq!(patch["spec"]["ports"][0]["nodePort"], 30500);
    }

    #[test]
    fn a_port_that_was_added_is_taken_away() {
        let http = json!({ "name": "http", "port": 80, "protocol": "TCP" });
        let both = live(&json!([
            { "name": "http", "port": 80, "nodePort": 30001 }, { "name": "more", "port": 81 }
        ]));
        let patch = service_patch(&rendered("NodePort", &http), &both).unwrap();
        assert_eq!(patch["spec"]["ports"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn what_leads_traffic_otherwise_is_taken_away() {
        let http = json!({ "name": "http", "port": 80, "protocol": "TCP" });
        for (field, value) in
            [("externalIPs", json!(["192.0.2.1"])), ("trafficDistribution", json!("PreferClose"))]
        {
            let mut added = live(&json!([{ "name": "http", "port": 80, "nodePort": 30001 }]));
            added["spec"][field] = value;
            // Also on the way to a type that does not go with it.
            for kind in ["LoadBalancer", "ClusterIP"] {
                assert_eq!(
                    service_patch(&rendered(kind, &http), &added).unwrap(),
                    json!({ "metadata": { "resourceVersion": "7" }, "spec": { field: null } })
                );
            }
            for none in [json!([]), Value::Null] {
                added["spec"][field] = none;
                assert_eq!(service_patch(&rendered("NodePort", &http), &added), None, "{field}");
            }
        }
        let mut protected = live(&json!([{ "name": "http", "port": 80, "nodePort": 30001 }]));
        protected["spec"][SOURCES] = json!(["192.0.2.0/24"]);
        assert_eq!(service_patch(&rendered("LoadBalancer", &http), &protected), None);
        assert_eq!(
            service_patch(&rendered("ClusterIP", &http), &protected).unwrap()["spec"],
            json!({ SOURCES: null })
        );
    }

    #[test]
    fn ports_that_are_right_are_left_alone() {
        let http = json!({ "name": "http", "port": 80, "protocol": "TCP" });
        let right = live(&json!([{ "name": "http", "port": 80, "nodePort": 30001 }]));
        assert_eq!(service_patch(&rendered("NodePort", &http), &right), None);
        assert_eq!(service_patch(&json!({}), &right), None);
        assert_eq!(service_patch(&rendered("NodePort", &http), &json!({})), None);
    }

    #[test]
    fn the_other_bound_of_a_disruption_budget_gives_way_to_the_rendered_one() {
        let rendered = json!({ "spec": { "maxUnavailable": 1, "selector": { "a": "b" } } });
        let live = |spec: Value| json!({ "metadata": { "resourceVersion": "7" }, "spec": spec });
        let other = live(json!({ "minAvailable": 1, "selector": { "a": "b" } }));
        let kind = Kind::PodDisruptionBudget;
        assert_eq!(
            patch(kind, &rendered, &other).unwrap(),
            json!({
                "metadata": { "resourceVersion": "7" },
                "spec": { "minAvailable": null, "maxUnavailable": 1 },
            })
        );
        for right in [json!({ "maxUnavailable": 1 }), json!({ "maxUnavailable": 2 }), json!({})] {
            assert_eq!(patch(kind, &rendered, &live(right)), None, "an apply does it");
        }
        assert_eq!(patch(Kind::ConfigMap, &rendered, &other), None);
    }

    #[test]
    fn only_a_config_map_that_is_immutable_is_frozen() {
        assert!(frozen(Kind::ConfigMap, &json!({ "immutable": true })));
        assert!(!frozen(Kind::ConfigMap, &json!({ "immutable": false })));
        assert!(!frozen(Kind::ConfigMap, &json!({})));
        // Its content would be lost.
        assert!(!frozen(Kind::Secret, &json!({ "immutable": true })));
    }

    #[test]
    fn only_answers_that_speak_of_the_object_make_it_look() {
        assert!([409, 422, 500].into_iter().all(may_collide));
        assert!(![400, 403, 404, 429, 503].into_iter().any(may_collide));
    }
}
