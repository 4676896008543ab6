//! What the tests share: a namespace for each, clusters in it, live clients, and a watch on what happens to pods.
//!
//! Waits are bounded and ask for a condition; nothing here sleeps for luck or asserts a time.

pub mod audit;
pub mod chance;
pub mod clients;
pub mod cluster;
pub mod cut;
pub mod dump;
pub mod operator;
pub mod place;
pub mod pod_watch;
pub mod record;
pub mod report;
pub mod roll;
pub mod shell;
pub mod space;
pub mod wait;

pub use clients::Clients;
pub use cluster::{Cluster, colour, spec};
pub use cut::Cut;
pub use pod_watch::PodWatch;
pub use space::{Space, hardy_test, local_test, quiet_test, test, test_without_operator};
pub use wait::{LONG, eventually};

/// Prints one line of a test's figures, also when the test passes: the test runner holds back only what `print!` writes.
#[macro_export]
macro_rules! figure {
    ($space:expr, $($text:tt)*) => {{
        use std::io::Write as _;
        let line = format!("  {}: {}\n", $space.test, format_args!($($text)*));
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }};
}
