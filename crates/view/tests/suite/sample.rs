//! A web pod that was watched for a day, a sidecar that only binds, and a Docker container.

use ethogram_model::*;
use ethogram_view::{Document, Table};
use std::net::IpAddr;

/// Wed Jan  4 16:53:50 UTC 2023.
const LAST_SECOND: i64 = 1_672_851_230;

pub(crate) fn second(ago: i64) -> Timestamp {
    Timestamp((LAST_SECOND - ago) * 1_000_000_000)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pair = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
    pairs.iter().map(pair).collect()
}

pub(crate) fn key(cgroup: u64) -> ContainerKey {
    ContainerKey {
        boot: BootId::new("7f2c"),
        cgroup,
        incarnation: 0,
    }
}

pub(crate) fn web() -> Container {
    Container {
        node: "node-1".into(),
        runtime: Runtime::Containerd,
        id: "0123456789abcdef".repeat(4),
        name: "dvwa".into(),
        image: "example.org/dvwa:1.10".into(),
        namespace: "dvwa".into(),
        pod: "dvwa-web-59b677c755-qmpkd".into(),
        pod_uid: "c7a8".into(),
        workload: Workload {
            kind: "deployment".into(),
            name: "dvwa-web".into(),
        },
        labels: labels(&[
            ("app", "dvwa-web"),
            ("pod-template-hash", "59b677c755"),
            ("tier", "frontend"),
        ]),
        ..Container::unknown(key(1), Name::default(), second(20_000))
    }
}

fn sidecar() -> Container {
    Container {
        name: "resolver".into(),
        id: "fedcba9876543210".repeat(4),
        image: "example.org/resolver".into(),
        ..web_with_key(2)
    }
}

fn web_with_key(cgroup: u64) -> Container {
    Container {
        key: key(cgroup),
        present_at_start: true,
        ..web()
    }
}

fn cache() -> Container {
    Container {
        node: "node-1".into(),
        runtime: Runtime::Docker,
        id: "aaaaaaaaaaaaaaaa".repeat(4),
        name: "cache".into(),
        image: "redis:7".into(),
        ended: Some(second(500)),
        ..Container::unknown(key(3), Name::default(), second(9000))
    }
}

pub(crate) fn seen(kind: Kind, source: &str, target: &str, count: u64, ago: i64) -> Observation {
    Observation {
        container: key(1),
        behaviour: Behaviour::new(kind, source.into(), target.into()),
        tally: Tally {
            count,
            first: Timestamp(second(ago + 60).0 + 123_456_789),
            last: second(ago),
        },
        example: Name::default(),
    }
}

fn denied(mut observation: Observation) -> Observation {
    observation.behaviour.status = Status::Deny;
    observation
}

fn with_access(mut observation: Observation, access: Access) -> Observation {
    observation.behaviour.access = access;
    observation
}

fn example(mut observation: Observation, args: &str) -> Observation {
    observation.example = args.into();
    observation
}

fn network(mut observation: Observation, protocol: Protocol, port: u16) -> Observation {
    observation.behaviour.protocol = protocol;
    observation.behaviour.port = port;
    observation
}

fn of(mut observation: Observation, cgroup: u64) -> Observation {
    observation.container = key(cgroup);
    observation
}

fn observations() -> Vec<Observation> {
    use Kind::*;
    let runc = format!(
        "/var/lib/rancher/k3s/data/{}/bin/runc",
        "8307e9b3".repeat(8)
    );
    let mut all = vec![
        example(
            seen(Process, "/bin/bash", "/bin/ls", 2, 15_492),
            "ls -la /etc",
        ),
        seen(Process, "/bin/bash", "/bin/rm", 1, 10_753),
        denied(seen(Process, "/bin/dash", "/bin/cat", 1, 9000)),
        seen(Process, "/bin/dash", "/bin/ping", 1, 15_602),
        of(seen(Process, "/bin/dash", "/bin/ping", 3, 0), 4),
        denied(seen(Process, "/bin/dash", "/usr/bin/head", 2, 8000)),
        seen(Process, "/bin/dash", "/usr/bin/head", 2, 1),
        seen(Process, "/usr/sbin/apache2", "/bin/sh", 4, 0),
        with_access(
            seen(Process, &runc, "/bin/bash", 2, 10_770),
            Access::AT_START,
        ),
        with_access(seen(File, "/bin/bash", "/", 1, 15_496), Access::READ),
        with_access(
            seen(
                File,
                "/bin/ls",
                "/lib/x86_64-linux-gnu/libc-2.24.so",
                2,
                15_492,
            ),
            Access::READ,
        ),
        with_access(
            seen(File, "/bin/rm", "/etc/ld.so.cache", 2, 10_753),
            Access::READ,
        ),
        denied(with_access(
            seen(File, "/bin/cat", "/etc/shadow", 1, 9000),
            Access::READ,
        )),
        with_access(
            seen(
                File,
                "/usr/sbin/apache2",
                "/proc/sys/kernel/ngroups_max",
                2,
                15_622,
            ),
            Access::READ,
        ),
        with_access(
            seen(File, "/usr/sbin/apache2", "/tmp/sess_1", 14, 0),
            Access::WRITE | Access::CREATE,
        ),
        with_access(
            seen(
                File,
                "/usr/sbin/apache2",
                "/run/secrets/kubernetes.io/serviceaccount/token",
                1,
                5,
            ),
            Access::READ,
        ),
        network(
            seen(Ingress, "/usr/sbin/apache2", "127.0.0.1", 6, 15_267),
            Protocol::Tcp6,
            80,
        ),
        network(
            seen(Egress, "/usr/sbin/apache2", "10.43.0.9", 15, 15_298),
            Protocol::Tcp,
            3306,
        ),
        denied(network(
            seen(Egress, "/bin/ping", "8.8.8.8", 1, 15_602),
            Protocol::Icmp,
            0,
        )),
        network(seen(Bind, "/bin/ping", "", 1, 15_602), Protocol::Netlink, 0),
        with_access(
            network(
                seen(Bind, "/usr/sbin/apache2", "::", 1, 19_000),
                Protocol::Tcp6,
                80,
            ),
            Access::LISTEN | Access::AT_START,
        ),
        network(
            seen(Egress, "/usr/bin/curl", "203.0.113.9", 3, 12_000),
            Protocol::Tcp,
            443,
        ),
        seen(Capability, "/bin/ping", "CAP_NET_RAW", 4, 0),
        seen(Syscall, "/usr/sbin/apache2", "setuid", 5, 15_622),
        of(
            network(
                seen(Bind, "/resolver", "@resolver", 1, 100),
                Protocol::Unix,
                0,
            ),
            2,
        ),
        of(
            seen(Process, "/entrypoint.sh", "/usr/bin/redis-server", 1, 9000),
            3,
        ),
    ];
    for (n, name) in ["passwd", "group", "hosts", "nsswitch.conf"]
        .iter()
        .enumerate()
    {
        let path = format!("/etc/{name}");
        let row = |source, count| seen(File, source, &path, count, 10_760 + n as i64);
        all.push(with_access(row("/bin/bash", 2), Access::READ));
        all.push(with_access(row("/usr/sbin/apache2", 8), Access::READ));
    }
    for n in 0..5 {
        let path = format!("/var/www/html/page-{n}.php");
        all.push(with_access(
            seen(File, "/usr/sbin/apache2", &path, 19, n),
            Access::READ,
        ));
    }
    all.push(with_access(
        seen(File, "/usr/sbin/apache2", "/var/www/html/page-0.php", 1, 7),
        Access::WRITE,
    ));
    all
}

/// Two names for one address, one of them asked for later, and a third too late.
fn resolutions() -> Vec<Resolution> {
    let told = |name: &str, before: i64, last_before: i64| Resolution {
        container: key(1),
        ip: [203, 0, 113, 9].into(),
        name: name.into(),
        first: second(before),
        last: second(last_before),
    };
    vec![
        told("static.example.org", 13_000, 13_000),
        told("api.example.org", 14_000, 12_100),
        told("later.example.org", 11_000, 11_000),
    ]
}

/// What a store would hand over, with a restart of the web container and a run that broke off.
pub(crate) fn document(change: impl FnOnce(&mut SummaryOptions)) -> Document {
    let containers = [web(), sidecar(), cache(), web_with_key(4)];
    let run = |started, last_alive, ended_cleanly| Run {
        id: format!("run-{started}"),
        boot: BootId::new("7f2c"),
        node: "node-1".into(),
        hooks: "tracepoint".into(),
        started: second(started),
        last_alive: second(last_alive),
        ended_cleanly,
    };
    let endpoints = [Endpoint {
        ip: [10, 43, 0, 9].into(),
        name: "svc/dvwa-mysql-service".into(),
        namespace: "dvwa".into(),
        labels: labels(&[("app", "mysql")]),
        from: second(90_000),
        until: None,
    }];
    let lost = |reason, count| (key(2), Loss { reason, count });
    let mut options = SummaryOptions {
        cluster: "pandora-cluster".into(),
        ..SummaryOptions::default()
    };
    change(&mut options);
    let facts = Facts {
        containers: &containers,
        observations: &observations(),
        endpoints: &endpoints,
        resolutions: &resolutions(),
        losses: &[lost(LossReason::RingFull, 10), lost(LossReason::Store, 2)],
        runs: &[run(30_000, 8000, false), run(7000, -60, false)],
        kept_since: Some(second(10_000)),
    };
    let mut document = Document::from(&summarize(&facts, &options, second(-65)));
    for subject in &mut document.subjects {
        for row in subject
            .tables
            .get_mut(&Table(Kind::Egress))
            .into_iter()
            .flatten()
        {
            let nameless = row.peer.is_empty() && row.dns_names.is_empty();
            if nameless && row.target.as_str().parse::<IpAddr>().is_ok() {
                row.dns_name = "mirror.example.org".into();
            }
        }
    }
    document
}

/// The same pod on a day on which nothing went wrong.
pub(crate) fn calm_document() -> Document {
    let observations: Vec<_> = observations()
        .into_iter()
        .filter(|o| o.container == key(1))
        .collect();
    let facts = Facts {
        containers: &[web()],
        observations: &observations,
        ..Facts::default()
    };
    Document::from(&summarize(&facts, &SummaryOptions::default(), second(-65)))
}
