//! Installs the charts and the example, as a user would with helm and kubectl.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::cluster::{Cluster, OPERATOR_LOGS, SYSTEM_NAMESPACE};
use crate::images::{Images, split};
use crate::say::say;
use crate::steps::step;

const EXAMPLE: &str = "examples/chat.yaml";

/// Installs or upgrades both charts with the images that were built last.
pub fn charts(cluster: &Cluster) -> Result<()> {
    step("chart sluice-crds installed", || {
        cluster.helm(release("sluice-crds").iter().chain(&["--wait", "--timeout", "60s"]))
    })?;
    step("chart sluice installed", || {
        let images = cluster.images()?;
        let values = values(&images);
        let mut arguments: Vec<&str> = release("sluice").to_vec();
        for value in &values {
            arguments.extend(["--set-string", value]);
        }
        arguments.extend(["--wait", "--timeout", "120s"]);
        cluster.helm(&arguments).map_err(|error| with_state(cluster, error, SYSTEM_NAMESPACE))
    })?;
    Ok(())
}

/// The values that make the chart use these images.
pub fn values(images: &Images) -> Vec<String> {
    let (repository, tag) = split(&images.operator);
    vec![
        format!("image.repository={repository}"),
        format!("image.tag={tag}"),
        format!("nodeImage={}", images.channel_node),
        format!("redisImage={}", images.redis),
    ]
}

/// Applies the example and waits until its cluster is Ready.
pub fn example(cluster: &Cluster) -> Result<()> {
    let yaml = step("example applied", || {
        let yaml = example_yaml(cluster)?;
        cluster.apply(&yaml)?;
        Ok(yaml)
    })?;
    step("ChannelCluster chat Ready", || {
        let done = cluster.kubectl_with_input(
            [
                "wait",
                "--for=condition=Ready",
                "--timeout=180s",
                "channelcluster/chat",
                "-n",
                &namespace(cluster, &yaml)?,
            ],
            "",
        )?;
        if !done.success {
            let error = anyhow::anyhow!("{}", done.stderr.trim().to_owned());
            return Err(with_state(cluster, error, &namespace(cluster, &yaml)?));
        }
        Ok(())
    })
}

/// Prints what there is now and what to do with it.
pub fn farewell(cluster: &Cluster) -> Result<()> {
    let yaml = example_yaml(cluster)?;
    let namespace = namespace(cluster, &yaml)?;
    say!("\n{}", cluster.kubectl(["get", "chc", "-A"])?.trim_end());
    let addresses = cluster.node_addresses()?;
    let address = addresses.values().next().context("the cluster has no node")?;
    let ports =
        r#"jsonpath={range .items[*]}{.metadata.name} {.spec.ports[0].nodePort}{"\n"}{end}"#;
    let services = cluster.kubectl(["get", "services", "-n", &namespace, "-o", ports])?;
    let port = |wanted: &str| {
        services
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(name, port)| *name == wanted && !port.is_empty())
            .map(|(_, port)| format!("{address}:{port}"))
    };
    say!("");
    if let Some(chat) = port("chat") {
        say!("Clients connect to  ws://{chat}/socket/websocket");
    }
    if let Some(path) = cluster.kubeconfig() {
        say!("  export KUBECONFIG={}", path.display());
    }
    say!("\nThree things to try (kubectl is there as `cargo e2e kubectl`):");
    match port("chat-page") {
        Some(page) => say!("  chat      open http://{page}/ in two tabs"),
        None => say!("  chat      kubectl -n {namespace} get services"),
    }
    say!(
        "  deploy    kubectl -n {namespace} patch chc chat --type merge -p '{{\"spec\":{{\"podTemplate\":{{\"env\":[{{\"name\":\"GREETING\",\"value\":\"hi\"}}]}}}}}}'"
    );
    say!("  scale     kubectl -n {namespace} scale chc chat --replicas 5");
    say!("and watch it with: kubectl -n {namespace} get chc chat --watch");
    Ok(())
}

fn release(name: &'static str) -> [&'static str; 7] {
    let chart = if name == "sluice" { "charts/sluice" } else { "charts/sluice-crds" };
    ["upgrade", "--install", name, chart, "--namespace", SYSTEM_NAMESPACE, "--create-namespace"]
}

/// The example, with the images that it names by their published names taken from those that were built.
pub fn example_yaml(cluster: &Cluster) -> Result<String> {
    let path = cluster.settings().in_repo(EXAMPLE);
    let yaml = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(localised(&yaml, &cluster.images()?))
}

/// YAML in which each image of Sluice's, under its published name, is the one that was built.
pub fn localised(yaml: &str, images: &Images) -> String {
    let mut text = String::new();
    for line in yaml.lines() {
        let built = line.split_once("image:").and_then(|(before, image)| {
            let key = before.trim_start_matches([' ', '-']).is_empty();
            let name = image.trim().trim_matches(['"', '\'']);
            Some((before, key.then(|| published(name, images)).flatten()?))
        });
        match built {
            Some((before, name)) => text.push_str(&format!("{before}image: {name}")),
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// The image that was built in the place of a published one.
fn published<'a>(name: &str, images: &'a Images) -> Option<&'a str> {
    match name.rsplit('/').next()?.split(['@', ':']).next()? {
        "sluice-node" => Some(&images.channel_node),
        "sluice-operator" => Some(&images.operator),
        "sluice-example-chat" => Some(&images.example_chat),
        _ => None,
    }
}

fn namespace(cluster: &Cluster, yaml: &str) -> Result<String> {
    let done = cluster.kubectl_with_input(["get", "-f", "-", "-o", "json"], yaml)?;
    if !done.success {
        bail!("the example is not there: {}", done.stderr.trim());
    }
    let told: serde_json::Value = serde_json::from_str(&done.stdout)?;
    let one = [told.clone()];
    let items = told["items"].as_array().map_or(&one[..], Vec::as_slice);
    items
        .iter()
        .find(|item| item["kind"] == "ChannelCluster")
        .and_then(|item| item["metadata"]["namespace"].as_str())
        .map(String::from)
        .context("the example holds no ChannelCluster")
}

/// Adds to an error what helps to understand it: the pods, the last events and the operator's last words.
fn with_state(cluster: &Cluster, error: anyhow::Error, namespace: &str) -> anyhow::Error {
    let asked: [&[&str]; 3] = [
        &["get", "pods,channelclusters", "-A", "-o", "wide"],
        &["get", "events", "-n", namespace, "--sort-by=.lastTimestamp"],
        &[&OPERATOR_LOGS[..], &["--tail=15"]].concat(),
    ];
    let told: Vec<String> = asked
        .iter()
        .filter_map(|arguments| cluster.kubectl_capture(arguments.iter()).ok())
        .map(|done| {
            let lines: Vec<&str> = done.stdout.lines().collect();
            lines[lines.len().saturating_sub(25)..].join("\n")
        })
        .collect();
    error.context(format!("this is how it stands:\n{}\n", told.join("\n\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_images_are_replaced_by_built_ones_and_others_are_left() {
        let images = Images {
            channel_node: "localhost/sluice/channel-node:1".into(),
            channel_node_next: "localhost/sluice/channel-node:1-next".into(),
            operator: "localhost/sluice/operator:2".into(),
            example_chat: "localhost/sluice/example-chat:3".into(),
            redis: "localhost/sluice/redis:4".into(),
            python: "localhost/sluice/python:5".into(),
        };
        let yaml = "a:\n  - image: \"registry.example/sluice-example-chat:0.1.0\"\n  image: sluice-node@sha256:0\n  image: redis:8\n  # the image: sluice-node\n";
        let expected = "a:\n  - image: localhost/sluice/example-chat:3\n  image: localhost/sluice/channel-node:1\n  image: redis:8\n  # the image: sluice-node\n";
        assert_eq!(localised(yaml, &images), expected);
    }
}
