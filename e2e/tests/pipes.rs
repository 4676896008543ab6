//! The program beside others in a pipe.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Command, Stdio};

#[test]
fn a_reader_that_has_gone_ends_the_program_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let state = tempfile::tempdir_in("/tmp").unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_e2e"))
        .arg("logs")
        .env("SLUICE_E2E_STATE", state.path())
        .env_remove("SLUICE_E2E_CONTEXT")
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    // As a shell tells of a program that SIGPIPE has ended.
    assert_eq!((ended.status.code(), &*said), (Some(141), ""));
}
