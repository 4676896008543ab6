//! The view through failures, changes and time.

use std::collections::VecDeque;

use parking_lot::Mutex;
use proptest::prelude::*;
use sluice_node_api::config::DnsDiscovery;

use super::*;

fn config(peers: &[&str]) -> Config {
    Config {
        dns: Some(DnsDiscovery { name: "headless".into(), port: 4001, interval_seconds: 5 }),
        peers: peers.iter().map(|p| (*p).to_owned()).collect(),
    }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

#[test]
fn the_view_is_names_and_list_without_ourselves() {
    let now = Instant::now();
    let own = "10.0.0.1:4001".parse().ok();
    let mut view = View::new(&config(&["10.0.0.9:5000", "other:6000"]), own, now);
    assert!(view.answer(&("headless".into(), 4001), &ips(&["10.0.0.1", "::ffff:10.0.0.2"]), now));
    assert!(view.answer(&("other".into(), 6000), &ips(&["fd00::1"]), now));
    let want = ["10.0.0.2:4001", "10.0.0.9:5000", "[fd00::1]:6000"];
    assert_eq!(view.peers(), want.iter().map(|a| a.parse().unwrap()).collect());
}

#[test]
fn an_empty_answer_keeps_the_last_view() {
    let now = Instant::now();
    let mut view = View::new(&config(&[]), None, now);
    let name = ("headless".to_owned(), 4001);
    view.answer(&name, &ips(&["10.0.0.2"]), now);
    assert!(!view.answer(&name, &[], now));
    assert_eq!(view.peers().len(), 1);
}

#[test]
fn looks_quickly_while_alone_or_changing_and_not_for_ever() {
    let start = Instant::now();
    let at = |s: u64| start + Duration::from_secs(s);
    let mut view = View::new(&config(&[]), None, start);
    let name = ("headless".to_owned(), 4001);
    let long = Duration::from_secs(30);
    assert_eq!(view.pause(true, long, at(30)), QUICK);
    assert_eq!(view.pause(true, long, at(61)), Duration::from_secs(5), "alone for good");
    view.answer(&name, &ips(&["10.0.0.2"]), at(100));
    assert_eq!(view.pause(false, long, at(105)), QUICK, "just changed");
    assert_eq!(view.pause(false, long, at(111)), Duration::from_secs(5), "settled");
    assert_eq!(view.pause(false, Duration::from_secs(3), at(112)), Duration::from_secs(3));
    assert_eq!(view.pause(false, Duration::ZERO, at(113)), QUICK, "never faster than that");
    assert_eq!(view.pause(true, long, at(300)), QUICK, "alone again");
}

#[test]
fn splits_addresses() {
    for (text, want) in [
        ("a.b:1", Some(("a.b", 1))),
        ("10.0.0.1:4001", Some(("10.0.0.1", 4001))),
        ("[fd00::1]:4001", Some(("fd00::1", 4001))),
        ("fd00::1:4001", None),
        ("a", None),
        (":1", None),
        ("a:0", None),
        ("a:65536", None),
    ] {
        let want = want.map(|(h, p)| (h.to_owned(), p));
        assert_eq!(split_host_port(text), want, "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_splits_or_not_and_never_panics(text in ".{0,40}") {
        let _ = split_host_port(&text);
    }
}

/// Answers from a script.
struct Script(Mutex<VecDeque<Result<Vec<IpAddr>, String>>>);

impl Lookup for Script {
    fn lookup<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Found, String>> {
        let next = self.0.lock().pop_front().unwrap_or_else(|| Err("the script is over".into()));
        let found = next.map(|ips| Found { ips, ttl: Duration::from_secs(5) });
        Box::pin(std::future::ready(found))
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_lookup_takes_nobody_away() {
    let script = VecDeque::from([
        Err("not yet".to_owned()),
        Ok(ips(&["10.0.0.2"])),
        Err("gone".to_owned()),
        Ok(ips(&["10.0.0.2", "10.0.0.3"])),
    ]);
    let lookup = Arc::new(Script(Mutex::new(script)));
    let views = Arc::new(Mutex::new(Vec::new()));
    let stop = CancellationToken::new();
    let (seen, end) = (views.clone(), stop.clone());
    let task = tokio::spawn(run(
        View::new(&config(&[]), None, Instant::now()),
        lookup.clone(),
        DiscoveryMetrics::default(),
        || true,
        move |v| seen.lock().push(v.len()),
        end,
    ));
    while !lookup.0.lock().is_empty() {
        tokio::time::sleep(QUICK).await;
    }
    stop.cancel();
    task.await.unwrap();
    assert_eq!(views.lock()[..3], [1, 1, 2], "nothing is told before anything is known");
}

#[test]
fn a_name_without_an_answer_does_not_say_that_there_is_nobody() {
    let now = Instant::now();
    let own = "10.0.0.1:4001".parse().ok();
    let mut view = View::new(&config(&[]), own, now);
    assert!(!view.says());
    view.answer(&("headless".into(), 4001), &ips(&["10.0.0.1"]), now);
    assert!(view.says() && view.peers().is_empty(), "alone, and sure of it");
    assert!(View::new(&config(&["10.0.0.9:5000"]), own, now).says());
    assert!(View::new(&Config::default(), own, now).says(), "nobody to look for");
}
