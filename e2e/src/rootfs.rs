//! The files that a program needs around it in an image: the libraries it is linked with, and for a base image the
//! certificates, users and folders that distroless images have.
//!
//! Programs are linked dynamically and the loader comes along: a static one would lack the C library's name service.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{command, output};

const PASSWD: &str = "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n";
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// Fills a folder with what a base image holds, for all of the given programs.
pub fn base(folder: &Path, programs: &[&Path]) -> Result<()> {
    libraries(folder, programs)?;
    for (file, text) in
        [("etc/passwd", PASSWD), ("etc/group", GROUP), ("etc/nsswitch.conf", "hosts: files dns\n")]
    {
        write(&folder.join(file), text.as_bytes())?;
    }
    let certificates = fs::read(Path::new("/").join(CERTIFICATES))
        .context("reading the machine's certificates: install the package ca-certificates")?;
    write(&folder.join(CERTIFICATES), &certificates)?;
    open_folder(&folder.join("tmp"))
}

/// Copies the libraries that programs are linked with, loader included, to the places where it looks for them.
pub fn libraries(folder: &Path, programs: &[&Path]) -> Result<()> {
    let mut files = BTreeSet::new();
    for program in programs {
        let listed = output(command("ldd", [""; 0]).arg(program))?;
        files.extend(
            listed
                .split_whitespace()
                .filter(|word| word.starts_with('/') && !word.ends_with(':'))
                .map(PathBuf::from),
        );
    }
    for file in files {
        let to = folder.join(file.strip_prefix("/")?);
        copy(&file, &to)?;
    }
    Ok(())
}

/// Copies the machine's Python with its library, less what only people who write Python need.
pub fn python(folder: &Path) -> Result<()> {
    const ASK: &str =
        "import sys, sysconfig; print(sys.executable); print(sysconfig.get_path('stdlib'))";
    let told =
        output(&mut command("python3", ["-c", ASK])).context("asking python3 where it is")?;
    let (program, library) = told.trim().split_once('\n').context("python3 did not say where")?;
    let name = Path::new(library).file_name().context("the library's folder has a name")?;
    let mut linked = vec![PathBuf::from(program)];
    modules(Path::new(library), &folder.join("usr/lib").join(name), &mut linked)?;
    copy(Path::new(program), &folder.join("usr/bin/python3"))?;
    libraries(folder, &linked.iter().map(PathBuf::as_path).collect::<Vec<_>>())
}

/// Copies a folder of Python modules, and names those that are linked with something.
fn modules(from: &Path, to: &Path, linked: &mut Vec<PathBuf>) -> Result<()> {
    const LEFT_OUT: [&str; 9] = [
        "__pycache__",
        "dist-packages",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "test",
        "tkinter",
    ];
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let path = entry?.path();
        let name = path.file_name().context("an entry has a name")?;
        let is = |end: &str| path.extension().is_some_and(|extension| extension == end);
        if path.is_dir() && !LEFT_OUT.iter().any(|other| *other == name) {
            modules(&path, &to.join(name), linked)?;
        } else if is("py") || is("so") {
            copy(&path, &to.join(name))?;
            if is("so") {
                linked.push(path);
            }
        }
    }
    Ok(())
}

/// Copies a program (through links) and keeps it executable.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    write(to, &bytes)?;
    fs::set_permissions(to, Permissions::from_mode(0o755))?;
    Ok(())
}

/// Makes a folder that every user may write to.
pub fn open_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o1777))?;
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
