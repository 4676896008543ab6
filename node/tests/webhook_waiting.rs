//! Questions that wait for their turn, and all that is kept for them meanwhile: bounded, and what is
//! beyond is refused and counted.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod backend;
mod plane;
mod support;

use std::fmt::Write;

use backend::{Backend, counted, start, url};
use plane::{Client, refusal};
use support::{BOUND, Dir, end, until};
use tokio::time::timeout;

/// Parameters of about so many bytes in all.
fn params(bytes: usize) -> String {
    let value = "x".repeat(bytes / 100);
    (0..100).fold(String::new(), |mut all, n| {
        write!(all, "&p{n}={value}").unwrap();
        all
    })
}

#[tokio::test]
async fn connects_that_wait_count_with_all_that_is_kept_of_them() {
    const CLIENTS: usize = 220;
    let (dir, backend) = (Dir::new(), Backend::start().await);
    let gate = backend.hold("connect");
    let more = "  connect: true\n  maxConcurrent: 1\n  timeoutMilliseconds: 8000\n";
    let node = start(&dir, &backend.url, more).await;
    // All of their parameters would be 13 MiB, but each is kept more than once.
    let url = url(&node, &params(60_000));
    let knock = || {
        let url = url.clone();
        tokio::spawn(async move { Client::connect(&url).await })
    };
    let mut waiting = Vec::from_iter((0..CLIENTS).map(|_| knock()));
    let mut refused = Vec::new();
    until("some find no room", || {
        refused.extend(waiting.extract_if(.., |client| client.is_finished()));
        !refused.is_empty()
    })
    .await;
    assert!(counted(&node, "connect", "queue").await);
    for client in refused {
        assert_eq!(refusal(client.await.unwrap()).0, 403);
    }
    gate.add_permits(CLIENTS);
    for client in waiting {
        drop(timeout(BOUND, client).await.expect("an answer"));
    }
    drop(knock().await.unwrap().expect("there is room again"));
    end(node).await;
}
