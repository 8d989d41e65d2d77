//! Counts of behaviours, and the file that carries them.

use ethogram_model::{Access, Behaviour, Kind, Name, Protocol, Status};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::Path,
};

/// Marks that depend on who watches and from where, not on what was done.
const IGNORED_MARKS: Access = Access::from_bits(
    Access::REQUESTED.bits() | Access::CUT.bits() | Access::AT_START.bits() | Access::UPPER.bits(),
);

/// How often each behaviour happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger(HashMap<Behaviour, u64>);

impl Ledger {
    /// Counts a behaviour `count` more times.
    pub fn add(&mut self, mut behaviour: Behaviour, count: u64) {
        behaviour.access = behaviour.access.without(IGNORED_MARKS);
        *self.0.entry(behaviour).or_default() += count;
    }

    /// Adds all that another ledger counted.
    pub fn merge(&mut self, other: Self) {
        for (behaviour, count) in other.0 {
            self.add(behaviour, count);
        }
    }

    /// How often a behaviour was counted.
    #[must_use]
    pub fn count(&self, behaviour: &Behaviour) -> u64 {
        self.0.get(behaviour).copied().unwrap_or(0)
    }

    /// The rows, sorted.
    #[must_use]
    pub fn rows(&self) -> BTreeMap<&Behaviour, u64> {
        self.0.iter().map(|(row, count)| (row, *count)).collect()
    }

    /// The sum of all counts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The rows that a scope covers.
    #[must_use]
    pub fn within(&self, scope: &Scope) -> Self {
        let covered = self.0.iter().filter(|(row, _)| scope.covers(row));
        Self(covered.map(|(row, count)| (row.clone(), *count)).collect())
    }

    /// Writes one JSON line per row, sorted.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for (behaviour, count) in self.rows() {
            serde_json::to_writer(&mut *out, &Row::new(behaviour, count))?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Reads what [`Ledger::write`] wrote.
    ///
    /// # Errors
    /// The line that cannot be read, and why.
    pub fn read(input: impl BufRead) -> Result<Self, LedgerError> {
        let mut ledger = Self::default();
        for (index, line) in input.lines().enumerate() {
            let line = line?;
            let unreadable = |reason: String| LedgerError::Line {
                line: index + 1,
                reason,
            };
            let row: Row = serde_json::from_str(&line).map_err(|e| unreadable(e.to_string()))?;
            let (behaviour, count) = row.behaviour().map_err(unreadable)?;
            ledger.add(behaviour, count);
        }
        Ok(ledger)
    }
}

/// Why a truth file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file itself could not be read.
    #[error("cannot read the truth: {0}")]
    Io(#[from] io::Error),
    /// The first line is not what the actor writes.
    #[error("the first line is no header: {0}")]
    Header(#[source] serde_json::Error),
    /// The rows are not all there.
    #[error("the rows count {rows} events and the header says {header}: the file is not whole")]
    NotWhole {
        /// Counted by the rows.
        rows: u64,
        /// What the header says.
        header: u64,
    },
    /// A line is not what the actor writes.
    #[error("line {line} of the rows: {reason}")]
    Line {
        /// Counted from 1, without the header.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// The first line of a truth file: which run it is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The actor's directory, escaped as a [`Name`].
    pub dir: String,
    /// The seed of the mix.
    pub seed: u64,
    /// How many operations were performed; most of them are more than one row or none.
    pub operations: u64,
    /// The sum of the counts.
    pub events: u64,
}

/// Reads a truth file: which run it is of, and what was done.
///
/// # Errors
/// When it cannot be read, or is not whole.
pub fn read_truth(path: &Path) -> Result<(Header, Ledger), LedgerError> {
    let mut file = BufReader::new(File::open(path)?);
    let mut first = String::new();
    file.read_line(&mut first)?;
    let header: Header = serde_json::from_str(&first).map_err(LedgerError::Header)?;
    let ledger = Ledger::read(file)?;
    if ledger.total() != header.events {
        return Err(LedgerError::NotWhole {
            rows: ledger.total(),
            header: header.events,
        });
    }
    Ok((header, ledger))
}

/// Which rows of a summary the truth speaks of; see the [module](super) for the rule.
#[derive(Clone, Debug)]
pub struct Scope {
    dir: String,
    bin: String,
    data: String,
}

impl Scope {
    /// The scope of an actor that worked below `dir` (escaped as a [`Name`]).
    #[must_use]
    pub fn new(dir: &str) -> Self {
        Self {
            dir: format!("{dir}/"),
            bin: format!("{dir}/bin/"),
            data: format!("{dir}/data/"),
        }
    }

    /// Whether the truth says how often this row happened.
    #[must_use]
    pub fn covers(&self, row: &Behaviour) -> bool {
        let acts = row.source.as_str().starts_with(&self.bin);
        let target = row.target.as_str();
        match row.kind {
            Kind::Capability => false,
            Kind::Process => target.starts_with(&self.dir) && row.status != Status::Failed,
            Kind::File => acts && target.starts_with(&self.data) && row.status != Status::Failed,
            Kind::Ingress | Kind::Egress | Kind::Bind | Kind::Syscall => acts,
        }
    }
}

/// A row as JSON: the words of the model, as in a summary's document.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    #[serde(default)]
    pub(crate) kind: String,
    source: String,
    #[serde(default)]
    target: String,
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    access: Vec<String>,
    /// A summary keeps the marks apart; a truth has none that matter.
    #[serde(default, skip_serializing)]
    marks: Vec<String>,
    status: String,
    count: u64,
}

impl Row {
    pub(crate) fn new(behaviour: &Behaviour, count: u64) -> Self {
        Self {
            kind: behaviour.kind.as_str().into(),
            source: behaviour.source.as_str().into(),
            target: behaviour.target.as_str().into(),
            protocol: behaviour.protocol.as_str().into(),
            port: behaviour.port,
            access: behaviour.access.words().map(Into::into).collect(),
            marks: Vec::new(),
            status: behaviour.status.as_str().into(),
            count,
        }
    }

    /// The behaviour and its count, or the word that is not in the vocabulary.
    pub(crate) fn behaviour(&self) -> Result<(Behaviour, u64), String> {
        fn known<T>(what: &str, word: &str, value: Option<T>) -> Result<T, String> {
            value.ok_or_else(|| format!("unknown {what} {word:?}"))
        }
        let mut access = Access::empty();
        for word in self.access.iter().chain(&self.marks) {
            access |= known("access", word, Access::from_word(word))?;
        }
        let protocol = Protocol::from_word(&self.protocol);
        let behaviour = Behaviour {
            kind: known("kind", &self.kind, Kind::from_word(&self.kind))?,
            source: Name::from_escaped(&self.source),
            target: Name::from_escaped(&self.target),
            protocol: known("protocol", &self.protocol, protocol)?,
            port: self.port,
            access,
            status: known("status", &self.status, Status::from_word(&self.status))?,
        };
        Ok((behaviour, self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: Kind, source: &str, target: &str) -> Behaviour {
        Behaviour::new(kind, source.into(), target.into())
    }

    #[test]
    fn counts_of_all_workers_add_up() {
        let (open, other) = (row(Kind::File, "/x", "/y"), row(Kind::File, "/x", "/z"));
        let mut all = Ledger::default();
        for _ in 0..3 {
            let mut worker = Ledger::default();
            worker.add(open.clone(), 2);
            worker.add(open.clone(), 1);
            worker.add(other.clone(), 5);
            all.merge(worker);
        }
        assert_eq!((all.count(&open), all.count(&other)), (9, 15));
        assert_eq!(all.total(), 24);
    }

    #[test]
    fn rows_that_differ_in_a_mark_only_are_one() {
        let mut ledger = Ledger::default();
        let plain = row(Kind::File, "/x", "/y");
        let mut marked = plain.clone();
        marked.access |= Access::REQUESTED | Access::CUT;
        ledger.add(plain.clone(), 1);
        ledger.add(marked, 1);
        assert_eq!(ledger.count(&plain), 2);
    }

    #[test]
    fn what_is_written_is_read() {
        let mut ledger = Ledger::default();
        let hostile = Name::from_bytes(b"/d/data/a\n\x1b[31m \\ \xff\"");
        ledger.add(Behaviour::new(Kind::File, "/d/bin/w".into(), hostile), 3);
        let mut bind = row(Kind::Bind, "/d/bin/w", "::1");
        bind.protocol = Protocol::Tcp6;
        bind.port = 80;
        bind.access = Access::LISTEN;
        bind.status = Status::Deny;
        ledger.add(bind, u64::from(u32::MAX) + 1);
        let mut bytes = Vec::new();
        ledger.write(&mut bytes).unwrap();
        assert_eq!(Ledger::read(&bytes[..]).unwrap(), ledger);
    }

    #[test]
    fn a_line_that_makes_no_sense_is_named() {
        let good = r#"{"kind":"file","source":"/a","target":"/b","status":"Allow","count":1}"#;
        for bad in [
            "",
            "{}",
            &good.replace("file", "fiel"),
            &good.replace("Allow", "Maybe"),
        ] {
            let text = format!("{good}\n{bad}\n");
            let error = Ledger::read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("line 2 of the rows: "), "{bad}: {error}");
        }
    }

    #[test]
    fn the_scope_leaves_out_what_the_actor_cannot_know() {
        let scope = Scope::new("/d");
        let failed = |mut row: Behaviour| {
            row.status = Status::Failed;
            row
        };
        for (row, covered) in [
            (row(Kind::Process, "/any/actor", "/d/bin/worker-0"), true),
            (row(Kind::Process, "/d/bin/worker-0", "/d/data/no-x"), true),
            (row(Kind::Process, "/bin/sh", "/any/actor"), false),
            (failed(row(Kind::Process, "/d/bin/w", "/d/bin/no")), false),
            (row(Kind::File, "/d/bin/w", "/d/data/f"), true),
            (row(Kind::File, "/d/bin/w", "/lib/libc.so.6"), false),
            (row(Kind::File, "/any/actor", "/d/data/f"), false),
            (row(Kind::File, "/d/binary", "/d/data/f"), false),
            (failed(row(Kind::File, "/d/bin/w", "/d/data/f")), false),
            (failed(row(Kind::Egress, "/d/bin/w", "127.0.0.1")), true),
            (row(Kind::Egress, "/bin/x", "127.0.0.1"), false),
            (row(Kind::Syscall, "/d/bin/w", "ptrace"), true),
            (row(Kind::Capability, "/d/bin/w", "CAP_CHOWN"), false),
        ] {
            assert_eq!(scope.covers(&row), covered, "{row:?}");
        }
    }
}
