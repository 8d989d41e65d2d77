use super::*;
use crate::objects::Uid;
use serde_json::{Value, json};

fn object(kind: Kind, json: &Value) -> Object {
    parse(kind, &json.to_string()).unwrap()
}

fn pod(json: &Value) -> Pod {
    match object(Kind::Pod, json).details {
        Details::Pod(pod) => pod,
        other => panic!("{other:?}"),
    }
}

fn service(json: &Value) -> Service {
    match object(Kind::Service, json).details {
        Details::Service(service) => service,
        other => panic!("{other:?}"),
    }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_pod_is_reduced_to_what_names_it() {
    let json = json!({
        "metadata": {
            "uid": "u", "name": "web-7d4b9c-x2x7k", "namespace": "shop",
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"app": "web", "pod-template-hash": "7d4b9c"},
            "ownerReferences": [
                {"kind": "Other", "name": "o", "uid": "0"},
                {"kind": "ReplicaSet", "name": "web-7d4b9c", "uid": "rs", "controller": true},
            ],
        },
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
        "status": {
            "phase": "Running", "startTime": "2026-01-02T03:04:06Z", "hostIP": "192.168.0.1",
            "podIP": "10.0.0.5", "podIPs": [{"ip": "10.0.0.5"}, {"ip": "fd00::5"}],
        },
    });
    let object = object(Kind::Pod, &json);
    assert_eq!(
        (&*object.uid, &*object.namespace, &*object.name),
        ("u", "shop", "web-7d4b9c-x2x7k")
    );
    assert_eq!(object.created, Some(Timestamp(1_767_323_045_000_000_000)));
    let labels = Labels::from([("app".to_owned(), "web".to_owned())]);
    assert_eq!(object.labels, labels, "without the hash");
    let owner = Owner {
        uid: Uid::from("rs"),
        workload: Workload {
            kind: "replicaset".into(),
            name: "web-7d4b9c".into(),
        },
    };
    assert_eq!(
        object.details,
        Details::Pod(Pod {
            ips: ips(&["10.0.0.5", "fd00::5"]),
            started: Some(Timestamp(1_767_323_046_000_000_000)),
            owner: Some(owner),
            guessed_deployment: Some("web".into()),
            ..Pod::default()
        })
    );
}

#[test]
fn a_pod_on_its_nodes_network_has_no_address_of_its_own() {
    let said = json!({
        "metadata": {"uid": "u", "name": "proxy"},
        "spec": {"hostNetwork": true},
        "status": {"podIP": "192.168.0.1", "podIPs": [{"ip": "192.168.0.1"}]},
    });
    assert!(pod(&said).ips.is_empty());
    let shown = json!({
        "metadata": {"uid": "u", "name": "proxy"},
        "status": {"hostIP": "192.168.0.1", "podIP": "192.168.0.1"},
    });
    assert!(
        pod(&shown).ips.is_empty(),
        "even if only the addresses tell"
    );
}

#[test]
fn an_end_is_that_of_the_last_container() {
    let with = |phase: &str, finished: &[&str]| {
        let state = |at: &&str| json!({"state": {"terminated": {"finishedAt": at}}});
        let statuses: Vec<_> = finished.iter().map(state).collect();
        pod(&json!({
            "metadata": {"uid": "u", "name": "p"},
            "status": {"phase": phase, "containerStatuses": statuses},
        }))
        .end
    };
    let early = "2026-01-02T03:04:05Z";
    let late = "2026-01-02T03:04:06Z";
    assert_eq!(with("Running", &[early]), End::Running);
    assert_eq!(with("Failed", &[]), End::Ended);
    assert_eq!(with("Failed", &["yesterday"]), End::Ended);
    let at = End::At(Timestamp(1_767_323_046_000_000_000));
    assert_eq!(with("Succeeded", &[late, early]), at);
}

#[test]
fn a_static_pod_has_the_uid_that_its_kubelet_gave_it() {
    let json = json!({
        "metadata": {
            "uid": "mirror", "name": "etcd-n1",
            "annotations": {"kubernetes.io/config.mirror": "0123abcd", "other": "x"},
        },
    });
    assert_eq!(pod(&json).node_uid.as_deref(), Some("0123abcd"));
}

#[test]
fn addresses_of_services() {
    let of = |spec: Value, status: Value| {
        service(&json!({"metadata": {"uid": "u", "name": "s"}, "spec": spec, "status": status}))
    };
    let dual = of(
        json!({
            "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00:96::1"],
            "externalIPs": ["203.0.113.7", "::ffff:203.0.113.8", "0.0.0.0", "127.0.0.1", "x"],
            "ports": [
                {"port": 80, "nodePort": 30080},
                {"port": 53, "protocol": "UDP", "nodePort": 30053},
                {"port": 99, "protocol": "QUIC", "nodePort": 30099},
                {"port": 81},
            ],
        }),
        json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}, {"hostname": "lb.example"}]}}),
    );
    assert_eq!(dual.cluster_ips, ips(&["10.96.0.1", "fd00:96::1"]));
    assert_eq!(
        dual.external_ips,
        ips(&["203.0.113.7", "203.0.113.8", "198.51.100.1"])
    );
    assert_eq!(
        dual.node_ports,
        [(Transport::Tcp, 30080), (Transport::Udp, 30053)]
    );
    let headless = of(
        json!({"clusterIP": "None", "clusterIPs": ["None"]}),
        json!({}),
    );
    assert_eq!(headless, Service::default());
    let external = of(
        json!({"type": "ExternalName", "externalName": "db.example", "externalIPs": ["203.0.113.7"]}),
        json!({}),
    );
    assert_eq!(external, Service::default());
    let pending = of(
        json!({"clusterIP": "", "ports": null}),
        json!({"loadBalancer": {}}),
    );
    assert_eq!(pending, Service::default());
}

#[test]
fn a_slice_names_what_is_no_pods() {
    let object = object(
        Kind::EndpointSlice,
        &json!({
            "metadata": {
                "uid": "u", "name": "db-x1", "namespace": "shop",
                "labels": {
                    "app": "db", "kubernetes.io/service-name": "db",
                    "endpointslice.kubernetes.io/managed-by": "me",
                },
            },
            "endpoints": [
                {"addresses": ["10.0.0.5"], "targetRef": {"kind": "Pod", "name": "db-0"}},
                {"addresses": ["203.0.113.9"]},
                {"addresses": ["192.168.0.1"], "targetRef": {"kind": "Node"}},
                {"addresses": ["db.example"]},
            ],
        }),
    );
    let slice = EndpointSlice {
        service: "db".into(),
        ips: ips(&["203.0.113.9", "192.168.0.1"]),
    };
    assert_eq!(object.details, Details::EndpointSlice(slice));
    assert_eq!(object.labels.keys().collect::<Vec<_>>(), ["app"]);
}

#[test]
fn a_node_has_addresses_and_host_names() {
    let json = json!({
        "metadata": {"uid": "u", "name": "n1"},
        "status": {"addresses": [
            {"type": "InternalIP", "address": "192.168.0.1"},
            {"type": "InternalIP", "address": "fe80::1"},
            {"type": "ExternalIP", "address": "2001:db8::1"},
            {"type": "Hostname", "address": "n1"},
        ]},
    });
    let ips = ips(&["192.168.0.1", "2001:db8::1"]);
    assert_eq!(
        object(Kind::Node, &json).details,
        Details::Node(Node { ips })
    );
}

#[test]
fn what_is_left_out_or_null_is_nothing() {
    for kind in Kind::ALL {
        let bare = json!({"metadata": {"uid": "u", "name": "n"}});
        assert_eq!(object(*kind, &bare).details.kind(), *kind);
        let nulls = json!({
            "metadata": {
                "uid": "u", "name": "n", "labels": null, "annotations": null,
                "ownerReferences": null, "creationTimestamp": null,
            },
            "endpoints": null,
        });
        assert_eq!(object(*kind, &nulls).labels, Labels::new());
    }
}

#[test]
fn odd_objects_are_errors_that_say_what() {
    for (kind, json, words) in [
        (Kind::Pod, "", "pods"),
        (Kind::Pod, "{}", "metadata"),
        (Kind::Pod, r#"{"metadata":{"name":"p"}}"#, "uid"),
        (
            Kind::Service,
            r#"{"metadata":{"uid":"u","name":7}}"#,
            "string",
        ),
        (
            Kind::Node,
            r#"{"metadata":{"uid":"u","name":"n"},"status":[1]}"#,
            "nodes",
        ),
        (
            Kind::Job,
            r#"{"metadata":{"uid":"u","name":"n","labels":{"a":{}}}}"#,
            "string",
        ),
    ] {
        let said = parse(kind, json).unwrap_err().to_string();
        assert!(said.contains(words), "{json}: {said}");
    }
    let many: Vec<_> = (0..=ADDRESSES_MAX)
        .map(|n| json!(format!("fd00::{n:x}")))
        .collect();
    let json = json!({"metadata": {"uid": "u", "name": "s"}, "spec": {"externalIPs": many}});
    let said = parse(Kind::Service, &json.to_string())
        .unwrap_err()
        .to_string();
    assert!(said.contains("services s has 4097 addresses"), "{said}");
}

#[test]
fn texts_are_printable_and_labels_bounded() {
    let json = json!({"metadata": {
        "uid": "u", "name": "a\u{1b}[31m", "labels": {"k\n": "v\u{202e}"},
    }});
    let odd = object(Kind::Namespace, &json);
    assert_eq!(odd.name, "a\\x1b[31m");
    assert_eq!(odd.labels.iter().next().unwrap().0, "k\\x0a");
    let labels: BTreeMap<_, _> = (0..LABELS_MAX + 3)
        .map(|n| (format!("k{n:04}"), "v"))
        .collect();
    let json = json!({"metadata": {"uid": "u", "name": "n", "labels": labels}});
    let many = object(Kind::Namespace, &json);
    assert_eq!(many.labels.len(), LABELS_MAX + 1);
    assert_eq!(many.labels[LABELS_DROPPED], "3");
}

proptest::proptest! {
    #[test]
    fn whatever_it_is_nothing_breaks(text in "\\PC*|(\\{|\\}|\\[|\\]|\"metadata\":|\"uid\":|\"x\"|,|1){0,20}") {
        for kind in Kind::ALL {
            let _either = parse(*kind, &text);
        }
    }
}
