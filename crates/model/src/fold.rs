//! Many sibling files, shown as their directory.
//!
//! Folding is a view: the store keeps every path, and the same rows shown with
//! [`Fold::None`] list what stands behind a folded one.
//!
//! The rules:
//! 1. Only file rows fold, and only absolute paths.
//! 2. A directory with too many children becomes one row, its path with a trailing slash,
//!    and takes in everything below. The topmost such directory wins. `/` never folds. The
//!    directory itself, opened as such, has no trailing slash and stays a row of its own.
//!    Too many is, for [`Fold::Over`], more children of any kind than its number; that is
//!    KubeArmor's rule, with 3. [`Fold::Auto`] asks for more than 3 files or more than 15
//!    children in all: with KubeArmor's rule `/var` with its four usual directories
//!    swallows `/var/www/html`, which is what a reader of a web server wants to see.
//! 3. Everything below `/tmp` is `/tmp/`.
//! 4. A path that ends in a slash already (folded at the source; not one merely asked for
//!    so) takes in the files below it, but keeps such directories below it apart. A
//!    directory whose own files were folded at the source (`/a/b/*`) has too many.
//! 5. Never folded, and never counted as children: refused and audited rows, and secrets
//!    (`/run/secrets/`, `/var/run/secrets/`). Those are the rows a reader must not miss.
//! 6. Each outcome decides its directories by itself, so rows that are not shown (failed
//!    ones) do not change those that are.
//!
//! Which directories fold is decided over all rows first, whichever executable they
//! belong to, and applied to each row after: the order of rows cannot matter, and all
//! executables of a container are shown at the same grain.

use crate::{Access, Behaviour, Kind, Status};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    str::FromStr,
};

/// How many children a directory may have before it folds.
#[derive(Clone, Copy, Debug)]
struct Room {
    files_max: u32,
    children_max: u32,
}

/// The number of files is KubeArmor's, so that a summary reads like the one its users know.
const AUTO: Room = Room {
    files_max: 3,
    children_max: 15,
};

/// Directories of which everything below is one row, however little there is.
const ALWAYS_FOLDED: &[&str] = &["/tmp/"];

/// Directories of secrets, where each access is shown by itself.
const NEVER_FOLDED: &[&str] = &["/run/secrets/", "/var/run/secrets/"];

/// How much to fold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fold {
    /// Every behaviour is a row.
    None,
    /// A directory with more than 3 files or more than 15 children is a row.
    #[default]
    Auto,
    /// A directory with more than this many children is a row. At least 1.
    Over(u32),
}

impl Fold {
    /// KubeArmor's rule, which `--agg` asks for: a directory with 4 children folds.
    pub const KUBEARMOR: Self = Self::Over(3);

    /// What a directory may hold and stay unfolded; `None` if nothing folds.
    fn room(self) -> Option<Room> {
        match self {
            Self::None => None,
            Self::Auto => Some(AUTO),
            Self::Over(children) => Some(Room {
                files_max: children,
                children_max: children,
            }),
        }
    }
}

impl fmt::Display for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::Auto => f.pad("auto"),
            Self::Over(children) => write!(f, "{children}"),
        }
    }
}

/// A text that is no [`Fold`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseFoldError {
    text: String,
}

impl fmt::Display for ParseFoldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot fold by {:?}: use none, auto, or the number of children (1 or more) that a directory may have unfolded",
            self.text
        )
    }
}

impl std::error::Error for ParseFoldError {}

impl FromStr for Fold {
    type Err = ParseFoldError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "auto" => Ok(Self::Auto),
            _ => match text.parse() {
                Ok(children) if children > 0 => Ok(Self::Over(children)),
                _ => Err(ParseFoldError { text: text.into() }),
            },
        }
    }
}

/// The directories that fold, decided once for a set of behaviours.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    by_status: BTreeMap<Status, Directories>,
}

impl Folder {
    /// Decides over all behaviours that are to be shown at the same grain.
    pub fn decide<'a>(fold: Fold, behaviours: impl IntoIterator<Item = &'a Behaviour>) -> Self {
        let Some(room) = fold.room() else {
            return Self::default();
        };
        let mut trees = BTreeMap::<Status, Tree<'a>>::new();
        for behaviour in behaviours {
            if let Some(path) = foldable_path(behaviour) {
                let tree = trees.entry(behaviour.status).or_default();
                tree.insert(path, room);
                if let Some(directory) = folded_files(behaviour) {
                    tree.crowded.insert(directory);
                }
                if path.ends_with('/') && !behaviour.access.contains(Access::REQUESTED) {
                    tree.explicit.insert(path);
                }
            }
        }
        let by_status = trees
            .into_iter()
            .map(|(status, tree)| (status, tree.decide(room)))
            .collect();
        Self { by_status }
    }

    /// The directory a behaviour is shown as: a prefix of its target that ends in a slash.
    /// `None` if it is shown as it is.
    #[must_use]
    pub fn directory<'a>(&self, behaviour: &'a Behaviour) -> Option<&'a str> {
        let path = foldable_path(behaviour)?;
        self.by_status.get(&behaviour.status)?.of(path)
    }
}

/// The path of a row that may fold.
fn foldable_path(behaviour: &Behaviour) -> Option<&str> {
    let path = behaviour.target.as_str();
    let folds = behaviour.kind == Kind::File
        && path.starts_with('/')
        && matches!(behaviour.status, Status::Allow | Status::Failed)
        && !NEVER_FOLDED.iter().any(|secret| path.starts_with(secret));
    folds.then_some(path)
}

/// The directory whose files a row stands for, but for `/`, which never folds.
fn folded_files(behaviour: &Behaviour) -> Option<&str> {
    let directory = behaviour.target.as_str().strip_suffix('*')?;
    let is_folded = behaviour.access.contains(Access::FOLDED);
    (is_folded && directory.len() > 1 && directory.ends_with('/')).then_some(directory)
}

/// Every directory above a path, topmost first, each with a trailing slash. `/` is left
/// out; a path that ends in a slash is not above itself.
fn directories_above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/')
        .map(|(at, _)| &path[..=at])
        .filter(move |directory| directory.len() > 1 && directory.len() < path.len())
}

/// What was seen below each directory.
#[derive(Debug, Default)]
struct Tree<'a> {
    /// Children by name, and whether each is a file; no more than decide.
    children: HashMap<&'a str, HashSet<(&'a str, bool)>>,
    /// Paths that end in a slash already.
    explicit: HashSet<&'a str>,
    /// Directories with more files than were kept.
    crowded: HashSet<&'a str>,
}

impl<'a> Tree<'a> {
    fn insert(&mut self, path: &'a str, room: Room) {
        for directory in directories_above(path) {
            let children = self.children.entry(directory).or_default();
            if children.len() <= room.children_max as usize {
                let below = &path[directory.len()..];
                let child = below
                    .split_once('/')
                    .map_or((below, true), |(name, _)| (name, false));
                children.insert(child);
            }
        }
    }

    fn decide(self, room: Room) -> Directories {
        let is_full = |children: &HashSet<(&str, bool)>| {
            children.len() > room.children_max as usize
                || children.iter().filter(|(_, is_file)| *is_file).count() > room.files_max as usize
        };
        Directories {
            full: self
                .children
                .into_iter()
                .filter(|(_, children)| is_full(children))
                .map(|(directory, _)| directory)
                .chain(self.crowded)
                .map(Into::into)
                .collect(),
            explicit: self.explicit.into_iter().map(Into::into).collect(),
        }
    }
}

/// The directories of one outcome that fold.
#[derive(Clone, Debug)]
struct Directories {
    /// Have too many children: take in everything.
    full: HashSet<Box<str>>,
    /// Were folded at the source: take in files.
    explicit: HashSet<Box<str>>,
}

impl Directories {
    fn of<'a>(&self, path: &'a str) -> Option<&'a str> {
        let takes_in_all =
            |directory: &&str| ALWAYS_FOLDED.contains(directory) || self.full.contains(*directory);
        directories_above(path).find(takes_in_all).or_else(|| {
            let is_file = !path.ends_with('/');
            directories_above(path)
                .filter(|directory| is_file && self.explicit.contains(*directory))
                .last()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Name, Tally, Timestamp};
    use proptest::prelude::*;

    type Row = (Behaviour, Tally);

    fn file(source: &str, target: &str) -> Behaviour {
        Behaviour::new(Kind::File, source.into(), target.into())
    }

    fn rows(paths: &[(&str, &str, u64)]) -> Vec<Row> {
        let row = |(at, &(source, target, count)): (usize, &(&str, &str, u64))| {
            (
                file(source, target),
                Tally::at(Timestamp(at as i64 + 1), count),
            )
        };
        paths.iter().enumerate().map(row).collect()
    }

    /// The rows a reader sees: sorted, access united, tallies added.
    fn folded(fold: Fold, rows: &[Row]) -> Vec<Row> {
        let folder = Folder::decide(fold, rows.iter().map(|(behaviour, _)| behaviour));
        let mut merged = BTreeMap::<Behaviour, Row>::new();
        for (behaviour, tally) in rows {
            let mut shown = behaviour.clone();
            if let Some(directory) = folder.directory(behaviour) {
                shown.target = Name::from_escaped(directory);
            }
            let mut key = shown.clone();
            if fold != Fold::None {
                key.access = Access::empty();
            }
            merged
                .entry(key)
                .and_modify(|(b, t)| {
                    b.access |= shown.access;
                    *t = t.plus(*tally);
                })
                .or_insert((shown, *tally));
        }
        merged.into_values().collect()
    }

    fn shown(fold: Fold, paths: &[&str]) -> Vec<String> {
        let rows: Vec<_> = paths
            .iter()
            .map(|path| (file("/bin/app", path), Tally::at(Timestamp(1), 1)))
            .collect();
        let folded = folded(fold, &rows);
        folded.iter().map(|(b, _)| b.target.to_string()).collect()
    }

    #[test]
    fn directories_fold_by_their_children() {
        for (why, paths, expected) in [
            ("nothing to fold", &[][..], &[][..]),
            (
                "two siblings stay",
                &["/a/b/1", "/a/b/2"],
                &["/a/b/1", "/a/b/2"],
            ),
            (
                "three stay",
                &["/a/b/1", "/a/b/2", "/a/b/3"],
                &["/a/b/1", "/a/b/2", "/a/b/3"],
            ),
            (
                "four fold",
                &["/a/b/1", "/a/b/2", "/a/b/3", "/a/b/4"],
                &["/a/b/"],
            ),
            (
                "one seen four times is one",
                &["/a/b/1", "/a/b/1", "/a/b/1", "/a/b/1"],
                &["/a/b/1"],
            ),
            (
                "the topmost takes in all",
                &["/a/1", "/a/2", "/a/3", "/a/b/1", "/a/b/2/3"],
                &["/a/"],
            ),
            (
                "directories count as children",
                &["/a/1/x", "/a/2/x", "/a/3/x", "/a/4/x"],
                &["/a/"],
            ),
            (
                "the root never folds",
                &["/1", "/2", "/3", "/4", "/5/6", "/"],
                &["/", "/1", "/2", "/3", "/4", "/5/6"],
            ),
            (
                "no floor below the root",
                &["/usr/1", "/usr/2", "/usr/3", "/usr/4/5/6"],
                &["/usr/"],
            ),
            (
                "a deep one folds alone",
                &["/a/b/c/1", "/a/b/c/2", "/a/b/c/3", "/a/b/c/4", "/a/d"],
                &["/a/b/c/", "/a/d"],
            ),
            (
                "the directory itself is not below itself",
                &["/a/b", "/a/b/1", "/a/b/2", "/a/b/3", "/a/b/4"],
                &["/a/b", "/a/b/"],
            ),
            (
                "a common beginning is no directory",
                &["/a/bc", "/a/b/1", "/a/b/2", "/a/b/3", "/a/b/4"],
                &["/a/b/", "/a/bc"],
            ),
            (
                "below /tmp all is one",
                &["/tmp/x", "/tmp/a/b", "/tmp", "/var/tmp/x"],
                &["/tmp", "/tmp/", "/var/tmp/x"],
            ),
            (
                "folded at the source stays",
                &["/a/b/", "/a/c"],
                &["/a/b/", "/a/c"],
            ),
            (
                "and takes in files",
                &["/a/b/", "/a/b/1", "/a/b/c/2"],
                &["/a/b/"],
            ),
            (
                "the nearest takes them in",
                &["/a/b/", "/a/b/c/", "/a/b/c/2", "/a/b/1"],
                &["/a/b/", "/a/b/c/"],
            ),
            (
                "but four still fold",
                &["/a/b/1/", "/a/b/2/", "/a/b/3/", "/a/b/4/"],
                &["/a/b/"],
            ),
            (
                "what is no path stays",
                &["pipe:[1]", "a/1", "a/2", "a/3", "a/4", ""],
                &["", "a/1", "a/2", "a/3", "a/4", "pipe:[1]"],
            ),
            (
                "secrets stay",
                &[
                    "/run/1",
                    "/run/2",
                    "/run/3",
                    "/run/4",
                    "/run/secrets/token",
                    "/var/run/secrets/kubernetes.io/serviceaccount/token",
                ],
                &[
                    "/run/",
                    "/run/secrets/token",
                    "/var/run/secrets/kubernetes.io/serviceaccount/token",
                ],
            ),
        ] {
            assert_eq!(shown(Fold::KUBEARMOR, paths), expected, "{why}");
        }
    }

    #[test]
    fn auto_folds_files_before_directories() {
        let page = "/var/www/html/index.php";
        let usual = ["/var/cache/a", "/var/lib/b", "/var/log/c", page];
        assert_eq!(shown(Fold::Auto, &usual), usual);
        assert_eq!(shown(Fold::KUBEARMOR, &usual), ["/var/"]);
        let files = ["/etc/1", "/etc/2", "/etc/3", "/etc/4", "/etc/a/b/c"];
        assert_eq!(shown(Fold::Auto, &files), ["/etc/"]);
        let many: Vec<String> = (0..16).map(|pid| format!("/proc/{pid}/stat")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(shown(Fold::Auto, &many), ["/proc/"]);
    }

    #[test]
    fn a_directory_whose_files_were_folded_at_the_source_folds() {
        let mut behaviour = file("/bin/app", "/a/b/*");
        behaviour.access = Access::FOLDED;
        let mut root = file("/bin/app", "/*");
        root.access = Access::FOLDED;
        let rows = [
            behaviour,
            root,
            file("/bin/app", "/a/b/c/d"),
            file("/bin/app", "/a/x*"),
        ];
        let rows: Vec<Row> = rows.map(|b| (b, Tally::at(Timestamp(1), 1))).into();
        for (fold, expected) in [
            (Fold::Auto, &["/*", "/a/b/", "/a/x*"][..]),
            (Fold::None, &["/*", "/a/b/*", "/a/b/c/d", "/a/x*"]),
        ] {
            let folded = folded(fold, &rows);
            let shown: Vec<_> = folded.iter().map(|(b, _)| b.target.as_str()).collect();
            assert_eq!(shown, expected, "{fold}");
        }
    }

    #[test]
    fn the_threshold_is_the_readers() {
        let paths = ["/a/1", "/a/2"];
        assert_eq!(shown(Fold::Over(1), &paths), ["/a/"]);
        assert_eq!(shown(Fold::Over(2), &paths), paths);
        assert_eq!(
            shown(Fold::None, &["/tmp/a", "/tmp/b"]),
            ["/tmp/a", "/tmp/b"]
        );
        for text in ["none", "auto", "7"] {
            assert_eq!(text.parse::<Fold>().unwrap().to_string(), text);
        }
        for text in ["", "0", "-1", "all", "99999999999"] {
            let error = text.parse::<Fold>().unwrap_err().to_string();
            assert!(error.contains("none, auto"), "{error}");
        }
    }

    #[test]
    fn all_executables_of_a_container_share_the_directories() {
        // One reads enough of /etc to fold it, so the other's two files are /etc/ too.
        let rows = rows(&[
            ("/bin/bash", "/etc/passwd", 4),
            ("/bin/bash", "/etc/nsswitch.conf", 3),
            ("/bin/bash", "/etc/bash.bashrc", 2),
            ("/bin/bash", "/etc/ld.so.cache", 1),
            ("/bin/rm", "/etc/ld.so.cache", 1),
            ("/bin/rm", "/etc/passwd", 1),
        ]);
        let tally = |count, first, last| Tally {
            count,
            first: Timestamp(first),
            last: Timestamp(last),
        };
        assert_eq!(
            folded(Fold::Auto, &rows),
            [
                (file("/bin/bash", "/etc/"), tally(10, 1, 4)),
                (file("/bin/rm", "/etc/"), tally(2, 5, 6)),
            ]
        );
    }

    #[test]
    fn a_database_folds_where_it_is_wide_and_not_where_it_is_narrow() {
        let rows = rows(&[
            ("/usr/bin/mongod", "/data/db/journal/log.1", 30),
            ("/usr/bin/mongod", "/data/db/collection-0.wt", 20),
            ("/usr/bin/mongod", "/data/db/index-1.wt", 10),
            ("/usr/bin/mongod", "/data/db/sizes.wt", 5),
            ("/usr/bin/mongod", "/data/db/mongod.lock", 3),
            ("/usr/bin/user-db", "/srv/users/a", 1),
            ("/usr/bin/user-db", "/srv/users/b", 2),
        ]);
        let shown: Vec<_> = folded(Fold::Auto, &rows)
            .iter()
            .map(|(b, t)| (b.target.to_string(), t.count, t.last.0))
            .collect();
        assert_eq!(
            shown,
            [
                ("/data/db/".to_string(), 68, 5),
                ("/srv/users/a".to_string(), 1, 6),
                ("/srv/users/b".to_string(), 2, 7),
            ]
        );
    }

    #[test]
    fn outcomes_do_not_touch_each_other() {
        let with = |status, path: &str| {
            let behaviour = Behaviour {
                status,
                ..file("/bin/app", path)
            };
            (behaviour, Tally::at(Timestamp(1), 1))
        };
        let mut rows = Vec::new();
        for status in [Status::Deny, Status::Audit, Status::Failed] {
            rows.extend(["/etc/1", "/etc/2", "/etc/3", "/etc/4"].map(|path| with(status, path)));
        }
        rows.push(with(Status::Allow, "/etc/5"));
        let folded = folded(Fold::Auto, &rows);
        let paths = |status| -> Vec<_> {
            let of_status = folded.iter().filter(|(b, _)| b.status == status);
            of_status.map(|(b, _)| b.target.as_str()).collect()
        };
        assert_eq!(paths(Status::Allow), ["/etc/5"]);
        assert_eq!(
            paths(Status::Deny),
            ["/etc/1", "/etc/2", "/etc/3", "/etc/4"]
        );
        assert_eq!(
            paths(Status::Audit),
            ["/etc/1", "/etc/2", "/etc/3", "/etc/4"]
        );
        assert_eq!(paths(Status::Failed), ["/etc/"]);
    }

    #[test]
    fn only_files_fold() {
        for &kind in Kind::ALL.iter().filter(|kind| **kind != Kind::File) {
            let behaviours: Vec<_> = (0..9)
                .map(|n| {
                    Behaviour::new(kind, "/bin/sh".into(), format!("/bin/{n}").as_str().into())
                })
                .collect();
            let folder = Folder::decide(Fold::Over(1), &behaviours);
            assert!(behaviours.iter().all(|b| folder.directory(b).is_none()));
        }
    }

    prop_compose! {
        fn any_row()(
            source in "/bin/[ab]",
            path in prop_oneof![
                4 => "(/(a|b|c|d|e|tmp)){1,5}/?",
                1 => "(/var)?/run/secrets/[a-f]{1,2}",
                1 => "/|[a-c]/[a-f]|/tmp/[a-f]",
            ],
            status in prop::sample::select(Status::ALL),
            access in 0..64u16,
            count in 1..1000u64,
            time in 0..1000i64,
        ) -> Row {
            let behaviour = Behaviour {
                status,
                access: Access::from_bits(access),
                ..file(&source, &path)
            };
            (behaviour, Tally::at(Timestamp(time), count))
        }
    }

    fn any_rows() -> impl Strategy<Value = Vec<Row>> {
        proptest::collection::vec(any_row(), 0..40)
    }

    proptest! {
        #[test]
        fn order_does_not_matter(
            (rows, shuffled) in any_rows().prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle())),
            threshold in 1..6u32,
        ) {
            prop_assert_eq!(folded(Fold::Over(threshold), &rows), folded(Fold::Over(threshold), &shuffled));
        }

        #[test]
        fn counts_are_conserved(rows in any_rows(), threshold in 1..6u32) {
            let sum = |rows: &[Row], status| -> u64 {
                rows.iter().filter(|(b, _)| b.status == status).map(|(_, t)| t.count).sum()
            };
            let folded = folded(Fold::Over(threshold), &rows);
            for &status in Status::ALL {
                prop_assert_eq!(sum(&folded, status), sum(&rows, status));
            }
        }

        #[test]
        fn twice_is_once(rows in any_rows(), threshold in 1..6u32) {
            let once = folded(Fold::Over(threshold), &rows);
            prop_assert_eq!(folded(Fold::Over(threshold), &once), once);
        }

        #[test]
        fn none_is_identity(rows in any_rows()) {
            let folder = Folder::decide(Fold::None, rows.iter().map(|(b, _)| b));
            prop_assert!(rows.iter().all(|(b, _)| folder.directory(b).is_none()));
        }

        #[test]
        fn a_folded_row_leads_back_to_the_rows_behind_it(rows in any_rows()) {
            let folder = Folder::decide(Fold::Auto, rows.iter().map(|(b, _)| b));
            for (behaviour, _) in &rows {
                if let Some(directory) = folder.directory(behaviour) {
                    prop_assert!(directory.ends_with('/') && directory.len() > 1);
                    prop_assert!(behaviour.target.as_str().starts_with(directory));
                    prop_assert_eq!(behaviour.status == Status::Deny, false);
                }
            }
        }
    }
}
