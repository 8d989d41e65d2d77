//! A line of JSON for each row that is new or was counted on, for whatever reads lines.
//! `docs/neighbours.md` describes the fields.

use crate::{
    feed::{Feed, Heard, Listener},
    log_service::now,
    server::stopped,
};
use ethogram_model::{Container, Labels, Loss, Observation, Timestamp};
use ethogram_store::{ContainerChanges, StoreError};
use serde::Serialize;
use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

/// The name and version of a line's form. Fields may be added within a version.
pub const LINES_SCHEMA: &str = "ethogram.event/v1";

/// Lines on their way to a writer that is slower than the feed.
const LINES_MAX: usize = 256;

/// How long the rest may take when told to stop.
const STOP_WITHIN: Duration = Duration::from_millis(1_500);

/// Why no more lines are written.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing more can be written.
    #[error("cannot write a line: {0}")]
    Write(#[from] io::Error),
    /// The task that writes has failed.
    #[error("the task that writes failed")]
    Panicked,
}

/// Writes lines until `stop` turns true. A writer that blocks holds up nobody: what it misses
/// is counted and told in a line of its own.
///
/// # Errors
/// If the feed cannot be listened to, or a line cannot be written.
pub async fn write_lines(
    feed: Arc<Feed>,
    cluster: String,
    out: Box<dyn Write + Send>,
    stop: watch::Receiver<bool>,
) -> Result<(), LinesError> {
    // Held by this task too: it is followed as long as somebody has it.
    let followed = Arc::clone(&feed);
    let listening = tokio::task::spawn_blocking(move || followed.listen()).await;
    let mut listener = listening.map_err(|_| LinesError::Panicked)??;
    let (lines, to_write) = mpsc::channel::<String>(LINES_MAX);
    let end = write_on_a_thread(to_write, out);
    let mut teller = Teller {
        cluster,
        lines,
        pending: VecDeque::new(),
    };
    tokio::select! {
        () = teller.tell(&mut listener) => {}
        () = stopped(stop) => {
            let rest = async {
                // What the store was told last is told too.
                let told = tokio::task::spawn_blocking(move || feed.catch_up()).await;
                told.map_err(|_| LinesError::Panicked)??;
                teller.tell_rest(&mut listener).await;
                drop(teller);
                ended(end).await
            };
            // A pipe that nobody reads may be full for ever.
            return timeout(STOP_WITHIN, rest).await.unwrap_or(Ok(()));
        }
    }
    drop(teller);
    ended(end).await
}

type End = oneshot::Receiver<io::Result<()>>;

/// On a thread of its own, not one of the runtime's: a pipe that nobody reads may block it for
/// ever, and must not keep the process from ending.
fn write_on_a_thread(mut lines: mpsc::Receiver<String>, mut out: Box<dyn Write + Send>) -> End {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        let mut write = || -> io::Result<()> {
            while let Some(line) = lines.blocking_recv() {
                out.write_all(line.as_bytes())?;
                if lines.is_empty() {
                    out.flush()?;
                }
            }
            out.flush()
        };
        let written = write();
        // Nobody takes lines any more.
        drop(lines);
        // An error means that nobody waits any more.
        let _ = ended.send(written);
    });
    end
}

async fn ended(end: End) -> Result<(), LinesError> {
    Ok(end.await.map_err(|_| LinesError::Panicked)??)
}

/// Tells the writer.
struct Teller {
    cluster: String,
    lines: mpsc::Sender<String>,
    /// Lines that are not handed over yet; not lost when telling is broken off.
    pending: VecDeque<String>,
}

impl Teller {
    /// Tells what is heard until the feed or the writer ends.
    async fn tell(&mut self, listener: &mut Listener) {
        while self.hand_over().await {
            let Some(heard) = listener.next().await else {
                return;
            };
            self.pending.extend(lines_of(&heard, &self.cluster));
        }
    }

    /// Tells what has been heard.
    async fn tell_rest(&mut self, listener: &mut Listener) {
        while self.hand_over().await {
            let Ok(Some(heard)) = timeout(Duration::ZERO, listener.next()).await else {
                return;
            };
            self.pending.extend(lines_of(&heard, &self.cluster));
        }
    }

    /// Whether the writer took all.
    async fn hand_over(&mut self) -> bool {
        while !self.pending.is_empty() {
            let Ok(place) = self.lines.reserve().await else {
                return false;
            };
            if let Some(line) = self.pending.pop_front() {
                place.send(line);
            }
        }
        true
    }
}

fn lines_of(heard: &Heard, cluster: &str) -> Vec<String> {
    let page = match heard {
        Heard::Missed(rows) => return vec![line(&What::Dropped { rows: *rows })],
        Heard::Page(page) => page,
    };
    let gaps = page.gaps.iter().map(|gap| {
        line(&What::Gap {
            cluster,
            node: &gap.node,
            from: rfc3339(gap.from),
            until: rfc3339(gap.until),
        })
    });
    let containers = page.changes.containers.iter();
    let rows = containers.flat_map(|changes| lines_of_container(changes, cluster));
    gaps.chain(rows).collect()
}

fn lines_of_container(changes: &ContainerChanges, cluster: &str) -> Vec<String> {
    let who = Who::new(&changes.container, cluster);
    let rows = changes.observations.iter().zip(&changes.is_new);
    let rows = rows.map(|(observation, is_new)| line(&row(&who, observation, *is_new)));
    let losses = changes.losses.iter().map(|Loss { reason, count }| {
        line(&What::Loss {
            who: &who,
            reason: reason.as_str(),
            count: *count,
        })
    });
    rows.chain(losses).collect()
}

fn line(what: &What<'_>) -> String {
    let event = Event {
        schema: LINES_SCHEMA,
        time: rfc3339(now()),
        what,
    };
    let text = serde_json::to_string(&event);
    text.expect("texts and numbers can always be written") + "\n"
}

fn rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(time.0.into())
        .expect("64 bits of nanoseconds end in 2262, jiff's range in 9999")
        .to_string()
}

/// A line.
#[derive(Serialize)]
struct Event<'a> {
    schema: &'static str,
    /// When the line was written.
    time: String,
    #[serde(flatten)]
    what: &'a What<'a>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum What<'a> {
    /// Something was done, for the first time or again.
    Row {
        #[serde(flatten)]
        who: &'a Who<'a>,
        /// Whether it is told for the first time.
        new: bool,
        kind: &'static str,
        source: &'a str,
        target: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        protocol: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// How a file is used, and marks on what is named.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        access: Vec<&'static str>,
        status: &'static str,
        /// How often so far.
        count: u64,
        first_seen: String,
        last_seen: String,
        #[serde(skip_serializing_if = "str::is_empty")]
        args: &'a str,
    },
    /// Events were not counted.
    Loss {
        #[serde(flatten)]
        who: &'a Who<'a>,
        reason: &'static str,
        /// How many so far.
        count: u64,
    },
    /// Nobody watched a node.
    Gap {
        #[serde(skip_serializing_if = "str::is_empty")]
        cluster: &'a str,
        node: &'a str,
        from: String,
        until: String,
    },
    /// Lines are left out here because they were not read in time.
    Dropped { rows: u64 },
}

fn row<'a>(who: &'a Who<'a>, observation: &'a Observation, new: bool) -> What<'a> {
    let behaviour = &observation.behaviour;
    let tally = observation.tally;
    What::Row {
        who,
        new,
        kind: behaviour.kind.as_str(),
        source: behaviour.source.as_str(),
        target: behaviour.target.as_str(),
        protocol: behaviour.protocol.as_str(),
        port: (behaviour.port != 0).then_some(behaviour.port),
        access: behaviour.access.words().collect(),
        status: behaviour.status.as_str(),
        count: tally.count,
        first_seen: rfc3339(tally.first),
        last_seen: rfc3339(tally.last),
        args: observation.example.as_str(),
    }
}

/// Who did something; what is not known is left out.
#[derive(Serialize)]
struct Who<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    cluster: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    node: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pod: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    container: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    container_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    image: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    runtime: &'a str,
    /// `KIND/NAME`.
    #[serde(skip_serializing_if = "String::is_empty")]
    workload: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    cgroup: &'a str,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    labels: &'a Labels,
}

impl<'a> Who<'a> {
    fn new(container: &'a Container, cluster: &'a str) -> Self {
        let workload = &container.workload;
        Self {
            cluster,
            node: &container.node,
            namespace: &container.namespace,
            pod: &container.pod,
            container: &container.name,
            container_id: &container.id,
            image: &container.image,
            runtime: container.runtime.as_str(),
            workload: if workload.name.is_empty() {
                String::new()
            } else {
                workload.to_string()
            },
            cgroup: container.cgroup_path.as_str(),
            labels: &container.labels,
        }
    }
}
