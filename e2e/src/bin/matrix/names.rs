//! Names that change: in each scenario the same few files come and go under ever other
//! names, and every one of thousands of opens must be counted under the name that was true
//! at its time. (The identity of a file is a hash in the kernel: see `bpf/path.h`.)

use crate::{
    deeds::{Cell, Record, name},
    places::c_path,
    sys,
};
use anyhow::Result;
use ethogram_model::{Access, Kind};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// How often the names change in a scenario.
const ROUNDS: usize = 100;
/// Files that are used again after the kernel has forgotten them.
const CACHED_FILES: usize = 500;
/// Mounts are slower.
const MOUNT_ROUNDS: usize = 40;

pub(crate) fn cells() -> Vec<Cell> {
    let cell =
        |place: &str, set_up: fn(&Path) -> Result<()>, act: fn(&mut Record) -> Result<()>| {
            Cell::new("names", place, set_up, act)
        };
    vec![
        cell("file renamed", one_file, |r| {
            for round in 0..ROUNDS {
                let (old, new) = (
                    r.path(&format!("a/{round}")),
                    r.path(&format!("a/{}", round + 1)),
                );
                read(r, &old)?;
                rename(r, &old, &new)?;
                read(r, &new)?;
            }
            Ok(())
        }),
        cell("folder above renamed", one_file, |r| {
            for round in 0..ROUNDS {
                let (old, new) = if round == 0 {
                    (r.path("a"), r.path("n1"))
                } else {
                    (
                        r.path(&format!("n{round}")),
                        r.path(&format!("n{}", round + 1)),
                    )
                };
                read(r, &old.join("0"))?;
                rename(r, &old, &new)?;
                read(r, &new.join("0"))?;
            }
            Ok(())
        }),
        cell("hard links", hard_links, |r| {
            for round in 0..ROUNDS {
                read(r, &r.path(&format!("a/link{round}")))?;
                read(r, &r.path("a/0"))?;
            }
            Ok(())
        }),
        cell("bind mounts come and go", mounted_over, |r| {
            for round in 0..MOUNT_ROUNDS {
                let (from, to) = (r.path(["a", "b"][round % 2]), r.path("point"));
                sys::bind_mount(&from, &to)?;
                r.called("mount");
                read(r, &to.join("0"))?;
                read(r, &from.join("0"))?;
                unmount(r, &to)?;
            }
            Ok(())
        }),
        cell("overlay: copied up and renamed", overlaid, |r| {
            for round in 0..ROUNDS {
                let (old, new) = (
                    r.path(&format!("merged/{round}")),
                    r.path(&format!("merged/new{round}")),
                );
                read(r, &old)?;
                drop(fs::OpenOptions::new().append(true).open(&old)?);
                r.used(name(&old), Access::WRITE);
                read(r, &old)?;
                rename(r, &old, &new)?;
                read(r, &new)?;
            }
            Ok(())
        }),
        cell("deleted and made again", one_file, |r| {
            for _ in 0..ROUNDS {
                made(r, &r.path("a/again"))?;
                read(r, &r.path("a/again"))?;
                unlink(r, &r.path("a/again"))?;
            }
            Ok(())
        }),
        cell("made and deleted in many folders", one_file, |r| {
            for round in 0..ROUNDS {
                let folder = r.path(&format!("a/folder{}", round % 7));
                fs::create_dir(&folder)?;
                r.used(name(&folder), Access::CREATE);
                for file in ["x", "y", "z"] {
                    made(r, &folder.join(file))?;
                }
                for file in ["z", "x", "y"] {
                    unlink(r, &folder.join(file))?;
                }
                fs::remove_dir(&folder)?;
                r.used(name(&folder), Access::DELETE);
            }
            Ok(())
        }),
        Cell {
            machine_wide: true,
            ..cell("forgotten by the kernel", many_files, |r| {
                for _ in 0..3 {
                    for file in 0..CACHED_FILES {
                        read(r, &r.path(&format!("a/{file}")))?;
                    }
                    fs::write("/proc/sys/vm/drop_caches", "2")?;
                    r.used("/proc/sys/vm/drop_caches", Access::WRITE);
                }
                Ok(())
            })
        },
        cell("file systems come and go", mounted_over, |r| {
            for round in 0..MOUNT_ROUNDS {
                let point = r.path(["a", "b"][round % 2]);
                sys::mount_tmpfs(&point)?;
                r.called("mount");
                made(r, &point.join("inside"))?;
                read(r, &point.join("inside"))?;
                unmount(r, &point)?;
                read(r, &point.join("0"))?;
            }
            Ok(())
        }),
        cell("folder above a mount renamed", mounted_below, |r| {
            let mut old = r.path("above");
            for round in 0..ROUNDS {
                let new = r.path(&format!("above{round}"));
                read(r, &old.join("point/0"))?;
                rename(r, &old, &new)?;
                read(r, &new.join("point/0"))?;
                old = new;
            }
            Ok(())
        }),
        cell("roots within roots", roots, |r| {
            let mut below = r.path("a");
            read(r, &below.join("0"))?;
            for _ in 0..5 {
                std::os::unix::fs::chroot(&below)?;
                r.called("chroot");
                std::env::set_current_dir("/")?;
                read(r, Path::new("/0"))?;
                below = PathBuf::from("/d");
            }
            Ok(())
        }),
        cell("folders exchanged", two_folders, |r| {
            let (a, b) = (r.path("a"), r.path("b"));
            for _ in 0..ROUNDS {
                read(r, &a.join("0"))?;
                sys::exchange(&c_path(&a), &c_path(&b))?;
                r.used(name(&a), Access::RENAME);
                r.used(name(&b), Access::RENAME);
                read(r, &b.join("0"))?;
            }
            Ok(())
        }),
        cell("mount namespaces come and go", mounted_over, |r| {
            for round in 0..MOUNT_ROUNDS {
                let (from, to) = (r.path(["a", "b"][round % 2]), r.path("point"));
                let status = sys::fork_and_wait(|| {
                    let outcome = sys::unshare(libc::CLONE_NEWNS)
                        .and_then(|()| sys::bind_mount(&from, &to))
                        .and_then(|()| fs::File::open(to.join("0")));
                    std::process::exit(i32::from(outcome.is_err()));
                })?;
                anyhow::ensure!(status == 0, "a child could not do its part");
                r.called("unshare");
                r.called("mount");
                r.used(name(&to.join("0")), Access::READ);
            }
            Ok(())
        }),
        cell("renamed while others open", two_folders, under_load),
    ]
}

fn read(r: &mut Record, path: &Path) -> Result<()> {
    drop(fs::File::open(path)?);
    r.used(name(path), Access::READ);
    Ok(())
}

fn made(r: &mut Record, path: &Path) -> Result<()> {
    drop(fs::File::create_new(path)?);
    r.used(name(path), Access::READ | Access::WRITE | Access::CREATE);
    Ok(())
}

fn unlink(r: &mut Record, path: &Path) -> Result<()> {
    fs::remove_file(path)?;
    r.used(name(path), Access::DELETE);
    Ok(())
}

fn rename(r: &mut Record, old: &Path, new: &Path) -> Result<()> {
    fs::rename(old, new)?;
    r.used(name(old), Access::RENAME);
    r.used(name(new), Access::RENAME | Access::CREATE);
    Ok(())
}

fn unmount(r: &mut Record, path: &Path) -> Result<()> {
    sys::unmount(&c_path(path))?;
    r.did(Kind::Syscall, "umount2", |_| ());
    Ok(())
}

/// One thread renames a folder back and forth and opens the file in it under each name,
/// while another opens a file elsewhere without pause.
fn under_load(r: &mut Record) -> Result<()> {
    let (a, still) = (r.path("a"), r.path("b/0"));
    let ready = AtomicBool::new(false);
    let others = std::thread::scope(|scope| -> Result<usize> {
        let opener = scope.spawn(|| -> Result<usize> {
            let mut opened = 0;
            while !ready.load(Ordering::Acquire) || opened < ROUNDS {
                drop(fs::File::open(&still)?);
                opened += 1;
            }
            Ok(opened)
        });
        let moved = r.path("moved");
        for round in 0..5 * ROUNDS {
            let (old, new) = if round % 2 == 0 {
                (&a, &moved)
            } else {
                (&moved, &a)
            };
            read(r, &old.join("0"))?;
            rename(r, old, new)?;
            read(r, &new.join("0"))?;
        }
        ready.store(true, Ordering::Release);
        opener.join().expect("it does not panic")
    })?;
    for _ in 0..others {
        r.used(name(&still), Access::READ);
    }
    Ok(())
}

// ---- what is there at first ----

fn file_in(folder: &Path, below: &str) -> Result<()> {
    fs::create_dir_all(folder.join(below))?;
    Ok(fs::write(folder.join(below).join("0"), "content")?)
}

fn one_file(folder: &Path) -> Result<()> {
    file_in(folder, "a")
}

fn two_folders(folder: &Path) -> Result<()> {
    file_in(folder, "a")?;
    file_in(folder, "b")
}

fn many_files(folder: &Path) -> Result<()> {
    one_file(folder)?;
    (1..CACHED_FILES).try_for_each(|file| Ok(fs::write(folder.join(format!("a/{file}")), "")?))
}

fn hard_links(folder: &Path) -> Result<()> {
    one_file(folder)?;
    let link = |round| fs::hard_link(folder.join("a/0"), folder.join(format!("a/link{round}")));
    Ok((0..ROUNDS).try_for_each(link)?)
}

fn mounted_over(folder: &Path) -> Result<()> {
    two_folders(folder)?;
    Ok(fs::create_dir(folder.join("point"))?)
}

fn mounted_below(folder: &Path) -> Result<()> {
    one_file(folder)?;
    fs::create_dir_all(folder.join("above/point"))?;
    Ok(sys::bind_mount(
        &folder.join("a"),
        &folder.join("above/point"),
    )?)
}

fn overlaid(folder: &Path) -> Result<()> {
    for layer in ["lower", "upper", "work", "merged"] {
        fs::create_dir(folder.join(layer))?;
    }
    let put = |round| fs::write(folder.join(format!("lower/{round}")), "content");
    (0..ROUNDS).try_for_each(put)?;
    Ok(sys::overlay(folder)?)
}

fn roots(folder: &Path) -> Result<()> {
    ["a", "a/d", "a/d/d", "a/d/d/d", "a/d/d/d/d"]
        .iter()
        .try_for_each(|below| file_in(folder, below))
}
