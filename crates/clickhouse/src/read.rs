//! Queries. SQL narrows down to what can be selected and joins what is not merged yet;
//! [`Selection`] has the last word.

use crate::{
    describe::{self, SaidOfContainer, SaidOfEndpoint, SaidOfRun},
    problem::Problem,
    rows::COUNT_MAX,
    schema,
    server::Server,
    sql::{self, CONTAINER, of_containers, quoted, quoted_list},
};
use clickhouse::Row;
use ethogram_model::{
    Access, Behaviour, BootId, ContainerKey, Endpoint, Kind, Loss, LossReason, Name, Observation,
    Protocol, Resolution, Run, Selection, Status, Tally, Timestamp,
};
use ethogram_store::{KeptContainer, Overview, Stats};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    ops::ControlFlow,
};

/// Containers one query asks for. Their rows are what server and caller hold at a time.
const CONTAINERS_PER_QUERY: usize = 128;

/// Containers one query looks for by their keys: some 60 KB of text.
const CONTAINERS_PER_LOOKUP: usize = 1024;

/// Boots one query asks for: a server refuses queries above 256 KiB. More than these are a
/// good part of any cluster, and all are read.
const BOOTS_PER_QUERY: usize = 512;

/// Addresses one query asks for.
const ADDRESSES_PER_QUERY: usize = 4096;

/// A container's columns in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Row, Deserialize)]
pub(crate) struct KeyRow {
    boot: String,
    cgroup: u64,
    incarnation: u32,
}

impl KeyRow {
    pub(crate) fn key(&self) -> ContainerKey {
        key(&self.boot, self.cgroup, self.incarnation)
    }
}

fn key(boot: &str, cgroup: u64, incarnation: u32) -> ContainerKey {
    ContainerKey {
        boot: BootId::new(boot),
        cgroup,
        incarnation,
    }
}

/// Selected containers, in the order in which they arrived.
pub(crate) fn containers(
    server: &Server,
    selection: &Selection,
) -> Result<Vec<KeptContainer>, Problem> {
    let said = said_of_containers(server, selection)?;
    let mut selected = Vec::new();
    for said in said.chunk_by(|a, b| a.key() == b.key()) {
        let (arrived, container) = describe::container(said)?;
        if selection.selects(&container) {
            selected.push((arrived, container));
        }
    }
    selected.sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.key.cmp(&other.key)));
    let history = history(server)?;
    let keep = |(_, container): (i64, ethogram_model::Container)| KeptContainer {
        history_since: history.get(&container.key).copied(),
        container,
    };
    Ok(selected.into_iter().map(keep).collect())
}

/// All that was said of containers that may be selected, container by container.
pub(crate) fn said_of_containers(
    server: &Server,
    selection: &Selection,
) -> Result<Vec<SaidOfContainer>, Problem> {
    let mut condition = String::from("1");
    for (column, wanted) in [
        ("namespace", &selection.namespace),
        ("node", &selection.node),
        ("pod", &selection.pod),
    ] {
        // A pattern is left to the selection itself. What one row says of a container
        // selects all its rows; they are on one shard.
        if let Some(wanted) = wanted.as_deref().filter(|wanted| !wanted.ends_with('*')) {
            // Named with its database: another shard's current one is its own.
            let local = schema::CONTAINER.local(server.cluster());
            let database = server.database();
            condition.push_str(&format!(
                " AND ({CONTAINER}) IN (SELECT {CONTAINER} FROM `{database}`.{local} WHERE {column} = {})",
                quoted(wanted)
            ));
        }
    }
    server.select(&said_of_containers_sql(&condition))
}

pub(crate) fn said_of_containers_sql(condition: &str) -> String {
    const SAID: &str = "boot, cgroup, incarnation, described, node, runtime, runtime_id, name, image, \
         namespace, pod, pod_uid, workload_kind, workload_name, labels, cgroup_path, watched_since_ns, \
         present_at_start, ended_ns";
    format!(
        "SELECT {SAID}, minMerge(arrived_first_ns) AS first, maxMerge(arrived_last_ns) AS last \
         FROM container WHERE {condition} GROUP BY {SAID} ORDER BY {CONTAINER}"
    )
}

/// Those of the containers of which anything was said.
pub(crate) fn those_known(
    server: &Server,
    keys: &[&ContainerKey],
) -> Result<HashSet<ContainerKey>, Problem> {
    let mut known = HashSet::new();
    for keys in keys.chunks(CONTAINERS_PER_LOOKUP) {
        let rows: Vec<KeyRow> = server.select(&known_sql(keys))?;
        known.extend(rows.iter().map(KeyRow::key));
    }
    Ok(known)
}

pub(crate) fn known_sql(keys: &[&ContainerKey]) -> String {
    let condition = of_containers(keys.iter().copied());
    format!("SELECT {CONTAINER} FROM container WHERE {condition} GROUP BY {CONTAINER}")
}

#[derive(Row, Deserialize)]
struct SinceRow {
    boot: String,
    cgroup: u64,
    incarnation: u32,
    since: i64,
}

/// Since when each history is whole.
fn history(server: &Server) -> Result<HashMap<ContainerKey, Timestamp>, Problem> {
    let rows: Vec<SinceRow> = server.select(&history_sql())?;
    let since = |row: SinceRow| {
        let key = key(&row.boot, row.cgroup, row.incarnation);
        (key, Timestamp(row.since))
    };
    Ok(rows.into_iter().map(since).collect())
}

pub(crate) fn history_sql() -> String {
    format!("SELECT {CONTAINER}, maxMerge(since_ns) AS since FROM history GROUP BY {CONTAINER}")
}

/// The keys of selected containers, in their order.
fn selected(server: &Server, selection: &Selection) -> Result<Vec<ContainerKey>, Problem> {
    let kept = containers(server, selection)?;
    Ok(kept.into_iter().map(|kept| kept.container.key).collect())
}

/// An observation in an answer.
#[derive(Row, Deserialize)]
struct ObservationRow {
    boot: String,
    cgroup: u64,
    incarnation: u32,
    kind: u8,
    source: String,
    target: String,
    protocol: u8,
    port: u16,
    access: u16,
    status: u8,
    total: u64,
    began: i64,
    seen: i64,
    shown: String,
}

pub(crate) fn observations(
    server: &Server,
    selection: &Selection,
    visit: &mut dyn FnMut(Observation) -> ControlFlow<()>,
) -> Result<(), Problem> {
    for keys in selected(server, selection)?.chunks(CONTAINERS_PER_QUERY) {
        let mut names = Names::default();
        let visited = server.visit(&observations_sql(keys, selection), |row| {
            let observation = observation(row, &mut names)?;
            Ok(match selection.selects_observation(&observation) {
                true => visit(observation),
                false => ControlFlow::Continue(()),
            })
        })?;
        if visited.is_break() {
            return Ok(());
        }
    }
    Ok(())
}

/// What tells the rows of one container apart.
const BEHAVIOUR: &str = "kind, source, target, protocol, port, access, status";

/// The largest total: as large as the SQLite store's.
const TOTAL_MAX: u64 = 2 * COUNT_MAX;

/// The sum of a column that is at most [`COUNT_MAX`] each, at most [`TOTAL_MAX`]. Its upper
/// halves are summed first, which cannot wrap around.
fn capped_sum(column: &str) -> String {
    format!(
        "toUInt64(if(sum(bitShiftRight({column}, 32)) >= 2147483648, {TOTAL_MAX}, least(sum({column}), {TOTAL_MAX})))"
    )
}

pub(crate) fn observations_sql(keys: &[ContainerKey], selection: &Selection) -> String {
    let total = capped_sum("counted");
    let mut having = String::from("1");
    if let Some(since) = selection.since {
        having.push_str(&format!(" AND seen >= {}", since.0));
    }
    if let Some(until) = selection.until {
        having.push_str(&format!(" AND began < {}", until.0));
    }
    format!(
        "SELECT {CONTAINER}, {BEHAVIOUR}, {total} AS total, min(run_began) AS began, max(run_seen) AS seen, \
             argMinIf(run_shown, run_began, run_shown != '') AS shown \
         FROM ({}) GROUP BY {CONTAINER}, {BEHAVIOUR} HAVING {having} ORDER BY {CONTAINER}, {BEHAVIOUR}",
        counted_by_run(&format!(
            "{}{}",
            of_containers(keys),
            rows_condition(selection)
        ))
    )
}

/// Rows joined: what each run counted of each behaviour.
fn counted_by_run(condition: &str) -> String {
    format!(
        "SELECT {CONTAINER}, {BEHAVIOUR}, run, maxMerge(count) AS counted, minMerge(first_ns) AS run_began, \
             maxMerge(last_ns) AS run_seen, \
             argMinIf(example, finalizeAggregation(first_ns), example != '') AS run_shown \
         FROM observation WHERE {condition} GROUP BY {CONTAINER}, {BEHAVIOUR}, run"
    )
}

/// Conditions on what rows of one key share.
fn rows_condition(selection: &Selection) -> String {
    let mut condition = String::new();
    if !selection.kinds.is_empty() {
        let kinds = selection.kinds.iter().map(|kind| kind.number());
        condition.push_str(&format!(" AND kind IN {}", sql::list(kinds)));
    }
    if selection.statuses.is_empty() {
        condition.push_str(&format!(" AND status != {}", Status::Failed.number()));
    } else {
        let statuses = selection.statuses.iter().map(|status| status.number());
        condition.push_str(&format!(" AND status IN {}", sql::list(statuses)));
    }
    if let Some(source) = selection
        .source
        .as_deref()
        .filter(|source| !source.ends_with('*'))
    {
        condition.push_str(&format!(" AND source = {}", quoted(source)));
    }
    condition
}

/// Names of an answer, each once: neighbouring rows share most of theirs.
#[derive(Default)]
struct Names {
    known: HashSet<Name>,
}

impl Names {
    fn name(&mut self, text: &str) -> Name {
        if let Some(name) = self.known.get(text) {
            return name.clone();
        }
        let name = Name::from_escaped(text);
        self.known.insert(name.clone());
        name
    }
}

fn observation(row: ObservationRow, names: &mut Names) -> Result<Observation, Problem> {
    Ok(Observation {
        container: key(&row.boot, row.cgroup, row.incarnation),
        behaviour: Behaviour {
            kind: known(row.kind, Kind::from_number, "kind")?,
            source: names.name(&row.source),
            target: names.name(&row.target),
            protocol: known(row.protocol, Protocol::from_number, "protocol")?,
            port: row.port,
            access: Access::from_bits(row.access),
            status: known(row.status, Status::from_number, "status")?,
        },
        tally: Tally {
            count: row.total,
            first: Timestamp(row.began),
            last: Timestamp(row.seen),
        },
        example: names.name(&row.shown),
    })
}

fn known<T>(number: u8, of: impl Fn(u8) -> Option<T>, what: &str) -> Result<T, Problem> {
    of(number).ok_or_else(|| {
        Problem::Damaged(format!(
            "there is no {what} number {number}; use a newer ethogram"
        ))
    })
}

#[derive(Row, Deserialize)]
struct LossRow {
    boot: String,
    cgroup: u64,
    incarnation: u32,
    reason: u8,
    total: u64,
}

pub(crate) fn losses(
    server: &Server,
    selection: &Selection,
) -> Result<Vec<(ContainerKey, Loss)>, Problem> {
    let mut losses = Vec::new();
    for keys in selected(server, selection)?.chunks(CONTAINERS_PER_QUERY) {
        for row in server.select::<LossRow>(&losses_sql(keys))? {
            let loss = Loss {
                reason: known(row.reason, LossReason::from_number, "loss reason")?,
                count: row.total,
            };
            losses.push((key(&row.boot, row.cgroup, row.incarnation), loss));
        }
    }
    Ok(losses)
}

pub(crate) fn losses_sql(keys: &[ContainerKey]) -> String {
    format!(
        "SELECT {CONTAINER}, reason, {} AS total FROM (\
             SELECT {CONTAINER}, reason, run, maxMerge(count) AS counted FROM loss \
             WHERE {} GROUP BY {CONTAINER}, reason, run) \
         GROUP BY {CONTAINER}, reason ORDER BY {CONTAINER}, reason",
        capped_sum("counted"),
        of_containers(keys)
    )
}

pub(crate) fn endpoints(server: &Server, ips: Option<&[IpAddr]>) -> Result<Vec<Endpoint>, Problem> {
    let mut said = Vec::new();
    match ips {
        None => said = said_of_endpoints(server)?,
        Some(ips) => {
            let ips: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
            for ips in ips.chunks(ADDRESSES_PER_QUERY) {
                let list = quoted_list(ips.iter().map(String::as_str));
                said.extend(server.select(&endpoints_sql(&format!("ip IN {list}")))?);
            }
        }
    }
    let groups = said.chunk_by(SaidOfEndpoint::is_of);
    let mut endpoints = groups
        .map(describe::endpoint)
        .collect::<Result<Vec<_>, _>>()?;
    endpoints.sort_by_key(|endpoint| (endpoint.ip, endpoint.from));
    Ok(endpoints)
}

#[derive(Row, Deserialize)]
struct ResolutionRow {
    boot: String,
    cgroup: u64,
    incarnation: u32,
    ip: String,
    name: String,
    began: i64,
    seen: i64,
}

pub(crate) fn resolutions(
    server: &Server,
    selection: &Selection,
) -> Result<Vec<Resolution>, Problem> {
    let mut resolutions = Vec::new();
    for keys in selected(server, selection)?.chunks(CONTAINERS_PER_QUERY) {
        resolutions.extend(resolutions_where(server, &of_containers(keys), "1")?);
    }
    Ok(resolutions)
}

/// Resolutions by a condition on their rows, and one on what is joined.
pub(crate) fn resolutions_where(
    server: &Server,
    condition: &str,
    having: &str,
) -> Result<Vec<Resolution>, Problem> {
    let rows: Vec<ResolutionRow> = server.select(&resolutions_sql(condition, having))?;
    rows.into_iter().map(resolution).collect()
}

pub(crate) fn resolutions_sql(condition: &str, having: &str) -> String {
    format!(
        "SELECT {CONTAINER}, ip, name, minMerge(first_ns) AS began, maxMerge(last_ns) AS seen \
         FROM resolution WHERE {condition} GROUP BY {CONTAINER}, ip, name HAVING {having}"
    )
}

fn resolution(row: ResolutionRow) -> Result<Resolution, Problem> {
    Ok(Resolution {
        container: key(&row.boot, row.cgroup, row.incarnation),
        ip: row
            .ip
            .parse()
            .map_err(|_| Problem::Damaged(format!("{:?} is no address", row.ip)))?,
        name: Name::from_escaped(&row.name),
        first: Timestamp(row.began),
        last: Timestamp(row.seen),
    })
}

#[derive(Row, Deserialize)]
struct TargetRow {
    boot: String,
    cgroup: u64,
    incarnation: u32,
    target: String,
}

/// Whom containers talked to.
pub(crate) fn egress_targets(
    server: &Server,
    keys: &[ContainerKey],
) -> Result<HashSet<(ContainerKey, String)>, Problem> {
    let rows: Vec<TargetRow> = server.select(&format!(
        "SELECT {CONTAINER}, target FROM observation WHERE {} AND kind = {} GROUP BY {CONTAINER}, target",
        of_containers(keys),
        Kind::Egress.number()
    ))?;
    let target = |row: TargetRow| (key(&row.boot, row.cgroup, row.incarnation), row.target);
    Ok(rows.into_iter().map(target).collect())
}

/// All that was said of endpoints, endpoint by endpoint.
pub(crate) fn said_of_endpoints(server: &Server) -> Result<Vec<SaidOfEndpoint>, Problem> {
    server.select(&endpoints_sql("1"))
}

pub(crate) fn endpoints_sql(condition: &str) -> String {
    const SAID: &str = "ip, from_ns, namespace, name, labels, until_ns";
    format!(
        "SELECT {SAID}, minMerge(arrived_first_ns) AS first, maxMerge(arrived_last_ns) AS last \
         FROM endpoint WHERE {condition} GROUP BY {SAID} ORDER BY {SAID}"
    )
}

/// Runs in the order of their first reports.
pub(crate) fn runs(server: &Server, condition: &str) -> Result<Vec<Run>, Problem> {
    let said: Vec<SaidOfRun> = server.select(&runs_sql(condition))?;
    let mut runs: Vec<(i64, Run)> = said
        .chunk_by(|a, b| a.id == b.id)
        .map(describe::run)
        .collect();
    runs.sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.id.cmp(&other.id)));
    Ok(runs.into_iter().map(|(_, run)| run).collect())
}

pub(crate) fn runs_around(server: &Server, boots: &[&BootId]) -> Result<Vec<Run>, Problem> {
    if boots.len() > BOOTS_PER_QUERY {
        return runs(server, "1");
    }
    if boots.is_empty() {
        return Ok(Vec::new());
    }
    let boots = quoted_list(boots.iter().map(|boot| boot.as_str()));
    let nodes: Vec<String> = server.select(&nodes_sql(&boots))?;
    if nodes.is_empty() {
        return Ok(Vec::new());
    }
    let nodes = nodes.iter().map(String::as_str);
    runs(
        server,
        &format!("boot IN {boots} OR node IN {}", quoted_list(nodes)),
    )
}

pub(crate) fn nodes_sql(boots: &str) -> String {
    format!("SELECT node FROM run WHERE boot IN {boots} GROUP BY node")
}

pub(crate) fn last_alive(server: &Server, id_prefix: &str) -> Result<Option<Timestamp>, Problem> {
    let alive: Vec<i64> = server.select(&last_alive_sql(id_prefix))?;
    Ok(alive.first().copied().map(Timestamp))
}

/// The ids are the table's order, and a range of them is read without the rest.
pub(crate) fn last_alive_sql(id_prefix: &str) -> String {
    format!(
        "SELECT maxMerge(last_alive_ns) AS alive FROM run WHERE id >= {} AND id < {} HAVING count() > 0",
        quoted(id_prefix),
        quoted(&format!("{id_prefix}\u{10ffff}"))
    )
}

pub(crate) fn runs_sql(condition: &str) -> String {
    const SAID: &str = "id, boot, node, hooks";
    format!(
        "SELECT {SAID}, minMerge(started_ns) AS started, maxMerge(last_alive_ns) AS alive, \
             maxMerge(ended_cleanly) AS clean, minMerge(arrived_first_ns) AS first, maxMerge(arrived_last_ns) AS last \
         FROM run WHERE {condition} GROUP BY {SAID} ORDER BY {SAID}"
    )
}

#[derive(Row, Deserialize)]
struct StatsRow {
    boot: String,
    cgroup: u64,
    incarnation: u32,
    rows: u64,
    upper: u64,
    lower: u64,
    seen: i64,
}

pub(crate) fn stats(
    server: &Server,
    selection: &Selection,
) -> Result<Vec<(ContainerKey, Stats)>, Problem> {
    let keys = selected(server, selection)?;
    let mut found = BTreeMap::new();
    for keys in keys.chunks(CONTAINERS_PER_QUERY) {
        for row in server.select::<StatsRow>(&stats_sql(keys))? {
            let events = (u128::from(row.upper) << 32) + u128::from(row.lower);
            let stats = Stats {
                rows: row.rows,
                events: u64::try_from(events).unwrap_or(u64::MAX),
                last_seen: Some(Timestamp(row.seen)),
            };
            found.insert(key(&row.boot, row.cgroup, row.incarnation), stats);
        }
    }
    let of = |key: ContainerKey| {
        let stats = found.get(&key).copied().unwrap_or_default();
        (key, stats)
    };
    Ok(keys.into_iter().map(of).collect())
}

/// The sum of events comes in halves, because it may need more than 64 bits.
pub(crate) fn stats_sql(keys: &[ContainerKey]) -> String {
    format!(
        "SELECT {CONTAINER}, count() AS rows, sum(bitShiftRight(total, 32)) AS upper, \
             sum(bitAnd(total, 4294967295)) AS lower, max(row_seen) AS seen \
         FROM (SELECT {CONTAINER}, {BEHAVIOUR}, {} AS total, max(run_seen) AS row_seen \
               FROM ({}) GROUP BY {CONTAINER}, {BEHAVIOUR}) \
         GROUP BY {CONTAINER}",
        capped_sum("counted"),
        counted_by_run(&of_containers(keys))
    )
}

pub(crate) fn overview(server: &Server) -> Result<Overview, Problem> {
    let containers: Vec<u64> = server.select(COUNT_CONTAINERS)?;
    let whole_store = key("", 0, 0);
    Ok(Overview {
        bytes: bytes_on_disk(server)?,
        containers: containers.first().copied().unwrap_or(0),
        history_since: history(server)?.get(&whole_store).copied(),
    })
}

pub(crate) const COUNT_CONTAINERS: &str = "SELECT count() FROM (SELECT boot, cgroup, incarnation FROM container GROUP BY boot, cgroup, incarnation)";

/// Compressed bytes of what is kept, of one replica of each shard.
pub(crate) fn bytes_on_disk(server: &Server) -> Result<u64, Problem> {
    let parts = system_table(server, "parts");
    let bytes: Vec<u64> = server.select(&format!(
        "SELECT sum(bytes_on_disk) FROM {parts} WHERE active AND database = {}",
        quoted(server.database())
    ))?;
    Ok(bytes.first().copied().unwrap_or(0))
}

/// A system table, of one replica of each shard.
pub(crate) fn system_table(server: &Server, table: &str) -> String {
    match server.cluster() {
        None => format!("system.{table}"),
        Some(cluster) => format!("cluster('{cluster}', system, {table})"),
    }
}
