//! Operations that start programs.

use crate::{
    layout::{c_path, shown},
    ops::{Op, op},
    sys::{self, After},
    tool,
    worker::{Worker, forking, must_fail},
};
use anyhow::{Result, ensure};
use ethogram_model::{Access, Kind, Name, Status};
use std::{
    ffi::{CStr, OsStr},
    io,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    process::Command,
};

/// All of them.
pub(crate) const OPS: &[Op] = &[
    op("exec", "exec-tool", 6, exec_tool),
    op("exec", "exec-forked", 4, exec_forked),
    op("exec", "fork-only", 4, fork_only),
    op("exec", "exec-at", 2, exec_at),
    op("exec", "exec-symlink", 2, exec_symlink),
    op("exec", "exec-relative", 2, exec_relative),
    op("exec", "exec-chain", 2, |w| exec_chain(w, tool::THEN)),
    op("exec", "exec-thread", 2, |w| {
        exec_chain(w, tool::THREAD_THEN)
    }),
    op("exec", "exec-denied", 40, exec_denied),
    op("exec", "exec-missing", 20, exec_missing),
    op("script", "script", 4, script),
];

/// Runs a program with arguments and records its exec, of `target`, if that went well.
pub(crate) fn start<A: AsRef<OsStr>>(
    w: &mut Worker,
    program: &Path,
    target: &Path,
    arguments: &[A],
) -> Result<()> {
    let mut command = Command::new(program);
    command.env_clear().args(arguments);
    // A spawn returns when the child has called exec.
    let child = {
        let _forking = forking();
        command.spawn()
    };
    let status = child?.wait()?;
    ensure!(
        status.success(),
        "{} ended with {status}",
        program.display()
    );
    w.did(Kind::Process, shown(target), |_| ());
    Ok(())
}

/// Forks with nobody's sockets at stake, see [`forking`].
fn fork(open: &CStr, after: &After<'_>, arguments: &[&CStr]) -> io::Result<()> {
    let _forking = forking();
    sys::fork(open, after, arguments)
}

fn any_tool(w: &mut Worker) -> PathBuf {
    let tools = w.layout().tools();
    w.rng.pick(&tools).clone()
}

/// Records that a tool read a file.
fn tool_read(w: &mut Worker, tool: &Path, file: Name) {
    w.other_did(shown(tool), Kind::File, file, |row| {
        row.access = Access::READ;
    });
}

fn exec_tool(w: &mut Worker) -> Result<()> {
    let (tool, file) = (any_tool(w), w.shared_file());
    start(w, &tool, &tool, &tool::read(&file.path))?;
    tool_read(w, &tool, file.name.clone());
    Ok(())
}

/// The child still is this executable when it opens the file, and then is another.
fn exec_forked(w: &mut Worker) -> Result<()> {
    let (tool, file) = (any_tool(w), w.shared_file());
    let path = c_path(&tool);
    fork(&file.path, &After::Exec(&path), &[&path, tool::ROLE])?;
    w.used(&file, Access::READ);
    w.did(Kind::Process, shown(&tool), |_| ());
    Ok(())
}

fn fork_only(w: &mut Worker) -> Result<()> {
    let file = w.shared_file();
    fork(&file.path, &After::Exit, &[])?;
    w.used(&file, Access::READ);
    Ok(())
}

fn exec_at(w: &mut Worker) -> Result<()> {
    let (tool, file) = (any_tool(w), w.shared_file());
    let arguments = [c"any name", tool::ROLE];
    if w.rng.coin() {
        let handle = sys::open(&c_path(&tool), libc::O_PATH | libc::O_CLOEXEC, 0)?;
        let after = After::ExecAt(handle.as_raw_fd(), c"", libc::AT_EMPTY_PATH);
        fork(&file.path, &after, &arguments)?;
    } else {
        let bin = sys::open(
            &c_path(&w.layout().bin()),
            libc::O_PATH | libc::O_CLOEXEC,
            0,
        )?;
        let leaf = c_path(Path::new(tool.file_name().expect("a tool has a name")));
        fork(
            &file.path,
            &After::ExecAt(bin.as_raw_fd(), &leaf, 0),
            &arguments,
        )?;
    }
    w.used(&file, Access::READ);
    w.did(Kind::Process, shown(&tool), |_| ());
    Ok(())
}

fn exec_symlink(w: &mut Worker) -> Result<()> {
    let tool = w.layout().tools().swap_remove(0);
    start(w, &w.layout().tool_link(), &tool, &[tool::ROLE_TEXT])
}

fn exec_relative(w: &mut Worker) -> Result<()> {
    let tool = any_tool(w);
    let relative = Path::new("../../bin").join(tool.file_name().expect("a tool has a name"));
    start(w, &relative, &tool, &[tool::ROLE_TEXT])
}

/// One tool becomes another without a fork between, in its first thread or in a second.
fn exec_chain(w: &mut Worker, verb: &str) -> Result<()> {
    let (first, second, file) = (any_tool(w), any_tool(w), w.shared_file());
    let mut arguments = vec![
        OsStr::new(tool::ROLE_TEXT),
        OsStr::new(verb),
        second.as_os_str(),
    ];
    let rest = tool::read(&file.path);
    arguments.extend(rest.iter().map(|argument| OsStr::new(*argument)));
    start(w, &first, &first, &arguments)?;
    w.other_did(shown(&first), Kind::Process, shown(&second), |_| ());
    tool_read(w, &second, file.name.clone());
    Ok(())
}

/// Refused before anything of this process is given up, so a thread may try it.
fn exec_denied(w: &mut Worker) -> Result<()> {
    let path = w.layout().not_executable();
    must_fail(
        io::Result::<()>::Err(sys::execve(&c_path(&path))),
        libc::EACCES,
    )?;
    w.did(Kind::Process, shown(&path), |row| row.status = Status::Deny);
    Ok(())
}

fn exec_missing(w: &mut Worker) -> Result<()> {
    let path = w.layout().bin().join("no-such-program");
    must_fail(
        io::Result::<()>::Err(sys::execve(&c_path(&path))),
        libc::ENOENT,
    )
}

fn script(w: &mut Worker) -> Result<()> {
    let (script, interpreter, file) = (
        w.layout().script(),
        w.layout().interpreter(),
        w.shared_file(),
    );
    let rest = tool::read(&file.path);
    // The first line of the script says the role.
    start(w, &script, &script, &rest[1..])?;
    w.other_did(shown(&script), Kind::Process, shown(&interpreter), |_| ());
    tool_read(w, &interpreter, file.name.clone());
    Ok(())
}

/// A C string as an argument.
pub(crate) fn argument(text: &CStr) -> &OsStr {
    OsStr::from_bytes(text.to_bytes())
}
