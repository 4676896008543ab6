//! The program itself, as a process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{BOUND, Dir};

/// The program, in an environment that says nothing to it.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_channel-node"));
    for key in [
        "SLUICE_CONFIG",
        "SLUICE_LOG",
        "RUST_LOG",
        "SLUICE_LOG_FORMAT",
        "SLUICE_SHARDS",
        "POD_NAME",
        "POD_IP",
    ] {
        command.env_remove(key);
    }
    command
}

/// The running program; killed by its id if the test does not end it.
pub struct Running {
    pub child: Child,
    addresses: String,
    lines: mpsc::Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts it with a configuration that has `more`; where its clients connect.
    pub fn start(dir: &Dir, more: &str) -> (Self, SocketAddr) {
        let mut command = program();
        command.arg("--config").arg(dir.config(more));
        let this = Self::spawn(command);
        let http = this.address("http");
        (this, http)
    }

    /// Starts it with at most `files` open files.
    pub fn start_with_files(dir: &Dir, files: u32) -> Self {
        let program = program();
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n $0 && exec \"$@\""]).arg(files.to_string());
        shell.arg(program.get_program()).arg("--config").arg(dir.config(""));
        for (key, _) in program.get_envs() {
            shell.env_remove(key);
        }
        Self::spawn(shell)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command
            .env("SLUICE_LOG_FORMAT", "json")
            .env("SLUICE_SHARDS", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).all(|l| send.send(l).is_ok())
        });
        let mut this = Self { child, lines, addresses: String::new() };
        let line = this.line("the node serves");
        let value: serde_json::Value = serde_json::from_str(&line).expect("a line is JSON");
        this.addresses = value["addresses"].as_str().unwrap().to_owned();
        this
    }

    /// Where it listens for `whom`.
    pub fn address(&self, whom: &str) -> SocketAddr {
        let after = self.addresses.split(&format!("{whom}: ")).nth(1).expect(whom);
        after.split([',', ' ']).next().unwrap().parse().unwrap()
    }

    /// The next line of its log that has `with`.
    pub fn line(&self, with: &str) -> String {
        let end = Instant::now() + BOUND;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).expect(with);
            if line.contains(with) {
                return line;
            }
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// The code with which it ends.
    pub fn exit(&mut self) -> Option<i32> {
        let end = Instant::now() + BOUND;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
