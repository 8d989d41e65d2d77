//! Files of the mix, and the many ways to say the same path.

use crate::{
    layout::{c_path, shown},
    rng::Rng,
};
use ethogram_model::Name;
use std::{
    ffi::{CStr, CString, OsStr},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    rc::Rc,
};

/// A directory that a thread holds open.
pub(crate) struct Dir {
    pub(crate) fd: OwnedFd,
    pub(crate) path: PathBuf,
    /// Its path from the current directory, if it lies below that.
    pub(crate) relative: Option<PathBuf>,
}

/// A file of the mix.
pub(crate) struct Place {
    /// As a summary shows it.
    pub(crate) name: Name,
    /// Its absolute path.
    pub(crate) path: CString,
    relative: Option<CString>,
    leaf: CString,
    dir: Rc<Dir>,
}

/// One way to say where a file is.
pub(crate) struct Spelled<'a> {
    /// A directory's descriptor, or `AT_FDCWD`.
    pub(crate) dir: RawFd,
    /// Absolute, or relative to `dir`.
    pub(crate) path: &'a CStr,
    /// Whether to use the old call that knows no `dir`, where there are two.
    pub(crate) classic: bool,
}

impl Place {
    pub(crate) fn new(dir: &Rc<Dir>, leaf: &[u8]) -> Self {
        let leaf = Path::new(OsStr::from_bytes(leaf));
        let path = dir.path.join(leaf);
        Self {
            name: shown(&path),
            path: c_path(&path),
            relative: dir.relative.as_ref().map(|dir| c_path(&dir.join(leaf))),
            leaf: c_path(leaf),
            dir: Rc::clone(dir),
        }
    }

    /// Absolute, from the current directory or from a descriptor, as it comes.
    pub(crate) fn spell(&self, rng: &mut Rng) -> Spelled<'_> {
        let (dir, path) = match (rng.below(3), &self.relative) {
            (0, _) => (self.dir.fd.as_raw_fd(), &self.leaf),
            (1, Some(relative)) => (libc::AT_FDCWD, relative),
            _ => (libc::AT_FDCWD, &self.path),
        };
        Spelled {
            dir,
            path,
            classic: dir == libc::AT_FDCWD && rng.coin(),
        }
    }
}
