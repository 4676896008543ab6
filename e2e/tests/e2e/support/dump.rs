//! What a failed test shows: the cluster, its pods, events, and the logs of operator and nodes.

use std::io::Write as _;

use anyhow::Error;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams},
};

use super::{Space, place::OPERATOR_NAMESPACE};

const LINES: i64 = 60;

/// Writes to standard error what is needed to understand a failure.
pub async fn dump(space: &Space, error: &Error) {
    let mut text = format!("\n--- {} failed in namespace {}: {error:#}\n", space.test, space.name);
    let sections: [&[&str]; 4] = [
        &["get", "channelclusters", "--output=yaml"],
        &["get", "pods,statefulsets,services,endpointslices,pdb", "--output=wide", "--show-labels"],
        &[
            "get",
            "pods",
            "--output=jsonpath={range .items[*]}{.metadata.name}{\" \"}{.metadata.annotations}{\"\\n\"}{end}",
        ],
        &["get", "events", "--sort-by=.metadata.creationTimestamp"],
    ];
    for section in sections {
        let said = space.try_kubectl(section, "").await;
        let said =
            said.map_or_else(|error| format!("{error:#}"), |said| said.stdout + &said.stderr);
        text += &format!("--- kubectl {}\n{said}\n", section.join(" "));
    }
    for namespace in [&space.name, OPERATOR_NAMESPACE] {
        text += &logs(space, namespace).await;
    }
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

async fn logs(space: &Space, namespace: &str) -> String {
    let pods = Api::<Pod>::namespaced(space.client.clone(), namespace);
    let Ok(list) = pods.list(&ListParams::default()).await else { return String::new() };
    let ours = namespace == space.name;
    let params =
        LogParams { tail_lines: Some(if ours { LINES } else { 2_000 }), ..LogParams::default() };
    let mut text = String::new();
    for pod in list {
        let log = pods.logs(&pod.name_any(), &params).await;
        let log = log.unwrap_or_else(|error| format!("{error}\n"));
        // The operator serves all tests at once: only what names this one's namespace is of use.
        let lines: Vec<&str> =
            log.lines().filter(|line| ours || line.contains(&space.name)).collect();
        let from = lines.len().saturating_sub(LINES as usize);
        text +=
            &format!("--- log of {namespace}/{}\n{}\n", pod.name_any(), lines[from..].join("\n"));
    }
    text
}
