//! A node as a process of its own, and what the system says of it.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::Context;

use crate::Floor;

const CONFIG: &str = "\
listen: {http: '127.0.0.1:0', mesh: '127.0.0.1:0', admin: '127.0.0.1:0', publish: '127.0.0.1:0'}
socket: {idleTimeoutSeconds: 3600, maxConnectsPerSecond: 1000000}
";

/// A running node; killed by its id when dropped.
pub struct Program {
    child: Child,
    config: Option<PathBuf>,
    /// Where clients connect.
    pub address: SocketAddr,
}

/// What a process has used.
pub struct Usage {
    /// Memory in use now.
    pub rss_kib: u64,
    /// CPU time of all its threads since they started.
    pub cpu_us: f64,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(config) = &self.config {
            let _ = fs::remove_file(config);
        }
    }
}

impl Program {
    /// Starts a node and waits until it serves.
    pub fn start(path: &Path, shards: usize) -> anyhow::Result<Self> {
        let config = std::env::temp_dir().join(format!("load-{:016x}.yaml", rand::random::<u64>()));
        fs::write(&config, CONFIG)?;
        let mut child = Command::new(path)
            .arg("--config")
            .arg(&config)
            .env("SLUICE_LOG", "info")
            .env("SLUICE_LOG_FORMAT", "json")
            .env("SLUICE_SHARDS", shards.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take();
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut this = Self { child, config: Some(config), address };
        let mut lines = BufReader::new(stderr.context("no log")?).lines();
        let line = lines.by_ref().map_while(Result::ok).find(|line| line.contains("addresses"));
        let line: serde_json::Value = serde_json::from_str(&line.context("the node ended")?)?;
        let addresses = line["addresses"].as_str().unwrap_or_default();
        let http = addresses.split("http: ").nth(1).and_then(|rest| rest.split(',').next());
        this.address = http.context("no address in the log")?.trim().parse()?;
        // A full pipe would stop the node.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(this)
    }

    /// Starts the floor, which is this program once more, told the same.
    pub fn floor(how: Floor) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .args(["--serve-floor", how.word()])
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut this = Self { child, config: None, address };
        read?;
        this.address = line.trim().parse().context("the floor ended")?;
        Ok(this)
    }

    /// What it has used until now.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(proc.join("status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = rss.and_then(|rss| rss.split_whitespace().next()).context("no VmRSS")?;
        let mut cpu_us = 0.0;
        for task in fs::read_dir(proc.join("task"))? {
            cpu_us += cpu(&task?.path())?;
        }
        Ok(Usage { rss_kib: rss.parse()?, cpu_us })
    }
}

/// Microseconds of CPU of a thread, by its folder in `/proc`.
fn cpu(task: &Path) -> anyhow::Result<f64> {
    let text = fs::read_to_string(task.join("schedstat"))?;
    let nanos: u64 = text.split_whitespace().next().context("no schedstat")?.parse()?;
    Ok(nanos as f64 / 1000.0)
}
