//! What the tools do: tiny programs that workers start, each one a copy of this binary.
//!
//! A tool does what its arguments say and nothing else, and ends with an error if
//! anything does not go as meant; so whoever started it knows what it did.

use crate::{exec::argument, layout::c_path, sys};
use anyhow::{Context, Result, bail};
use std::{
    ffi::{CStr, OsStr, OsString},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::Path,
    process::Command,
    thread,
};

/// The first argument of a tool.
pub(crate) const ROLE_TEXT: &str = "tool";
/// The same for a forked child.
pub(crate) const ROLE: &CStr = c"tool";
/// The first argument of a tool that interprets a script.
pub(crate) const SCRIPT_ROLE: &str = "script";

/// Opens a file for reading.
const READ: &str = "read";
/// Becomes another tool.
pub(crate) const THEN: &str = "then";
/// Becomes another tool, in a thread that is not the first.
pub(crate) const THREAD_THEN: &str = "thread-then";
/// Asks its parent to trace it.
pub(crate) const TRACE_ME: &str = "trace-me";
/// Mounts a directory in a mount namespace of its own and leaves again.
pub(crate) const NAMESPACES: &str = "namespaces";

/// The arguments that make a tool read a file.
pub(crate) fn read(path: &CStr) -> [&OsStr; 3] {
    [OsStr::new(ROLE_TEXT), OsStr::new(READ), argument(path)]
}

/// Does what the arguments say.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    let Some((verb, rest)) = arguments.split_first() else {
        return Ok(());
    };
    match (verb.to_str(), rest) {
        (Some(READ), [path]) => read_file(Path::new(path)),
        (Some(THEN), [next, rest @ ..]) => become_tool(next, rest),
        (Some(THREAD_THEN), [next, rest @ ..]) => thread::scope(|scope| {
            let other = scope.spawn(|| become_tool(next, rest));
            other.join().expect("the thread returns its error")
        }),
        (Some(TRACE_ME), []) => Ok(sys::ptrace_trace_me()?),
        (Some(NAMESPACES), [from, point, inside]) => {
            namespaces(Path::new(from), Path::new(point), Path::new(inside))
        }
        _ => bail!("a tool cannot {arguments:?}"),
    }
}

fn read_file(path: &Path) -> Result<()> {
    sys::openat(
        libc::AT_FDCWD,
        &c_path(path),
        libc::O_RDONLY | libc::O_CLOEXEC,
        0,
    )
    .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(())
}

fn become_tool(next: &OsStr, rest: &[OsString]) -> Result<()> {
    let error = Command::new(next).args(rest).exec();
    Err(error).with_context(|| format!("cannot become {}", next.display()))
}

/// Calls: unshare 1, mount 2, umount2 1, setns 1; reads `inside` of the bound directory.
fn namespaces(from: &Path, point: &Path, inside: &Path) -> Result<()> {
    let home = sys::open(c"/proc/self/ns/mnt", libc::O_CLOEXEC, 0)?;
    sys::unshare(libc::CLONE_NEWNS).context("unshare")?;
    sys::mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE).context("make mounts private")?;
    sys::mount(&c_path(from), &c_path(point), libc::MS_BIND).context("bind mount")?;
    read_file(&point.join(inside))?;
    sys::umount2(&c_path(point)).context("umount2")?;
    sys::setns(home.as_raw_fd(), libc::CLONE_NEWNS).context("setns")?;
    Ok(())
}
