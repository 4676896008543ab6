//! Configurations that are taken, and those that are refused with line and reason.

use std::fs;
use std::path::Path;
use std::time::Instant;

use prometheus_client::registry::Registry;
use sluice_node_api::config::{LiveConfig, NodeConfig};

use super::*;

fn env() -> Env {
    Env { node: "n".into(), ..Env::default() }
}

fn refusal(text: &str) -> String {
    let dir = tempdir();
    let path = dir.0.join("config.yaml");
    fs::write(&path, text).unwrap();
    let Err(error) = load(Some(&path), env()) else { panic!("was not refused:\n{text}") };
    error.to_string().replace(&format!("{}/", dir.0.display()), "")
}

struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tempdir() -> Dir {
    let dir = std::env::temp_dir().join(format!("sluice-config-{:016x}", rand::random::<u64>()));
    fs::create_dir(&dir).unwrap();
    Dir(dir)
}

#[test]
fn no_file_and_an_empty_file_are_the_defaults() {
    assert_eq!(load(None, env()).unwrap().config, NodeConfig::default());
    let path = Path::new("x");
    assert_eq!(parse_node(path, "# nothing\n\n").unwrap(), NodeConfig::default());
    assert_eq!(parse_live(path, "{}", false).unwrap(), LiveConfig::default());
}

#[test]
fn a_live_file_that_is_cut_short_opens_no_topic() {
    let dir = tempdir();
    let path = dir.0.join("live.yaml");
    let blank = ["", "\n", "  \n\n", "# nothing\n"];
    for text in blank {
        fs::write(&path, text).unwrap();
        let Err(error) = LiveFile::open(Some(path.clone()), false) else { panic!("{text:?}") };
        assert!(error.to_string().contains("live.yaml: is empty"), "{error}");
    }
    let guarded = "channels: [{topic: 'room:*', join: {claim: rooms}}]\n";
    fs::write(&path, guarded).unwrap();
    let live = LiveFile::open(Some(path.clone()), false).unwrap();
    for text in blank.into_iter().chain(["{}", "channels:\n", "drain: {batchSize: 5}\n", "---\n"]) {
        fs::write(&path, text).unwrap();
        assert!(live.look().is_none(), "{text:?}");
        assert!(live.refused().contains("live.yaml"), "{text:?}: {}", live.refused());
        assert!(live.config().channels[0].join.is_some(), "{text:?}");
    }
    fs::write(&path, "channels: []\n").unwrap();
    assert!(live.look().unwrap().channels.is_empty(), "which is said");
    // Who has written no rules has the default, whatever else changes.
    fs::write(&path, "drain: {batchSize: 5}\n").unwrap();
    let live = LiveFile::open(Some(path.clone()), false).unwrap();
    fs::write(&path, "drain: {batchSize: 6}\n").unwrap();
    assert_eq!(live.look().unwrap().drain.batch_size, 6);
}

#[test]
fn the_example_is_valid() {
    let text = include_str!("../../examples/config.yaml");
    let config = parse_node(Path::new("config.yaml"), text).unwrap();
    assert_eq!(check_node(&config), []);
    let live = include_str!("../../examples/live.yaml");
    parse_live(Path::new("live.yaml"), live, false).unwrap();
}

#[test]
fn bad_files_are_refused_with_line_and_reason() {
    for (text, line, reason) in [
        ("cluster: c\nlisten:\n  htp: x\n", 3, "htp"),
        ("cluster: [\n", 0, ""),
        ("cluster: c\ncluster: d\n", 2, "duplicate mapping key `cluster` is not allowed here"),
        ("cluster: c\n---\ncluster: d\n", 0, "single YAML document expected but multiple found"),
        ("cluster: c\nshutdownSeconds: soon\n", 2, "shutdownSeconds: must be a whole number"),
        (
            "shutdownSeconds: -1\n",
            1,
            "shutdownSeconds: must be a whole number from 0 to 4294967295",
        ),
        (
            "socket: {maxFrameBytes: -1}\n",
            1,
            "socket.maxFrameBytes: must be a whole number, 0 or more",
        ),
        ("listen:\n  http: nowhere\n", 2, "listen.http: \"nowhere\" is no address"),
        ("listen:\n  http: 1.1.1.1:1\n  mesh: 1.1.1.1:1\n", 3, "taken by listen.http"),
        (
            "listen:\n  http: 0.0.0.0:4009\n  admin: 127.0.0.1:4009\n",
            3,
            "listen.admin: 127.0.0.1:4009 is taken by listen.http, 0.0.0.0:4009",
        ),
        ("listen:\n  http: '1.1.1.1:9'\n  mesh: '[::]:9'\n", 3, "taken by listen.http"),
        (
            "listen:\n  admin: 127.0.0.1:4000\n",
            2,
            "listen.admin: 127.0.0.1:4000 is taken by listen.http, [::]:4000",
        ),
        ("listen:\n  admin: '[::1]:4001'\n", 2, "taken by listen.mesh, [::]:4001"),
        ("listen:\n  admin: 0.0.0.0:4000\n", 2, "taken by listen.http, [::]:4000"),
        ("pubsub:\n  adapter: Redis\n", 2, "Redis needs `pubsub.redis.urlFile`"),
        ("pubsub:\n  adapter: NATS\n", 2, "NATS"),
        ("discovery:\n  peers: [a]\n", 2, "write `host:port`"),
        ("discovery:\n  peers: ['a:1']\n", 1, "needs `tokens.meshFile`"),
        ("tokens:\n  adminFile: /nowhere\n", 2, "cannot read the token in /nowhere"),
        ("socket:\n  path: socket\n", 2, "must be a path"),
        ("socket:\n  path: /..\n", 2, "without `.`, `..` or nothing between two slashes"),
        ("socket:\n  path: /a/./b\n", 2, "must be a path"),
        ("socket:\n  path: /a//b\n", 2, "must be a path"),
        ("socket:\n  maxChannels: 0\n", 2, "must be at least 1"),
        ("socket:\n  maxJoinsPerSecond: 0\n", 2, "must be 1 to 100000"),
        ("socket:\n  maxMessagesPerSecond: 100001\n", 2, "must be 1 to 100000"),
        ("socket:\n  checkOrigin: maybe\n", 2, "list of origins"),
        ("socket:\n  checkOrigin: true\n", 2, "needs `socket.host`"),
        ("socket:\n  host: a:80\n", 2, "without a port"),
        ("socket:\n  checkOrigin: [//a, a]\n", 2, "\"a\" is no origin"),
        ("auth:\n  jwt: {}\n", 2, "needs `keys` or `jwks`"),
        ("webhooks:\n  url: x\n", 2, "secretFile"),
        ("webhooks: {url: 'ftp://a', secretFile: /x}\n", 1, "webhooks.url: must be a URL"),
        (
            "webhooks:\n  url: http://a\n  secretFile: /nowhere\n  connect: true\n",
            3,
            "cannot read the secrets in /nowhere",
        ),
        (
            "webhooks:\n  connect: true\n  timeoutMilliseconds: 9000\n  url: http://a\n  secretFile: /x\n",
            3,
            "must be 10 to 8000",
        ),
        ("auth:\n  jwt:\n    keys:\n    - {algorithm: none}\n", 4, "none"),
        ("auth:\n  jwt:\n    keys:\n    - algorithm: HS256\n", 4, "needs one of `secretFile`"),
        (
            "auth:\n  jwt:\n    keys:\n    - algorithm: RS256\n      secretFile: /x\n",
            4,
            "RS256 needs `publicKeyFile`",
        ),
        (
            "auth:\n  jwt:\n    keys:\n    - algorithm: HS256\n      secretFile: /nowhere\n",
            5,
            "cannot read the key in /nowhere",
        ),
        ("auth:\n  jwt:\n    jwks:\n      url: ftp://x\n", 4, "must be a URL"),
        (
            "auth:\n  jwt:\n    jwks:\n      url: http://x\n      algorithms: [HS256]\n",
            5,
            "a published key is no secret",
        ),
        (
            "auth:\n  jwt:\n    jwks:\n      url: http://x\n      timeoutSeconds: 9\n",
            5,
            "must be 1 to 8",
        ),
        ("auth:\n  jwt:\n    jwks: {url: 'http://x'}\n    param: vsn\n", 4, "not `vsn`"),
        ("auth:\n  jwt:\n    jwks: {url: 'http://x'}\n    socketId: all\n", 4, "name a claim"),
        ("auth:\n  jwt:\n    jwks: {url: 'http://x'}\n    socketId: '{a'\n", 4, "each brace"),
        ("liveFile: /nowhere.yaml\n", 0, "/nowhere.yaml: cannot be read"),
    ] {
        let got = refusal(text);
        if line > 0 {
            assert!(got.starts_with(&format!("config.yaml:{line}: ")), "{got}");
        }
        assert!(got.contains(reason), "{got} lacks {reason}");
    }
}

#[test]
fn p_con_5_an_origin_policy_in_its_three_forms() {
    use sluice_node_api::config::CheckOrigin;
    let list = ["//a", "https://b:8443", "//*.c"].map(String::from).to_vec();
    for (text, want) in [
        ("false", CheckOrigin::Off),
        ("true\n  host: a.example", CheckOrigin::Host),
        ("['//a', 'https://b:8443', '//*.c']", CheckOrigin::List(list)),
    ] {
        let text = format!("socket:\n  checkOrigin: {text}\n");
        let config = parse_node(Path::new("x"), &text).unwrap();
        assert_eq!((&config.socket.check_origin, check_node(&config)), (&want, vec![]));
        let again = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<NodeConfig>(&again).unwrap(), config);
    }
}

#[test]
fn keys_of_tokens_are_refused_for_what_they_are_and_never_shown() {
    let dir = tempdir();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let (public, private) = (pair.public_key_pem(), pair.serialize_pem());
    for (algorithm, field, content, reason) in [
        ("HS256", "secretFile", "hunter2", "at least 32 bytes"),
        ("EdDSA", "publicKeyFile", "hunter2", "no public key in PEM"),
        ("EdDSA", "publicKeyFile", private.as_str(), "no public key in PEM"),
        ("RS256", "publicKeyFile", public.as_str(), "a key for EdDSA, not for RS256"),
    ] {
        let file = dir.0.join("key");
        fs::write(&file, content).unwrap();
        let key = format!("{{algorithm: {algorithm}, {field}: '{}'}}", file.display());
        let got = refusal(&format!("auth:\n  jwt:\n    keys:\n    - {key}\n"));
        assert!(got.starts_with("config.yaml:4: ") && got.contains(reason), "{got}");
        assert!(!got.contains("hunter2"), "{got}");
    }
}

#[test]
fn every_problem_is_told_at_once() {
    let got = refusal("listen:\n  http: x\n  mesh: y\nsocket:\n  maxChannels: 0\n");
    assert_eq!(got.lines().count(), 3, "{got}");
}

#[test]
fn topic_rules_are_checked() {
    for (rule, reason) in [
        ("topic: 'a*b'", "as its last character"),
        ("topic: '**'", "as its last character"),
        ("topic: ''", "1 to 255"),
        ("topic: phoenix", "reserved"),
        ("topic: a\n  events: [phx_join]", "reserved"),
        (
            "topic: a\n  events: [x, disconnect]",
            "channels[0].events: `disconnect` closes sockets and is never relayed: \
             give yours another name",
        ),
        ("topic: a\n  events: [x, x]", "twice"),
        ("topic: a\n  maxPayloadBytes: 0", "1 to 8000000"),
        ("topic: a\n  webhooks: {}", "channels[0].webhooks: needs `join`, `events` or `leave`"),
        ("topic: a\n  webhooks: {events: [phx_join]}", "the protocol's own"),
        (
            "topic: a\n  webhooks: {events: [disconnect]}",
            "webhooks.events: `disconnect` closes sockets and is never asked about: \
             give yours another name",
        ),
        ("topic: a\n  webhooks: {events: ['']}", "1 to 255"),
        ("topic: a\n  webhooks: {events: [x, x]}", "twice"),
        ("topic: a\n  slowConsumer: Drop", "DropOldest"),
        ("topic: a\n  history: {size: 0}", "history.size: must be 1 to 1000"),
        ("topic: a\n  history: {maxAgeSeconds: 86401}", "must be 1 to 86400"),
        ("topic: a\n  history: {maxBytes: 1023}", "must be 1024 to 1048576"),
        ("topic: a\n- topic: a", "already"),
    ] {
        let text = format!("channels:\n- {rule}\n");
        let got = parse_live(Path::new("live.yaml"), &text, true).unwrap_err().to_string();
        assert!(got.contains(reason), "{got} lacks {reason}");
    }
    for bytes in ["0", "16777215", "1099511627777", "-1", "64Mi"] {
        let text = format!("limits:\n  maxBufferedBytes: {bytes}\n");
        assert!(parse_live(Path::new("x"), &text, false).is_err(), "{bytes}");
    }
    for drain in ["initialDelaySeconds: .nan", "waitSeconds: -1", "batchSize: 0"] {
        assert!(
            parse_live(Path::new("x"), &format!("drain:\n  {drain}\n"), false).is_err(),
            "{drain}"
        );
    }
}

#[test]
fn short_and_unprintable_tokens_are_refused_and_never_shown() {
    let dir = tempdir();
    for (name, content, must) in [
        (
            "short",
            "hunter2-hunter2\n",
            "must have at least 16 bytes: `openssl rand -hex 16` makes one",
        ),
        ("odd", "hunter2-hunter2-hunter2\u{7f}", "must be printable ASCII"),
    ] {
        let file = dir.0.join(name);
        fs::write(&file, content).unwrap();
        for field in ["meshFile", "adminFile", "publishFile"] {
            let got = refusal(&format!("tokens:\n  {field}: {}\n", file.display()));
            let want = format!("tokens.{field}: the token in {} {must}", file.display());
            assert!(got.contains(&want) && !got.contains("hunter2"), "{got}");
        }
    }
    let file = dir.0.join("good");
    fs::write(&file, "0123456789abcdef\n").unwrap();
    assert_eq!(tokens::read(file.to_str().unwrap()).unwrap(), "0123456789abcdef");
}

#[test]
fn tokens_are_read_again_and_a_bad_one_leaves_the_last_in_force() {
    let dir = tempdir();
    let file = dir.0.join("mesh");
    let (old, new) = ("0123456789abcdef", "fedcba9876543210");
    fs::write(&file, old).unwrap();
    let text = format!("tokens:\n  meshFile: {}\n", file.display());
    let config = parse_node(Path::new("node.yaml"), &text).unwrap();
    let mut problems = Vec::new();
    let tokens = Tokens::open(&config, &mut problems);
    assert!(problems.is_empty() && tokens.admin.is_none());
    let (keys, now) = (tokens.mesh.clone().unwrap(), Instant::now());
    fs::write(&file, "short").unwrap();
    tokens.look(now);
    fs::remove_file(&file).unwrap();
    tokens.look(now);
    assert_eq!(keys.taken(now), [old]);
    fs::write(&file, format!("{new}\n")).unwrap();
    tokens.look(now);
    assert_eq!(keys.taken(now), [new, old]);
}

#[test]
fn the_environment_names_the_node() {
    let get = |key: &str| match key {
        "POD_NAME" => Some("chat-0".to_owned()),
        "POD_IP" => Some("10.0.0.1".to_owned()),
        _ => None,
    };
    let env = Env::read(get);
    assert_eq!((env.node.as_str(), env.ip()), ("chat-0", "10.0.0.1".parse().ok()));
    let bad = Env { pod_ip: "x".into(), ..env };
    assert!(load(None, bad).is_err());
}

#[test]
fn a_bad_change_keeps_the_last_valid_live_configuration() {
    let dir = tempdir();
    let path = dir.0.join("live.yaml");
    // As a ConfigMap volume does it: the name is a symlink that is swapped.
    let put = |n: &str, text: &str| {
        let real = dir.0.join(n);
        fs::write(&real, text).unwrap();
        let link = dir.0.join("next");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        fs::rename(&link, &path).unwrap();
    };
    put("1", "channels:\n- topic: 'a:*'\n");
    let live = LiveFile::open(Some(path.clone()), false).unwrap();
    let first = live.hash();
    assert!(live.look().is_none(), "nothing changed");
    put("2", "channels:\n- topic: 'a*b'\n");
    assert!(live.look().is_none() && live.look().is_none());
    assert!(live.refused().contains("live.yaml:2"), "{}", live.refused());
    assert_eq!((live.hash(), live.config().channels[0].topic.as_str()), (first, "a:*"));
    put("2b", "channels:\n- topic: a\n  webhooks: {join: true}\n");
    assert!(live.look().is_none());
    let told = "live.yaml:3: channels[0].webhooks: needs `webhooks` in the node's configuration";
    assert!(live.refused().contains(told), "{}", live.refused());
    fs::remove_file(&path).unwrap();
    assert!(live.look().is_none(), "a file that is gone changes nothing");
    put("3", "channels:\n- topic: 'b:*'\n");
    assert_eq!(live.look().unwrap().channels[0].topic, "b:*");
    assert_eq!(live.refused(), "");
    assert_eq!(live.hash(), hash("channels:\n- topic: 'b:*'\n"));
    let mut registry = Registry::default();
    live.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("reloads_total{result=\"refused\"} 3"), "{text}");
    assert!(text.contains("reloads_total{result=\"ok\"} 1"), "{text}");
}

#[test]
fn rules_that_no_topic_reaches_are_told_and_taken() {
    let told = |topics: &[&str]| {
        let rules: Vec<_> = topics.iter().map(|topic| format!("{{topic: {topic:?}}}")).collect();
        let text = format!("channels: [{}]\n", rules.join(", "));
        let live = parse_live(Path::new("x"), &text, false).unwrap();
        let found = check::never_used(&live);
        found.into_iter().map(|(rule, reason)| format!("{rule}: {reason}")).collect::<Vec<_>>()
    };
    assert_eq!(told(&["room:lobby", "room:*", "roo", "*"]), Vec::<String>::new());
    assert_eq!(
        told(&["a", "room:*", "room:lobby", "room:x*", "*", "b"]),
        [
            "channels[2]: never used: channels[1], \"room:*\", takes all its topics first",
            "channels[3]: never used: channels[1], \"room:*\", takes all its topics first",
            "channels[5]: never used: channels[4], \"*\", takes all its topics first",
        ]
    );
}
