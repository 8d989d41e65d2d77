//! Folding at the source: a budget of rows for each container.
//!
//! A container may behave in more ways than anybody can keep: a million temporary files, a
//! million peers, a scan of all ports. Then places (see `place.rs`) fold, each into a few
//! rows that are marked, until the budget is kept.
//!
//! # The rule
//!
//! Each kind and outcome of a container has a tree of places and a budget of
//! [`Budget::rows_max`] rows. Of every place the rows below it are counted, those below a
//! folded place no longer; a place folds when there are more than its share. Once folded
//! it stays so, and takes in all below it. Shares shrink from the whole budget at the root
//! downwards, so a flood folds near its source, and several floods side by side fold what
//! they have in common.
//!
//! A folded place has a row for each executable, access and port that were seen below it.
//! With more than its share of those, ports are no longer told apart; with still more, nor
//! executables and accesses (`*`).
//!
//! # What is promised
//!
//! 1. *Bounded.* No more than `rows_max` rows of a kind and outcome. A row that is not
//!    folded adds one to the root's count, and a folded place has added more than it has
//!    rows, for every place folds at a number above [`Budget::labels_max`]; the root folds
//!    at `rows_max`.
//! 2. *Order-independent.* Which places fold is a function of the set of behaviours. Say
//!    `p(place)` is the least of its share plus one and the sum over all in it (1 for a
//!    behaviour, `p` for a place). It only grows with the set; a place folds exactly when
//!    `p` exceeds its share; and what happens below a folded place changes no `p` that
//!    matters, so it need not be known. The same holds for ports and executables: folding
//!    a place does not hide them.
//! 3. *Nothing lost.* Every event is in exactly one row. Rows that were reported before
//!    their place folded stay as reported, and the folded row counts the rest; whoever
//!    shows them ([`Folding::of`]) shows those rows as the folded one as well.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
};

use crate::{Access, Behaviour, Kind, Name, Protocol, Status, place::Place};

/// How many rows a container may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    rows_max: u32,
}

impl Budget {
    /// The smallest that can be divided into shares.
    pub const ROWS_MIN: u32 = 128;

    /// Enough for 1,024 files of one directory and 512 ports of one address, each used by
    /// one executable in one way.
    pub const DEFAULT: Self = Self::new(32_768);

    /// A budget of so many rows of each kind and outcome; at least [`Budget::ROWS_MIN`].
    #[must_use]
    pub const fn new(rows_max: u32) -> Self {
        let rows_max = if rows_max < Self::ROWS_MIN {
            Self::ROWS_MIN
        } else {
            rows_max
        };
        Self { rows_max }
    }

    /// Rows of one kind and outcome.
    #[must_use]
    pub const fn rows_max(self) -> u32 {
        self.rows_max
    }

    /// Rows a place may have below it before it folds. `depth` is 0 for [`Place::All`].
    fn share(self, place: &Place, depth: usize) -> u32 {
        let halved = self.rows_max.checked_shr(depth as u32 + 1).unwrap_or(0);
        match place {
            Place::All => self.rows_max,
            Place::Below(_) => halved.max(self.rows_max / 16),
            Place::Net { .. } => halved,
            Place::In(_) | Place::Just(_) => self.rows_max / 32,
        }
    }

    /// Executables, accesses and ports that are told apart in a folded place.
    #[must_use]
    pub const fn labels_max(self) -> u32 {
        self.rows_max / 128
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What is told apart in a folded place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grain {
    /// Executables, accesses and ports.
    #[default]
    Everything,
    /// Any port.
    NotPorts,
    /// Any executable, any access.
    Nothing,
}

/// A place that folded, or in which less is told apart than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFold {
    /// The kind of behaviours that folded.
    pub kind: Kind,
    /// Their outcome.
    pub status: Status,
    /// Where.
    pub place: Place,
    /// What is still told apart.
    pub grain: Grain,
}

/// Stands for any executable. An executable's path begins with a slash or a word.
const ANY: &str = "*";

type Label = (Name, Access, u16, Protocol);

/// A folded place.
#[derive(Clone, Debug, Default)]
struct Folded {
    grain: Grain,
    labels: HashSet<Label>,
}

/// The tree of one kind and outcome.
#[derive(Clone, Debug, Default)]
struct Tree {
    /// Rows below places that are not folded.
    rows: HashMap<Place, u32>,
    folded: HashMap<Place, Folded>,
}

/// Which places of a container are folded.
#[derive(Clone, Debug, Default)]
pub struct Folding {
    budget: Budget,
    trees: BTreeMap<(Kind, Status), Tree>,
    news: Vec<NewFold>,
}

impl Folding {
    /// Nothing folded yet.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            trees: BTreeMap::new(),
            news: Vec::new(),
        }
    }

    /// What folded since the last time.
    pub fn take_news(&mut self) -> Vec<NewFold> {
        std::mem::take(&mut self.news)
    }

    /// What is folded according to rows that are marked so. For showing: it folds what
    /// those rows fold, and nothing more.
    pub fn of<'a>(behaviours: impl IntoIterator<Item = &'a Behaviour>) -> Self {
        let mut folding = Self::default();
        for behaviour in behaviours {
            folding.heed(behaviour);
        }
        for tree in folding.trees.values_mut() {
            tree.raise_grains();
        }
        folding
    }

    /// Takes note of a folded row; false if it is not one, or says nothing new.
    pub fn heed(&mut self, behaviour: &Behaviour) -> bool {
        if !behaviour.access.contains(Access::FOLDED) {
            return false;
        }
        let Some(place) = Place::above(behaviour).pop() else {
            return false;
        };
        let grain = grain_of(behaviour, &place);
        let tree = self.tree(behaviour);
        let is_new = !tree.folded.contains_key(&place);
        let folded = tree.folded.entry(place).or_default();
        let is_coarser = grain > folded.grain;
        folded.grain = folded.grain.max(grain);
        is_new || is_coarser
    }

    /// Whether nothing is folded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trees.values().all(|tree| tree.folded.is_empty())
    }

    /// The row a behaviour is counted in: its own, or that of the widest folded place.
    #[must_use]
    pub fn row<'a>(&self, behaviour: &'a Behaviour) -> Cow<'a, Behaviour> {
        let Some(tree) = self
            .trees
            .get(&(behaviour.kind, behaviour.status))
            .filter(|tree| !tree.folded.is_empty())
        else {
            return Cow::Borrowed(behaviour);
        };
        Place::above(behaviour)
            .iter()
            .find_map(|place| Some((place, tree.folded.get(place)?)))
            .map_or(Cow::Borrowed(behaviour), |(place, folded)| {
                Cow::Owned(folded_row(behaviour, place, folded.grain))
            })
    }

    /// Takes note of a row that is new, as [`Folding::row`] gave it. True if rows fold
    /// now that did not before: then each has to be asked for anew, this one included.
    pub fn admit(&mut self, row: &Behaviour) -> bool {
        let places = Place::above(row);
        let budget = self.budget;
        let tree = self.tree(row);
        let folds = if row.access.contains(Access::FOLDED) {
            let folded = places.last().and_then(|place| tree.folded.get_mut(place));
            let coarser = folded.and_then(|folded| folded.admit(label_of(row), budget));
            places.last().zip(coarser)
        } else {
            let is_full = |(depth, place): &(usize, &Place)| {
                let rows = tree.rows.entry((*place).clone()).or_default();
                *rows += 1;
                *rows > budget.share(place, *depth)
            };
            let full = places.iter().enumerate().find(is_full);
            full.map(|(_, place)| (place, tree.fold(place)))
        };
        let Some((place, grain)) = folds else {
            return false;
        };
        self.news.push(NewFold {
            kind: row.kind,
            status: row.status,
            place: place.clone(),
            grain,
        });
        true
    }

    fn tree(&mut self, behaviour: &Behaviour) -> &mut Tree {
        self.trees
            .entry((behaviour.kind, behaviour.status))
            .or_default()
    }
}

impl Tree {
    fn fold(&mut self, place: &Place) -> Grain {
        let below = |other: &Place| place.contains(other);
        let grain = self
            .folded
            .iter()
            .filter(|(other, _)| below(other))
            .map(|(_, folded)| folded.grain)
            .max()
            .unwrap_or_default();
        self.folded.retain(|other, _| !below(other));
        self.rows.retain(|other, _| !below(other));
        let labels = HashSet::new();
        self.folded.insert(place.clone(), Folded { grain, labels });
        grain
    }

    /// What a place below no longer tells apart, the one that takes it in cannot either.
    fn raise_grains(&mut self) {
        let grains: Vec<(Place, Grain)> = self
            .folded
            .iter()
            .map(|(place, folded)| (place.clone(), folded.grain))
            .collect();
        for (place, folded) in &mut self.folded {
            let below = grains.iter().filter(|(other, _)| place.contains(other));
            folded.grain = below.map(|(_, grain)| *grain).max().unwrap_or_default();
        }
    }
}

impl Folded {
    /// What is told apart from now on, if that is less than before.
    fn admit(&mut self, label: Label, budget: Budget) -> Option<Grain> {
        let before = self.grain;
        if self.grain < Grain::Nothing {
            self.labels.insert(label);
        }
        if self.grain == Grain::Everything && self.labels.len() > budget.labels_max() as usize {
            self.grain = Grain::NotPorts;
            let portless = |(source, access, _, protocol)| (source, access, 0, protocol);
            self.labels = self.labels.drain().map(portless).collect();
        }
        if self.labels.len() > budget.labels_max() as usize {
            self.grain = Grain::Nothing;
            self.labels = HashSet::new();
        }
        (self.grain > before).then_some(self.grain)
    }
}

fn label_of(row: &Behaviour) -> Label {
    (row.source.clone(), row.access, row.port, row.protocol)
}

/// The row of a place that stands for a behaviour below it.
fn folded_row(behaviour: &Behaviour, place: &Place, grain: Grain) -> Behaviour {
    let mut row = Behaviour {
        target: Name::from_escaped(&place.text()),
        access: behaviour.access | Access::FOLDED,
        ..behaviour.clone()
    };
    if grain >= Grain::NotPorts {
        row.port = port_of(place);
    }
    if grain == Grain::Nothing {
        row.source = Name::from(ANY);
        row.access = Access::FOLDED;
        if *place == Place::All {
            row.protocol = Protocol::None;
        }
    }
    row
}

/// The port that all in a place have in common; 0 if there is none.
fn port_of(place: &Place) -> u16 {
    match place {
        Place::Net { port, .. } => *port,
        _ => 0,
    }
}

/// What a folded row tells apart. One without a port is taken for one of any port.
fn grain_of(row: &Behaviour, place: &Place) -> Grain {
    let has_ports = matches!(row.kind, Kind::Ingress | Kind::Egress | Kind::Bind);
    if row.source.as_str() == ANY {
        Grain::Nothing
    } else if has_ports && row.port == 0 && port_of(place) == 0 {
        Grain::NotPorts
    } else {
        Grain::Everything
    }
}

#[cfg(test)]
mod tests;
