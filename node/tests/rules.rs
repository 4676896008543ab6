//! `docs/protocol.md` against the rules and the tests: every rule has a row, every test that it names is where it says,
//! every rule that a test names is in its row, and a rule or a limit without a test says why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The areas of what a Phoenix does on the wire, and how many rules each has.
const RULES: [(&str, u32); 17] = [
    ("V1", 3),
    ("V2", 3),
    ("RPL", 1),
    ("BIN", 8),
    ("CON", 12),
    ("HB", 4),
    ("JOIN", 5),
    ("PUSH", 5),
    ("LEAVE", 2),
    ("CLOSE", 1),
    ("ERR", 5),
    ("BC", 6),
    ("LP", 13),
    ("CODE", 6),
    ("CLI", 11),
    ("PRES", 9),
    ("DRAIN", 6),
];

/// The files whose tests stand for rules.
fn sources(folder: &Path, all: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(fs::read_to_string(&path).expect("text"));
        }
    }
}

/// The names of all functions there.
fn functions() -> BTreeSet<String> {
    let mut all = Vec::new();
    for folder in ["src", "tests"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut all);
    }
    let functions = all.iter().flat_map(|text| text.split("fn ").skip(1));
    let names = functions.filter_map(|rest| rest.split_once('(').map(|(name, _)| name));
    names.map(str::to_owned).collect()
}

/// The names of all test functions that begin with a rule.
fn tests() -> BTreeSet<String> {
    functions().into_iter().filter(|name| !rules(name).is_empty()).collect()
}

/// The rows of a section of the docs, after those of its heads, by their first cell.
fn section(file: &str, title: &str) -> BTreeMap<String, String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file);
    let text = fs::read_to_string(file).expect("the docs");
    let begin = text.split_once(&format!("\n## {title}\n")).expect("the section").1;
    let section = begin.split_once("\n## ").map_or(begin, |(section, _)| section);
    let tables = section.split("\n\n").filter(|part| part.trim_start().starts_with("| "));
    let rows = tables.flat_map(|table| table.trim().lines().skip(2));
    let cells = rows.filter_map(|row| row.strip_prefix("| ")?.split_once(" | "));
    cells.map(|(name, rest)| (name.to_owned(), rest.trim_end_matches(" |").to_owned())).collect()
}

/// The rules that a test's name says it stands for: `p_lp_2_to_5_…` is four of them.
fn rules(name: &str) -> BTreeSet<String> {
    let words: Vec<_> = name.split('_').collect();
    let mut found = BTreeSet::new();
    for (at, word) in words.iter().enumerate().filter(|(_, word)| **word == "p") {
        let Some(area) = words.get(at + 1) else { continue };
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u32>().ok());
        let Some(first) = number(at + 2) else { continue };
        let to = words.get(at + 3) == Some(&"to");
        let last = number(at + 4).filter(|_| to).unwrap_or(first);
        let rule = |number| format!("{word}-{area}-{number}").to_uppercase();
        found.extend((first..=last).map(rule));
    }
    found
}

/// Each rule's row.
fn table() -> BTreeMap<String, String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    let text = fs::read_to_string(file).expect("the table");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| P-")?.split_once(" | "));
    rows.map(|(rule, row)| (format!("P-{rule}"), row.trim_end_matches(" |").to_owned())).collect()
}

/// What stands between backticks and names a test; one that ends in `…` is the begin of a name.
fn named(row: &str) -> impl Iterator<Item = &str> {
    row.split('`').skip(1).step_by(2).filter(|name| name.starts_with("p_"))
}

/// Asserts that each function named in a row is in the file that stands in brackets after it.
fn assert_where(what: &str, row: &str) {
    for part in row.split("; ") {
        let file = part.split(['(', ')']).find(|text| text.ends_with(".rs"));
        let Some(file) = file else { continue };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{what}: {file}: {e}"));
        let is_name = |name: &&str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        for name in part.split('`').skip(1).step_by(2).filter(is_name) {
            assert!(text.contains(&format!("fn {name}(")), "{what}: {file} has no {name}");
        }
    }
}

#[test]
fn every_rule_has_a_row_and_no_other_has() {
    let number =
        |(area, last): (&'static str, u32)| (1..=last).map(move |n| format!("P-{area}-{n}"));
    let rules: BTreeSet<_> = RULES.into_iter().flat_map(number).collect();
    assert_eq!(rules, table().into_keys().collect());
}

#[test]
fn every_test_that_the_table_names_is_there() {
    let tests = tests();
    for (rule, row) in table() {
        assert_where(&rule, &row);
        for name in named(&row) {
            let found = match name.strip_suffix('…') {
                Some(begin) => tests.iter().any(|test| test.starts_with(begin)),
                None => tests.contains(name),
            };
            assert!(found, "{rule}: there is no test {name}");
        }
    }
}

#[test]
fn every_rule_that_a_test_names_is_in_the_table_with_it() {
    let table = table();
    for test in tests() {
        for rule in rules(&test) {
            let row = table.get(&rule).unwrap_or_else(|| panic!("{rule} of {test} has no row"));
            let begins = |name: &str| name.strip_suffix('…').is_some_and(|n| test.starts_with(n));
            let named = named(row).any(|name| name == test || begins(name));
            assert!(named, "the row of {rule} does not name {test}");
        }
    }
}

#[test]
fn every_limit_has_its_test_or_says_why_not() {
    let (limits, proofs) =
        (section("node.md", "Limits"), section("protocol.md", "Limits and their tests"));
    assert!(limits.keys().len() > 30, "read only {limits:?}");
    assert_eq!(limits.keys().collect::<Vec<_>>(), proofs.keys().collect::<Vec<_>>());
    let functions = functions();
    for (limit, proof) in proofs {
        let names: Vec<_> = proof.split('`').skip(1).step_by(2).collect();
        let why = proof.strip_prefix("– ").is_some_and(|why| why.len() > 10);
        assert!(why || !names.is_empty(), "{limit}: {proof}");
        assert_where(&limit, &proof);
        for name in names {
            assert!(functions.contains(name), "{limit}: there is no test {name}");
        }
    }
}

#[test]
fn a_rule_without_a_test_says_why() {
    for (rule, row) in table() {
        let why = row.strip_prefix("– ").is_some_and(|why| why.len() > 10);
        let elsewhere = row.starts_with("as P-") || row.starts_with("every test of ");
        assert!(named(&row).next().is_some() || why || elsewhere, "{rule}: {row}");
    }
}

#[test]
fn a_name_is_read_as_the_rules_it_stands_for() {
    let read = |name| rules(name).into_iter().collect::<Vec<_>>();
    assert_eq!(read("p_lp_2_to_4_x"), ["P-LP-2", "P-LP-3", "P-LP-4"]);
    assert_eq!(read("p_con_6_p_con_7_a_token"), ["P-CON-6", "P-CON-7"]);
    assert_eq!(read("p_v1_2_and_p_bc_3_clients"), ["P-BC-3", "P-V1-2"]);
    assert_eq!(read("joins_and_pings"), [""; 0]);
}
