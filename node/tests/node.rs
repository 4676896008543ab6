//! Whole nodes: chat and publish across two, the admin API, drains, live reload, shutdown.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use serde_json::{Value, json};
use support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chat_and_publish_reach_clients_on_the_other_node() {
    let dir = Dir::new();
    let (a, b) = pair(&dir).await;
    let (mut at_a, mut at_b) = (Client::join(&a, "room:1").await, Client::join(&b, "room:1").await);
    at_a.send("msg", json!({"from": "a"})).await;
    assert_eq!(at_b.event("msg").await, json!({"from": "a"}));
    at_b.send("msg", json!({"from": "b"})).await;
    assert_eq!(at_a.event("msg").await, json!({"from": "a"}), "the sender hears itself");
    assert_eq!(at_a.event("msg").await, json!({"from": "b"}));

    let one = json!({"topic": "room:1", "event": "news", "payload": {"n": 1}});
    let many = json!({"messages": (2..50).map(|n| json!({"topic": "room:1", "event": "news",
        "payload": {"n": n}})).collect::<Vec<_>>()});
    assert_eq!(publish(&a, one.to_string()).await, (202, json!({"published": 1})));
    assert_eq!(publish(&a, many.to_string()).await, (202, json!({"published": 48})));
    for client in [&mut at_a, &mut at_b] {
        for n in 1..50 {
            assert_eq!(client.event("news").await, json!({"n": n}));
        }
    }
    drop((at_a, at_b));
    tokio::join!(end(a), end(b));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p_bin_4_bytes_reach_clients_on_the_other_node() {
    let dir = Dir::new();
    let (a, b) = pair(&dir).await;
    let (mut at_a, mut at_b) = (Client::join(&a, "room:1").await, Client::join(&b, "room:1").await);
    at_a.send_binary("blob", &[0, 0xff, 7]).await;
    let want = b"\x02\x06\x04room:1blob\x00\xff\x07";
    assert_eq!((at_a.binary().await, at_b.binary().await), (want.to_vec(), want.to_vec()));
    assert_eq!(at_a.event("phx_reply").await, json!({"status": "ok", "response": {}}));
    let news = json!({"topic": "room:1", "event": "blob", "payloadBase64": "AP8H"});
    assert_eq!(publish(&a, news.to_string()).await, (202, json!({"published": 1})));
    assert_eq!((at_a.binary().await, at_b.binary().await), (want.to_vec(), want.to_vec()));
    drop((at_a, at_b));
    tokio::join!(end(a), end(b));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publish_refuses_strangers_and_what_is_wrong() {
    let dir = Dir::new();
    let a = node("a", &dir.config("")).await;
    let url = format!("http://{}/api/publish", a.addresses.publish);
    let good = json!({"topic": "t", "event": "e", "payload": {}}).to_string();
    for token in [None, Some("wrong"), Some(ADMIN_TOKEN), Some(MESH_TOKEN)] {
        let (status, body) = call("POST", &url, token, Some(good.clone())).await;
        assert!(status == 401 && body["error"].is_string(), "{token:?}: {status} {body}");
    }
    for (body, want) in [("{", 400), ("{}", 422), (r#"{"messages":[]}"#, 422)] {
        let (status, answer) = publish(&a, body.into()).await;
        assert!(status == want && answer["error"].is_string(), "{body}: {status} {answer}");
    }
    let (status, _) = publish(&a, "x".repeat(8_000_001)).await;
    assert_eq!(status, 413);
    let (status, body) = call("GET", &url, Some(PUBLISH_TOKEN), None).await;
    assert!(status == 405 && body["error"].is_string());
    end(a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_and_metrics_are_open_and_the_rest_is_not() {
    let dir = Dir::new();
    let a = node("a", &dir.config("")).await;
    let at = format!("http://{}", a.addresses.admin);
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(call("GET", &format!("{at}{path}"), None, None).await.0, 200, "{path}");
    }
    let response = reqwest::get(format!("{at}/metrics")).await.unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = response.text().await.unwrap();
    for name in [
        "sluice_connections ",
        "sluice_mesh_peers ",
        "sluice_mesh_queue_bytes ",
        "process_resident_memory_bytes ",
        "process_open_fds ",
    ] {
        assert!(text.contains(&format!("\n{name}")), "{name} is missing in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    for (method, path) in [
        ("GET", "/status"),
        ("GET", "/drain"),
        ("POST", "/drain"),
        ("DELETE", "/drain"),
        ("POST", "/cordon"),
        ("DELETE", "/cordon"),
        ("POST", "/shed"),
    ] {
        for token in [None, Some("wrong"), Some(PUBLISH_TOKEN)] {
            let (status, body) = call(method, &format!("{at}{path}"), token, None).await;
            assert!(status == 401 && body["error"].is_string(), "{method} {path}: {status}");
        }
    }
    let (status, body) = admin(&a, "GET", "/status", None).await;
    assert_eq!(status, 200);
    assert_eq!((&body["node"], &body["podUid"]), (&json!("a"), &json!("uid-a")));
    assert_eq!(body["liveConfigHash"], sluice_node::config::hash(LIVE));
    assert!(body.get("redisConnected").is_none());
    assert_eq!(admin(&a, "GET", "/nowhere", None).await.0, 404);
    end(a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_api_reads_no_more_of_a_body_than_it_takes() {
    const MOST: usize = 64 << 10;
    let dir = Dir::new();
    let a = node("a", &dir.config("")).await;
    let shed = json!({"count": 1, "ratePerSecond": 1, "delaySeconds": 0.0}).to_string();
    for (path, body) in [
        ("/drain", drain_request(json!({})).to_string()),
        ("/cordon", json!({"ttlSeconds": 1.0}).to_string()),
        ("/shed", shed),
    ] {
        let url = format!("http://{}{path}", a.addresses.admin);
        let padded = |bytes: usize| Some(format!("{body}{}", " ".repeat(bytes - body.len())));
        let (status, answer) = call("POST", &url, Some(ADMIN_TOKEN), padded(MOST + 1)).await;
        assert_eq!(status, 413, "{path}");
        assert_eq!(answer["error"], "the body has at most 65536 bytes", "{path}");
        let (status, answer) = call("POST", &url, Some(ADMIN_TOKEN), padded(MOST)).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
    end(a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_the_admin_api_refuses_every_call() {
    let dir = Dir::new();
    let config = dir.0.join("bare.yaml");
    std::fs::write(
        &config,
        "listen: {http: '127.0.0.1:0', admin: '127.0.0.1:0', publish: '127.0.0.1:0'}\n",
    )
    .unwrap();
    let a = node("a", &config).await;
    assert!(a.addresses.mesh.is_none());
    for token in ["", "x"] {
        let url = format!("http://{}/status", a.addresses.admin);
        assert_eq!(call("GET", &url, Some(token), None).await.0, 401);
    }
    end(a).await;
}

fn drain_request(more: Value) -> Value {
    let mut request = json!({"mode": "Batched", "initialDelaySeconds": 0.0, "waitSeconds": 0.0,
        "batchSize": 1, "batchIntervalSeconds": 0.05, "ttlSeconds": 60.0});
    for (key, value) in more.as_object().unwrap() {
        request[key] = value.clone();
    }
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_is_idempotent_closes_with_1012_and_can_be_cancelled() {
    let dir = Dir::new();
    let a = node("a", &dir.config("")).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::join(&a, "room:1").await);
    }
    let wait = drain_request(json!({"mode": "Wait"}));
    let (status, first) = admin(&a, "POST", "/drain", Some(wait.clone())).await;
    assert_eq!(status, 200, "{first}");
    let (_, again) = admin(&a, "POST", "/drain", Some(wait)).await;
    assert_eq!((&again["startedAt"], &again["initial"]), (&first["startedAt"], &json!(3)));
    let (_, ended) = admin(&a, "DELETE", "/drain", None).await;
    assert_eq!((&ended["phase"], &ended["remaining"]), (&json!("None"), &json!(3)));
    let (_, begun) = admin(&a, "POST", "/drain", Some(drain_request(json!({})))).await;
    assert_eq!(begun["initial"], 3);
    for client in &mut clients {
        assert_eq!(client.closed().await, 1012);
    }
    drop(clients);
    until("drained", || a.admin.status().connections == 0).await;
    let (_, over) = admin(&a, "GET", "/drain", None).await;
    assert_eq!((&over["phase"], &over["moved"]), (&json!("Drained"), &json!(3)));
    let ready = format!("http://{}/readyz", a.addresses.admin);
    assert_eq!(call("GET", &ready, None, None).await.0, 200, "a drain does not touch readiness");
    for bad in [json!({"ttlSeconds": 0.0}), json!({"batchSize": 0}), json!({"waitSeconds": -1.0})] {
        let (status, body) = admin(&a, "POST", "/drain", Some(drain_request(bad))).await;
        assert!(status == 422 && body["error"].is_string(), "{status} {body}");
    }
    end(a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_nobody_renews_is_given_up() {
    let dir = Dir::new();
    let a = node("a", &dir.config("")).await;
    let client = Client::join(&a, "room:1").await;
    let short = drain_request(json!({"mode": "Wait", "ttlSeconds": 0.3}));
    admin(&a, "POST", "/drain", Some(short)).await;
    until("given up", || a.admin.status().drain.phase == sluice_node_api::admin::DrainPhase::None)
        .await;
    drop((client, Client::join(&a, "room:1").await));
    end(a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_ends_the_drain_of_a_node_that_leaves() {
    let dir = Dir::new();
    let live = LIVE.replace("initialDelaySeconds: 0", "initialDelaySeconds: 1");
    std::fs::write(dir.0.join("live.yaml"), live).unwrap();
    let a = node("a", &dir.config("")).await;
    let mut clients = [Client::join(&a, "room:1").await, Client::join(&a, "room:1").await];
    let (at, watched) = (a.addresses.admin, a.admin.clone());
    let ends = tokio::spawn(a.shut_down(sluice_node::run::Cause::Terminate));
    let none = sluice_node_api::admin::DrainPhase::None;
    until("it drains", || watched.status().drain.phase != none).await;
    let url = format!("http://{at}/drain");
    let (status, said) = call("DELETE", &url, Some(ADMIN_TOKEN), None).await;
    assert!(status == 200 && said["phase"] != "None", "{status} {said}");
    let other = drain_request(json!({"mode": "Wait", "ttlSeconds": 0.2})).to_string();
    let (status, said) = call("POST", &url, Some(ADMIN_TOKEN), Some(other)).await;
    assert!(status == 200 && said["phase"] != "None", "{status} {said}");
    for client in &mut clients {
        assert_eq!(client.closed().await, 1012);
    }
    drop(clients);
    tokio::time::timeout(BOUND, ends).await.expect("it ends").unwrap();
}

/// A node on which everybody may stay for as long as they like, unless the live settings say `more`.
async fn patient(dir: &Dir, more: &str) -> sluice_node::run::Node {
    let live = LIVE.replace("drain: {", &format!("drain: {{mode: Wait, {more}"));
    std::fs::write(dir.0.join("live.yaml"), live).unwrap();
    node("a", &dir.config("shutdownSeconds: 600\n")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_drains_no_longer_than_its_live_settings_say() {
    let dir = Dir::new();
    let a = patient(&dir, "timeoutSeconds: 0.3, ").await;
    let mut client = Client::join(&a, "room:1").await;
    let ends = tokio::spawn(a.shut_down(sluice_node::run::Cause::Terminate));
    assert_eq!(client.closed().await, 1012);
    drop(client);
    tokio::time::timeout(BOUND, ends).await.expect("it ends").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_is_told_that_its_time_is_over() {
    let dir = Dir::new();
    let a = patient(&dir, "").await;
    let mut client = Client::join(&a, "room:1").await;
    let (at, watched) = (a.addresses.admin, a.admin.clone());
    let ends = tokio::spawn(a.shut_down(sluice_node::run::Cause::Terminate));
    let none = sluice_node_api::admin::DrainPhase::None;
    until("it drains", || watched.status().drain.phase != none).await;
    let url = format!("http://{at}/drain");
    let now = drain_request(json!({"mode": "Immediate", "initialDelaySeconds": 0.0}));
    let (status, said) = call("POST", &url, Some(ADMIN_TOKEN), Some(now.to_string())).await;
    assert!(status == 200 && said["phase"] != "None", "{status} {said}");
    assert_eq!(client.closed().await, 1012);
    drop(client);
    tokio::time::timeout(BOUND, ends).await.expect("it ends").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cordon_and_shed() {
    let dir = Dir::new();
    let a = node("a", &dir.config("")).await;
    let (mut one, mut two) = (Client::join(&a, "room:1").await, Client::join(&a, "room:1").await);
    assert_eq!(admin(&a, "POST", "/cordon", None).await.1["cordoned"], true);
    let url = format!("ws://{}/socket/websocket?vsn=2.0.0", a.addresses.http);
    let refused = tokio_tungstenite::connect_async(&url).await.unwrap_err().to_string();
    assert!(refused.contains("503"), "{refused}");
    let (_, timed) = admin(&a, "POST", "/cordon", Some(json!({"ttlSeconds": 60}))).await;
    let left = timed["cordonSecondsLeft"].as_f64().unwrap();
    assert!(timed["cordoned"] == true && left > 0.0 && left <= 60.0, "{timed}");
    let (_, forever) = admin(&a, "POST", "/cordon", None).await;
    assert!(forever["cordoned"] == true && forever.get("cordonSecondsLeft").is_none(), "{forever}");
    for bad in [json!({}), json!({"ttlSeconds": 0}), json!({"ttlSeconds": 1e9}), json!([60])] {
        let (status, body) = admin(&a, "POST", "/cordon", Some(bad)).await;
        assert!(status == 422 && body["error"].is_string(), "{status} {body}");
    }
    assert_eq!(admin(&a, "DELETE", "/cordon", None).await.1["cordoned"], false);
    admin(&a, "POST", "/cordon", Some(json!({"ttlSeconds": 0.2}))).await;
    until("over", || !a.admin.status().cordoned).await;
    let (_, shed) =
        admin(&a, "POST", "/shed", Some(json!({"count": 9, "ratePerSecond": 100}))).await;
    assert_eq!(shed, json!({"shedding": 2}));
    assert_eq!((one.closed().await, two.closed().await), (1012, 1012));
    assert_eq!(admin(&a, "GET", "/status", None).await.1["shed"], 2, "not the nine asked for");
    drop((one, two));
    end(a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_rules_change_without_a_restart() {
    let dir = Dir::new();
    let a = node("a", &dir.config("")).await;
    let live = LIVE.replace("room:*", "hall:*");
    std::fs::write(dir.0.join("next"), &live).unwrap();
    std::fs::rename(dir.0.join("next"), dir.0.join("live.yaml")).unwrap();
    until("in force", || a.admin.status().live_config_hash == sluice_node::config::hash(&live))
        .await;
    drop(Client::join(&a, "hall:1").await);
    end(a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_keeps_a_drain_and_moves_everyone() {
    let dir = Dir::new();
    let (a, b) = pair(&dir).await;
    let mut client = Client::join(&a, "room:1").await;
    let mut other = Client::join(&b, "room:1").await;
    let wait = drain_request(json!({"initialDelaySeconds": 0.2}));
    let (_, begun) = admin(&a, "POST", "/drain", Some(wait)).await;
    client.send("msg", json!({"last": true})).await;
    let hub = a.hub.clone();
    let leaves = async move { client.closed().await };
    let (code, ()) = tokio::join!(leaves, end(a));
    assert_eq!(code, 1012);
    assert_eq!(other.event("msg").await, json!({"last": true}));
    let drain = hub.drain_status();
    assert_eq!(json!(drain.started_at), begun["startedAt"], "a new drain was begun");
    drop(other);
    until("forgotten", || b.admin.status().peers.iter().all(|p| !p.inbound && !p.outbound)).await;
    end(b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_named() {
    let dir = Dir::new();
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = taken.local_addr().unwrap();
    let config = dir.0.join("taken.yaml");
    std::fs::write(&config, format!("listen: {{http: '127.0.0.1:0', mesh: '127.0.0.1:0', publish: '127.0.0.1:0', admin: '{at}'}}\n")).unwrap();
    let env = sluice_node::config::Env { node: "a".into(), ..Default::default() };
    let loaded = sluice_node::config::load(Some(&config), env).unwrap();
    let Err(error) = sluice_node::run::start(loaded, 1).await else { panic!("it started") };
    let text = format!("{error:#}");
    assert!(text.contains("listen.admin") && text.contains(&at.to_string()), "{text}");
}
