//! A walk of spec changes by chance, under live clients.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sluice_crds::ConditionType;

use crate::{
    figure,
    support::{
        Space,
        chance::{Chance, number},
        cluster::brief,
        hardy_test,
        roll::Roll,
        spec,
    },
};

const CLIENTS: usize = 42;
/// How long, in seconds, unless `SLUICE_E2E_WALK_SECONDS` says otherwise.
const SECONDS: u64 = 60;
/// Between two changes, in milliseconds.
const PAUSE: std::ops::RangeInclusive<u64> = 2_000..=6_000;

/// What the spec says where the walk changes it.
struct Walk {
    images: [String; 2],
    /// Image and colour, each as they were: the last is what is asked for.
    templates: Vec<(usize, u64)>,
    replicas: u64,
    paused: bool,
}

impl Walk {
    fn new(space: &Space) -> Result<Self> {
        let images = space.place.kubernetes.images()?;
        let images = [images.channel_node, images.channel_node_next];
        Ok(Self { images, templates: vec![(0, 0)], replicas: 3, paused: false })
    }

    /// The next change: what to call it, and its patch of the spec.
    fn next(&mut self, chance: &mut Chance) -> (String, Value) {
        let (image, colour) = self.templates.last().copied().unwrap_or_default();
        match chance.within(0..=11) {
            0 | 1 => self.template((1 - image, colour)),
            2 | 3 => self.template((image, (colour + chance.within(1..=3)) % 4)),
            4 if self.templates.len() > 1 => {
                let before = *chance.one_of(&self.templates[..self.templates.len() - 1]);
                let (what, patch) = self.template(before);
                (format!("back to {what}"), patch)
            }
            // It goes on sooner than it stops.
            which if which == 5 || self.paused && which < 8 => {
                self.paused = !self.paused;
                (format!("paused {}", self.paused), json!({ "paused": self.paused }))
            }
            6..=8 => drain(chance),
            _ => {
                self.replicas = chance.within(0..=6);
                (format!("{} replicas", self.replicas), json!({ "replicas": self.replicas }))
            }
        }
    }

    fn template(&mut self, (image, colour): (usize, u64)) -> (String, Value) {
        self.templates.push((image, colour));
        let env = json!([{ "name": "COLOUR", "value": colour.to_string() }]);
        let patch = json!({ "image": self.images[image], "podTemplate": { "env": env } });
        (format!("image {image} colour {colour}"), patch)
    }
}

/// Another way to drain.
fn drain(chance: &mut Chance) -> (String, Value) {
    let (batch, interval) = (chance.within(1..=10), chance.within(1..=2));
    let timeout = chance.within(15..=120);
    let drain = match chance.within(0..=5) {
        0 => json!({ "mode": "Immediate", "batchSize": null, "batchIntervalSeconds": null }),
        1 => json!({
            "mode": "Wait", "batchSize": null, "batchIntervalSeconds": null, "timeoutSeconds": 8,
        }),
        _ => json!({
            "mode": "Batched", "batchSize": batch, "batchIntervalSeconds": interval, "timeoutSeconds": timeout,
        }),
    };
    (format!("drain {drain}"), json!({ "drain": drain }))
}

#[test]
fn a_walk_of_random_changes_converges_and_loses_nobody() {
    let name = "a_walk_of_random_changes_converges_and_loses_nobody";
    let seconds = number("SLUICE_E2E_WALK_SECONDS").expect("a number").unwrap_or(SECONDS);
    hardy_test(name, Duration::from_secs(seconds + 420), async |space| {
        let mut chance = Chance::new(space)?;
        let mut walk = Walk::new(space)?;
        let cluster = space.cluster("chat", spec(3, json!({ "image": walk.images[0] }))).await?;
        cluster.wait_ready().await?;
        let roll = Roll::start(&cluster, CLIENTS).await?;
        let began = Instant::now();
        let mut changes = 0;
        while began.elapsed() < Duration::from_secs(seconds) {
            let (what, patch) = walk.next(&mut chance);
            figure!(space, "{:5.1} s: {what}", began.elapsed().as_secs_f64());
            cluster.change(patch).await?;
            changes += 1;
            roll.go_on(chance.time(PAUSE)).await?;
        }
        let quick = json!({
            "mode": "Batched", "batchSize": 10, "batchIntervalSeconds": 1, "timeoutSeconds": 120,
        });
        cluster.change(json!({ "paused": false, "replicas": 3, "drain": quick })).await?;
        let walked = began.elapsed().as_secs_f64();
        roll.until("the cluster to converge", async || {
            let ready = cluster.condition(ConditionType::Ready).await?;
            Ok(ready.status == "True")
        })
        .await?;
        let converged = began.elapsed().as_secs_f64() - walked;
        let outcome = roll.finish(3).await?;
        figure!(space, "{changes} changes in {walked:.0} s; converged {converged:.0} s later");
        outcome.nothing_was_lost()?;
        outcome.pods_went_empty_or_overdue()?;
        let status = cluster.status().await?;
        ensure!(
            status.drains.is_empty() && status.rollout.is_none(),
            "{:?} {:?}",
            status.drains,
            brief(&status)
        );
        ensure!(status.updated_replicas == 3 && status.replicas == 3, "{status:?}");
        Ok(())
    });
}
