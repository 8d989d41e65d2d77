//! From stored facts to what a reader gets: subjects, each with its rows and with what is
//! missing from them.

mod completeness;
mod peers;
mod resolved;
mod subjects;

pub use completeness::{Completeness, Gap};
pub use peers::{Peer, Peers};
pub use subjects::{Group, Subject};

use crate::{
    Access, Behaviour, Container, ContainerKey, Endpoint, Fold, Folder, Folding, Kind, Loss, Name,
    Observation, Protocol, Resolution, Run, Selection, Status, Tally, Timestamp,
};
use completeness::Watches;
use resolved::{Names, Resolved};
use std::{borrow::Cow, collections::HashMap};

/// Everything a summary is computed from. What belongs to containers that are not listed
/// is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The containers in question.
    pub containers: &'a [Container],
    /// All their observations, not only the selected ones: which directories fold is
    /// decided over all, so that a filter does not change how the rows it leaves look.
    pub observations: &'a [Observation],
    /// Who had which address when.
    pub endpoints: &'a [Endpoint],
    /// What name servers told the containers.
    pub resolutions: &'a [Resolution],
    /// What is known to be missing.
    pub losses: &'a [(ContainerKey, Loss)],
    /// When somebody watched.
    pub runs: &'a [Run],
    /// Rows last seen before this time may have been deleted by retention.
    pub kept_since: Option<Timestamp>,
}

/// What a reader wants to see, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SummaryOptions {
    /// Which containers and observations.
    pub selection: Selection,
    /// How much to fold.
    pub fold: Fold,
    /// What makes one subject.
    pub group: Group,
    /// The cluster's name, or empty.
    pub cluster: String,
    /// Show the containers that only hold a pod's namespaces.
    pub sandboxes: bool,
    /// Show subjects without rows and losses.
    pub empty: bool,
}

/// What was seen of a selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// When it was computed.
    pub generated: Timestamp,
    /// How it is folded.
    pub fold: Fold,
    /// What makes one subject.
    pub group: Group,
    /// Sorted by namespace, pod or workload, container, node.
    pub subjects: Vec<Subject>,
}

/// One line of a table: one behaviour, or several that are shown as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What is done. The target is the folded one; the access is how it is used, without
    /// marks; of several addresses of one peer, the target is the one seen last.
    pub behaviour: Behaviour,
    /// Marks on what is named (`upper-layer`, `at-start`, ...) of any row behind this one.
    pub marks: Access,
    /// Who has the target's address, if known.
    pub peer: Option<Peer>,
    /// Names that the container was given the target's address for: what its programs asked
    /// for, as far as that was seen. The one told last comes first.
    pub dns_names: Vec<Name>,
    /// How often in all.
    pub tally: Tally,
    /// Arguments of the first sighting that has any.
    pub example: Name,
    /// How many stored rows stand behind this one; at least 1.
    pub rows: u64,
}

/// Computes a summary. The order of the facts does not matter.
#[must_use]
pub fn summarize(facts: &Facts, options: &SummaryOptions, now: Timestamp) -> Summary {
    let mut groups = subjects::group(facts.containers, options);
    let group_of: HashMap<&ContainerKey, usize> = groups
        .iter()
        .enumerate()
        .flat_map(|(at, group)| group.iter().map(move |container| (&container.key, at)))
        .collect();

    let mut observations: Vec<Vec<&Observation>> = vec![Vec::new(); groups.len()];
    for observation in facts.observations {
        if let Some(&at) = group_of.get(&observation.container) {
            observations[at].push(observation);
        }
    }
    let mut losses: Vec<Vec<Loss>> = vec![Vec::new(); groups.len()];
    for (container, loss) in facts.losses {
        if let Some(&at) = group_of.get(container) {
            losses[at].push(*loss);
        }
    }

    let peers = Peers::new(facts.endpoints);
    let watches = Watches::new(facts.runs, now);
    let resolved = Resolved::new(facts.resolutions);
    let subjects = groups
        .drain(..)
        .zip(observations)
        .zip(losses)
        .map(|((containers, observations), losses)| {
            let rows = rows(&observations, options, &peers, &resolved);
            let completeness = Completeness::new(&containers, &losses, &watches, facts.kept_since);
            Subject::new(&containers, options, rows, completeness)
        })
        .filter(|subject| {
            options.empty || !subject.rows.is_empty() || !subject.completeness.losses.is_empty()
        })
        .collect();
    Summary {
        generated: now,
        fold: options.fold,
        group: options.group,
        subjects,
    }
}

/// What must be equal for two observations to be one row.
#[derive(PartialEq, Eq, Hash)]
struct RowKey<'a> {
    kind: Kind,
    source: &'a str,
    /// The target as shown, or empty where the peer says it better.
    target: &'a str,
    /// Name and namespace.
    peer: Option<(&'a str, &'a str)>,
    protocol: Protocol,
    port: u16,
    access: Access,
    status: Status,
}

/// What was folded at the source takes in what was kept before it folded, so that a summary
/// does not depend on what came first.
fn folded_at_source<'a>(observations: &[&'a Observation]) -> Vec<Cow<'a, Observation>> {
    let folding = Folding::of(observations.iter().map(|o| &o.behaviour));
    observations
        .iter()
        .map(|observation| match folding.row(&observation.behaviour) {
            Cow::Borrowed(_) => Cow::Borrowed(*observation),
            Cow::Owned(behaviour) => Cow::Owned(Observation {
                behaviour,
                ..(*observation).clone()
            }),
        })
        .collect()
}

/// Folds, merges and sorts the observations of one subject.
fn rows(
    observations: &[&Observation],
    options: &SummaryOptions,
    peers: &Peers,
    resolved: &Resolved,
) -> Vec<Row> {
    let observations = folded_at_source(observations);
    let folder = Folder::decide(options.fold, observations.iter().map(|o| &o.behaviour));
    let mut at_key = HashMap::<RowKey, usize>::new();
    let mut rows = Vec::<Row>::new();
    let mut names = Vec::<Names>::new();
    for observation in &observations {
        if !options.selection.selects_observation(observation) {
            continue;
        }
        let peer = peers.of(observation);
        let key = row_key(observation, options.fold, &folder, peer);
        let target = key.target;
        let at = *at_key.entry(key).or_insert(rows.len());
        if at == rows.len() {
            rows.push(Row::new(observation, target, peer));
            names.push(Names::new());
        } else {
            rows[at].take_in(observation, peer);
        }
        resolved.add_names(observation, &mut names[at]);
    }
    for (row, names) in rows.iter_mut().zip(&names) {
        row.dns_names = resolved::in_order(names);
    }
    if options.fold != Fold::None {
        rows = join_listens(rows);
    }
    rows.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
    rows
}

/// A socket that is bound and then listens is one bind point, counted as often as it was
/// bound. One that listens without a bind that was seen keeps its row.
fn join_listens(rows: Vec<Row>) -> Vec<Row> {
    let bare = |row: &Row| Behaviour {
        access: row.behaviour.access.without(Access::LISTEN),
        ..row.behaviour.clone()
    };
    let (listens, mut rows): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| {
        row.behaviour.kind == Kind::Bind && row.behaviour.access.contains(Access::LISTEN)
    });
    let binds: HashMap<Behaviour, usize> = rows
        .iter()
        .enumerate()
        .filter(|(_, row)| row.behaviour.kind == Kind::Bind)
        .map(|(at, row)| (row.behaviour.clone(), at))
        .collect();
    for listen in listens {
        match binds.get(&bare(&listen)) {
            Some(&at) => {
                let bind = &mut rows[at];
                let count = bind.tally.count;
                bind.tally = Tally {
                    count,
                    ..bind.tally.join(listen.tally)
                };
                bind.behaviour.access |= Access::LISTEN;
                bind.marks |= listen.marks;
                bind.rows += listen.rows;
            }
            None => rows.push(listen),
        }
    }
    rows
}

fn row_key<'a>(
    observation: &'a Observation,
    fold: Fold,
    folder: &Folder,
    peer: Option<&'a Endpoint>,
) -> RowKey<'a> {
    let behaviour = &observation.behaviour;
    let exact = fold == Fold::None;
    // Several addresses of one pod or service are one peer, unless all is asked for.
    let peer = peer.filter(|_| !exact);
    RowKey {
        kind: behaviour.kind,
        source: behaviour.source.as_str(),
        target: match (peer, folder.directory(behaviour)) {
            (Some(_), _) => "",
            (None, Some(directory)) => directory,
            (None, None) => behaviour.target.as_str(),
        },
        peer: peer.map(|peer| (peer.name.as_str(), peer.namespace.as_str())),
        protocol: behaviour.protocol,
        port: behaviour.port,
        // Reading and writing one file is one row, unless all is asked for.
        access: if behaviour.kind == Kind::File && !exact {
            Access::empty()
        } else {
            uses(behaviour.access)
        },
        status: behaviour.status,
    }
}

impl Row {
    fn new(observation: &Observation, target: &str, peer: Option<&Endpoint>) -> Self {
        let behaviour = &observation.behaviour;
        let target = if target.is_empty() || target == behaviour.target.as_str() {
            behaviour.target.clone()
        } else {
            Name::from_escaped(target)
        };
        Self {
            behaviour: Behaviour {
                target,
                access: uses(behaviour.access),
                ..behaviour.clone()
            },
            marks: marks(behaviour.access),
            peer: peer.map(Peer::from),
            dns_names: Vec::new(),
            tally: observation.tally,
            example: observation.example.clone(),
            rows: 1,
        }
    }

    /// Adds an observation that is shown as this row.
    fn take_in(&mut self, observation: &Observation, peer: Option<&Endpoint>) {
        let other = &observation.behaviour;
        if let Some(peer) = peer {
            let newer = (observation.tally.last, &other.target);
            if newer > (self.tally.last, &self.behaviour.target) {
                self.behaviour.target = other.target.clone();
                self.peer = Some(Peer::from(peer));
            }
        }
        // The earliest example is kept; equally early ones are decided by their text.
        let example = &observation.example;
        let earlier = (observation.tally.first, example) < (self.tally.first, &self.example);
        if !example.is_empty() && (self.example.is_empty() || earlier) {
            self.example = example.clone();
        }
        self.behaviour.access |= uses(other.access);
        self.marks |= marks(other.access);
        self.tally = self.tally.plus(observation.tally);
        self.rows += 1;
    }

    /// Tables in their order, then as a reader looks things up.
    fn order(&self) -> impl Ord + '_ {
        let b = &self.behaviour;
        let peer = self.peer.as_ref();
        (
            (b.kind, &b.source, peer.map(|p| (&p.name, &p.namespace))),
            (&b.target, b.port, b.protocol, b.status, b.access),
        )
    }
}

/// The flags that say how something is used.
const USES: Access = Access::from_bits(
    Access::READ.bits()
        | Access::WRITE.bits()
        | Access::CREATE.bits()
        | Access::DELETE.bits()
        | Access::RENAME.bits()
        | Access::ATTR.bits()
        | Access::LISTEN.bits(),
);

fn uses(access: Access) -> Access {
    access.without(marks(access))
}

fn marks(access: Access) -> Access {
    access.without(USES)
}

#[cfg(test)]
mod tests;
