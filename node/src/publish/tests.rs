//! Calls that are taken, and those that are refused.

use std::collections::BTreeSet;

use http::{Request, header};
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use super::*;
use crate::hub::Presences;
use crate::keys::Keys;

fn status(body: &str) -> u16 {
    parse(body.as_bytes()).map_or_else(|e| e.status().as_u16(), |_| 202)
}

/// Whether the published description lets `body` pass as `schema`.
fn fits(schema: &str, body: &str) -> bool {
    let mut doc: Value = serde_json::from_str(control::OPENAPI).unwrap();
    let name = format!("#/components/schemas/{schema}");
    let schema = json!({ "$ref": name, "components": doc["components"].take() });
    let body = serde_json::from_str(body);
    body.is_ok_and(|body| jsonschema::draft202012::is_valid(&schema, &body))
}

#[test]
fn one_message_or_several_in_order() {
    let one = parse(br#"{"topic":"room:1","event":"msg","payload":{"a":1}}"#).unwrap();
    assert_eq!(one[0].payload, r#"{"a":1}"#);
    let many = r#"{"messages":[{"topic":"a","event":"x","payload":{}},
        {"topic":"b","event":"y","payload": {"deep":[1]} }]}"#;
    let many = parse(many.as_bytes()).unwrap();
    assert_eq!((&*many[0].topic, &*many[1].topic), ("a", "b"));
    assert_eq!(many[1].payload, r#"{"deep":[1]}"#);
}

#[test]
fn a_payload_at_which_decoders_of_clients_fail_is_refused() {
    let of =
        |payload| parse(format!(r#"{{"topic":"a","event":"x","payload":{payload}}}"#).as_bytes());
    for payload in [r#"{"a":"\ud83d"}"#, r#"{"a":[1e999]}"#] {
        let error = of(payload).unwrap_err();
        assert_eq!(error.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert!(format!("{error:?}").contains("message 0: the payload has half of"), "{error:?}");
    }
    for payload in [r#"{"a":"\ud83d\ude00"}"#, r#"{"a":[1e99]}"#] {
        assert!(of(payload).is_ok(), "{payload}");
    }
}

#[test]
fn a_payload_has_so_many_levels_and_no_more() {
    let deep = |levels: usize| {
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        format!(r#"{{"topic":"a","event":"x","payload":{{"a":{open}{close}}}}}"#)
    };
    assert!(parse(deep(MAX_LEVELS).as_bytes()).is_ok());
    for levels in [MAX_LEVELS + 1, 3000] {
        let error = parse(deep(levels).as_bytes()).unwrap_err();
        assert_eq!(error.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert!(format!("{error:?}").contains("at most 96 levels"), "{error:?}");
    }
}

#[test]
fn p_bin_4_bytes_come_as_base64() {
    let one = parse(br#"{"topic":"room:1","event":"msg","payloadBase64":"/wAB+g=="}"#).unwrap();
    assert_eq!((one[0].kind, &one[0].payload[..]), (Kind::Binary, &[0xff, 0, 1, 0xfa][..]));
    let many = r#"{"messages":[{"topic":"a","event":"x","payload":{}},
        {"topic":"b","event":"y","payloadBase64":""}]}"#;
    let many = parse(many.as_bytes()).unwrap();
    assert_eq!((many[0].kind, many[1].kind), (Kind::Json, Kind::Binary));
    assert!(many[1].payload.is_empty());
}

#[test]
fn what_is_wrong_is_refused_with_its_status() {
    for (body, want) in [
        ("", 400),
        ("{", 400),
        ("[]", 422),
        ("{}", 422),
        (r#"{"topic":"a","event":"x"}"#, 422),
        (r#"{"topic":"a","event":"x","payload":1}"#, 422),
        (r#"{"topic":"a","event":"x","payload":[]}"#, 422),
        (r#"{"topic":"","event":"x","payload":{}}"#, 422),
        (r#"{"topic":"a","event":"phx_reply","payload":{}}"#, 422),
        (r#"{"topic":"phoenix","event":"x","payload":{}}"#, 422),
        (r#"{"topic":"a","event":"x","payload":{},"extra":1}"#, 422),
        (r#"{"topic":"a","event":"x","payload":{},"messages":[]}"#, 422),
        (r#"{"topic":"a","event":"x","payloadBase64":"?"}"#, 422),
        (r#"{"topic":"a","event":"x","payloadBase64":null}"#, 422),
        (r#"{"topic":"a","event":"x","payload":{},"payloadBase64":""}"#, 422),
        (r#"{"payloadBase64":"","messages":[]}"#, 422),
        (r#"{"messages":[]}"#, 422),
        (r#"{"messages":[{"topic":"a","event":"x","payload":{}},{"topic":"a"}]}"#, 422),
        (r#"{"topic":"a","topics":["b"],"event":"x","payload":{}}"#, 422),
        (r#"{"event":"x","payload":{}}"#, 422),
        (r#"{"topic":"a","payload":{}}"#, 422),
        (r#"{"topic":"a","event":"x","payload":{}}"#, 202),
        (r#"{"topics":["a"],"event":"x","payloadBase64":"/wAB+g=="}"#, 202),
        (r#"{"messages":[{"topic":"a","event":"x","payloadBase64":""}]}"#, 202),
    ] {
        assert_eq!(status(body), want, "{body}");
        assert_eq!(fits("Call", body), want == 202, "{body}");
    }
    let message = r#"{"topic":"a","event":"x","payload":{}}"#;
    let many = |n: usize| format!(r#"{{"messages":[{}]}}"#, vec![message; n].join(","));
    assert_eq!((status(&many(MAX_MESSAGES)), status(&many(MAX_MESSAGES + 1))), (202, 422));
}

proptest! {
    #[test]
    fn any_body_is_taken_or_refused_and_never_panics(body in ".{0,200}") {
        let _ = status(&body);
    }
}

#[test]
fn a_list_of_topics_gets_the_message_each_within_bounds() {
    let call = json!({"topics": ["a", "b"], "event": "x", "payload": {"n": 1}});
    let taken = parse(call.to_string().as_bytes()).unwrap();
    let topics: Vec<_> = taken.iter().map(|b| (&*b.topic, &b.payload[..])).collect();
    assert_eq!(topics, [("a", &br#"{"n":1}"#[..]), ("b", br#"{"n":1}"#)]);
    let of = |topics: Value| json!({"topics": topics, "event": "x", "payload": {}}).to_string();
    for (call, want) in [
        (of(json!(vec!["a"; 1000])), 202),
        (of(json!(vec!["a"; 1001])), 422),
        (of(json!([])), 422),
        (of(json!(["a", "phoenix"])), 422),
        (of(json!(["a", ""])), 422),
        (of(json!("a")), 422),
        (json!({"topic": "a", "topics": ["b"], "event": "x", "payload": {}}).to_string(), 422),
    ] {
        assert_eq!(status(&call), want, "{}", &call[..call.len().min(99)]);
    }
    let several = |n| {
        let message = json!({"topics": vec!["a"; n], "event": "x", "payload": {}});
        json!({"messages": [message, message]}).to_string()
    };
    assert_eq!((status(&several(500)), status(&several(501))), (202, 422));
    let large = |n| {
        let bytes = "A".repeat(4_000_000);
        json!({"topics": vec!["a"; n], "event": "x", "payloadBase64": bytes}).to_string()
    };
    assert_eq!((status(&large(2)), status(&large(3))), (202, 422), "3 MB thrice are too many");
}

/// Topics and events, as they were broadcast.
type Said = Arc<Mutex<Vec<(String, String)>>>;

/// The API, and what it broadcasts.
fn api() -> (Router, Said) {
    let said = Said::default();
    let (sink, token) = (said.clone(), Bytes::from_static(b"secret"));
    let sink: Sink = Arc::new(move |b: Broadcast| {
        sink.lock().push((b.topic.to_string(), b.event.to_string()));
    });
    let list: List = Arc::new(|query| {
        let count = |topic: &str| TopicCount { topic: topic.into(), subscribers: 2 };
        let all: Vec<_> = ["a:1", "a:2", "b"].map(count).into();
        Box::pin(async move { Some(query.pick(all.iter().map(|c| (&c.topic, c.subscribers)))) })
    });
    let who: Who = Arc::new(|query: &PresenceQuery| {
        (&*query.topic == "a:1").then(|| PresencePage {
            presences: vec![Presences { key: "anna".into(), metas: vec![Map::new()] }],
            more: query.after.is_none(),
        })
    });
    let formed = Arc::new(AtomicBool::new(true));
    let token = Token::new(Some(Keys::new(token)));
    (Publish::new(token, sink, list, who, formed, PublishMetrics::default()).router(), said)
}

async fn call(router: &Router, method: &str, path: &str, token: bool, body: &str) -> (u16, Value) {
    let mut request = Request::builder().method(method.to_uppercase().as_str()).uri(path);
    if token {
        request = request.header(header::AUTHORIZATION, "Bearer secret");
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), MAX_BODY).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn ids_are_disconnected_and_topics_listed_in_pages() {
    let (router, said) = api();
    let ids = r#"{"ids": ["users:anna", "users:bert"]}"#;
    let answer = call(&router, "post", "/api/disconnect", true, ids).await;
    assert_eq!(answer, (202, json!({"ids": 2})));
    let disconnect = |id: &str| (id.to_owned(), "disconnect".to_owned());
    assert_eq!(*said.lock(), [disconnect("users:anna"), disconnect("users:bert")]);
    for bad in ["{}", r#"{"ids": []}"#, r#"{"id": ""}"#, r#"{"id": "a", "ids": ["b"]}"#] {
        assert_eq!(call(&router, "post", "/api/disconnect", true, bad).await.0, 422, "{bad}");
        assert!(!fits("Ids", bad), "{bad}");
    }
    let page = |path: &'static str| call(&router, "get", path, true, "");
    let first = page("/api/topics?prefix=a:&limit=1").await;
    let want = json!({"topics": [{"topic": "a:1", "subscribers": 2}], "next": "a:1"});
    assert_eq!(first, (200, want));
    let last = page("/api/topics?prefix=a:&limit=2&after=a:1").await;
    assert_eq!(last, (200, json!({"topics": [{"topic": "a:2", "subscribers": 2}]})));
    for bad in ["limit=0", "limit=1001", "limit=x", "page=2"] {
        let path = format!("/api/topics?{bad}");
        assert_eq!(call(&router, "get", &path, true, "").await.0, 422, "{bad}");
    }
}

#[tokio::test]
async fn presence_is_listed_in_pages_of_topics_that_keep_it() {
    let (router, _) = api();
    let page = |path: &'static str| call(&router, "get", path, true, "");
    let anna = json!([{"key": "anna", "metas": [{}]}]);
    let first = json!({"topic": "a:1", "presences": anna, "next": "anna"});
    assert_eq!(page("/api/presence?topic=a:1&limit=1").await, (200, first));
    let last = json!({"topic": "a:1", "presences": anna});
    assert_eq!(page("/api/presence?topic=a:1&after=").await, (200, last), "a key may be empty");
    let (status, told) = page("/api/presence?topic=b").await;
    assert_eq!(status, 422);
    assert!(told["error"].as_str().unwrap().contains("set `presence` in the topic rule"), "{told}");
    let long: &str = format!("/api/presence?topic={}", "x".repeat(256)).leak();
    for bad in ["/api/presence", "/api/presence?topic=", "/api/presence?topic=a:1&limit=0", long] {
        let (status, told) = page(bad).await;
        assert_eq!(status, 422, "{bad}");
        assert!(told["error"].as_str().unwrap().contains("the parameters are"), "{told}");
    }
}

#[tokio::test]
async fn the_openapi_document_is_about_the_calls_that_there_are() {
    let doc: Value = serde_json::from_str(control::OPENAPI).unwrap();
    assert_eq!(doc["openapi"], "3.1.0");
    let mut described = BTreeSet::new();
    let (router, _) = api();
    for (path, methods) in doc["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            described.insert((method.as_str(), path.as_str()));
            let answers = operation["responses"].as_object().unwrap();
            let bare = call(&router, method, path, false, "").await.0;
            assert!(answers.contains_key(&bare.to_string()), "{method} {path} {bare}");
            let open = operation["security"].as_array().is_some_and(Vec::is_empty);
            assert_eq!(bare != 401, open, "{method} {path}");
            for (method, path, want) in [("patch", path, 405), (method, &format!("{path}/x"), 404)]
            {
                let (status, answer) = call(&router, method, path, true, "").await;
                assert!(status == want && answer["error"].is_string(), "{method} {path} {status}");
                assert!(answers.contains_key(&want.to_string()), "{method} {path} {want}");
            }
            assert!(answers.contains_key("408"), "{method} {path}");
            let content = &operation["requestBody"]["content"]["application/json"];
            let mut used = BTreeSet::new();
            for (name, example) in content["examples"].as_object().into_iter().flatten() {
                let body = &example["value"];
                let named = content["schema"]["$ref"].as_str().unwrap().rsplit('/').next();
                assert!(fits(named.unwrap(), &body.to_string()), "{path} {name}");
                used.extend(body.as_object().unwrap().keys());
                let (status, answer) = call(&router, method, path, true, &body.to_string()).await;
                assert_eq!(status, 202, "{path} {name} {answer}");
                let schema = &answers["202"]["content"]["application/json"]["schema"];
                for key in answer.as_object().unwrap().keys() {
                    assert!(schema["properties"][key].is_object(), "{path} {key}");
                }
                let wrong = json!({"nonsense": body}).to_string();
                let wrong = call(&router, method, path, true, &wrong).await;
                assert_eq!(wrong.0, 422);
                assert!(answers.contains_key("422") && wrong.1["error"].is_string());
            }
            // Every property that is described is in an example that was taken.
            let schema = content["schema"]["$ref"].as_str().and_then(|path| path.strip_prefix('#'));
            let schema = schema.and_then(|path| doc.pointer(path));
            let forms = schema.into_iter().flat_map(|schema| match &schema["oneOf"][0]["$ref"] {
                Value::String(_) => schema["oneOf"].as_array().unwrap().iter().collect(),
                _ => vec![schema],
            });
            let forms = forms.map(|form| match form["$ref"].as_str() {
                Some(path) => doc.pointer(path.strip_prefix('#').unwrap()).unwrap(),
                None => form,
            });
            let properties = forms.filter_map(|form| form["properties"].as_object()).flatten();
            assert_eq!(used, properties.map(|(key, _)| key).collect());
        }
    }
    let routes = routes();
    assert_eq!(described, routes.iter().map(|(method, path, _)| (*method, *path)).collect());
    let (status, served) = call(&router, "get", "/api/openapi.json", false, "").await;
    assert_eq!((status, served), (200, doc));
}

#[tokio::test]
async fn a_request_that_does_not_arrive_in_time_is_answered_408() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let request = std::time::Duration::from_millis(50);
    let limits = api::serve::Limits { connections: 1, per_ip: 1, request };
    let stop = tokio_util::sync::CancellationToken::new();
    let server = tokio::spawn(api::serve::serve(listener, api().0, limits, stop.clone()));
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = "POST /api/publish HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
        authorization: Bearer secret\r\ncontent-length: 9\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains(r#"{"error":"#), "{answer}");
    stop.cancel();
    server.await.unwrap();
}
