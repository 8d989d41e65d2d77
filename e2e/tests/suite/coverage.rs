//! Every way of doing things is seen, or hidden by a blind spot that doctor lists.

use anyhow::{Result, ensure};
use ethogram_e2e::agent::{binary, summary_json};
use std::{fs, process::Command};

/// What this machine's kernel may be built without.
const MAY_LACK: &str = "SCTP,AF_VSOCK";

/// So many rows are kept as they are, far more than there are.
const UNFOLDED: &str = "1000000";

/// By tracepoints, which are there on every kernel; the guests of `vm` do it with both sets
/// of hooks.
pub(super) fn every_way_is_seen_or_a_stated_blind_spot() -> Result<()> {
    const HOOKS: &str = "tracepoint";
    let matrix = env!("CARGO_BIN_EXE_matrix");
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name);
    let (recording, truth, stage) = (at("recording.db"), at("truth.json"), at("stage"));
    let output = Command::new(binary()?)
        .args(["record", "--quiet", "--hooks", HOOKS])
        .args(["--rows-per-container-max", UNFOLDED, "-o"])
        .arg(&recording)
        .args(["--", matrix, "run", "--dir"])
        .arg(&stage)
        .arg("--truth")
        .arg(&truth)
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let all = ["--status", "allow,deny,audit,failed"];
    fs::write(at("summary.json"), summary_json(&recording, &all)?)?;
    let doctor = Command::new(binary()?)
        .args(["doctor", "--hooks", HOOKS, "-o", "json"])
        .output()?;
    fs::write(at("doctor.json"), doctor.stdout)?;
    let check = Command::new(matrix)
        .args(["check", "--hooks", HOOKS, "--may-lack", MAY_LACK])
        .arg("--truth")
        .arg(&truth)
        .arg("--summary")
        .arg(at("summary.json"))
        .arg("--doctor")
        .arg(at("doctor.json"))
        .output()?;
    let verdicts = String::from_utf8_lossy(&check.stdout);
    println!("{verdicts}");
    ensure!(check.status.success(), "{verdicts}");
    Ok(())
}
