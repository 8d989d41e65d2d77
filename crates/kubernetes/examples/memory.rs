//! What names cost: memory and time for a cluster's pods.
//!
//! ```text
//! cargo run --release -p ethogram-kubernetes --example memory [PODS]
//! ```

use ethogram_kubernetes::{Event, Kind, Names, Scope, parse};
use ethogram_model::Timestamp;
use serde_json::json;
use std::{collections::HashSet, env, error::Error, fs, time::Instant};

/// Pods of one Deployment.
const REPLICAS: usize = 10;
/// What an average pod's spec and managed fields add that is not kept.
const PADDING_BYTES: usize = 8192;

fn main() -> Result<(), Box<dyn Error>> {
    let pods: usize = env::args().nth(1).map_or(Ok(10_000), |n| n.parse())?;
    let now = Timestamp(1_767_312_000_000_000_000);
    let mut names = Names::new(Scope::Cluster.kinds(), Vec::new());
    let (before, started) = (resident_bytes()?, Instant::now());
    let mut json_bytes = 0;
    for n in 0..pods {
        if n.is_multiple_of(REPLICAS) {
            let owner = parse(Kind::ReplicaSet, &replica_set(n / REPLICAS))?;
            names.apply(Event::Set(Box::new(owner)), now);
        }
        let json = pod(n);
        json_bytes += json.len();
        let object = parse(Kind::Pod, &json)?;
        names.apply(Event::Set(Box::new(object)), now);
    }
    for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Pod) {
        names.apply(Event::Listed(*kind, HashSet::new()), now);
    }
    names.apply(Event::Away(Kind::Pod, "done".into()), now);
    let elapsed = started.elapsed();
    let told = names.changed(now);
    let endpoints = told.endpoints.len();
    drop(told);
    let grown = resident_bytes()?.saturating_sub(before);
    println!("{pods} pods, {endpoints} addresses named, in {elapsed:.1?}");
    println!(
        "{} bytes of JSON a pod; resident memory grew by {} KiB, {} bytes a pod",
        json_bytes / pods,
        grown / 1024,
        grown / pods
    );
    Ok(())
}

fn pod(n: usize) -> String {
    let app = n / REPLICAS;
    let ips = [
        format!("10.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255),
        format!("fd00::{:x}:{:x}", n >> 16, n & 0xffff),
    ];
    json!({
        "metadata": {
            "name": format!("app-{app:05}-5d9c8b7f66-{n:05}"),
            "namespace": format!("team-{}", app % 50),
            "uid": format!("3b2f9c1e-0000-4000-8000-{n:012x}"),
            "creationTimestamp": "2026-01-01T12:00:00Z",
            "labels": {
                "app.kubernetes.io/name": format!("app-{app:05}"),
                "app.kubernetes.io/instance": format!("app-{app:05}"),
                "app.kubernetes.io/version": "1.2.3",
                "app.kubernetes.io/managed-by": "Helm",
                "pod-template-hash": "5d9c8b7f66",
            },
            "ownerReferences": [{
                "kind": "ReplicaSet", "name": format!("app-{app:05}-5d9c8b7f66"),
                "uid": format!("7c1a0b2d-0000-4000-8000-{app:012x}"), "controller": true,
            }],
            "managedFields": "x".repeat(PADDING_BYTES),
        },
        "spec": {"nodeName": "n1"},
        "status": {
            "phase": "Running", "startTime": "2026-01-01T12:00:01Z", "podIP": ips[0],
            "podIPs": [{"ip": ips[0]}, {"ip": ips[1]}],
        },
    })
    .to_string()
}

fn replica_set(app: usize) -> String {
    json!({"metadata": {
        "name": format!("app-{app:05}-5d9c8b7f66"),
        "namespace": format!("team-{}", app % 50),
        "uid": format!("7c1a0b2d-0000-4000-8000-{app:012x}"),
        "labels": {"app.kubernetes.io/name": format!("app-{app:05}")},
        "ownerReferences": [{
            "kind": "Deployment", "name": format!("app-{app:05}"), "uid": "d", "controller": true,
        }],
    }})
    .to_string()
}

/// The resident memory of this process.
fn resident_bytes() -> Result<usize, Box<dyn Error>> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: usize = statm.split(' ').nth(1).ok_or("no resident size")?.parse()?;
    Ok(pages * 4096)
}
