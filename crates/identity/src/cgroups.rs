//! Which cgroup hierarchies a host has, and which cgroups are in them.
//!
//! A cgroup is known by the kernel's id of it, which is the inode number of its
//! directory. Each hierarchy counts its ids by itself, so the top byte of an id says
//! which hierarchy it is of ([`Hierarchy::tagged`]).
//!
//! **What can be seen.** Paths are told as the kernel tells them: below the root of the
//! hierarchy. Where only a part of a hierarchy is mounted (an agent in a container with a
//! cgroup namespace of its own and without the host's `/sys/fs/cgroup`), the ids are still
//! right, but other containers' cgroups are missing and paths begin at that part.
//! [`Mount::is_whole`] says so; the remedy is to run with the host's cgroup namespace or
//! to mount the host's `/sys/fs/cgroup` into the container, which is preferred when
//! both are there.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    os::unix::fs::{DirEntryExt, MetadataExt},
    path::{Path, PathBuf},
};

/// How many cgroups one scan of one hierarchy reads at most. A node of 500 pods has about
/// 5,000; beyond the bound [`Scan::truncated`] is set.
pub const SCANNED_CGROUPS_MAX: usize = 262_144;

/// The id of the root directory of every cgroup hierarchy.
pub const ROOT_ID: u64 = 1;

/// A hierarchy whose cgroups can stand for a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Hierarchy {
    /// The v2 hierarchy.
    V2 = 0,
    /// The v1 hierarchy of the memory controller.
    Memory = 1,
    /// The v1 hierarchy of the pids controller.
    Pids = 2,
}

impl Hierarchy {
    const TAG_SHIFT: u32 = 56;

    /// An id of this hierarchy with the tag that tells it from ids of the others.
    #[must_use]
    pub const fn tagged(self, id: u64) -> u64 {
        ((self as u64) << Self::TAG_SHIFT) | (id & ((1 << Self::TAG_SHIFT) - 1))
    }

    /// The hierarchy a tagged id is of; `None` for a tag this version does not know.
    #[must_use]
    pub const fn of(tagged: u64) -> Option<Self> {
        match tagged >> Self::TAG_SHIFT {
            0 => Some(Self::V2),
            1 => Some(Self::Memory),
            2 => Some(Self::Pids),
            _ => None,
        }
    }
}

/// Where a hierarchy is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Which hierarchy.
    pub hierarchy: Hierarchy,
    /// The mount point.
    pub at: PathBuf,
    /// The cgroup that is mounted there, as this process may name it: `/` for the root of
    /// its cgroup namespace, `/../..` for one above it.
    pub root: Vec<u8>,
    /// The device number of the hierarchy, as `major:minor`.
    device: Vec<u8>,
}

impl Mount {
    /// A mount of the whole of a hierarchy.
    ///
    /// # Errors
    /// When the mount point cannot be looked at.
    pub fn whole(hierarchy: Hierarchy, at: PathBuf) -> io::Result<Self> {
        Ok(Self {
            hierarchy,
            device: device_at(&at)?,
            at,
            root: b"/".to_vec(),
        })
    }

    /// Whether what is seen at the mount point is this mount, and not one that lies over it.
    fn is_visible(&self) -> bool {
        device_at(&self.at).is_ok_and(|device| device == self.device)
    }

    /// Whether the whole hierarchy can be seen here, and not only a part of it.
    ///
    /// # Errors
    /// When the mount point cannot be looked at.
    pub fn is_whole(&self) -> io::Result<bool> {
        Ok(fs::metadata(&self.at)?.ino() == ROOT_ID)
    }

    /// The path of the mounted cgroup below the hierarchy's root, as far as it can be
    /// known: what lies above a cgroup namespace has no name inside it.
    fn prefix(&self) -> &[u8] {
        if is_above_namespace(&self.root) || self.root == b"/" {
            b""
        } else {
            &self.root
        }
    }
}

/// How a host's cgroups are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One v2 hierarchy with all controllers.
    V2,
    /// v1 hierarchies, and a v2 hierarchy beside them.
    Hybrid,
    /// v1 hierarchies only.
    V1,
    /// No hierarchy is mounted where this process can see it.
    None,
}

impl Mode {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
            Self::V1 => "v1",
            Self::None => "none",
        }
    }
}

/// The hierarchies of this host, at most one mount of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// The mounts, v2 first.
    pub mounts: Vec<Mount>,
}

impl Hierarchies {
    /// Finds the hierarchies that this process can see.
    ///
    /// # Errors
    /// When `/proc/self/mountinfo` cannot be read.
    pub fn of_this_host() -> io::Result<Self> {
        let text = fs::read("/proc/self/mountinfo")?;
        Ok(Self::from_mountinfo(&text, Mount::is_visible))
    }

    /// Finds the hierarchies in the text of a `mountinfo` file (proc(5)). Lines that are
    /// not understood are not cgroup mounts and are passed over, as are mounts that are
    /// not `visible`.
    pub fn from_mountinfo(text: &[u8], visible: impl Fn(&Mount) -> bool) -> Self {
        let mut mounts: Vec<Mount> = Vec::new();
        let found = text.split(|&b| b == b'\n').filter_map(parse_mount);
        for found in found.filter(visible) {
            match mounts.iter_mut().find(|m| m.hierarchy == found.hierarchy) {
                Some(known) if view_rank(&known.root) >= view_rank(&found.root) => {}
                Some(known) => *known = found,
                None => mounts.push(found),
            }
        }
        mounts.sort_by_key(|m| m.hierarchy);
        Self { mounts }
    }

    /// How the host's cgroups are set up.
    #[must_use]
    pub fn mode(&self) -> Mode {
        let v2 = self.mounts.iter().any(|m| m.hierarchy == Hierarchy::V2);
        let v1 = self.mounts.iter().any(|m| m.hierarchy != Hierarchy::V2);
        match (v2, v1) {
            (true, false) => Mode::V2,
            (true, true) => Mode::Hybrid,
            (false, true) => Mode::V1,
            (false, false) => Mode::None,
        }
    }

    /// The hierarchy whose ids tell containers apart best: v2, or else memory, or else pids.
    #[must_use]
    pub fn best(&self) -> Option<Hierarchy> {
        self.mounts.iter().map(|mount| mount.hierarchy).min()
    }

    /// Reads every cgroup of every hierarchy, parents before their children. Cgroups that
    /// go away meanwhile are left out.
    #[must_use]
    pub fn scan(&self) -> Scan {
        let mut scan = Scan::default();
        for mount in &self.mounts {
            scan_mount(mount, &mut scan);
        }
        scan
    }
}

/// A cgroup that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its id, tagged with its hierarchy.
    pub id: u64,
    /// Its path below its hierarchy's root; `/` for the root itself.
    pub path: Vec<u8>,
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The cgroups, parents before their children.
    pub cgroups: Vec<Cgroup>,
    /// Directories that could not be read, with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Whether [`SCANNED_CGROUPS_MAX`] was reached and cgroups were left out.
    pub truncated: bool,
}

/// How much can be seen from a mounted root: above the own cgroup namespace is more than
/// the namespace, and that is more than a part of it.
fn view_rank(root: &[u8]) -> usize {
    if is_above_namespace(root) {
        1 + root.len()
    } else {
        usize::from(root == b"/")
    }
}

fn is_above_namespace(root: &[u8]) -> bool {
    root.starts_with(b"/..") && root[1..].split(|&b| b == b'/').all(|part| part == b"..")
}

/// One line of mountinfo: `id parent dev root mount-point options [tags...] - type source super-options`.
fn parse_mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let device = fields.nth(2)?.to_vec();
    let root = unescape_octal(fields.next()?);
    let at = unescape_octal(fields.next()?);
    let mut fields = fields.skip_while(|field| field != b"-").skip(1);
    let kind = fields.next()?;
    let options = fields.nth(1)?;
    let has = |controller: &[u8]| options.split(|&b| b == b',').any(|o| o == controller);
    let hierarchy = match kind {
        b"cgroup2" => Hierarchy::V2,
        b"cgroup" if has(b"memory") => Hierarchy::Memory,
        b"cgroup" if has(b"pids") => Hierarchy::Pids,
        _ => return None,
    };
    Some(Mount {
        hierarchy,
        at: PathBuf::from(OsString::from_vec(at)),
        root,
        device,
    })
}

fn device_at(path: &Path) -> io::Result<Vec<u8>> {
    let device = fs::metadata(path)?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    Ok(format!("{major}:{minor}").into_bytes())
}

/// Undoes the `\040` escapes that the kernel puts for white space and backslashes.
fn unescape_octal(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let code = digits
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        plain.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    plain
}

fn scan_mount(mount: &Mount, scan: &mut Scan) {
    let root = match fs::metadata(&mount.at) {
        Ok(metadata) => metadata.ino(),
        Err(error) => {
            scan.unreadable.push((mount.at.clone(), error.to_string()));
            return;
        }
    };
    let prefix = mount.prefix();
    scan.cgroups.push(Cgroup {
        id: mount.hierarchy.tagged(root),
        path: if prefix.is_empty() {
            b"/".to_vec()
        } else {
            prefix.to_vec()
        },
    });
    let mut left = SCANNED_CGROUPS_MAX;
    let mut folders = vec![(mount.at.clone(), prefix.to_vec())];
    while let Some((folder, path)) = folders.pop() {
        match children(&folder) {
            Ok(found) => {
                for (name, inode) in found {
                    if left == 0 {
                        scan.truncated = true;
                        return;
                    }
                    left -= 1;
                    let child = [&path, &b"/"[..], name.as_bytes()].concat();
                    scan.cgroups.push(Cgroup {
                        id: mount.hierarchy.tagged(inode),
                        path: child.clone(),
                    });
                    folders.push((folder.join(name), child));
                }
            }
            // It went away while it was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => scan.unreadable.push((folder, error.to_string())),
        }
    }
}

fn children(folder: &Path) -> io::Result<Vec<(OsString, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push((entry.file_name(), entry.ino()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> (Mode, Vec<(Hierarchy, String, String)>) {
        let hierarchies = Hierarchies::from_mountinfo(text.as_bytes(), |_| true);
        let mounts = hierarchies.mounts.iter().map(|m| {
            let root = String::from_utf8_lossy(&m.root).into_owned();
            (m.hierarchy, m.at.display().to_string(), root)
        });
        (hierarchies.mode(), mounts.collect())
    }

    #[test]
    fn modes_are_told_apart() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            found(v2),
            (
                Mode::V2,
                vec![(Hierarchy::V2, "/sys/fs/cgroup".into(), "/".into())]
            )
        );
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
             35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let (mode, mounts) = found(hybrid);
        assert_eq!(mode, Mode::Hybrid);
        let text = hybrid.as_bytes();
        let seen = Hierarchies::from_mountinfo(text, |_| true);
        assert_eq!(seen.best(), Some(Hierarchy::V2));
        assert_eq!(mounts[0].1, "/sys/fs/cgroup/unified");
        assert_eq!(mounts[1].0, Hierarchy::Memory);
        assert_eq!(mounts[2].0, Hierarchy::Pids);
        let v1: String = hybrid
            .lines()
            .filter(|l| !l.contains("cgroup2"))
            .map(|l| format!("{l}\n"))
            .collect();
        assert_eq!(found(&v1).0, Mode::V1);
        assert_eq!(found("").0, Mode::None);
        assert_eq!(
            found("garbage\n- - -\n1 2 3\n\u{0}\n1 2 3 / / rw -").0,
            Mode::None
        );
    }

    #[test]
    fn the_widest_view_of_a_hierarchy_is_taken() {
        let own = "1 0 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw";
        let part = "3 0 0:26 /docker/x /part rw - cgroup2 cgroup rw";
        let host = "2 0 0:26 /../.. /host/sys/fs/cgroup ro - cgroup2 cgroup rw";
        for order in [[own, part, host], [host, own, part], [part, host, own]] {
            assert_eq!(found(&order.join("\n")).1[0].1, "/host/sys/fs/cgroup");
        }
        assert_eq!(found(&[part, own].join("\n")).1[0].1, "/sys/fs/cgroup");
        assert_eq!(
            found("1 0 0:26 /..x/.. /m ro - cgroup2 c rw").1[0].2,
            "/..x/.."
        );
    }

    #[test]
    fn a_mount_that_lies_under_another_is_not_seen() {
        let here = Mount::whole(Hierarchy::V2, "/proc".into()).unwrap();
        assert!(here.is_visible());
        let under = Mount {
            at: "/".into(),
            ..here
        };
        assert!(!under.is_visible());
        let line = b"30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        assert_eq!(
            Hierarchies::from_mountinfo(line, |_| false).mode(),
            Mode::None
        );
    }

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(
            unescape_octal(br"/a\040b\134c\011\n\99"),
            b"/a b\\c\t\\n\\99"
        );
    }

    #[test]
    fn tags_tell_hierarchies_apart() {
        for hierarchy in [Hierarchy::V2, Hierarchy::Memory, Hierarchy::Pids] {
            assert_eq!(Hierarchy::of(hierarchy.tagged(u64::MAX)), Some(hierarchy));
            assert_eq!(hierarchy.tagged(77) & 0xffff, 77);
        }
        assert_eq!(Hierarchy::of(u64::MAX), None);
    }

    #[test]
    fn a_scan_tells_parents_before_children_and_stands_hostile_names() {
        let tree = tempfile::tempdir().unwrap();
        let hostile = OsString::from_vec(b"\xff\x1b[31m;rm -rf".to_vec());
        fs::create_dir_all(tree.path().join("a/b/c")).unwrap();
        fs::create_dir(tree.path().join(&hostile)).unwrap();
        fs::write(tree.path().join("a/cgroup.procs"), "1").unwrap();
        std::os::unix::fs::symlink("..", tree.path().join("a/loop")).unwrap();
        let mount = |root: &[u8]| Hierarchies {
            mounts: vec![Mount {
                hierarchy: Hierarchy::Memory,
                at: tree.path().to_owned(),
                root: root.to_vec(),
                device: Vec::new(),
            }],
        };
        let scan = mount(b"/").scan();
        let inode = fs::metadata(tree.path().join("a/b")).unwrap().ino();
        assert!(scan.cgroups.contains(&Cgroup {
            id: Hierarchy::Memory.tagged(inode),
            path: b"/a/b".to_vec()
        }));
        let at = |path: &[u8]| scan.cgroups.iter().position(|c| c.path == path).unwrap();
        assert!(at(b"/") < at(b"/a") && at(b"/a") < at(b"/a/b") && at(b"/a/b") < at(b"/a/b/c"));
        at(b"/\xff\x1b[31m;rm -rf");
        assert_eq!(scan.cgroups.len(), 5);
        assert_eq!((scan.unreadable.len(), scan.truncated), (0, false));
        let below = mount(b"/docker/x").scan();
        assert_eq!(below.cgroups[0].path, b"/docker/x");
        assert!(below.cgroups.iter().any(|c| c.path == b"/docker/x/a/b"));
        let mut gone = mount(b"/");
        gone.mounts[0].at = tree.path().join("nowhere");
        assert_eq!(gone.scan().unreadable.len(), 1);
    }
}
