use ethogram_kubernetes::{Kind, parse};
use ethogram_model::{BootId, Labels, Name};
use ethogram_store::SqliteStore;

use super::*;

const POD: &str = r#"{"metadata":{"uid":"u1","name":"web-7d4b9c-x2x7k","namespace":"shop",
    "labels":{"app":"web","pod-template-hash":"7d4b9c"},
    "ownerReferences":[{"kind":"ReplicaSet","name":"web-7d4b9c","uid":"rs","controller":true,"apiVersion":"apps/v1"}]},
    "spec":{},"status":{"podIP":"10.0.0.7","podIPs":[{"ip":"10.0.0.7"}]}}"#;

/// A ReplicaSet whose name says nothing of what owns it.
const REPLICA_SET: &str = r#"{"metadata":{"uid":"rs","name":"web-7d4b9c","namespace":"shop",
    "ownerReferences":[{"kind":"Rollout","name":"web","uid":"r","controller":true,"apiVersion":"x/v1"}]}}"#;

struct World {
    _folder: tempfile::TempDir,
    named: NamedStore,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("db")).unwrap();
        Self {
            named: NamedStore::new(Arc::new(store)).unwrap(),
            _folder: folder,
        }
    }

    fn hear(&self, kind: Kind, json: &str) {
        self.named
            .hear(Event::Set(Box::new(parse(kind, json).unwrap())));
        let updates = self.named.names().changed(now());
        self.named.keep(&updates).unwrap();
    }

    fn report(&self) {
        let key = ContainerKey {
            boot: BootId::new("b"),
            cgroup: 7,
            incarnation: 0,
        };
        let mut container = Container::unknown(key, Name::from("/x"), Timestamp(1));
        container.pod_uid = "u1".into();
        container.namespace = "shop".into();
        container.pod = "web-7d4b9c-x2x7k".into();
        container.labels = Labels::from([("from".into(), "the node".into())]);
        let run = Run {
            id: "r".into(),
            boot: BootId::new("b"),
            node: "n".into(),
            hooks: String::new(),
            started: Timestamp(1),
            last_alive: Timestamp(1),
            ended_cleanly: false,
        };
        let report = Report {
            containers: vec![container],
            ..Report::empty(run)
        };
        self.named.apply(&report).unwrap();
    }

    fn workload_and_labels(&self) -> (String, Labels) {
        let kept = self.named.containers(&Selection::default()).unwrap();
        let container = &kept[0].container;
        (container.workload.to_string(), container.labels.clone())
    }
}

fn app() -> Labels {
    Labels::from([("app".into(), "web".into())])
}

#[test]
fn whichever_is_second_finds_the_first() {
    let world = World::new();
    world.hear(Kind::Pod, POD);
    world.report();
    let pod_first = world.workload_and_labels();
    let world = World::new();
    world.report();
    world.hear(Kind::Pod, POD);
    assert_eq!(world.workload_and_labels(), pod_first);
    assert_eq!(pod_first, ("deployment/web".into(), app()));
    // What its node says again does not undo it.
    world.report();
    assert_eq!(world.workload_and_labels(), pod_first);
}

#[test]
fn an_owner_told_later_reaches_what_is_kept() {
    let world = World::new();
    world.report();
    world.hear(Kind::Pod, POD);
    world.hear(Kind::ReplicaSet, REPLICA_SET);
    assert_eq!(world.workload_and_labels(), ("rollout/web".into(), app()));
}
