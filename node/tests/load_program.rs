//! The program `examples/load.rs` under limits of open files, as a shell sets them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    path::PathBuf,
    process::{Command, Output},
};

/// Runs it with few connections, after `ulimit` with these arguments.
fn run(limit: &str, connections: &str) -> Output {
    let tests = std::env::current_exe().unwrap();
    let load: PathBuf = tests.ancestors().nth(2).unwrap().join("examples/load");
    assert!(load.exists(), "`cargo build -p sluice-node --example load` makes it");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit {limit} && exec \"$@\""), "sh"]).arg(load);
    shell.args(["--node", env!("CARGO_BIN_EXE_channel-node"), "--rest", "0", "--messages", "1"]);
    shell.args(["--connections", connections]).output().unwrap()
}

#[test]
fn it_takes_as_many_files_as_it_may() {
    let out = run("-Sn 96", "200");
    let (said, wrong) =
        (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{wrong}");
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "two floors and a node: {said}");
    assert!(lines.iter().all(|line| line["connections"] == 200), "{said}");
}

#[test]
fn fewer_files_than_it_needs_are_refused_at_once_with_how_many_it_needs() {
    let out = run("-n 500", "8000");
    let wrong = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && out.stdout.is_empty(), "{wrong}");
    let sentence =
        "8000 connections need 10672 open files, and 500 are the most here: `ulimit -n 10672`";
    assert!(wrong.contains(sentence), "{wrong}");
    assert!(!wrong.contains("client "), "none is started: {wrong}");
}
