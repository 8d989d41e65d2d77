//! What is measured, in which order.

use crate::{
    fleet::{Activity, NAMESPACES, Node, Place},
    servers::{ClickHouse, Collector, Usage, disk},
    stream::{Agent, Traffic},
};
use anyhow::{Context, Result};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, task::JoinSet, time::sleep};

/// Agents that tell all they know, or report without a pause, at a time.
const BUSY_AGENTS: usize = 48;
/// How often an agent reports, in seconds: the real one's interval.
pub(crate) const REPORT_EVERY_S: f64 = 5.0;
/// How often agents without news say so. Real ones do every 15 seconds, and a collector bears
/// 90: all of them at once shall be few.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(45);
/// Times a question is asked; the median counts.
const QUESTIONS: usize = 7;

/// Where a collector keeps what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StoreKind {
    Sqlite,
    Clickhouse,
}

impl StoreKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Clickhouse => "ClickHouse",
        }
    }
}

/// How long and how much.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Numbers of nodes, growing.
    pub(crate) nodes: Vec<u64>,
    /// Containers of each that are told of at first.
    pub(crate) told_containers: u32,
    /// How long agents report at their pace.
    pub(crate) steady: Duration,
    /// How long some report without a pause.
    pub(crate) rush: Duration,
}

/// What a stretch of work took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stretch {
    pub(crate) seconds: f64,
    pub(crate) rows: u64,
    pub(crate) batches: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    /// Processor seconds of the collector.
    pub(crate) collector_s: f64,
    /// Processor seconds of the ClickHouse server.
    pub(crate) server_s: f64,
    /// The slowest acknowledgement.
    pub(crate) slowest: Duration,
}

/// How long one namespace's summary took.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) namespace: &'static str,
    pub(crate) rows: u64,
    pub(crate) median: Duration,
    /// Processor seconds of collector and server for one answer.
    pub(crate) cpu_s: f64,
    pub(crate) bytes: usize,
}

/// What was measured with one number of nodes.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) nodes: u64,
    pub(crate) rows: u64,
    pub(crate) fill: Stretch,
    pub(crate) steady: Stretch,
    pub(crate) rush: Stretch,
    pub(crate) answers: Vec<Answer>,
    pub(crate) disk: u64,
    pub(crate) collector_resident: u64,
    pub(crate) server_resident: u64,
}

struct Lab {
    collector: Collector,
    server: Option<ClickHouse>,
    traffic: Arc<Traffic>,
}

/// Measures a store with ever more nodes.
pub(crate) async fn measure(
    ethogram: &Path,
    kind: StoreKind,
    plan: &Plan,
    directory: &Path,
) -> Result<Vec<Step>> {
    let data = directory.join("data");
    std::fs::create_dir_all(&data)?;
    let server = match kind {
        StoreKind::Sqlite => None,
        StoreKind::Clickhouse => Some(ClickHouse::start(&data)?),
    };
    let store = match &server {
        None => format!("sqlite:{}", data.join("collector.db").display()),
        Some(server) => server.store(),
    };
    let collector = Collector::start(ethogram, &store, directory)?;
    let lab = Lab {
        collector,
        server,
        traffic: Arc::default(),
    };
    let mut agents = Vec::new();
    let mut steps = Vec::new();
    for &nodes in &plan.nodes {
        let (fill, grown) = lab
            .stretch(lab.fill(agents, nodes, plan.told_containers))
            .await?;
        agents = grown;
        say(kind, nodes, "all told", &fill);
        let (steady, same) = lab.stretch(lab.steady(agents, plan.steady)).await?;
        agents = same;
        say(kind, nodes, "at their pace", &steady);
        let (_, server) = lab.usage()?;
        let (collector_resident, server_resident) = (lab.usage()?.0.resident, server.resident);
        let (rush, same) = lab.stretch(lab.rush(agents, plan.rush)).await?;
        agents = same;
        say(kind, nodes, "without a pause", &rush);
        let answers = lab.ask(nodes)?;
        for answer in &answers {
            eprintln!(
                "{:10} {nodes:5} nodes, {:>7}: {:?}, {:.3} s cpu, {} bytes",
                kind.name(),
                answer.namespace,
                answer.median,
                answer.cpu_s,
                answer.bytes
            );
        }
        steps.push(Step {
            nodes,
            rows: nodes * u64::from(plan.told_containers * crate::fleet::BEHAVIOURS),
            fill,
            steady,
            rush,
            answers,
            disk: disk(&data),
            collector_resident,
            server_resident,
        });
    }
    Ok(steps)
}

fn say(kind: StoreKind, nodes: u64, what: &str, stretch: &Stretch) {
    eprintln!(
        "{:10} {nodes:5} nodes, {what:15}: {:9} rows in {:6.1} s, {:8.0} rows/s; collector {:6.1} s cpu, {:7.0} rows/cpu s; server {:6.1} s cpu; slowest ack {:?}",
        kind.name(),
        stretch.rows,
        stretch.seconds,
        stretch.rows as f64 / stretch.seconds,
        stretch.collector_s,
        stretch.rows as f64 / stretch.collector_s.max(0.001),
        stretch.server_s,
        stretch.slowest,
    );
}

type Worked = Result<(Vec<Agent>, Duration)>;

impl Lab {
    fn usage(&self) -> Result<(Usage, Usage)> {
        let server = self
            .server
            .as_ref()
            .map(|server| server.process.usage())
            .transpose()?;
        Ok((self.collector.process.usage()?, server.unwrap_or_default()))
    }

    /// Does some work and says what it took.
    async fn stretch(&self, work: impl Future<Output = Worked>) -> Result<(Stretch, Vec<Agent>)> {
        let count = || {
            let traffic = &self.traffic;
            [
                &traffic.rows,
                &traffic.batches,
                &traffic.bytes_sent,
                &traffic.bytes_received,
            ]
            .map(|n| n.load(Relaxed))
        };
        let (begun, before, (collector, server)) = (Instant::now(), count(), self.usage()?);
        let (agents, slowest) = work.await?;
        let (after, (collector_after, server_after)) = (count(), self.usage()?);
        let [rows, batches, bytes_sent, bytes_received] =
            [0, 1, 2, 3].map(|at| after[at] - before[at]);
        let stretch = Stretch {
            seconds: begun.elapsed().as_secs_f64(),
            rows,
            batches,
            bytes_sent,
            bytes_received,
            collector_s: collector_after.cpu_s - collector.cpu_s,
            server_s: server_after.cpu_s - server.cpu_s,
            slowest,
        };
        Ok((stretch, agents))
    }

    /// New agents come and tell all they know.
    async fn fill(&self, agents: Vec<Agent>, nodes: u64, told_containers: u32) -> Worked {
        let turns = Arc::new(Semaphore::new(BUSY_AGENTS));
        let mut tasks = JoinSet::new();
        let known = agents.len() as u64;
        for index in known..nodes {
            let (turns, traffic, collector) =
                (turns.clone(), self.traffic.clone(), self.collector.reports);
            tasks.spawn(async move {
                let _turn = turns.acquire().await?;
                let mut agent = Agent::connect(Node::new(index), collector, traffic).await?;
                let rows: Vec<Place> = Node::everything()
                    .filter(|place| place.slot < told_containers)
                    .collect();
                let slowest = agent
                    .report(&rows)
                    .await
                    .with_context(|| format!("agent {index}"))?;
                Ok((agent, slowest))
            });
        }
        joined(tasks, agents).await
    }

    /// All agents report what changed, each at its own moment of every interval, or later
    /// where too many are before it: more at a time would starve the thread that plays them.
    /// The slowest report is counted from its moment.
    async fn steady(&self, agents: Vec<Agent>, during: Duration) -> Worked {
        let activity = Arc::new(Activity::new(REPORT_EVERY_S));
        let interval = Duration::from_secs_f64(REPORT_EVERY_S);
        let rounds = (during.as_secs_f64() / REPORT_EVERY_S).ceil() as u32;
        let turns = Arc::new(Semaphore::new(BUSY_AGENTS));
        let mut tasks = JoinSet::new();
        let count = agents.len() as u32;
        for (at, mut agent) in agents.into_iter().enumerate() {
            let (activity, turns) = (activity.clone(), turns.clone());
            tasks.spawn(async move {
                let offset = interval * at as u32 / count;
                let begun = tokio::time::Instant::now() + offset;
                let mut slowest = Duration::ZERO;
                for round in 0..rounds {
                    let moment = begun + interval * round;
                    tokio::time::sleep_until(moment).await;
                    let _turn = turns.acquire().await?;
                    let rows = agent.node.step(&activity);
                    agent.report(&rows).await?;
                    slowest = slowest.max(moment.elapsed());
                }
                Ok((agent, slowest))
            });
        }
        joined(tasks, Vec::new()).await
    }

    /// Some agents at a time report without a pause, each in its turn.
    async fn rush(&self, agents: Vec<Agent>, during: Duration) -> Worked {
        let activity = Arc::new(Activity::new(REPORT_EVERY_S));
        let turns = Arc::new(Semaphore::new(BUSY_AGENTS));
        let over = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for mut agent in agents {
            let (activity, turns, over) = (activity.clone(), turns.clone(), over.clone());
            tasks.spawn(async move {
                let mut slowest = Duration::ZERO;
                while !over.load(Relaxed) {
                    let _turn = turns.acquire().await?;
                    if !over.load(Relaxed) {
                        let rows = agent.node.step(&activity);
                        slowest = slowest.max(agent.report(&rows).await?);
                    }
                }
                Ok((agent, slowest))
            });
        }
        let timer = tokio::spawn(async move {
            sleep(during).await;
            over.store(true, Relaxed);
        });
        let worked = joined(tasks, Vec::new()).await;
        timer.await?;
        worked
    }

    /// Asks for the summaries of namespaces of known sizes.
    fn ask(&self, nodes: u64) -> Result<Vec<Answer>> {
        NAMESPACES
            .iter()
            .map(|&(namespace, containers)| {
                let path = format!("/v1/summary?namespace={namespace}");
                let mut bytes = 0;
                let mut times = Vec::new();
                let cpu = || {
                    self.usage()
                        .map(|(collector, server)| collector.cpu_s + server.cpu_s)
                };
                let before = cpu()?;
                for _ in 0..QUESTIONS {
                    let begun = Instant::now();
                    bytes = self.collector.get(&path)?.len();
                    times.push(begun.elapsed());
                }
                times.sort();
                let cpu_s = (cpu()? - before) / QUESTIONS as f64;
                Ok(Answer {
                    namespace,
                    rows: containers.min(nodes) * u64::from(crate::fleet::BEHAVIOURS),
                    median: times[times.len() / 2],
                    cpu_s,
                    bytes,
                })
            })
            .collect()
    }
}

/// Waits for agents that are at work. Those that have nothing to tell say so meanwhile, as
/// real ones do: a collector ends the streams of the silent.
async fn joined(mut tasks: JoinSet<Result<(Agent, Duration)>>, mut agents: Vec<Agent>) -> Worked {
    let mut slowest = Duration::ZERO;
    let mut heartbeat = tokio::time::interval(HEARTBEAT_EVERY);
    loop {
        tokio::select! {
            done = tasks.join_next() => match done {
                None => break,
                Some(done) => {
                    let (agent, took) = done??;
                    agents.push(agent);
                    slowest = slowest.max(took);
                }
            },
            _ = heartbeat.tick() => {
                for agent in &mut agents {
                    agent.say_no_news().await?;
                }
                for agent in &mut agents {
                    agent.acknowledged().await?;
                }
            }
        }
    }
    agents.sort_by_key(|agent| agent.node.index);
    Ok((agents, slowest))
}
