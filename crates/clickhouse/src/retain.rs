//! Retention: removing the oldest.
//!
//! What is about to go is counted and noted first ("history is whole since"), then
//! removed: whoever is interrupted in between has said too little is known, never too
//! much. A removal concerns what was there when it was asked for; what arrives later stays.

use crate::{
    problem::{Problem, code},
    read::{self, KeyRow, bytes_on_disk, system_table},
    rows::{HistoryRow, NOT_YET_NS},
    schema::{self, DATA, Table, on_cluster},
    server::Server,
    sql::{self, CONTAINER, of_containers, quoted, quoted_list},
};
use clickhouse::Row;
use ethogram_model::{ContainerKey, Endpoint, Timestamp};
use ethogram_store::{Limits, Removed};
use serde::Deserialize;
use std::{
    collections::{HashMap, HashSet},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Size retention makes this much room, in per cent of the limit, so that it does not
/// have to run again for the next report.
const HEADROOM_PERCENT: u64 = 10;

/// Containers or other keys one removal names: some 240 KB of text, which ZooKeeper
/// (1 MiB) can still keep.
const KEYS_PER_REMOVAL: usize = 4096;

/// Containers whose rows are counted by one query.
const CONTAINERS_PER_COUNT: usize = 1024;

/// A removal that takes longer has failed: see the server's log and `system.mutations`.
const REMOVAL_TIME_MAX: Duration = Duration::from_secs(3600);

/// How often the server is asked whether a removal is through: at first, and at last.
const POLL_MS_MIN: u64 = 10;
const POLL_MS_MAX: u64 = 2_000;

pub(crate) fn retain(server: &Server, limits: &Limits, now: Timestamp) -> Result<Removed, Problem> {
    let mut removed = Removed::default();
    let before = bytes_on_disk(server)?;
    if let Some(age_max) = limits.age_max {
        let age_ns = i64::try_from(age_max.as_nanos()).unwrap_or(i64::MAX);
        let cutoff = Timestamp(now.0.saturating_sub(age_ns));
        remove_older_than(server, cutoff, &mut removed)?;
    }
    if let Some(bytes_max) = limits.bytes_max {
        shrink(server, bytes_max, &mut removed)?;
    }
    removed.bytes = before.saturating_sub(bytes_on_disk(server)?);
    Ok(removed)
}

/// Age: rows last seen before `cutoff`, then whatever is empty and over.
fn remove_older_than(
    server: &Server,
    cutoff: Timestamp,
    removed: &mut Removed,
) -> Result<(), Problem> {
    remove_rows_before(server, cutoff, removed)?;
    remove_resolutions(server, cutoff, removed)?;
    remove_gone_containers(server, cutoff, removed)?;
    remove_endpoints(server, cutoff, removed)?;
    remove_runs(server, cutoff, removed)
}

#[derive(Row, Deserialize)]
struct CountRow {
    boot: String,
    cgroup: u64,
    incarnation: u32,
    rows: u64,
}

/// Removes what runs last saw before `cutoff`, and notes with each container concerned
/// since when its history is whole.
fn remove_rows_before(
    server: &Server,
    cutoff: Timestamp,
    removed: &mut Removed,
) -> Result<(), Problem> {
    let old = rows_before(cutoff);
    let concerned = keys(
        server,
        &format!("SELECT {CONTAINER} FROM observation WHERE {old} GROUP BY {CONTAINER}"),
    )?;
    let mut rows = 0;
    for concerned in concerned.chunks(CONTAINERS_PER_COUNT) {
        let counts: Vec<CountRow> = server.select(&old_rows_sql(concerned, cutoff))?;
        let since = |row: &CountRow| {
            let key = ContainerKey {
                boot: ethogram_model::BootId::new(&row.boot),
                cgroup: row.cgroup,
                incarnation: row.incarnation,
            };
            HistoryRow::new(Some(&key), cutoff.0)
        };
        let history: Vec<HistoryRow> = counts.iter().map(since).collect();
        server.insert(&schema::HISTORY, &history)?;
        rows += counts.iter().map(|row| row.rows).sum::<u64>();
    }
    if !concerned.is_empty() {
        delete(server, &schema::OBSERVATION, &old)?;
    }
    removed.rows += rows;
    Ok(())
}

/// Rows of which what is joined was last seen before. One that stands for an earlier state
/// of a row that lives on adds nothing to it and may go as well.
pub(crate) fn rows_before(cutoff: Timestamp) -> String {
    format!("finalizeAggregation(last_ns) < {}", cutoff.0)
}

/// How many joined rows of each container are old; those that have none are left out.
pub(crate) fn old_rows_sql(keys: &[ContainerKey], cutoff: Timestamp) -> String {
    format!(
        "SELECT {CONTAINER}, countIf(run_seen < {}) AS rows FROM (\
             SELECT {CONTAINER}, maxMerge(last_ns) AS run_seen FROM observation WHERE {} \
             GROUP BY {CONTAINER}, kind, source, target, protocol, port, access, status, run) \
         GROUP BY {CONTAINER} HAVING rows > 0",
        cutoff.0,
        of_containers(keys)
    )
}

fn keys(server: &Server, sql: &str) -> Result<Vec<ContainerKey>, Problem> {
    let rows: Vec<KeyRow> = server.select(sql)?;
    Ok(rows.iter().map(KeyRow::key).collect())
}

/// What retention wants to know of a container.
#[derive(Row, Deserialize)]
struct EndRow {
    boot: String,
    cgroup: u64,
    incarnation: u32,
    ended: i64,
    runs: Vec<String>,
}

pub(crate) fn ends_sql() -> String {
    format!(
        "SELECT {CONTAINER}, \
             if(countIf(ended_ns != {NOT_YET_NS}) = 0, toInt64({NOT_YET_NS}), \
                argMinIf(ended_ns, finalizeAggregation(arrived_first_ns), ended_ns != {NOT_YET_NS})) AS ended, \
             groupUniqArray(run) AS runs \
         FROM container GROUP BY {CONTAINER}"
    )
}

/// A container with its end, and the runs that reported it.
struct Known {
    key: ContainerKey,
    ended: Option<Timestamp>,
    runs: Vec<String>,
}

fn known_containers(server: &Server) -> Result<Vec<Known>, Problem> {
    let rows: Vec<EndRow> = server.select(&ends_sql())?;
    let known = |row: EndRow| Known {
        key: ContainerKey {
            boot: ethogram_model::BootId::new(&row.boot),
            cgroup: row.cgroup,
            incarnation: row.incarnation,
        },
        ended: (row.ended != NOT_YET_NS).then_some(Timestamp(row.ended)),
        runs: row.runs,
    };
    Ok(rows.into_iter().map(known).collect())
}

/// Removes containers without rows that ended before the cutoff, or whose watch did:
/// nobody may be left to say that they ended.
fn remove_gone_containers(
    server: &Server,
    cutoff: Timestamp,
    removed: &mut Removed,
) -> Result<(), Problem> {
    let alive: HashMap<String, Timestamp> = read::runs(server, "1")?
        .into_iter()
        .map(|run| (run.id, run.last_alive))
        .collect();
    let mut over: Vec<(ContainerKey, Timestamp)> = Vec::new();
    for Known { key, ended, runs } in known_containers(server)? {
        let watched_until = runs.iter().filter_map(|run| alive.get(run)).max();
        let end = ended.or(watched_until.copied()).unwrap_or(Timestamp(0));
        if end < cutoff {
            over.push((key, end));
        }
    }
    for over in over.chunks(KEYS_PER_REMOVAL) {
        let condition = of_containers(over.iter().map(|(key, _)| key));
        let busy: HashSet<ContainerKey> = keys(
            server,
            &format!("SELECT {CONTAINER} FROM observation WHERE {condition} GROUP BY {CONTAINER}"),
        )?
        .into_iter()
        .collect();
        let gone: Vec<_> = over
            .iter()
            .filter(|(key, _)| !busy.contains(key))
            .cloned()
            .collect();
        remove_containers(server, &gone, removed)?;
    }
    Ok(())
}

/// Removes containers whole.
fn remove_containers(
    server: &Server,
    gone: &[(ContainerKey, Timestamp)],
    removed: &mut Removed,
) -> Result<(), Problem> {
    let Some(latest) = gone.iter().map(|(_, end)| end.0).max() else {
        return Ok(());
    };
    server.insert(
        &schema::HISTORY,
        &[HistoryRow::new(None, latest.saturating_add(1))],
    )?;
    let condition = of_containers(gone.iter().map(|(key, _)| key));
    let rows = count(
        server,
        &format!(
            "SELECT count() FROM (SELECT {CONTAINER} FROM observation WHERE {condition} \
             GROUP BY {CONTAINER}, kind, source, target, protocol, port, access, status, run)"
        ),
    )?;
    if rows > 0 {
        delete(server, &schema::OBSERVATION, &condition)?;
    }
    for table in [
        schema::LOSS,
        schema::RESOLUTION,
        schema::CONTAINER,
        schema::HISTORY,
    ] {
        delete(server, &table, &condition)?;
    }
    removed.rows += rows;
    removed.containers += gone.len() as u64;
    Ok(())
}

/// Removes names that were last told before the cutoff, but for those that a row still wants.
fn remove_resolutions(
    server: &Server,
    cutoff: Timestamp,
    removed: &mut Removed,
) -> Result<(), Problem> {
    let old = read::resolutions_where(server, "1", &format!("seen < {}", cutoff.0))?;
    let mut containers: Vec<_> = old.iter().map(|old| old.container.clone()).collect();
    containers.sort();
    containers.dedup();
    let mut wanted = HashSet::new();
    for containers in containers.chunks(CONTAINERS_PER_COUNT) {
        wanted.extend(read::egress_targets(server, containers)?);
    }
    let gone: Vec<_> = old
        .into_iter()
        .filter(|old| !wanted.contains(&(old.container.clone(), old.ip.to_string())))
        .collect();
    for gone in gone.chunks(KEYS_PER_REMOVAL) {
        let keys = gone.iter().map(|gone| {
            let (boot, ip) = (quoted(gone.container.boot.as_str()), gone.ip);
            let (cgroup, incarnation) = (gone.container.cgroup, gone.container.incarnation);
            let name = quoted(gone.name.as_str());
            format!("({boot}, {cgroup}, {incarnation}, '{ip}', {name})")
        });
        let condition = format!("({CONTAINER}, ip, name) IN {}", sql::list(keys));
        delete(server, &schema::RESOLUTION, &condition)?;
    }
    removed.resolutions += gone.len() as u64;
    Ok(())
}

/// Removes endpoints that ended before the cutoff. An address that was given to somebody
/// else is no longer the former owner's, even if nobody said so.
fn remove_endpoints(
    server: &Server,
    cutoff: Timestamp,
    removed: &mut Removed,
) -> Result<(), Problem> {
    let all = read::endpoints(server, None)?;
    let gone: Vec<&Endpoint> = endings(&all)
        .filter(|(_, end)| end.is_some_and(|end| end < cutoff))
        .map(|(endpoint, _)| endpoint)
        .collect();
    for gone in gone.chunks(KEYS_PER_REMOVAL) {
        let keys = gone.iter().map(|endpoint| {
            let ip = quoted(&endpoint.ip.to_string());
            let (namespace, name) = (quoted(&endpoint.namespace), quoted(&endpoint.name));
            format!("({ip}, {}, {namespace}, {name})", endpoint.from.0)
        });
        let condition = format!("(ip, from_ns, namespace, name) IN {}", sql::list(keys));
        delete(server, &schema::ENDPOINT, &condition)?;
    }
    removed.endpoints += gone.len() as u64;
    Ok(())
}

/// Endpoints, in the order of address and time, with when each ended at the latest.
fn endings(all: &[Endpoint]) -> impl Iterator<Item = (&Endpoint, Option<Timestamp>)> {
    all.iter().enumerate().map(|(at, endpoint)| {
        let next_owner = all[at..]
            .iter()
            .take_while(|later| later.ip == endpoint.ip)
            .find(|later| later.from > endpoint.from);
        (
            endpoint,
            endpoint.until.or(next_owner.map(|later| later.from)),
        )
    })
}

/// Removes runs that ended before the cutoff; but the newest stays, and any that reported
/// a container that is kept: its times say when that one was watched.
fn remove_runs(server: &Server, cutoff: Timestamp, removed: &mut Removed) -> Result<(), Problem> {
    let mut runs = read::runs(server, "1")?;
    runs.pop();
    let needed: HashSet<String> = known_containers(server)?
        .into_iter()
        .flat_map(|known| known.runs)
        .collect();
    let gone: Vec<&str> = runs
        .iter()
        .filter(|run| run.last_alive < cutoff && !needed.contains(&run.id))
        .map(|run| &*run.id)
        .collect();
    for gone in gone.chunks(KEYS_PER_REMOVAL) {
        delete(
            server,
            &schema::RUN,
            &format!("id IN {}", quoted_list(gone.iter().copied())),
        )?;
    }
    removed.runs += gone.len() as u64;
    Ok(())
}

/// Size: what is superseded first, then ended containers, those that ended first first,
/// then the oldest rows of all.
fn shrink(server: &Server, bytes_max: u64, removed: &mut Removed) -> Result<(), Problem> {
    if bytes_on_disk(server)? <= bytes_max {
        return Ok(());
    }
    compact(server)?;
    if bytes_on_disk(server)? <= bytes_max {
        return Ok(());
    }
    let target = bytes_max - bytes_max / 100 * HEADROOM_PERCENT;
    remove_ended_containers(server, target, removed)?;
    let mut used_before = u64::MAX;
    loop {
        let used = bytes_on_disk(server)?;
        // A round that gained nothing met what retention cannot remove (descriptions of
        // living containers), or reports that bring rows as fast as it removes them.
        if used <= bytes_max || used >= used_before {
            return Ok(());
        }
        used_before = used;
        let Some(cutoff) = age_quantile(server, used - target, used)? else {
            return Ok(());
        };
        remove_rows_before(server, cutoff, removed)?;
    }
}

/// Joins all rows of equal key.
fn compact(server: &Server) -> Result<(), Problem> {
    for table in DATA {
        let place = on_every_server(server, &table);
        match server.execute_anywhere(&format!("OPTIMIZE TABLE {place} FINAL")) {
            // What 18.16 says of a replicated table that has nothing to join.
            Err(problem) if problem.code() == Some(code::LOGICAL_ERROR) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

fn remove_ended_containers(
    server: &Server,
    target: u64,
    removed: &mut Removed,
) -> Result<(), Problem> {
    let mut ended: Vec<(Timestamp, ContainerKey)> = known_containers(server)?
        .into_iter()
        .filter_map(|known| known.ended.map(|end| (end, known.key)))
        .collect();
    ended.sort();
    let mut ended = &ended[..];
    while !ended.is_empty() {
        let used = bytes_on_disk(server)?;
        if used <= target {
            return Ok(());
        }
        let next = &ended[..ended.len().min(KEYS_PER_REMOVAL)];
        let enough = enough_of(server, next, used, used - target)?;
        let gone: Vec<_> = next[..enough]
            .iter()
            .map(|(end, key)| (key.clone(), *end))
            .collect();
        remove_containers(server, &gone, removed)?;
        ended = &ended[enough..];
    }
    Ok(())
}

/// How many of the first containers make up `wanted` of `used` bytes, by their share of
/// the rows; at least one.
fn enough_of(
    server: &Server,
    ended: &[(Timestamp, ContainerKey)],
    used: u64,
    wanted: u64,
) -> Result<usize, Problem> {
    let all = count(server, "SELECT count() FROM observation")?;
    let rows: Vec<CountRow> = server.select(&format!(
        "SELECT {CONTAINER}, count() AS rows FROM observation WHERE {} GROUP BY {CONTAINER}",
        of_containers(ended.iter().map(|(_, key)| key))
    ))?;
    let rows: HashMap<(String, u64, u32), u64> = rows
        .into_iter()
        .map(|row| ((row.boot, row.cgroup, row.incarnation), row.rows))
        .collect();
    let rows_wanted = u128::from(all) * u128::from(wanted) / u128::from(used.max(1));
    let mut sum = 0_u128;
    for (at, (_, key)) in ended.iter().enumerate() {
        let key = (key.boot.as_str().to_owned(), key.cgroup, key.incarnation);
        sum += u128::from(rows.get(&key).copied().unwrap_or(0));
        if sum >= rows_wanted {
            return Ok(at + 1);
        }
    }
    Ok(ended.len())
}

#[derive(Row, Deserialize)]
struct QuantileRow {
    rows: u64,
    quantile: f64,
}

/// The time before which about `part` of `whole` of all rows were last seen, at least one
/// row; `None` without rows.
fn age_quantile(server: &Server, part: u64, whole: u64) -> Result<Option<Timestamp>, Problem> {
    let rows: Vec<QuantileRow> =
        server.select(&age_quantile_sql(part as f64 / whole.max(1) as f64))?;
    // A float holds today's nanoseconds to a quarter of a microsecond.
    let cutoff = |row: &QuantileRow| Timestamp((row.quantile as i64).saturating_add(1));
    Ok(rows.first().filter(|row| row.rows > 0).map(cutoff))
}

pub(crate) fn age_quantile_sql(level: f64) -> String {
    format!(
        "SELECT count() AS rows, toFloat64(quantile({level:.6})(finalizeAggregation(last_ns))) AS quantile \
         FROM observation"
    )
}

fn count(server: &Server, sql: &str) -> Result<u64, Problem> {
    Ok(server.select::<u64>(sql)?.first().copied().unwrap_or(0))
}

fn on_every_server(server: &Server, table: &Table) -> String {
    let on_cluster = server.cluster().map(on_cluster).unwrap_or_default();
    format!(
        "`{}`.{}{on_cluster}",
        server.database(),
        table.local(server.cluster())
    )
}

/// Removes rows, and returns when they are gone from every shard.
fn delete(server: &Server, table: &Table, condition: &str) -> Result<(), Problem> {
    // A shard learns of a removal a moment after it was asked for: until all know one with
    // this mark, it is not through.
    let mark = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    let mark = format!("{mark} = {mark}");
    let place = on_every_server(server, table);
    server.execute_anywhere(&format!(
        "ALTER TABLE {place} DELETE WHERE ({condition}) AND {mark}"
    ))?;
    await_removal(server, &mark)
}

fn await_removal(server: &Server, mark: &str) -> Result<(), Problem> {
    let shards = match server.cluster() {
        None => 1,
        Some(cluster) => count(
            server,
            &format!(
                "SELECT uniqExact(shard_num) FROM system.clusters WHERE cluster = {}",
                quoted(cluster)
            ),
        )?,
    };
    let done = format!(
        "SELECT count() FROM {} WHERE is_done AND database = {} AND position(command, {}) > 0",
        system_table(server, "mutations"),
        quoted(server.database()),
        quoted(mark)
    );
    let begun = Instant::now();
    let mut poll_ms = POLL_MS_MIN;
    while count(server, &done)? < shards {
        if begun.elapsed() > REMOVAL_TIME_MAX {
            return Err(Problem::Unreachable(format!(
                "a removal was not through after {} s; see system.mutations",
                REMOVAL_TIME_MAX.as_secs()
            )));
        }
        thread::sleep(Duration::from_millis(poll_ms));
        poll_ms = (poll_ms * 2).min(POLL_MS_MAX);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ethogram_model::Labels;

    #[test]
    fn an_address_ends_with_its_next_owner() {
        let endpoint = |ip: &str, from, until: Option<i64>| Endpoint {
            ip: ip.parse().unwrap(),
            name: "pod/x".into(),
            namespace: String::new(),
            labels: Labels::new(),
            from: Timestamp(from),
            until: until.map(Timestamp),
        };
        let all = [
            endpoint("10.0.0.1", 1, Some(3)),
            endpoint("10.0.0.1", 5, None),
            endpoint("10.0.0.1", 5, None),
            endpoint("10.0.0.1", 9, None),
            endpoint("10.0.0.2", 1, None),
        ];
        let ends: Vec<Option<i64>> = endings(&all).map(|(_, end)| end.map(|end| end.0)).collect();
        assert_eq!(ends, [Some(3), Some(9), Some(9), None, None]);
    }
}
