//! Where a file can be: each place makes one in the cell's folder, and leads to it by a path
//! whose true name is known.

use crate::{
    deeds::{Lacking, Record, name},
    sys,
};
use anyhow::{Context, Result};
use ethogram_model::{Access, Kind, Name};
use std::{
    ffi::CString,
    fs,
    os::{
        fd::{AsRawFd, IntoRawFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Plain,
    Symlink,
    HardLink,
    BindMount,
    OverlayLower,
    OverlayCopiedUp,
    RenamedParent,
    Deleted,
    Memfd,
    ProcSelfFd,
    LongestPath,
    BeyondLongest,
    Chroot,
    PivotRoot,
    UnshareMounts,
    NestedNamespace,
}

impl Place {
    pub(crate) const ALL: &[Self] = &[
        Self::Plain,
        Self::Symlink,
        Self::HardLink,
        Self::BindMount,
        Self::OverlayLower,
        Self::OverlayCopiedUp,
        Self::RenamedParent,
        Self::Deleted,
        Self::Memfd,
        Self::ProcSelfFd,
        Self::LongestPath,
        Self::BeyondLongest,
        Self::Chroot,
        Self::PivotRoot,
        Self::UnshareMounts,
        Self::NestedNamespace,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Symlink => "symbolic link",
            Self::HardLink => "hard link",
            Self::BindMount => "bind mount",
            Self::OverlayLower => "overlay, lower layer",
            Self::OverlayCopiedUp => "overlay, copied up",
            Self::RenamedParent => "parent renamed",
            Self::Deleted => "deleted",
            Self::Memfd => "memfd",
            Self::ProcSelfFd => "/proc/self/fd",
            Self::LongestPath => "path of 4,095 bytes",
            Self::BeyondLongest => "longer path",
            Self::Chroot => "chroot",
            Self::PivotRoot => "pivot_root",
            Self::UnshareMounts => "unshare -m",
            Self::NestedNamespace => "container in a container",
        }
    }

    /// Whether the path is a link of `/proc` to an open file.
    pub(crate) const fn is_by_descriptor(self) -> bool {
        matches!(self, Self::Deleted | Self::Memfd | Self::ProcSelfFd)
    }

    pub(crate) const fn is_overlay(self) -> bool {
        matches!(self, Self::OverlayLower | Self::OverlayCopiedUp)
    }
}

/// The file, its path for the caller, and what must be seen.
pub(crate) struct Found {
    /// To be used for the call; may be relative.
    pub(crate) path: CString,
    /// The file's true name.
    pub(crate) name: Name,
    /// What is asked for, made absolute: differs where a link is on the way.
    pub(crate) asked: Name,
    /// What the name is marked with.
    pub(crate) marks: Access,
}

impl Found {
    fn at(path: &Path) -> Self {
        Self {
            path: c_path(path),
            name: name(path),
            asked: name(path),
            marks: Access::empty(),
        }
    }
}

pub(crate) fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("the paths here have no NUL")
}

const FILE: &str = "file";
/// Bytes of the longest path that can be named in a call, without its NUL.
const PATH_BYTES_MAX: usize = 4095;
/// Bytes of a component of long paths.
const COMPONENT_BYTES: usize = 200;

/// A path below a folder that is exactly as long as it may be.
fn longest(folder: &Path) -> PathBuf {
    let mut path = folder.join("long");
    loop {
        let room = PATH_BYTES_MAX - path.as_os_str().len() - 1;
        if room <= COMPONENT_BYTES {
            return path.join("f".repeat(room));
        }
        // What is left must have room for a slash and a name.
        let bytes = COMPONENT_BYTES.min(room - 2);
        path.push("d".repeat(bytes));
    }
}

/// Makes the file with this content.
pub(crate) fn set_up(place: Place, folder: &Path, content: &[u8]) -> Result<()> {
    let put = |below: &str| -> Result<()> {
        let path = folder.join(below);
        fs::create_dir_all(path.parent().expect("it is below a folder"))?;
        Ok(fs::write(path, content)?)
    };
    match place {
        Place::Plain | Place::Deleted | Place::ProcSelfFd => put("real/file"),
        Place::Memfd => put("content"),
        Place::Symlink => {
            put("real/file")?;
            Ok(std::os::unix::fs::symlink("real", folder.join("link"))?)
        }
        Place::HardLink => {
            put("real/file")?;
            Ok(fs::hard_link(
                folder.join("real/file"),
                folder.join("real/second"),
            )?)
        }
        Place::BindMount => {
            put("real/file")?;
            fs::create_dir(folder.join("bound"))?;
            Ok(sys::bind_mount(
                &folder.join("real"),
                &folder.join("bound"),
            )?)
        }
        Place::OverlayLower | Place::OverlayCopiedUp => {
            put("lower/file")?;
            overlay(folder)
        }
        Place::RenamedParent => put("old/file"),
        Place::LongestPath => {
            let path = longest(folder);
            fs::create_dir_all(path.parent().expect("it is below a folder"))?;
            Ok(fs::write(path, content)?)
        }
        Place::BeyondLongest => {
            fs::create_dir_all(folder.join(beyond_base()))?;
            let child = || -> Result<()> {
                std::env::set_current_dir(folder.join(beyond_base()))?;
                fs::create_dir_all(Path::new(&beyond_rest()).parent().expect("it has many"))?;
                Ok(fs::write(beyond_rest(), content)?)
            };
            let outcome = child();
            std::env::set_current_dir("/")?;
            outcome
        }
        Place::Chroot | Place::PivotRoot => put("root/real/file"),
        Place::NestedNamespace => put("root/inner/real/file"),
        Place::UnshareMounts => {
            put("real/file")?;
            Ok(fs::create_dir(folder.join("bound"))?)
        }
    }
}

fn overlay(folder: &Path) -> Result<()> {
    for layer in ["upper", "work", "merged"] {
        fs::create_dir(folder.join(layer))?;
    }
    sys::overlay(folder).map_err(|error| match error.raw_os_error() {
        Some(libc::ENODEV) => Lacking("overlayfs".into()).into(),
        _ => anyhow::Error::from(error).context("cannot mount an overlay"),
    })
}

fn beyond_base() -> String {
    vec!["b".repeat(COMPONENT_BYTES); 12].join("/")
}

fn beyond_rest() -> String {
    format!("{}/{FILE}", vec!["r".repeat(COMPONENT_BYTES); 12].join("/"))
}

/// The end of a path that is kept of one that is too long.
fn cut(path: &Path) -> PathBuf {
    const KEPT_BYTES_MAX: usize = 4096;
    let mut kept = PathBuf::new();
    for component in path.components().rev() {
        let longer = Path::new(component.as_os_str()).join(&kept);
        if longer.as_os_str().len() + 1 > KEPT_BYTES_MAX {
            break;
        }
        kept = longer;
    }
    // Joining with an empty path leaves a slash at the end.
    let kept = kept.to_string_lossy().trim_end_matches('/').to_owned();
    Path::new("/").join(kept)
}

/// Goes where the file is, and says what is done on the way.
pub(crate) fn enter(place: Place, record: &mut Record) -> Result<Found> {
    let plain = record.path("real/file");
    Ok(match place {
        Place::Plain => Found::at(&plain),
        Place::Symlink => Found {
            asked: name(&record.path("link/file")),
            path: c_path(&record.path("link/file")),
            ..Found::at(&plain)
        },
        Place::HardLink => Found::at(&record.path("real/second")),
        Place::BindMount => Found::at(&record.path("bound/file")),
        Place::OverlayLower => Found::at(&record.path("merged/file")),
        Place::OverlayCopiedUp => {
            let path = record.path("merged/file");
            drop(fs::File::open(&path)?);
            record.used(name(&path), Access::READ);
            drop(fs::OpenOptions::new().append(true).open(&path)?);
            record.used(name(&path), Access::WRITE);
            Found::at(&path)
        }
        Place::RenamedParent => {
            let (old, new) = (record.path("old"), record.path("new"));
            drop(fs::File::open(old.join(FILE))?);
            record.used(name(&old.join(FILE)), Access::READ);
            fs::rename(&old, &new)?;
            record.used(name(&old), Access::RENAME);
            record.used(name(&new), Access::RENAME | Access::CREATE);
            Found::at(&new.join(FILE))
        }
        Place::Deleted => {
            // Not as any of the cells does it: rows that differ in a mark only are shown as one.
            let file = fs::OpenOptions::new().read(true).write(true).open(&plain)?;
            record.used(name(&plain), Access::READ | Access::WRITE);
            fs::remove_file(&plain)?;
            record.used(name(&plain), Access::DELETE);
            Found {
                marks: Access::DELETED,
                ..by_descriptor(file, name(&plain))
            }
        }
        Place::Memfd => {
            let content = fs::read(record.path("content"))?;
            record.used(name(&record.path("content")), Access::READ);
            let file = sys::memfd(c"data", &content)?;
            record.called("memfd_create");
            Found {
                marks: Access::DELETED,
                ..by_descriptor(file, "/memfd:data".into())
            }
        }
        Place::ProcSelfFd => {
            let file = fs::File::open(&plain)?;
            record.used(name(&plain), Access::READ);
            by_descriptor(file, name(&plain))
        }
        Place::LongestPath => Found::at(&longest(&record.folder)),
        Place::BeyondLongest => {
            std::env::set_current_dir(record.path(&beyond_base()))?;
            let whole = record.path(&beyond_base()).join(beyond_rest());
            Found {
                path: c_path(Path::new(&beyond_rest())),
                ..Found::at(&cut(&whole))
            }
        }
        Place::Chroot => {
            std::os::unix::fs::chroot(record.path("root"))?;
            record.called("chroot");
            std::env::set_current_dir("/")?;
            Found::at(Path::new("/real/file"))
        }
        Place::PivotRoot => {
            own_root(record, &record.path("root"))?;
            Found::at(Path::new("/real/file"))
        }
        Place::UnshareMounts => {
            own_mounts(record)?;
            sys::bind_mount(&record.path("real"), &record.path("bound"))?;
            record.called("mount");
            Found::at(&record.path("bound/file"))
        }
        Place::NestedNamespace => {
            own_root(record, &record.path("root"))?;
            own_root(record, Path::new("/inner"))?;
            Found::at(Path::new("/real/file"))
        }
    })
}

fn by_descriptor(file: fs::File, name: Name) -> Found {
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    // It stays open for as long as the process lives.
    let _ = file.into_raw_fd();
    Found {
        name,
        ..Found::at(&path)
    }
}

fn own_mounts(record: &mut Record) -> Result<()> {
    sys::unshare(libc::CLONE_NEWNS)?;
    record.called("unshare");
    sys::private_mounts()?;
    record.called("mount");
    Ok(())
}

/// What a container's runtime does: mounts of its own, and a root of its own.
fn own_root(record: &mut Record, root: &Path) -> Result<()> {
    own_mounts(record)?;
    sys::bind_mount(root, root)?;
    record.called("mount");
    std::env::set_current_dir(root)?;
    sys::pivot_here().context("cannot change the root")?;
    record.did(Kind::Syscall, "pivot_root", |_| ());
    record.did(Kind::Syscall, "umount2", |_| ());
    std::env::set_current_dir("/")?;
    Ok(())
}
