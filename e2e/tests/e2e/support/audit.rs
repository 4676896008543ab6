//! The API server's own account of who asked for what. Local only.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    Space,
    place::{OPERATOR_NAMESPACE, Place},
};

/// A place in the audit log.
pub struct Mark(u64);

/// The end of the audit log as it is now.
pub fn mark(place: &Place) -> Result<Mark> {
    let log = place.kubernetes.audit_log();
    let length = std::fs::metadata(&log).with_context(|| format!("reading {}", log.display()))?;
    Ok(Mark(length.len()))
}

/// Writes of the operator in the test's namespace since a mark, as `verb resource/name`.
pub fn writes(space: &Space, since: &Mark) -> Result<Vec<String>> {
    let mut file = File::open(space.place.kubernetes.audit_log())?;
    // A log that was begun anew is shorter.
    let from = if file.metadata()?.len() < since.0 { 0 } else { since.0 };
    file.seek(SeekFrom::Start(from))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let operator = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:");
    let events = text.lines().filter(|line| line.contains(&space.name));
    let mut writes = Vec::new();
    for event in events.filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let verb = event["verb"].as_str().unwrap_or_default();
        let user = event["user"]["username"].as_str().unwrap_or_default();
        let object = &event["objectRef"];
        let writing = !["get", "list", "watch"].contains(&verb);
        if writing && user.starts_with(&operator) && object["namespace"] == space.name.as_str() {
            writes.push(format!(
                "{verb} {}/{}",
                text_of(&object["resource"]),
                text_of(&object["name"])
            ));
        }
    }
    Ok(writes)
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
