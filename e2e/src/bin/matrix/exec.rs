//! Ways to start a program.

use crate::{
    EXIT_ROLE,
    deeds::{Cell, Record, name},
    places::c_path,
    sys,
};
use anyhow::{Context, Result, ensure};
use ethogram_model::{Kind, Name};
use std::{
    ffi::{CStr, CString},
    fs,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::Path,
};

const PROGRAM: &str = "program";
const ARGUMENTS: [&CStr; 2] = [c"program", c"exit"];

/// Puts a program into the folder that ends at once: this one, by a hard link.
pub(crate) fn make_program(folder: &Path) -> Result<()> {
    let all = folder.ancestors().nth(2).context("it is in data/NUMBER")?;
    Ok(fs::hard_link(
        all.join("bin/program"),
        folder.join(PROGRAM),
    )?)
}

/// Calls exec in a child, and waits until the program has ended well.
pub(crate) fn in_child(exec: impl FnOnce()) -> Result<()> {
    let status = sys::fork_and_wait(exec)?;
    ensure!(status == 0, "the program ended with {status}");
    Ok(())
}

pub(crate) fn cells() -> Vec<Cell> {
    let cell =
        |place: &str, set_up: fn(&Path) -> Result<()>, act: fn(&mut Record) -> Result<()>| {
            Cell::new("exec", place, set_up, act)
        };
    let mut cells = vec![
        cell("execve", make_program, |record| {
            by_path(record, PROGRAM, PROGRAM)
        }),
        cell("symbolic link", linked, |record| {
            by_path(record, "link", PROGRAM)
        }),
        cell("hard link", hard_linked, |record| {
            by_path(record, "second", "second")
        }),
        cell("execveat", make_program, |record| {
            let folder = sys::openat(&c_path(&record.folder), libc::O_PATH)?;
            record.used(name(&record.folder), ethogram_model::Access::empty());
            in_child(|| sys::execveat(folder.as_raw_fd(), c"program", &ARGUMENTS, 0))?;
            ran(record, PROGRAM)
        }),
        cell("AT_EMPTY_PATH", make_program, |record| {
            let file = sys::openat(&c_path(&record.path(PROGRAM)), libc::O_PATH)?;
            record.used(name(&record.path(PROGRAM)), ethogram_model::Access::empty());
            in_child(|| sys::execveat(file.as_raw_fd(), c"", &ARGUMENTS, libc::AT_EMPTY_PATH))?;
            ran(record, PROGRAM)
        }),
        cell(
            "memfd",
            |_| Ok(()),
            |record| {
                let own = std::env::current_exe()?;
                let content = fs::read(&own)?;
                // Finding its own path reads a link, which is no open; reading the file is one.
                record.used(name(&own), ethogram_model::Access::READ);
                let file = sys::memfd(c"program", &content)?;
                record.called("memfd_create");
                in_child(|| sys::execveat(file.as_raw_fd(), c"", &ARGUMENTS, libc::AT_EMPTY_PATH))?;
                record.did(Kind::Process, "/memfd:program", |row| {
                    row.access = ethogram_model::Access::MEMFD;
                });
                Ok(())
            },
        ),
        cell("script", scripted, |record| {
            let script = record.path("script");
            let path = c_path(&script);
            in_child(|| sys::execve(&path, &ARGUMENTS))?;
            interpreted(record, &script)
        }),
        cell("a thread that is not the leader", make_program, |record| {
            let path = c_path(&record.path(PROGRAM));
            in_child(|| {
                let thread = std::thread::spawn(move || sys::execve(&path, &ARGUMENTS));
                let _ = thread.join();
            })?;
            ran(record, PROGRAM)
        }),
        cell("vfork", make_program, |record| {
            // What the standard library does: vfork or clone, and exec.
            let program = record.path(PROGRAM);
            let status = std::process::Command::new(&program)
                .arg(EXIT_ROLE)
                .status()?;
            ensure!(status.success(), "the program ended with {status}");
            ran(record, PROGRAM)
        }),
    ];
    cells.push(Cell {
        machine_wide: true,
        ..cell("binfmt_misc", registered, |record| {
            let file = record.path("foreign");
            let path = c_path(&file);
            in_child(|| sys::execve(&path, &ARGUMENTS))?;
            interpreted(record, &file)
        })
    });
    cells
}

fn by_path(record: &mut Record, path: &str, target: &str) -> Result<()> {
    let path: CString = c_path(&record.path(path));
    in_child(|| sys::execve(&path, &ARGUMENTS))?;
    ran(record, target)
}

fn ran(record: &mut Record, program: &str) -> Result<()> {
    let program = name(&record.path(program));
    record.did(Kind::Process, program, |_| ());
    Ok(())
}

/// The script is the target of its exec, and the source of its interpreter's.
fn interpreted(record: &mut Record, script: &Path) -> Result<()> {
    let (script, program): (Name, Name) = (name(script), name(&record.path(PROGRAM)));
    record.did(Kind::Process, script.clone(), |_| ());
    record.other_did(script, Kind::Process, program, &[], &[], |_| ());
    Ok(())
}

fn linked(folder: &Path) -> Result<()> {
    make_program(folder)?;
    Ok(std::os::unix::fs::symlink(PROGRAM, folder.join("link"))?)
}

fn hard_linked(folder: &Path) -> Result<()> {
    make_program(folder)?;
    Ok(fs::hard_link(folder.join(PROGRAM), folder.join("second"))?)
}

fn scripted(folder: &Path) -> Result<()> {
    make_program(folder)?;
    let first_line = format!("#!{}\n", folder.join(PROGRAM).display());
    fs::write(folder.join("script"), first_line)?;
    executable(&folder.join("script"))
}

fn executable(path: &Path) -> Result<()> {
    const MODE: u32 = 0o755;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(MODE))?)
}

fn registered(folder: &Path) -> Result<()> {
    make_program(folder)?;
    fs::write(folder.join("foreign"), "\x01matrix")?;
    executable(&folder.join("foreign"))?;
    sys::register_format("\\x01matrix", &folder.join(PROGRAM))
}
