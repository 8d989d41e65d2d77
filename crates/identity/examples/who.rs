//! Prints the containers of this machine, as the cgroups and the runtimes tell them.
//!
//! `who [--host] [--follow] [RUNTIME...]`, where a runtime is told as in
//! `cri:/run/containerd/containerd.sock`. With `--follow` it goes on until it is ended.

use ethogram_identity::{CgroupEvent, Identity, Options, RuntimeState, Scope, Tracking};
use ethogram_model::{Container, Timestamp};
use std::{
    collections::HashMap,
    error::Error,
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

/// How long the runtimes get to tell their names.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often the machine is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn main() -> Result<(), Box<dyn Error>> {
    let (flags, runtimes): (Vec<_>, Vec<_>) = std::env::args()
        .skip(1)
        .partition(|arg| arg.starts_with("--"));
    let has = |flag: &str| flags.iter().any(|f| f == flag);
    let runtimes: Vec<_> = runtimes
        .iter()
        .map(|r| r.parse())
        .collect::<Result<_, _>>()?;
    let options = Options {
        scope: Scope::machine(has("--host")),
        runtimes: (!runtimes.is_empty()).then_some(runtimes),
        ..Options::default()
    };
    let tokio = tokio::runtime::Runtime::new()?;
    let mut identity = Identity::start(options, tokio.handle(), now())?;
    println!("cgroups: {}", identity.hierarchies().mode().as_str());
    for mount in &identity.hierarchies().mounts {
        let whole = if mount.is_whole()? {
            "whole"
        } else {
            "a part only"
        };
        println!(
            "  {:?} at {} ({whole})",
            mount.hierarchy,
            mount.at.display()
        );
    }
    let mut seen = scan(&identity);
    let until = Instant::now() + PATIENCE;
    while has("--follow") || Instant::now() < until {
        let updates = identity.poll(now());
        let tracked = |(_, tracking): &&(u64, Tracking)| *tracking == Tracking::Track;
        if !updates.tracking.is_empty() {
            let (new, tracked) = (
                updates.tracking.len(),
                updates.tracking.iter().filter(tracked).count(),
            );
            println!("{new} cgroups are new, {tracked} of them watched");
        }
        for status in updates
            .runtimes
            .iter()
            .filter(|s| s.state != RuntimeState::Absent)
        {
            println!("runtime {}: {:?}", status.endpoint, status.state);
        }
        for endpoint in updates.endpoints {
            let until = endpoint
                .until
                .map_or("now".to_owned(), |t| t.seconds().to_string());
            println!(
                "address {} {} {}-{until}",
                endpoint.ip,
                endpoint.name,
                endpoint.from.seconds()
            );
        }
        if has("--follow") {
            updates.containers.iter().for_each(show);
            play_sensor(&mut identity, &mut seen);
        }
        sleep(LOOK_EVERY);
    }
    println!("\ncontainers:");
    identity.containers().for_each(show);
    println!("{:?}", identity.bounds());
    Ok(())
}

/// Tells the cgroups that came and went, as the sensor would, but later, and not those
/// that lived too briefly to be looked at.
fn play_sensor(identity: &mut Identity, seen: &mut HashMap<u64, Vec<u8>>) {
    let found = scan(identity);
    let time = now();
    for (&id, path) in found.iter().filter(|(id, _)| !seen.contains_key(id)) {
        let path = path.clone();
        identity.cgroup_event(CgroupEvent::Appeared { id, path, time });
    }
    for &id in seen.keys().filter(|id| !found.contains_key(id)) {
        identity.cgroup_event(CgroupEvent::Gone { id, time });
    }
    *seen = found;
}

fn scan(identity: &Identity) -> HashMap<u64, Vec<u8>> {
    let cgroups = identity.hierarchies().scan().cgroups;
    cgroups
        .into_iter()
        .map(|cgroup| (cgroup.id, cgroup.path))
        .collect()
}

fn show(container: &Container) {
    println!(
        "{:#018x} {} {}/{} {} [{}] {} image={} labels={:?}{}\n    {}",
        container.key.cgroup,
        container.runtime.as_str(),
        container.namespace,
        container.pod,
        container.name,
        container.workload,
        container.id.get(..12).unwrap_or(&container.id),
        container.image,
        container.labels,
        if container.ended.is_some() {
            " ended"
        } else {
            ""
        },
        container.cgroup_path,
    );
}

fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let ns = since_1970.map_or(0, |since| since.as_nanos());
    Timestamp(i64::try_from(ns).unwrap_or(i64::MAX))
}
