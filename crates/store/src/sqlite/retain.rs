//! Retention: removing the oldest, in steps that keep reports waiting for some ten
//! milliseconds each.
//!
//! What to remove is searched by readers, who block nobody; the writer is taken for one
//! bounded step at a time, which looks again before it removes.

use super::{SqliteStore, open::BUSY_TIMEOUT, problem::Problem, spool};
use crate::{Limits, Removed, StoreError};
use ethogram_model::{Kind, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use std::{collections::HashSet, time::Duration};

/// Rows one step looks at while reports wait: some ten milliseconds.
const STEP_ROWS_MAX: u32 = 4_096;

/// Pages one step gives back to the file system: 4 MiB.
const STEP_PAGES_MAX: u32 = 1_024;

/// Size retention makes this much room, in per cent of the limit, so that it does not
/// have to run again for the next report.
const HEADROOM_PERCENT: u64 = 10;

/// Rows whose age is looked at to find out how old the oldest of all are.
const SAMPLE_ROWS_MAX: u64 = 65_536;

/// What to do with the rows that stay.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Survivors {
    /// Leave them where they are. Gaps between them are filled by later rows.
    Stay,
    /// Write them again side by side, so that whole pages become free.
    CloseUp,
}

pub(super) fn retain(
    store: &SqliteStore,
    limits: &Limits,
    now: Timestamp,
) -> Result<Removed, StoreError> {
    let before = file_pages(store)?;
    let mut removed = Removed::default();
    if let Some(age_max) = limits.age_max {
        let age_ns = i64::try_from(age_max.as_nanos()).unwrap_or(i64::MAX);
        remove_older_than(store, Timestamp(now.0.saturating_sub(age_ns)), &mut removed)?;
    }
    if removed.rows > 0 {
        remove_unused_texts(store)?;
    }
    if let Some(bytes_max) = limits.bytes_max {
        shrink(store, bytes_max, &mut removed)?;
    }
    give_pages_back(store)?;
    let after = file_pages(store)?;
    removed.bytes = (before.all.saturating_sub(after.all)) * before.page_bytes;
    Ok(removed)
}

/// Age: rows last seen before `cutoff`, then whatever is empty and over.
fn remove_older_than(
    store: &SqliteStore,
    cutoff: Timestamp,
    removed: &mut Removed,
) -> Result<(), StoreError> {
    remove_rows_before(store, cutoff, Survivors::Stay, removed)?;
    remove_resolutions(store, cutoff, removed)?;
    for id in store.read(|connection| ids(connection, GONE_CONTAINERS, cutoff))? {
        remove_container(store, id, removed)?;
    }
    store.write(|writer| {
        writer.transaction(|connection, _| {
            removed.endpoints += execute(connection, DELETE_ENDPOINTS, cutoff)?;
            removed.runs += execute(connection, DELETE_RUNS, cutoff)?;
            Ok(())
        })
    })
}

/// Containers without rows that ended before the cutoff, or whose watch did: nobody may
/// be left to say that they ended.
const GONE_CONTAINERS: &str = "
    SELECT id FROM container
    WHERE coalesce(ended_ns, (SELECT last_alive_ns FROM run WHERE run.id = run_id), 0) < ?1
        AND NOT EXISTS (SELECT 1 FROM observation WHERE container_id = container.id)";

/// An address that was given to somebody else is no longer the former owner's, even if
/// nobody said so.
const DELETE_ENDPOINTS: &str = "
    DELETE FROM endpoint WHERE coalesce(until_ns,
        (SELECT min(from_ns) FROM endpoint AS later
         WHERE later.ip = endpoint.ip AND later.from_ns > endpoint.from_ns)) < ?1";

/// A name that a row still wants is kept, however long ago it was asked for.
const DELETE_RESOLUTIONS: &str = "
    DELETE FROM resolution WHERE last_ns < ?1 AND container_id = ?2 AND ip NOT IN (
        SELECT text FROM observation JOIN text ON text.id = target_id
        WHERE container_id = ?2 AND kind = ?3)";

fn remove_resolutions(
    store: &SqliteStore,
    cutoff: Timestamp,
    removed: &mut Removed,
) -> Result<(), StoreError> {
    const CONTAINERS: &str = "SELECT DISTINCT container_id FROM resolution WHERE last_ns < ?1";
    for id in store.read(|connection| ids(connection, CONTAINERS, cutoff))? {
        removed.resolutions += store.write(|writer| {
            let egress = Kind::Egress.number();
            let mut delete = writer.connection().prepare_cached(DELETE_RESOLUTIONS)?;
            Ok(delete.execute(params![cutoff.0, id, egress])? as u64)
        })?;
    }
    Ok(())
}

/// The newest run stays, and any that still owns a container: its id must stay known as
/// long as it could report.
const DELETE_RUNS: &str = "
    DELETE FROM run WHERE last_alive_ns < ?1
        AND id < (SELECT max(id) FROM run)
        AND id NOT IN (SELECT run_id FROM container)";

fn execute(connection: &Connection, sql: &str, time: Timestamp) -> Result<u64, Problem> {
    Ok(connection.prepare_cached(sql)?.execute([time.0])? as u64)
}

fn ids(connection: &Connection, sql: &str, time: Timestamp) -> Result<Vec<i64>, Problem> {
    let mut statement = connection.prepare_cached(sql)?;
    let ids = statement.query_map([time.0], |row| row.get(0))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}

/// Removes rows last seen before `cutoff` from every container that has some, and notes
/// there since when its history is whole.
fn remove_rows_before(
    store: &SqliteStore,
    cutoff: Timestamp,
    survivors: Survivors,
    removed: &mut Removed,
) -> Result<(), StoreError> {
    const CONTAINERS: &str = "
        SELECT id FROM container
        WHERE EXISTS (SELECT 1 FROM observation WHERE container_id = container.id AND last_ns < ?1)";
    for id in store.read(|connection| ids(connection, CONTAINERS, cutoff))? {
        remove_rows(store, id, cutoff, survivors, removed)?;
    }
    Ok(())
}

/// A row's place within its container: its primary key but for the container.
type Place = [i64; 7];
const FIRST_PLACE: Place = [0; 7];
const LAST_PLACE: Place = [i64::MAX; 7];

fn remove_rows(
    store: &SqliteStore,
    container_id: i64,
    cutoff: Timestamp,
    survivors: Survivors,
    removed: &mut Removed,
) -> Result<(), StoreError> {
    let mut from = FIRST_PLACE;
    while from != LAST_PLACE {
        from = store.write(|writer| {
            writer.transaction(|connection, _| {
                let to = step_end(connection, container_id, from)?;
                let rows = remove_step(connection, container_id, from, to, cutoff, survivors)?;
                if rows > 0 {
                    note_history(connection, container_id, cutoff)?;
                    removed.rows += rows;
                }
                Ok(to)
            })
        })?;
    }
    Ok(())
}

/// The last place of the step that begins after `from`.
fn step_end(connection: &Connection, container_id: i64, from: Place) -> Result<Place, Problem> {
    let end = connection
        .prepare_cached(
            "SELECT kind, source_id, target_id, protocol, port, access, status FROM observation
             WHERE container_id = ?1
                AND (kind, source_id, target_id, protocol, port, access, status) > (?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ORDER BY kind, source_id, target_id, protocol, port, access, status
             LIMIT 1 OFFSET ?9",
        )?
        .query_row(
            params![
                container_id,
                from[0],
                from[1],
                from[2],
                from[3],
                from[4],
                from[5],
                from[6],
                STEP_ROWS_MAX - 1
            ],
            |row| {
                let mut place = FIRST_PLACE;
                for (column, value) in place.iter_mut().enumerate() {
                    *value = row.get(column)?;
                }
                Ok(place)
            },
        )
        .optional()?;
    Ok(end.unwrap_or(LAST_PLACE))
}

/// The rows of a step: after `from`, up to and with `to`.
const IN_STEP: &str = "container_id = ?1
    AND (kind, source_id, target_id, protocol, port, access, status) > (?2, ?3, ?4, ?5, ?6, ?7, ?8)
    AND (kind, source_id, target_id, protocol, port, access, status) <= (?9, ?10, ?11, ?12, ?13, ?14, ?15)";

fn remove_step(
    connection: &Connection,
    container_id: i64,
    from: Place,
    to: Place,
    cutoff: Timestamp,
    survivors: Survivors,
) -> Result<u64, Problem> {
    let range: Vec<i64> = [container_id].into_iter().chain(from).chain(to).collect();
    let range_and_cutoff: Vec<i64> = range.iter().copied().chain([cutoff.0]).collect();
    let run = |sql: &str, parameters: &[i64]| -> Result<u64, Problem> {
        let mut statement = connection.prepare_cached(sql)?;
        Ok(statement.execute(rusqlite::params_from_iter(parameters))? as u64)
    };
    spool::count_unsent(
        connection,
        &format!("{IN_STEP} AND last_ns < ?16"),
        &range_and_cutoff,
    )?;
    if survivors == Survivors::Stay {
        let delete = format!("DELETE FROM observation WHERE {IN_STEP} AND last_ns < ?16");
        return run(&delete, &range_and_cutoff);
    }
    connection.execute_batch(
        "CREATE TEMP TABLE IF NOT EXISTS survivor AS SELECT * FROM observation WHERE false",
    )?;
    let save = format!(
        "INSERT INTO survivor SELECT * FROM observation WHERE {IN_STEP} AND last_ns >= ?16"
    );
    let saved = run(&save, &range_and_cutoff)?;
    let deleted = run(&format!("DELETE FROM observation WHERE {IN_STEP}"), &range)?;
    // The order of insertion is the table's order, which fills pages best.
    run(
        "INSERT INTO observation SELECT * FROM survivor ORDER BY rowid",
        &[],
    )?;
    run("DELETE FROM survivor", &[])?;
    Ok(deleted - saved)
}

fn note_history(
    connection: &Connection,
    container_id: i64,
    since: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE container SET history_since_ns = max(coalesce(history_since_ns, ?2), ?2) WHERE id = ?1",
        )?
        .execute([container_id, since.0])
        .map(drop)
}

/// Removes a whole container, its rows step by step, unless it turns out to live.
fn remove_container(store: &SqliteStore, id: i64, removed: &mut Removed) -> Result<(), StoreError> {
    let end = store.read(|connection| end_of(connection, id))?;
    let after_end = Timestamp(end.0.saturating_add(1));
    remove_rows(store, id, after_end, Survivors::Stay, removed)?;
    store.write(|writer| {
        writer.transaction(|connection, _| {
            if end_of(connection, id)? != end {
                return Ok(());
            }
            connection
                .prepare_cached("UPDATE history SET since_ns = max(coalesce(since_ns, ?1), ?1)")?
                .execute([after_end.0])?;
            let delete = |sql| -> Result<u64, Problem> {
                Ok(connection.prepare_cached(sql)?.execute([id])? as u64)
            };
            spool::count_unsent(connection, "container_id = ?1", &[id])?;
            removed.rows += delete("DELETE FROM observation WHERE container_id = ?1")?;
            delete("DELETE FROM loss WHERE container_id = ?1")?;
            delete("DELETE FROM resolution WHERE container_id = ?1")?;
            delete("DELETE FROM container_change WHERE container_id = ?1")?;
            removed.containers += delete("DELETE FROM container WHERE id = ?1")?;
            Ok(())
        })
    })
}

/// When a container ended, or when it was last watched if nobody was there to see its end.
fn end_of(connection: &Connection, id: i64) -> Result<Timestamp, Problem> {
    let end = connection
        .prepare_cached(
            "SELECT coalesce(ended_ns, (SELECT last_alive_ns FROM run WHERE run.id = run_id), 0)
             FROM container WHERE id = ?1",
        )?
        .query_row([id], |row| row.get(0))?;
    Ok(Timestamp(end))
}

/// Size: ended containers, those that ended first first, then the oldest rows of all.
fn shrink(store: &SqliteStore, bytes_max: u64, removed: &mut Removed) -> Result<(), StoreError> {
    if file_pages(store)?.used_bytes() <= bytes_max {
        return Ok(());
    }
    let target = bytes_max - bytes_max / 100 * HEADROOM_PERCENT;
    remove_ended_containers(store, target, removed)?;
    let mut used_before = u64::MAX;
    loop {
        let used = file_pages(store)?.used_bytes();
        // A round that gained nothing met what retention cannot remove (descriptions of
        // living containers), or reports that bring rows as fast as it removes them.
        if used <= bytes_max || used >= used_before {
            return Ok(());
        }
        used_before = used;
        let Some(cutoff) =
            store.read(|connection| age_quantile(connection, used - target, used))?
        else {
            return Ok(());
        };
        remove_rows_before(store, cutoff, Survivors::CloseUp, removed)?;
        remove_unused_texts(store)?;
    }
}

fn remove_ended_containers(
    store: &SqliteStore,
    target: u64,
    removed: &mut Removed,
) -> Result<(), StoreError> {
    const ENDED: &str = "SELECT id FROM container WHERE ended_ns <= ?1 ORDER BY ended_ns, id";
    let ended = store.read(|connection| ids(connection, ENDED, Timestamp(i64::MAX)))?;
    let mut ended = ended.into_iter().peekable();
    loop {
        let used = file_pages(store)?.used_bytes();
        if used <= target || ended.peek().is_none() {
            return Ok(());
        }
        // Half of the way by rows, then their texts: these may make up the other half.
        let halfway = target + (used - target) / 2;
        for id in ended.by_ref() {
            remove_container(store, id, removed)?;
            if file_pages(store)?.used_bytes() <= halfway {
                break;
            }
        }
        remove_unused_texts(store)?;
    }
}

/// The time before which `part` of `whole` of all rows were last seen, at least one row;
/// `None` without rows. Sampled evenly, in one pass.
fn age_quantile(
    connection: &Connection,
    part: u64,
    whole: u64,
) -> Result<Option<Timestamp>, Problem> {
    let mut statement = connection.prepare_cached("SELECT last_ns FROM observation")?;
    let mut rows = statement.query([])?;
    let mut sample: Vec<i64> = Vec::new();
    let (mut stride, mut position) = (1_u64, 0_u64);
    while let Some(row) = rows.next()? {
        if position.is_multiple_of(stride) {
            sample.push(row.get(0)?);
        }
        position += 1;
        if sample.len() as u64 == SAMPLE_ROWS_MAX {
            let mut keep = false;
            sample.retain(|_| {
                keep = !keep;
                keep
            });
            stride *= 2;
        }
    }
    sample.sort_unstable();
    let rank = u128::from(part) * sample.len() as u128 / u128::from(whole.max(1));
    let index = usize::try_from(rank)
        .unwrap_or(usize::MAX)
        .min(sample.len().saturating_sub(1));
    Ok(sample
        .get(index)
        .map(|&last_ns| Timestamp(last_ns.saturating_add(1))))
}

/// Texts one sweep may find: 8 MiB of numbers. The next sweep finds the rest.
const SWEEP_TEXTS_MAX: usize = 1 << 20;

/// Removes texts that no row uses. Searching takes a pass over all rows, while reports go
/// on: texts that they use meanwhile are remembered and spared.
fn remove_unused_texts(store: &SqliteStore) -> Result<(), StoreError> {
    begin_sweep(store)?;
    let outcome = store
        .read(unused_texts)
        .and_then(|unused| remove_texts(store, &unused));
    end_sweep(store)?;
    outcome
}

fn begin_sweep(store: &SqliteStore) -> Result<(), StoreError> {
    store.write(|writer| {
        writer.texts().begin_sweep();
        Ok(())
    })
}

fn end_sweep(store: &SqliteStore) -> Result<(), StoreError> {
    store.write(|writer| {
        writer.texts().end_sweep();
        Ok(())
    })
}

fn remove_texts(store: &SqliteStore, unused: &[i64]) -> Result<(), StoreError> {
    for step in unused.chunks(STEP_ROWS_MAX as usize) {
        store.write(|writer| {
            writer.transaction(|connection, texts| {
                let doomed: HashSet<i64> = step
                    .iter()
                    .copied()
                    .filter(|&id| !texts.is_used(id))
                    .collect();
                let mut delete = connection.prepare_cached("DELETE FROM text WHERE id = ?1")?;
                for id in &doomed {
                    delete.execute([id])?;
                }
                texts.forget(&doomed);
                Ok(())
            })
        })?;
    }
    Ok(())
}

fn unused_texts(connection: &Connection) -> Result<Vec<i64>, Problem> {
    let last: i64 = connection.query_row("SELECT coalesce(max(id), 0) FROM text", [], |row| {
        row.get(0)
    })?;
    let mut used = Bits::up_to(last);
    let mut statement =
        connection.prepare_cached("SELECT source_id, target_id FROM observation")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        used.set(row.get(0)?)?;
        used.set(row.get(1)?)?;
    }
    let mut unused = Vec::new();
    let mut statement = connection.prepare_cached("SELECT id FROM text ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        if !used.get(id) {
            unused.push(id);
        }
        if unused.len() == SWEEP_TEXTS_MAX {
            break;
        }
    }
    Ok(unused)
}

/// A set of text numbers, one bit each.
struct Bits(Vec<u64>);

impl Bits {
    fn up_to(last: i64) -> Self {
        Self(vec![0; usize::try_from(last / 64 + 1).unwrap_or(0)])
    }

    fn word_and_bit(id: i64) -> (usize, u64) {
        (
            usize::try_from(id / 64).unwrap_or(usize::MAX),
            1 << (id & 63),
        )
    }

    fn set(&mut self, id: i64) -> Result<(), Problem> {
        let (word, bit) = Self::word_and_bit(id);
        let word = self
            .0
            .get_mut(word)
            .ok_or_else(|| Problem::Damaged(format!("text number {id} is missing")))?;
        *word |= bit;
        Ok(())
    }

    fn get(&self, id: i64) -> bool {
        let (word, bit) = Self::word_and_bit(id);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

/// How a file's pages are used.
struct Pages {
    all: u64,
    free: u64,
    page_bytes: u64,
}

impl Pages {
    fn used_bytes(&self) -> u64 {
        self.all.saturating_sub(self.free) * self.page_bytes
    }
}

fn file_pages(store: &SqliteStore) -> Result<Pages, StoreError> {
    store.read(|connection| {
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get(0));
        Ok(Pages {
            all: pragma("page_count")?,
            free: pragma("freelist_count")?,
            page_bytes: pragma("page_size")?,
        })
    })
}

/// Cuts free pages off the file, step by step.
fn give_pages_back(store: &SqliteStore) -> Result<(), StoreError> {
    let mut free = file_pages(store)?.free;
    while free > 0 {
        store.write(|writer| {
            // Each row returned stands for a page moved; the statement must run to its end.
            let sql = format!("PRAGMA incremental_vacuum({STEP_PAGES_MAX})");
            let mut statement = writer.connection().prepare_cached(&sql)?;
            let mut pages = statement.query([])?;
            while pages.next()?.is_some() {}
            Ok(())
        })?;
        let left = file_pages(store)?.free;
        if left >= free {
            break;
        }
        free = left;
    }
    store.write(|writer| empty_log(writer.connection()))
}

/// Moves the log's content to the file, which shrinks only now, and empties the log. If
/// readers still need it, the next retention will.
fn empty_log(connection: &Connection) -> Result<(), Problem> {
    // Not waiting for readers keeps reports from waiting.
    connection.busy_timeout(Duration::ZERO)?;
    let outcome = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(outcome?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Report, Store};
    use ethogram_model::{
        Behaviour, BootId, ContainerKey, Kind, Name, Observation, Run, Selection, Tally,
    };

    fn report(target: &str, seen: i64) -> Report {
        let boot = BootId::new("boot");
        let run = Run {
            id: "run".into(),
            boot: boot.clone(),
            node: "node".into(),
            hooks: String::new(),
            started: Timestamp(0),
            last_alive: Timestamp(seen),
            ended_cleanly: false,
        };
        let container = ContainerKey {
            boot,
            cgroup: 1,
            incarnation: 0,
        };
        let observation = Observation {
            container,
            behaviour: Behaviour::new(Kind::File, "/bin/cat".into(), target.into()),
            tally: Tally::at(Timestamp(seen), 1),
            example: Name::default(),
        };
        Report {
            observations: vec![observation],
            ..Report::empty(run)
        }
    }

    /// The moment that matters is between search and removal; no thread can be made to
    /// hit it for sure, so the steps are taken one by one.
    #[test]
    fn a_text_that_is_used_again_while_it_is_about_to_go_stays() {
        let directory = tempfile::TempDir::new().unwrap();
        let store = SqliteStore::open(&directory.path().join("store.db")).unwrap();
        for target in ["/gone", "/back", "/stays"] {
            let seen = if target == "/stays" { 20 } else { 10 };
            store.apply(&report(target, seen)).unwrap();
        }
        let mut removed = Removed::default();
        remove_rows_before(&store, Timestamp(15), Survivors::Stay, &mut removed).unwrap();
        assert_eq!(removed.rows, 2);

        begin_sweep(&store).unwrap();
        let unused = store.read(unused_texts).unwrap();
        assert_eq!(unused.len(), 2);
        store.apply(&report("/back", 30)).unwrap();
        remove_texts(&store, &unused).unwrap();
        end_sweep(&store).unwrap();

        assert!(store.read(unused_texts).unwrap().is_empty());
        let targets: Vec<String> = store
            .all_observations(&Selection::default())
            .unwrap()
            .into_iter()
            .map(|o| o.behaviour.target.to_string())
            .collect();
        assert_eq!(targets, ["/back", "/stays"]);
        // What is really gone gets a new number.
        store.apply(&report("/gone", 40)).unwrap();
        assert_eq!(
            store.all_observations(&Selection::default()).unwrap().len(),
            3
        );
    }
}
