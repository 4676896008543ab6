//! Tells kubelets to look now at what they mount into pods: any change of a pod makes them, and else
//! they look once in a minute or so.
//!
//! It must never write to a pod twice for the same thing, nor to one whose node is up to date.

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};
use sluice_crds::names;

use super::Executor;
use crate::{
    apply::Error,
    model::{PodRef, PodState},
};

impl Executor<'_> {
    /// Wakes the kubelets of pods whose node is behind the live settings of this hash, or does not
    /// take the token that is in the Secret.
    pub async fn wake_kubelets(&self, live_config_hash: &str) -> Result<(), Error> {
        let patches = self.seen.pods.iter().filter_map(|pod| {
            let uid = pod.metadata.uid.clone()?;
            let state = self.seen.observed.pods.iter().find(|state| state.uid == uid)?;
            let news = news(pod, state, live_config_hash, self.token.version());
            let name = pod.metadata.name.clone()?;
            let pod = PodRef { name, uid, resource_version: String::new() };
            let patch = json!({ "metadata": { "annotations": news } });
            (!news.is_empty()).then_some(async move { self.send(&pod, patch, None).await })
        });
        for answer in join_all(patches).await {
            match answer {
                Ok(_) | Err(Error::Stale(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The annotations that wake a pod's kubelet; none when there is nothing new for it.
fn news(
    pod: &Pod,
    state: &PodState,
    live_config_hash: &str,
    tokens_version: &str,
) -> Map<String, Value> {
    let told = |key: &str| pod.metadata.annotations.as_ref().and_then(|all| all.get(key));
    let behind = state.node.as_ref().is_some_and(|node| node.live_config_hash != live_config_hash);
    [
        (names::LIVE_CONFIG_HASH, live_config_hash, behind),
        (names::TOKENS_VERSION, tokens_version, state.denied),
    ]
    .into_iter()
    .filter(|(key, value, behind)| *behind && told(key).is_none_or(|told| told != value))
    .map(|(key, value, _)| (key.to_owned(), value.into()))
    .collect()
}

#[cfg(test)]
mod tests {
    use sluice_node_api::admin::NodeStatus;

    use super::*;

    fn woken(annotations: Value, state: &PodState) -> Vec<String> {
        let pod = serde_json::from_value(json!({ "metadata": { "annotations": annotations } }));
        news(&pod.unwrap(), state, "live", "7").keys().cloned().collect()
    }

    #[test]
    fn a_kubelet_is_woken_once_for_each_thing_that_its_node_has_not_read() {
        let node = |hash: &str| {
            let node = NodeStatus { live_config_hash: hash.into(), ..NodeStatus::default() };
            PodState { node: Some(node), ..PodState::default() }
        };
        let denied = PodState { denied: true, ..PodState::default() };
        assert!(woken(json!({}), &node("live")).is_empty());
        assert!(woken(json!({}), &PodState::default()).is_empty(), "its node says nothing");
        assert_eq!(woken(json!({}), &node("old")), [names::LIVE_CONFIG_HASH]);
        assert!(woken(json!({ names::LIVE_CONFIG_HASH: "live" }), &node("old")).is_empty());
        assert_eq!(woken(json!({ names::TOKENS_VERSION: "6" }), &denied), [names::TOKENS_VERSION]);
        assert!(woken(json!({ names::TOKENS_VERSION: "7" }), &denied).is_empty());
    }
}
