//! Ways to use a file, in every place where one can be.

use crate::{
    compat,
    deeds::{Cell, Record, spot},
    places::{self, Found, Place, c_path},
    sys,
    uring::{self, Ring},
};
use anyhow::{Context, Result, ensure};
use ethogram_model::{Access, Kind};
use std::{
    ffi::{CStr, CString},
    fs,
    path::Path,
};

/// A way, where it cannot be gone, and how.
struct Way {
    name: &'static str,
    is_possible: fn(Place) -> bool,
    act: fn(&mut Record, &Found) -> Result<()>,
}

const fn anywhere(name: &'static str, act: fn(&mut Record, &Found) -> Result<()>) -> Way {
    Way {
        name,
        is_possible: |_| true,
        act,
    }
}

/// By a name that can be taken away: not by what `/proc` has.
const fn by_name(name: &'static str, act: fn(&mut Record, &Found) -> Result<()>) -> Way {
    Way {
        name,
        is_possible: has_own_name,
        act,
    }
}

fn has_own_name(place: Place) -> bool {
    // A path that is too long for its row is another question than who sees it.
    !place.is_by_descriptor() && place != Place::BeyondLongest
}

const WAYS: &[Way] = &[
    anywhere("open", |record, found| {
        opened(
            record,
            found,
            Access::READ,
            sys::open(&found.path, libc::O_RDONLY),
        )
    }),
    anywhere("openat", |record, found| {
        opened(
            record,
            found,
            Access::READ,
            sys::openat(&found.path, libc::O_RDONLY),
        )
    }),
    anywhere("openat2", |record, found| {
        opened(
            record,
            found,
            Access::READ,
            sys::openat2(&found.path, libc::O_RDONLY),
        )
    }),
    anywhere("creat", |record, found| {
        opened(record, found, Access::WRITE, sys::creat(&found.path))
    }),
    anywhere("O_PATH", |record, found| {
        opened(
            record,
            found,
            Access::empty(),
            sys::openat(&found.path, libc::O_PATH),
        )
    }),
    Way {
        name: "open_by_handle_at",
        // Which of several names a handle leads to is the kernel's choice; an overlay gives
        // out handles only if it is told to; and a folder is needed to start from.
        is_possible: |place| has_own_name(place) && !place.is_overlay() && place != Place::HardLink,
        act: open_by_handle,
    },
    anywhere("io_uring open", |record, found| {
        by_ring(record, found, |ring| {
            ring.openat(&found.path, libc::O_RDONLY)
        })
    }),
    anywhere("io_uring openat2", |record, found| {
        by_ring(record, found, |ring| {
            ring.openat2(&found.path, libc::O_RDONLY)
        })
    }),
    by_name("io_uring unlink", |record, found| {
        ring(record)?.unlinkat(&found.path)?;
        record.did_unseen(Kind::File, found.name.clone(), &[spot::IO_URING], |row| {
            row.access = Access::DELETE;
        });
        Ok(())
    }),
    by_name("io_uring rename", |record, found| {
        let renamed = sibling(&found.path);
        ring(record)?.renameat(&found.path, &renamed)?;
        let new_name = sibling_name(found.name.as_str());
        for (name, access) in [
            (found.name.as_str(), Access::RENAME),
            (&new_name, Access::RENAME | Access::CREATE),
        ] {
            record.did_unseen(Kind::File, name, &[spot::IO_URING], |row| {
                row.access = access;
            });
        }
        Ok(())
    }),
    anywhere("mapped as code", |record, found| {
        let file = sys::openat(&found.path, libc::O_RDONLY)?;
        sys::map_as_code(&file)?;
        opened(record, found, Access::READ, Ok(file))
    }),
    anywhere("dlopen", |record, found| {
        sys::dlopen(&found.path)?;
        record.used(found.name.clone(), Access::READ | found.marks);
        Ok(())
    }),
    anywhere("32-bit open", |record, found| {
        compat::open(&found.path)?;
        record.used(found.name.clone(), Access::READ | found.marks);
        Ok(())
    }),
    by_name("unlink", |record, found| {
        fs::remove_file(os_path(&found.path))?;
        named(
            record,
            found.asked.as_str(),
            found.name.as_str(),
            Access::DELETE,
        );
        Ok(())
    }),
    by_name("rename", |record, found| {
        fs::rename(os_path(&found.path), os_path(&sibling(&found.path)))?;
        let (asked, true_name) = (found.asked.as_str(), found.name.as_str());
        named(record, asked, true_name, Access::RENAME);
        named(
            record,
            &sibling_name(asked),
            &sibling_name(true_name),
            Access::RENAME | Access::CREATE,
        );
        Ok(())
    }),
];

pub(crate) fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for way in WAYS {
        for &place in Place::ALL {
            if !(way.is_possible)(place) {
                continue;
            }
            cells.push(Cell::new(
                way.name,
                place.as_str(),
                move |folder| places::set_up(place, folder, &sys::a_library()?),
                move |record| {
                    let found = places::enter(place, record)?;
                    (way.act)(record, &found).with_context(|| format!("{:?}", found.path))
                },
            ));
        }
    }
    cells.extend(refusals());
    cells
}

fn os_path(path: &CStr) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()))
}

/// Another name of the same length in the same folder.
fn sibling(path: &CStr) -> CString {
    c_path(Path::new(&sibling_name(&path.to_string_lossy())))
}

fn sibling_name(path: &str) -> String {
    let mut name = path.to_owned();
    name.pop();
    name + "x"
}

fn opened(
    record: &mut Record,
    found: &Found,
    access: Access,
    file: std::io::Result<std::os::fd::OwnedFd>,
) -> Result<()> {
    drop(file?);
    record.used(found.name.clone(), access | found.marks);
    Ok(())
}

/// Records a change of a name, which some hooks see as it was asked for.
fn named(record: &mut Record, asked: &str, true_name: &str, access: Access) {
    if asked == true_name {
        record.used(true_name, access);
        return;
    }
    record.did_unseen(Kind::File, true_name, &[spot::REQUESTED_PATHS], |row| {
        row.access = access;
    });
    record.shown_instead(asked, &[spot::REQUESTED_PATHS], |row| row.access = access);
}

fn open_by_handle(record: &mut Record, found: &Found) -> Result<()> {
    // The working directory says which mount the handle is of.
    let folder = os_path(&found.path)
        .parent()
        .context("a file is in a folder")?;
    std::env::set_current_dir(folder)?;
    let leaf = os_path(&found.path)
        .file_name()
        .context("a file has a name")?;
    let file = sys::open_by_handle(&c_path(Path::new(leaf)));
    opened(record, found, Access::READ, file)
}

fn ring(record: &mut Record) -> Result<Ring> {
    let ring = uring::Ring::new()?;
    record.called("io_uring_setup");
    Ok(ring)
}

fn by_ring(
    record: &mut Record,
    found: &Found,
    open: impl FnOnce(&mut Ring) -> std::io::Result<std::os::fd::OwnedFd>,
) -> Result<()> {
    drop(open(&mut ring(record)?)?);
    record.did_unseen(Kind::File, found.name.clone(), &[spot::IO_URING], |row| {
        row.access = Access::READ | found.marks;
    });
    Ok(())
}

/// Opens that are refused, by whom and how.
fn refusals() -> Vec<Cell> {
    let refused = |what: &str, place: Place, act: fn(&mut Record, &Found) -> Result<()>| {
        Cell::new(
            what,
            place.as_str(),
            move |folder| {
                places::set_up(place, folder, b"secret")?;
                sys::forbid(&folder.join("real/file"))
            },
            move |record| {
                let found = places::enter(place, record)?;
                act(record, &found)
            },
        )
    };
    let mut cells = Vec::new();
    for place in [Place::Plain, Place::Symlink] {
        cells.push(refused(
            "openat, refused by mode",
            place,
            |record, found| {
                as_nobody(record)?;
                must_be_refused(sys::openat(&found.path, libc::O_RDONLY))?;
                refused_at(record, found, &[]);
                Ok(())
            },
        ));
        cells.push(refused(
            "io_uring open, refused by mode",
            place,
            |record, found| {
                let mut ring = ring(record)?;
                as_nobody(record)?;
                must_be_refused(ring.openat(&found.path, libc::O_RDONLY))?;
                refused_at(record, found, &[spot::IO_URING]);
                Ok(())
            },
        ));
        cells.push(refused(
            "openat, refused by seccomp",
            place,
            |record, found| {
                sys::refuse_by_seccomp(libc::SYS_openat)?;
                must_be_refused(sys::openat(&found.path, libc::O_RDONLY))?;
                refused_at(record, found, &[]);
                Ok(())
            },
        ));
    }
    cells
}

fn as_nobody(record: &mut Record) -> Result<()> {
    const NOBODY: u32 = 65534;
    sys::set_fs_user(NOBODY);
    record.called("setfsuid");
    Ok(())
}

fn must_be_refused(outcome: std::io::Result<std::os::fd::OwnedFd>) -> Result<()> {
    let error = outcome.err().and_then(|error| error.raw_os_error());
    ensure!(
        matches!(error, Some(libc::EACCES | libc::EPERM)),
        "it was not refused: {error:?}"
    );
    Ok(())
}

/// Records a refusal, whose name is the one that was asked for.
fn refused_at(record: &mut Record, found: &Found, hidden_by: &[&'static str]) {
    if found.asked == found.name {
        record.denied(found.name.clone(), Access::READ, hidden_by);
        return;
    }
    const BY_REQUEST: [&str; 2] = [spot::REQUESTED_PATHS, spot::REQUESTED_REFUSALS];
    record.denied(
        found.name.clone(),
        Access::READ,
        &[&BY_REQUEST, hidden_by].concat(),
    );
    // Where it is hidden altogether, it is not shown under another name either.
    let shown_by: &[&'static str] = if hidden_by.is_empty() {
        &BY_REQUEST
    } else {
        &[spot::REQUESTED_REFUSALS]
    };
    record.shown_instead(found.asked.clone(), shown_by, |row| {
        (row.access, row.status) = (Access::READ, ethogram_model::Status::Deny);
    });
}
