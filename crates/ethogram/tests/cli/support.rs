//! A store with known content, and the binary to read it with.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use ethogram_model::*;
use ethogram_store::{Report, SqliteStore, Store};

/// 2023-01-04T12:00:00Z.
const NOON: i64 = 1_672_833_600_000_000_000;

pub(crate) fn minute(after_noon: i64) -> Timestamp {
    Timestamp(NOON + after_noon * 60_000_000_000)
}

/// A store in a folder that goes away with it.
pub(crate) struct Known {
    folder: tempfile::TempDir,
}

impl Known {
    pub(crate) fn of(report: &Report) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let known = Self { folder };
        let store = SqliteStore::open(&known.file()).expect("a new store");
        store.apply(report).expect("a report that fits");
        known
    }

    /// The small world that most tests look at.
    pub(crate) fn world() -> Self {
        Self::of(&world())
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("known.db")
    }

    /// What `ethogram COMMAND --db FILE OPTIONS...` says.
    pub(crate) fn ask(&self, command: &str, options: &[&str]) -> Said {
        said(
            ethogram()
                .arg(command)
                .arg("--db")
                .arg(self.file())
                .args(options),
        )
    }
}

/// The binary, without what the environment of the tests would add.
pub(crate) fn ethogram() -> Command {
    let mut command = Command::new(binary());
    for name in [
        "ETHOGRAM_SOCKET",
        "KUBECONFIG",
        "ETHOGRAM_PAGER",
        "PAGER",
        "NO_COLOR",
        "LESS",
    ] {
        command.env_remove(name);
    }
    command
}

pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ethogram"))
}

/// What a run of the binary said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

pub(crate) fn said(command: &mut Command) -> Said {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the binary runs");
    Said {
        code: status.code(),
        out: String::from_utf8(stdout).expect("valid UTF-8 whatever the names are"),
        err: String::from_utf8(stderr).expect("valid UTF-8 whatever the names are"),
    }
}

fn key(cgroup: u64) -> ContainerKey {
    ContainerKey {
        boot: BootId::new("7f2c"),
        cgroup,
        incarnation: 0,
    }
}

fn pod(cgroup: u64, namespace: &str, name: &str, app: &str) -> Container {
    Container {
        node: "node-1".into(),
        runtime: Runtime::Containerd,
        id: format!("{cgroup:064x}"),
        name: app.into(),
        image: format!("example.org/{app}:1"),
        namespace: namespace.into(),
        pod: name.into(),
        pod_uid: format!("uid-{cgroup}"),
        workload: Workload {
            kind: "deployment".into(),
            name: app.into(),
        },
        labels: [("app", app), ("tier", "test")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ended: Some(minute(60)),
        ..Container::unknown(key(cgroup), Name::default(), minute(0))
    }
}

pub(crate) fn seen(cgroup: u64, kind: Kind, source: &str, target: &str, at: i64) -> Observation {
    Observation {
        container: key(cgroup),
        behaviour: Behaviour::new(kind, source.into(), target.into()),
        tally: Tally::at(minute(at), 2),
        example: Name::default(),
    }
}

fn network(mut seen: Observation, protocol: Protocol, port: u16) -> Observation {
    seen.behaviour.protocol = protocol;
    seen.behaviour.port = port;
    seen
}

pub(crate) fn ended(mut seen: Observation, status: Status) -> Observation {
    seen.behaviour.status = status;
    seen
}

pub(crate) fn report(containers: Vec<Container>, observations: Vec<Observation>) -> Report {
    let run = Run {
        id: "run-1".into(),
        boot: BootId::new("7f2c"),
        node: "node-1".into(),
        hooks: "tracepoint".into(),
        started: minute(0),
        last_alive: minute(61),
        ended_cleanly: true,
    };
    Report {
        containers,
        observations,
        ..Report::empty(run)
    }
}

/// Web (1) talks to its database (2), a resolver in another namespace (3) only binds, a
/// second replica of web (4), a sandbox (5), and a cache outside Kubernetes (6).
pub(crate) fn world() -> Report {
    use Kind::{Bind, Capability, Egress, File, Ingress, Process, Syscall};
    let mut sandbox = pod(5, "dvwa", "web-1", "web");
    sandbox.name = "POD".into();
    sandbox.pod_uid = "uid-1".into();
    let cache = Container {
        namespace: String::new(),
        pod: String::new(),
        labels: Labels::new(),
        runtime: Runtime::Docker,
        name: "cache".into(),
        workload: Workload::default(),
        ended: None,
        ..pod(6, "", "", "cache")
    };
    let apache = "/usr/sbin/apache2";
    let mut observations = vec![
        seen(1, Process, "/bin/dash", "/bin/ping", 5),
        seen(1, Process, apache, "/bin/my shell", 6),
        seen(1, File, apache, "/srv/a file with spaces", 7),
        ended(seen(1, File, "/bin/cat", "/etc/shadow", 8), Status::Deny),
        ended(seen(1, File, "/bin/cat", "/etc/audited", 8), Status::Audit),
        network(seen(1, Egress, apache, "10.0.0.2", 9), Protocol::Tcp, 3306),
        network(seen(1, Egress, apache, "192.0.2.7", 9), Protocol::Tcp6, 443),
        ended(
            network(seen(1, Egress, apache, "192.0.2.9", 9), Protocol::Tcp, 80),
            Status::Failed,
        ),
        network(seen(1, Bind, apache, "::", 1), Protocol::Tcp6, 80),
        seen(1, Capability, "/bin/ping", "CAP_NET_RAW", 5),
        seen(1, Syscall, "/bin/ping", "setuid", 5),
        network(
            seen(2, Ingress, "/usr/sbin/mysqld", "10.0.0.1", 50),
            Protocol::Tcp,
            3306,
        ),
        network(
            seen(3, Bind, "/bin/resolver", "0.0.0.0", 2),
            Protocol::Udp,
            53,
        ),
        seen(4, Process, "/bin/dash", "/bin/ping", 30),
        seen(6, File, "/bin/cache", "/data/dump", 40),
    ];
    for name in ["a", "b", "c", "d"] {
        observations.push(seen(1, File, apache, &format!("/var/www/{name}.php"), 10));
    }
    let containers = vec![
        pod(1, "dvwa", "web-1", "web"),
        pod(2, "dvwa", "db-1", "db"),
        pod(3, "tools", "resolver-1", "resolver"),
        pod(4, "dvwa", "web-2", "web"),
        sandbox,
        cache,
    ];
    let endpoint = |ip: &str, name: &str, app: &str| Endpoint {
        ip: ip.parse().expect("an address"),
        name: name.into(),
        namespace: "dvwa".into(),
        labels: [("app".to_owned(), app.to_owned())].into(),
        from: minute(0),
        until: None,
    };
    Report {
        endpoints: vec![
            endpoint("10.0.0.1", "pod/web-1", "web"),
            endpoint("10.0.0.2", "pod/db-1", "db"),
        ],
        losses: vec![(
            key(2),
            Loss {
                reason: LossReason::RingFull,
                count: 7,
            },
        )],
        ..report(containers, observations)
    }
}

/// A store of one container with these observations of container 1.
pub(crate) fn one(observations: Vec<Observation>) -> Known {
    Known::of(&report(vec![pod(1, "one", "one-1", "one")], observations))
}
