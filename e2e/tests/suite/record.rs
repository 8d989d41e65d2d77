//! One command, watched without a daemon.

use anyhow::{Context, Result, ensure};
use ethogram_e2e::{
    agent::{binary, only, summary_of},
    expected::{Count, Expected, check, check_complete},
};
use ethogram_model::Kind;
use std::{fs, process::Command};

const READS: u64 = 3;
const STATUS: i32 = 7;

pub(super) fn ends_as_the_command_does_and_keeps_what_it_did() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let recording = dir.path().join("recording.db");
    let script = format!("for i in $(seq {READS}); do /bin/cat /etc/passwd; done; exit {STATUS}");
    let output = Command::new(binary()?)
        .args(["record", "--quiet", "-o"])
        .arg(&recording)
        .args(["--", "/bin/sh", "-c", &script])
        .output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(STATUS),
        "it ended with {}: {complaint}",
        output.status
    );
    let passwd = fs::read("/etc/passwd")?.repeat(usize::try_from(READS)?);
    ensure!(
        output.stdout == passwd,
        "the command's output is not passed on as it is"
    );

    let document = summary_of(&recording, &[])?;
    let (shell, cat) = (resolved("/bin/sh")?, resolved("/bin/cat")?);
    let times = Count::Exactly(READS);
    check_complete(only(&document)?)?;
    check(
        only(&document)?,
        &[
            Expected::new(Kind::Process, &shell, &cat, times),
            Expected::new(Kind::File, &cat, "/etc/passwd", times),
        ],
    )
}

/// The path of a program as the kernel resolves it on this machine.
fn resolved(program: &str) -> Result<String> {
    let path = fs::canonicalize(program).with_context(|| program.to_owned())?;
    path.into_os_string()
        .into_string()
        .ok()
        .context("a program's path is no text")
}
