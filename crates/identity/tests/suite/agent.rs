//! What the agent does with the crate, for the tests.

use ethogram_identity::{
    CgroupEvent, Identity, Options, RuntimeState, Scope,
    cgroups::{Hierarchies, Hierarchy, Mount},
    facts::Source,
    runtimes::RuntimeEndpoint,
};
use ethogram_model::{Container, Timestamp};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// After this, what is waited for will not come: the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
pub(crate) const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

pub(crate) struct Agent {
    pub(crate) identity: Identity,
    /// Every container that was told, in its last state.
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) endpoints: Vec<ethogram_model::Endpoint>,
    pub(crate) states: BTreeMap<PathBuf, RuntimeState>,
    /// The time, which goes on by a nanosecond with each look at it.
    now: i64,
    _runtime: Runtime,
}

/// A folder for sockets and cgroups.
pub(crate) struct Host {
    pub(crate) folder: TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("cgroup")).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn agent(&self, runtimes: &[(Source, &str)]) -> Agent {
        let tokio = Runtime::new().unwrap();
        let endpoint = |(source, name): &(Source, &str)| RuntimeEndpoint {
            source: *source,
            path: self.path(name),
        };
        let mount = Mount::whole(Hierarchy::V2, self.path("cgroup")).unwrap();
        let options = Options {
            scope: Scope::machine(false),
            node: Some("node1".into()),
            runtimes: Some(runtimes.iter().map(endpoint).collect()),
            hierarchies: Some(Hierarchies {
                mounts: vec![mount],
            }),
            ..Options::default()
        };
        Agent {
            identity: Identity::start(options, tokio.handle(), Timestamp(1)).unwrap(),
            containers: BTreeMap::new(),
            endpoints: Vec::new(),
            states: BTreeMap::new(),
            now: 1,
            _runtime: tokio,
        }
    }
}

impl Agent {
    pub(crate) fn now(&mut self) -> Timestamp {
        self.now += 1;
        Timestamp(self.now)
    }

    /// Lets time go on.
    pub(crate) fn pass(&mut self, seconds: i64) {
        self.now += seconds * 1_000_000_000;
    }

    pub(crate) fn appeared(&mut self, id: u64, path: &str) {
        let (path, time) = (path.into(), self.now());
        self.identity
            .cgroup_event(CgroupEvent::Appeared { id, path, time });
    }

    pub(crate) fn gone(&mut self, id: u64) {
        let time = self.now();
        self.identity.cgroup_event(CgroupEvent::Gone { id, time });
    }

    pub(crate) fn poll(&mut self) {
        let now = self.now();
        let updates = self.identity.poll(now);
        for container in updates.containers {
            let key = format!("{} {}", container.key.cgroup, container.key.incarnation);
            self.containers.insert(key, container);
        }
        for status in updates.runtimes {
            self.states.insert(status.endpoint.path, status.state);
        }
        self.endpoints.extend(updates.endpoints);
    }

    /// Polls until something holds.
    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.poll();
            if holds(self) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{what} did not come; {:#?} {:#?} {:#?}",
                self.states,
                self.containers,
                self.endpoints
            );
            sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn until_named(&mut self, cgroup: u64, name: &str) {
        self.until(&format!("the name {name}"), |agent| {
            agent.container(cgroup).is_some_and(|c| c.name == name)
        });
    }

    pub(crate) fn until_fails(&mut self, why: &str) {
        self.until(&format!("a failure with {why:?}"), |agent| {
            let fails =
                |s: &RuntimeState| matches!(s, RuntimeState::Fails { why: w } if w.contains(why));
            agent.states.values().any(fails)
        });
    }

    pub(crate) fn until_answers(&mut self) {
        let answers = |s: &RuntimeState| matches!(s, RuntimeState::Answers { .. });
        self.until("an answer", |agent| agent.states.values().any(answers));
    }

    /// What was told last of the first instance of a cgroup.
    pub(crate) fn container(&self, cgroup: u64) -> Option<&Container> {
        self.containers.get(&format!("{cgroup} 0"))
    }

    /// The endpoints as they were told: address, name, whether it ended.
    pub(crate) fn addresses(&self) -> Vec<(String, &str, bool)> {
        let endpoints = self.endpoints.iter();
        endpoints
            .map(|e| (e.ip.to_string(), e.name.as_str(), e.until.is_some()))
            .collect()
    }
}
