//! The program itself, as it is started.

use std::net::SocketAddr;
use std::process::Command;

use super::Dir;
use super::process::{Process, Says};

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

/// The running program.
pub struct Running {
    pub process: Process,
    addresses: String,
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
        command.env("SLUICE_LOG_FORMAT", "json").env("SLUICE_SHARDS", "1");
        let process = Process::spawn(command, Says::Stderr);
        let line = process.line("the node serves");
        let value: serde_json::Value = serde_json::from_str(&line).expect("a line is JSON");
        let addresses = value["addresses"].as_str().unwrap().to_owned();
        Self { process, addresses }
    }

    /// Where it listens for `whom`.
    pub fn address(&self, whom: &str) -> SocketAddr {
        let after = self.addresses.split(&format!("{whom}: ")).nth(1).expect(whom);
        after.split([',', ' ']).next().unwrap().parse().unwrap()
    }
}
