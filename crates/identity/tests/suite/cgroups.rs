//! Cgroups from the scan and from events.

use crate::agent::{Host, ID, OTHER};
use ethogram_identity::Tracking;
use std::{fs, os::unix::fs::MetadataExt};

#[test]
fn a_scan_finds_what_no_event_told() {
    let host = Host::new();
    let folder = host.path("cgroup").join("docker").join(ID);
    fs::create_dir_all(&folder).unwrap();
    let id = fs::metadata(&folder).unwrap().ino();
    let mut agent = host.agent(&[]);
    let now = agent.now();
    let updates = agent.identity.poll(now);
    assert!(updates.tracking.contains(&(id, Tracking::Track)));
    assert_eq!(
        updates
            .tracking
            .iter()
            .filter(|(_, t)| *t == Tracking::Ignore)
            .count(),
        2
    );
    assert!(updates.containers[0].present_at_start);

    let missed = host.path("cgroup").join("docker").join(OTHER);
    fs::create_dir(&missed).unwrap();
    fs::remove_dir(&folder).unwrap();
    agent.poll();
    assert!(
        agent
            .container(fs::metadata(&missed).unwrap().ino())
            .is_none(),
        "no event, no scan"
    );
    agent.pass(ethogram_identity::RESCAN_S);
    agent.poll();
    let found = agent
        .container(fs::metadata(&missed).unwrap().ino())
        .unwrap();
    assert!(!found.present_at_start && found.ended.is_none());
    assert!(agent.container(id).unwrap().ended.is_some());
}

#[test]
fn an_id_that_is_used_again_is_another_container() {
    let mut agent = Host::new().agent(&[]);
    agent.appeared(7, &format!("/docker/{ID}"));
    agent.gone(7);
    agent.appeared(7, &format!("/docker/{OTHER}"));
    agent.poll();
    assert_eq!(agent.containers["7 0"].id, ID);
    assert!(agent.containers["7 0"].ended.is_some());
    assert_eq!(agent.containers["7 1"].id, OTHER);
    assert_eq!(
        agent.identity.container_of(7),
        Some(&agent.containers["7 1"])
    );
}
