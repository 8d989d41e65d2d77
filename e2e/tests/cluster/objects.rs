//! What the cluster's API server knows.

use crate::{CLUSTER_IP, NODES};
use ethogram_e2e::{
    api_server::ApiServer,
    node::{NAMESPACE, Pod},
};
use serde_json::{Value, json};

/// Deployments with the template hash of their pods.
const DEPLOYMENTS: [(&str, &str); 3] = [
    ("dvwa-web", "59b677c755"),
    ("dvwa-mysql", "68cbf8f98b"),
    ("visitor", "7d9c5b8f64"),
];

/// An object of the pods' namespace; what `rest` says of its metadata is added.
fn object((version, kind): (&str, &str), name: &str, rest: Value) -> Value {
    let mut object = json!({
        "apiVersion": version, "kind": kind,
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}"),
            "creationTimestamp": "2026-01-01T10:00:00Z",
        },
    });
    let Value::Object(rest) = rest else {
        return object;
    };
    for (key, value) in rest {
        match value {
            Value::Object(fields) if key == "metadata" => fields
                .into_iter()
                .for_each(|(key, value)| object["metadata"][key] = value),
            value => object[key] = value,
        }
    }
    object
}

fn owner(version: &str, kind: &str, name: &str) -> Value {
    json!([{"apiVersion": version, "kind": kind, "name": name, "uid": format!("uid-{name}"), "controller": true}])
}

/// Nodes, owners, and the service.
pub(crate) fn put_what_is_there_before_pods(api: &ApiServer) {
    for (name, number, _) in &NODES {
        let addresses = json!([{"type": "InternalIP", "address": format!("10.90.0.{number}")}]);
        let rest = json!({"metadata": {"namespace": null}, "status": {"addresses": addresses}});
        api.put("/api/v1/nodes", object(("v1", "Node"), name, rest));
    }
    for (deployment, hash) in DEPLOYMENTS {
        let owners = owner("apps/v1", "Deployment", deployment);
        let set = object(
            ("apps/v1", "ReplicaSet"),
            &format!("{deployment}-{hash}"),
            json!({"metadata": {"ownerReferences": owners}}),
        );
        api.put("/apis/apps/v1/replicasets", set);
    }
    let service = json!({
        "metadata": {"labels": {"app": "dvwa-mysql"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": CLUSTER_IP, "clusterIPs": [CLUSTER_IP],
            "selector": {"app": "dvwa-mysql"},
            "ports": [{"port": 3306, "protocol": "TCP", "targetPort": 3306}],
        },
        "status": {"loadBalancer": {}},
    });
    let service = object(("v1", "Service"), "dvwa-mysql-service", service);
    api.put("/api/v1/services", service);
}

/// A pod that runs on a node, of the deployment that its name begins with.
pub(crate) fn put_pod(api: &ApiServer, node: &str, pod: &Pod<'_>) {
    let spec = pod.spec();
    let set = spec.name.rsplit_once('-').map_or("", |(set, _)| set);
    let object = object(
        ("v1", "Pod"),
        &spec.name,
        json!({
            "metadata": {
                "uid": spec.uid, "labels": spec.labels,
                "ownerReferences": owner("apps/v1", "ReplicaSet", set),
            },
            "spec": {
                "nodeName": node,
                "containers": [{"name": spec.container.name, "image": spec.container.image}],
            },
            "status": {
                "phase": "Running", "podIP": pod.ip, "podIPs": [{"ip": pod.ip}],
                "startTime": "2026-01-01T10:00:00Z",
            },
        }),
    );
    api.put("/api/v1/pods", object);
}
