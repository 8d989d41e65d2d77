//! What changed, for those who are told.

use super::{
    problem::Problem,
    read::{self, ENDPOINT, OBSERVATION, RESOLUTION, RUN, Texts},
};
use crate::{Changes, ContainerChanges, PageLimits, Peer, Position, spool::PLACE_COLUMNS};
use ethogram_model::{Endpoint, Loss, LossReason, Observation};
use rusqlite::{Connection, params, params_from_iter};

/// What a row's numbers take, at most.
const ROW_BYTES: usize = 96;

/// Where an observation's columns say with which report it came.
const ADDED: usize = 11;

/// The number that comes after all others.
const LAST: i64 = i64::MAX;

pub(super) fn identity(connection: &Connection) -> Result<String, Problem> {
    Ok(connection.query_row("SELECT identity FROM spool", [], |row| row.get(0))?)
}

pub(super) fn head(connection: &Connection) -> Result<Position, Problem> {
    Ok(Position::at_rest(sequence(connection)?))
}

fn sequence(connection: &Connection) -> Result<i64, Problem> {
    Ok(connection.query_row("SELECT sequence FROM spool", [], |row| row.get(0))?)
}

pub(super) fn changes_since(
    connection: &Connection,
    position: Position,
    limits: PageLimits,
) -> Result<Changes, Problem> {
    let mut page = Page {
        position,
        rows_left: limits.rows_max,
        bytes_left: limits.bytes_max,
        changes: Changes {
            runs: Vec::new(),
            endpoints: Vec::new(),
            resolutions: Vec::new(),
            containers: Vec::new(),
            position,
        },
    };
    if position.is_at_rest() {
        let sequence = sequence(connection)?;
        if sequence <= position.after {
            return Ok(page.changes);
        }
        page.position.until = sequence;
    }
    if page.take_runs(connection)?
        && page.take_endpoints(connection)?
        && page.take_resolutions(connection)?
        && page.take_containers(connection)?
    {
        page.position = Position::at_rest(page.position.until);
    }
    page.changes.position = page.position;
    Ok(page.changes)
}

/// A page that is being filled.
struct Page {
    position: Position,
    rows_left: usize,
    bytes_left: usize,
    changes: Changes,
}

impl Page {
    /// Makes room for a row, if there is any.
    fn admits(&mut self, bytes: usize) -> bool {
        let is_first = self.changes.runs.is_empty()
            && self.changes.endpoints.is_empty()
            && self.changes.resolutions.is_empty()
            && self
                .changes
                .containers
                .iter()
                .all(|c| c.observations.is_empty());
        if self.rows_left == 0 || (bytes > self.bytes_left && !is_first) {
            return false;
        }
        self.rows_left -= 1;
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        true
    }

    /// Whether there are no more of them.
    fn take_runs(&mut self, connection: &Connection) -> Result<bool, Problem> {
        if self.position.run == LAST {
            return Ok(true);
        }
        let mut statement = connection
            .prepare_cached(&format!("{RUN} WHERE id > ?1 AND changed > ?2 ORDER BY id"))?;
        let mut rows = statement.query([self.position.run, self.position.after])?;
        while let Some(row) = rows.next()? {
            let run = read::run(row)?;
            if !self.admits(ROW_BYTES + run.id.len() + run.hooks.len()) {
                return Ok(false);
            }
            self.changes.runs.push(run);
            self.position.run = row.get(7)?;
        }
        self.position.run = LAST;
        Ok(true)
    }

    /// Whether there are no more of them.
    fn take_endpoints(&mut self, connection: &Connection) -> Result<bool, Problem> {
        if self.position.endpoint == LAST {
            return Ok(true);
        }
        let mut statement = connection.prepare_cached(&format!(
            "{ENDPOINT} WHERE id > ?1 AND changed > ?2 ORDER BY id"
        ))?;
        let mut rows = statement.query([self.position.endpoint, self.position.after])?;
        while let Some(row) = rows.next()? {
            let endpoint = read::endpoint(row)?;
            if !self.admits(endpoint_bytes(&endpoint)) {
                return Ok(false);
            }
            self.changes.endpoints.push(endpoint);
            self.position.endpoint = row.get(6)?;
        }
        self.position.endpoint = LAST;
        Ok(true)
    }

    /// Whether there are no more of them.
    fn take_resolutions(&mut self, connection: &Connection) -> Result<bool, Problem> {
        if self.position.resolution == LAST {
            return Ok(true);
        }
        let mut statement = connection.prepare_cached(&format!(
            "{RESOLUTION} WHERE resolution.id > ?1 AND changed > ?2 ORDER BY resolution.id"
        ))?;
        let mut rows = statement.query([self.position.resolution, self.position.after])?;
        while let Some(row) = rows.next()? {
            let resolution = read::resolution(row)?;
            if !self.admits(ROW_BYTES + resolution.name.as_str().len()) {
                return Ok(false);
            }
            self.changes.resolutions.push(resolution);
            self.position.resolution = row.get(4)?;
        }
        self.position.resolution = LAST;
        Ok(true)
    }

    /// Whether there are no more of them.
    fn take_containers(&mut self, connection: &Connection) -> Result<bool, Problem> {
        let mut texts = Texts::new(connection)?;
        let mut statement = connection.prepare_cached(
            "SELECT container_id, unsent_events FROM container_change
             WHERE container_id >= ?1 AND changed > ?2 ORDER BY container_id",
        )?;
        let mut rows = statement.query([self.position.container, self.position.after])?;
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            if self.position.container != id {
                self.position.container = id;
                self.position.place = [0; PLACE_COLUMNS];
            }
            if !self.take_container(connection, &mut texts, row.get(1)?)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the rest of the container at which the page has arrived. Whether all of it
    /// fitted in.
    fn take_container(
        &mut self,
        connection: &Connection,
        texts: &mut Texts<'_>,
        unsent_events: u64,
    ) -> Result<bool, Problem> {
        let container = read::container(connection, self.position.container)?;
        let bytes = container_bytes(&container);
        if self.rows_left == 0 || (bytes > self.bytes_left && !self.changes.containers.is_empty()) {
            return Ok(false);
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        let losses = losses(connection, &self.position, unsent_events)?;
        let key = container.key.clone();
        self.changes.containers.push(ContainerChanges {
            container,
            observations: Vec::new(),
            is_new: Vec::new(),
            losses,
        });
        let mut statement = connection.prepare_cached(&format!(
            "{OBSERVATION} WHERE container_id = ?1 AND changed > ?2
                AND (kind, source_id, target_id, protocol, port, access, status) > (?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ORDER BY kind, source_id, target_id, protocol, port, access, status"
        ))?;
        let from = [self.position.container, self.position.after];
        let from = from.iter().chain(&self.position.place).copied();
        let mut rows = statement.query(params_from_iter(from))?;
        while let Some(row) = rows.next()? {
            let observation = read::observation(row, &key, texts)?;
            if !self.admits(observation_bytes(&observation)) {
                return Ok(false);
            }
            let current = self.changes.containers.last_mut();
            let current = current.expect("the container was pushed above");
            current.observations.push(observation);
            current
                .is_new
                .push(row.get::<_, i64>(ADDED)? > self.position.after);
            for (column, part) in self.position.place.iter_mut().enumerate() {
                *part = row.get(column)?;
            }
        }
        Ok(true)
    }
}

fn losses(
    connection: &Connection,
    position: &Position,
    unsent_events: u64,
) -> Result<Vec<Loss>, Problem> {
    let mut statement = connection.prepare_cached(
        "SELECT reason, base + count FROM loss WHERE container_id = ?1 AND (changed > ?2 OR reason = ?3)",
    )?;
    let store = LossReason::Store;
    let mut rows = statement.query(params![position.container, position.after, store.number()])?;
    let mut losses = Vec::new();
    let mut in_store = Loss {
        reason: store,
        count: unsent_events,
    };
    while let Some(row) = rows.next()? {
        let reason = read::known(row.get(0)?, LossReason::from_number, "loss reason")?;
        let count: u64 = row.get(1)?;
        if reason == store {
            in_store.count = in_store.count.saturating_add(count);
        } else {
            losses.push(Loss { reason, count });
        }
    }
    if in_store.count > 0 {
        losses.push(in_store);
    }
    Ok(losses)
}

fn observation_bytes(observation: &Observation) -> usize {
    let behaviour = &observation.behaviour;
    let names = [&behaviour.source, &behaviour.target, &observation.example];
    ROW_BYTES + names.iter().map(|name| name.as_str().len()).sum::<usize>()
}

fn endpoint_bytes(endpoint: &Endpoint) -> usize {
    ROW_BYTES + endpoint.name.len() + endpoint.namespace.len() + label_bytes(&endpoint.labels)
}

fn container_bytes(container: &ethogram_model::Container) -> usize {
    let texts = [
        &container.node,
        &container.id,
        &container.name,
        &container.image,
        &container.namespace,
        &container.pod,
        &container.pod_uid,
        &container.workload.kind,
        &container.workload.name,
    ];
    let texts: usize = texts.iter().map(|text| text.len()).sum();
    2 * ROW_BYTES + texts + container.cgroup_path.as_str().len() + label_bytes(&container.labels)
}

fn label_bytes(labels: &ethogram_model::Labels) -> usize {
    labels
        .iter()
        .map(|(key, value)| key.len() + value.len() + 8)
        .sum()
}

pub(super) fn peer(connection: &Connection, name: &str) -> Result<Peer, Problem> {
    let start = Position::START;
    connection
        .prepare_cached("INSERT OR IGNORE INTO peer (name, after, until, run_id, endpoint_id, container_id, stamp) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0)")?
        .execute(params![
            name,
            start.after,
            start.until,
            start.run,
            start.endpoint,
            start.container
        ])?;
    Ok(connection
        .prepare_cached(
            "SELECT after, until, run_id, endpoint_id, container_id, stamp, removed_unsent, resolution_id
             FROM peer WHERE name = ?1",
        )?
        .query_row([name], |row| {
            Ok(Peer {
                position: Position {
                    after: row.get(0)?,
                    until: row.get(1)?,
                    run: row.get(2)?,
                    endpoint: row.get(3)?,
                    resolution: row.get(7)?,
                    container: row.get(4)?,
                    place: [0; PLACE_COLUMNS],
                },
                stamp: row.get(5)?,
                removed_unsent: row.get(6)?,
            })
        })?)
}

pub(super) fn acknowledge(
    connection: &Connection,
    name: &str,
    position: &Position,
    stamp: i64,
) -> Result<(), Problem> {
    connection
        .prepare_cached(
            "UPDATE peer SET after = ?2, until = ?3, run_id = ?4, endpoint_id = ?5, container_id = ?6, stamp = ?7,
                resolution_id = ?8
             WHERE name = ?1",
        )?
        .execute(params![
            name,
            position.after,
            position.until,
            position.run,
            position.endpoint,
            position.container,
            stamp,
            position.resolution
        ])?;
    Ok(())
}

/// Rows that a collector is not known to have. Some of them may be on their way.
const UNSENT: &str =
    "changed > peer.after AND NOT (changed <= peer.until AND container_id < peer.container_id)";

/// Counts those of the rows that are about to be removed which some collector does not
/// have. They are all of one container, the first parameter.
pub(super) fn count_unsent(
    connection: &Connection,
    rows: &str,
    parameters: &[i64],
) -> Result<(), Problem> {
    let count = |sql: &str| -> Result<(), Problem> {
        let mut statement = connection.prepare_cached(sql)?;
        statement.execute(params_from_iter(parameters))?;
        Ok(())
    };
    // total() adds up as floating point, which cannot fail where sum() overflows.
    count(&format!(
        "UPDATE container_change SET
            unsent_events = min(unsent_events + lost.events, {COUNT_MAX}),
            changed = iif(lost.events > 0, (SELECT sequence + 1 FROM spool), changed)
         FROM (SELECT cast(min(total(base + count), {COUNT_MAX}) AS INTEGER) AS events FROM observation
             WHERE {rows} AND EXISTS (SELECT 1 FROM peer WHERE {UNSENT})) AS lost
         WHERE container_id = ?1",
        COUNT_MAX = super::write::COUNT_MAX,
    ))?;
    count(&format!(
        "UPDATE peer SET removed_unsent = removed_unsent
            + (SELECT count(*) FROM observation WHERE {rows} AND {UNSENT})"
    ))
}
