//! What every store must do, whatever it is made of.

use crate::support::*;
use ethogram_model::{
    Access, Behaviour, BootId, Container, ContainerKey, Endpoint, Kind, Labels, Loss, LossReason,
    Name, Observation, Protocol, Resolution, Run, Runtime, Selection, Status, Tally, Timestamp,
    Workload,
};
use ethogram_store::{Limits, Report, Stats, StoreError};
use proptest::{prelude::*, sample::Index};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::ControlFlow,
    time::Duration,
};

pub(crate) type NewStore = fn() -> Fresh;

/// Makes a module of tests, one per function of this file, for the stores that a function
/// makes: all that any store must pass, and `$more` that not every store can promise.
macro_rules! conformance {
    ($store:ident: $new:path $(, $more:ident)* $(,)?) => {
        conformance!(@each $store: $new;
            $($more,)*
            one_runs_reports_may_come_in_any_order_and_number,
            runs_that_follow_one_another_add_up,
            descriptions_may_come_in_any_order,
            selections_are_obeyed,
            a_container_nobody_described_is_kept,
            known_text_stays_and_an_end_is_final,
            the_earliest_watch_says_whether_it_was_present,
            used_again_cgroup_ids_stay_apart,
            all_fields_come_back,
            counts_saturate,
            endpoints_are_found_by_address,
            names_come_also_from_who_counts_nothing,
            what_name_servers_told_joins_and_goes_with_its_container,
            runs_are_told,
            a_machines_runs_are_found_by_its_boots,
            the_last_sign_of_life_is_found_by_the_beginning_of_an_id,
            stats_count_everything,
            a_visitor_may_break_off,
            age_retention_removes_what_is_old,
            age_retention_forgets_what_nobody_watches,
            size_retention_takes_ended_containers_first,
            size_retention_takes_the_oldest_rows,
            without_limits_nothing_is_removed,
            retention_spares_what_is_reported_meanwhile,
        );
    };
    (@each $store:ident: $new:path; $($test:ident,)+) => {
        mod $store {
            $(#[test] fn $test() { $crate::conformance::$test($new); })+
        }
    };
}

/// One sighting: container, behaviour, loss and tally numbers for the small worlds below.
type Sighting = (u64, usize, Tally);

fn sighting() -> impl Strategy<Value = Sighting> {
    (
        1..4_u64,
        0..8_usize,
        0..1_000_000_u64,
        0..1_000_i64,
        0..1_000_i64,
    )
        .prop_map(|(cgroup, what, count, a, b)| (cgroup, what, tally(count, a.min(b), a.max(b))))
}

fn behaviour(number: usize) -> Behaviour {
    let mut behaviour = opens("/etc/passwd");
    // Each differs from the first in one field, so that no field is left out of the key.
    match number {
        0 => {}
        1 => behaviour.kind = Kind::Egress,
        2 => behaviour.source = "/bin/cat".into(),
        3 => behaviour.target = "/etc/shadow".into(),
        4 => behaviour.protocol = Protocol::Tcp6,
        5 => behaviour.port = 3306,
        6 => behaviour.access = Access::READ | Access::WRITE,
        _ => behaviour.status = Status::Deny,
    }
    behaviour
}

fn observation(&(cgroup, what, tally): &Sighting) -> Observation {
    observed(&key(cgroup), behaviour(what), tally)
}

fn loss(&(cgroup, what, tally): &Sighting) -> (ContainerKey, Loss) {
    let loss = Loss {
        reason: LossReason::ALL[what % LossReason::ALL.len()],
        count: tally.count,
    };
    (key(cgroup), loss)
}

/// A run's sightings as reports: cut anywhere, each sent at least once, in any order.
fn reports(run: &Run, sightings: &[Sighting], cuts: &[Index], again: &[Index]) -> Vec<Report> {
    let mut parts: Vec<&[Sighting]> = vec![sightings];
    for cut in cuts {
        let part = parts.remove(cut.index(parts.len()));
        let (a, b) = part.split_at(cut.index(part.len() + 1));
        parts.extend([b, a]);
    }
    for index in again {
        parts.push(parts[index.index(parts.len())]);
    }
    parts
        .into_iter()
        .map(|part| Report {
            losses: part.iter().map(loss).collect(),
            ..report(run, part.iter().map(observation).collect())
        })
        .collect()
}

type Expected = (Rows, BTreeMap<(ContainerKey, LossReason), u64>);

/// What the model says of runs that follow one another: join within, plus between.
fn expected(runs: &[Vec<Sighting>]) -> Expected {
    let mut rows: BTreeMap<(ContainerKey, Behaviour), Tally> = BTreeMap::new();
    let mut losses = BTreeMap::new();
    for sightings in runs {
        let mut of_run: BTreeMap<_, Tally> = BTreeMap::new();
        let mut losses_of_run: BTreeMap<_, u64> = BTreeMap::new();
        for sighting in sightings {
            let o = observation(sighting);
            of_run
                .entry((o.container, o.behaviour))
                .and_modify(|known| *known = known.join(o.tally))
                .or_insert(o.tally);
            let (key, loss) = loss(sighting);
            let count = losses_of_run.entry((key, loss.reason)).or_default();
            *count = loss.count.max(*count);
        }
        for (what, tally) in of_run {
            rows.entry(what)
                .and_modify(|known| *known = known.plus(tally))
                .or_insert(tally);
        }
        for (what, count) in losses_of_run {
            *losses.entry(what).or_default() += count;
        }
    }
    let rows = rows
        .into_iter()
        .map(|(what, t)| (what, (t.count, t.first.0, t.last.0)))
        .collect();
    (rows, losses)
}

fn some_indices() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..6)
}

fn few_cases() -> ProptestConfig {
    // Each case makes files and syncs them.
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(64)
    }
}

pub(crate) fn one_runs_reports_may_come_in_any_order_and_number(new: NewStore) {
    let sightings = prop::collection::vec(sighting(), 0..60).prop_shuffle();
    proptest!(few_cases(), |(sightings in sightings, cuts in some_indices(), again in some_indices())| {
        let Fresh { store, _place } = new();
        for report in reports(&run("a"), &sightings, &cuts, &again) {
            store.apply(&report).unwrap();
        }
        prop_assert_eq!((rows(&*store), losses(&*store)), expected(&[sightings]));
    });
}

pub(crate) fn runs_that_follow_one_another_add_up(new: NewStore) {
    let one_run = (
        prop::collection::vec(sighting(), 0..30),
        some_indices(),
        some_indices(),
    );
    proptest!(few_cases(), |(runs in prop::collection::vec(one_run, 1..4))| {
        let Fresh { store, _place } = new();
        for (number, (sightings, cuts, again)) in runs.iter().enumerate() {
            for report in reports(&run(&format!("run {number}")), sightings, cuts, again) {
                store.apply(&report).unwrap();
            }
        }
        let sightings: Vec<_> = runs.into_iter().map(|(sightings, ..)| sightings).collect();
        prop_assert_eq!((rows(&*store), losses(&*store)), expected(&sightings));
    });
}

/// A container of which only what `known` has bits for is known.
fn partly_known(known: u16) -> Container {
    let has = |bit: u16| known & 1 << bit != 0;
    let text = |bit, value: &str| {
        if has(bit) {
            value.to_owned()
        } else {
            String::new()
        }
    };
    let mut container = Container::unknown(key(7), Name::from(&*text(0, "/c")), Timestamp(5));
    container.node = text(1, "n");
    container.id = text(2, "0123456789abcdef");
    container.name = text(3, "web");
    container.image = text(4, "php:8");
    container.namespace = text(5, "dvwa");
    container.pod = text(6, "web-0");
    container.pod_uid = text(7, "u-1");
    if has(8) {
        container.workload = Workload {
            kind: "deployment".into(),
            name: "web".into(),
        };
    }
    if has(9) {
        container.labels = Labels::from([("app".into(), "we\"b".into())]);
    }
    if has(10) {
        container.runtime = Runtime::CriO;
    }
    container.ended = has(11).then_some(Timestamp(99));
    container.present_at_start = has(12);
    container
}

pub(crate) fn descriptions_may_come_in_any_order(new: NewStore) {
    // The node is always known: whoever reports says on which it runs.
    let masks = prop::collection::vec((0..1_u16 << 13).prop_map(|mask| mask | 2), 1..6);
    proptest!(few_cases(), |(masks in masks, counted_before in any::<bool>())| {
        let Fresh { store, _place } = new();
        if counted_before {
            let o = observed(&key(7), opens("/x"), tally(1, 6, 6));
            store.apply(&report(&run("a"), vec![o])).unwrap();
        }
        for &mask in &masks {
            let containers = vec![partly_known(mask)];
            store.apply(&Report { containers, ..Report::empty(run("a")) }).unwrap();
        }
        let all = masks.iter().fold(0, |all, mask| all | mask);
        // The run's node name is all that is known of a container that was only counted,
        // and the description's comes after it.
        let kept = store.containers(&Selection::default()).unwrap();
        prop_assert_eq!(kept.len(), 1);
        prop_assert_eq!(&kept[0].container, &partly_known(all));
        prop_assert_eq!(kept[0].history_since, None);
    });
}

fn selection() -> impl Strategy<Value = Selection> {
    fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
        prop::option::weighted(0.3, prop::sample::select(words).prop_map(str::to_owned))
    }
    let time = || prop::option::weighted(0.3, (0..1_000_i64).prop_map(Timestamp));
    (
        (
            one_of(&["dvwa", "kube-system", "dv*", "none"]),
            one_of(&["web-1", "web*", "db-2"]),
            one_of(&["node-1", "node-2"]),
            one_of(&["deployment/web", "db", "statefulset/db"]),
        ),
        prop::sample::subsequence(Kind::ALL.to_vec(), 0..3),
        prop::sample::subsequence(Status::ALL.to_vec(), 0..3),
        one_of(&["/usr/bin/php", "/bin*", "/usr*"]),
        (time(), time()),
        any::<bool>(),
    )
        .prop_map(
            |(
                (namespace, pod, node, workload),
                kinds,
                statuses,
                source,
                (since, until),
                labelled,
            )| Selection {
                namespace,
                labels: if labelled {
                    Labels::from([("app".into(), "web".into())])
                } else {
                    Labels::new()
                },
                pod,
                container: None,
                workload,
                node,
                kinds,
                statuses,
                source,
                since,
                until,
            },
        )
}

pub(crate) fn selections_are_obeyed(new: NewStore) {
    let containers: Vec<Container> = (1..7)
        .map(|n| {
            let name = if n % 2 == 1 { "web" } else { "db" };
            let mut container = container(
                n,
                ["dvwa", "kube-system", ""][n as usize % 3],
                &format!("{name}-{n}"),
            );
            container.node = format!("node-{}", n % 2 + 1);
            container.workload = Workload {
                kind: "deployment".into(),
                name: name.into(),
            };
            container.labels = Labels::from([("app".into(), name.into())]);
            container
        })
        .collect();
    let observations: Vec<Observation> = containers
        .iter()
        .flat_map(|container| {
            (0..32).map(|n: usize| {
                let kind = Kind::ALL[n % Kind::ALL.len()];
                let source = ["/usr/bin/php", "/bin/cat", "/usr/sbin/x"][n % 3];
                let status = Status::ALL[n % Status::ALL.len()];
                let what = Behaviour::new(kind, source.into(), Name::from(&*format!("/t{n}")));
                let first = 37 * n as i64 % 1_000;
                observed(
                    &container.key,
                    with_status(what, status),
                    tally(1, first, first + 100),
                )
            })
        })
        .collect();
    let Fresh { store, _place } = new();
    store
        .apply(&Report {
            containers: containers.clone(),
            ..report(&run("a"), observations.clone())
        })
        .unwrap();
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) }, |(selection in selection())| {
        let selected: BTreeSet<_> = containers.iter().filter(|c| selection.selects(c)).map(|c| c.key.clone()).collect();
        let wanted: BTreeSet<_> = observations
            .iter()
            .filter(|o| selected.contains(&o.container) && selection.selects_observation(o))
            .map(|o| (o.container.clone(), o.behaviour.clone()))
            .collect();
        let got = store.all_observations(&selection).unwrap();
        let keys: BTreeSet<_> = store.containers(&selection).unwrap().into_iter().map(|k| k.container.key).collect();
        prop_assert_eq!(keys, selected);
        prop_assert_eq!(got.len(), wanted.len());
        prop_assert_eq!(got.into_iter().map(|o| (o.container, o.behaviour)).collect::<BTreeSet<_>>(), wanted);
    });
}

pub(crate) fn an_older_run_is_refused_whole(new: NewStore) {
    let Fresh { store, _place } = new();
    let (old, young) = (run("old"), run("young"));
    let one = |count| observed(&key(1), opens("/a"), tally(count, 1, 2));
    store.apply(&report(&old, vec![one(10)])).unwrap();
    store.apply(&report(&young, vec![one(5)])).unwrap();
    let before = rows(&*store);

    let other = observed(&key(2), opens("/b"), tally(1, 1, 1));
    let mut late_loss = report(&old, vec![other.clone()]);
    late_loss.losses.push((
        key(1),
        Loss {
            reason: LossReason::RingFull,
            count: 3,
        },
    ));
    let mut late_container = report(&old, vec![other]);
    late_container.containers.push(container(1, "dvwa", "web"));
    for late in [report(&old, vec![one(11)]), late_loss, late_container] {
        let error = store.apply(&late).unwrap_err();
        assert!(
            matches!(&error, StoreError::SupersededRun { run, container } if run == "old" && **container == key(1)),
            "{error:?}"
        );
    }
    assert_eq!(rows(&*store), before);
    assert!(losses(&*store).is_empty());
    assert_eq!(before.values().next(), Some(&(15, 1, 2)));

    // A container that only the older run knows is still its own.
    store
        .apply(&report(
            &old,
            vec![observed(&key(3), opens("/c"), tally(1, 1, 1))],
        ))
        .unwrap();
    assert_eq!(rows(&*store).len(), 2);
}

pub(crate) fn a_container_nobody_described_is_kept(new: NewStore) {
    let Fresh { store, _place } = new();
    store
        .apply(&report(
            &run("a"),
            vec![observed(&key(1), opens("/a"), tally(1, 1_500, 1_500))],
        ))
        .unwrap();
    let kept = store.containers(&Selection::default()).unwrap();
    let mut nameless = Container::unknown(key(1), Name::default(), run("a").started);
    nameless.node = "node-1".into();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].container, nameless);
}

pub(crate) fn known_text_stays_and_an_end_is_final(new: NewStore) {
    let Fresh { store, _place } = new();
    let apply = |container: Container| {
        store
            .apply(&Report {
                containers: vec![container],
                ..Report::empty(run("a"))
            })
            .unwrap();
    };
    let mut known = partly_known(u16::MAX);
    apply(known.clone());
    apply(partly_known(0));
    let mut later = partly_known(u16::MAX);
    later.name = "renamed".into();
    later.ended = Some(Timestamp(1));
    apply(later);
    known.name = "renamed".into();
    assert_eq!(
        store.containers(&Selection::default()).unwrap()[0].container,
        known
    );
}

pub(crate) fn the_earliest_watch_says_whether_it_was_present(new: NewStore) {
    let Fresh { store, _place } = new();
    let watched = |since, present| {
        let mut container = container(1, "dvwa", "web");
        container.watched_since = Timestamp(since);
        container.present_at_start = present;
        container
    };
    // The first agent saw it start; the second one found it running.
    for (id, container) in [("a", watched(100, false)), ("b", watched(200, true))] {
        store
            .apply(&Report {
                containers: vec![container],
                ..Report::empty(run(id))
            })
            .unwrap();
    }
    assert_eq!(
        store.containers(&Selection::default()).unwrap()[0].container,
        watched(100, false)
    );
}

pub(crate) fn used_again_cgroup_ids_stay_apart(new: NewStore) {
    let Fresh { store, _place } = new();
    let again = ContainerKey {
        incarnation: 1,
        ..key(1)
    };
    let other_boot = ContainerKey {
        boot: BootId::new("boot-2"),
        ..key(1)
    };
    let highest = ContainerKey {
        incarnation: u32::MAX,
        ..key(u64::MAX)
    };
    let keys = [key(1), again, other_boot, highest];
    let observations = keys
        .iter()
        .zip(1..)
        .map(|(key, n)| observed(key, opens("/a"), tally(n, 1, 1)))
        .collect();
    store.apply(&report(&run("a"), observations)).unwrap();
    let rows = rows(&*store);
    let counts: Vec<u64> = keys
        .iter()
        .map(|key| rows[&(key.clone(), opens("/a"))].0)
        .collect();
    assert_eq!(counts, [1, 2, 3, 4]);
    assert_eq!(store.containers(&Selection::default()).unwrap().len(), 4);
}

pub(crate) fn all_fields_come_back(new: NewStore) {
    let Fresh { store, _place } = new();
    let all: Vec<Observation> = Kind::ALL
        .iter()
        .flat_map(|&kind| Status::ALL.iter().map(move |&status| (kind, status)))
        .flat_map(|(kind, status)| {
            Protocol::ALL
                .iter()
                .map(move |&protocol| (kind, status, protocol))
        })
        .map(|(kind, status, protocol)| Observation {
            container: key(1),
            behaviour: Behaviour {
                kind,
                source: Name::from_bytes(b"/bin/\x1b[31m\xff' \"; DROP TABLE text"),
                target: Name::from_bytes(&[b'/'; 4096]),
                protocol,
                port: u16::MAX,
                access: Access::from_bits(u16::MAX),
                status,
            },
            tally: tally(3, i64::MIN, i64::MAX),
            example: Name::from_bytes(b"sh -c 'a\nb'"),
        })
        .collect();
    store.apply(&report(&run("a"), all.clone())).unwrap();
    let mut got = store.all_observations(&everything()).unwrap();
    let mut wanted = all;
    got.sort_by(|a, b| a.behaviour.cmp(&b.behaviour));
    wanted.sort_by(|a, b| a.behaviour.cmp(&b.behaviour));
    assert_eq!(got, wanted);

    // The example of a row is its first; a later one does not replace it.
    let mut later = wanted[0].clone();
    later.tally.first = Timestamp(0);
    later.example = "later".into();
    store
        .apply(&report(&run("b"), vec![later.clone()]))
        .unwrap();
    let got = store.all_observations(&everything()).unwrap();
    let row = got.iter().find(|o| o.behaviour == later.behaviour).unwrap();
    assert_eq!((row.tally.count, &row.example), (6, &wanted[0].example));
}

pub(crate) fn counts_saturate(new: NewStore) {
    let Fresh { store, _place } = new();
    let most = |what| observed(&key(1), opens(what), tally(u64::MAX, 1, 1));
    for id in ["a", "b", "c", "d"] {
        let losses = vec![(
            key(1),
            Loss {
                reason: LossReason::Store,
                count: u64::MAX,
            },
        )];
        store
            .apply(&Report {
                losses,
                ..report(&run(id), vec![most("/a"), most("/b")])
            })
            .unwrap();
    }
    let highest = (1_u64 << 63) - 2;
    assert!(rows(&*store).values().all(|row| row.0 == highest));
    assert!(losses(&*store).values().all(|&count| count == highest));
    assert_eq!(store.stats(&everything()).unwrap()[0].1.events, 2 * highest);
}

pub(crate) fn names_come_also_from_who_counts_nothing(new: NewStore) {
    let Fresh { store, _place } = new();
    let count = |run_id: &str, count| {
        let rows = vec![observed(&key(1), opens("/a"), tally(count, 1, 2))];
        store.apply(&Report {
            containers: vec![container(1, "shop", "web-1")],
            ..report(&run(run_id), rows)
        })
    };
    count("a", 5).unwrap();
    let mut named = container(1, "shop", "web-1");
    named.workload = Workload {
        kind: "deployment".into(),
        name: "web".into(),
    };
    named.labels = Labels::from([("app".into(), "web".into())]);
    let service = Endpoint {
        ip: "10.96.0.9".parse().unwrap(),
        name: "svc/web".into(),
        namespace: "shop".into(),
        labels: Labels::new(),
        from: Timestamp(1),
        until: None,
    };
    let stranger = container(2, "shop", "web-2");
    for _again in 0..2 {
        store
            .describe(
                &[named.clone(), stranger.clone()],
                std::slice::from_ref(&service),
            )
            .unwrap();
    }
    // The run that counts it goes on doing so, and adds no text that it does not know.
    count("a", 7).unwrap();
    let kept: Vec<_> = store.containers(&Selection::default()).unwrap();
    let kept: Vec<_> = kept.into_iter().map(|kept| kept.container).collect();
    assert_eq!(kept, [named], "and nobody is known by being described");
    let counted: Vec<u64> = rows(&*store).values().map(|(count, ..)| *count).collect();
    assert_eq!(counted, [7]);
    assert_eq!(store.endpoints(None).unwrap(), [service]);
    let runs: Vec<_> = store
        .runs()
        .unwrap()
        .into_iter()
        .map(|run| run.id)
        .collect();
    assert_eq!(runs, ["a"]);
}

pub(crate) fn what_name_servers_told_joins_and_goes_with_its_container(new: NewStore) {
    let Fresh { store, _place } = new();
    let told = |cgroup, ip: &str, name: &str, first, last| Resolution {
        container: key(cgroup),
        ip: ip.parse().unwrap(),
        name: Name::from_escaped(name),
        first: Timestamp(first),
        last: Timestamp(last),
    };
    let apply = |run_id: &str, resolutions: &[Resolution]| {
        let mut over = container(2, "shop", "over");
        over.ended = Some(Timestamp(50));
        let mut egress = opens("192.0.2.1");
        egress.kind = Kind::Egress;
        let report = Report {
            containers: vec![container(1, "dvwa", "web"), over],
            resolutions: resolutions.to_vec(),
            ..report(
                &run(run_id),
                vec![observed(&key(1), egress, tally(1, 1, 900))],
            )
        };
        store.apply(&report).unwrap();
    };
    let all = |selection: &Selection| {
        let mut all = store.resolutions(selection).unwrap();
        all.sort_by_key(|r| (r.container.clone(), r.ip, r.name.clone()));
        all
    };
    let hostile = r"it\x27s\\not.example";
    apply(
        "a",
        &[
            told(1, "192.0.2.1", "a.example", 10, 20),
            told(1, "192.0.2.1", "b.example", 10, 10),
            told(1, "2001:db8::1", hostile, 10, 10),
            told(2, "192.0.2.1", "a.example", 10, 40),
            told(3, "192.0.2.9", "nobody.example", 10, 600),
        ],
    );
    // Later, earlier, and again, by the same run and by the next.
    apply("a", &[told(1, "192.0.2.1", "a.example", 15, 30)]);
    apply("b", &[told(1, "192.0.2.1", "a.example", 5, 7)]);
    apply("b", &[told(1, "192.0.2.1", "a.example", 5, 7)]);
    let of_web = [
        told(1, "192.0.2.1", "a.example", 5, 30),
        told(1, "192.0.2.1", "b.example", 10, 10),
        told(1, "2001:db8::1", hostile, 10, 10),
    ];
    let dvwa = Selection {
        namespace: Some("dvwa".into()),
        kinds: vec![Kind::File],
        since: Some(Timestamp(5_000)),
        ..Selection::default()
    };
    assert_eq!(all(&dvwa), of_web, "whatever is selected of the rows");
    assert_eq!(
        all(&everything()).len(),
        5,
        "one container was never described"
    );

    // What is old goes, but for what a row still wants.
    let removed = store.retain(&nanoseconds(500), Timestamp(1_000)).unwrap();
    assert_eq!(removed.resolutions, 2, "{removed:?}");
    let mut left = of_web[..2].to_vec();
    left.push(told(3, "192.0.2.9", "nobody.example", 10, 600));
    assert_eq!(all(&everything()), left);
}

pub(crate) fn endpoints_are_found_by_address(new: NewStore) {
    let Fresh { store, _place } = new();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let endpoint = |address: &str, name: &str, from, until: Option<i64>| Endpoint {
        ip: ip(address),
        name: name.into(),
        namespace: "dvwa".into(),
        labels: Labels::from([("app".into(), name.into())]),
        from: Timestamp(from),
        until: until.map(Timestamp),
    };
    let first = endpoint("10.0.0.1", "pod/web", 10, Some(20));
    let second = endpoint("10.0.0.1", "pod/db", 30, None);
    let six = endpoint("fd00::1", "pod/six", 5, None);
    let open = Endpoint {
        until: None,
        ..first.clone()
    };
    let bare = Endpoint {
        until: Some(Timestamp(99)),
        labels: Labels::new(),
        ..first.clone()
    };
    for endpoints in [
        vec![second.clone(), open.clone()],
        vec![first.clone(), six.clone()],
        vec![open, bare],
    ] {
        store
            .apply(&Report {
                endpoints,
                ..Report::empty(run("a"))
            })
            .unwrap();
    }
    assert_eq!(
        store.endpoints(None).unwrap(),
        [first.clone(), second.clone(), six.clone()]
    );
    assert_eq!(
        store.endpoints(Some(&[ip("10.0.0.1")])).unwrap(),
        [first, second]
    );
    assert_eq!(
        store
            .endpoints(Some(&[ip("fd00::1"), ip("10.9.9.9")]))
            .unwrap(),
        [six]
    );
    assert_eq!(store.endpoints(Some(&[])).unwrap(), []);
}

pub(crate) fn a_machines_runs_are_found_by_its_boots(new: NewStore) {
    let Fresh { store, _place } = new();
    let on = |id: &str, boot: &str, node: &str| Run {
        id: id.into(),
        boot: BootId::new(boot),
        node: node.into(),
        ..run(id)
    };
    let runs = [
        on("a", "boot-1", "node'1"),
        on("b", "boot-2", "node-2"),
        on("c", "boot-3", "node'1"),
        on("d", "", ""),
    ];
    for run in &runs {
        store.apply(&Report::empty(run.clone())).unwrap();
    }
    let found = |boots: &[&str]| -> Vec<String> {
        let boots: Vec<BootId> = boots.iter().map(|boot| BootId::new(boot)).collect();
        let boots: Vec<&BootId> = boots.iter().collect();
        let runs = store.runs_around(&boots).unwrap();
        runs.into_iter().map(|run| run.id).collect()
    };
    assert_eq!(found(&["boot-1"]), ["a", "c"], "an earlier boot's too");
    assert_eq!(found(&["boot-2", "boot-3"]), ["a", "b", "c"]);
    assert_eq!(found(&["boot-4"]), [""; 0]);
    assert_eq!(found(&[]), [""; 0]);
}

pub(crate) fn the_last_sign_of_life_is_found_by_the_beginning_of_an_id(new: NewStore) {
    let Fresh { store, _place } = new();
    for (id, alive) in [("x/a'1/", 5), ("x/a'1/b", 9), ("x/a'1/c", 7), ("x/a'2", 11)] {
        let run = Run {
            last_alive: Timestamp(alive),
            ..run(id)
        };
        store.apply(&Report::empty(run)).unwrap();
    }
    let alive = |prefix: &str| store.last_alive(prefix).unwrap();
    assert_eq!(alive("x/a'1/"), Some(Timestamp(9)));
    assert_eq!(alive("x/"), Some(Timestamp(11)));
    assert_eq!(alive("y"), None);
}

pub(crate) fn runs_are_told(new: NewStore) {
    let Fresh { store, _place } = new();
    let alive = |id: &str, last_alive, ended_cleanly| Run {
        last_alive: Timestamp(last_alive),
        ended_cleanly,
        ..run(id)
    };
    for run in [
        alive("b", 50, false),
        alive("a", 10, false),
        alive("b", 70, true),
        alive("b", 60, false),
    ] {
        store.apply(&Report::empty(run)).unwrap();
    }
    assert_eq!(
        store.runs().unwrap(),
        [alive("b", 70, true), alive("a", 10, false)]
    );
}

pub(crate) fn stats_count_everything(new: NewStore) {
    let Fresh { store, _place } = new();
    let failed = observed(
        &key(1),
        with_status(opens("/a"), Status::Failed),
        tally(5, 1, 9),
    );
    let fine = observed(&key(1), opens("/a"), tally(7, 1, 3));
    let containers = vec![
        container(1, "dvwa", "web"),
        container(2, "dvwa", "idle"),
        container(3, "x", "y"),
    ];
    store
        .apply(&Report {
            containers,
            ..report(&run("a"), vec![failed, fine])
        })
        .unwrap();
    let dvwa = Selection {
        namespace: Some("dvwa".into()),
        ..Selection::default()
    };
    let busy = Stats {
        rows: 2,
        events: 12,
        last_seen: Some(Timestamp(9)),
    };
    assert_eq!(
        store.stats(&dvwa).unwrap(),
        [(key(1), busy), (key(2), Stats::default())]
    );
    let overview = store.overview().unwrap();
    assert_eq!((overview.containers, overview.history_since), (3, None));
    assert!(overview.bytes > 0);
}

pub(crate) fn a_visitor_may_break_off(new: NewStore) {
    let Fresh { store, _place } = new();
    let many = (0..100)
        .map(|n| observed(&key(n % 3), opens(&format!("/{n}")), tally(1, 1, 1)))
        .collect();
    store.apply(&report(&run("a"), many)).unwrap();
    let mut visits = 0;
    store
        .observations(&everything(), &mut |_| {
            visits += 1;
            if visits == 40 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .unwrap();
    assert_eq!(visits, 40);
}

fn nanoseconds(ns: u64) -> Limits {
    Limits {
        age_max: Some(Duration::from_nanos(ns)),
        bytes_max: None,
    }
}

pub(crate) fn age_retention_removes_what_is_old(new: NewStore) {
    let Fresh { store, _place } = new();
    let mut over = container(2, "dvwa", "over");
    over.ended = Some(Timestamp(400));
    let mut just_over = container(3, "dvwa", "just-over");
    just_over.ended = Some(Timestamp(600));
    // More rows than one step looks at, old and young ones mixed.
    let mixed = (0..10_000).map(|n| {
        observed(
            &key(1),
            opens(&format!("/{n}")),
            tally(1, 1, if n % 3 == 0 { 499 } else { 500 }),
        )
    });
    let of_over = (0..10).map(|n| observed(&key(2), opens(&format!("/{n}")), tally(1, 1, 400)));
    let young = observed(&key(4), opens("/young"), tally(1, 1, 900));
    let containers = vec![
        container(1, "dvwa", "lives"),
        over,
        just_over,
        container(4, "dvwa", "young"),
    ];
    let observations = mixed.chain(of_over).chain([young]).collect();
    let losses = vec![(
        key(2),
        Loss {
            reason: LossReason::RingFull,
            count: 1,
        },
    )];
    let living = Run {
        last_alive: Timestamp(1_000),
        ..run("a")
    };
    store
        .apply(&Report {
            containers,
            losses,
            ..report(&living, observations)
        })
        .unwrap();

    let removed = store.retain(&nanoseconds(500), Timestamp(1_000)).unwrap();
    assert_eq!(
        (removed.rows, removed.containers, removed.runs),
        (3_334 + 10, 1, 0)
    );
    assert!(rows(&*store).iter().all(|(_, &(_, _, last))| last >= 500));
    assert_eq!(rows(&*store).len(), 6_666 + 1);
    let kept = store.containers(&Selection::default()).unwrap();
    let told: Vec<_> = kept
        .iter()
        .map(|k| (k.container.key.cgroup, k.history_since))
        .collect();
    assert_eq!(told, [(1, Some(Timestamp(500))), (3, None), (4, None)]);
    assert!(losses_is_empty(&*store));
    assert_eq!(
        store.overview().unwrap().history_since,
        Some(Timestamp(401))
    );
    // Nothing is left to do, and what is removed can happen again.
    let again = store.retain(&nanoseconds(500), Timestamp(1_000)).unwrap();
    assert_eq!((again.rows, again.containers), (0, 0));
    store
        .apply(&report(
            &living,
            vec![observed(&key(1), opens("/0"), tally(2, 1, 1_000))],
        ))
        .unwrap();
    assert_eq!(rows(&*store)[&(key(1), opens("/0"))], (2, 1, 1_000));
}

fn losses_is_empty(store: &dyn ethogram_store::Store) -> bool {
    losses(store).is_empty()
}

pub(crate) fn age_retention_forgets_what_nobody_watches(new: NewStore) {
    let Fresh { store, _place } = new();
    let endpoint = |name: &str, from, until: Option<i64>| Endpoint {
        ip: "10.0.0.1".parse().unwrap(),
        name: name.into(),
        namespace: String::new(),
        labels: Labels::new(),
        from: Timestamp(from),
        until: until.map(Timestamp),
    };
    // Never said to have ended, by an agent that is no more; its address is another's now.
    let dead = Run {
        last_alive: Timestamp(100),
        ..run("dead")
    };
    let observations = vec![observed(&key(1), opens("/a"), tally(1, 50, 90))];
    let endpoints = vec![
        endpoint("pod/ended", 1, Some(30)),
        endpoint("pod/replaced", 40, None),
    ];
    let containers = vec![container(1, "dvwa", "orphan")];
    store
        .apply(&Report {
            containers,
            endpoints,
            ..report(&dead, observations)
        })
        .unwrap();
    let living = Run {
        last_alive: Timestamp(1_000),
        ..run("living")
    };
    let idle = vec![container(2, "dvwa", "idle")];
    let holds = endpoint("pod/holds", 100, None);
    store
        .apply(&Report {
            containers: idle,
            endpoints: vec![holds.clone()],
            ..Report::empty(living.clone())
        })
        .unwrap();

    let removed = store.retain(&nanoseconds(500), Timestamp(1_000)).unwrap();
    assert_eq!(
        (
            removed.rows,
            removed.containers,
            removed.endpoints,
            removed.runs
        ),
        (1, 1, 2, 1)
    );
    assert_eq!(store.endpoints(None).unwrap(), [holds]);
    assert_eq!(store.runs().unwrap(), [living]);
    let kept = store.containers(&Selection::default()).unwrap();
    assert_eq!(kept.len(), 1, "an idle container that is watched stays");
    assert_eq!(kept[0].container.pod, "idle");
}

/// Rows of a container with long names, the age of each being its number.
fn wide_rows(cgroup: u64, count: i64, oldest: i64) -> Vec<Observation> {
    (0..count)
        .map(|n| {
            // Ages are scattered over the table, as they are in life.
            let path = format!(
                "/var/lib/{:04}/{cgroup}/a/rather/long/path/to/some/file/{n}",
                n * 7_919 % 10_000
            );
            observed(&key(cgroup), opens(&path), tally(1, 1, oldest + n))
        })
        .collect()
}

pub(crate) fn size_retention_takes_ended_containers_first(new: NewStore) {
    let Fresh { store, _place } = new();
    for n in 1..=8 {
        let mut container = container(n, "dvwa", "web");
        // Two live, though their rows are the oldest; of the others the last began first.
        container.ended = (n > 2).then_some(Timestamp(1_000_000 - n as i64));
        store
            .apply(&Report {
                containers: vec![container],
                ..report(&run("a"), wide_rows(n, 4_000, n as i64))
            })
            .unwrap();
    }
    store.retain(&Limits::default(), Timestamp(0)).unwrap();
    let full = store.overview().unwrap().bytes;
    let limits = Limits {
        age_max: None,
        bytes_max: Some(full / 2),
    };
    let removed = store.retain(&limits, Timestamp(2_000_000)).unwrap();
    let left: Vec<u64> = store
        .containers(&everything())
        .unwrap()
        .iter()
        .map(|k| k.container.key.cgroup)
        .collect();
    assert!(removed.containers >= 4, "{removed:?}");
    assert_eq!(
        left,
        (1..=8 - removed.containers).collect::<Vec<_>>(),
        "the earliest end goes first"
    );
    assert_eq!(removed.rows, removed.containers * 4_000);
    assert_eq!(rows(&*store).len() as u64, 32_000 - removed.rows);
    let gone_last = 8 - removed.containers as i64 + 1;
    let overview = store.overview().unwrap();
    assert_eq!(
        overview.history_since,
        Some(Timestamp(1_000_000 - gone_last + 1))
    );
    assert!(removed.bytes > full / 3, "{removed:?} of {full}");
    // What lives is whole.
    assert!(
        store
            .containers(&everything())
            .unwrap()
            .iter()
            .all(|k| k.history_since.is_none())
    );
}

pub(crate) fn size_retention_takes_the_oldest_rows(new: NewStore) {
    let Fresh { store, _place } = new();
    for n in 1..=4 {
        let containers = vec![container(n, "dvwa", "web")];
        store
            .apply(&Report {
                containers,
                ..report(&run("a"), wide_rows(n, 8_000, 1))
            })
            .unwrap();
    }
    store.retain(&Limits::default(), Timestamp(0)).unwrap();
    let full = store.overview().unwrap().bytes;
    let limits = Limits {
        age_max: None,
        bytes_max: Some(full / 2),
    };
    let removed = store.retain(&limits, Timestamp(2_000_000)).unwrap();
    let left = rows(&*store);
    let oldest = left.values().map(|row| row.2).min().unwrap();
    // Exactly the youngest are left, and each container says so.
    assert_eq!(left.len() as i64, 4 * (8_000 - oldest + 1));
    assert_eq!(removed.rows + left.len() as u64, 32_000);
    for kept in store.containers(&everything()).unwrap() {
        assert_eq!(kept.history_since, Some(Timestamp(oldest)));
    }
    assert!(
        left.len() > 8_000,
        "removed far more than needed: {} left",
        left.len()
    );
    assert!(removed.bytes > full / 3, "{removed:?} of {full}");
    let again = store.retain(&limits, Timestamp(2_000_000)).unwrap();
    assert_eq!(again.rows, 0, "one call is enough");
}

pub(crate) fn without_limits_nothing_is_removed(new: NewStore) {
    let Fresh { store, _place } = new();
    store
        .apply(&report(&run("a"), wide_rows(1, 100, 0)))
        .unwrap();
    let before = rows(&*store);
    let roomy = Limits {
        age_max: Some(Duration::MAX),
        bytes_max: Some(u64::MAX),
    };
    for limits in [Limits::default(), roomy] {
        let removed = store.retain(&limits, Timestamp(i64::MAX)).unwrap();
        assert_eq!((removed.rows, removed.containers, removed.runs), (0, 0, 0));
    }
    assert_eq!(rows(&*store), before);
}

pub(crate) fn retention_spares_what_is_reported_meanwhile(new: NewStore) {
    const ROUNDS: u64 = 60;
    let Fresh { store, _place } = new();
    let store = &*store;
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            for round in 0..ROUNDS {
                // Names leave the store and come back a few rounds later.
                let batch = (0..200).map(|n| {
                    let path = format!("/{}", (round % 5) * 200 + n);
                    observed(
                        &key(round % 3),
                        opens(&path),
                        tally(round + 1, 0, round as i64),
                    )
                });
                store.apply(&report(&run("a"), batch.collect())).unwrap();
            }
        });
        let mut now = 0;
        while !writer.is_finished() {
            store
                .retain(&nanoseconds(2), Timestamp(now % ROUNDS as i64))
                .unwrap();
            now += 1;
        }
        writer.join().unwrap();
    });
    // Every row has its names, and the last rounds are there.
    let rows = rows(store);
    for round in ROUNDS - 2..ROUNDS {
        let path = format!("/{}", (round % 5) * 200);
        assert_eq!(rows[&(key(round % 3), opens(&path))].2, round as i64);
    }
}
