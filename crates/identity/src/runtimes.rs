//! Asking container runtimes who their containers are.
//!
//! Each runtime that may be there has a task of its own, so that one that hangs delays
//! nobody. A task finds its runtime, asks it all it knows, and asks again when a new
//! container has no name yet, every second while that lasts, and every ten seconds
//! anyway. Whatever a runtime does (stop, hang, answer nonsense, answer too much) becomes
//! its [`RuntimeStatus`], and the task tries again later.
//!
//! containerd's own API, for containers made by `nerdctl` or `ctr` without Kubernetes, is
//! not asked: such containers are watched and known by their id, without a name.

pub(crate) mod cri;
pub(crate) mod docker;
pub(crate) mod podman;

use crate::facts::{Addresses, Facts, Source, printable};
use ethogram_model::Timestamp;
use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

/// How long a runtime may take for one answer.
pub const ANSWER_WAIT_S: u64 = 5;
/// The largest answer that is read of a runtime.
pub const ANSWER_BYTES_MAX: usize = 32 << 20;
/// How soon a runtime that is not there, or failed, is tried again.
pub const RETRY_S: u64 = 3;
/// How often a runtime is asked while a container has no name.
pub const UNNAMED_POLL_S: u64 = 1;
/// How often a runtime is asked anyway.
pub const REFRESH_S: u64 = 10;
/// The least time between two questions, however many containers start.
pub const POLL_GAP_MS: u64 = 50;
/// How many reports may wait for the agent; beyond it the runtimes' tasks wait.
pub const REPORTS_MAX: usize = 256;

/// Where a runtime can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuntimeEndpoint {
    /// What speaks there.
    pub source: Source,
    /// Its socket, or folder.
    pub path: PathBuf,
}

impl RuntimeEndpoint {
    fn new(source: Source, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { source, path }
    }
}

impl fmt::Display for RuntimeEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source.as_str(), self.path.display())
    }
}

/// An option that does not name a runtime's endpoint.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not a runtime endpoint: write cri:PATH, docker:PATH or podman-files:FOLDER, \
     for example cri:/run/containerd/containerd.sock"
)]
pub struct InvalidEndpoint(String);

impl FromStr for RuntimeEndpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidEndpoint(text.to_owned());
        let (word, path) = text.split_once(':').ok_or_else(invalid)?;
        let source = Source::ALL.iter().find(|s| s.as_str() == word);
        let source = *source.ok_or_else(invalid)?;
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') {
            return Err(invalid());
        }
        Ok(Self::new(source, path))
    }
}

/// Where runtimes are usually found.
pub const WELL_KNOWN: &[(Source, &str)] = &[
    (Source::Cri, "/run/containerd/containerd.sock"),
    (Source::Cri, "/run/k3s/containerd/containerd.sock"),
    (Source::Cri, "/run/k0s/containerd.sock"),
    (Source::Cri, "/var/snap/microk8s/common/run/containerd.sock"),
    (Source::Cri, "/run/crio/crio.sock"),
    (Source::Cri, "/run/cri-dockerd.sock"),
    (Source::Docker, "/run/docker.sock"),
    (Source::Docker, "/run/podman/podman.sock"),
    (Source::PodmanFiles, "/var/lib/containers/storage"),
];

/// The well-known endpoints below a root: `/`, or where the host's files are mounted.
#[must_use]
pub fn well_known(root: &Path) -> Vec<RuntimeEndpoint> {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    WELL_KNOWN
        .iter()
        .map(|(source, path)| RuntimeEndpoint::new(*source, below(path)))
        .collect()
}

/// How a runtime is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// Which.
    pub endpoint: RuntimeEndpoint,
    /// Whether it answers.
    pub state: RuntimeState,
}

/// Whether a runtime answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeState {
    /// There is nothing at its path.
    Absent,
    /// It answered its last question.
    Answers {
        /// Its name and version, printable.
        version: String,
        /// How many containers it told, sandboxes of pods included.
        containers: usize,
        /// Whether it announces new containers itself, or only answers questions.
        announces: bool,
    },
    /// It is there, and its last answer could not be used.
    Fails {
        /// Why, and what to do about it; printable.
        why: String,
    },
}

/// What a runtime's task tells.
#[derive(Debug)]
pub(crate) enum Report {
    /// All containers a runtime has.
    All(RuntimeEndpoint, Vec<Facts>),
    /// Something of one container.
    One(Facts),
    Status(RuntimeStatus),
}

/// How urgently names are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Counts containers that appeared without a name; each asks for an answer now.
    pub(crate) appeared: u64,
    /// Whether any still waits for its name.
    pub(crate) unnamed: bool,
}

/// Why a runtime could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("no answer to {question} within {ANSWER_WAIT_S} s: the runtime hangs or is overloaded")]
    Hangs { question: &'static str },
    #[error(
        "its answer to {question} is larger than {ANSWER_BYTES_MAX} bytes, which no runtime needs"
    )]
    TooLarge { question: &'static str },
    #[error("it serves no CRI v1: {0}")]
    NoCri(String),
    #[error("{question} failed: {why}")]
    Refused { question: &'static str, why: String },
    #[error("its answer to {question} cannot be understood: {why}")]
    Nonsense { question: &'static str, why: String },
    #[error("cannot read {path}: {why}")]
    File { path: PathBuf, why: io::Error },
    #[error("it closed its stream of events")]
    EventsEnded,
    /// Nobody listens any more.
    #[error("the agent ends")]
    Ended,
}

/// Waits for an answer, but not for ever.
async fn answer<T>(
    question: &'static str,
    asked: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(Duration::from_secs(ANSWER_WAIT_S), asked)
        .await
        .unwrap_or(Err(Failure::Hangs { question }))
}

/// The side of a runtime's task that faces the agent.
pub(crate) struct Line {
    endpoint: RuntimeEndpoint,
    reports: mpsc::Sender<Report>,
    demand: watch::Receiver<Demand>,
    status: Option<RuntimeState>,
    asked: Instant,
    /// How many containers had appeared when the runtime was asked last.
    asked_for: u64,
}

/// Why a runtime is asked again.
enum Wake<E> {
    Ask,
    Event(E),
}

impl Line {
    pub(crate) fn new(
        endpoint: RuntimeEndpoint,
        reports: mpsc::Sender<Report>,
        demand: watch::Receiver<Demand>,
    ) -> Self {
        Self {
            endpoint,
            reports,
            demand,
            status: None,
            asked: Instant::now(),
            asked_for: 0,
        }
    }

    /// Asks the runtime for ever: finds it, and finds it again whenever it fails.
    pub(crate) async fn run(mut self) {
        loop {
            let state = if tokio::fs::try_exists(&self.endpoint.path)
                .await
                .unwrap_or(true)
            {
                let served = match self.endpoint.source {
                    Source::Cri => cri::serve(&mut self).await,
                    Source::Docker => docker::serve(&mut self).await,
                    Source::PodmanFiles => podman::serve(&mut self).await,
                };
                match served {
                    Err(Failure::Ended) => return,
                    Err(failure) => RuntimeState::Fails {
                        why: printable(&failure.to_string()),
                    },
                    Ok(never) => match never {},
                }
            } else {
                RuntimeState::Absent
            };
            if self.tell_state(state).await.is_err() {
                return;
            }
            sleep(Duration::from_secs(RETRY_S)).await;
        }
    }

    async fn tell(&self, report: Report) -> Result<(), Failure> {
        self.reports.send(report).await.map_err(|_| Failure::Ended)
    }

    async fn tell_all(&mut self, told: Told) -> Result<(), Failure> {
        let state = RuntimeState::Answers {
            version: told.version,
            containers: told.facts.len(),
            announces: told.announces,
        };
        self.tell(Report::All(self.endpoint.clone(), told.facts))
            .await?;
        self.tell_state(state).await
    }

    async fn tell_state(&mut self, state: RuntimeState) -> Result<(), Failure> {
        if self.status.as_ref() == Some(&state) {
            return Ok(());
        }
        let (endpoint, was) = (&self.endpoint, &self.status);
        match &state {
            RuntimeState::Absent if was.is_some() => tracing::info!(%endpoint, "runtime is gone"),
            RuntimeState::Absent => {}
            RuntimeState::Fails { why } => tracing::warn!(%endpoint, why, "runtime cannot be used"),
            RuntimeState::Answers { version, .. } => {
                if !matches!(was, Some(RuntimeState::Answers { .. })) {
                    tracing::info!(%endpoint, version, "runtime answers");
                }
            }
        }
        self.status = Some(state.clone());
        let endpoint = self.endpoint.clone();
        self.tell(Report::Status(RuntimeStatus { endpoint, state }))
            .await
    }

    /// Notes that the runtime is asked now. Demand from here on asks for another answer.
    fn asking(&mut self) {
        self.asked = Instant::now();
        self.asked_for = self.demand.borrow_and_update().appeared;
    }

    /// Waits until the runtime is to be asked again, or says something by itself.
    async fn wake<E>(&mut self, event: impl Future<Output = E>) -> Result<Wake<E>, Failure> {
        let gap = self.asked + Duration::from_millis(POLL_GAP_MS);
        let mut event = std::pin::pin!(event);
        loop {
            let demand = *self.demand.borrow_and_update();
            // It may have appeared while the last answer was on its way.
            if demand.appeared != self.asked_for {
                sleep_until(gap).await;
                return Ok(Wake::Ask);
            }
            let pause_s = if demand.unnamed {
                UNNAMED_POLL_S
            } else {
                REFRESH_S
            };
            tokio::select! {
                told = &mut event => {
                    sleep_until(gap).await;
                    return Ok(Wake::Event(told));
                }
                () = sleep_until(self.asked + Duration::from_secs(pause_s)) => return Ok(Wake::Ask),
                changed = self.demand.changed() => changed.map_err(|_| Failure::Ended)?,
            }
        }
    }
}

/// All that a runtime told at one time.
struct Told {
    version: String,
    announces: bool,
    facts: Vec<Facts>,
}

/// The addresses among some texts; what is no address is passed over.
fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>, since: Timestamp) -> Addresses {
    let ips: Vec<_> = texts.into_iter().filter_map(|ip| ip.parse().ok()).collect();
    Addresses::Held { ips, since }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_written() {
        for text in [
            "cri:/run/x.sock",
            "docker:/var/run/docker.sock",
            "podman-files:/a:b",
        ] {
            assert_eq!(text.parse::<RuntimeEndpoint>().unwrap().to_string(), text);
        }
        assert_eq!(
            "cri:///run/x"
                .parse::<RuntimeEndpoint>()
                .unwrap()
                .to_string(),
            "cri:/run/x"
        );
        for text in [
            "",
            "cri",
            "cri:",
            "cri:run/x",
            "rkt:/run/x",
            "/run/containerd.sock",
        ] {
            assert!(
                text.parse::<RuntimeEndpoint>()
                    .unwrap_err()
                    .to_string()
                    .contains("cri:PATH")
            );
        }
    }

    /// How long the runtime is left alone after a question, in virtual milliseconds.
    async fn left_alone(line: &mut Line) -> u128 {
        line.wake(std::future::pending::<()>()).await.unwrap();
        line.asked.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_is_asked_when_there_is_a_reason() {
        let (reports, _listener) = mpsc::channel(1);
        let (demand, demanded) = watch::channel(Demand::default());
        let endpoint = RuntimeEndpoint::new(Source::Cri, "/run/x");
        let mut line = Line::new(endpoint, reports, demanded);
        line.asking();
        assert_eq!(left_alone(&mut line).await, 10_000, "nothing is wanted");
        line.asking();
        demand.send_modify(|demand| demand.appeared += 1);
        assert_eq!(
            left_alone(&mut line).await,
            50,
            "one appeared while the answer was on its way"
        );
        line.asking();
        demand.send_modify(|demand| demand.unnamed = true);
        assert_eq!(left_alone(&mut line).await, 1_000, "one waits for its name");
        line.asking();
        let heard = line.wake(std::future::ready(())).await;
        assert!(matches!(heard, Ok(Wake::Event(()))));
        assert_eq!(line.asked.elapsed().as_millis(), 50);
        drop(demand);
        let ended = line.wake(std::future::pending::<()>()).await;
        assert!(matches!(ended, Err(Failure::Ended)));
    }

    #[test]
    fn well_known_endpoints_are_looked_for_below_a_root() {
        let found = well_known(Path::new("/host"));
        assert!(found.contains(&RuntimeEndpoint::new(
            Source::Cri,
            "/host/run/crio/crio.sock"
        )));
        assert_eq!(found.len(), WELL_KNOWN.len());
    }
}
