//! Security-sensitive system calls.

use crate::{
    exec::start,
    layout::shown,
    ops::{Op, op},
    sys, tool,
    worker::{Worker, must_be_denied, must_fail, names},
};
use anyhow::Result;
use ethogram_model::{Access, Kind};
use std::{
    ffi::{CStr, OsStr},
    io,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
};

/// All of them.
pub(crate) const OPS: &[Op] = &[
    op("syscall", "ids", 20, ids),
    op("syscall", "ids-denied", 5, ids_denied),
    op("syscall", "ptrace", 2, ptrace),
    op("syscall", "ptrace-denied", 10, ptrace_denied),
    op("syscall", "unshare", 5, unshare),
    op("syscall", "setns", 10, setns),
    op("syscall", "mount", 2, mount),
    op("syscall", "mount-denied", 5, mount_denied),
    op("syscall", "keyctl", 10, keyctl),
    op("syscall", "perf-event", 5, perf_event),
    op("syscall", "process-vm", 10, process_vm),
];

/// The id that every thread has.
const ROOT: u32 = 0;

/// Records a call that must succeed.
fn must_succeed(w: &mut Worker, name: &str, result: io::Result<()>) -> Result<()> {
    w.called(name, &result);
    Ok(result?)
}

fn ids(w: &mut Worker) -> Result<()> {
    let (name, result) = match w.rng.below(6) {
        0 => ("setuid", sys::setuid(ROOT)),
        1 => ("setgid", sys::setgid(ROOT)),
        2 => ("setreuid", sys::setreuid(ROOT, sys::KEEP)),
        3 => ("setregid", sys::setregid(ROOT, sys::KEEP)),
        4 => ("setresuid", sys::setresuid(sys::KEEP, ROOT, sys::KEEP)),
        _ => ("setresgid", sys::setresgid(sys::KEEP, ROOT, ROOT)),
    };
    must_succeed(w, name, result)
}

fn ids_denied(w: &mut Worker) -> Result<()> {
    w.as_nobody(|w| {
        let (name, result) = if w.rng.coin() {
            ("setuid", sys::setuid(1))
        } else {
            ("setgid", sys::setgid(1))
        };
        w.called(name, &result);
        must_be_denied(result)
    })
}

fn ptrace(w: &mut Worker) -> Result<()> {
    let tool = w.layout().tools().swap_remove(0);
    start(w, &tool, &tool, &[tool::ROLE_TEXT, tool::TRACE_ME])?;
    w.other_did(shown(&tool), Kind::Syscall, "ptrace".into(), |_| ());
    Ok(())
}

/// A process may not trace itself; and there is nobody with the highest number.
fn ptrace_denied(w: &mut Worker) -> Result<()> {
    let (pid, errno) = if w.rng.coin() {
        (std::process::id().cast_signed(), libc::EPERM)
    } else {
        (i32::MAX, libc::ESRCH)
    };
    let result = sys::ptrace_attach(pid);
    w.called("ptrace", &result);
    must_fail(result, errno)
}

fn unshare(w: &mut Worker) -> Result<()> {
    let result = sys::unshare(libc::CLONE_NEWUTS);
    must_succeed(w, "unshare", result)
}

fn setns(w: &mut Worker) -> Result<()> {
    let result = sys::setns(w.network.as_raw_fd(), libc::CLONE_NEWNET);
    must_succeed(w, "setns", result)
}

/// In a tool, because a thread's own mounts would make every later path a new one.
fn mount(w: &mut Worker) -> Result<()> {
    let tool = w.layout().tools().swap_remove(0);
    let (from, point) = (w.own_place(names::FROM), w.own_place(names::POINT));
    let inside = w.own_place(&[names::POINT, b"/", names::INSIDE].concat());
    let arguments: [&OsStr; 5] = [
        OsStr::new(tool::ROLE_TEXT),
        OsStr::new(tool::NAMESPACES),
        crate::exec::argument(&from.path),
        crate::exec::argument(&point.path),
        OsStr::from_bytes(names::INSIDE),
    ];
    start(w, &tool, &tool, &arguments)?;
    let source = shown(&tool);
    for name in ["unshare", "mount", "mount", "umount2", "setns"] {
        w.other_did(source.clone(), Kind::Syscall, name.into(), |_| ());
    }
    w.other_did(source, Kind::File, inside.name.clone(), |row| {
        row.access = Access::READ;
    });
    Ok(())
}

fn mount_denied(w: &mut Worker) -> Result<()> {
    const HERE: &CStr = c"/";
    w.as_nobody(|w| {
        let (name, result) = match w.rng.below(4) {
            0 => ("mount", sys::mount(HERE, HERE, libc::MS_BIND)),
            1 => ("umount2", sys::umount2(HERE)),
            2 => ("unshare", sys::unshare(libc::CLONE_NEWUTS)),
            _ => (
                "setns",
                sys::setns(w.network.as_raw_fd(), libc::CLONE_NEWNET),
            ),
        };
        w.called(name, &result);
        must_be_denied(result)
    })
}

/// Whatever the outcome: kernels may have no keys, and sessions no keyring.
fn keyctl(w: &mut Worker) -> Result<()> {
    let result = sys::keyctl_session_keyring();
    w.called("keyctl", &result);
    Ok(())
}

/// Whatever the outcome: kernels may be told to refuse it.
fn perf_event(w: &mut Worker) -> Result<()> {
    let result = sys::perf_event_open_dummy();
    w.called("perf_event_open", &result);
    Ok(())
}

fn process_vm(w: &mut Worker) -> Result<()> {
    let result = sys::process_vm_readv_self();
    must_succeed(w, "process_vm_readv", result)
}
