//! `tools/image.sh`: what the image of a binary consists of.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::support::binary;

fn image(of: &Path, into: &Path) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(root.join("tools/image.sh"));
    command.arg(of).arg(into).output().expect("bash runs")
}

/// Makes the image of a stand-in for the binary, and unpacks it.
fn made(folder: &Path) -> (String, Value) {
    fs::create_dir_all(folder).expect("a folder");
    let stand_in = folder.join("ethogram");
    fs::write(&stand_in, "a static binary").expect("a file");
    let output = image(&stand_in, folder);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).expect("text");
    let (file, digest) = said.trim().split_once(" sha256:").expect("file and digest");
    let unpacked = Command::new("tar")
        .args(["--extract", "--file", file, "--directory"])
        .arg(folder)
        .status()
        .expect("tar runs");
    assert!(unpacked.success());
    (digest.to_owned(), json(&folder.join("index.json")))
}

fn json(file: &Path) -> Value {
    let text = fs::read_to_string(file).expect("it is there");
    serde_json::from_str(&text).expect("JSON")
}

/// The blob that a descriptor names, of the size it says.
fn blob(folder: &Path, descriptor: &Value) -> std::path::PathBuf {
    let digest = descriptor["digest"].as_str().expect("a digest");
    let digest = digest.strip_prefix("sha256:").expect("of SHA-256");
    let file = folder.join("blobs/sha256").join(digest);
    let size = fs::metadata(&file).expect("it is there").len();
    assert_eq!(descriptor["size"], size);
    let sum = Command::new("sha256sum")
        .arg(&file)
        .output()
        .expect("it runs");
    assert!(sum.stdout.starts_with(digest.as_bytes()));
    file
}

#[test]
fn an_image_is_what_its_digests_say_and_always_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    let (digest, index) = made(&one);
    let manifest = &index["manifests"][0];
    assert_eq!(manifest["digest"], format!("sha256:{digest}"));
    let manifest = json(&blob(&one, manifest));
    let config = json(&blob(&one, &manifest["config"]));
    assert_eq!(config["config"]["User"], "65532:65532", "not root");
    assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/ethogram");
    let version = &config["config"]["Labels"]["org.opencontainers.image.version"];
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    let layer = blob(&one, &manifest["layers"][0]);
    let listed = Command::new("tar")
        .args(["--list", "--verbose", "--gzip", "--numeric-owner", "--file"])
        .arg(layer)
        .output()
        .expect("tar runs");
    let listed = String::from_utf8(listed.stdout).expect("text");
    let program = listed
        .lines()
        .find(|line| line.ends_with("/usr/bin/ethogram"));
    let program = program.expect("the program is in it");
    assert!(program.starts_with("-rwxr-xr-x 0/0"), "{program}");

    assert_eq!(made(&other).0, digest);
}

#[test]
fn a_binary_that_would_not_start_in_it_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = image(binary(), folder.path());
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("dynamic loader"), "{said}");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}
