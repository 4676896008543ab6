//! Running other programs: captured, logged or streamed, each with a limit of time and an error that says what failed.
//!
//! No shell is involved, and nothing here outlives its limit.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

use crate::packages;

/// The limit for programs that answer at once.
pub const SHORT: Duration = Duration::from_secs(60);
/// The limit for builds and test runs.
pub const LONG: Duration = Duration::from_secs(3600);

/// What comes before a program that ends with us.
const MORTAL: [&str; 3] = ["setpriv", "--pdeathsig", "TERM"];

/// What a program that was run to its end left.
#[derive(Debug)]
pub struct Output {
    /// Whether it ended well.
    pub success: bool,
    /// Its exit code, if it ended by itself.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error, unless that went to a log.
    pub stderr: String,
}

/// A command with the given arguments.
pub fn command<S: AsRef<OsStr>>(
    program: impl AsRef<Path>,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program.as_ref());
    command.args(arguments).stdin(Stdio::null());
    command
}

/// As [`command`], for a program that works for long: told to end when we are gone, even if we were killed.
pub fn mortal<S: AsRef<OsStr>>(
    program: impl AsRef<Path>,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    // The kernel's notice of a parent's death is asked for by a small program of util-linux, since
    // asking between fork and exec would be unsafe code.
    let Some(setpriv) = packages::find(MORTAL[0]) else { return command(program, arguments) };
    let mut mortal = command(setpriv, &MORTAL[1..]);
    mortal.arg(program.as_ref()).args(arguments);
    mortal
}

/// Runs a program and captures what it writes, whether it ends well or not.
pub fn capture(command: &mut Command, limit: Duration) -> Result<Output> {
    // Files rather than pipes: a child's child that lives on cannot hold the reader up.
    let (mut out, mut err) = (scratch()?, scratch()?);
    command.stdout(out.try_clone()?).stderr(err.try_clone()?);
    let status = run(command, limit)?;
    let (stdout, stderr) = (whole(&mut out)?, whole(&mut err)?);
    Ok(Output { success: status.success(), code: status.code(), stdout, stderr })
}

/// Runs a program that must end well, and returns what it wrote to standard output.
pub fn output(command: &mut Command) -> Result<String> {
    output_within(command, SHORT)
}

/// As [`output`], with a limit of the caller's.
pub fn output_within(command: &mut Command, limit: Duration) -> Result<String> {
    let done = capture(command, limit)?;
    if !done.success {
        let said = if done.stderr.trim().is_empty() { &done.stdout } else { &done.stderr };
        bail!("{} ended with {}:\n{}", shown(command), code(done.code), tail_of(said, 15));
    }
    Ok(done.stdout)
}

/// Runs a program that must end well, with all that it writes added to a log.
pub fn logged(command: &mut Command, log: &Path, limit: Duration) -> Result<()> {
    let file = log_file(log)?;
    command.stdout(file.try_clone()?).stderr(file);
    let status = run(command, limit)?;
    if !status.success() {
        bail!(
            "{} ended with {}; its log is {}, which ends:\n{}",
            shown(command),
            code(status.code()),
            log.display(),
            tail(log, 15)
        );
    }
    Ok(())
}

/// Runs a program, whether it ends well or not: captures its standard output, and writes its standard error to a log
/// that begins with it and can be read meanwhile.
pub fn capture_and_log(command: &mut Command, log: &Path, limit: Duration) -> Result<Output> {
    let (mut out, err) = (scratch()?, log_file(log)?);
    err.set_len(0).with_context(|| format!("emptying the log {}", log.display()))?;
    command.stdout(out.try_clone()?).stderr(err);
    let status = run(command, limit)?;
    let stdout = whole(&mut out)?;
    Ok(Output { success: status.success(), code: status.code(), stdout, stderr: String::new() })
}

/// Runs a program that writes to this one's own output, and says whether it ended well.
pub fn stream(command: &mut Command, limit: Duration) -> Result<ExitStatus> {
    command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    run(command, limit)
}

/// As [`stream`], and returns what went to standard output as well.
pub fn stream_and_keep(command: &mut Command, limit: Duration) -> Result<(ExitStatus, String)> {
    let (mut read, write) = std::io::pipe().context("making a pipe")?;
    command.stdout(write.try_clone()?).stderr(Stdio::inherit());
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    let reader = thread::spawn(move || {
        let mut piece = [0; 8192];
        while let Ok(n @ 1..) = read.read(&mut piece) {
            keep.lock().extend_from_slice(&piece[..n]);
            let mut out = std::io::stdout().lock();
            // Whoever read our output is gone: the run goes on to its verdict.
            let _ = out.write_all(&piece[..n]).and_then(|()| out.flush());
        }
    });
    let status = run(command, limit);
    // The reader ends when the last writing end is closed: ours, the one that the command holds,
    // and that of a child's child, which is not waited for long.
    drop(write);
    command.stdout(Stdio::null());
    wait_until(Duration::from_secs(5), || Ok(reader.is_finished()))?;
    let said = String::from_utf8_lossy(&kept.lock()).into_owned();
    Ok((status?, said))
}

/// Asks until the answer is yes, or the limit has passed.
pub fn wait_until(limit: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        if ready()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// A log opened for adding to it.
pub fn log_file(log: &Path) -> Result<File> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("opening the log {}", log.display()))
}

/// The last lines of a log.
pub fn tail(log: &Path, lines: usize) -> String {
    let Ok(mut file) = File::open(log) else { return String::from("(no log)") };
    let length = file.metadata().map_or(0, |data| data.len());
    let mut bytes = Vec::new();
    let read = file
        .seek(SeekFrom::Start(length.saturating_sub(64 * 1024)))
        .and_then(|_| file.read_to_end(&mut bytes));
    if read.is_err() {
        return String::from("(the log cannot be read)");
    }
    tail_of(&String::from_utf8_lossy(&bytes), lines)
}

fn tail_of(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn run(command: &mut Command, limit: Duration) -> Result<ExitStatus> {
    let mut child = command.spawn().with_context(|| format!("starting {}", shown(command)))?;
    match wait(&mut child, limit)? {
        Some(status) => Ok(status),
        None => bail!("{} did not end within {} s", shown(command), limit.as_secs()),
    }
}

fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn shown(command: &Command) -> String {
    let name = |path: &OsStr| Path::new(path).file_name().unwrap_or_default().to_owned();
    let mut words: Vec<_> = command.get_args().map(OsStr::to_owned).collect();
    if name(command.get_program()) == MORTAL[0] {
        words.drain(..MORTAL.len() - 1);
        words[0] = name(&words[0]);
    } else {
        words.insert(0, name(command.get_program()));
    }
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let line = words.join(" ");
    if line.chars().count() <= 160 {
        return line;
    }
    line.chars().take(160).chain("…".chars()).collect()
}

fn code(code: Option<i32>) -> String {
    code.map_or_else(|| String::from("a signal"), |code| format!("exit code {code}"))
}

fn scratch() -> Result<File> {
    tempfile::tempfile().context("making a temporary file")
}

fn whole(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ends_with_us_is_shown_without_what_comes_before_it() {
        assert_eq!(
            shown(&mortal("/usr/bin/cargo", ["build", "--release"])),
            "cargo build --release"
        );
        assert_eq!(shown(&command("/usr/sbin/ip", ["link"])), "ip link");
    }

    #[test]
    fn a_log_begins_with_the_run_that_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log/build.log");
        for word in ["first", "second"] {
            let script = format!("echo {word} >&2; echo told");
            let mut run = command("sh", ["-c", &script]);
            let done = capture_and_log(&mut run, &log, SHORT).unwrap();
            assert!(done.success);
            assert_eq!(done.stdout, "told\n");
            assert_eq!(fs::read_to_string(&log).unwrap(), format!("{word}\n"));
        }
    }
}
