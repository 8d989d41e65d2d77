//! The arrows between the crates, as `docs/architecture.md` draws them.

use std::{
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
    ("ethogram-clickhouse", &["ethogram-model", "ethogram-store"]),
    ("ethogram-cluster", &["ethogram-model", "ethogram-store"]),
    (
        "ethogram-neighbours",
        &["ethogram-cluster", "ethogram-model", "ethogram-store"],
    ),
    (
        "ethogram",
        &[
            "ethogram-clickhouse",
            "ethogram-cluster",
            "ethogram-identity",
            "ethogram-kubernetes",
            "ethogram-model",
            "ethogram-neighbours",
            "ethogram-sensor",
            "ethogram-store",
            "ethogram-view",
        ],
    ),
    ("ethogram-e2e", &["ethogram-model", "ethogram-view"]),
    ("ethogram-bench", &[]),
    (
        "ethogram-bench-cluster",
        &["ethogram-cluster", "ethogram-model", "ethogram-store"],
    ),
];

/// Libraries that one crate alone may use, because it is the edge to what they reach.
const OWNED: &[(&str, &str)] = &[
    ("libbpf-rs", "ethogram-sensor"),
    ("libbpf-sys", "ethogram-sensor"),
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

/// A crate of the workspace.
struct Crate {
    name: String,
    /// What its manifest names, and whether for tests only.
    dependencies: Vec<(String, bool)>,
    /// The root files of its libraries and programs.
    roots: Vec<PathBuf>,
}

fn crates() -> Vec<Crate> {
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
    let crates: Vec<_> = list(&metadata["packages"]).iter().map(crate_of).collect();
    assert!(crates.len() >= 7, "only {} crates were found", crates.len());
    crates
}

fn crate_of(package: &Value) -> Crate {
    let dependencies = list(&package["dependencies"]).iter();
    let targets = list(&package["targets"]).iter();
    Crate {
        name: text(&package["name"]),
        dependencies: dependencies
            .map(|dependency| (text(&dependency["name"]), dependency["kind"] == "dev"))
            .collect(),
        roots: targets
            .filter(|target| ["lib", "bin"].iter().any(|kind| target["kind"][0] == *kind))
            .map(|target| PathBuf::from(text(&target["src_path"])))
            .collect(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

#[test]
fn arrows_point_where_the_architecture_says() {
    let crates = crates();
    for Crate {
        name, dependencies, ..
    } in &crates
    {
        let (_, allowed) = ARROWS
            .iter()
            .find(|(known, _)| known == name)
            .unwrap_or_else(|| panic!("{name} is new: say in ARROWS what it may know"));
        for (dependency, _) in dependencies {
            let is_ours = crates.iter().any(|other| other.name == *dependency);
            assert!(
                !is_ours || allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn edges_belong_to_one_crate() {
    for Crate {
        name, dependencies, ..
    } in crates()
    {
        for (dependency, for_tests) in dependencies {
            let owner = OWNED.iter().find(|(library, _)| *library == dependency);
            let is_allowed = owner.is_none_or(|(_, owner)| *owner == name);
            assert!(
                is_allowed || for_tests,
                "{name} must not depend on {dependency}"
            );
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
    for Crate { name, roots, .. } in crates() {
        if ["ethogram-sensor", "ethogram-e2e"].contains(&name.as_str()) {
            continue;
        }
        for file in roots {
            let text = fs::read_to_string(&file).expect("a crate's root can be read");
            assert!(
                text.contains("#![forbid(unsafe_code)]"),
                "{} lets unsafe in",
                file.display()
            );
        }
    }
}
