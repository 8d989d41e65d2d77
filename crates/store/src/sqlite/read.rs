//! Queries. SQL narrows down to what can be selected; [`Selection`] has the last word.

use super::{problem::Problem, recent::RecentMap, write::ip_bytes};
use crate::{KeptContainer, Overview, Stats};
use ethogram_model::{
    Access, Behaviour, BootId, Container, ContainerKey, Endpoint, Kind, Labels, Loss, LossReason,
    Name, Observation, Protocol, Resolution, Run, Runtime, Selection, Status, Tally, Timestamp,
    Workload,
};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, ToSql, params_from_iter};
use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::ControlFlow,
};

/// Texts a query remembers, per generation of its cache (there are two): about 6 MB.
const TEXTS_CACHED_MAX: usize = 65_536;

/// Selected containers with their numbers, in the order of those.
pub(super) fn containers(
    connection: &Connection,
    selection: &Selection,
) -> Result<Vec<(i64, KeptContainer)>, Problem> {
    let mut sql = format!("{CONTAINER} WHERE true");
    let mut values = Vec::new();
    for (column, wanted) in [
        ("namespace", &selection.namespace),
        ("node", &selection.node),
        ("pod", &selection.pod),
    ] {
        // A pattern is left to the selection itself.
        if let Some(wanted) = wanted.as_deref().filter(|wanted| !wanted.ends_with('*')) {
            values.push(wanted);
            write!(sql, " AND {column} = ?{}", values.len())
                .expect("writing to a String cannot fail");
        }
    }
    sql.push_str(" ORDER BY id");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut selected = Vec::new();
    while let Some(row) = rows.next()? {
        let kept = kept_container(row)?;
        if selection.selects(&kept.container) {
            selected.push((row.get(0)?, kept));
        }
    }
    Ok(selected)
}

/// A container's description, as [`kept_container`] reads it.
const CONTAINER: &str = "
    SELECT id, boot, cgroup, incarnation, node, runtime, runtime_id, name, image, namespace, pod, pod_uid,
        workload_kind, workload_name, labels, cgroup_path,
        coalesce(watched_since_ns, (SELECT started_ns FROM run WHERE run.id = run_id), 0),
        present_at_start, ended_ns, history_since_ns, watched_since_ns IS NULL
    FROM container";

/// The container of a number, for others to join with what they know: while nobody has
/// said since when it is watched, that is later than any time.
pub(super) fn container(connection: &Connection, id: i64) -> Result<Container, Problem> {
    let mut statement = connection.prepare_cached(&format!("{CONTAINER} WHERE id = ?1"))?;
    let mut rows = statement.query([id])?;
    let row = rows
        .next()?
        .ok_or_else(|| Problem::Damaged(format!("container number {id} is missing")))?;
    let mut container = kept_container(row)?.container;
    if row.get(20)? {
        container.watched_since = Timestamp(i64::MAX);
    }
    Ok(container)
}

fn kept_container(row: &Row<'_>) -> Result<KeptContainer, Problem> {
    let container = Container {
        key: container_key(row, 1)?,
        node: row.get(4)?,
        runtime: Runtime::from_word(row.get_ref(5)?.as_str().map_err(not_text)?),
        id: row.get(6)?,
        name: row.get(7)?,
        image: row.get(8)?,
        namespace: row.get(9)?,
        pod: row.get(10)?,
        pod_uid: row.get(11)?,
        workload: Workload {
            kind: row.get(12)?,
            name: row.get(13)?,
        },
        labels: labels(row, 14)?,
        cgroup_path: name(row, 15)?,
        watched_since: Timestamp(row.get(16)?),
        present_at_start: row.get(17)?,
        ended: row.get::<_, Option<i64>>(18)?.map(Timestamp),
    };
    Ok(KeptContainer {
        container,
        history_since: row.get::<_, Option<i64>>(19)?.map(Timestamp),
    })
}

/// A container's key, in three columns from the given one on.
fn container_key(row: &Row<'_>, column: usize) -> Result<ContainerKey, Problem> {
    Ok(ContainerKey {
        boot: BootId::new(row.get_ref(column)?.as_str().map_err(not_text)?),
        cgroup: row.get::<_, i64>(column + 1)?.cast_unsigned(),
        incarnation: row.get(column + 2)?,
    })
}

fn not_text(error: impl std::fmt::Display) -> Problem {
    Problem::Damaged(format!("a text is none: {error}"))
}

fn name(row: &Row<'_>, column: usize) -> Result<Name, Problem> {
    let text = row.get_ref(column)?.as_str().map_err(not_text)?;
    Ok(Name::from_escaped(text))
}

fn labels(row: &Row<'_>, column: usize) -> Result<Labels, Problem> {
    let text = row.get_ref(column)?.as_str().map_err(not_text)?;
    serde_json::from_str(text).map_err(|error| {
        Problem::Damaged(format!("labels are not a JSON object of texts: {error}"))
    })
}

/// Visits the selected observations, container by container, each in the table's order.
pub(super) fn observations(
    connection: &Connection,
    selection: &Selection,
    visit: &mut dyn FnMut(Observation) -> ControlFlow<()>,
) -> Result<(), Problem> {
    let mut texts = Texts::new(connection)?;
    let (sql, times) = observations_sql(selection);
    let mut statement = connection.prepare_cached(&sql)?;
    for (id, kept) in containers(connection, selection)? {
        let mut parameters: Vec<&dyn ToSql> = vec![&id];
        parameters.extend(times.iter().map(|time| -> &dyn ToSql { time }));
        let mut rows = statement.query(parameters.as_slice())?;
        while let Some(row) = rows.next()? {
            let observation = observation(row, &kept.container.key, &mut texts)?;
            if selection.selects_observation(&observation) && visit(observation).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The query for one container's rows (`?1`), and the times for its further parameters.
fn observations_sql(selection: &Selection) -> (String, Vec<i64>) {
    let mut sql = format!("{OBSERVATION} WHERE container_id = ?1");
    let mut add = |condition: std::fmt::Arguments<'_>| {
        sql.write_fmt(condition)
            .expect("writing to a String cannot fail");
    };
    let list = |numbers: Vec<u8>| {
        numbers
            .iter()
            .map(u8::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    if !selection.kinds.is_empty() {
        let kinds = selection.kinds.iter().map(|kind| kind.number()).collect();
        add(format_args!(" AND kind IN ({})", list(kinds)));
    }
    if selection.statuses.is_empty() {
        add(format_args!(" AND status <> {}", Status::Failed.number()));
    } else {
        let statuses = selection.statuses.iter().map(|s| s.number()).collect();
        add(format_args!(" AND status IN ({})", list(statuses)));
    }
    let mut times = Vec::new();
    if let Some(since) = selection.since {
        times.push(since.0);
        add(format_args!(" AND last_ns >= ?{}", times.len() + 1));
    }
    if let Some(until) = selection.until {
        times.push(until.0);
        add(format_args!(" AND first_ns < ?{}", times.len() + 1));
    }
    (sql, times)
}

/// A row, as [`observation`] reads it: its place first.
pub(super) const OBSERVATION: &str = "
    SELECT kind, source_id, target_id, protocol, port, access, status, base + count, first_ns, last_ns, example, added
    FROM observation";

pub(super) fn observation(
    row: &Row<'_>,
    container: &ContainerKey,
    texts: &mut Texts<'_>,
) -> Result<Observation, Problem> {
    let behaviour = Behaviour {
        kind: known(row.get(0)?, Kind::from_number, "kind")?,
        source: texts.source(row.get(1)?)?,
        target: texts.text(row.get(2)?)?,
        protocol: known(row.get(3)?, Protocol::from_number, "protocol")?,
        port: row.get(4)?,
        access: Access::from_bits(row.get(5)?),
        status: known(row.get(6)?, Status::from_number, "status")?,
    };
    let tally = Tally {
        count: row.get(7)?,
        first: Timestamp(row.get(8)?),
        last: Timestamp(row.get(9)?),
    };
    Ok(Observation {
        container: container.clone(),
        behaviour,
        tally,
        example: texts.example(row, 10)?,
    })
}

pub(super) fn known<T>(number: u8, of: impl Fn(u8) -> Option<T>, what: &str) -> Result<T, Problem> {
    of(number).ok_or_else(|| Problem::Damaged(format!("there is no {what} number {number}")))
}

/// Looks texts up by number. Rows share most of theirs.
pub(super) struct Texts<'a> {
    statement: CachedStatement<'a>,
    recent: RecentMap<i64, Name>,
    /// Rows come in the order of their sources, so the next one's is mostly the same.
    last_source: (i64, Name),
    empty: Name,
}

impl<'a> Texts<'a> {
    pub(super) fn new(connection: &'a Connection) -> Result<Self, Problem> {
        Ok(Self {
            statement: connection.prepare_cached("SELECT text FROM text WHERE id = ?1")?,
            recent: RecentMap::new(TEXTS_CACHED_MAX),
            last_source: (0, Name::default()),
            empty: Name::default(),
        })
    }

    fn source(&mut self, id: i64) -> Result<Name, Problem> {
        if self.last_source.0 != id {
            self.last_source = (id, self.text(id)?);
        }
        Ok(self.last_source.1.clone())
    }

    /// The example of a row; most have none, and share it.
    fn example(&self, row: &Row<'_>, column: usize) -> Result<Name, Problem> {
        let example = row.get_ref(column)?.as_str().map_err(not_text)?;
        if example.is_empty() {
            return Ok(self.empty.clone());
        }
        Ok(Name::from_escaped(example))
    }

    fn text(&mut self, id: i64) -> Result<Name, Problem> {
        if let Some(text) = self.recent.get(&id) {
            return Ok(text);
        }
        let mut rows = self.statement.query([id])?;
        let row = rows
            .next()?
            .ok_or_else(|| Problem::Damaged(format!("text number {id} is missing")))?;
        let text = name(row, 0)?;
        self.recent.insert(id, text.clone());
        Ok(text)
    }
}

pub(super) fn losses(
    connection: &Connection,
    selection: &Selection,
) -> Result<Vec<(ContainerKey, Loss)>, Problem> {
    let mut statement = connection
        .prepare_cached("SELECT reason, base + count FROM loss WHERE container_id = ?1")?;
    let mut losses = Vec::new();
    for (id, kept) in containers(connection, selection)? {
        let mut rows = statement.query([id])?;
        while let Some(row) = rows.next()? {
            let loss = Loss {
                reason: known(row.get(0)?, LossReason::from_number, "loss reason")?,
                count: row.get(1)?,
            };
            losses.push((kept.container.key.clone(), loss));
        }
    }
    Ok(losses)
}

pub(super) fn endpoints(
    connection: &Connection,
    ips: Option<&[IpAddr]>,
) -> Result<Vec<Endpoint>, Problem> {
    let mut endpoints = Vec::new();
    let mut take = |mut rows: rusqlite::Rows<'_>| -> Result<(), Problem> {
        while let Some(row) = rows.next()? {
            endpoints.push(endpoint(row)?);
        }
        Ok(())
    };
    match ips {
        None => take(connection.prepare_cached(ENDPOINT)?.query([])?)?,
        Some(ips) => {
            let mut statement = connection.prepare_cached(&format!("{ENDPOINT} WHERE ip = ?1"))?;
            for ip in ips {
                take(statement.query([ip_bytes(*ip)])?)?;
            }
        }
    }
    endpoints.sort_by_key(|endpoint| (endpoint.ip, endpoint.from));
    Ok(endpoints)
}

/// An endpoint, as [`endpoint`] reads it.
pub(super) const ENDPOINT: &str =
    "SELECT ip, name, namespace, labels, from_ns, until_ns, id FROM endpoint";

pub(super) fn endpoint(row: &Row<'_>) -> Result<Endpoint, Problem> {
    let bytes = row.get_ref(0)?.as_blob().map_err(not_text)?;
    Ok(Endpoint {
        ip: ip_from_bytes(bytes)
            .ok_or_else(|| Problem::Damaged(format!("an address of {} bytes", bytes.len())))?,
        name: row.get(1)?,
        namespace: row.get(2)?,
        labels: labels(row, 3)?,
        from: Timestamp(row.get(4)?),
        until: row.get::<_, Option<i64>>(5)?.map(Timestamp),
    })
}

pub(super) fn resolutions(
    connection: &Connection,
    selection: &Selection,
) -> Result<Vec<Resolution>, Problem> {
    let mut statement =
        connection.prepare_cached(&format!("{RESOLUTION} WHERE container_id = ?1"))?;
    let mut resolutions = Vec::new();
    for (id, _) in containers(connection, selection)? {
        let mut rows = statement.query([id])?;
        while let Some(row) = rows.next()? {
            resolutions.push(resolution(row)?);
        }
    }
    Ok(resolutions)
}

/// A resolution, as [`resolution`] reads it.
pub(super) const RESOLUTION: &str =
    "SELECT ip, resolution.name, first_ns, last_ns, resolution.id, boot, cgroup, incarnation
     FROM resolution JOIN container ON container.id = container_id";

pub(super) fn resolution(row: &Row<'_>) -> Result<Resolution, Problem> {
    let text = row.get_ref(0)?.as_str().map_err(not_text)?;
    Ok(Resolution {
        container: container_key(row, 5)?,
        ip: text
            .parse()
            .map_err(|_| Problem::Damaged(format!("{text:?} is no address")))?,
        name: name(row, 1)?,
        first: Timestamp(row.get(2)?),
        last: Timestamp(row.get(3)?),
    })
}

fn ip_from_bytes(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(octets).into())
}

pub(super) fn runs(connection: &Connection) -> Result<Vec<Run>, Problem> {
    let mut statement = connection.prepare_cached(&format!("{RUN} ORDER BY id"))?;
    let runs = statement.query_map([], run)?;
    Ok(runs.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn runs_around(connection: &Connection, boots: &[&BootId]) -> Result<Vec<Run>, Problem> {
    let boots: Vec<&str> = boots.iter().map(|boot| boot.as_str()).collect();
    // One parameter for any number of boots.
    let boots = serde_json::to_string(&boots).expect("a list of texts is always valid JSON");
    let sql = format!(
        "{RUN} WHERE node IN (SELECT node FROM run WHERE boot IN (SELECT value FROM json_each(?1))) ORDER BY id"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let runs = statement.query_map([boots], run)?;
    Ok(runs.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn last_alive(
    connection: &Connection,
    id_prefix: &str,
) -> Result<Option<Timestamp>, Problem> {
    // The last character is above all that follows the prefix in a text.
    let alive: Option<i64> = connection
        .prepare_cached(
            "SELECT max(last_alive_ns) FROM run WHERE name >= ?1 AND name < ?1 || char(1114111)",
        )?
        .query_row([id_prefix], |row| row.get(0))?;
    Ok(alive.map(Timestamp))
}

/// A run, as [`run`] reads it.
pub(super) const RUN: &str =
    "SELECT name, boot, node, hooks, started_ns, last_alive_ns, ended_cleanly, id FROM run";

pub(super) fn run(row: &Row<'_>) -> rusqlite::Result<Run> {
    Ok(Run {
        id: row.get(0)?,
        boot: BootId::new(&row.get::<_, String>(1)?),
        node: row.get(2)?,
        hooks: row.get(3)?,
        started: Timestamp(row.get(4)?),
        last_alive: Timestamp(row.get(5)?),
        ended_cleanly: row.get(6)?,
    })
}

pub(super) fn stats(
    connection: &Connection,
    selection: &Selection,
) -> Result<Vec<(ContainerKey, Stats)>, Problem> {
    let mut statement = connection
        .prepare_cached("SELECT base + count, last_ns FROM observation WHERE container_id = ?1")?;
    let mut all = Vec::new();
    for (id, kept) in containers(connection, selection)? {
        let mut stats = Stats::default();
        let mut rows = statement.query([id])?;
        while let Some(row) = rows.next()? {
            stats.rows += 1;
            // SQL's sum() fails where this saturates.
            stats.events = stats.events.saturating_add(row.get(0)?);
            stats.last_seen = stats.last_seen.max(Some(Timestamp(row.get(1)?)));
        }
        all.push((kept.container.key, stats));
    }
    Ok(all)
}

/// All of the overview but the bytes, which the file system knows.
pub(super) fn overview(connection: &Connection) -> Result<Overview, Problem> {
    let since: Option<i64> = connection
        .query_row("SELECT since_ns FROM history", [], |row| row.get(0))
        .optional()?
        .flatten();
    Ok(Overview {
        bytes: 0,
        containers: connection.query_row("SELECT count(*) FROM container", [], |row| row.get(0))?,
        history_since: since.map(Timestamp),
    })
}
