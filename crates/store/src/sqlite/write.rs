//! Applying reports: the rules at the head of `store.rs`, as SQL.

use super::{problem::Problem, recent::RecentMap};
use crate::Report;
use ethogram_model::{
    Container, ContainerKey, Endpoint, Loss, Name, Observation, Resolution, Run, Tally,
};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

/// Text ids the writer remembers, per generation of its cache (there are two). 65,536
/// paths of 60 bytes are about 6 MB, most of it shared with the reporter's own names.
const TEXTS_CACHED_MAX: usize = 65_536;

/// The largest count kept. Two of them still add up within SQLite's signed 64 bits,
/// beyond which it would turn to floating point; 10^9 events a second take 146 years.
pub(super) const COUNT_MAX: u64 = (1 << 62) - 1;

/// The one connection that writes.
pub(super) struct Writer {
    connection: Connection,
    texts: TextIds,
}

impl Writer {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            texts: TextIds {
                recent: RecentMap::new(TEXTS_CACHED_MAX),
                used_since_sweep: None,
            },
        }
    }

    pub(super) fn apply(&mut self, report: &Report) -> Result<(), Problem> {
        self.transaction(|connection, texts| apply(connection, texts, report))
    }

    pub(super) fn describe(
        &mut self,
        containers: &[Container],
        endpoints: &[Endpoint],
    ) -> Result<(), Problem> {
        self.transaction(|connection, _| describe(connection, containers, endpoints))
    }

    /// Does `work` in one transaction: all of it, or nothing.
    pub(super) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&Connection, &mut TextIds) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let outcome = work(&transaction, &mut self.texts)
            .and_then(|value| transaction.commit().map(|()| value).map_err(Problem::from));
        if outcome.is_err() {
            self.forget();
        }
        outcome
    }

    /// The connection, for what needs no transaction.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Forgets ids that a transaction gave out and took back.
    pub(super) fn forget(&mut self) {
        self.texts.recent.clear();
    }

    /// The texts that reports use.
    pub(super) fn texts(&mut self) -> &mut TextIds {
        &mut self.texts
    }
}

/// Gives every text its number.
pub(super) struct TextIds {
    recent: RecentMap<Name, i64>,
    /// While unused texts are searched: those that were used since the search began.
    used_since_sweep: Option<HashSet<i64>>,
}

impl TextIds {
    fn id(&mut self, connection: &Connection, text: &Name) -> rusqlite::Result<i64> {
        let id = match self.recent.get(text.as_str()) {
            Some(id) => id,
            None => {
                let id = find_or_insert_text(connection, text.as_str())?;
                self.recent.insert(text.clone(), id);
                id
            }
        };
        if let Some(used) = &mut self.used_since_sweep {
            used.insert(id);
        }
        Ok(id)
    }

    /// From now on, remembers which texts are used.
    pub(super) fn begin_sweep(&mut self) {
        self.used_since_sweep = Some(HashSet::new());
    }

    pub(super) fn end_sweep(&mut self) {
        self.used_since_sweep = None;
    }

    /// Whether a text was used since the sweep began.
    pub(super) fn is_used(&self, id: i64) -> bool {
        self.used_since_sweep
            .as_ref()
            .is_none_or(|used| used.contains(&id))
    }

    /// Forgets texts that were removed.
    pub(super) fn forget(&mut self, removed: &HashSet<i64>) {
        self.recent.retain(|id| !removed.contains(id));
    }
}

fn find_or_insert_text(connection: &Connection, text: &str) -> rusqlite::Result<i64> {
    let known = connection
        .prepare_cached("SELECT id FROM text WHERE text = ?1")?
        .query_row([text], |row| row.get(0))
        .optional()?;
    match known {
        Some(id) => Ok(id),
        None => connection
            .prepare_cached("INSERT INTO text (text) VALUES (?1)")?
            .insert([text]),
    }
}

fn apply(connection: &Connection, texts: &mut TextIds, report: &Report) -> Result<(), Problem> {
    let sequence = next_sequence(connection)?;
    let run = RunRow {
        id: upsert_run(connection, &report.run, sequence)?,
        run: &report.run,
        sequence,
    };
    for container in &report.containers {
        upsert_container(connection, &run, container)?;
    }
    // Neighbours in the table are written together, five times faster than at random.
    let mut observations: Vec<&Observation> = report.observations.iter().collect();
    observations.sort_by(|a, b| a.container.cmp(&b.container));
    for group in observations.chunk_by(|a, b| a.container == b.container) {
        apply_observations(connection, texts, &run, group)?;
    }
    for (container, loss) in &report.losses {
        apply_loss(connection, &run, container, *loss)?;
    }
    for endpoint in &report.endpoints {
        upsert_endpoint(connection, endpoint, sequence)?;
    }
    for resolution in &report.resolutions {
        upsert_resolution(connection, &run, resolution)?;
    }
    Ok(())
}

fn describe(
    connection: &Connection,
    containers: &[Container],
    endpoints: &[Endpoint],
) -> Result<(), Problem> {
    let sequence = next_sequence(connection)?;
    for container in containers {
        describe_container(connection, container, sequence)?;
    }
    for endpoint in endpoints {
        upsert_endpoint(connection, endpoint, sequence)?;
    }
    Ok(())
}

/// The number of the report that is being applied, by which readers of changes find it.
fn next_sequence(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("UPDATE spool SET sequence = sequence + 1 RETURNING sequence")?
        .query_row([], |row| row.get(0))
}

/// The reporting run with its number, and the report's.
struct RunRow<'a> {
    id: i64,
    run: &'a Run,
    sequence: i64,
}

fn upsert_run(connection: &Connection, run: &Run, sequence: i64) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "INSERT INTO run (name, boot, node, hooks, started_ns, last_alive_ns, ended_cleanly, changed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (name) DO UPDATE SET
                 hooks = iif(excluded.hooks = '', hooks, excluded.hooks),
                 started_ns = min(started_ns, excluded.started_ns),
                 last_alive_ns = max(last_alive_ns, excluded.last_alive_ns),
                 ended_cleanly = max(ended_cleanly, excluded.ended_cleanly),
                 changed = excluded.changed
             RETURNING id",
        )?
        .query_row(
            params![
                run.id,
                run.boot.as_str(),
                run.node,
                run.hooks,
                run.started.0,
                run.last_alive.0,
                run.ended_cleanly,
                sequence
            ],
            |row| row.get(0),
        )
}

/// Adds what is new about a container, and makes it this run's.
fn upsert_container(
    connection: &Connection,
    run: &RunRow<'_>,
    container: &Container,
) -> Result<(), Problem> {
    let id = connection
        .prepare_cached(
            "INSERT INTO container (boot, cgroup, incarnation, run_id, node, runtime, runtime_id, name, image,
                 namespace, pod, pod_uid, workload_kind, workload_name, labels, cgroup_path,
                 watched_since_ns, present_at_start, ended_ns)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
             ON CONFLICT (boot, cgroup, incarnation) DO UPDATE SET
                 run_id = excluded.run_id,
                 node = iif(excluded.node = '', node, excluded.node),
                 runtime = iif(excluded.runtime = '', runtime, excluded.runtime),
                 runtime_id = iif(excluded.runtime_id = '', runtime_id, excluded.runtime_id),
                 name = iif(excluded.name = '', name, excluded.name),
                 image = iif(excluded.image = '', image, excluded.image),
                 namespace = iif(excluded.namespace = '', namespace, excluded.namespace),
                 pod = iif(excluded.pod = '', pod, excluded.pod),
                 pod_uid = iif(excluded.pod_uid = '', pod_uid, excluded.pod_uid),
                 workload_kind = iif(excluded.workload_name = '', workload_kind, excluded.workload_kind),
                 workload_name = iif(excluded.workload_name = '', workload_name, excluded.workload_name),
                 labels = iif(excluded.labels = '{}', labels, excluded.labels),
                 cgroup_path = iif(excluded.cgroup_path = '', cgroup_path, excluded.cgroup_path),
                 -- Whether it was present when the watch began is said of the earliest watch.
                 present_at_start = CASE
                     WHEN watched_since_ns IS NULL OR excluded.watched_since_ns < watched_since_ns
                         THEN excluded.present_at_start
                     WHEN excluded.watched_since_ns = watched_since_ns THEN max(present_at_start, excluded.present_at_start)
                     ELSE present_at_start END,
                 watched_since_ns = min(coalesce(watched_since_ns, excluded.watched_since_ns), excluded.watched_since_ns),
                 ended_ns = coalesce(ended_ns, excluded.ended_ns)
             WHERE run_id <= excluded.run_id
             RETURNING id",
        )?
        .query_row(
            params![
                container.key.boot.as_str(),
                container.key.cgroup.cast_signed(),
                container.key.incarnation,
                run.id,
                container.node,
                container.runtime.as_str(),
                container.id,
                container.name,
                container.image,
                container.namespace,
                container.pod,
                container.pod_uid,
                container.workload.kind,
                container.workload.name,
                json(&container.labels),
                container.cgroup_path.as_str(),
                container.watched_since.0,
                container.present_at_start,
                container.ended.map(|time| time.0),
            ],
            |row| row.get(0),
        )
        .optional()?;
    // Only its WHERE can keep the statement from touching a row.
    match id {
        Some(id) => Ok(note_change(connection, id, run.sequence)?),
        None => Err(superseded(run, &container.key)),
    }
}

/// Adds texts to a container that is known; whose it is stays as it was.
fn describe_container(
    connection: &Connection,
    container: &Container,
    sequence: i64,
) -> rusqlite::Result<()> {
    let id = connection
        .prepare_cached(
            "UPDATE container SET
                 name = iif(?4 = '', name, ?4),
                 image = iif(?5 = '', image, ?5),
                 namespace = iif(?6 = '', namespace, ?6),
                 pod = iif(?7 = '', pod, ?7),
                 workload_kind = iif(?9 = '', workload_kind, ?8),
                 workload_name = iif(?9 = '', workload_name, ?9),
                 labels = iif(?10 = '{}', labels, ?10)
             WHERE boot = ?1 AND cgroup = ?2 AND incarnation = ?3
             RETURNING id",
        )?
        .query_row(
            params![
                container.key.boot.as_str(),
                container.key.cgroup.cast_signed(),
                container.key.incarnation,
                container.name,
                container.image,
                container.namespace,
                container.pod,
                container.workload.kind,
                container.workload.name,
                json(&container.labels),
            ],
            |row| row.get(0),
        )
        .optional()?;
    match id {
        Some(id) => note_change(connection, id, sequence),
        None => Ok(()),
    }
}

/// Has readers of changes look at a container.
fn note_change(connection: &Connection, container_id: i64, sequence: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO container_change (container_id, changed) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET changed = excluded.changed",
        )?
        .execute([container_id, sequence])
        .map(drop)
}

fn superseded(run: &RunRow<'_>, container: &ContainerKey) -> Problem {
    Problem::Superseded {
        run: run.run.id.clone(),
        container: Box::new(container.clone()),
    }
}

fn json(labels: &BTreeMap<String, String>) -> String {
    serde_json::to_string(labels).expect("a map of texts is always valid JSON")
}

/// The number of a container that is about to be counted, as this run's container, which
/// thereby changes. One that was never described, or was removed since, is kept without a
/// name.
fn claim_container(
    connection: &Connection,
    run: &RunRow<'_>,
    key: &ContainerKey,
) -> Result<i64, Problem> {
    let id = find_or_insert_container(connection, run, key)?;
    note_change(connection, id, run.sequence)?;
    Ok(id)
}

fn find_or_insert_container(
    connection: &Connection,
    run: &RunRow<'_>,
    key: &ContainerKey,
) -> Result<i64, Problem> {
    let (boot, cgroup) = (key.boot.as_str(), key.cgroup.cast_signed());
    let known: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT id, run_id FROM container WHERE boot = ?1 AND cgroup = ?2 AND incarnation = ?3",
        )?
        .query_row(params![boot, cgroup, key.incarnation], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    match known {
        Some((id, owner)) if owner == run.id => Ok(id),
        Some((_, owner)) if owner > run.id => Err(superseded(run, key)),
        Some((id, _)) => {
            connection
                .prepare_cached("UPDATE container SET run_id = ?2 WHERE id = ?1")?
                .execute([id, run.id])?;
            Ok(id)
        }
        None => Ok(connection
            .prepare_cached(
                "INSERT INTO container (boot, cgroup, incarnation, run_id, node) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .insert(params![boot, cgroup, key.incarnation, run.id, run.run.node])?),
    }
}

const UPDATE_OBSERVATION: &str = "
    UPDATE observation SET
        base = iif(run_id = ?9, base, min(base + count, ?14)),
        count = iif(run_id = ?9, max(count, ?10), ?10),
        run_id = ?9,
        first_ns = min(first_ns, ?11),
        last_ns = max(last_ns, ?12),
        example = iif(example = '', ?13, example),
        changed = ?15
    WHERE container_id = ?1 AND kind = ?2 AND source_id = ?3 AND target_id = ?4
        AND protocol = ?5 AND port = ?6 AND access = ?7 AND status = ?8";

const INSERT_OBSERVATION: &str = "
    INSERT INTO observation (container_id, kind, source_id, target_id, protocol, port, access, status,
        base, run_id, count, first_ns, last_ns, example, changed, added)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, ?10, ?11, ?12, ?13, ?14, ?14)";

/// Applies observations that are all of one container, of which there is at least one.
fn apply_observations(
    connection: &Connection,
    texts: &mut TextIds,
    run: &RunRow<'_>,
    group: &[&Observation],
) -> Result<(), Problem> {
    let container_id = claim_container(connection, run, &group[0].container)?;
    let mut rows = group
        .iter()
        .map(|o| {
            let behaviour = &o.behaviour;
            let source_id = texts.id(connection, &behaviour.source)?;
            let target_id = texts.id(connection, &behaviour.target)?;
            Ok((behaviour.kind.number(), source_id, target_id, *o))
        })
        .collect::<rusqlite::Result<Vec<_>>>()?;
    rows.sort_by_key(|&(kind, source_id, target_id, _)| (kind, source_id, target_id));

    // Nearly every row is known, and an update finds its row once, where an upsert looks
    // for the place to insert first.
    let mut update = connection.prepare_cached(UPDATE_OBSERVATION)?;
    let mut insert = connection.prepare_cached(INSERT_OBSERVATION)?;
    for (kind, source_id, target_id, observation) in rows {
        let behaviour = &observation.behaviour;
        let Tally { count, first, last } = observation.tally;
        let count = stored_count(count);
        let example = observation.example.as_str();
        let (protocol, port) = (behaviour.protocol.number(), behaviour.port);
        let (access, status) = (behaviour.access.bits(), behaviour.status.number());
        let updated = update.execute(params![
            container_id,
            kind,
            source_id,
            target_id,
            protocol,
            port,
            access,
            status,
            run.id,
            count,
            first.0,
            last.0,
            example,
            stored_count(u64::MAX),
            run.sequence,
        ])?;
        if updated == 0 {
            insert.execute(params![
                container_id,
                kind,
                source_id,
                target_id,
                protocol,
                port,
                access,
                status,
                run.id,
                count,
                first.0,
                last.0,
                example,
                run.sequence,
            ])?;
        }
    }
    Ok(())
}

fn stored_count(count: u64) -> i64 {
    count.min(COUNT_MAX).cast_signed()
}

fn apply_loss(
    connection: &Connection,
    run: &RunRow<'_>,
    container: &ContainerKey,
    loss: Loss,
) -> Result<(), Problem> {
    let container_id = claim_container(connection, run, container)?;
    connection
        .prepare_cached(
            "INSERT INTO loss (container_id, reason, base, run_id, count, changed) VALUES (?1, ?2, 0, ?3, ?4, ?6)
             ON CONFLICT DO UPDATE SET
                 base = iif(run_id = excluded.run_id, base, min(base + count, ?5)),
                 count = iif(run_id = excluded.run_id, max(count, excluded.count), excluded.count),
                 run_id = excluded.run_id,
                 changed = excluded.changed",
        )?
        .execute(params![
            container_id,
            loss.reason.number(),
            run.id,
            stored_count(loss.count),
            stored_count(u64::MAX),
            run.sequence
        ])?;
    Ok(())
}

fn upsert_endpoint(
    connection: &Connection,
    endpoint: &Endpoint,
    sequence: i64,
) -> Result<(), Problem> {
    connection
        .prepare_cached(
            "INSERT INTO endpoint (ip, from_ns, namespace, name, labels, until_ns, changed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT DO UPDATE SET
                 labels = iif(excluded.labels = '{}', labels, excluded.labels),
                 until_ns = coalesce(until_ns, excluded.until_ns),
                 changed = excluded.changed",
        )?
        .execute(params![
            ip_bytes(endpoint.ip),
            endpoint.from.0,
            endpoint.namespace,
            endpoint.name,
            json(&endpoint.labels),
            endpoint.until.map(|time| time.0),
            sequence
        ])?;
    Ok(())
}

fn upsert_resolution(
    connection: &Connection,
    run: &RunRow<'_>,
    resolution: &Resolution,
) -> Result<(), Problem> {
    let container_id = claim_container(connection, run, &resolution.container)?;
    connection
        .prepare_cached(
            "INSERT INTO resolution (container_id, ip, name, first_ns, last_ns, changed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET
                 first_ns = min(first_ns, excluded.first_ns),
                 last_ns = max(last_ns, excluded.last_ns),
                 changed = excluded.changed
             WHERE excluded.first_ns < first_ns OR excluded.last_ns > last_ns",
        )?
        .execute(params![
            container_id,
            resolution.ip.to_string(),
            resolution.name.as_str(),
            resolution.first.0,
            resolution.last.0,
            run.sequence
        ])?;
    Ok(())
}

/// An address as it is kept: 4 or 16 bytes in network order.
pub(super) fn ip_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
