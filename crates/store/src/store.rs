//! What every store can do, and what it promises.
//!
//! # The guarantee: nothing applied is lost, nothing is counted twice
//!
//! Counts in a [`Report`] are cumulative within its [`Run`]: "so often since this run
//! began". A row (an observation or a loss) keeps three things: `base`, the sum of what
//! earlier runs counted; the run that wrote it last; and `count`, that run's cumulative
//! count. Its total is `base + count`. A report is applied whole or not at all, thus:
//!
//! 1. *Same run as the row's:* `count = max(count, reported)`. A report that is sent
//!    again, late, out of order or in parts changes nothing that it should not.
//! 2. *A newer run than the row's:* `base += count`, then `count = reported`. An agent
//!    that was killed starts its new run at zero, so totals carry on.
//! 3. *An older run than the newest that reported this container:* the whole report is
//!    refused ([`StoreError::SupersededRun`]), because its counts may be in `base`.
//!
//! Runs are ordered by their first report. First and last seen join by min and max.
//!
//! *So:* for runs that follow one another, as those of one agent on one machine do (its
//! lock sees to it), totals are exactly what was applied, whatever is re-sent and
//! wherever the agent is killed. What a run counted but never had applied is lost with
//! it. *Not guaranteed:* two runs that count the same container at the same time; the
//! one that reported first is refused from then on. A source whose counts are totals
//! already uses one run id for ever, and rule 1 is all it meets.
//!
//! *A store that keeps the count of every run* (the ClickHouse one) needs neither rule 2
//! nor rule 3: a total is the sum over runs of what each counted, in whatever order
//! their reports come, so no run is ever refused.
//!
//! Names and labels of a container are not counters: the last known text wins.

use crate::StoreError;
use ethogram_model::{
    BootId, Container, ContainerKey, Endpoint, Loss, Observation, Resolution, Run, Selection,
    Timestamp,
};
use std::{net::IpAddr, ops::ControlFlow, time::Duration};

/// What one run knows by now, in part or in whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who reports.
    pub run: Run,
    /// Containers that are new, or of which more is known. A text that is known is not
    /// replaced by an empty one, and an end, once known, stays.
    pub containers: Vec<Container>,
    /// Behaviours with their counts since the run began. A container that was never
    /// described is kept without a name until it is.
    pub observations: Vec<Observation>,
    /// Losses since the run began.
    pub losses: Vec<(ContainerKey, Loss)>,
    /// Addresses and whose they are. Told apart by address, name, namespace and `from`;
    /// an end, once known, stays.
    pub endpoints: Vec<Endpoint>,
    /// What name servers told containers. Told apart by container, address and name; first
    /// and last join by min and max.
    pub resolutions: Vec<Resolution>,
}

impl Report {
    /// A report of nothing but that the run is alive.
    #[must_use]
    pub fn empty(run: Run) -> Self {
        Self {
            run,
            containers: Vec::new(),
            observations: Vec::new(),
            losses: Vec::new(),
            endpoints: Vec::new(),
            resolutions: Vec::new(),
        }
    }
}

/// A container as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptContainer {
    /// What was reported of it.
    pub container: Container,
    /// Retention removed rows of it that were last seen before this time; `None` while
    /// its history is whole.
    pub history_since: Option<Timestamp>,
}

/// How much is kept of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Distinct behaviours.
    pub rows: u64,
    /// The sum of their counts.
    pub events: u64,
    /// When anything of it was last seen; `None` without rows.
    pub last_seen: Option<Timestamp>,
}

/// The store as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// What it takes on disk.
    pub bytes: u64,
    /// Containers it knows.
    pub containers: u64,
    /// Retention removed containers that ended before this time; `None` if it never did.
    pub history_since: Option<Timestamp>,
}

/// What may be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Rows not seen for longer are removed; `None` for no limit.
    pub age_max: Option<Duration>,
    /// Above this size the oldest go: ended containers first, then rows; `None` for no
    /// limit. What is kept counts, not a log of what is being written.
    pub bytes_max: Option<u64>,
}

/// What retention removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Whole containers.
    pub containers: u64,
    /// Observation rows, those of removed containers included.
    pub rows: u64,
    /// Endpoints.
    pub endpoints: u64,
    /// What name servers told, unless it went with its container.
    pub resolutions: u64,
    /// Runs.
    pub runs: u64,
    /// Bytes given back to the file system.
    pub bytes: u64,
}

/// A place where observations are kept. See this file's head for the guarantee.
///
/// Every method may block on disk or network.
pub trait Store: Send + Sync {
    /// Applies a report, whole or not at all.
    ///
    /// # Errors
    /// Any [`StoreError`]; nothing is applied then, and applying it again later is safe.
    fn apply(&self, report: &Report) -> Result<(), StoreError>;

    /// Takes what is known of names by somebody who counts nothing: a watch of a cluster's
    /// API server. Texts join as those of a [`Report`] do, but whoever reports a container
    /// goes on reporting it, and containers that the store does not know stay unknown.
    ///
    /// # Errors
    /// Any [`StoreError`]; describing again later is safe.
    fn describe(&self, containers: &[Container], endpoints: &[Endpoint]) -> Result<(), StoreError>;

    /// The selected containers, in the order in which they were first reported.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn containers(&self, selection: &Selection) -> Result<Vec<KeptContainer>, StoreError>;

    /// Hands every selected observation of every selected container to `visit`, container
    /// by container, until it breaks off. Memory does not grow with the number of rows, but
    /// what is written meanwhile waits in the log: a visitor should be quick.
    ///
    /// # Errors
    /// If the store cannot be read; rows visited before that were true.
    fn observations(
        &self,
        selection: &Selection,
        visit: &mut dyn FnMut(Observation) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// Losses of the selected containers over all runs.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn losses(&self, selection: &Selection) -> Result<Vec<(ContainerKey, Loss)>, StoreError>;

    /// Who had the given addresses when; `None` asks for all. By address, then by time.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn endpoints(&self, ips: Option<&[IpAddr]>) -> Result<Vec<Endpoint>, StoreError>;

    /// What name servers told the selected containers, whatever kinds, outcomes and times are
    /// selected; in no order.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn resolutions(&self, selection: &Selection) -> Result<Vec<Resolution>, StoreError>;

    /// All runs, in the order of their first reports.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn runs(&self) -> Result<Vec<Run>, StoreError>;

    /// At least the runs on the machines that had these boots, in the order of their first
    /// reports: of a cluster's many, those that a summary needs.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn runs_around(&self, boots: &[&BootId]) -> Result<Vec<Run>, StoreError>;

    /// When the runs whose ids begin with a text were last alive; `None` without any.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn last_alive(&self, id_prefix: &str) -> Result<Option<Timestamp>, StoreError>;

    /// How much is kept of each selected container, whatever kinds, outcomes and times
    /// are selected.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn stats(&self, selection: &Selection) -> Result<Vec<(ContainerKey, Stats)>, StoreError>;

    /// The store as a whole.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn overview(&self) -> Result<Overview, StoreError>;

    /// Removes what the limits no longer allow, in small steps, so that reports applied
    /// meanwhile wait for some ten milliseconds. A removed behaviour that happens again comes
    /// back with the count of its current run.
    ///
    /// # Errors
    /// Any [`StoreError`]; what was removed until then stays removed, and calling it
    /// again carries on.
    fn retain(&self, limits: &Limits, now: Timestamp) -> Result<Removed, StoreError>;

    /// The selected observations at once, for selections that are known to be small.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn all_observations(&self, selection: &Selection) -> Result<Vec<Observation>, StoreError> {
        let mut all = Vec::new();
        self.observations(selection, &mut |observation| {
            all.push(observation);
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }
}
