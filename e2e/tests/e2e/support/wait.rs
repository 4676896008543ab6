//! Waiting for a condition, with a limit and with what was still wrong when it passed.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep, timeout};

/// For what takes a few reconciles.
pub const SHORT: Duration = Duration::from_secs(45);
/// For what takes pods to start, drain or be replaced on a busy machine.
pub const LONG: Duration = Duration::from_secs(180);

const PAUSE: Duration = Duration::from_millis(200);

/// Asks until there is an answer; an error means "not yet", and the last one is told when the limit has passed.
pub async fn eventually<T>(
    what: &str,
    limit: Duration,
    mut check: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    let mut last = String::from("no answer yet");
    loop {
        match timeout(deadline.saturating_duration_since(Instant::now()), check()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {} s; at last: {last}", limit.as_secs());
        }
        sleep(PAUSE).await;
    }
}
