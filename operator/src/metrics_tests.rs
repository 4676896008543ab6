use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

#[test]
fn series_come_and_go_with_their_cluster() {
    let metrics = Metrics::new();
    let cluster = ClusterLabels { namespace: "team".into(), name: "chat".into() };
    let status = ChannelClusterStatus { connections: 7, ..ChannelClusterStatus::default() };
    metrics.reconciled("ok", Duration::from_millis(3));
    metrics.reported(&cluster, &status);
    let text = metrics.text().unwrap();
    assert!(text.contains("sluice_operator_reconcile_total{result=\"ok\"} 1"), "{text}");
    assert!(text.contains("sluice_operator_connections{namespace=\"team\",name=\"chat\"} 7"));
    assert!(text.contains("process_open_fds"));
    metrics.forget(&cluster);
    assert!(!metrics.text().unwrap().contains("name=\"chat\""));
}

#[test]
fn a_condition_is_one_series_and_goes_with_its_cluster() {
    let metrics = Metrics::new();
    let of = |name: &str| ClusterLabels { namespace: "team".into(), name: name.into() };
    let told = |name: &str, status: &str, reason: &str| {
        let condition = |type_: &str, status: &str, reason: &str| Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        let conditions = vec![
            condition("Available", status, reason),
            condition("Stalled", "False", "AsExpected"),
        ];
        let status = ChannelClusterStatus { conditions, ..ChannelClusterStatus::default() };
        metrics.reported(&of(name), &status);
    };
    let series = || -> Vec<String> {
        let text = metrics.text().unwrap();
        let lines = text.lines().filter(|l| l.starts_with("sluice_operator_condition{"));
        let mut lines: Vec<_> = lines.map(ToOwned::to_owned).collect();
        lines.sort();
        lines
    };
    let line = |name: &str, rest: &str| {
        format!("sluice_operator_condition{{namespace=\"team\",name=\"{name}\",{rest}}} 1")
    };
    let stalled = "type=\"Stalled\",status=\"False\",reason=\"AsExpected\"";
    let away = "type=\"Available\",status=\"False\",reason=\"WaitingForPodReady\"";
    let there = "type=\"Available\",status=\"True\",reason=\"AsExpected\"";
    told("chat", "False", "WaitingForPodReady");
    assert_eq!(series(), [line("chat", away), line("chat", stalled)]);
    told("chat", "True", "AsExpected");
    told("other", "True", "AsExpected");
    let other = [line("other", there), line("other", stalled)];
    assert_eq!(series(), [[line("chat", there), line("chat", stalled)], other.clone()].concat());
    metrics.forget(&of("chat"));
    assert_eq!(series(), other);
    assert_eq!(metrics.conditions.lock().len(), 1);
}

#[test]
fn a_drain_that_ran_out_of_time_is_counted_when_its_pod_is_let_go() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let drain = DrainCommitment {
        reason: sluice_crds::DrainReason::Rollout,
        started_at: at(100),
        deadline: at(160),
        target: "new".into(),
        initial: None,
        drained_at: None,
    };
    let mut pod = PodState { drain: Some(drain), ..PodState::default() };
    let metrics = Metrics::new();
    let count = |line: &str| metrics.text().unwrap().lines().any(|l| l == line);
    let timeouts = |n| count(&format!("sluice_operator_drain_timeouts_total {n}"));
    metrics.let_go(&pod, at(130));
    assert!(timeouts(0), "a person let it go in time");
    metrics.let_go(&pod, at(160));
    assert!(timeouts(1));
    let label = "reason=\"Rollout\",outcome=\"timed_out\"";
    assert!(count(&format!("sluice_operator_drain_duration_seconds_count{{{label}}} 1")));
    // It was counted when it had drained.
    pod.drain.as_mut().unwrap().drained_at = Some(at(150));
    metrics.let_go(&pod, at(170));
    assert!(timeouts(1));
    // One that is evicted is let go by others: it has drained, but not in time.
    pod.drain.as_mut().unwrap().drained_at = None;
    let seen = Observed { pods: vec![pod.clone()], ..Observed::default() };
    let mark = |second| Action::MarkDrained { pod: (&pod).into(), at: at(second) };
    metrics.acted(&mark(159), &seen);
    assert!(timeouts(1));
    metrics.acted(&mark(161), &seen);
    assert!(timeouts(2));
    // Undone after that it is not counted again.
    pod.drain.as_mut().unwrap().drained_at = Some(at(161));
    let seen = Observed { pods: vec![pod.clone()], ..Observed::default() };
    metrics.acted(&Action::StripAnnotations { pod: (&pod).into() }, &seen);
    assert!(!count("outcome=\"cancelled\""));
}
