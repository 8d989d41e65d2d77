//! The testbed's scripts, as commands.

use anyhow::{Context, Result, anyhow, ensure};
use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

/// Where the testbed keeps its state; the scripts' `ETHOGRAM_TESTBED`.
#[must_use]
pub fn state_dir() -> PathBuf {
    std::env::var_os("ETHOGRAM_TESTBED")
        .map_or_else(|| PathBuf::from("/var/tmp/ethogram-testbed"), PathBuf::from)
}

/// Where the scripts are: in the source tree that this was built from.
#[must_use]
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testbed")
        .join(name)
}

/// Runs one of the scripts.
///
/// # Errors
/// When it fails; the text has what the script said.
pub fn run_script(name: &str, args: &[&str]) -> Result<String> {
    run(Command::new(script(name)).args(args))
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started or fails; the text has the command and what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Does something in a network namespace.
///
/// # Errors
/// When there is none of that name, or as `action` says.
pub fn in_network<T: Send>(name: &str, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = format!("/run/netns/{name}");
    let netns = File::open(&path).with_context(|| path.clone())?;
    // A thread of its own, because a thread cannot be relied on to find back.
    thread::scope(|scope| {
        scope
            .spawn(|| {
                rustix::thread::move_into_link_name_space(
                    netns.as_fd(),
                    Some(rustix::thread::LinkNameSpaceType::Network),
                )
                .with_context(|| path.clone())?;
                action()
            })
            .join()
            .map_err(|_| anyhow!("a thread in {path} panicked"))?
    })
}

/// Waits until no other run uses the testbed, and keeps it while the result lives.
///
/// # Errors
/// When its folder cannot be made.
pub fn lock() -> Result<File> {
    fs::create_dir_all(state_dir())?;
    let path = state_dir().join("lock");
    let lock = File::create(&path).with_context(|| path.display().to_string())?;
    if lock.try_lock().is_err() {
        eprintln!(
            "another run uses the testbed ({}): waiting for its end",
            path.display()
        );
        lock.lock()?;
    }
    Ok(lock)
}

/// Installs the Debian packages that the testbed needs.
///
/// # Errors
/// When a package is missing and cannot be installed.
pub fn install_packages() -> Result<()> {
    run_script("packages.sh", &[]).map(drop)
}

/// Ends all that any run of the testbed left behind. Built images stay.
///
/// # Errors
/// When the script fails.
pub fn down() -> Result<()> {
    run_script("down.sh", &[]).map(drop)
}
