//! The table of edge cases names tests; this holds it to that.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn functions(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            functions(&path, into);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = fs::read_to_string(&path).expect("a file");
            let named = text.lines().filter_map(|line| line.trim().split_once("fn "));
            let names = named.filter_map(|(_, rest)| rest.split_once('('));
            into.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
}

#[test]
fn every_test_that_the_table_names_is_there() {
    let mut there = BTreeSet::new();
    for folder in ["e2e/tests", "operator/src", "node/src", "node/tests"] {
        functions(&Path::new(ROOT).join(folder), &mut there);
    }
    let table = fs::read_to_string(Path::new(ROOT).join("e2e/edge-cases.md")).expect("it");
    let rows = table.lines().filter(|line| line.starts_with("| "));
    let names: Vec<&str> = rows
        .flat_map(|row| row.split('`').skip(1).step_by(2))
        .filter(|word| word.matches('_').count() > 1)
        .collect();
    assert!(names.len() > 30, "read only {names:?}");
    let missing: Vec<&&str> = names.iter().filter(|name| !there.contains(**name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}
