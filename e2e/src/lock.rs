//! One `cargo e2e` at a time: a lock on a file in the state folder, which the kernel frees when its holder ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The lock, held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Folder of the lock that all state folders share, since they share the machine's names.
const MACHINE: &str = "/run/sluice-e2e";

/// Takes the lock of what there is once on a machine, or says who holds it.
pub fn take_machine() -> Result<Lock> {
    take(Path::new(MACHINE))
}

/// Removes the file of the machine's lock; its holder must be about to end.
pub fn remove_machine() {
    let _ = fs::remove_dir_all(MACHINE);
}

/// Takes the lock of a folder, or says who holds it.
pub fn take(folder: &Path) -> Result<Lock> {
    let mut file = open(folder)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            write!(file, "{}", std::process::id())?;
            Ok(Lock { _file: file })
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder)?;
            bail!("another `cargo e2e` is at work (process {holder}): wait until it has ended")
        }
        Err(TryLockError::Error(error)) => Err(error).context("locking the state folder"),
    }
}

/// Takes the lock of a folder, however long its holder needs.
pub fn wait_for(folder: &Path) -> Result<Lock> {
    let file = open(folder)?;
    file.lock().with_context(|| format!("locking {}", folder.display()))?;
    Ok(Lock { _file: file })
}

fn open(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let path = folder.join("lock");
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))
}
