//! Operations on files.

use crate::{
    layout::{c_path, shown},
    ops::{Op, op},
    place::{Place, Spelled},
    sys,
    worker::{Worker, must_be_denied, must_fail, names},
};
use anyhow::Result;
use ethogram_model::{Access, Kind};
use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

/// All of them.
pub(crate) const OPS: &[Op] = &[
    op("file", "open-read", 3600, open_read),
    op("file", "open-write", 1500, open_write),
    op("file", "open-read-write", 600, open_read_write),
    op("file", "open-truncate", 200, open_truncate),
    op(
        "file",
        "open-existing-or-create",
        200,
        open_existing_or_create,
    ),
    op("file", "open-path", 200, open_path),
    op("file", "open-directory", 200, open_directory),
    op("file", "open-symlink", 200, open_symlink),
    op("file", "open-winding", 100, open_winding),
    op("file", "reopen", 100, reopen),
    op("file", "open-missing", 300, open_missing),
    op("file", "look-only", 300, look_only),
    op("file", "create", 200, create),
    op("file", "creat", 100, creat),
    op("file", "rename", 150, rename),
    op("file", "exchange", 100, exchange),
    op("file", "rename-parent", 50, rename_parent),
    op("file", "mkdir", 100, mkdir),
    op("file", "mknod", 50, mknod),
    op("file", "symlink", 100, symlink),
    op("file", "link", 100, link),
    op("file", "truncate", 150, truncate),
    op("file", "chmod", 200, chmod),
    op("file", "chown", 200, chown),
    op("file", "fail", 100, fail),
    op("file", "open-denied", 40, open_denied),
    op("file", "create-denied", 20, create_denied),
    op("file", "change-denied", 20, change_denied),
];

/// How many refused calls are made in one go: taking rights away and back costs two more.
const DENIED_BURST: usize = 8;

const MODE: u32 = 0o644;

fn open_at(at: &Spelled<'_>, flags: i32, newest: bool) -> io::Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC;
    let mode = if flags & libc::O_CREAT == 0 { 0 } else { MODE };
    if at.classic {
        sys::open(at.path, flags, mode)
    } else if newest {
        sys::openat2(at.dir, at.path, flags, mode, 0)
    } else {
        sys::openat(at.dir, at.path, flags, mode)
    }
}

/// Opens by a path and a call as they come.
fn try_open(w: &mut Worker, place: &Place, flags: i32) -> io::Result<OwnedFd> {
    let at = place.spell(&mut w.rng);
    // openat2 refuses flags that the others ignore; these are all known to it.
    open_at(&at, flags, w.rng.coin())
}

fn open(w: &mut Worker, place: &Place, flags: i32, access: Access) -> Result<OwnedFd> {
    let fd = try_open(w, place, flags)?;
    w.used(place, access);
    Ok(fd)
}

fn open_read(w: &mut Worker) -> Result<()> {
    let place = w.shared_file();
    open(w, &place, libc::O_RDONLY, Access::READ).map(drop)
}

fn open_write(w: &mut Worker) -> Result<()> {
    let place = w.file();
    open(w, &place, libc::O_WRONLY | libc::O_APPEND, Access::WRITE).map(drop)
}

fn open_read_write(w: &mut Worker) -> Result<()> {
    let place = w.file();
    open(w, &place, libc::O_RDWR, Access::READ | Access::WRITE).map(drop)
}

fn open_truncate(w: &mut Worker) -> Result<()> {
    let place = w.file();
    let (flags, access) = if w.rng.coin() {
        (libc::O_WRONLY, Access::WRITE)
    } else {
        (libc::O_RDONLY, Access::READ | Access::WRITE)
    };
    open(w, &place, flags | libc::O_TRUNC, access).map(drop)
}

fn open_existing_or_create(w: &mut Worker) -> Result<()> {
    let place = w.file();
    open(w, &place, libc::O_WRONLY | libc::O_CREAT, Access::WRITE).map(drop)
}

fn open_path(w: &mut Worker) -> Result<()> {
    if w.rng.coin() {
        let place = w.shared_file();
        open(w, &place, libc::O_PATH, Access::empty()).map(drop)
    } else {
        // A handle of the symbolic link itself.
        let link = w.own_place(names::LINK);
        open(w, &link, libc::O_PATH | libc::O_NOFOLLOW, Access::empty()).map(drop)
    }
}

fn open_directory(w: &mut Worker) -> Result<()> {
    let path = w.rng.pick(&w.dirs).clone();
    sys::open(
        &c_path(&path),
        libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
        0,
    )?;
    w.did(Kind::File, shown(&path), |row| row.access = Access::READ);
    Ok(())
}

fn open_symlink(w: &mut Worker) -> Result<()> {
    let link = w.own_place(names::LINK);
    drop(try_open(w, &link, libc::O_RDONLY)?);
    let target = w.files[0].clone();
    w.used(&target, Access::READ);
    Ok(())
}

/// A path with everything in it that the kernel takes out.
fn open_winding(w: &mut Worker) -> Result<()> {
    let place = w.file();
    let data = w.layout().data();
    let below = place
        .path
        .as_bytes()
        .strip_prefix(data.as_os_str().as_encoded_bytes());
    let below = below.expect("a thread's own files lie below the data directory");
    let winding = CString::new([b"..//shared/.././", below].concat())?;
    drop(sys::openat(
        libc::AT_FDCWD,
        &winding,
        libc::O_RDONLY | libc::O_CLOEXEC,
        0,
    )?);
    w.used(&place, Access::READ);
    Ok(())
}

/// Opens what a descriptor stands for: the path has nothing to do with the file's.
fn reopen(w: &mut Worker) -> Result<()> {
    let place = w.file();
    let fd = open(w, &place, libc::O_RDONLY, Access::READ)?;
    let magic = CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    drop(sys::openat(
        libc::AT_FDCWD,
        &magic,
        libc::O_WRONLY | libc::O_CLOEXEC,
        0,
    )?);
    w.used(&place, Access::WRITE);
    Ok(())
}

fn open_missing(w: &mut Worker) -> Result<()> {
    let place = w.own_place(names::MISSING);
    must_fail(try_open(w, &place, libc::O_RDONLY), libc::ENOENT)
}

/// Looking at a file is not using it.
fn look_only(w: &mut Worker) -> Result<()> {
    let place = w.shared_file();
    if w.rng.coin() {
        sys::access(&place.path)?;
    } else {
        rustix::fs::stat(&*place.path)?;
    }
    Ok(())
}

fn unlink(w: &mut Worker, place: &Place) -> Result<()> {
    try_unlink(w, place)?;
    w.used(place, Access::DELETE);
    Ok(())
}

fn try_unlink(w: &mut Worker, place: &Place) -> io::Result<()> {
    let at = place.spell(&mut w.rng);
    if at.classic {
        sys::unlink(at.path)
    } else {
        sys::unlinkat(at.dir, at.path, 0)
    }
}

fn create(w: &mut Worker) -> Result<()> {
    let place = w.free_name();
    let flags = *w.rng.pick(&[0, libc::O_EXCL, libc::O_TRUNC]);
    open(
        w,
        &place,
        libc::O_WRONLY | libc::O_CREAT | flags,
        Access::WRITE | Access::CREATE,
    )?;
    unlink(w, &place)
}

fn creat(w: &mut Worker) -> Result<()> {
    let place = w.free_name();
    sys::creat(&place.path, MODE)?;
    w.used(&place, Access::WRITE | Access::CREATE);
    sys::creat(&place.path, MODE)?;
    w.used(&place, Access::WRITE);
    unlink(w, &place)
}

fn try_rename(w: &mut Worker, old: &Place, new: &Place) -> io::Result<()> {
    let (from, to) = (old.spell(&mut w.rng), new.spell(&mut w.rng));
    if from.classic && to.classic {
        sys::rename(from.path, to.path)
    } else if w.rng.coin() {
        sys::renameat(from.dir, from.path, to.dir, to.path)
    } else {
        sys::renameat2(from.dir, from.path, to.dir, to.path, 0)
    }
}

fn rename_to(w: &mut Worker, old: &Place, new: &Place) -> Result<()> {
    try_rename(w, old, new)?;
    w.used(old, Access::RENAME);
    w.used(new, Access::RENAME | Access::CREATE);
    Ok(())
}

/// There and back, sometimes on top of another file.
fn rename(w: &mut Worker) -> Result<()> {
    let (old, new) = (w.file(), w.free_name());
    if w.rng.coin() {
        open(
            w,
            &new,
            libc::O_WRONLY | libc::O_CREAT,
            Access::WRITE | Access::CREATE,
        )?;
    }
    rename_to(w, &old, &new)?;
    rename_to(w, &new, &old)
}

fn exchange(w: &mut Worker) -> Result<()> {
    let (one, other) = (w.file(), w.own_place(names::FROM));
    for _ in 0..2 {
        let (a, b) = (one.spell(&mut w.rng), other.spell(&mut w.rng));
        sys::renameat2(a.dir, a.path, b.dir, b.path, libc::RENAME_EXCHANGE)?;
        w.used(&one, Access::RENAME);
        w.used(&other, Access::RENAME);
    }
    Ok(())
}

/// The same file below a directory that changes its name: its path is another each time.
fn rename_parent(w: &mut Worker) -> Result<()> {
    let under = |parent: &[u8]| [parent, b"/", names::INSIDE].concat();
    let (parent, other) = (w.own_place(names::FROM), w.free[0].clone());
    let file = w.own_place(&under(names::FROM));
    let moved = w.own_place(&under(names::FREE[0]));
    open(w, &file, libc::O_RDONLY, Access::READ)?;
    rename_to(w, &parent, &other)?;
    open(w, &moved, libc::O_RDONLY, Access::READ)?;
    rename_to(w, &other, &parent)?;
    open(w, &file, libc::O_RDONLY, Access::READ).map(drop)
}

fn try_mkdir(w: &mut Worker, place: &Place) -> io::Result<()> {
    let at = place.spell(&mut w.rng);
    if at.classic {
        sys::mkdir(at.path, 0o755)
    } else {
        sys::mkdirat(at.dir, at.path, 0o755)
    }
}

fn mkdir(w: &mut Worker) -> Result<()> {
    let place = w.free_name();
    try_mkdir(w, &place)?;
    w.used(&place, Access::CREATE);
    let at = place.spell(&mut w.rng);
    if at.classic {
        sys::rmdir(at.path)?;
    } else {
        sys::unlinkat(at.dir, at.path, libc::AT_REMOVEDIR)?;
    }
    w.used(&place, Access::DELETE);
    Ok(())
}

fn try_mknod(w: &mut Worker, place: &Place) -> io::Result<()> {
    let kind = *w.rng.pick(&[libc::S_IFIFO, libc::S_IFREG]);
    let at = place.spell(&mut w.rng);
    if at.classic {
        sys::mknod(at.path, kind | MODE)
    } else {
        sys::mknodat(at.dir, at.path, kind | MODE)
    }
}

fn mknod(w: &mut Worker) -> Result<()> {
    let place = w.free_name();
    try_mknod(w, &place)?;
    w.used(&place, Access::CREATE);
    unlink(w, &place)
}

fn try_symlink(w: &mut Worker, place: &Place) -> io::Result<()> {
    let at = place.spell(&mut w.rng);
    if at.classic {
        sys::symlink(c"anywhere", at.path)
    } else {
        sys::symlinkat(c"anywhere", at.dir, at.path)
    }
}

fn symlink(w: &mut Worker) -> Result<()> {
    let place = w.free_name();
    try_symlink(w, &place)?;
    w.used(&place, Access::CREATE);
    unlink(w, &place)
}

fn try_link(w: &mut Worker, old: &Place, new: &Place) -> io::Result<()> {
    let (from, to) = (old.spell(&mut w.rng), new.spell(&mut w.rng));
    if from.classic && to.classic {
        sys::link(from.path, to.path)
    } else {
        sys::linkat(from.dir, from.path, to.dir, to.path)
    }
}

/// A second name of a file, which is opened by it.
fn link(w: &mut Worker) -> Result<()> {
    let (old, new) = (w.file(), w.free_name());
    try_link(w, &old, &new)?;
    w.used(&old, Access::ATTR);
    w.used(&new, Access::CREATE);
    open(w, &new, libc::O_RDONLY, Access::READ)?;
    open(w, &old, libc::O_RDONLY, Access::READ)?;
    unlink(w, &new)
}

fn truncate(w: &mut Worker) -> Result<()> {
    let place = w.file();
    sys::truncate(&place.path, 4)?;
    w.used(&place, Access::WRITE);
    Ok(())
}

fn try_chmod(w: &mut Worker, place: &Place) -> io::Result<()> {
    let at = place.spell(&mut w.rng);
    if at.classic {
        sys::chmod(at.path, MODE)
    } else {
        sys::fchmodat(at.dir, at.path, MODE)
    }
}

fn chmod(w: &mut Worker) -> Result<()> {
    let place = w.file();
    if w.rng.below(3) == 0 {
        let fd = open(w, &place, libc::O_RDONLY, Access::READ)?;
        sys::fchmod(fd.as_raw_fd(), MODE)?;
    } else {
        try_chmod(w, &place)?;
    }
    w.used(&place, Access::ATTR);
    Ok(())
}

fn try_chown(w: &mut Worker, place: &Place) -> io::Result<()> {
    let at = place.spell(&mut w.rng);
    match (at.classic, w.rng.coin()) {
        (true, true) => sys::chown(at.path, 0, 0),
        (true, false) => sys::lchown(at.path, 0, 0),
        (false, _) => sys::fchownat(at.dir, at.path, 0, 0),
    }
}

fn chown(w: &mut Worker) -> Result<()> {
    let place = w.file();
    if w.rng.below(3) == 0 {
        let fd = open(w, &place, libc::O_RDONLY, Access::READ)?;
        sys::fchown(fd.as_raw_fd(), 0, 0)?;
    } else {
        try_chown(w, &place)?;
    }
    w.used(&place, Access::ATTR);
    Ok(())
}

/// Failures for other reasons than a lack of rights.
fn fail(w: &mut Worker) -> Result<()> {
    let (file, missing) = (w.file(), w.own_place(names::MISSING));
    match w.rng.below(6) {
        0 => must_fail(try_mkdir(w, &file), libc::EEXIST),
        1 => must_fail(
            try_open(w, &file, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL),
            libc::EEXIST,
        ),
        2 => must_fail(
            try_open(w, &file, libc::O_RDONLY | libc::O_DIRECTORY),
            libc::ENOTDIR,
        ),
        3 => must_fail(try_unlink(w, &missing), libc::ENOENT),
        4 => must_fail(try_rename(w, &missing, &file), libc::ENOENT),
        _ => must_fail(try_chmod(w, &missing), libc::ENOENT),
    }
}

fn open_denied(w: &mut Worker) -> Result<()> {
    w.as_nobody(|w| {
        for _ in 0..DENIED_BURST {
            let place = w.secret();
            let (flags, access) = *w.rng.pick(&[
                (libc::O_RDONLY, Access::READ),
                (libc::O_WRONLY, Access::WRITE),
                (libc::O_WRONLY | libc::O_TRUNC, Access::WRITE),
                (
                    libc::O_RDWR,
                    Access::from_bits(Access::READ.bits() | Access::WRITE.bits()),
                ),
            ]);
            must_be_denied(try_open(w, &place, flags))?;
            w.was_denied(&place, access);
        }
        Ok(())
    })
}

fn create_denied(w: &mut Worker) -> Result<()> {
    w.as_nobody(|w| {
        for _ in 0..DENIED_BURST {
            let place = w.free_name();
            let (result, access) = match w.rng.below(4) {
                0 => (
                    try_open(w, &place, libc::O_WRONLY | libc::O_CREAT).map(drop),
                    Access::WRITE | Access::CREATE,
                ),
                1 => (try_mkdir(w, &place), Access::CREATE),
                2 => (try_mknod(w, &place), Access::CREATE),
                _ => (try_symlink(w, &place), Access::CREATE),
            };
            must_be_denied(result)?;
            w.was_denied(&place, access);
        }
        Ok(())
    })
}

fn change_denied(w: &mut Worker) -> Result<()> {
    w.as_nobody(|w| {
        for _ in 0..DENIED_BURST {
            let (file, free) = (w.file(), w.free_name());
            match w.rng.below(6) {
                0 => {
                    must_be_denied(try_rename(w, &file, &free))?;
                    w.was_denied(&file, Access::RENAME);
                    w.was_denied(&free, Access::RENAME | Access::CREATE);
                }
                1 => {
                    must_be_denied(try_link(w, &file, &free))?;
                    w.was_denied(&file, Access::ATTR);
                    w.was_denied(&free, Access::CREATE);
                }
                2 => {
                    must_be_denied(try_unlink(w, &file))?;
                    w.was_denied(&file, Access::DELETE);
                }
                3 => {
                    must_be_denied(sys::truncate(&file.path, 0))?;
                    w.was_denied(&file, Access::WRITE);
                }
                4 => {
                    must_be_denied(try_chmod(w, &file))?;
                    w.was_denied(&file, Access::ATTR);
                }
                _ => {
                    must_be_denied(try_chown(w, &file))?;
                    w.was_denied(&file, Access::ATTR);
                }
            }
        }
        Ok(())
    })
}
