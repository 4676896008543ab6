//! The program `examples/conformance.rs`, as those use it who test from outside: its flags, the line
//! `ready`, its drain, its end, and a cluster of two.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod plane;
mod support;

use std::{
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, Instant},
};

use futures::future::join_all;
use plane::{Client, ok, refusal, session::Session};
use serde_json::{Value, json};
use support::process::{Process, Says};

/// The program, which Cargo puts beside the tests.
fn program() -> Command {
    let tests = std::env::current_exe().unwrap();
    let path: PathBuf = tests.ancestors().nth(2).unwrap().join("examples/conformance");
    assert!(path.exists(), "`cargo build -p sluice-node --example conformance` makes it");
    Command::new(path)
}

fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

/// An address of this machine that no other test has.
fn address() -> String {
    let [a, b, c]: [u8; 3] = rand::random();
    format!("127.{}.{b}.{}:4000", a.clamp(1, 254), c.clamp(1, 254))
}

/// The running program.
struct Running {
    process: Process,
    at: String,
}

impl Running {
    /// Starts it with `more` flags; it may not serve yet.
    fn start(more: &[&str]) -> Self {
        let (at, mut command) = (address(), program());
        command.args(["--listen", &at]).args(more);
        Self { process: Process::spawn(command, Says::Stdout), at }
    }

    /// Waits until it says that it serves, which it says once and nothing before.
    fn ready(self) -> Self {
        assert_eq!(self.process.line(""), "ready");
        self
    }

    async fn client(&self, topic: &str) -> Client {
        let url = format!("ws://{}/socket/websocket?vsn=2.0.0", self.at);
        let mut client = Client::connect(&url).await.unwrap();
        client.join(topic).await;
        client
    }

    fn terminate(&self) {
        self.process.signal("TERM");
    }

    /// The code with which it ends; all that it said after `ready`.
    fn end(mut self) -> (Option<i32>, Vec<String>) {
        (self.process.exit(), self.process.rest())
    }
}

#[test]
fn its_flags_are_told_and_one_that_needs_another_is_refused() {
    let help = run(&["--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success());
    for flag in ["--listen", "--mesh", "--peer", "--secret", "--admin", "--admin-token"] {
        assert!(text.contains(flag), "{flag}: {text}");
    }
    for (wrong, lacks) in [
        (&["--mesh", "127.0.0.1:1"][..], "--secret"),
        (&["--peer", "127.0.0.1:1", "--secret", "s"], "--mesh"),
        (&["--admin", "127.0.0.1:1"], "--admin-token"),
        (&["--mesh", "nowhere", "--secret", "s"], "nowhere"),
    ] {
        let refused = run(wrong);
        let told = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(2) && told.contains(lacks), "{wrong:?}: {told}");
        assert!(refused.stdout.is_empty(), "it is not ready");
    }
}

#[tokio::test]
async fn sigterm_moves_four_sockets_every_400_ms_with_1012_and_ends_the_program() {
    let node = Running::start(&[]).ready();
    let mut clients = Vec::new();
    for n in 0..9 {
        clients.push(node.client(&format!("quiet:{n}")).await);
    }
    let begun = Instant::now();
    node.terminate();
    let closes =
        clients.iter_mut().map(async |client| (client.close_code().await, begun.elapsed()));
    let closes = join_all(closes).await;
    assert!(closes.iter().all(|(code, _)| *code == Some(1012)), "{closes:?}");
    let after = |millis| {
        let bound = Duration::from_millis(millis);
        closes.iter().filter(|(_, at)| *at >= bound).count()
    };
    assert!(after(390) >= 5 && after(790) >= 1, "four at a time: {closes:?}");
    assert_eq!(node.end(), (Some(0), vec![]));
}

#[tokio::test]
async fn a_drain_is_asked_for_at_the_admin_address_with_the_token() {
    let admin = address();
    let node = Running::start(&["--admin", &admin, "--admin-token", "t"]).ready();
    let mut client = node.client("quiet:a").await;
    let url = format!("http://{admin}/drain");
    let http = reqwest::Client::new();
    for stranger in [http.post(&url), http.post(&url).bearer_auth("another")] {
        assert_eq!(stranger.send().await.unwrap().status(), 401);
    }
    client.is_quiet().await;
    let answer = http.post(&url).bearer_auth("t").send().await.unwrap();
    let status: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(status["initial"], 1, "{status}");
    assert_eq!(client.close_code().await, Some(1012));
    let url = format!("ws://{}/socket/websocket?vsn=2.0.0", node.at);
    assert_eq!(refusal(Client::connect(&url).await).0, 503, "it drains, and still runs");
    node.terminate();
    assert_eq!(node.end().0, Some(0));
}

#[tokio::test]
async fn two_with_each_other_as_peers_are_a_cluster_until_one_crashes() {
    let (one, two) = (address(), address());
    let nobody = "127.0.0.1:9";
    // Nobody is up whom the first could wait for; the second waits for the first.
    let flags = ["--mesh", &one, "--peer", &two, "--peer", nobody, "--secret", "shared"];
    let first = Running::start(&flags).ready();
    let flags = ["--mesh", &two, "--peer", &one, nobody, "--secret", "shared"];
    let second = Running::start(&flags).ready();
    let (mut here, mut there) = (first.client("quiet:a").await, second.client("quiet:a").await);
    let shout = json!([null, null, "quiet:a", "shout", {"x": 1}]);
    for (from, to) in [(0, 1), (1, 0)] {
        let both = [&mut here, &mut there];
        both[from].send(json!(["1", "2", "quiet:a", "broadcast_from", {"x": 1}])).await;
        assert_eq!(both[from].next().await, ok("1", "2", "quiet:a"));
        assert_eq!(both[to].next().await, shout);
    }
    let session = Session::open(first.at.parse().unwrap(), "/socket").await;
    let session = session.at(second.at.parse().unwrap(), "/socket");
    session.join("quiet:b").await;
    let mut watcher = second.client("presence:a").await;
    assert_eq!(watcher.next().await[3], "presence_state");
    let mut anna = first.client("presence:b").await;
    anna.send(json!(["2", "2", "presence:a", "phx_join", {"key": "anna"}])).await;
    assert!(watcher.next().await[4]["joins"]["anna"].is_object());
    // Killed, not asked.
    drop(first);
    assert!(watcher.next().await[4]["leaves"]["anna"].is_object());
    second.terminate();
    assert_eq!(there.close_code().await, Some(1012));
    assert_eq!(second.end().0, Some(0));
}
