//! The `crdgen` program, as `cargo e2e test` runs it.

use std::process::{Command, Output};

fn crdgen(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_crdgen")).args(arguments).output().expect("it runs")
}

#[test]
fn check_passes_when_everything_is_fresh() {
    let done = crdgen(&["--check"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(done.stdout.is_empty() && done.stderr.is_empty());
}

#[test]
fn an_unknown_argument_is_refused_with_the_usage() {
    let done = crdgen(&["--chekc"]);
    assert_eq!(done.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&done.stderr), "usage: crdgen [--check]\n");
}
