//! `spec.socket`, as it stands in the node's file.

use sluice_node_api::config::{CheckOrigin, Socket};

use super::*;

fn node_config(spec: &str) -> NodeConfig {
    let template = rendered(spec).workload.template;
    let text = template["metadata"]["annotations"][NODE_CONFIG].as_str().unwrap();
    serde_saphyr::from_str(text).unwrap()
}

#[test]
fn which_pages_may_connect_is_in_the_nodes_file() {
    let origins = |spec: &str| node_config(spec).socket.check_origin;
    assert_eq!(origins("{}"), CheckOrigin::Off);
    assert_eq!(origins("{socket: {checkOrigin: []}}"), CheckOrigin::List(vec![]));
    let list = ["https://chat.example.com", "//*.example.com:8080", "http://[::1]:4000"];
    let spec = format!("socket: {{checkOrigin: {list:?}}}");
    assert_eq!(origins(&spec), CheckOrigin::List(list.map(String::from).into()));
    let only = Socket { check_origin: origins(&spec), ..Socket::default() };
    assert_eq!(node_config(&spec).socket, only, "nothing else changes");
}

#[test]
fn how_often_a_socket_may_join_and_speak_is_in_the_nodes_file() {
    assert_eq!(node_config("{}").socket, Socket::default(), "as the node has it");
    let only = Socket { max_joins_per_second: Some(20), ..Socket::default() };
    assert_eq!(node_config("{socket: {maxJoinsPerSecond: 20}}").socket, only);
    let only = Socket { max_messages_per_second: Some(500), ..Socket::default() };
    assert_eq!(node_config("{socket: {maxMessagesPerSecond: 500}}").socket, only);
}

#[test]
fn an_origin_that_a_node_would_refuse_is_an_error_that_says_what_to_write() {
    // What the rule of the API server lets through.
    let object = cluster("{socket: {checkOrigin: ['//[:::]']}}");
    let error = build(&Cluster::new(&object, &defaults()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("`//[:::]` is no origin: write `//host`"), "{error}");
}
