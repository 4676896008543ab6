//! A deploy as a recording for the docs: what the clients saw of pods, and what the watch on pods did.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use sluice_e2e::recording::{Moment, Recording, Sample, VARIABLE};

use super::{
    pod_watch::{Sight, now},
    roll::Outcome,
};

/// Seconds of samples before the change.
const BEFORE: f64 = 2.0;

/// Writes the deploy that began at `began`, in milliseconds since the epoch, where the environment asks for it.
pub fn record(outcome: &Outcome, replicas: usize, drain: &str, began: f64) -> Result<()> {
    let Some(file) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let end = now();
    let recording = Recording {
        clients: outcome.report.clients,
        replicas,
        drain: drain.to_owned(),
        samples: samples(outcome, began),
        story: story(&outcome.watch.sights(), began, end),
        figures: figures(outcome),
    };
    std::fs::write(&file, serde_json::to_string_pretty(&recording)?).context("the recording")
}

fn samples(outcome: &Outcome, began: f64) -> Vec<Sample> {
    let all = outcome.report.samples.as_array().into_iter().flatten();
    let mut samples: Vec<Sample> = all
        .filter_map(|sample| {
            let counts = sample.as_object()?.iter().filter(|(key, _)| *key != "at");
            let by_pod: BTreeMap<String, usize> = counts
                .filter_map(|(pod, count)| Some((pod.clone(), count.as_u64()? as usize)))
                .collect();
            Some(Sample { at: (sample["at"].as_f64()? - began) / 1e3, by_pod })
        })
        .collect();
    // Of those before, the last one is how it stood at the beginning.
    let first = samples.iter().rposition(|sample| sample.at <= -BEFORE).unwrap_or(0);
    samples.drain(..first);
    if let Some(first) = samples.first_mut() {
        first.at = first.at.max(-BEFORE);
    }
    samples
}

fn story(sights: &[Sight], began: f64, end: f64) -> Vec<Moment> {
    let mut told: BTreeSet<(String, &str)> = BTreeSet::new();
    let mut story = vec![Moment { at: 0.0, text: "`kubectl apply` with another `env`".into() }];
    for sight in sights {
        let marks = [
            (true, "is made"),
            (sight.ready, "is Ready"),
            (sight.accepting, "takes clients"),
            (sight.started.is_some(), "drains, and takes no new clients"),
            (sight.drained, "has drained"),
            (sight.deleting || sight.gone, "goes"),
        ];
        for (_, what) in marks.into_iter().filter(|(holds, _)| *holds) {
            let new = told.insert((sight.uid.clone(), what));
            if new && sight.at >= began {
                let text = format!("`{}` {what}", sight.name);
                story.push(Moment { at: (sight.at - began) / 1e3, text });
            }
        }
    }
    story.retain(|moment| moment.at <= (end - began) / 1e3);
    story
}

fn figures(outcome: &Outcome) -> Vec<(String, String)> {
    let report = &outcome.report;
    let (moves, away, deliveries) = (&report.moves, &report.away, &report.deliveries);
    let codes: Vec<String> =
        report.close_codes.iter().map(|(code, count)| format!("{count} × {code}")).collect();
    let rows = [
        ("moves a client", format!("{:.2}", moves.mean)),
        ("closes", codes.join(", ")),
        ("away: median, p99", format!("{} ms, {} ms", away.p50, away.p99)),
        ("messages that clients were to get", deliveries.expected.to_string()),
        ("missed while joined", deliveries.missed_while_joined.to_string()),
        ("missed while between two pods", deliveries.missed_while_moving.to_string()),
        ("most clients on a pod, over the mean", format!("{:.2}", report.peak_over_mean.during)),
        ("most drains at a time", outcome.watch.most_drains_at_a_time().to_string()),
    ];
    rows.map(|(name, value)| (name.to_owned(), value)).into()
}
