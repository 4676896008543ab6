//! A real redis-server, which a test starts for itself.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::BOUND;

const PASSWORD: &str = "correct-horse";

/// Debian keeps the server in `redis-tools`, under another name: package `redis-server` is a link
/// to it, and starts a service.
fn server() -> Command {
    let found = |name: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
    };
    if found("redis-server") || !found("redis-check-rdb") {
        return Command::new("redis-server");
    }
    let mut command = Command::new("redis-check-rdb");
    command.arg0("redis-server");
    command
}

/// A redis-server of this test alone; ended by its process id.
pub struct Redis {
    pub dir: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Redis {
    /// Not started yet.
    pub fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("sluice-redis-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&dir).unwrap();
        // Free a moment ago; a start that fails because it is taken by now is told by `start`.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("redis://:{PASSWORD}@127.0.0.1:{port}\n");
        std::fs::write(dir.join("url"), url).unwrap();
        Self { dir, port, child: None }
    }

    /// Starts it; it may have been there before.
    pub fn start(&mut self) {
        let mut command = server();
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--port", &self.port.to_string(), "--requirepass", PASSWORD]);
        command.arg("--dir").arg(&self.dir).stdout(Stdio::null()).stderr(Stdio::null());
        match command.spawn() {
            Ok(child) => self.child = Some(child),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                panic!("there is no redis-server; on Debian: apt-get install redis-tools")
            }
            Err(e) => panic!("redis-server does not start: {e}"),
        }
        let end = Instant::now() + BOUND;
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten());
            assert!(ended.is_none(), "redis-server ended: {ended:?}");
            assert!(Instant::now() < end, "redis-server does not listen within {BOUND:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Puts this into the file with the URL; `{port}` is the server's.
    #[allow(dead_code, reason = "not every test binary that uses this")]
    pub fn url(&self, url: &str) {
        let url = url.replace("{port}", &self.port.to_string());
        std::fs::write(self.dir.join("url"), url).unwrap();
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
