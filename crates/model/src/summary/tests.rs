use super::*;
use crate::{BootId, LossReason, Runtime, Workload};
use proptest::prelude::*;

const SECOND: i64 = 1_000_000_000;
const NOW: Timestamp = Timestamp(1_000_000 * SECOND);

fn second(seconds: i64) -> Timestamp {
    Timestamp(seconds * SECOND)
}

fn key(cgroup: u64) -> ContainerKey {
    ContainerKey {
        boot: BootId::new("boot"),
        cgroup,
        incarnation: 0,
    }
}

/// A container of the pod `web-1` of deployment `web`, watched since second 100.
fn web(cgroup: u64) -> Container {
    Container {
        node: "node-1".into(),
        runtime: Runtime::Containerd,
        id: format!("{cgroup:064x}"),
        name: "app".into(),
        image: "example.org/web:1".into(),
        namespace: "shop".into(),
        pod: "web-1".into(),
        pod_uid: "uid-1".into(),
        workload: Workload {
            kind: "deployment".into(),
            name: "web".into(),
        },
        labels: labels(&[("app", "web")]),
        ..Container::unknown(key(cgroup), Name::default(), second(100))
    }
}

fn labels(pairs: &[(&str, &str)]) -> crate::Labels {
    let pair = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
    pairs.iter().map(pair).collect()
}

fn seen(cgroup: u64, kind: Kind, source: &str, target: &str, count: u64) -> Observation {
    Observation {
        container: key(cgroup),
        behaviour: Behaviour::new(kind, source.into(), target.into()),
        tally: Tally::at(second(200), count),
        example: Name::default(),
    }
}

fn with(mut observation: Observation, change: impl FnOnce(&mut Observation)) -> Observation {
    change(&mut observation);
    observation
}

fn summary(facts: &Facts, change: impl FnOnce(&mut SummaryOptions)) -> Summary {
    let mut options = SummaryOptions::default();
    change(&mut options);
    summarize(facts, &options, NOW)
}

fn lines(subject: &Subject) -> Vec<String> {
    let line = |row: &Row| {
        let b = &row.behaviour;
        let peer = row.peer.as_ref().map(|p| format!(" ({})", p.name));
        let line = format!(
            "{} {} {}{} {} {} {} {}",
            b.kind,
            b.source,
            b.target,
            peer.unwrap_or_default(),
            b.access,
            row.marks,
            b.status,
            row.tally.count
        );
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    subject.rows.iter().map(line).collect()
}

#[test]
fn restarts_of_one_container_are_one_subject_without_duplicate_rows() {
    let containers = [web(1), web(2)];
    let observations = [
        seen(1, Kind::Process, "/bin/dash", "/bin/ping", 1),
        seen(2, Kind::Process, "/bin/dash", "/bin/ping", 3),
    ];
    let facts = Facts {
        containers: &containers,
        observations: &observations,
        ..Facts::default()
    };
    let summary = summary(&facts, |_| {});
    let [subject] = summary.subjects.as_slice() else {
        panic!("one subject: {summary:?}");
    };
    assert_eq!(lines(subject), ["process /bin/dash /bin/ping Allow 4"]);
    assert_eq!(subject.instances, 2);
    assert_eq!(subject.pods, ["web-1"]);
    assert_eq!(subject.container_ids.len(), 2);
    assert!(subject.completeness.is_complete());
}

#[test]
fn subjects_are_what_a_reader_thinks_of() {
    let pod = |cgroup, pod: &str| Container {
        pod: pod.into(),
        pod_uid: format!("uid-{pod}"),
        ..web(cgroup)
    };
    let docker = |cgroup, name: &str, id: &str| Container {
        name: name.into(),
        id: id.into(),
        runtime: Runtime::Docker,
        namespace: String::new(),
        workload: Workload {
            kind: "compose".into(),
            name: "proxy".into(),
        },
        ..pod(cgroup, "")
    };
    let containers = [
        pod(1, "web-1"),
        pod(2, "web-2"),
        Container {
            name: "sidecar".into(),
            ..pod(3, "web-1")
        },
        docker(4, "proxy-1", "aaa"),
        docker(5, "proxy-2", "bbb"),
        Container::unknown(key(6), Name::from("/x.slice"), second(1)),
        Container::unknown(key(7), Name::from("/x.slice"), second(1)),
    ];
    let facts = Facts {
        containers: &containers,
        ..Facts::default()
    };
    let names = |group| -> Vec<String> {
        let summary = summary(&facts, |o| {
            o.group = group;
            o.empty = true;
        });
        let name = |s: &Subject| format!("{:?} {:?} {}", s.pods, s.containers, s.cgroup);
        summary.subjects.iter().map(name).collect()
    };
    assert_eq!(
        names(Group::Container),
        [
            r#"[] [] /x.slice"#,
            r#"[] [] /x.slice"#,
            r#"[] ["proxy-1"] "#,
            r#"[] ["proxy-2"] "#,
            r#"["web-1"] ["app"] "#,
            r#"["web-1"] ["sidecar"] "#,
            r#"["web-2"] ["app"] "#,
        ]
    );
    assert_eq!(
        names(Group::Workload),
        [
            r#"[] [] /x.slice"#,
            r#"[] [] /x.slice"#,
            r#"[] ["proxy-1", "proxy-2"] "#,
            r#"["web-1", "web-2"] ["app"] "#,
            r#"["web-1"] ["sidecar"] "#,
        ]
    );
}

#[test]
fn what_only_shares_a_name_stays_apart() {
    let recreated = Container {
        pod_uid: "uid-2".into(),
        ..web(2)
    };
    let unit = |cgroup, node: &str| Container {
        node: node.into(),
        id: "cron.service".into(),
        pod: String::new(),
        pod_uid: String::new(),
        namespace: String::new(),
        workload: Workload {
            kind: "unit".into(),
            name: "cron.service".into(),
        },
        ..web(cgroup)
    };
    let pods = [web(1), recreated];
    let units = [unit(3, "node-1"), unit(4, "node-2")];
    for (group, containers) in [
        (Group::Container, &pods),
        (Group::Container, &units),
        (Group::Workload, &units),
    ] {
        let facts = Facts {
            containers,
            ..Facts::default()
        };
        let summary = summary(&facts, |o| {
            o.group = group;
            o.empty = true;
        });
        assert_eq!(summary.subjects.len(), 2, "{group:?} {containers:?}");
    }
}

#[test]
fn one_subject_has_the_labels_all_its_containers_have() {
    let containers = [
        Container {
            labels: labels(&[("app", "web"), ("hash", "1")]),
            ..web(1)
        },
        Container {
            labels: labels(&[("app", "web"), ("hash", "2")]),
            ..web(2)
        },
    ];
    let facts = Facts {
        containers: &containers,
        ..Facts::default()
    };
    let summary = summary(&facts, |o| o.empty = true);
    assert_eq!(summary.subjects[0].labels, labels(&[("app", "web")]));
}

#[test]
fn sandboxes_and_idle_containers_are_hidden_and_losses_are_not() {
    let sandbox = Container {
        name: "POD".into(),
        ..web(1)
    };
    let other_sandbox = Container {
        name: "x".into(),
        image: "registry.example:5000/pause:3.9@sha256:00".into(),
        ..web(2)
    };
    let idle = Container {
        name: "idle".into(),
        ..web(3)
    };
    let lossy = Container {
        name: "lossy".into(),
        ..web(4)
    };
    let containers = [sandbox, other_sandbox, idle, lossy];
    let observations = [
        seen(1, Kind::Process, "/bin/a", "/bin/b", 1),
        seen(2, Kind::Process, "/bin/a", "/bin/b", 1),
    ];
    let lost = |count| Loss {
        reason: LossReason::Store,
        count,
    };
    let losses = [(key(4), lost(2)), (key(4), lost(3)), (key(3), lost(0))];
    let facts = Facts {
        containers: &containers,
        observations: &observations,
        losses: &losses,
        ..Facts::default()
    };
    let names = |change: fn(&mut SummaryOptions)| -> Vec<String> {
        let summary = summary(&facts, change);
        summary
            .subjects
            .iter()
            .map(|s| s.containers.concat())
            .collect()
    };
    assert_eq!(names(|_| {}), ["lossy"]);
    assert_eq!(names(|o| o.sandboxes = true), ["POD", "lossy", "x"]);
    assert_eq!(names(|o| o.empty = true), ["idle", "lossy"]);
    let summary = summary(&facts, |_| {});
    let completeness = &summary.subjects[0].completeness;
    assert_eq!(completeness.losses, [lost(5)]);
    assert_eq!(completeness.lost(), 5);
    assert!(!completeness.is_complete());
}

#[test]
fn a_filter_does_not_change_how_the_rows_it_leaves_look() {
    let containers = [web(1)];
    let observations: Vec<_> = ["/etc/1", "/etc/2", "/etc/3", "/etc/4"]
        .iter()
        .map(|path| seen(1, Kind::File, "/bin/bash", path, 1))
        .chain([seen(1, Kind::File, "/bin/rm", "/etc/1", 2)])
        .collect();
    let facts = Facts {
        containers: &containers,
        observations: &observations,
        ..Facts::default()
    };
    let summary = summary(&facts, |o| o.selection.source = Some("/bin/rm".into()));
    assert_eq!(lines(&summary.subjects[0]), ["file /bin/rm /etc/ Allow 2"]);
}

#[test]
fn rows_that_look_alike_are_one() {
    let access = |cgroup, access, count| {
        with(seen(cgroup, Kind::File, "/bin/a", "/x", count), |o| {
            o.behaviour.access = access;
        })
    };
    let observations = [
        access(1, Access::READ, 1),
        access(1, Access::READ | Access::AT_START, 2),
        access(1, Access::WRITE | Access::UPPER, 4),
    ];
    let containers = [web(1)];
    let facts = Facts {
        containers: &containers,
        observations: &observations,
        ..Facts::default()
    };
    let auto = summary(&facts, |_| {});
    assert_eq!(
        lines(&auto.subjects[0]),
        ["file /bin/a /x read,write upper-layer,at-start Allow 7"]
    );
    assert_eq!(auto.subjects[0].rows[0].rows, 3);
    let exact = summary(&facts, |o| o.fold = Fold::None);
    assert_eq!(
        lines(&exact.subjects[0]),
        [
            "file /bin/a /x read at-start Allow 3",
            "file /bin/a /x write upper-layer Allow 4",
        ]
    );
}

#[test]
fn a_bind_that_listens_is_one_point_unless_all_is_asked_for() {
    let bind = |listen: bool, port, count| {
        with(seen(1, Kind::Bind, "/bin/app", "0.0.0.0", count), |o| {
            o.behaviour.protocol = Protocol::Tcp;
            o.behaviour.port = port;
            if listen {
                o.behaviour.access = Access::LISTEN;
            }
        })
    };
    let observations = [bind(false, 80, 2), bind(true, 80, 2), bind(true, 81, 5)];
    let containers = [web(1)];
    let facts = Facts {
        containers: &containers,
        observations: &observations,
        ..Facts::default()
    };
    let points = |fold| {
        let summary = summary(&facts, |options| options.fold = fold);
        let rows = summary.subjects[0].rows.iter();
        rows.map(|row| (row.behaviour.port, row.behaviour.access, row.tally.count))
            .collect::<Vec<_>>()
    };
    let listen = Access::LISTEN;
    assert_eq!(points(Fold::Auto), [(80, listen, 2), (81, listen, 5)]);
    assert_eq!(
        points(Fold::None),
        [(80, Access::empty(), 2), (80, listen, 2), (81, listen, 5)]
    );
}

#[test]
fn failed_rows_are_shown_on_demand() {
    let observations = [with(seen(1, Kind::Egress, "/bin/a", "10.0.0.1", 1), |o| {
        o.behaviour.status = Status::Failed;
    })];
    let containers = [web(1)];
    let facts = Facts {
        containers: &containers,
        observations: &observations,
        ..Facts::default()
    };
    assert!(summary(&facts, |_| {}).subjects.is_empty());
    let shown = summary(&facts, |o| o.selection.statuses = vec![Status::Failed]);
    assert_eq!(
        lines(&shown.subjects[0]),
        ["egress /bin/a 10.0.0.1 Failed 1"]
    );
}

fn endpoint(ip: &str, name: &str, from: i64, until: Option<i64>) -> Endpoint {
    Endpoint {
        ip: ip.parse().unwrap(),
        name: name.into(),
        namespace: "shop".into(),
        labels: labels(&[("from", &from.to_string())]),
        from: second(from),
        until: until.map(second),
    }
}

#[test]
fn an_address_is_named_by_who_had_it_then() {
    let egress = |target, last| {
        with(seen(1, Kind::Egress, "/bin/a", target, 1), |o| {
            o.tally = Tally::at(second(last), 1);
        })
    };
    for (why, observation, expected) in [
        ("unknown", egress("10.0.0.9", 200), None),
        ("the first owner", egress("10.0.0.1", 150), Some("pod/old")),
        ("the second owner", egress("10.0.0.1", 250), Some("pod/new")),
        (
            "at its last moment",
            egress("10.0.0.1", 180),
            Some("pod/old"),
        ),
        ("before anyone", egress("10.0.0.1", 50), None),
        ("between", egress("10.0.0.1", 190), None),
        (
            "at the change the newer",
            egress("10.0.0.4", 200),
            Some("svc/b"),
        ),
        (
            "ended without a word",
            egress("10.0.0.2", 300),
            Some("pod/newer"),
        ),
        (
            "shared with the node",
            egress("10.0.0.3", 300),
            Some("node/n"),
        ),
        ("six", egress("fd00::1", 300), Some("svc/six")),
        ("no address", egress("/run/x.sock", 300), None),
        (
            "a bound address is no peer",
            with(egress("10.0.0.1", 150), |o| o.behaviour.kind = Kind::Bind),
            None,
        ),
    ] {
        let endpoints = [
            endpoint("10.0.0.1", "pod/old", 100, Some(180)),
            endpoint("10.0.0.1", "pod/new", 200, None),
            endpoint("10.0.0.2", "pod/older", 100, None),
            endpoint("10.0.0.2", "pod/newer", 200, None),
            endpoint("10.0.0.3", "node/n", 100, None),
            endpoint("10.0.0.3", "pod/on-host-network", 200, None),
            endpoint("10.0.0.4", "svc/a", 100, Some(200)),
            endpoint("10.0.0.4", "svc/b", 200, None),
            endpoint("fd00::1", "svc/six", 100, None),
        ];
        let facts = Facts {
            containers: &[web(1)],
            observations: &[observation],
            endpoints: &endpoints,
            ..Facts::default()
        };
        let summary = summary(&facts, |_| {});
        let peer = summary.subjects[0].rows[0].peer.as_ref();
        assert_eq!(peer.map(|p| p.name.as_str()), expected, "{why}");
    }
}

#[test]
fn addresses_of_one_peer_are_one_row_unless_all_is_asked_for() {
    let egress = |target, last| {
        with(seen(1, Kind::Egress, "/bin/a", target, 1), |o| {
            o.tally = Tally::at(second(last), 1);
        })
    };
    let endpoints = [
        endpoint("10.0.0.1", "svc/db", 1, None),
        endpoint("10.0.0.2", "svc/db", 2, None),
    ];
    let containers = [web(1)];
    let observations = [egress("10.0.0.2", 300), egress("10.0.0.1", 200)];
    let facts = Facts {
        containers: &containers,
        observations: &observations,
        endpoints: &endpoints,
        ..Facts::default()
    };
    let auto = summary(&facts, |_| {});
    assert_eq!(
        lines(&auto.subjects[0]),
        ["egress /bin/a 10.0.0.2 (svc/db) Allow 2"]
    );
    let exact = summary(&facts, |o| o.fold = Fold::None);
    assert_eq!(
        lines(&exact.subjects[0]),
        [
            "egress /bin/a 10.0.0.1 (svc/db) Allow 1",
            "egress /bin/a 10.0.0.2 (svc/db) Allow 1",
        ]
    );
}

fn run(started: i64, last_alive: i64, ended_cleanly: bool) -> Run {
    Run {
        id: format!("run-{started}"),
        boot: BootId::new("boot"),
        node: "node-1".into(),
        hooks: "tracepoint".into(),
        started: second(started),
        last_alive: second(last_alive),
        ended_cleanly,
    }
}

#[test]
fn completeness_says_when_nobody_watched() {
    let now = NOW.seconds();
    let reboot = Run {
        boot: BootId::new("next boot"),
        ..run(900, now, false)
    };
    // A container, the runs, (gaps, broken off).
    type Case<'a> = (&'a str, Container, Vec<Run>, &'a str, &'a [i64]);
    let just_died = [now - 5];
    let cases: [Case; 11] = [
        (
            "a crash a moment ago",
            web(1),
            vec![run(90, now - 5, false), run(now - 3, now, false)],
            &format!("{}-{}", now - 5, now - 3),
            &just_died,
        ),
        ("nothing known of runs", web(1), vec![], "", &[]),
        (
            "watched all along",
            web(1),
            vec![run(90, now, false)],
            "",
            &[],
        ),
        (
            "a heartbeat late",
            web(1),
            vec![run(90, now - 9, false)],
            "",
            &[],
        ),
        (
            "a restart",
            web(1),
            vec![run(300, now, false), run(90, 200, true)],
            "200-300",
            &[],
        ),
        (
            "a crash",
            web(1),
            vec![run(90, 200, false), run(300, now, false)],
            "200-300",
            &[200],
        ),
        (
            "stopped since",
            web(1),
            vec![run(90, 200, true)],
            "200-",
            &[],
        ),
        (
            "dead since",
            web(1),
            vec![run(90, 200, false)],
            "200-",
            &[200],
        ),
        (
            "the container ended before the watch did",
            Container {
                ended: Some(second(150)),
                ..web(1)
            },
            vec![run(90, 200, true), run(300, now, false)],
            "",
            &[],
        ),
        (
            "the container began after the gap",
            Container {
                watched_since: second(400),
                ..web(1)
            },
            vec![run(90, 200, false), run(300, now, false)],
            "",
            &[],
        ),
        (
            "the machine went down",
            web(1),
            vec![run(90, 200, false), reboot],
            "",
            &[200],
        ),
    ];
    for (why, container, runs, gaps, broken_off) in cases {
        let containers = [container];
        let facts = Facts {
            containers: &containers,
            runs: &runs,
            ..Facts::default()
        };
        let summary = summary(&facts, |o| o.empty = true);
        let found = &summary.subjects[0].completeness;
        let until = |until: Option<Timestamp>| until.map(|t| t.seconds().to_string());
        let shown: Vec<_> = found
            .gaps
            .iter()
            .map(|g| {
                format!(
                    "{}-{}",
                    g.from.seconds(),
                    until(g.until).unwrap_or_default()
                )
            })
            .collect();
        assert_eq!(shown.join(" "), gaps, "{why}");
        let broken: Vec<_> = found.broken_off.iter().map(|t| t.seconds()).collect();
        assert_eq!(broken, broken_off, "{why}");
        let complete = gaps.is_empty() && broken_off.is_empty();
        assert_eq!(found.is_complete(), complete, "{why}");
    }
}

#[test]
fn completeness_tells_of_retention_and_of_the_past() {
    let containers = [Container {
        present_at_start: true,
        ..web(1)
    }];
    let kept = |at| {
        let facts = Facts {
            containers: &containers,
            kept_since: Some(second(at)),
            ..Facts::default()
        };
        let mut summary = summary(&facts, |o| o.empty = true);
        summary.subjects.remove(0).completeness
    };
    assert_eq!(kept(500).kept_since, Some(second(500)));
    assert!(!kept(500).is_complete());
    assert!(kept(100).is_complete(), "the subject is younger");
    assert!(kept(100).already_running);
    assert_eq!(kept(100).watched_since, second(100));
}

prop_compose! {
    fn any_observation()(
        cgroup in 1..4u64,
        kind in prop::sample::select(Kind::ALL),
        status in prop::sample::select(Status::ALL),
        source in "/bin/[ab]",
        target in prop_oneof!["/(a|b|c){1,2}/[a-f]", "10\\.0\\.0\\.[1-3]"],
        access in prop::sample::select(&[0, 1, 2, 3, 1 << 12, 1 << 9 | 1][..]),
        example in "[ab]{0,1}",
        count in 1..100u64,
        first in 0..500i64,
        age in 0..500i64,
    ) -> Observation {
        Observation {
            container: key(cgroup),
            behaviour: Behaviour {
                status,
                access: Access::from_bits(access),
                ..Behaviour::new(kind, source.as_str().into(), target.as_str().into())
            },
            tally: Tally { count, first: second(first), last: second(first + age) },
            example: example.as_str().into(),
        }
    }
}

proptest! {
    #[test]
    fn order_does_not_matter_and_counts_are_conserved(
        (observations, shuffled) in proptest::collection::vec(any_observation(), 0..40)
            .prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        exact in any::<bool>(),
    ) {
        let endpoints = [
            endpoint("10.0.0.1", "svc/db", 0, None),
            endpoint("10.0.0.2", "svc/db", 100, None),
        ];
        let containers = [web(1), web(2), Container { name: "sidecar".into(), ..web(3) }];
        let mut reversed = containers.clone();
        reversed.reverse();
        let options = SummaryOptions {
            fold: if exact { Fold::None } else { Fold::Auto },
            selection: Selection { statuses: Status::ALL.to_vec(), ..Selection::default() },
            ..SummaryOptions::default()
        };
        let facts = Facts {
            containers: &containers,
            observations: &observations,
            endpoints: &endpoints,
            ..Facts::default()
        };
        let one = summarize(&facts, &options, NOW);
        let other = summarize(
            &Facts { containers: &reversed, observations: &shuffled, ..facts },
            &options,
            NOW,
        );
        prop_assert_eq!(&one, &other);
        for &kind in Kind::ALL {
            let stored: u64 = observations
                .iter()
                .filter(|o| o.behaviour.kind == kind)
                .map(|o| o.tally.count)
                .sum();
            let rows: Vec<_> = one.subjects.iter().flat_map(|s| s.table(kind)).collect();
            prop_assert_eq!(rows.iter().map(|r| r.tally.count).sum::<u64>(), stored);
        }
        let behind: u64 = one.subjects.iter().flat_map(|s| &s.rows).map(|r| r.rows).sum();
        prop_assert_eq!(behind, observations.len() as u64);
    }
}

#[test]
fn what_was_folded_at_the_source_takes_in_what_was_stored_before() {
    let containers = [web(1), web(2)];
    let folded = |cgroup, kind, target: &str, count| {
        with(seen(cgroup, kind, "/bin/a", target, count), |o| {
            o.behaviour.access = Access::FOLDED;
        })
    };
    let peer = |o: &mut Observation| {
        o.behaviour.protocol = Protocol::Tcp;
        o.behaviour.port = 80;
    };
    let observations = [
        seen(1, Kind::File, "/bin/a", "/data/x", 2),
        seen(2, Kind::File, "/bin/a", "/data/y", 3),
        seen(2, Kind::File, "/bin/a", "/data/sub/y", 3),
        folded(1, Kind::File, "/data/*", 100),
        with(seen(1, Kind::Ingress, "/bin/a", "10.1.2.3", 4), peer),
        with(seen(1, Kind::Ingress, "/bin/a", "11.1.2.3", 1), peer),
        with(folded(1, Kind::Ingress, "10.0.0.0/8", 200), peer),
    ];
    let facts = Facts {
        containers: &containers,
        observations: &observations,
        ..Facts::default()
    };
    let exact = summary(&facts, |options| options.fold = Fold::None);
    assert_eq!(
        lines(&exact.subjects[0]),
        [
            "file /bin/a /data/* folded Allow 105",
            "file /bin/a /data/sub/y Allow 3",
            "ingress /bin/a 10.0.0.0/8 folded Allow 204",
            "ingress /bin/a 11.1.2.3 Allow 1",
        ]
    );
    let brief = summary(&facts, |_| {});
    assert_eq!(
        lines(&brief.subjects[0])[0],
        "file /bin/a /data/ folded Allow 108"
    );
}

#[test]
fn a_connection_has_the_names_its_container_was_told_before() {
    let containers = [web(1), web(2)];
    let egress = |cgroup, target: &str, last| {
        let mut observation = seen(cgroup, Kind::Egress, "/bin/curl", target, 1);
        observation.tally.last = second(last);
        observation
    };
    let observations = [
        egress(1, "192.0.2.1", 50),
        egress(1, "192.0.2.2", 50),
        seen(1, Kind::Ingress, "/bin/curl", "192.0.2.1", 1),
        seen(1, Kind::File, "/bin/curl", "192.0.2.1", 1),
    ];
    let told = |cgroup, ip: &str, name: &str, first, last| Resolution {
        container: key(cgroup),
        ip: ip.parse().unwrap(),
        name: name.into(),
        first: second(first),
        last: second(last),
    };
    let mut resolutions = vec![
        told(1, "::ffff:192.0.2.1", "old.example", 10, 20),
        told(1, "192.0.2.1", "new.example", 10, 30),
        told(1, "192.0.2.1", "later.example", 51, 60),
        told(2, "192.0.2.2", "of-the-other.example", 10, 20),
    ];
    for n in 0..20 {
        let name = format!("cdn-{n:02}.example");
        resolutions.push(told(1, "192.0.2.1", &name, 1, 1));
    }
    let names = |resolutions: &[Resolution]| -> Vec<String> {
        let facts = Facts {
            containers: &containers[..1],
            observations: &observations,
            resolutions,
            ..Facts::default()
        };
        let summary = summary(&facts, |_| {});
        let rows = summary.subjects[0].rows.iter();
        rows.map(|row| {
            let names: Vec<_> = row.dns_names.iter().map(Name::as_str).collect();
            format!(
                "{} {}: {}",
                row.behaviour.kind,
                row.behaviour.target,
                names.join(" ")
            )
        })
        .collect()
    };
    let cdn: Vec<_> = (0..6).map(|n| format!("cdn-{n:02}.example")).collect();
    let expected = [
        "file 192.0.2.1: ".to_owned(),
        "ingress 192.0.2.1: ".to_owned(),
        format!(
            "egress 192.0.2.1: new.example old.example {}",
            cdn.join(" ")
        ),
        "egress 192.0.2.2: ".to_owned(),
    ];
    assert_eq!(names(&resolutions), expected);
    resolutions.reverse();
    assert_eq!(names(&resolutions), expected, "in whatever order");
}

#[test]
fn a_name_that_was_lost_is_no_event_that_was_lost() {
    let containers = [web(1)];
    let loss = Loss {
        reason: LossReason::Names,
        count: 3,
    };
    let facts = Facts {
        containers: &containers,
        losses: &[(key(1), loss)],
        ..Facts::default()
    };
    let summary = summary(&facts, |_| {});
    let completeness = &summary.subjects[0].completeness;
    assert_eq!(completeness.losses, [loss]);
    assert_eq!(completeness.lost(), 0);
    assert!(completeness.is_complete());
}
