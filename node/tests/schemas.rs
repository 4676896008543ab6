//! The published schemas of a node's files against the node itself: what an editor marks as wrong is
//! refused, and what it lets pass is taken, where a schema can say it.

use std::path::Path;

use serde_json::Value;
use sluice_node::config::{check_node, parse_live, parse_node};

const CONFIG: &str = include_str!("../schema/config.json");
const LIVE: &str = include_str!("../schema/live.json");

/// Why the schema refuses the file, if it does.
fn by_schema(schema: &str, file: &str) -> Option<String> {
    let schema: Value = serde_json::from_str(schema).expect("JSON");
    let validator = jsonschema::draft202012::new(&schema).expect("a schema");
    let file: Value = serde_saphyr::from_str(file).expect("YAML");
    validator.iter_errors(&file).next().map(|error| error.to_string())
}

/// Why a node refuses the file that it reads at the start, if it does.
fn by_node(file: &str) -> Option<String> {
    match parse_node(Path::new("config.yaml"), file) {
        Ok(config) => {
            check_node(&config).first().map(|(field, reason)| format!("{field} {reason}"))
        }
        Err(error) => Some(error.to_string()),
    }
}

/// Why a node with a backend refuses the live file, if it does.
fn live_by_node(file: &str) -> Option<String> {
    parse_live(Path::new("live.yaml"), file, true).err().map(|error| error.to_string())
}

/// Asserts that both take every file of `good` and refuse every one of `bad`.
fn agree(schema: &str, node: fn(&str) -> Option<String>, good: &[String], bad: &[String]) {
    for file in good {
        assert_eq!((by_schema(schema, file), node(file)), (None, None), "{file}");
    }
    let taken = |by: &dyn Fn(&str) -> Option<String>| -> Vec<String> {
        bad.iter().filter(|file| by(file).is_none()).cloned().collect()
    };
    assert_eq!(taken(&node), [""; 0], "a node takes these");
    assert_eq!(taken(&|file| by_schema(schema, file)), [""; 0], "the schema takes these");
}

#[test]
fn the_schema_of_the_configuration_refuses_what_a_node_does() {
    let long = |key: &str, length: usize| format!("{key}: {}", "a".repeat(length));
    let jwks = |rest: &str| format!("auth: {{jwt: {{jwks: {{url: 'http://a'{rest}}}}}}}");
    let jwt = |rest: &str| format!("auth: {{jwt: {{jwks: {{url: 'http://a'}}, {rest}}}}}");
    let key = |key: &str| format!("auth: {{jwt: {{keys: [{{{key}}}]}}}}");
    let hooks = |rest: &str| format!("webhooks: {{url: 'http://a', secretFile: /x, {rest}}}");
    let url = |url: &str| format!("webhooks: {{url: '{url}', secretFile: /x}}");
    let token = "tokens: {meshFile: /x}";
    let good = [
        include_str!("../examples/config.yaml").to_owned(),
        "{}".to_owned(),
        long("cluster", 1),
        long("cluster", 255),
        "listen: {http: '127.0.0.1:0', mesh: '[::]:4001', admin: '[fe80::1%2]:65535'}".to_owned(),
        format!("{token}\ndiscovery: {{peers: ['a:1', '[::1]:65535', '10.0.0.1:0400']}}"),
        format!("{token}\ndiscovery: {{dns: {{name: a.b_c-d, port: 1, intervalSeconds: 3600}}}}"),
        "discovery: {peers: []}".to_owned(),
        "discovery: {peers: ['a:1']}\npubsub: {adapter: Redis, redis: {urlFile: /x}}".to_owned(),
        "pubsub: {peerBufferBytes: 65536}".to_owned(),
        "pubsub: {peerBufferBytes: 4294967296}".to_owned(),
        "socket: {path: /a/b.c-d_e~f, host: a.example, checkOrigin: true}".to_owned(),
        "socket: {host: '[::1]', checkOrigin: ['//a', 'https://b:8443', '//*.c', '//[::1]:0']}"
            .to_owned(),
        "socket: {checkOrigin: false, maxFrameBytes: 1024, maxChannels: 1}".to_owned(),
        "socket: {maxFrameBytes: 16000000, maxJoinsPerSecond: 100000}".to_owned(),
        "socket: {idleTimeoutSeconds: 4294967295, maxMessagesPerSecond: 1}".to_owned(),
        "socket: {path: /...}".to_owned(),
        "socket: {path: /.a/b..}".to_owned(),
        "shutdownSeconds: 0".to_owned(),
        "shutdownSeconds: 86400".to_owned(),
        "auth: {}".to_owned(),
        key("algorithm: HS256, secretFile: /x, kid: a"),
        key("algorithm: HS256, secretEnv: X"),
        key("algorithm: EdDSA, publicKeyFile: /x"),
        jwks(", refreshSeconds: 10, unknownKidSeconds: 1, timeoutSeconds: 1"),
        jwks(", refreshSeconds: 86400, unknownKidSeconds: 3600, timeoutSeconds: 8"),
        jwks(", algorithms: [RS256, ES256, EdDSA]"),
        jwt("leewaySeconds: 3600, param: a-b.c_1, socketId: 'u:{a.b}:{c}'"),
        jwt("issuers: [a], audiences: [b, c]"),
        url("https://user@a.example:443/b?c#d"),
        url("http://[::1]/b"),
        hooks("timeoutMilliseconds: 10, maxConcurrent: 1, maxQueued: 1, headers: [x-a, Cookie]"),
        hooks("timeoutMilliseconds: 8000, maxConcurrent: 1024, maxQueued: 1000000"),
    ];
    let bad = [
        "nonsense: 1".to_owned(),
        "cluster: ''".to_owned(),
        long("cluster", 256),
        "listen: {http: nowhere}".to_owned(),
        "listen: {mesh: '4001'}".to_owned(),
        "listen: {admin: '127.0.0.1:65536'}".to_owned(),
        "listen: {publish: localhost:4003}".to_owned(),
        "discovery: {peers: ['a:1']}".to_owned(),
        "discovery: {dns: {name: a}}\npubsub: {adapter: Mesh}\ntokens: {adminFile: /x}".to_owned(),
        format!("{token}\ndiscovery: {{peers: [a]}}"),
        format!("{token}\ndiscovery: {{peers: ['a:0']}}"),
        format!("{token}\ndiscovery: {{peers: ['a b:1']}}"),
        format!("{token}\ndiscovery: {{peers: [{}]}}", "'a:1',".repeat(1025)),
        format!("{token}\ndiscovery: {{dns: {{name: ''}}}}"),
        format!("{token}\ndiscovery: {{dns: {{name: 'a b'}}}}"),
        format!("{token}\ndiscovery: {{dns: {{name: {}}}}}", "a".repeat(254)),
        format!("{token}\ndiscovery: {{dns: {{name: a, port: 0}}}}"),
        format!("{token}\ndiscovery: {{dns: {{name: a, intervalSeconds: 0}}}}"),
        format!("{token}\ndiscovery: {{dns: {{name: a, intervalSeconds: 3601}}}}"),
        "pubsub: {adapter: NATS}".to_owned(),
        "pubsub: {adapter: Redis}".to_owned(),
        "pubsub: {adapter: Redis, redis: null}".to_owned(),
        "pubsub: {peerBufferBytes: 65535}".to_owned(),
        "pubsub: {peerBufferBytes: 4294967297}".to_owned(),
        "socket: {path: socket}".to_owned(),
        "socket: {path: /}".to_owned(),
        "socket: {path: /socket/}".to_owned(),
        "socket: {path: '/a b'}".to_owned(),
        "socket: {path: /..}".to_owned(),
        "socket: {path: /a/..}".to_owned(),
        "socket: {path: /./a}".to_owned(),
        "socket: {path: /a//b}".to_owned(),
        "socket: {maxFrameBytes: 1023}".to_owned(),
        "socket: {maxFrameBytes: 16000001}".to_owned(),
        "socket: {idleTimeoutSeconds: 0}".to_owned(),
        "socket: {idleTimeoutSeconds: 4294967296}".to_owned(),
        "socket: {maxChannels: 0}".to_owned(),
        "socket: {maxJoinsPerSecond: 0}".to_owned(),
        "socket: {maxJoinsPerSecond: 100001}".to_owned(),
        "socket: {maxMessagesPerSecond: 0}".to_owned(),
        "socket: {maxMessagesPerSecond: 100001}".to_owned(),
        "socket: {maxConnectsPerSecond: 0}".to_owned(),
        "socket: {host: 'a:80'}".to_owned(),
        "socket: {host: '*.a'}".to_owned(),
        "socket: {host: ''}".to_owned(),
        "socket: {checkOrigin: true}".to_owned(),
        "socket: {checkOrigin: maybe}".to_owned(),
        "socket: {checkOrigin: [a]}".to_owned(),
        "socket: {checkOrigin: ['//a/b']}".to_owned(),
        "socket: {checkOrigin: ['//a:65536']}".to_owned(),
        "shutdownSeconds: 86401".to_owned(),
        "auth: {jwt: {}}".to_owned(),
        "auth: {jwt: {keys: []}}".to_owned(),
        key("algorithm: none, secretFile: /x"),
        key("algorithm: HS256"),
        key("algorithm: HS256, secretFile: /x, secretEnv: X"),
        key("algorithm: HS256, secretFile: /x, publicKeyFile: /x"),
        key("algorithm: RS256"),
        key("algorithm: RS256, secretFile: /x"),
        key("algorithm: RS256, publicKeyFile: /x, secretEnv: X"),
        format!("auth: {{jwt: {{keys: [{}]}}}}", "{algorithm: HS256, secretEnv: X},".repeat(65)),
        "auth: {jwt: {jwks: {url: 'ftp://a'}}}".to_owned(),
        "auth: {jwt: {jwks: {url: 'http://'}}}".to_owned(),
        jwks(", algorithms: []"),
        jwks(", algorithms: [HS256]"),
        jwks(", algorithms: [RS256, RS256, RS256, RS256]"),
        jwks(", refreshSeconds: 9"),
        jwks(", refreshSeconds: 86401"),
        jwks(", unknownKidSeconds: 0"),
        jwks(", unknownKidSeconds: 3601"),
        jwks(", timeoutSeconds: 0"),
        jwks(", timeoutSeconds: 9"),
        jwt("leewaySeconds: 3601"),
        jwt("param: ''"),
        jwt("param: vsn"),
        jwt("param: 'a b'"),
        jwt(&long("param", 65)),
        jwt("socketId: all"),
        jwt("socketId: '{a'"),
        jwt("socketId: 'a{}'"),
        jwt(&format!("socketId: '{{a}}{}'", "a".repeat(253))),
        jwt("issuers: ['']"),
        jwt(&format!("audiences: [{}]", "a,".repeat(65))),
        jwt(&format!("audiences: [{}]", "a".repeat(2049))),
        "webhooks: {url: 'http://a'}".to_owned(),
        url("a.example"),
        url("http://a:0"),
        url("http://a:65536/b"),
        url(&format!("http://a/{}", "b".repeat(2048))),
        hooks("headers: ['a b']"),
        hooks("headers: ['']"),
        hooks(&format!("headers: [{}]", "a,".repeat(17))),
        hooks("timeoutMilliseconds: 9"),
        hooks("timeoutMilliseconds: 8001"),
        hooks("maxConcurrent: 0"),
        hooks("maxConcurrent: 1025"),
        hooks("maxQueued: 0"),
        hooks("maxQueued: 1000001"),
        hooks("onFailure: Maybe"),
    ];
    agree(CONFIG, by_node, &good, &bad);
}

#[test]
fn the_schema_of_the_live_file_refuses_what_a_node_does() {
    let rule = |rest: &str| format!("channels: [{{topic: a, {rest}}}]");
    let topic = |topic: &str| format!("channels: [{{topic: '{topic}'}}]");
    let rules = |count: usize| {
        let rules: Vec<_> = (0..count).map(|n| format!("{{topic: 't{n}'}}")).collect();
        format!("channels: [{}]", rules.join(","))
    };
    let good = [
        include_str!("../examples/live.yaml").to_owned(),
        "{}".to_owned(),
        "channels: []".to_owned(),
        rules(256),
        topic("room:*"),
        topic("*"),
        topic("phoenixes"),
        topic(&"a".repeat(255)),
        rule(
            "events: [a, xphx_join, disconnected], maxPayloadBytes: 8000000, maxMessagesPerSecond: 100000",
        ),
        rule("events: []"),
        rule("maxPayloadBytes: 1, maxMessagesPerSecond: 1, slowConsumer: LatestOnly"),
        rule("join: {claim: a.b}"),
        rule("join: {claim: a, topics: []}"),
        rule("join: {topics: ['user:{sub}', 'org:{a.b}:*', plain, '*']}"),
        rule("presence: {keyClaim: sub, metaClaims: [a, a], metaFields: [online, x_phx_ref]}"),
        rule("presence: {keyParam: user, keyClaim: null, maxMetaBytes: 64}"),
        rule("presence: {maxMetaBytes: 16384}"),
        rule("history: {size: 1, maxAgeSeconds: 1, maxBytes: 1024}"),
        rule("history: {size: 1000, maxAgeSeconds: 86400, maxBytes: 1048576}"),
        rule("webhooks: {join: true}"),
        rule("webhooks: {leave: true, events: []}"),
        rule("webhooks: {events: ['*']}"),
        "drain: {initialDelaySeconds: 0, waitSeconds: 86400, batchSize: 1}".to_owned(),
        "drain: {mode: Immediate, batchIntervalSeconds: 0.5, timeoutSeconds: null}".to_owned(),
        "limits: {maxConnections: 4294967295, maxBufferedBytes: 16777216}".to_owned(),
        "limits: {maxConnections: 0, maxBufferedBytes: 1099511627776}".to_owned(),
    ];
    let bad = [
        "nonsense: 1".to_owned(),
        rules(257),
        "channels: [{}]".to_owned(),
        topic(""),
        topic("a*b"),
        topic("**"),
        topic("phoenix"),
        topic(&"a".repeat(256)),
        rule("events: null"),
        rule("events: ['']"),
        rule("events: [phx_join]"),
        rule("events: [disconnect]"),
        rule("events: [x, x]"),
        rule(&format!("events: [{}]", "a".repeat(256))),
        rule("maxPayloadBytes: 0"),
        rule("maxPayloadBytes: 8000001"),
        rule("maxMessagesPerSecond: 0"),
        rule("maxMessagesPerSecond: 100001"),
        rule("slowConsumer: Drop"),
        rule("join: {}"),
        rule("join: {topics: []}"),
        rule("join: {claim: ''}"),
        rule("join: {claim: null}"),
        rule("join: {topics: ['']}"),
        rule("join: {topics: ['a*b']}"),
        rule("join: {topics: ['{a']}"),
        rule("join: {topics: ['a{}']}"),
        rule(&format!("join: {{topics: [{}]}}", "a,".repeat(17))),
        rule("presence: {keyClaim: a, keyParam: b}"),
        rule("presence: {keyClaim: ''}"),
        rule("presence: {metaClaims: [online_at]}"),
        rule("presence: {metaFields: [phx_ref]}"),
        rule(&format!("presence: {{metaFields: [{}]}}", "a,".repeat(17))),
        rule("presence: {maxMetaBytes: 63}"),
        rule("presence: {maxMetaBytes: 16385}"),
        rule("history: {size: 0}"),
        rule("history: {size: 1001}"),
        rule("history: {maxAgeSeconds: 0}"),
        rule("history: {maxAgeSeconds: 86401}"),
        rule("history: {maxBytes: 1023}"),
        rule("history: {maxBytes: 1048577}"),
        rule("webhooks: {}"),
        rule("webhooks: {join: false, events: []}"),
        rule("webhooks: {events: ['']}"),
        rule("webhooks: {events: [phx_join]}"),
        rule("webhooks: {events: [x, disconnect]}"),
        rule("webhooks: {events: [x, x]}"),
        "drain: {initialDelaySeconds: -1}".to_owned(),
        "drain: {initialDelaySeconds: 86401}".to_owned(),
        "drain: {waitSeconds: -0.5}".to_owned(),
        "drain: {batchIntervalSeconds: 86400.5}".to_owned(),
        "drain: {timeoutSeconds: 86401}".to_owned(),
        "drain: {batchSize: 0}".to_owned(),
        "drain: {batchSize: 4294967296}".to_owned(),
        "drain: {mode: Never}".to_owned(),
        "limits: {maxConnections: -1}".to_owned(),
        "limits: {maxConnections: 4294967296}".to_owned(),
        "limits: {maxBufferedBytes: 16777215}".to_owned(),
        "limits: {maxBufferedBytes: 1099511627777}".to_owned(),
        "limits: {maxBufferedBytes: 64Mi}".to_owned(),
    ];
    agree(LIVE, live_by_node, &good, &bad);
}
