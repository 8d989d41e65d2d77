//! One line of a table: its fields, and which table shows which of them under what title.

use crate::{Printable, words};
use ethogram_model::{Kind, Timestamp};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap};

/// Labels of a pod or service.
pub(crate) type Labels = BTreeMap<Printable, Printable>;

/// What one field of one row says. Formats differ in how they write times and nothing.
pub(crate) enum Cell<'a> {
    Text(Cow<'a, str>),
    Number(u64),
    Time(jiff::Timestamp),
}

impl Cell<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }
}

impl<'a> From<&'a Printable> for Cell<'a> {
    fn from(text: &'a Printable) -> Self {
        Self::Text(text.as_str().into())
    }
}

impl<'a> From<&'a Vec<Printable>> for Cell<'a> {
    fn from(words: &'a Vec<Printable>) -> Self {
        match words.as_slice() {
            [] => Self::Text("".into()),
            [word] => word.into(),
            words => Self::Text(words::joined(words, ",").into()),
        }
    }
}

impl<'a> From<&'a Labels> for Cell<'a> {
    fn from(labels: &'a Labels) -> Self {
        Self::Text(words::labels(labels).into())
    }
}

impl From<&u64> for Cell<'_> {
    fn from(number: &u64) -> Self {
        Self::Number(*number)
    }
}

impl From<&Option<u16>> for Cell<'_> {
    fn from(number: &Option<u16>) -> Self {
        number.map_or(Self::Text("".into()), |number| Self::Number(number.into()))
    }
}

impl From<&jiff::Timestamp> for Cell<'_> {
    fn from(time: &jiff::Timestamp) -> Self {
        Self::Time(*time)
    }
}

/// Defines the row with its wire names, and [`Field`] to speak of its fields, so that each
/// field is named once for JSON, YAML, CSV, text and HTML.
macro_rules! fields {
    ($(#[$meta:meta])* $row:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $row { $($(#[$field_meta])* pub $field: $type,)+ }

        /// A field of a [`Row`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(non_camel_case_types, missing_docs, reason = "the variants are the row's fields")]
        pub enum Field { $($field,)+ }

        impl Field {
            /// Every field, in the order of JSON and CSV.
            pub const ALL: &'static [Self] = &[$(Self::$field,)+];

            /// Its name in JSON, YAML and CSV.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$field => stringify!($field),)+ }
            }

            pub(crate) fn cell(self, row: &$row) -> Cell<'_> {
                match self { $(Self::$field => (&row.$field).into(),)+ }
            }
        }
    };
}

fields! {
    /// One line of a table: what is done, how it ended, how often and when.
    Row {
        /// The executable that acts.
        source: Printable,
        /// What it acts upon: an executable, a path, an address, a capability, a system call.
        target: Printable,
        /// Network tables only: `TCP`, `UDPv6`, `AF_UNIX`, ...
        #[serde(default, skip_serializing_if = "Printable::is_empty")]
        protocol: Printable,
        /// Network tables only: the remote port (egress) or the local one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// `pod/NAME`, `svc/NAME`, `node/NAME` or `container/NAME` of the target's address.
        #[serde(default, skip_serializing_if = "Printable::is_empty")]
        peer: Printable,
        /// The peer's Kubernetes namespace.
        #[serde(default, skip_serializing_if = "Printable::is_empty")]
        peer_namespace: Printable,
        /// The peer's labels.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        peer_labels: Labels,
        /// The name that DNS has for the target's address, if it was asked. Whoever owns
        /// the address chose it.
        #[serde(default, skip_serializing_if = "Printable::is_empty")]
        dns_name: Printable,
        /// Egress only: the names for which the container was given the target's address, by
        /// the name servers that its own programs asked; the one told last comes first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        dns_names: Vec<Printable>,
        /// How a file is used (`read`, `write`, ...), or whether a bound socket listens.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        access: Vec<Printable>,
        /// Marks on what is named: `at-start`, `upper-layer`, ...
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        marks: Vec<Printable>,
        /// `Allow`, `Deny`, `Audit` or `Failed`.
        status: Printable,
        /// How often.
        count: u64,
        /// When it was first seen.
        first_seen: jiff::Timestamp,
        /// When it was last seen.
        last_seen: jiff::Timestamp,
        /// An example of the arguments of an executable.
        #[serde(default, skip_serializing_if = "Printable::is_empty")]
        args: Printable,
        /// How many stored rows this one stands for.
        rows: u64,
    }
}

impl From<&ethogram_model::Row> for Row {
    fn from(row: &ethogram_model::Row) -> Self {
        let behaviour = &row.behaviour;
        let peer = row.peer.as_ref();
        let all = |words: ethogram_model::Access| words.words().map(Printable::from).collect();
        Self {
            source: (&behaviour.source).into(),
            target: (&behaviour.target).into(),
            protocol: behaviour.protocol.as_str().into(),
            port: (behaviour.port != 0).then_some(behaviour.port),
            peer: peer.map(|p| (&p.name).into()).unwrap_or_default(),
            peer_namespace: peer.map(|p| (&p.namespace).into()).unwrap_or_default(),
            peer_labels: peer.map(|p| labels(&p.labels)).unwrap_or_default(),
            dns_name: Printable::default(),
            dns_names: row.dns_names.iter().map(Printable::from).collect(),
            access: all(behaviour.access),
            marks: all(row.marks),
            status: behaviour.status.as_str().into(),
            count: row.tally.count,
            first_seen: time(row.tally.first),
            last_seen: time(row.tally.last),
            args: (&row.example).into(),
            rows: row.rows,
        }
    }
}

pub(crate) fn labels(labels: &ethogram_model::Labels) -> Labels {
    let label = |(key, value): (&String, &String)| (key.into(), value.into());
    labels.iter().map(label).collect()
}

pub(crate) fn time(time: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(time.0.into())
        .expect("64 bits of nanoseconds end in 2262, jiff's range in 9999")
}

/// A column of a table for people.
pub(crate) struct Column {
    pub(crate) title: &'static str,
    field: Field,
    /// What to show where the field says nothing.
    otherwise: Option<Field>,
    /// What else is known of what is shown instead; in parentheses after it.
    aside: Option<Field>,
    /// Names for what is shown instead: the first goes before it.
    names: Option<fn(&Row) -> &[Printable]>,
    /// The title on a terminal too narrow for the other one.
    pub(crate) narrow_title: &'static str,
    /// Shown only on demand, or where [`Column::tells_folded`].
    pub(crate) wide: bool,
    /// Left out where a terminal is too narrow for all: formats for programs have it.
    pub(crate) spare: bool,
    /// May be shortened to fit a terminal.
    pub(crate) shrinks: bool,
}

impl Column {
    const fn new(title: &'static str, field: Field) -> Self {
        Self {
            title,
            field,
            otherwise: None,
            aside: None,
            names: None,
            narrow_title: title,
            wide: false,
            spare: false,
            shrinks: false,
        }
    }

    const fn or(self, otherwise: Field) -> Self {
        Self {
            otherwise: Some(otherwise),
            ..self
        }
    }

    const fn aside(self, aside: Field) -> Self {
        Self {
            aside: Some(aside),
            ..self
        }
    }

    const fn named(self, names: fn(&Row) -> &[Printable]) -> Self {
        Self {
            names: Some(names),
            ..self
        }
    }

    const fn narrow(self, narrow_title: &'static str) -> Self {
        Self {
            narrow_title,
            ..self
        }
    }

    const fn shrinks(self) -> Self {
        Self {
            shrinks: true,
            ..self
        }
    }

    const fn spare(self) -> Self {
        Self {
            spare: true,
            ..self
        }
    }

    const fn wide(self) -> Self {
        Self { wide: true, ..self }
    }

    /// Whether it says of a row that it stands for more than was kept: never left out.
    pub(crate) fn tells_folded(&self, rows: &[Row]) -> bool {
        let is_folded = |row: &Row| row.marks.iter().any(|mark| mark.as_str() == "folded");
        self.field == Field::marks && rows.iter().any(is_folded)
    }

    pub(crate) fn is_status(&self) -> bool {
        self.field == Field::status
    }

    pub(crate) fn cell<'a>(&self, row: &'a Row) -> Cell<'a> {
        let cell = self.field.cell(row);
        let Some(otherwise) = self.otherwise.filter(|_| cell.is_empty()) else {
            return cell;
        };
        if let Some((first, others)) = self.names.and_then(|names| names(row).split_first())
            && let Cell::Text(text) = otherwise.cell(row)
        {
            let more = match others.len() {
                0 => String::new(),
                n => format!(" +{n}"),
            };
            return Cell::Text(format!("{first}{more} ({text})").into());
        }
        match (otherwise.cell(row), self.aside.map(|aside| aside.cell(row))) {
            (Cell::Text(text), Some(Cell::Text(aside))) if !aside.is_empty() => {
                Cell::Text(format!("{text} ({aside})").into())
            }
            (cell, _) => cell,
        }
    }
}

/// The title above a table.
pub(crate) const fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Process => "Process Data",
        Kind::File => "File Data",
        Kind::Ingress => "Ingress connections",
        Kind::Egress => "Egress connections",
        Kind::Bind => "Bind Points",
        Kind::Capability => "Capabilities",
        Kind::Syscall => "System calls",
    }
}

const SOURCE: Column = Column::new("SRC PROCESS", Field::source).shrinks();
const COMMAND: Column = Column::new("COMMAND", Field::source).shrinks();
const PROTOCOL: Column = Column::new("PROTOCOL", Field::protocol).narrow("PROTO");
const ACCESS: Column = Column::new("ACCESS", Field::access);
const COUNT: Column = Column::new("COUNT", Field::count);
const LAST: Column = Column::new("LAST UPDATED TIME", Field::last_seen).narrow("LAST SEEN");
const STATUS: Column = Column::new("STATUS", Field::status);
const FIRST: Column = Column::new("FIRST SEEN", Field::first_seen).wide();
const MARKS: Column = Column::new("MARKS", Field::marks).wide();
const ROWS: Column = Column::new("ROWS", Field::rows).wide();

/// The columns of a table. Those of `karmor summary` come first and in its order; what we
/// add comes after, so that whoever counts columns finds them where they were.
pub(crate) const fn columns(kind: Kind) -> &'static [Column] {
    const PROCESS: &[Column] = &[
        SOURCE,
        Column::new("DESTINATION PROCESS PATH", Field::target)
            .narrow("DESTINATION")
            .shrinks(),
        COUNT,
        LAST,
        STATUS,
        FIRST,
        Column::new("ARGS", Field::args).shrinks().wide(),
        MARKS,
        ROWS,
    ];
    const FILE: &[Column] = &[
        SOURCE,
        Column::new("DESTINATION FILE PATH", Field::target)
            .narrow("DESTINATION")
            .shrinks(),
        COUNT,
        LAST,
        STATUS,
        ACCESS,
        FIRST,
        MARKS,
        ROWS,
    ];
    const CONNECTION: &[Column] = &[
        PROTOCOL,
        COMMAND,
        Column::new("POD/SVC/IP", Field::peer)
            .or(Field::target)
            .aside(Field::dns_name)
            .named(|row| &row.dns_names)
            .shrinks(),
        Column::new("PORT", Field::port),
        Column::new("NAMESPACE", Field::peer_namespace).spare(),
        Column::new("LABELS", Field::peer_labels).shrinks().spare(),
        COUNT,
        LAST,
        STATUS,
        FIRST,
        Column::new("ADDRESS", Field::target).shrinks().wide(),
        MARKS,
        ROWS,
    ];
    const BIND: &[Column] = &[
        PROTOCOL,
        COMMAND,
        Column::new("BIND PORT", Field::port).narrow("PORT"),
        Column::new("BIND ADDRESS", Field::target)
            .narrow("ADDRESS")
            .shrinks(),
        COUNT,
        LAST,
        STATUS,
        ACCESS,
        FIRST,
        MARKS,
        ROWS,
    ];
    const CAPABILITY: &[Column] = &[
        SOURCE,
        Column::new("CAPABILITY", Field::target),
        COUNT,
        LAST,
        STATUS,
        FIRST,
        MARKS,
        ROWS,
    ];
    const SYSCALL: &[Column] = &[
        SOURCE,
        Column::new("SYSTEM CALL", Field::target),
        COUNT,
        LAST,
        STATUS,
        FIRST,
        MARKS,
        ROWS,
    ];
    match kind {
        Kind::Process => PROCESS,
        Kind::File => FILE,
        Kind::Ingress | Kind::Egress => CONNECTION,
        Kind::Bind => BIND,
        Kind::Capability => CAPABILITY,
        Kind::Syscall => SYSCALL,
    }
}
