//! The components' processes: started detached with a log of their own, recorded, and found again by a later run.
//!
//! A process is signalled only when it carries this state folder's mark in its environment, which only we put there,
//! and always by a handle that cannot come to mean another process.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Settings;
use crate::binaries::hex;
use crate::command::{command, log_file, wait_until};

/// The environment variable that marks a component's process, and what it starts, as ours.
const MARK: &str = "SLUICE_E2E_COMPONENT";

/// What the shell does before it becomes the program.
const CLOSE_AND_RUN: &str = r#"for fd in /proc/self/fd/*; do n=${fd##*/}; if ((n > 2)); then eval "exec $n>&-"; fi; done; exec "$@""#;

/// A program to run for as long as the cluster is up.
#[derive(Debug, Clone)]
pub struct Component {
    /// Its name, which its log and its record have too.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The network namespace it runs in, if not the machine's own.
    pub namespace: Option<String>,
    /// Configuration that the program reads when it starts: another text means another process.
    pub config: String,
    /// Put before the PATH.
    pub path: PathBuf,
}

/// What is written down of a process that was started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The component's name.
    pub name: String,
    /// The process.
    pub pid: i32,
    /// When it started, in the kernel's ticks: a later process of the same number has another.
    pub started: u64,
    /// A hash of program, arguments and configuration.
    pub fingerprint: String,
}

impl Component {
    fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}{:?}{}", self.program, self.arguments, self.config));
        hex(&hash.finalize(), 16)
    }
}

/// Sees that a component runs as it is described; says whether it had to be started.
pub fn ensure(settings: &Settings, component: &Component) -> Result<bool> {
    let fingerprint = component.fingerprint();
    if let Some(record) = running(settings, &component.name) {
        if record.fingerprint == fingerprint {
            return Ok(false);
        }
        stop(settings, &component.name)?;
    }
    end_strays(settings, component)?;
    let log = log_file(&settings.log(&component.name))?;
    let mut words = Vec::new();
    // Not `ip netns exec`: that mounts a fresh /sys, in which the kubelet finds no cgroups.
    if let Some(namespace) = &component.namespace {
        words.extend([String::from("nsenter"), format!("--net=/run/netns/{namespace}")]);
    }
    words.push(component.program.display().to_string());
    words.extend(component.arguments.iter().cloned());
    let path = std::env::var("PATH").unwrap_or_default();
    let mut detached = detached(&words);
    detached
        .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", component.path.display()))
        .env(MARK, mark(settings, &component.name))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let child = detached.spawn().with_context(|| format!("starting {}", component.name))?;
    let pid = i32::try_from(child.id())?;
    wait_until(Duration::from_secs(5), || {
        let dead = !stat(pid).is_some_and(|stat| stat.alive);
        Ok(dead || marked(settings, pid) && !starting(pid))
    })?;
    let started = stat(pid).map(|stat| stat.started).unwrap_or_default();
    let record = Record { name: component.name.clone(), pid, started, fingerprint };
    let file = record_file(settings, &component.name);
    fs::create_dir_all(settings.state.join("run"))?;
    write_whole(&file, serde_json::to_string(&record)?.as_bytes())?;
    Ok(true)
}

/// A program in a session of its own. `setsid` and the shell become the program, so the process keeps its number and
/// outlives our terminal. It keeps no file open that our caller left open to us: `flock FILE cargo e2e up` would hold
/// its lock for as long as the cluster is up.
fn detached(words: &[String]) -> Command {
    let start = ["bash", "-c", CLOSE_AND_RUN, "bash"].map(String::from);
    command("setsid", start.iter().chain(words))
}

/// Ends a process of this component that a run started but was killed before it recorded.
fn end_strays(settings: &Settings, component: &Component) -> Result<()> {
    let mark = format!("{MARK}={}", mark(settings, &component.name));
    let program = component.program.as_os_str().as_encoded_bytes();
    for pid in all_marked(settings) {
        let same = environment(pid).iter().any(|word| word == mark.as_bytes());
        // Not what the component itself has started: that carries its mark too, but is another program.
        let ours = || words(pid, "cmdline").first().is_some_and(|word| word == program);
        if same && (starting(pid) || ours()) {
            end(settings, pid, Signal::KILL, Duration::from_secs(5))?;
        }
    }
    Ok(())
}

/// Whether a process has yet to become the component's program.
fn starting(pid: i32) -> bool {
    let line = words(pid, "cmdline");
    let shell = line.get(2).is_some_and(|word| word == CLOSE_AND_RUN.as_bytes());
    shell || line.first().is_none_or(|word| [&b""[..], b"setsid", b"nsenter"].contains(&&word[..]))
}

/// The record of a component whose process is alive.
pub fn running(settings: &Settings, name: &str) -> Option<Record> {
    let text = fs::read_to_string(record_file(settings, name)).ok()?;
    let record: Record = serde_json::from_str(&text).ok()?;
    let stat = stat(record.pid)?;
    if !stat.alive || stat.started != record.started {
        return None;
    }
    marked(settings, record.pid).then_some(record)
}

/// The names of all recorded components, alive or not.
pub fn recorded(settings: &Settings) -> Vec<String> {
    let Ok(entries) = fs::read_dir(settings.state.join("run")) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json").map(String::from))
        .collect();
    names.sort();
    names
}

/// Ends a component: politely, then not.
pub fn stop(settings: &Settings, name: &str) -> Result<()> {
    if let Some(record) = running(settings, name)
        && !end(settings, record.pid, Signal::TERM, Duration::from_secs(5))?
    {
        end(settings, record.pid, Signal::KILL, Duration::from_secs(5))?;
    }
    match fs::remove_file(record_file(settings, name)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Sends a component a signal, if it is alive.
pub fn signal(settings: &Settings, name: &str, signal: Signal) {
    if let Some(record) = running(settings, name)
        && let Some(handle) = handle(record.pid)
        && marked(settings, record.pid)
    {
        let _ = pidfd_send_signal(handle, signal);
    }
}

/// Every living process that carries our mark, recorded or not: a run that was killed may not have come to record it.
pub fn all_marked(settings: &Settings) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|stat| stat.alive) && marked(settings, *pid))
        .collect()
}

/// The state folder and the component of every process that any state folder's cluster has marked.
pub fn marks() -> Vec<(PathBuf, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|stat| stat.alive))
        .filter_map(mark_of)
        .collect()
}

fn mark_of(pid: i32) -> Option<(PathBuf, String)> {
    let start = format!("{MARK}=");
    let words = environment(pid);
    let mark = words.iter().find_map(|word| word.strip_prefix(start.as_bytes()))?;
    let (state, name) = std::str::from_utf8(mark).ok()?.rsplit_once(':')?;
    Some((state.into(), name.into()))
}

/// Kills every process that carries our mark.
pub fn kill_all_marked(settings: &Settings) -> Result<usize> {
    let mut killed = 0;
    let done = wait_until(Duration::from_secs(10), || {
        let pids = all_marked(settings);
        for pid in &pids {
            if let Some(handle) = handle(*pid)
                && marked(settings, *pid)
            {
                let _ = pidfd_send_signal(handle, Signal::KILL);
                killed += 1;
            }
        }
        Ok(pids.is_empty())
    })?;
    anyhow::ensure!(done, "some processes did not end: {:?}", all_marked(settings));
    Ok(killed)
}

/// Writes a file whole: a reader finds the old content or the new, never a part.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file needs a folder")?;
    let mut file = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("writing in {}", folder.display()))?;
    std::io::Write::write_all(&mut file, content)?;
    file.persist(path).with_context(|| format!("writing {}", path.display()))?;
    Ok(())
}

/// A handle on a process, by which it can be signalled even if its number is used again.
pub fn handle(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

fn end(settings: &Settings, pid: i32, signal: Signal, limit: Duration) -> Result<bool> {
    let Some(handle) = handle(pid) else { return Ok(true) };
    if !marked(settings, pid) {
        return Ok(true);
    }
    let _ = pidfd_send_signal(handle, signal);
    wait_until(limit, || Ok(!stat(pid).is_some_and(|stat| stat.alive) || !marked(settings, pid)))
}

fn mark(settings: &Settings, name: &str) -> String {
    format!("{}:{name}", settings.state.display())
}

fn marked(settings: &Settings, pid: i32) -> bool {
    let start = format!("{MARK}={}:", settings.state.display());
    environment(pid).iter().any(|word| word.starts_with(start.as_bytes()))
}

/// A process's environment. One that is just becoming another program shows none for a moment, and would be taken for
/// somebody else's: that moment is waited out. A process that was given none is no longer waited for either.
fn environment(pid: i32) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let _ = wait_until(Duration::from_millis(500), || {
        found = words(pid, "environ");
        let shown = found.iter().any(|word| !word.is_empty());
        Ok(shown || !stat(pid).is_some_and(|stat| stat.has_memory) || forbidden(pid))
    });
    found
}

/// Whether it belongs to another user: we may never see its environment.
fn forbidden(pid: i32) -> bool {
    let opened = fs::File::open(format!("/proc/{pid}/environ"));
    opened.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

fn words(pid: i32, file: &str) -> Vec<Vec<u8>> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

fn record_file(settings: &Settings, name: &str) -> PathBuf {
    settings.state.join("run").join(format!("{name}.json"))
}

struct Stat {
    started: u64,
    alive: bool,
    has_memory: bool,
}

/// The kernel's marks of a process that is ending, and of a thread of its own: neither has any memory.
const NO_MEMORY: u64 = 0x4 | 0x20_0000;

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in brackets and may hold spaces: count from behind it.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let alive = !matches!(*fields.first()?, "Z" | "X");
    let has_memory = alive && number(6)? & NO_MEMORY == 0;
    Some(Stat { started: number(19)?, alive, has_memory })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::settings::Target;

    fn settings(state: &tempfile::TempDir) -> Settings {
        Settings { repo: "/".into(), state: state.path().into(), target: Target::Local }
    }

    fn sleeper(seconds: &str) -> Component {
        Component {
            name: "sleeper".into(),
            program: "sleep".into(),
            arguments: vec![seconds.into()],
            namespace: None,
            config: String::new(),
            path: "/usr/bin".into(),
        }
    }

    #[test]
    fn a_component_is_started_once_and_again_when_it_changes() {
        let state = tempfile::tempdir().unwrap();
        let settings = settings(&state);
        assert!(ensure(&settings, &sleeper("50")).unwrap());
        let first = running(&settings, "sleeper").unwrap();
        assert!(!ensure(&settings, &sleeper("50")).unwrap());
        assert!(ensure(&settings, &sleeper("51")).unwrap());
        let second = running(&settings, "sleeper").unwrap();
        assert_ne!(first.pid, second.pid);
        assert_eq!(all_marked(&settings), [second.pid]);
        stop(&settings, "sleeper").unwrap();
        assert!(running(&settings, "sleeper").is_none());
        assert!(all_marked(&settings).is_empty());
    }

    #[test]
    fn a_process_that_was_never_recorded_is_found_by_its_mark() {
        let state = tempfile::tempdir().unwrap();
        let settings = settings(&state);
        ensure(&settings, &sleeper("52")).unwrap();
        let lost = running(&settings, "sleeper").unwrap();
        fs::remove_file(record_file(&settings, "sleeper")).unwrap();
        assert!(running(&settings, "sleeper").is_none());
        ensure(&settings, &sleeper("52")).unwrap();
        let found = running(&settings, "sleeper").unwrap();
        assert_ne!(lost.pid, found.pid);
        assert_eq!(all_marked(&settings), [found.pid]);
        assert!(marks().contains(&(state.path().into(), String::from("sleeper"))));
        kill_all_marked(&settings).unwrap();
        assert!(all_marked(&settings).is_empty());
    }

    #[test]
    fn a_process_that_took_over_a_recorded_number_is_not_taken_for_ours() {
        let state = tempfile::tempdir().unwrap();
        let settings = settings(&state);
        fs::create_dir_all(state.path().join("run")).unwrap();
        let record = Record {
            name: "sleeper".into(),
            pid: i32::try_from(std::process::id()).unwrap(),
            started: stat(i32::try_from(std::process::id()).unwrap()).unwrap().started,
            fingerprint: String::new(),
        };
        let text = serde_json::to_vec(&record).unwrap();
        write_whole(&record_file(&settings, "sleeper"), &text).unwrap();
        assert!(running(&settings, "sleeper").is_none());
        stop(&settings, "sleeper").unwrap(); // and this test goes on
    }

    #[test]
    fn a_component_keeps_no_file_of_our_caller_open() {
        let lock = tempfile::tempfile().unwrap();
        rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty()).unwrap();
        let path = format!("/proc/self/fd/{}", lock.as_raw_fd());
        let kept = |mut program: Command| program.arg(&path).output().unwrap().status.success();
        assert!(kept(Command::new("readlink")), "the file is not handed on at all");
        assert!(!kept(detached(&[String::from("readlink")])), "it is still open");
    }
}
