//! The wire form of a summary. `docs/summary.md` describes each field.

use crate::{
    Printable, Row,
    row::{Labels, labels, time},
};
use ethogram_model::{Kind, Summary};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::BTreeMap;

/// The name and version of the wire form. Fields may be added within a version; a field
/// or table that changes its meaning or goes away makes a new one.
pub const SCHEMA: &str = "ethogram.summary/v1";

/// A summary as it is sent and stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: Printable,
    /// When it was computed.
    pub generated: jiff::Timestamp,
    /// How it is folded: `none`, `auto` or a number of children.
    pub fold: Printable,
    /// What makes one subject: `container` or `workload`.
    pub group: Printable,
    /// Who did something.
    pub subjects: Vec<Subject>,
}

/// One or several containers that a reader thinks of as one, with all they did. Texts are
/// empty and lists have no entries where nothing is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The cluster's name.
    pub cluster: Printable,
    /// Kubernetes namespace.
    pub namespace: Printable,
    /// Pod names; several only for a workload.
    pub pods: Vec<Printable>,
    /// Container names; several only for a workload outside Kubernetes.
    pub containers: Vec<Printable>,
    /// The owner.
    pub workload: Workload,
    /// Labels that all its containers have.
    pub labels: Labels,
    /// Images, oldest container first.
    pub images: Vec<Printable>,
    /// Machines.
    pub nodes: Vec<Printable>,
    /// `containerd`, `cri-o`, `docker`, `podman`, `systemd`, `record`, `host`.
    pub runtimes: Vec<Printable>,
    /// The runtime's ids, oldest container first.
    pub container_ids: Vec<Printable>,
    /// The control group of a container of which nothing else is known.
    pub cgroup: Printable,
    /// How many containers, restarts counted.
    pub instances: u64,
    /// What is missing from the tables.
    pub completeness: Completeness,
    /// The rows by kind.
    pub tables: BTreeMap<Table, Vec<Row>>,
}

/// The owner of containers that come and go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// `deployment`, `statefulset`, `compose`, `unit`, ...
    pub kind: Printable,
    /// Its name.
    pub name: Printable,
}

/// What is known to be missing from a subject's tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completeness {
    /// Whether nothing is known to be missing since the watch began.
    pub complete: bool,
    /// Since when the first container is watched.
    pub watched_since: jiff::Timestamp,
    /// Whether a container ran already when its watch began.
    pub already_running: bool,
    /// Events known not to be counted.
    pub losses: Vec<Loss>,
    /// When nobody watched.
    pub gaps: Vec<Gap>,
    /// When a watch broke off: what it saw in its last moments may be missing.
    pub broken_off: Vec<jiff::Timestamp>,
    /// Rows last seen before this time may be deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_since: Option<jiff::Timestamp>,
}

/// Events known not to be counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// `ring_full`, `task_state`, `unresolved`, `malformed`, `store`, `unattributed`,
    /// `upstream`.
    pub reason: Printable,
    /// How many.
    pub count: u64,
}

/// A time in which nobody watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// From when.
    pub from: jiff::Timestamp,
    /// Until when; absent if nobody watches now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<jiff::Timestamp>,
}

/// The name of a table: a kind's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table(pub Kind);

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let unknown = || de::Error::custom(format!("unknown table {word:?}"));
        Kind::from_word(&word).map(Self).ok_or_else(unknown)
    }
}

/// Why a text is no summary that this version can read.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// It has no schema, or not the form the schema says.
    #[error("this is no {SCHEMA} document")]
    Malformed(#[from] serde_json::Error),
    /// It is a document of another version.
    #[error(
        "this document is {found:?} and this version reads {SCHEMA:?}: use the version of ethogram that wrote it"
    )]
    OtherSchema {
        /// What it says it is.
        found: String,
    },
}

impl Document {
    /// Reads a document from JSON.
    ///
    /// # Errors
    /// If it is not JSON, not a summary, or of another version.
    pub fn from_json(json: &[u8]) -> Result<Self, ParseError> {
        #[derive(Deserialize)]
        struct Head {
            schema: String,
        }
        // The schema goes first: another version may fail to parse for reasons that would
        // puzzle the reader.
        let head: Head = serde_json::from_slice(json)?;
        if head.schema != SCHEMA {
            return Err(ParseError::OtherSchema { found: head.schema });
        }
        Ok(serde_json::from_slice(json)?)
    }
}

impl From<&Summary> for Document {
    fn from(summary: &Summary) -> Self {
        Self {
            schema: SCHEMA.into(),
            generated: time(summary.generated),
            fold: (&summary.fold.to_string()).into(),
            group: summary.group.as_str().into(),
            subjects: summary.subjects.iter().map(Subject::from).collect(),
        }
    }
}

fn texts(texts: &[String]) -> Vec<Printable> {
    texts.iter().map(Printable::from).collect()
}

impl Subject {
    /// The rows of a table.
    #[must_use]
    pub fn table(&self, kind: Kind) -> &[Row] {
        self.tables.get(&Table(kind)).map_or(&[], Vec::as_slice)
    }
}

impl From<&ethogram_model::Subject> for Subject {
    fn from(subject: &ethogram_model::Subject) -> Self {
        let runtimes = subject.runtimes.iter();
        let table = |kind: &Kind| {
            let rows = subject.table(*kind).iter().map(Row::from);
            (Table(*kind), rows.collect())
        };
        Self {
            cluster: (&subject.cluster).into(),
            namespace: (&subject.namespace).into(),
            pods: texts(&subject.pods),
            containers: texts(&subject.containers),
            workload: Workload {
                kind: (&subject.workload.kind).into(),
                name: (&subject.workload.name).into(),
            },
            labels: labels(&subject.labels),
            images: texts(&subject.images),
            nodes: texts(&subject.nodes),
            runtimes: runtimes.map(|runtime| runtime.as_str().into()).collect(),
            container_ids: texts(&subject.container_ids),
            cgroup: (&subject.cgroup).into(),
            instances: subject.instances,
            completeness: (&subject.completeness).into(),
            tables: Kind::ALL.iter().map(table).collect(),
        }
    }
}

impl From<&ethogram_model::Completeness> for Completeness {
    fn from(completeness: &ethogram_model::Completeness) -> Self {
        let losses = completeness.losses.iter().map(|loss| Loss {
            reason: loss.reason.as_str().into(),
            count: loss.count,
        });
        let gaps = completeness.gaps.iter().map(|gap| Gap {
            from: time(gap.from),
            until: gap.until.map(time),
        });
        Self {
            complete: completeness.is_complete(),
            watched_since: time(completeness.watched_since),
            already_running: completeness.already_running,
            losses: losses.collect(),
            gaps: gaps.collect(),
            broken_off: completeness.broken_off.iter().copied().map(time).collect(),
            kept_since: completeness.kept_since.map(time),
        }
    }
}
