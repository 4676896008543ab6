//! The progress lines: one for each step, with the time it took.
//!
//! Steps may run side by side, so a line is always printed whole.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::say::say;

/// Runs one step and prints its line when it is done; a failure names the step.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    match work() {
        Ok(value) => {
            say!("  ok   {what}  {}", seconds(began));
            Ok(value)
        }
        Err(error) => {
            say!("  FAIL {what}  {}", seconds(began));
            Err(error).with_context(|| format!("{what} failed"))
        }
    }
}

/// As [`step`], for one that takes long enough to be announced.
pub fn long_step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say!("  ...  {what}");
    step(what, work)
}

/// A heading over the steps that follow.
pub fn heading(text: &str) {
    say!("{text}");
}

/// The time since a moment, as the lines show it.
pub fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}
