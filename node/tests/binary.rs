//! The program itself: its exit codes, its words, its signals.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::net::SocketAddr;
use std::process::{Command, Output};

use support::program::{Running, program};
use support::{BOUND, Dir};

fn output(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = [stdout, stderr].concat();
    (status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn check_config_says_valid_or_what_is_wrong() {
    let dir = Dir::new();
    let good = dir.config("");
    let (code, text) = output(program().arg("--check-config").arg("--config").arg(&good));
    assert_eq!(code, Some(0), "{text}");
    let bad = dir.0.join("bad.yaml");
    std::fs::write(&bad, "cluster: c\nlisten:\n  http: nowhere\n").unwrap();
    let (code, text) = output(program().arg("--check-config").env("SLUICE_CONFIG", &bad));
    assert_eq!(code, Some(78), "{text}");
    assert!(text.contains("bad.yaml:3: listen.http"), "{text}");
    let (code, text) = output(program().arg("--check-config").env("POD_IP", "nowhere"));
    assert!(code == Some(78) && text.contains("POD_IP"), "{text}");
}

#[test]
fn check_config_refuses_by_the_environment_what_the_start_refuses() {
    for (key, value, told) in [
        ("SLUICE_LOG_FORMAT", "xml", "\"xml\" is not `text` or `json`"),
        ("RUST_LOG", "=,=loud", "RUST_LOG: "),
        ("SLUICE_LOG", "=,=loud", "SLUICE_LOG: "),
        ("SLUICE_LOG", "debgu", "SLUICE_LOG: \"debgu\" is no level"),
        ("RUST_LOG", "info,sluice_node", "RUST_LOG: \"sluice_node\" is no level"),
        ("SLUICE_SHARDS", "100000", "SLUICE_SHARDS: 100000 is more than 256"),
        ("SLUICE_SHARDS", "abc", "SLUICE_SHARDS: \"abc\" is no number from 0 to 256"),
        ("SLUICE_SHARDS", "-1", "SLUICE_SHARDS: \"-1\" is no number from 0 to 256"),
        ("SLUICE_SHARDS", "", "SLUICE_SHARDS: \"\" is no number from 0 to 256"),
        ("SLUICE_CONFIG", "", "SLUICE_CONFIG is empty: name a file, or leave it out"),
    ] {
        for arguments in [&["--check-config"][..], &[]] {
            let (code, text) = output(program().args(arguments).env(key, value));
            assert_eq!(code, Some(78), "{key}={value} {arguments:?}: {text}");
            assert!(text.contains(told), "{key}={value} {arguments:?}: {text}");
        }
    }
}

#[test]
fn a_log_that_no_terminal_shows_has_no_colours() {
    let dir = Dir::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let live = format!(
        "listen: {{http: '{at}', mesh: '127.0.0.1:0', admin: '127.0.0.1:0', publish: '127.0.0.1:0'}}\n"
    );
    let config = dir.0.join("taken.yaml");
    std::fs::write(&config, live).unwrap();
    let (code, text) = output(program().arg("--config").arg(&config).env("SLUICE_LOG", "trace"));
    assert!(code == Some(1) && text.contains(&at.to_string()), "{code:?} {text}");
    assert!(!text.contains('\u{1b}'), "escape codes in {text}");
}

/// A client of a program that gets SIGTERM: it is told that the service restarts, with 1012.
async fn sent_elsewhere(program: &Running, http: SocketAddr) -> impl Sized + use<> {
    let url = format!("ws://{http}/socket/websocket?vsn=2.0.0");
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    program.process.signal("TERM");
    let closed = tokio::time::timeout(BOUND, futures::StreamExt::next(&mut socket)).await;
    let closed = format!("{:?}", closed.expect("a close"));
    assert!(closed.contains("Restart"), "{closed}");
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_drains_and_exits_with_0() {
    let dir = Dir::new();
    let (mut program, http) = Running::start(&dir, "");
    drop(sent_elsewhere(&program, http).await);
    assert_eq!(program.process.exit(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_time_for_a_drain_a_client_is_told_and_its_answer_is_not_waited_for() {
    let dir = Dir::new();
    let (mut program, http) = Running::start(&dir, "shutdownSeconds: 0\n");
    // It answers nobody, unless it is read once more.
    let _socket = sent_elsewhere(&program, http).await;
    assert_eq!(program.process.exit(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    let dir = Dir::new();
    std::fs::write(dir.0.join("live.yaml"), "drain: {mode: Wait, initialDelaySeconds: 600}\n")
        .unwrap();
    let (mut program, http) = Running::start(&dir, "shutdownSeconds: 600\n");
    let url = format!("ws://{http}/socket/websocket?vsn=2.0.0");
    let _socket = tokio_tungstenite::connect_async(url).await.unwrap();
    program.process.signal("TERM");
    program.process.line("shutting down");
    program.process.signal("TERM");
    assert_eq!(program.process.exit(), Some(130));
}
