//! What operator and nodes count of drains is what the clients saw.

use std::{cell::RefCell, collections::BTreeMap};

use anyhow::{Result, ensure};
use kube::ResourceExt;
use serde_json::{Value, json};
use sluice_crds::names;

use crate::{
    figure,
    support::{
        Cluster, Space,
        cluster::{http, ip},
        colour,
        operator::{metric, metric_with, total},
        quiet_test,
        roll::Roll,
        spec,
    },
};

/// What the operator has counted.
#[derive(Debug, PartialEq)]
struct Counted {
    moved: f64,
    drained: f64,
    out_of_time: f64,
    timeouts: f64,
}

impl Counted {
    async fn now(space: &Space) -> Result<Self> {
        let drains = async |outcome: &str| {
            let name = "sluice_operator_drain_duration_seconds_count";
            metric_with(&space.place, name, &format!("outcome=\"{outcome}\"")).await
        };
        Ok(Self {
            moved: metric(&space.place, "sluice_operator_connections_moved_total").await?,
            drained: drains("drained").await?,
            out_of_time: drains("timed_out").await?,
            timeouts: metric(&space.place, "sluice_operator_drain_timeouts_total").await?,
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            moved: self.moved - before.moved,
            drained: self.drained - before.drained,
            out_of_time: self.out_of_time - before.out_of_time,
            timeouts: self.timeouts - before.timeouts,
        }
    }
}

/// What each node had counted when it last answered, by pod: closes with 1012, drains begun and completed.
type Nodes = RefCell<BTreeMap<String, [f64; 3]>>;

async fn look(cluster: &Cluster<'_>, nodes: &Nodes) -> Result<()> {
    for pod in cluster.pods().await? {
        let Ok(ip) = ip(&pod) else { continue };
        let url = format!("http://{ip}:{}/metrics", names::ADMIN_PORT);
        // One that starts or that has just ended does not answer.
        let Ok(answer) = http()?.get(url).send().await else { continue };
        let text = answer.error_for_status()?.text().await?;
        let counted = [
            ("sluice_closes_total", "code=\"1012\""),
            ("sluice_drains_total", "reason=\"started\""),
            ("sluice_drains_total", "reason=\"completed\""),
        ];
        let counted = counted.map(|(name, label)| total(&text, name, label));
        nodes.borrow_mut().insert(pod.name_any(), counted);
    }
    Ok(())
}

async fn change(cluster: &Cluster<'_>, roll: &Roll<'_>, nodes: &Nodes, to: Value) -> Result<()> {
    cluster.change(to).await?;
    roll.until("the change to be carried out", async || {
        look(cluster, nodes).await?;
        let ready = cluster.condition(sluice_crds::ConditionType::Ready).await?;
        Ok(ready.status == "True")
    })
    .await
}

#[test]
fn drain_metrics_match_what_the_clients_saw() {
    quiet_test("drain_metrics_match_what_the_clients_saw", async |space| {
        let patient = json!({ "drain": { "initialDelaySeconds": 3 } });
        let cluster = space.cluster("chat", spec(2, patient)).await?;
        cluster.wait_ready().await?;
        let before = Counted::now(space).await?;
        let nodes = Nodes::default();
        let roll = Roll::start(&cluster, 20).await?;

        change(&cluster, &roll, &nodes, colour("blue")).await?;
        let deploy = Counted::now(space).await?.since(&before);
        let closes = roll.state().await?.closes as f64;
        let told: Vec<[f64; 3]> =
            roll.old().iter().filter_map(|pod| nodes.borrow().get(pod).copied()).collect();
        figure!(space, "a deploy: {closes} closes; nodes {told:?}; operator {deploy:?}");
        let expected = Counted { moved: closes, drained: 2.0, out_of_time: 0.0, timeouts: 0.0 };
        ensure!(closes == 20.0 && deploy == expected, "{deploy:?} and not {expected:?}");
        // A pod goes within moments of its last close: the last look may be from before that.
        let true_so_far = |[closes, started, completed]: &[f64; 3]| {
            (5.0..=10.0).contains(closes) && *started == 1.0 && *completed <= 1.0
        };
        ensure!(told.len() == 2 && told.iter().all(true_so_far), "the nodes counted {told:?}");

        let wait = json!({
            "mode": "Wait", "batchSize": null, "batchIntervalSeconds": null, "timeoutSeconds": 5,
        });
        change(&cluster, &roll, &nodes, json!({ "replicas": 1, "drain": wait })).await?;
        let outcome = roll.finish(1).await?;
        outcome.nothing_was_lost()?;
        let all = Counted::now(space).await?.since(&before);
        let closes = outcome.report.close_codes.get("1012").copied().unwrap_or_default() as f64;
        figure!(space, "with a drain that ran out of time: {closes} closes; operator {all:?}");
        let expected = Counted { moved: closes, drained: 2.0, out_of_time: 1.0, timeouts: 1.0 };
        ensure!(closes == 30.0 && all == expected, "{all:?} and not {expected:?}");
        Ok(())
    });
}
