//! The store for clusters: [`ClickHouseStore`], a [`Store`] in a ClickHouse server or in a
//! cluster of them.
//!
//! # What is kept, and why nothing is counted twice
//!
//! Every table is a set of keys, each with a few numbers that only grow or only shrink:
//! counts and last times join by max, first times by min. A report is turned into rows
//! that are appended; ClickHouse joins rows of equal key when it merges parts, and every
//! query joins what is not merged yet. Max and min do not care how often, in which order
//! and in which parts a row arrives. Hence:
//!
//! - *Applying again is harmless*, and so is half of a report: an insert that reached one
//!   shard of two, or observations without the run's row, is a part of what the next try
//!   brings. [`Store::apply`] is therefore not a transaction here; an error means "apply it
//!   again", and until then readers may see a part of it, each count of which is true.
//! - *Collectors need no coordination.* Two that write the same report write the same keys.
//! - *The run is part of an observation's key*, and a total is the sum over runs of the
//!   highest count of each. That is the base-and-run rule of `store.rs` without its order:
//!   no run has to be refused, late reports of an older run still count. The price is one
//!   row per behaviour and run of an agent; a source whose counts are totals under one run
//!   id for ever pays nothing.
//! - *Texts that may change* (names, labels, examples) are part of a key too, with the
//!   times of their first and last arrival, so that "the last known text wins" is decided
//!   when reading. They arrive at the collector's clock: collectors whose clocks differ may
//!   disagree on which of two names is newer, never on a count.
//!
//! *Why `AggregatingMergeTree` and not `ReplacingMergeTree` by count:* replacing keeps one
//! whole row and drops the others' first and last times. Where a late row with a lower count
//! saw something earlier, that would be lost, or not, depending on when parts are merged.
//! Columns are `AggregateFunction(max, …)` rather than `SimpleAggregateFunction`, because
//! every server from 18.16 on reads and writes them, and as `RowBinary` they are a byte
//! that says "there is one" and the number.
//!
//! # Retention
//!
//! Removal is `ALTER TABLE … DELETE`: ClickHouse rewrites the parts concerned, without
//! keeping inserts waiting, and what arrives meanwhile stays. A behaviour is removed run
//! by run: what a run last saw before the limit goes, what a later run saw stays, and the
//! container says since when its history is whole. Each cluster that is observed has its
//! own database, and its limits are its quota. Let one collector do it; two at a time are
//! harmless and waste work.
//!
//! **Architecture invariant:** no threads of its own. Requests run on the caller's thread;
//! in async code that must be one that may block (`spawn_blocking`).

#![forbid(unsafe_code)]

mod address;
mod batch;
mod describe;
mod problem;
mod read;
mod retain;
mod rows;
mod schema;
mod server;
mod sql;

pub use address::{Address, AddressError};
pub use schema::{SCHEMA_VERSION, Table, create_statements};

use batch::Batcher;
use ethogram_model::{
    BootId, Container, ContainerKey, Endpoint, Loss, Observation, Resolution, Run, Selection,
    Timestamp,
};
use ethogram_store::{KeptContainer, Limits, Overview, Removed, Report, Stats, Store, StoreError};
use rows::{Arrivals, Rows};
use server::Server;
use std::{
    net::IpAddr,
    ops::ControlFlow,
    sync::{Mutex, PoisonError},
};

/// A store in a database of a ClickHouse server or cluster. See this file's head for what
/// it promises.
pub struct ClickHouseStore {
    server: Server,
    batcher: Batcher,
    arrivals: Arrivals,
    retaining: Mutex<()>,
}

impl ClickHouseStore {
    /// Opens the store at an address; makes the database and the tables if they are not
    /// there.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] if the server does not answer,
    /// [`StoreError::NewerSchema`] if a newer version of Ethogram keeps its data there, and
    /// [`StoreError::Database`] if the server refuses (password, rights).
    pub fn open(address: &Address) -> Result<Self, StoreError> {
        let server = Server::new(address)?;
        schema::bring_up_to_date(&server)?;
        Ok(Self {
            server,
            batcher: Batcher::new(address.batch_interval()),
            arrivals: Arrivals::default(),
            retaining: Mutex::default(),
        })
    }
}

impl Store for ClickHouseStore {
    fn apply(&self, report: &Report) -> Result<(), StoreError> {
        let rows = Rows::of(report, self.arrivals.next());
        self.batcher
            .write(rows, |batch| batch::insert(&self.server, batch))
            .map_err(|problem| problem.at(self.server.endpoint()))
    }

    fn describe(&self, containers: &[Container], endpoints: &[Endpoint]) -> Result<(), StoreError> {
        let keys: Vec<_> = containers.iter().map(|one| &one.key).collect();
        let known =
            read::those_known(&self.server, &keys).map_err(|p| p.at(self.server.endpoint()))?;
        let known = containers.iter().filter(|one| known.contains(&one.key));
        let rows = Rows::described(known, endpoints, self.arrivals.next());
        self.batcher
            .write(rows, |batch| batch::insert(&self.server, batch))
            .map_err(|problem| problem.at(self.server.endpoint()))
    }

    fn containers(&self, selection: &Selection) -> Result<Vec<KeptContainer>, StoreError> {
        read::containers(&self.server, selection).map_err(|p| p.at(self.server.endpoint()))
    }

    fn observations(
        &self,
        selection: &Selection,
        visit: &mut dyn FnMut(Observation) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        read::observations(&self.server, selection, visit).map_err(|p| p.at(self.server.endpoint()))
    }

    fn losses(&self, selection: &Selection) -> Result<Vec<(ContainerKey, Loss)>, StoreError> {
        read::losses(&self.server, selection).map_err(|p| p.at(self.server.endpoint()))
    }

    fn endpoints(&self, ips: Option<&[IpAddr]>) -> Result<Vec<Endpoint>, StoreError> {
        read::endpoints(&self.server, ips).map_err(|p| p.at(self.server.endpoint()))
    }

    fn resolutions(&self, selection: &Selection) -> Result<Vec<Resolution>, StoreError> {
        read::resolutions(&self.server, selection).map_err(|p| p.at(self.server.endpoint()))
    }

    fn runs(&self) -> Result<Vec<Run>, StoreError> {
        read::runs(&self.server, "1").map_err(|p| p.at(self.server.endpoint()))
    }

    fn runs_around(&self, boots: &[&BootId]) -> Result<Vec<Run>, StoreError> {
        read::runs_around(&self.server, boots).map_err(|p| p.at(self.server.endpoint()))
    }

    fn last_alive(&self, id_prefix: &str) -> Result<Option<Timestamp>, StoreError> {
        read::last_alive(&self.server, id_prefix).map_err(|p| p.at(self.server.endpoint()))
    }

    fn stats(&self, selection: &Selection) -> Result<Vec<(ContainerKey, Stats)>, StoreError> {
        read::stats(&self.server, selection).map_err(|p| p.at(self.server.endpoint()))
    }

    fn overview(&self) -> Result<Overview, StoreError> {
        read::overview(&self.server).map_err(|p| p.at(self.server.endpoint()))
    }

    fn retain(&self, limits: &Limits, now: Timestamp) -> Result<Removed, StoreError> {
        let _one_at_a_time = self
            .retaining
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        retain::retain(&self.server, limits, now).map_err(|p| p.at(self.server.endpoint()))
    }
}
