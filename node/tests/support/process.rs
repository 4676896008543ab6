//! A program that a test runs, and what it says: killed by its id if the test does not end it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::BOUND;

/// Where a program says what the test waits for; the other is closed to it.
pub enum Says {
    Stdout,
    Stderr,
}

/// The running program.
pub struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    pub fn spawn(mut command: Command, says: Says) -> Self {
        match says {
            Says::Stdout => command.stdout(Stdio::piped()).stderr(Stdio::null()),
            Says::Stderr => command.stdout(Stdio::null()).stderr(Stdio::piped()),
        };
        let mut child = command.spawn().unwrap();
        let said: Box<dyn Read + Send> = match says {
            Says::Stdout => Box::new(child.stdout.take().unwrap()),
            Says::Stderr => Box::new(child.stderr.take().unwrap()),
        };
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(said).lines().map_while(Result::ok).all(|line| send.send(line).is_ok())
        });
        Self { child, lines }
    }

    /// The next line that has `with`; with nothing, the next.
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

    /// All that it has said since, and says until it ends.
    pub fn rest(&self) -> Vec<String> {
        self.lines.iter().collect()
    }

    /// Kills it, unless it has ended.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
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
