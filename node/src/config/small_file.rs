//! Reads the small files that a configuration names: settings, tokens, keys. A file without an end, a
//! device or a pipe is refused before it fills the memory or waits for ever.

use std::{fs, io::Read, path::Path};

/// The bytes of the file at `path`, which may have at most `max`.
///
/// # Errors
/// Why it can't be had, as the end of a sentence that names it.
pub fn read(path: impl AsRef<Path>, max: u64) -> Result<Vec<u8>, String> {
    let path = path.as_ref();
    let wrong = |e: std::io::Error| e.to_string();
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(wrong)?.is_file() {
        return Err("it is no regular file".into());
    }
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(max + 1).read_to_end(&mut bytes))
        .map_err(wrong)?;
    if bytes.len() as u64 > max {
        return Err(format!("it is larger than {max} bytes"));
    }
    Ok(bytes)
}

/// As [`read`], of a file that is text.
///
/// # Errors
/// As of [`read`], or that it is not UTF-8.
pub fn read_text(path: impl AsRef<Path>, max: u64) -> Result<String, String> {
    String::from_utf8(read(path, max)?).map_err(|_| "it is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_small_regular_file_is_read() {
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert!(read_text(here, 1 << 20).unwrap().contains("[package]"));
        assert_eq!(read(here, 10).unwrap_err(), "it is larger than 10 bytes");
        assert_eq!(read("/dev/zero", 10).unwrap_err(), "it is no regular file");
        assert_eq!(read(env!("CARGO_MANIFEST_DIR"), 10).unwrap_err(), "it is no regular file");
        assert!(read("/nowhere/at/all", 10).unwrap_err().contains("No such file"));
    }
}
