//! The arrows between the crates, as `docs/architecture.md` draws them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// What each crate may know of the workspace.
const ARROWS: &[(&str, &[&str])] = &[
    ("ethogram-model", &[]),
    ("ethogram-sensor", &["ethogram-model"]),
    ("ethogram-identity", &["ethogram-model"]),
    ("ethogram-store", &["ethogram-model"]),
    ("ethogram-view", &["ethogram-model"]),
    ("ethogram-kubernetes", &["ethogram-model"]),
    (
        "ethogram",
        &[
            "ethogram-identity",
            "ethogram-kubernetes",
            "ethogram-model",
            "ethogram-sensor",
            "ethogram-store",
            "ethogram-view",
        ],
    ),
    ("ethogram-e2e", &["ethogram-model", "ethogram-view"]),
    ("ethogram-bench", &[]),
];

/// Libraries that one crate alone may use, because it is the edge to what they reach.
const OWNED: &[(&str, &str)] = &[
    ("libbpf-rs", "ethogram-sensor"),
    ("libbpf-cargo", "ethogram-sensor"),
    ("rusqlite", "ethogram-store"),
];

/// Where `unsafe` may stand.
const UNSAFE_ALLOWED: &[&str] = &["crates/sensor/src/bpf.rs", "e2e/"];

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("the crate lies two levels below the workspace")
        .to_owned()
}

/// The workspace's crates, each with what it names as a dependency, and for which purpose.
fn dependencies() -> BTreeMap<String, Vec<(String, bool)>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(root())
        .output()
        .expect("cargo runs: it started this test");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let text = |value: &Value| value.as_str().expect("a name is a text").to_owned();
    let packages = metadata["packages"].as_array().expect("a list of packages");
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("a list");
            let named = dependencies
                .iter()
                .map(|dependency| (text(&dependency["name"]), dependency["kind"] == "dev"));
            (text(&package["name"]), named.collect())
        })
        .collect()
}

#[test]
fn arrows_point_where_the_architecture_says() {
    let dependencies = dependencies();
    let known: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(
        found, known,
        "a crate came or went: say here what it may know"
    );
    for (name, allowed) in ARROWS {
        for (dependency, _) in &dependencies[*name] {
            assert!(
                !known.contains(dependency.as_str()) || allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn edges_belong_to_one_crate() {
    for (name, dependencies) in dependencies() {
        for (dependency, is_dev) in dependencies {
            let owner = OWNED.iter().find(|(library, _)| *library == dependency);
            let is_ours = owner.is_none_or(|(_, owner)| *owner == name);
            assert!(is_ours || is_dev, "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn unsafe_stands_only_at_the_kernel_edge() {
    let root = root();
    let mut files = Vec::new();
    for folder in ["bench", "crates", "e2e"] {
        rust_files(&root.join(folder), &mut files);
    }
    assert!(
        files.len() > 50,
        "only {} source files were found",
        files.len()
    );
    for file in files {
        let name = file.strip_prefix(&root).expect("found below the root");
        let name = name.to_str().expect("our paths are UTF-8");
        if UNSAFE_ALLOWED
            .iter()
            .any(|allowed| name.starts_with(allowed))
        {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file can be read");
        for (number, line) in text.lines().enumerate() {
            assert!(!has_unsafe(line), "{name}:{}: {line}", number + 1);
        }
    }
}

/// Whether a line opens an unsafe block or item. (Comments and lint names do not count.)
fn has_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["{", "fn", "impl", "trait", "extern"]
        .iter()
        .any(|what| code.contains(&format!("{} {what}", "unsafe")))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace can be read") {
        let path = entry.expect("its entries too").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_other_crate_forbids_unsafe() {
    for (name, _) in ARROWS {
        let short = name.strip_prefix("ethogram-").unwrap_or(name);
        let head = match short {
            "sensor" | "e2e" => continue,
            "ethogram" => "crates/ethogram/src/main.rs".to_owned(),
            "bench" => "bench/src/main.rs".to_owned(),
            other => format!("crates/{other}/src/lib.rs"),
        };
        let text = fs::read_to_string(root().join(&head))
            .unwrap_or_else(|error| panic!("{head}: {error}"));
        assert!(
            text.contains("#![forbid(unsafe_code)]"),
            "{head} lets unsafe in"
        );
    }
}
