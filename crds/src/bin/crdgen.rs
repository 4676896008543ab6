//! Writes what is generated from the API's types: the CustomResourceDefinition, its copy in the
//! chart, the API reference, and the schemas of the node's files. `crdgen --check` writes nothing and fails when a file is stale.

use std::{fs, path::Path, process::ExitCode};

use sluice_crds::{node_files, reference, schema};

const COMMAND: &str = "cargo run -p sluice-crds --bin crdgen";

fn main() -> ExitCode {
    let check = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => {
            eprintln!("usage: crdgen [--check]");
            return ExitCode::from(2);
        }
    };
    match run(check) {
        Ok(stale) if stale.is_empty() => ExitCode::SUCCESS,
        Ok(stale) => {
            for file in stale {
                eprintln!("{file} is stale. Write it anew: {COMMAND}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes the files that differ, or only names them when `check` is set.
fn run(check: bool) -> Result<Vec<&'static str>, Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let keep = [("helm.sh/resource-policy", "keep")];
    let files = [
        ("crds/sluice.dev_channelclusters.yaml", schema::manifest(&[])?),
        ("charts/sluice-crds/templates/sluice.dev_channelclusters.yaml", schema::manifest(&keep)?),
        ("docs/api-reference.md", reference::markdown()),
        ("node/schema/config.json", node_files::config()),
        ("node/schema/live.json", node_files::live()),
    ];
    let mut stale = Vec::new();
    for (file, wanted) in files {
        let path = root.join(file);
        if fs::read_to_string(&path).is_ok_and(|found| found == wanted) {
            continue;
        }
        if check {
            stale.push(file);
            continue;
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, wanted)?;
        println!("wrote {file}");
    }
    Ok(stale)
}
