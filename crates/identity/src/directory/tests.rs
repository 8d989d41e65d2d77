use super::*;
use crate::facts::{SANDBOX_NAME, Source};
use proptest::prelude::*;

const A: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const SECOND: i64 = NS_PER_S;

fn at(seconds: i64) -> Timestamp {
    Timestamp(seconds * SECOND)
}

fn docker(id: &str) -> Vec<u8> {
    format!("/docker/{id}").into_bytes()
}

fn directory(scope: Scope, best: Hierarchy) -> Directory {
    Directory::new(BootId::new("boot"), "node1".into(), scope, best)
}

fn containers_only() -> Directory {
    directory(Scope::machine(false), Hierarchy::V2)
}

fn facts(id: &str, name: &str) -> Facts {
    Facts {
        id: id.into(),
        runtime: Runtime::Docker,
        name: name.into(),
        ..Facts::default()
    }
}

fn memory(id: u64) -> u64 {
    Hierarchy::Memory.tagged(id)
}

fn pids(id: u64) -> u64 {
    Hierarchy::Pids.tagged(id)
}

#[test]
fn a_name_that_comes_after_the_cgroup_is_a_change() {
    let mut table = containers_only();
    table.appeared(7, &docker(A), at(1), false);
    let first = table.changed();
    assert_eq!(
        (first.len(), first[0].name.as_str(), first[0].id.as_str()),
        (1, "", A)
    );
    assert_eq!(first[0].node, "node1");
    assert_eq!(table.unnamed(at(1)), 1);
    table.told(&facts(A, "web"), at(2));
    assert_eq!(table.changed()[0].name, "web");
    assert_eq!(table.unnamed(at(2)), 0);
    table.told(&facts(A, "web"), at(3));
    assert!(table.changed().is_empty(), "nothing new was told");
    assert_eq!(table.container_of(7).unwrap().name, "web");
}

#[test]
fn a_name_that_comes_before_the_cgroup_or_after_its_end_is_used() {
    let mut table = containers_only();
    table.told(&facts(A, "quick"), at(1));
    table.appeared(7, &docker(A), at(2), false);
    table.gone(7, at(2));
    let ended = table.changed();
    assert_eq!(
        (ended[0].name.as_str(), ended[0].ended),
        ("quick", Some(at(2)))
    );

    let late = A.replace('0', "f");
    table.appeared(8, &docker(&late), at(3), false);
    table.gone(8, at(3));
    table.tick(at(4));
    assert_eq!(table.unnamed(at(4)), 1, "the dead are worth a name too");
    table.told(&facts(&late, "late"), at(4));
    assert_eq!(
        table
            .changed()
            .iter()
            .filter(|c| c.name == "late" && c.ended.is_some())
            .count(),
        1
    );
}

#[test]
fn nested_cgroups_lead_to_their_container() {
    let mut table = containers_only();
    let nested = [&docker(A)[..], b"/system.slice/a.service"].concat();
    table.appeared(8, &nested, at(1), false);
    assert!(
        table.container_of(8).is_none(),
        "the container's own cgroup was missed"
    );
    table.appeared(7, &docker(A), at(1), false);
    table.appeared(9, &nested, at(1), false);
    for id in [7, 8, 9] {
        assert_eq!(table.container_of(id).unwrap().key.cgroup, 7);
    }
    table.gone(9, at(2));
    assert_eq!(table.container_of(9).unwrap().ended, None);
    table.gone(7, at(3));
    assert_eq!(table.container_of(9).unwrap().ended, Some(at(3)));
}

#[test]
fn a_hybrid_container_is_one_with_the_key_of_its_v2_id() {
    for order in [
        [memory(5), pids(6), 7],
        [7, pids(6), memory(5)],
        [pids(6), 7, memory(5)],
    ] {
        let mut table = directory(Scope::machine(false), Hierarchy::V2);
        for id in order {
            table.appeared(id, &docker(A), at(1), false);
        }
        let changed = table.changed();
        assert_eq!(changed.len(), 1, "{order:?}");
        assert_eq!(changed[0].key.cgroup, 7);
        for id in order {
            assert_eq!(table.container_of(id).unwrap().key, changed[0].key);
        }
        table.gone(memory(5), at(2));
        assert_eq!(table.container_of(7).unwrap().ended, None);
        table.gone(7, at(3));
        table.gone(pids(6), at(4));
        assert_eq!(table.container_of(pids(6)).unwrap().ended, Some(at(3)));
    }
}

#[test]
fn a_v1_only_container_of_a_hybrid_host_gets_its_v1_key_after_a_moment() {
    let mut table = directory(Scope::machine(false), Hierarchy::V2);
    table.appeared(memory(5), &docker(A), at(1), false);
    table.appeared(pids(6), &docker(A), at(1), false);
    table.tick(at(1));
    assert!(table.container_of(memory(5)).is_none() && table.changed().is_empty());
    table.tick(at(2));
    assert_eq!(table.changed()[0].key.cgroup, memory(5));
    // A v2 id that comes too late is one more name of the same container.
    table.appeared(7, &docker(A), at(3), false);
    assert_eq!(table.container_of(7).unwrap().key.cgroup, memory(5));

    let mut quick = directory(Scope::machine(false), Hierarchy::V2);
    quick.appeared(memory(5), &docker(A), at(1), false);
    quick.appeared(pids(6), &docker(A), at(1), false);
    quick.gone(pids(6), at(1));
    quick.gone(memory(5), at(1));
    let ended = quick.changed();
    assert_eq!(
        (ended.len(), ended[0].ended),
        (1, Some(at(1))),
        "ended before it settled"
    );
}

#[test]
fn a_v1_container_has_the_key_of_its_memory_cgroup() {
    let table = || directory(Scope::machine(false), Hierarchy::Memory);
    for order in [[memory(5), pids(6)], [pids(6), memory(5)]] {
        let mut table = table();
        for id in order {
            table.appeared(id, &docker(A), at(1), false);
        }
        for id in order {
            assert_eq!(table.container_of(id).unwrap().key.cgroup, memory(5));
        }
    }
    // On a hybrid host it waits for a v2 id in vain.
    let mut table = directory(Scope::machine(false), Hierarchy::V2);
    table.appeared(pids(6), &docker(A), at(1), false);
    table.appeared(memory(5), &docker(A), at(1), false);
    table.tick(at(2));
    assert_eq!(table.container_of(pids(6)).unwrap().key.cgroup, memory(5));
}

#[test]
fn an_id_or_a_path_that_is_used_again_is_another_instance() {
    let mut table = containers_only();
    table.appeared(7, &docker(A), at(1), false);
    table.gone(7, at(2));
    table.appeared(7, &docker(A), at(3), false);
    let second = table.container_of(7).unwrap();
    assert_eq!(
        (second.key.incarnation, second.ended, second.watched_since),
        (1, None, at(3))
    );
    // A restarted container: same path, new id, although the end of the old was missed.
    table.appeared(8, &docker(A), at(4), false);
    assert_eq!(table.container_of(7).unwrap().ended, Some(at(4)));
    let third = table.container_of(8).unwrap();
    assert_eq!((third.key.cgroup, third.key.incarnation), (8, 0));
    // The same id for another path without an end between.
    table.appeared(8, &docker(&A.replace('0', "f")), at(5), false);
    assert_eq!(table.container_of(8).unwrap().key.incarnation, 1);
    assert_eq!(table.changed().len(), 4);
    // All instances of a container are named, the newest is the one that runs.
    table.told(&facts(A, "web"), at(6));
    assert_eq!(
        table.changed().iter().filter(|c| c.name == "web").count(),
        3
    );
}

#[test]
fn telling_twice_changes_nothing() {
    let mut table = containers_only();
    table.appeared(7, &docker(A), at(5), true);
    assert!(table.changed()[0].present_at_start);
    table.appeared(7, &docker(A), at(6), true);
    assert!(table.changed().is_empty());
    // The kernel's event was on its way while the scan ran.
    table.appeared(7, &docker(A), at(4), false);
    let corrected = table.changed();
    assert!(!corrected[0].present_at_start && corrected[0].watched_since == at(4));
    table.gone(7, at(7));
    table.changed();
    table.gone(7, at(8));
    table.gone(99, at(8));
    assert!(table.changed().is_empty());
}

#[test]
fn the_dead_are_kept_for_a_while() {
    let mut table = containers_only();
    table.appeared(7, &docker(A), at(1), false);
    table.appeared(8, &[&docker(A)[..], b"/x"].concat(), at(1), false);
    table.gone(8, at(2));
    table.gone(7, at(2));
    table.tick(at(1 + DEAD_KEPT_S));
    assert_eq!(table.container_of(8).unwrap().key.cgroup, 7);
    table.tick(at(2 + DEAD_KEPT_S));
    assert!(table.container_of(7).is_none() && table.container_of(8).is_none());
    assert!(
        table.cgroups.is_empty() && table.instances.is_empty() && table.by_runtime_id.is_empty()
    );
    assert!(table.incarnations.is_empty() && table.unnamed.is_empty());
    assert_eq!(table.bounds(), Bounds::default());
}

#[test]
fn every_bound_counts_how_often_it_is_hit() {
    let mut table = containers_only();
    let id = |i: usize| format!("{i:064x}");
    for i in 0..DEAD_KEPT_MAX + 3 {
        table.appeared(1000 + i as u64, &docker(&id(i)), at(1), false);
        table.gone(1000 + i as u64, at(1));
    }
    table.tick(at(1));
    assert_eq!(table.bounds().dead_forgotten_early, 3);
    assert_eq!(table.instances.len(), DEAD_KEPT_MAX);

    for i in 0..FACTS_KEPT_MAX + 2 {
        table.told(&facts(&format!("unseen{i}"), "x"), at(1));
    }
    assert_eq!(table.bounds().facts_ignored, 2);
    table.tick(at(1 + DEAD_KEPT_S));
    assert!(table.facts.is_empty());

    let mut table = containers_only();
    let nested = |i: u64| format!("/docker/{A}/{i}").into_bytes();
    let max = CGROUPS_MAX as u64;
    for i in 0..max {
        table.appeared(i, &nested(i), at(1), false);
    }
    table.appeared(max, &nested(max), at(1), false);
    assert_eq!(table.bounds().cgroups_ignored, 1);
    table.gone(3, at(1));
    table.appeared(max, &nested(max), at(1), false);
    let bounds = table.bounds();
    assert_eq!(
        (bounds.cgroups_ignored, bounds.dead_forgotten_early),
        (1, 1)
    );
    assert_eq!(table.cgroups.len(), CGROUPS_MAX);
}

#[test]
fn only_what_is_asked_for_is_watched() {
    let container = docker(A);
    let (unit, root) = (&b"/system.slice/nginx.service"[..], &b"/"[..]);
    let record = Scope::Recorded {
        path: b"/ethogram/run-1".to_vec(),
        command: "make\n".into(),
    };
    let outer = docker(&A.replace('0', "f"));
    let node = |host| Scope::Machine {
        host,
        root: outer.clone(),
    };
    let inside = [&outer[..], &container[..]].concat();
    let beside = [&outer[..], b"0"].concat();
    use Tracking::{Ignore, Track};
    for (scope, path, expected) in [
        (Scope::machine(false), &container[..], Track),
        (Scope::machine(false), unit, Ignore),
        (Scope::machine(false), root, Ignore),
        (Scope::machine(true), &container[..], Track),
        (Scope::machine(true), unit, Track),
        (Scope::machine(true), root, Track),
        (node(false), &inside[..], Track),
        (node(false), &container[..], Ignore),
        (node(false), &outer[..], Ignore),
        (node(true), &beside[..], Ignore),
        (node(true), &outer[..], Track),
        (node(true), root, Ignore),
        (record.clone(), b"/ethogram/run-1", Track),
        (record.clone(), b"/ethogram/run-1/docker", Track),
        (record.clone(), b"/ethogram/run-12", Ignore),
        (record.clone(), b"/ethogram", Ignore),
        (record.clone(), &container[..], Ignore),
    ] {
        assert_eq!(
            directory(scope.clone(), Hierarchy::V2).should_track(path),
            expected,
            "{scope:?} {path:?}"
        );
    }
    let mut table = directory(record, Hierarchy::V2);
    table.appeared(3, b"/ethogram/run-1", at(1), false);
    table.appeared(4, b"/ethogram/run-1/sub", at(1), false);
    let command = table.container_of(4).unwrap();
    assert_eq!(command.workload.to_string(), r"command/make\x0a");
    assert_eq!((command.key.cgroup, command.runtime), (3, Runtime::Record));
}

#[test]
fn with_the_host_every_process_has_a_workload() {
    let mut table = directory(Scope::machine(true), Hierarchy::V2);
    for (id, path) in [
        (1, "/"),
        (2, "/system.slice"),
        (3, "/system.slice/nginx.service"),
        (4, "/system.slice/nginx.service/worker"),
        (5, "/kubepods/burstable"),
    ] {
        table.appeared(id, path.as_bytes(), at(1), true);
    }
    for (id, workload) in [
        (1, "host/node1"),
        (2, "host/node1"),
        (3, "unit/nginx.service"),
        (4, "unit/nginx.service"),
        (5, "host/node1"),
    ] {
        assert_eq!(
            table.container_of(id).unwrap().workload.to_string(),
            workload
        );
    }
    assert_eq!(table.changed().len(), 2);
    assert_eq!(table.unnamed(at(1)), 0, "no runtime is asked for these");
}

#[test]
fn who_knows_most_is_believed() {
    let mut table = containers_only();
    table.appeared(7, &docker(A), at(1), false);
    let pod = Facts {
        pod: "web-1".into(),
        name: SANDBOX_NAME.into(),
        source: Source::Cri,
        ..facts(A, "")
    };
    table.told(&facts(A, "k8s_POD_web-1"), at(1));
    table.told(&pod, at(1));
    table.told(&facts(A, "k8s_POD_web-1"), at(1));
    assert_eq!(table.container_of(7).unwrap().name, "POD");
}

#[test]
fn the_newest_instance_of_a_container_is_known() {
    let mut table = containers_only();
    assert_eq!(table.newest(A), None);
    table.appeared(7, &docker(A), at(1), true);
    table.gone(7, at(2));
    assert_eq!(table.newest(A).unwrap().ended, Some(at(2)));
    table.appeared(8, &docker(A), at(3), false);
    assert_eq!(table.newest(A).unwrap().watched_since, at(3));
}

/// What can happen to a few cgroups of a few containers.
#[derive(Clone, Debug)]
enum Event {
    Appeared(u64, usize),
    Gone(u64),
    Told(usize),
    Tick,
    Drain,
}

fn event() -> impl Strategy<Value = Event> {
    let id = prop::sample::select(vec![7, 8, 9, memory(5), memory(6), pids(5)]);
    prop_oneof![
        4 => (id.clone(), 0..4usize).prop_map(|(id, path)| Event::Appeared(id, path)),
        4 => id.prop_map(Event::Gone),
        1 => (0..2usize).prop_map(Event::Told),
        1 => Just(Event::Tick),
        1 => Just(Event::Drain),
    ]
}

fn best() -> impl Strategy<Value = Hierarchy> {
    prop::sample::select(vec![Hierarchy::V2, Hierarchy::Memory, Hierarchy::Pids])
}

proptest! {
    /// Whatever the order of events, an instance's key never changes once it was given
    /// out, no two instances share one, and an ended instance stays ended.
    #[test]
    fn keys_are_for_ever(best in best(), events in prop::collection::vec(event(), 0..60)) {
        let mut table = directory(Scope::machine(false), best);
        let other = A.replace('0', "f");
        let paths = [docker(A), docker(&other), [&docker(A)[..], b"/x"].concat(), b"/system.slice".to_vec()];
        let mut given: HashMap<ContainerKey, Container> = HashMap::new();
        for (now, event) in (1..).zip(events) {
            let now = at(now);
            match event {
                Event::Appeared(id, path) => {
                    table.appeared(id, &paths[path], now, false);
                    prop_assert!(table.cgroups().any(|known| known == id));
                }
                Event::Gone(id) => table.gone(id, now),
                Event::Told(who) => table.told(&facts([A, &other[..]][who], "n"), now),
                Event::Tick => table.tick(now),
                Event::Drain => for container in table.changed() {
                    if let Some(before) = given.insert(container.key.clone(), container.clone()) {
                        prop_assert_eq!(before.id, container.id);
                        prop_assert_eq!(before.watched_since, container.watched_since);
                        prop_assert!(before.ended.is_none() || before.ended == container.ended);
                    }
                },
            }
            let running: Vec<_> = table.containers().filter(|c| c.ended.is_none()).collect();
            prop_assert!(running.len() <= 2, "one instance per path runs");
        }
        table.tick(at(1_000));
        let keys: BTreeSet<_> = table.containers().map(|c| c.key.clone()).collect();
        prop_assert_eq!(keys.len(), table.containers().count());
    }
}
