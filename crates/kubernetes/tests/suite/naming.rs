//! What a recorded cluster's addresses and pods are called.

use crate::{
    fake_api::FakeApi,
    reader::{Reader, START},
};
use ethogram_kubernetes::{Kind, Scope, Transport};
use ethogram_model::{Endpoint, Labels, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// A small pod as the API server tells it.
pub(crate) fn pod(name: &str, uid: &str, ip: &str, started: &str) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "dvwa", "uid": uid, "creationTimestamp": started},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
        "status": {
            "phase": "Running", "hostIP": "192.168.1.11", "startTime": started,
            "podIP": ip, "podIPs": [{"ip": ip}],
        },
    })
}

#[tokio::test(start_paused = true)]
async fn every_address_of_a_recorded_cluster_has_its_name() {
    let reader = Reader::start(&FakeApi::recorded()).await;
    for (ip, name) in [
        ("10.244.1.5", "pod/dvwa-web-6b8d9c4f75-q8x2p"),
        ("fd00:244:1::5", "pod/dvwa-web-6b8d9c4f75-q8x2p"),
        // Also behind a headless service and a plain one: it is the pod that was dialled.
        ("10.244.2.7", "pod/dvwa-mysql-0"),
        ("10.96.44.3", "svc/dvwa-mysql-service"),
        ("fd00:96::2c03", "svc/dvwa-mysql-service"),
        ("10.96.0.1", "svc/kubernetes"),
        ("10.96.44.4", "svc/dvwa-web"),
        ("203.0.113.80", "svc/dvwa-web"),
        ("198.51.100.20", "svc/dvwa-web"),
        // A load balancer on a node's address, and pods on its network, leave it the node's.
        ("192.168.1.12", "node/n2"),
        ("192.168.1.11", "node/n1"),
        ("fd00:1::11", "node/n1"),
        ("203.0.113.12", "node/n2"),
        // In slices, and no pod's.
        ("192.0.2.6", "svc/kubernetes"),
        ("172.16.9.9", "svc/legacy-db"),
        // Of a pod that is done.
        ("10.244.1.9", ""),
        ("10.244.9.9", ""),
    ] {
        assert_eq!(reader.name(ip), name, "{ip}");
    }
    let began = Timestamp(START.0 - 50_000_000_000_000);
    assert_eq!(
        reader.name_at("10.96.44.3", began),
        "svc/dvwa-mysql-service"
    );
    reader.check_no_overlap();
    assert!(reader.is_current());
    assert!(reader.silences().is_empty());
    assert_eq!(reader.malformed(), 0);
}

#[tokio::test(start_paused = true)]
async fn peers_carry_namespace_and_labels_that_people_chose() {
    let reader = Reader::start(&FakeApi::recorded()).await;
    let of = |ip: &str| {
        reader
            .kept
            .values()
            .find(|e| e.ip.to_string() == ip)
            .unwrap()
    };
    let web = of("10.244.1.5");
    assert_eq!(web.namespace, "dvwa");
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        web.labels,
        Labels::from([label("app", "dvwa-web"), label("tier", "frontend")])
    );
    let mysql = of("10.244.2.7");
    assert_eq!(mysql.labels, Labels::from([label("app", "dvwa-mysql")]));
    let legacy = of("172.16.9.9");
    assert_eq!(legacy.labels, Labels::from([label("app", "legacy")]));
    let team = reader.names.namespace_labels("dvwa").unwrap();
    assert_eq!(team["team"], "security");
    assert_eq!(reader.names.namespace_labels("none"), None);
}

#[tokio::test(start_paused = true)]
async fn a_port_of_every_node_leads_to_its_service() {
    let fake = FakeApi::recorded();
    let mut reader = Reader::start(&fake).await;
    let ports = std::mem::take(&mut reader.node_ports);
    assert_eq!(ports.len(), 1);
    let web = &ports[0];
    assert_eq!((web.transport, web.port), (Transport::Tcp, 30080));
    assert_eq!(
        (&*web.name, &*web.namespace, web.until),
        ("svc/dvwa-web", "dvwa", None)
    );
    fake.delete(Kind::Service, "dvwa-web");
    reader.settle().await;
    let ended = &reader.node_ports[0];
    assert!(ended.until.is_some() && ended.from == web.from);
}

#[tokio::test(start_paused = true)]
async fn pods_lead_to_what_owns_them() {
    let fake = FakeApi::recorded();
    let mut reader = Reader::start(&fake).await;
    for (uid, shown) in [
        (
            "pod-web",
            "dvwa dvwa-web-6b8d9c4f75-q8x2p deployment/dvwa-web",
        ),
        ("pod-mysql", "dvwa dvwa-mysql-0 statefulset/dvwa-mysql"),
        (
            "pod-lonely",
            "dvwa lonely-5c9d8b7f66-aaaaa replicaset/lonely-5c9d8b7f66",
        ),
        ("pod-backup", "dvwa backup-29458080-k4j2z cronjob/backup"),
        ("pod-migrate", "dvwa migrate-x7c9v job/migrate"),
        ("pod-toolbox", "dvwa toolbox pod/toolbox"),
        (
            "pod-proxy",
            "kube-system kube-proxy-v5h7k daemonset/kube-proxy",
        ),
        // Its ReplicaSet is not known, but the pod tells by its hash.
        (
            "pod-dns",
            "kube-system coredns-7d764666f9-b2c4d deployment/coredns",
        ),
        // A static pod, by the uid in its containers' cgroups, and by the API server's.
        (
            "5d1c9f3a7b2e48d0a6c4e8f0b1d2c3a4",
            "kube-system kube-apiserver-n1 pod/kube-apiserver-n1",
        ),
        (
            "pod-api-mirror",
            "kube-system kube-apiserver-n1 pod/kube-apiserver-n1",
        ),
        ("pod-nobody", ""),
        ("", ""),
    ] {
        assert_eq!(reader.workload(uid), shown, "{uid}");
    }
    assert!(reader.pods.iter().any(|uid| **uid == *"pod-web"));
    // An owner that turns up late, or goes before its pods.
    reader.pods.clear();
    let replica_set = json!({
        "kind": "ReplicaSet", "apiVersion": "apps/v1",
        "metadata": {
            "name": "coredns-7d764666f9", "namespace": "kube-system", "uid": "rs-dns-unknown",
            "ownerReferences": [
                {"kind": "Rollout", "name": "dns", "uid": "rollout-dns", "controller": true},
            ],
        },
    });
    fake.put(replica_set);
    fake.delete(Kind::ReplicaSet, "dvwa-web-6b8d9c4f75");
    fake.change(Kind::Pod, "dvwa-web-6b8d9c4f75-q8x2p", |pod| {
        pod["metadata"]["labels"]["tier"] = json!("back");
    });
    reader.settle().await;
    assert!(reader.workload("pod-dns").ends_with("rollout/dns"));
    fake.delete(Kind::ReplicaSet, "coredns-7d764666f9");
    fake.change(Kind::Pod, "coredns-7d764666f9-b2c4d", |pod| {
        pod["status"]["qosClass"] = json!("Guaranteed");
    });
    reader.settle().await;
    assert!(reader.workload("pod-dns").ends_with("rollout/dns"));
    assert!(reader.workload("pod-web").ends_with("deployment/dvwa-web"));
    let mut pods: Vec<&str> = reader.pods.iter().map(|uid| &**uid).collect();
    pods.sort_unstable();
    assert_eq!(pods, ["pod-dns", "pod-web"]);
}

#[tokio::test(start_paused = true)]
async fn ended_pods_are_known_for_a_while() {
    let fake = FakeApi::recorded();
    let mut reader = Reader::start(&fake).await;
    fake.delete(Kind::Pod, "toolbox");
    reader.settle().await;
    assert_eq!(reader.name("10.244.1.10"), "");
    assert_eq!(reader.workload("pod-toolbox"), "dvwa toolbox pod/toolbox");
    fake.set_mood(crate::fake_api::Mood::Unreachable);
    reader.run_for(MINUTE * 60 * 25).await;
    assert_eq!(reader.workload("pod-toolbox"), "");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_used_again_in_the_same_second_has_one_name_at_a_time() {
    let second = "2026-01-02T00:00:10Z";
    let at = |ms: i64| Timestamp(START.0 + ms * 1_000_000);
    // The end of the first is told before the second has the address, after, or never.
    for first_end in ["before", "after", "terminal"] {
        let fake = FakeApi::recorded();
        let mut reader = Reader::start(&fake).await;
        reader.run_for(Duration::from_millis(10_000)).await;
        fake.put(pod("first", "first", "10.244.1.77", second));
        let mut waiting = pod("second", "second", "", second);
        waiting["status"] = json!({"phase": "Pending", "startTime": second});
        fake.put(waiting);
        reader.settle().await;
        match first_end {
            "before" => fake.delete(Kind::Pod, "first"),
            "terminal" => fake.change(Kind::Pod, "first", |pod| {
                pod["status"]["phase"] = json!("Succeeded");
            }),
            _ => {}
        }
        reader.settle().await;
        fake.put(pod("second", "second", "10.244.1.77", second));
        reader.settle().await;
        if first_end == "after" {
            // Word of the first that is only late.
            fake.change(Kind::Pod, "first", |pod| {
                pod["metadata"]["labels"] = json!({"a": "b"});
            });
            reader.settle().await;
            assert_eq!(reader.name("10.244.1.77"), "pod/second");
            fake.delete(Kind::Pod, "first");
        }
        reader.settle().await;
        reader.check_no_overlap();
        assert_eq!(reader.name("10.244.1.77"), "pod/second", "{first_end}");
        assert_eq!(
            reader.name_at("10.244.1.77", at(10_050)),
            "pod/first",
            "{first_end}"
        );
        assert_eq!(reader.name_at("10.244.1.77", at(9_999)), "", "{first_end}");
        fake.delete(Kind::Pod, "second");
        reader.settle().await;
        assert_eq!(reader.name("10.244.1.77"), "");
        reader.check_no_overlap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_waited_long_for_its_address_had_it_only_after_the_one_before() {
    let start = "2026-01-02T00:00:00Z";
    // The wait ends before the end of the first is told, soon after, or when nobody
    // remembers that end.
    for (first_ends, wait) in [
        (false, MINUTE),
        (true, MINUTE * 10),
        (true, MINUTE * 60 * 25),
    ] {
        let fake = FakeApi::recorded();
        let mut reader = Reader::start(&fake).await;
        let mut waiting = pod("second", "second", "", start);
        waiting["status"] = json!({"phase": "Pending", "startTime": start});
        fake.put(waiting.clone());
        reader.run_for(MINUTE).await;
        fake.put(pod("first", "first", "10.244.1.77", "2026-01-02T00:01:00Z"));
        reader.run_for(MINUTE * 9).await;
        let in_time = Timestamp(reader.now().0 - 1);
        if first_ends {
            fake.delete(Kind::Pod, "first");
        }
        fake.put(waiting);
        reader.run_for(wait).await;
        fake.put(pod("second", "second", "10.244.1.77", start));
        reader.outwait_pause().await;
        assert_eq!(
            reader.name_at("10.244.1.77", in_time),
            "pod/first",
            "{wait:?}"
        );
        assert_eq!(reader.name("10.244.1.77"), "pod/second", "{wait:?}");
        reader.check_no_overlap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_made_again_is_another() {
    let fake = FakeApi::recorded();
    let mut reader = Reader::start(&fake).await;
    let mut service = fake.get(Kind::Service, "dvwa-mysql-service");
    let before = reader.now();
    reader.run_for(MINUTE).await;
    fake.delete(Kind::Service, "dvwa-mysql-service");
    reader.run_for(MINUTE).await;
    let between = Timestamp(reader.now().0 - 1_000_000_000);
    service["metadata"]["uid"] = json!("svc-mysql-2");
    service["metadata"]["creationTimestamp"] = json!("2026-01-02T00:02:00Z");
    service["metadata"]["labels"] = json!({"app": "new"});
    // One address stays, the other is new.
    service["spec"]["clusterIPs"] = json!(["10.96.44.3", "fd00:96::ffff"]);
    fake.put(service);
    reader.settle().await;
    assert_eq!(
        reader.name_at("10.96.44.3", before),
        "svc/dvwa-mysql-service"
    );
    assert_eq!(reader.name_at("10.96.44.3", between), "");
    assert_eq!(reader.name("10.96.44.3"), "svc/dvwa-mysql-service");
    assert_eq!(reader.name("fd00:96::2c03"), "");
    assert_eq!(reader.name("fd00:96::ffff"), "svc/dvwa-mysql-service");
    reader.check_no_overlap();
}

#[tokio::test(start_paused = true)]
async fn what_changes_in_an_objects_life_is_told() {
    let fake = FakeApi::recorded();
    let mut reader = Reader::start(&fake).await;
    reader.run_for(MINUTE).await;
    let before = Timestamp(reader.now().0 - 1);
    fake.change(Kind::Service, "dvwa-web", |service| {
        service["status"]["loadBalancer"] = json!({"ingress": [{"ip": "198.51.100.21"}]});
        service["metadata"]["labels"]["stage"] = json!("live");
    });
    fake.change(Kind::Node, "n2", |node| {
        node["status"]["addresses"] = json!([{"type": "InternalIP", "address": "192.168.1.13"}]);
    });
    fake.delete(Kind::EndpointSlice, "legacy-db-1");
    fake.delete(Kind::Namespace, "dvwa");
    reader.settle().await;
    assert_eq!(reader.name("198.51.100.20"), "");
    assert_eq!(reader.name("198.51.100.21"), "svc/dvwa-web");
    assert_eq!(
        reader.name_at("198.51.100.21", before),
        "",
        "not before it had it"
    );
    assert_eq!(reader.name("192.168.1.12"), "");
    assert_eq!(reader.name("192.168.1.13"), "node/n2");
    assert_eq!(reader.name("172.16.9.9"), "");
    assert_eq!(reader.names.namespace_labels("dvwa"), None);
    let stage = reader
        .kept
        .values()
        .find(|e| e.ip.to_string() == "10.96.44.4");
    assert_eq!(stage.unwrap().labels["stage"], "live");
    reader.check_no_overlap();
}

#[tokio::test(start_paused = true)]
async fn an_agent_hears_of_its_own_pods_alone() {
    let fake = FakeApi::recorded();
    let scope = Scope::Node("n1".into());
    let reader = Reader::start_with(&fake, &scope, Vec::new()).await;
    assert_eq!(reader.name("10.244.1.5"), "pod/dvwa-web-6b8d9c4f75-q8x2p");
    assert_eq!(reader.name("10.244.2.7"), "");
    assert!(reader.workload("pod-web").ends_with("deployment/dvwa-web"));
    let requests = fake.requests();
    let of_node = |r: &String| r.starts_with("/api/v1/pods?") && r.contains("spec.nodeName%3Dn1");
    assert!(
        requests.len() == 2 && requests.iter().all(of_node),
        "{requests:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn names_that_an_earlier_watch_left_open_are_ended_if_they_no_longer_hold() {
    let left = |ip: &str, name: &str, from_s: i64| Endpoint {
        ip: ip.parse().unwrap(),
        name: name.into(),
        namespace: "dvwa".into(),
        labels: Labels::new(),
        from: Timestamp(from_s * 1_000_000_000),
        until: None,
    };
    // 2026-01-01T10:00:05Z, when the web pod started.
    let web_start_s = 1_767_261_605;
    let all = vec![
        left("10.244.1.5", "pod/dvwa-web-6b8d9c4f75-q8x2p", web_start_s),
        left("fd00:244:1::5", "pod/old", web_start_s - 100),
        left("10.244.7.7", "pod/gone", web_start_s),
        left("10.244.7.8", "container/by-agent", web_start_s),
        // The same name, but from when another reckoned.
        left("10.96.44.4", "svc/dvwa-web", web_start_s),
    ];
    let fake = FakeApi::recorded();
    let reader = Reader::start_with(&fake, &Scope::Cluster, all).await;
    reader.check_no_overlap();
    let until = |ip: &str, name: &str| {
        let mut named = reader
            .kept
            .values()
            .filter(|e| e.ip.to_string() == ip && e.name == name);
        named.next().map(|e| e.until)
    };
    assert_eq!(
        until("10.244.1.5", "pod/dvwa-web-6b8d9c4f75-q8x2p"),
        Some(None)
    );
    let replaced = Some(Timestamp(web_start_s * 1_000_000_000));
    assert_eq!(until("fd00:244:1::5", "pod/old"), Some(replaced));
    assert!(until("10.244.7.7", "pod/gone").unwrap().unwrap() >= START);
    assert_eq!(until("10.244.7.8", "container/by-agent"), None);
    let of_web = reader
        .kept
        .values()
        .filter(|e| e.ip.to_string() == "10.96.44.4");
    let (open, ended): (Vec<_>, Vec<_>) = of_web.partition(|e| e.until.is_none());
    assert_eq!((open.len(), ended.len()), (1, 1));
    assert_eq!(
        open[0].from.seconds(),
        web_start_s - 5,
        "since the service was made"
    );
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_pods() {
    const PODS: usize = 10_000;
    let fake = FakeApi::recorded();
    let ip = |n: usize| format!("10.1.{}.{}", n / 250, n % 250 + 1);
    let name = |n: usize| format!("load-5d9c8b7f66-{n:05}");
    for n in 0..PODS {
        let mut pod = pod(
            &name(n),
            &format!("load-{n}"),
            &ip(n),
            "2026-01-01T12:00:00Z",
        );
        pod["metadata"]["labels"] = json!({"app": "load", "pod-template-hash": "5d9c8b7f66"});
        fake.put(pod);
    }
    let mut reader = Reader::start(&fake).await;
    let pages = fake.requests();
    let pages = pages
        .iter()
        .filter(|r| r.starts_with("/api/v1/pods?") && !r.contains("watch="));
    assert_eq!(pages.count(), 21, "pages of 500, and one for the rest");
    assert_eq!(reader.name(&ip(9_999)), format!("pod/{}", name(9_999)));
    // All go at once, while nobody watches, and their addresses go to others.
    fake.set_mood(crate::fake_api::Mood::Unreachable);
    for n in 0..PODS {
        fake.delete(Kind::Pod, &name(n));
    }
    fake.put(pod("late", "late", &ip(7), "2026-01-02T00:30:00Z"));
    reader.run_for(MINUTE * 60).await;
    fake.compact(crate::fake_api::GoneAs::Event);
    fake.set_mood(crate::fake_api::Mood::Well);
    reader.run(MINUTE).await;
    assert_eq!(reader.name(&ip(9_999)), "");
    assert_eq!(reader.name(&ip(7)), "pod/late");
    let bounds = reader.names.bounds();
    assert_eq!(bounds, ethogram_kubernetes::Bounds::default());
}
