//! What the API server takes and refuses: examples, invalid objects, explanations.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use sluice_crds::ConditionType;
use sluice_e2e::install::localised;

use crate::{
    adapters::foreign_redis,
    figure,
    support::{Cluster, Space, test},
};

fn yaml_files(space: &Space, folder: &str) -> Result<Vec<PathBuf>> {
    let folder = space.place.in_repo(folder);
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    ensure!(!files.is_empty(), "{} holds no YAML", folder.display());
    Ok(files)
}

fn name(path: &std::path::Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[test]
fn every_example_works_as_it_is() {
    test("every_example_works_as_it_is", async |space| {
        let url = foreign_redis(space).await?;
        let images = space.place.kubernetes.images()?;
        for file in &yaml_files(space, "examples")? {
            let yaml = in_namespace(space, &localised(&fs::read_to_string(file)?, &images));
            let yaml = yaml.replace("redis://redis.default.svc:6379/0", &url);
            // Fixed NodePorts may be taken by the example that `cargo e2e up` applied.
            let mine: String = yaml
                .lines()
                .filter(|line| !line.trim().starts_with("nodePort:"))
                .map(|line| format!("{line}\n"))
                .collect();
            let apply = ["apply", "--server-side", "--validate=strict", "--filename=-"];
            let said = space.try_kubectl(&apply, &mine).await?;
            ensure!(said.success, "{}: {}", name(file), said.stderr);
            let cluster = Cluster::new(space, name(file).trim_end_matches(".yaml"));
            let status = cluster.wait_ready().await.with_context(|| name(file))?;
            cluster.wait_for(ConditionType::Available, "True").await?;
            if mine.contains("adapter: Redis") {
                cluster.wait_for(ConditionType::RedisReady, "True").await?;
            }
            figure!(space, "examples/{}: {} pods ready", name(file), status.ready_replicas);
            let delete = ["delete", "--wait=false", "--filename=-"];
            let said = space.try_kubectl(&delete, &mine).await?;
            ensure!(said.success, "{}: {}", name(file), said.stderr);
        }
        Ok(())
    });
}

fn in_namespace(space: &Space, yaml: &str) -> String {
    yaml.replace("namespace: default", &format!("namespace: {}", space.name))
}

#[test]
fn invalid_objects_are_refused_with_a_helpful_sentence() {
    test("invalid_objects_are_refused_with_a_helpful_sentence", async |space| {
        let files = yaml_files(space, "crds/testdata/invalid")?;
        let mut wrong = Vec::new();
        for file in &files {
            let yaml = fs::read_to_string(file)?;
            let expected = yaml.lines().next().and_then(|line| line.strip_prefix("# refused: "));
            let expected =
                expected.with_context(|| format!("{}: no `# refused: …` line", name(file)))?;
            let said =
                space.try_kubectl(&["apply", "--filename=-"], &in_namespace(space, &yaml)).await?;
            if said.success || !said.stderr.contains(expected) {
                wrong.push(format!(
                    "{}: expected {expected:?}, was told {:?}",
                    name(file),
                    said.stderr.trim()
                ));
            }
        }
        figure!(
            space,
            "{} of {} invalid objects refused with their sentence",
            files.len() - wrong.len(),
            files.len()
        );
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    });
}

#[test]
fn kubectl_explains_every_field() {
    test("kubectl_explains_every_field", async |space| {
        let said = space.kubectl(&["explain", "chc.spec.drain", "--recursive=false"]).await?;
        ensure!(said.contains("timeoutPolicy") && said.contains("batchSize"), "{said}");
        ensure!(!said.contains("<no description>"), "{said}");
        for path in [
            "chc.spec",
            "chc.spec.podTemplate",
            "chc.spec.updateStrategy.rollingUpdate",
            "chc.status",
        ] {
            let said = space.kubectl(&["explain", path]).await?;
            ensure!(!said.contains("<no description>"), "{path}: {said}");
        }
        Ok(())
    });
}
