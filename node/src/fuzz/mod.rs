//! Hostile input for everything that reads bytes from outside.
//!
//! Each target is a function of bytes that must never panic and must hold what it asserts; none does
//! I/O. Its corpus is `node/corpus/<target>`. `mutate` runs them all in `cargo test`; `node/fuzz`
//! gives each to a coverage-guided fuzzer, which `cargo e2e fuzz` runs. Not in the program.
#![allow(clippy::unwrap_used, reason = "a panic is what a target says")]

mod files;
mod messages;
#[cfg(test)]
mod mutate;
mod requests;

pub use files::{config, live, origin, publish};
pub use messages::{binary, frame, v1, v2};
pub use requests::{jwt, longpoll};
