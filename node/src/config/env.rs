//! What Kubernetes tells a pod by its environment, and nothing else.

use std::net::IpAddr;

/// What differs from pod to pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env {
    /// `POD_NAME`, else `HOSTNAME`, else `node`: the node's name.
    pub node: String,
    /// `POD_UID`; empty outside Kubernetes.
    pub pod_uid: String,
    /// `POD_IP` as it stands; empty outside Kubernetes.
    pub pod_ip: String,
}

impl Env {
    /// Reads by `get`, which is [`std::env::var`] but in tests.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |key: &str| get(key).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        Self {
            node: get("POD_NAME").or_else(|| get("HOSTNAME")).unwrap_or_else(|| "node".into()),
            pod_uid: get("POD_UID").unwrap_or_default(),
            pod_ip: get("POD_IP").unwrap_or_default(),
        }
    }

    /// Of this process.
    pub fn of_process() -> Self {
        Self::read(|key| std::env::var(key).ok())
    }

    /// The pod's address, if there is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.pod_ip.parse().ok()
    }

    pub(super) fn check(&self) -> Vec<(String, String)> {
        let mut out = Vec::new();
        if self.node.len() > 255 {
            out.push(("POD_NAME".into(), "a node's name has at most 255 bytes".into()));
        }
        if !self.pod_ip.is_empty() && self.ip().is_none() {
            out.push(("POD_IP".into(), format!("{:?} is no IP address", self.pod_ip)));
        }
        out
    }
}
