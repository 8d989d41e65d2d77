//! Telling others what changed: what makes a store the spool of a sender.
//!
//! A sender asks for the changes since a [`Position`], page by page, and writes down how
//! far each collector has acknowledged. Pages carry *totals* over all runs, so a page that
//! is sent twice, late or out of order changes nothing at a receiver that joins by max.
//! One walk over everything that changed is a *round*; what changes meanwhile is in the
//! same round or the next. A position that has been used or lost costs sending again,
//! never a change.

use crate::StoreError;
use ethogram_model::{Container, Endpoint, Loss, Observation, Resolution, Run};

/// Columns that tell one row of a container from the others.
pub(crate) const PLACE_COLUMNS: usize = 7;

/// How far somebody has read. Means something only to the store that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// All changes up to this report are known.
    pub(crate) after: i64,
    /// The report with which this round began; `after` itself between rounds.
    pub(crate) until: i64,
    /// In this round, runs up to this number are known,
    pub(crate) run: i64,
    /// endpoints up to this one,
    pub(crate) endpoint: i64,
    /// resolutions up to this one,
    pub(crate) resolution: i64,
    /// containers before this one,
    pub(crate) container: i64,
    /// and of that container the rows up to this one.
    pub(crate) place: [i64; PLACE_COLUMNS],
}

impl Position {
    /// Nothing is known.
    pub const START: Self = Self::at_rest(-1);

    /// Between rounds: all is known up to a report.
    pub(crate) const fn at_rest(after: i64) -> Self {
        Self {
            after,
            until: after,
            run: 0,
            endpoint: 0,
            resolution: 0,
            container: 0,
            place: [0; PLACE_COLUMNS],
        }
    }

    /// Whether a round ended here: all that had changed when it began is known.
    #[must_use]
    pub const fn is_at_rest(&self) -> bool {
        self.after == self.until
    }
}

/// How large a page may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimits {
    /// Observations, endpoints, resolutions and runs, in all.
    pub rows_max: usize,
    /// Bytes of text and numbers, by an estimate from above. A page has at least one row,
    /// so a row that is larger than this exceeds it.
    pub bytes_max: usize,
}

/// A container in a page, with those of its rows that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerChanges {
    /// All that is known of it, whether or not that changed. The end of time stands for a
    /// `watched_since` that nobody has told yet.
    pub container: Container,
    /// Totals over all runs.
    pub observations: Vec<Observation>,
    /// Which of them were not there before the position.
    pub is_new: Vec<bool>,
    /// Totals over all runs, with what retention removed before a collector had it.
    pub losses: Vec<Loss>,
}

/// A page of what changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Runs of the agent.
    pub runs: Vec<Run>,
    /// Addresses and whose they are.
    pub endpoints: Vec<Endpoint>,
    /// What name servers told.
    pub resolutions: Vec<Resolution>,
    /// Containers with their rows.
    pub containers: Vec<ContainerChanges>,
    /// Where the next page begins.
    pub position: Position,
}

impl Changes {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
            && self.endpoints.is_empty()
            && self.resolutions.is_empty()
            && self.containers.is_empty()
    }
}

/// What a sender remembers of one collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// How far it acknowledged.
    pub position: Position,
    /// The stamp of the last batch it acknowledged, 0 before the first.
    pub stamp: i64,
    /// Rows that retention removed before this collector had them.
    pub removed_unsent: u64,
}

/// A store that can tell what changed in it.
pub trait Spool: Send + Sync {
    /// The store's own name: no other store has it, and a new store gets a new one.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn identity(&self) -> Result<String, StoreError>;

    /// Where everything that was applied until now is known.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn head(&self) -> Result<Position, StoreError>;

    /// A page of what changed after a position.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn changes_since(&self, position: &Position, limits: PageLimits)
    -> Result<Changes, StoreError>;

    /// What is remembered of a collector. From the first time on, rows that retention
    /// removes before it had them are counted.
    ///
    /// # Errors
    /// If the store cannot be read or written.
    fn peer(&self, collector: &str) -> Result<Peer, StoreError>;

    /// Writes down that a collector has everything up to a position. Of a container that
    /// is known in part nothing is written down; it is read again from its beginning.
    ///
    /// # Errors
    /// If the store cannot be written.
    fn acknowledge(
        &self,
        collector: &str,
        position: &Position,
        stamp: i64,
    ) -> Result<(), StoreError>;
}
