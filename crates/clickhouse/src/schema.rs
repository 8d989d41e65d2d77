//! The tables and their versions.
//!
//! On a cluster every table is two: `NAME_local` on each server, replicated within its
//! shard, and `NAME`, which spreads rows over the shards by their container. What belongs
//! to one container is on one shard, so no shard needs another's rows to answer.

use crate::{
    problem::{Problem, code},
    server::Server,
};
use clickhouse::Row;
use ethogram_store::StoreError;
use serde::Serialize;

/// The version of the tables this program writes and reads. A newer one adds the
/// statements that lead there from the one before to [`bring_up_to_date`].
pub const SCHEMA_VERSION: u32 = 2;

/// A table.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Columns that tell rows apart, in the order of the table.
    key: &'static str,
    /// How much of the key is in the index.
    index: &'static str,
    /// Columns that are joined over rows of equal key.
    joined: &'static str,
    /// What decides over the shard.
    shard_by: &'static str,
    /// Rows that one entry of the index stands for: a container has a few hundred.
    index_granularity: u32,
}

const BY_CONTAINER: &str = "boot, cgroup, incarnation";

/// Behaviours with their counts, one row per run. Sorted by container, so that a
/// namespace's summary reads its containers' rows and no others.
pub(crate) const OBSERVATION: Table = Table {
    name: "observation",
    key: "boot String, cgroup UInt64, incarnation UInt32, kind UInt8, source String, target String, \
          protocol UInt8, port UInt16, access UInt16, status UInt8, run String, example String",
    index: "boot, cgroup, incarnation, kind",
    joined: "count AggregateFunction(max, UInt64), first_ns AggregateFunction(min, Int64), \
             last_ns AggregateFunction(max, Int64)",
    shard_by: BY_CONTAINER,
    index_granularity: 1024,
};

pub(crate) const LOSS: Table = Table {
    name: "loss",
    key: "boot String, cgroup UInt64, incarnation UInt32, reason UInt8, run String",
    index: BY_CONTAINER,
    joined: "count AggregateFunction(max, UInt64)",
    shard_by: BY_CONTAINER,
    index_granularity: 1024,
};

/// What was said of containers, a row per different thing said. `described` is 0 where a
/// run only counted: then the node is the run's and nothing else is known.
pub(crate) const CONTAINER: Table = Table {
    name: "container",
    key: "boot String, cgroup UInt64, incarnation UInt32, run String, described UInt8, node String, \
          runtime String, runtime_id String, name String, image String, namespace String, pod String, \
          pod_uid String, workload_kind String, workload_name String, labels String, cgroup_path String, \
          watched_since_ns Int64, present_at_start UInt8, ended_ns Int64",
    index: BY_CONTAINER,
    joined: ARRIVED,
    shard_by: BY_CONTAINER,
    index_granularity: 1024,
};

pub(crate) const RUN: Table = Table {
    name: "run",
    key: "id String, boot String, node String, hooks String",
    index: "id",
    joined: "started_ns AggregateFunction(min, Int64), last_alive_ns AggregateFunction(max, Int64), \
             ended_cleanly AggregateFunction(max, UInt8), arrived_first_ns AggregateFunction(min, Int64), \
             arrived_last_ns AggregateFunction(max, Int64)",
    shard_by: "id",
    index_granularity: 8192,
};

pub(crate) const ENDPOINT: Table = Table {
    name: "endpoint",
    key: "ip String, from_ns Int64, namespace String, name String, labels String, until_ns Int64",
    index: "ip",
    joined: ARRIVED,
    shard_by: "ip",
    index_granularity: 1024,
};

/// What name servers told containers. Since version 2.
pub(crate) const RESOLUTION: Table = Table {
    name: "resolution",
    key: "boot String, cgroup UInt64, incarnation UInt32, ip String, name String",
    index: BY_CONTAINER,
    joined: "first_ns AggregateFunction(min, Int64), last_ns AggregateFunction(max, Int64)",
    shard_by: BY_CONTAINER,
    index_granularity: 1024,
};

/// Since when a container's history is whole; the row without a boot is the store's.
pub(crate) const HISTORY: Table = Table {
    name: "history",
    key: "boot String, cgroup UInt64, incarnation UInt32",
    index: BY_CONTAINER,
    joined: "since_ns AggregateFunction(max, Int64)",
    shard_by: BY_CONTAINER,
    index_granularity: 1024,
};

/// Versions the tables have had.
const VERSION: Table = Table {
    name: "schema_version",
    key: "version UInt32",
    index: "version",
    joined: "",
    shard_by: "version",
    index_granularity: 8192,
};

const ARRIVED: &str = "arrived_first_ns AggregateFunction(min, Int64), \
                       arrived_last_ns AggregateFunction(max, Int64)";

/// The tables that hold what was reported, in the order in which they may be emptied.
pub(crate) const DATA: [Table; 7] = [
    OBSERVATION,
    LOSS,
    CONTAINER,
    RUN,
    ENDPOINT,
    RESOLUTION,
    HISTORY,
];

#[derive(Row, Serialize)]
struct VersionRow {
    version: u32,
}

impl Table {
    /// The name of the table that holds the rows on each server.
    pub(crate) fn local(&self, cluster: Option<&str>) -> String {
        match cluster {
            None => self.name.into(),
            Some(_) => format!("{}_local", self.name),
        }
    }

    fn create(&self, database: &str, cluster: Option<&str>) -> Vec<String> {
        let Self {
            name,
            key,
            index,
            joined,
            shard_by,
            index_granularity,
        } = self;
        let comma = if joined.is_empty() { "" } else { ", " };
        let order: Vec<&str> = key
            .split(", ")
            .filter_map(|column| column.split_whitespace().next())
            .collect();
        let (on_cluster, engine) = match cluster {
            None => (String::new(), "AggregatingMergeTree".to_owned()),
            Some(cluster) => (
                on_cluster(cluster),
                format!(
                    "ReplicatedAggregatingMergeTree('/clickhouse/tables/{{shard}}/{database}/{name}', '{{replica}}')"
                ),
            ),
        };
        let local = self.local(cluster);
        let mut statements = vec![format!(
            "CREATE TABLE IF NOT EXISTS `{database}`.{local}{on_cluster} ({key}{comma}{joined}) ENGINE = {engine} \
             PRIMARY KEY ({index}) ORDER BY ({}) SETTINGS index_granularity = {index_granularity}",
            order.join(", ")
        )];
        if let Some(cluster) = cluster {
            statements.push(format!(
                "CREATE TABLE IF NOT EXISTS `{database}`.{name}{on_cluster} ({key}{comma}{joined}) \
                 ENGINE = Distributed('{cluster}', '{database}', '{local}', cityHash64({shard_by}))"
            ));
        }
        statements
    }
}

/// ` ON CLUSTER 'name'`, for statements that every server must run.
pub(crate) fn on_cluster(cluster: &str) -> String {
    format!(" ON CLUSTER '{cluster}'")
}

/// The statements that make an empty store: for those who prefer to run them with other
/// rights than a collector has, and to read what is made.
#[must_use]
pub fn create_statements(database: &str, cluster: Option<&str>) -> Vec<String> {
    let on_cluster = cluster.map(on_cluster).unwrap_or_default();
    let mut statements = vec![format!(
        "CREATE DATABASE IF NOT EXISTS `{database}`{on_cluster}"
    )];
    statements.extend(
        DATA.iter()
            .chain([&VERSION])
            .flat_map(|table| table.create(database, cluster)),
    );
    statements
}

/// Makes the tables, or leads them from the version they have to [`SCHEMA_VERSION`].
/// Several collectors may do so at once: every statement may be run again.
pub(crate) fn bring_up_to_date(server: &Server) -> Result<(), StoreError> {
    make_or_check(server).map_err(|problem| problem.at(server.endpoint()))
}

fn make_or_check(server: &Server) -> Result<(), Problem> {
    match found_version(server)? {
        Some(SCHEMA_VERSION) => return Ok(()),
        Some(found) if found > SCHEMA_VERSION => return Err(Problem::NewerSchema { found }),
        _ => {}
    }
    for statement in create_statements(server.database(), server.cluster()) {
        server.execute_anywhere(&statement)?;
    }
    let version = VersionRow {
        version: SCHEMA_VERSION,
    };
    server.insert(&VERSION, &[version])
}

/// `None` without tables, or before their first version was noted.
fn found_version(server: &Server) -> Result<Option<u32>, Problem> {
    let sql = format!("SELECT max(version) FROM {}", VERSION.name);
    match server.select::<u32>(&sql) {
        Ok(versions) => Ok(versions.first().copied().filter(|&version| version > 0)),
        Err(problem)
            if matches!(
                problem.code(),
                Some(code::UNKNOWN_DATABASE | code::UNKNOWN_TABLE)
            ) =>
        {
            Ok(None)
        }
        Err(problem) => Err(problem),
    }
}
