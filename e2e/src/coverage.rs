//! What is seen of each way of doing things: cells that state their own truth, held against
//! a summary and against the blind spots that `ethogram doctor` admits to.
//!
//! The `matrix` program performs the cells. Each is done by an executable of its own, so
//! that its rows can be told from all others, and states which rows it must have. A row
//! that some set of hooks cannot see names the blind spots that hide it; a row that is
//! shown instead (the path that was asked for in place of the true one) names them as well.
//! So what is expected follows from what doctor says, and both are wrong together or not at
//! all: a row that is hidden by no listed spot must be there, one that is hidden must not.

use crate::truth::{Document, Ledger, Row};
use ethogram_model::{Behaviour, Kind, Name, Status};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// What one cell did, as the `matrix` program writes it down.
#[derive(Debug, Serialize, Deserialize)]
pub struct Deeds {
    /// What was done, e.g. `openat2`.
    pub what: String,
    /// Where or how, e.g. `hard link`.
    pub place: String,
    /// Why this kernel could not do it; then there are no rows.
    pub lacking: Option<String>,
    /// The executable that did it, escaped as a [`Name`].
    pub program: String,
    /// The folder with what belongs to the cell, likewise.
    pub folder: String,
    /// What must be seen, and what not.
    pub rows: Vec<Deed>,
}

/// A row and what it depends on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Deed {
    #[serde(flatten)]
    row: Row,
    /// Blind spots of which any hides the row.
    #[serde(default)]
    hidden_by: BTreeSet<String>,
    /// Blind spots of which one is needed for the row to be there; none: always.
    #[serde(default)]
    shown_by: BTreeSet<String>,
}

impl Deed {
    /// A row that happened `count` times.
    #[must_use]
    pub fn new(behaviour: &Behaviour, count: u64, hidden_by: &[&str], shown_by: &[&str]) -> Self {
        let owned = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect();
        Self {
            row: Row::new(behaviour, count),
            hidden_by: owned(hidden_by),
            shown_by: owned(shown_by),
        }
    }

    /// The listed blind spots that hide it.
    fn hiding<'a>(&self, listed: &'a BTreeSet<String>) -> impl Iterator<Item = &'a String> {
        listed.iter().filter(|spot| self.hidden_by.contains(*spot))
    }

    fn is_expected(&self, listed: &BTreeSet<String>) -> bool {
        self.hiding(listed).next().is_none()
            && (self.shown_by.is_empty() || !self.shown_by.is_disjoint(listed))
    }
}

/// What came of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every row as it must be.
    Seen,
    /// All is as these blind spots say.
    Blind(BTreeSet<String>),
    /// The kernel cannot do it.
    Lacking(String),
    /// The summary is wrong, or doctor is: what differs.
    Wrong(String),
}

/// A cell with its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// As in [`Deeds`].
    pub what: String,
    /// As in [`Deeds`].
    pub place: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// Holds cells against a summary, given the ids that doctor lists for its hooks.
#[must_use]
pub fn judge(cells: &[Deeds], document: &Document, listed: &BTreeSet<String>) -> Vec<Verdict> {
    let verdict = |cell: &Deeds| Verdict {
        what: cell.what.clone(),
        place: cell.place.clone(),
        outcome: outcome(cell, document, listed),
    };
    cells.iter().map(verdict).collect()
}

fn outcome(cell: &Deeds, document: &Document, listed: &BTreeSet<String>) -> Outcome {
    if let Some(why) = &cell.lacking {
        return Outcome::Lacking(why.clone());
    }
    let mut expected = Ledger::default();
    let mut spots = BTreeSet::new();
    for deed in &cell.rows {
        spots.extend(deed.hiding(listed).cloned());
        if deed.is_expected(listed) {
            match deed.row.behaviour() {
                Ok((behaviour, count)) => expected.add(behaviour, count),
                Err(why) => return Outcome::Wrong(why),
            }
        }
    }
    let seen = cell.rows_of(&document.seen);
    let mut differing = String::new();
    let mut rows = expected.rows();
    rows.extend(seen.rows());
    for row in rows.into_keys() {
        let (expected, seen) = (expected.count(row), seen.count(row));
        if expected != seen {
            let _ = write!(
                differing,
                "\n    {}: expected {expected}, seen {seen}: {} -> {} {} {} [{}] {}",
                row.kind, row.source, row.target, row.protocol, row.port, row.access, row.status
            );
        }
    }
    match (differing.is_empty(), spots.is_empty()) {
        (false, _) => Outcome::Wrong(differing),
        (true, true) => Outcome::Seen,
        (true, false) => Outcome::Blind(spots),
    }
}

/// Where the loader, the C library and the language runtime look by themselves.
const NOT_OURS: &[&str] = &["/etc/", "/lib/", "/lib64/", "/usr/", "/sys/", "/dev/"];

impl Deeds {
    /// The rows that this cell caused, but for those of loaders and runtimes.
    fn rows_of(&self, seen: &Ledger) -> Ledger {
        let mut rows = Ledger::default();
        for (row, count) in seen.rows() {
            if self.covers(row) {
                rows.add(row.clone(), count);
            }
        }
        rows
    }

    fn covers(&self, row: &Behaviour) -> bool {
        let (source, target) = (row.source.as_str(), row.target.as_str());
        let acts = source == self.program
            || source
                .strip_prefix(&self.folder)
                .is_some_and(|rest| rest.starts_with('/'));
        let is_own_memory_map = target.starts_with("/proc/") && target.ends_with("/maps");
        acts && match row.kind {
            Kind::Capability => false,
            Kind::File => {
                row.status != Status::Failed
                    && !is_own_memory_map
                    && !NOT_OURS.iter().any(|prefix| target.starts_with(prefix))
            }
            _ => row.status != Status::Failed || row.kind != Kind::Process,
        }
    }
}

/// The folder of a cell as it stands in summaries.
#[must_use]
pub fn shown(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    Name::from_bytes(path.as_os_str().as_bytes())
        .as_str()
        .into()
}

/// One line per verdict, and what differs below those that are wrong.
#[must_use]
pub fn lines(verdicts: &[Verdict], hooks: &str) -> String {
    let mut text = String::new();
    for Verdict {
        what,
        place,
        outcome,
    } in verdicts
    {
        let word = match outcome {
            Outcome::Seen => "seen".to_owned(),
            Outcome::Blind(spots) => format!("blind: {}", joined(spots)),
            Outcome::Lacking(why) => format!("lacking: {why}"),
            Outcome::Wrong(differing) => format!("WRONG{differing}"),
        };
        let _ = writeln!(text, "{MARK}{hooks}\t{what}\t{place}\t{word}");
    }
    text
}

/// What each line of [`lines`] begins with, so that [`table`] finds it in a test's output.
const MARK: &str = "coverage\t";

fn joined(words: &BTreeSet<String>) -> String {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.join(", ")
}

/// A table in Markdown of all that [`lines`] said in these texts: ways and places that came
/// to the same are one line.
#[must_use]
pub fn table(texts: &[String]) -> String {
    let mut cells: Vec<(&str, &str)> = Vec::new();
    let mut words: BTreeMap<(&str, &str, &str), &str> = BTreeMap::new();
    for line in texts.iter().flat_map(|text| text.lines()) {
        let rest = line.trim_end().strip_prefix(MARK).unwrap_or_default();
        let fields: Vec<&str> = rest.split('\t').collect();
        let [hooks, what, place, word] = fields[..] else {
            continue;
        };
        if !cells.contains(&(what, place)) {
            cells.push((what, place));
        }
        // A kernel that lacks something says nothing against one that has it.
        let known = words.entry((what, place, hooks)).or_insert(word);
        if known.starts_with("lacking") {
            *known = word;
        }
    }
    let of = |(what, place): (&str, &str)| {
        ["tracepoint", "trampoline"].map(|hooks| {
            words
                .get(&(what, place, hooks))
                .map_or("–".to_owned(), |word| match word.split_once(": ") {
                    Some(("blind", spots)) => format!("`{}`", spots.replace(", ", "`, `")),
                    _ => (*word).to_owned(),
                })
        })
    };
    let mut merged: Vec<(&str, Vec<&str>, [String; 2])> = Vec::new();
    for cell in cells {
        let came_to = of(cell);
        match merged
            .iter_mut()
            .find(|(what, _, word)| *what == cell.0 && *word == came_to)
        {
            Some((_, places, _)) => places.push(cell.1),
            None => merged.push((cell.0, vec![cell.1], came_to)),
        }
    }
    let mut text =
        "| what | where or how | tracepoints | trampolines |\n| --- | --- | --- | --- |\n"
            .to_owned();
    for (what, places, [one, other]) in merged {
        let _ = writeln!(text, "| {what} | {} | {one} | {other} |", places.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(source: &str, target: &str) -> Behaviour {
        Behaviour::new(Kind::File, source.into(), target.into())
    }

    fn cell(rows: Vec<Deed>) -> Deeds {
        Deeds {
            what: "openat".into(),
            place: "plain".into(),
            lacking: None,
            program: "/d/bin/1".into(),
            folder: "/d/data/1".into(),
            rows,
        }
    }

    fn came_to(cell: Deeds, seen: &[Behaviour], listed: &[&str]) -> Outcome {
        let mut document = Document::default();
        for row in seen {
            document.seen.add(row.clone(), 1);
        }
        let listed = listed.iter().map(|&id| id.to_owned()).collect();
        judge(&[cell], &document, &listed).remove(0).outcome
    }

    #[test]
    fn doctor_and_the_summary_must_agree() {
        let row = file("/d/bin/1", "/d/data/1/file");
        let hidden = || cell(vec![Deed::new(&row, 1, &["io-uring"], &[])]);
        let spots = BTreeSet::from(["io-uring".to_owned()]);
        assert_eq!(came_to(hidden(), &[], &["io-uring"]), Outcome::Blind(spots));
        assert_eq!(
            came_to(hidden(), std::slice::from_ref(&row), &["other"]),
            Outcome::Seen
        );
        let wrong = |outcome| matches!(outcome, Outcome::Wrong(_));
        assert!(wrong(came_to(
            hidden(),
            std::slice::from_ref(&row),
            &["io-uring"]
        )));
        assert!(wrong(came_to(hidden(), &[], &["other"])));
    }

    #[test]
    fn what_is_shown_instead_is_expected_too() {
        let (real, asked) = (file("/d/bin/1", "/d/real"), file("/d/bin/1", "/d/link"));
        let linked = || {
            cell(vec![
                Deed::new(&real, 1, &["requested-paths"], &[]),
                Deed::new(&asked, 1, &[], &["requested-paths"]),
            ])
        };
        let asked = std::slice::from_ref(&asked);
        assert!(matches!(
            came_to(linked(), asked, &["requested-paths"]),
            Outcome::Blind(_)
        ));
        assert!(matches!(came_to(linked(), asked, &[]), Outcome::Wrong(_)));
        assert_eq!(came_to(linked(), &[real], &[]), Outcome::Seen);
    }

    #[test]
    fn rows_that_nobody_expected_are_wrong() {
        for (row, is_wrong) in [
            (file("/d/bin/1", "/d/elsewhere"), true),
            (file("/d/data/1/program", "/d/elsewhere"), true),
            (file("/d/bin/1", "/lib/libc.so.6"), false),
            (file("/d/bin/1", "/proc/7/maps"), false),
            (file("/d/bin/11", "/d/elsewhere"), false),
            (file("/d/data/11/program", "/d/elsewhere"), false),
        ] {
            let outcome = came_to(cell(Vec::new()), std::slice::from_ref(&row), &[]);
            assert_eq!(matches!(outcome, Outcome::Wrong(_)), is_wrong, "{row:?}");
        }
    }

    #[test]
    fn a_table_has_a_line_for_what_came_to_the_same() {
        let verdict = |what: &str, place: &str, outcome| Verdict {
            what: what.into(),
            place: place.into(),
            outcome,
        };
        let blind = || Outcome::Blind(BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        let one = [
            verdict("open", "plain", Outcome::Seen),
            verdict("open", "link", Outcome::Seen),
            verdict("ring", "plain", blind()),
            verdict("SCTP", "v4", Outcome::Lacking("SCTP".into())),
        ];
        let other = [
            verdict("open", "plain", Outcome::Seen),
            verdict("open", "link", Outcome::Seen),
            verdict("ring", "plain", Outcome::Seen),
            verdict("SCTP", "v4", Outcome::Seen),
        ];
        let texts = [
            lines(&one, "tracepoint"),
            lines(&other, "tracepoint"),
            lines(&other, "trampoline"),
        ];
        let rows: Vec<String> = table(&texts[..1])
            .lines()
            .skip(2)
            .map(str::to_owned)
            .collect();
        assert_eq!(rows[0], "| open | plain, link | seen | – |");
        assert_eq!(rows[1], "| ring | plain | `a`, `b` | – |");
        assert_eq!(rows[2], "| SCTP | v4 | lacking: SCTP | – |");
        assert!(table(&texts).contains("| SCTP | v4 | seen | seen |"));
    }
}
