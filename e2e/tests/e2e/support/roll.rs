//! Live clients and publishers through a change of a cluster, and what every such change must hold.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use kube::ResourceExt;
use sluice_crds::{ConditionType, names};

use super::{
    Clients, Cluster, PodWatch, Space,
    clients::{Published, State},
    cluster::brief,
    pod_watch::Sight,
    report::Report,
    wait::LONG,
};
use crate::figure;

const GROUP: &str = "clients";
const TOPIC: &str = "room:lobby";
/// Milliseconds between two messages of a publisher.
const PUBLISH_EVERY: u64 = 60;
/// Clients for each millisecond between two messages, at the most: the program that all of them run in has one thread.
const CLIENTS_A_MILLISECOND: u64 = 5;

/// A cluster with live clients on it, and publishers at work.
pub struct Roll<'a> {
    cluster: Cluster<'a>,
    clients: Clients,
    watch: PodWatch,
    old: BTreeSet<String>,
    count: usize,
}

/// What a change did.
pub struct Outcome {
    pub report: Report,
    pub push: Published,
    pub http: Published,
    pub watch: PodWatch,
    /// Pods before the change.
    pub old: BTreeSet<String>,
    /// Pods after it.
    pub new: BTreeSet<String>,
}

impl<'a> Roll<'a> {
    /// Opens `count` clients by the Service and starts two publishers, one by push and one over HTTP.
    pub async fn start(cluster: &Cluster<'a>, count: usize) -> Result<Self> {
        let old = names(cluster).await?;
        let clients = Clients::start(cluster.space).await?;
        let opened =
            clients.open_evenly(GROUP, &cluster.urls().await?, TOPIC, count, old.len()).await?;
        figure!(cluster.space, "{} clients on {:?}", opened.joined, opened.by_node);
        let every = PUBLISH_EVERY.max(count as u64 / CLIENTS_A_MILLISECOND);
        clients.publish_by_push("push", GROUP, every).await?;
        let token = cluster.token(names::PUBLISH_TOKEN).await?;
        let urls = cluster.publish_urls().await?;
        clients.publish_by_http("http", (GROUP, TOPIC), every, (&urls, &token)).await?;
        let watch = PodWatch::start(cluster).await?;
        Ok(Self { cluster: cluster.clone(), clients, watch, old, count })
    }

    /// The live clients.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// How the clients are now.
    pub async fn state(&self) -> Result<State> {
        self.clients.state(GROUP).await
    }

    /// The pods before the change.
    pub fn old(&self) -> &BTreeSet<String> {
        &self.old
    }

    /// The watch on the pods.
    pub fn watch(&self) -> &PodWatch {
        &self.watch
    }

    /// One step of waiting: keeps the publishers pointed at pods that stay.
    pub async fn step(&self) -> Result<()> {
        if let Ok(urls) = self.cluster.publish_urls().await {
            self.clients.publish_to("http", &urls).await?;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
        Ok(())
    }

    /// Goes on until `done`, within a limit.
    pub async fn until(
        &self,
        what: &str,
        mut done: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<()> {
        let deadline = tokio::time::Instant::now() + LONG;
        loop {
            self.step().await?;
            // An answer that does not come now, such as while the operator is gone, comes later.
            let answer = done().await;
            if matches!(answer, Ok(true)) {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                let status = self.cluster.status().await.map(|status| brief(&status));
                let state = self.state().await;
                anyhow::bail!(
                    "{what}: not within {} s: {answer:?}; {status:?}; {state:?}",
                    LONG.as_secs()
                );
            }
        }
    }

    /// Goes on while `work` is done.
    pub async fn during<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                step = self.step() => step?,
            }
        }
    }

    /// Goes on for as long.
    pub async fn go_on(&self, time: Duration) -> Result<()> {
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < end {
            self.step().await?;
        }
        Ok(())
    }

    /// Goes on until the cluster is Ready as the spec now is.
    pub async fn until_ready(&self) -> Result<()> {
        self.until("the cluster to be Ready", async || {
            let ready = self.cluster.condition(ConditionType::Ready).await?;
            Ok(ready.status == "True")
        })
        .await
    }

    /// Waits until the cluster is Ready as the spec now is, stops the publishers and takes stock.
    pub async fn finish(self, replicas: usize) -> Result<Outcome> {
        self.until_ready().await?;
        self.until("all clients to be joined", async || {
            Ok(self.state().await?.joined == self.count)
        })
        .await?;
        let push = self.clients.stop_publishing("push").await?;
        let http = self.clients.stop_publishing("http").await?;
        let report = self.clients.report(GROUP, replicas).await?;
        let new = names(&self.cluster).await?;
        let outcome = Outcome { report, push, http, watch: self.watch, old: self.old, new };
        outcome.print(self.cluster.space);
        Ok(outcome)
    }
}

async fn names(cluster: &Cluster<'_>) -> Result<BTreeSet<String>> {
    Ok(cluster.pods().await?.iter().map(ResourceExt::name_any).collect())
}

impl Outcome {
    fn print(&self, space: &Space) {
        let Report { moves, close_codes, away, deliveries, peak_over_mean, by_node, .. } =
            &self.report;
        figure!(
            space,
            "moves a client {:.2} {:?}, closes {close_codes:?}",
            moves.mean,
            moves.counts
        );
        figure!(space, "away p50 {} / p99 {} / max {} ms", away.p50, away.p99, away.max);
        figure!(
            space,
            "of {} deliveries missed {} while joined, {} while moving; {} duplicates",
            deliveries.expected,
            deliveries.missed_while_joined,
            deliveries.missed_while_moving,
            deliveries.duplicates
        );
        figure!(
            space,
            "peak over mean {:.2} (at the start {:.2}); at the end {by_node:?}",
            peak_over_mean.during,
            peak_over_mean.start
        );
        figure!(
            space,
            "published {} by push {:?}, {} by http {:?}",
            self.push.sent,
            self.push.unsure,
            self.http.sent,
            self.http.unsure
        );
        figure!(
            space,
            "drains {:?}, at most {} at a time",
            self.watch.drains(),
            self.watch.most_drains_at_a_time()
        );
    }

    /// Each client moved exactly once.
    pub fn moved_once_each(&self) -> Result<()> {
        let Report { moves, clients, .. } = &self.report;
        ensure!(
            moves.counts.len() == 1 && moves.counts.get("1") == Some(clients),
            "every client is to be moved exactly once, and moves were {:?}; over time: {}",
            moves.counts,
            self.report.samples
        );
        Ok(())
    }

    /// What holds for a whole deploy: nobody is dropped, each client moves once, each pod drains once, one at a time, and
    /// no old one is left.
    pub fn all_replaced_once(&self) -> Result<()> {
        self.nobody_was_dropped(1)?;
        self.moved_once_each()?;
        self.drained_once_each()?;
        self.all_pods_replaced()
    }

    /// No drain was decided twice.
    pub fn drained_once_each(&self) -> Result<()> {
        let drains = self.watch.drains();
        ensure!(
            drains.values().all(|drains| *drains == 1),
            "a drain was decided twice: {drains:?}"
        );
        Ok(())
    }

    /// What holds for every change: closes are 1012, nothing is lost while joined, pods go drained, one after the other.
    pub fn nobody_was_dropped(&self, drains_at_a_time: usize) -> Result<()> {
        self.nothing_was_lost()?;
        let most = self.watch.most_drains_at_a_time();
        ensure!(most <= drains_at_a_time, "{most} drains at a time");
        self.pods_went_drained()
    }

    /// What holds whatever happens: all are joined at the end, closes are 1012, no message is lost while joined.
    pub fn nothing_was_lost(&self) -> Result<()> {
        let Report { close_codes, deliveries, joined, clients, errors, .. } = &self.report;
        ensure!(
            joined == clients,
            "{joined} of {clients} clients are joined at the end: {errors:?}"
        );
        ensure!(close_codes.keys().all(|code| code == "1012"), "close codes {close_codes:?}");
        ensure!(self.push.sent > 0 && self.http.sent > 0, "{:?} {:?}", self.push, self.http);
        ensure!(
            deliveries.missed_while_joined == 0,
            "{} messages missed while joined, from pod to pod {}; such as {}",
            deliveries.missed_while_joined,
            deliveries.paths,
            deliveries.examples
        );
        ensure!(deliveries.duplicates == 0, "{} messages twice", deliveries.duplicates);
        Ok(())
    }

    /// When the last client left the pod that is seen to go. A later pod of its name is another.
    fn last_close(&self, end: &Sight) -> Option<f64> {
        let namesake = |sight: &Sight| sight.name == end.name && sight.uid != end.uid;
        let sights = self.watch.sights();
        let next = sights.iter().find(|sight| namesake(sight) && sight.at > end.at);
        let closes = self.report.closes_by_node.get(&end.name).into_iter().flatten().copied();
        closes.filter(|at| next.is_none_or(|next| *at < next.at)).reduce(f64::max)
    }

    /// Clients that left a pod after this sight of it.
    pub fn closes_after(&self, sight: &Sight) -> usize {
        let closes = self.report.closes_by_node.get(&sight.name).into_iter().flatten();
        closes.filter(|at| **at > sight.at).count()
    }

    /// No two pods closed clients at the same time, whoever made them: names that are never used again are taken for
    /// granted.
    pub fn closed_one_after_the_other(&self) -> Result<()> {
        let times = |closes: &Vec<f64>| {
            let (first, last) = (f64::INFINITY, f64::NEG_INFINITY);
            closes.iter().fold((first, last), |(a, b), at| (a.min(*at), b.max(*at)))
        };
        let closing = &self.report.closes_by_node;
        let mut all: Vec<_> = closing.iter().map(|(pod, closes)| (times(closes), pod)).collect();
        all.sort_by(|a, b| a.0.0.total_cmp(&b.0.0));
        for pair in all.windows(2) {
            let ((_, last), one) = pair[0];
            let ((first, _), other) = pair[1];
            ensure!(last < first, "{one} and {other} closed clients at the same time: {all:?}");
        }
        Ok(())
    }

    /// No pod went with clients on it before its drain's time was over.
    pub fn pods_went_empty_or_overdue(&self) -> Result<()> {
        for end in self.watch.deletions() {
            let empty = self.last_close(&end).is_none_or(|last| last <= end.at);
            let overdue = end.deadline.is_some_and(|deadline| deadline <= end.at + 1e3);
            ensure!(empty || overdue, "{} had clients when it was deleted: {end:?}", end.name);
        }
        Ok(())
    }

    fn pods_went_drained(&self) -> Result<()> {
        for end in self.watch.deletions() {
            ensure!(end.drained, "{} was deleted before it was seen drained", end.name);
            let after = self.last_close(&end).map_or(0.0, |last| last - end.at);
            let name = &end.name;
            ensure!(
                after <= 0.0,
                "{name} was deleted {after:.0} ms before its last client had left"
            );
        }
        Ok(())
    }

    /// No pod is left of those before the change, and the watch has seen each of them go.
    pub fn all_pods_replaced(&self) -> Result<()> {
        ensure!(self.old.is_disjoint(&self.new), "{:?} are still there", self.old);
        let seen: BTreeSet<String> =
            self.watch.deletions().into_iter().map(|end| end.name).collect();
        ensure!(self.old.is_subset(&seen), "of {:?} only {seen:?} were seen to go", self.old);
        Ok(())
    }
}
