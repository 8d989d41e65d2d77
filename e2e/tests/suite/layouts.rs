//! The same small workload where cgroups look different.

use super::{BUSYBOX, busybox_pod, reads};
use anyhow::{Result, ensure};
use ethogram_e2e::{
    agent::{Agent, Setup, only},
    expected::{Count, Expected, check, check_complete},
    node::{CgroupNames, Layout, NODE_ADDRESS, Node},
};
use ethogram_model::{Kind, Protocol};

const TIMES: u64 = 5;

pub(super) fn v1_hierarchies_only() -> Result<()> {
    two_pods_are_told_apart("v1", Layout::V1, CgroupNames::Cgroupfs, 0x100)
}

pub(super) fn v2_hierarchy_only() -> Result<()> {
    two_pods_are_told_apart("v2", Layout::V2, CgroupNames::Cgroupfs, 0x200)
}

pub(super) fn names_of_the_systemd_driver() -> Result<()> {
    two_pods_are_told_apart("systemd", Layout::Host, CgroupNames::Systemd, 0x300)
}

fn two_pods_are_told_apart(
    name: &str,
    layout: Layout,
    names: CgroupNames,
    number: u16,
) -> Result<()> {
    let node = Node::up(name, layout, names, &[])?;
    let dir = tempfile::tempdir()?;
    let cri = node.cri_socket();
    // The agent sees the hierarchies as a machine of that kind shows them.
    let setup = Setup {
        node: Some(&node),
        cri: Some(&cri),
        ..Setup::default()
    };
    let agent = Agent::start(dir.path(), setup)?;
    let server = node.run(&busybox_pod(
        "server",
        number,
        &["httpd", "-f", "-p", "80", "-h", "/www"],
    ))?;
    let reader = node.run(&busybox_pod("reader", number + 1, &["sleep", "1000"]))?;
    server.wait_listening(80)?;
    for _ in 0..TIMES {
        server.get("/")?;
        reader.exec(&["/bin/sh", "-c", "/bin/cat /etc/hostname; true"])?;
    }
    let served = Expected::network(
        Kind::Ingress,
        BUSYBOX,
        NODE_ADDRESS,
        80,
        Protocol::Tcp6,
        Count::Exactly(TIMES),
    );
    let forked = Expected::new(Kind::Process, BUSYBOX, BUSYBOX, Count::Exactly(TIMES));
    let none = |row: &Expected| Expected {
        count: Count::Exactly(0),
        ..row.clone()
    };
    let truth = [
        (
            "server",
            vec![
                served.clone(),
                none(&forked),
                reads("/www/index.html", TIMES),
            ],
        ),
        (
            "reader",
            vec![none(&served), forked.clone(), reads("/etc/hostname", TIMES)],
        ),
    ];
    for (pod, truth) in truth {
        agent.settled(&["-n", "dvwa", "-p", pod], |document| {
            let subject = only(document)?;
            let labelled = subject
                .labels
                .iter()
                .any(|(k, v)| k.as_str() == "app" && v.as_str() == pod);
            ensure!(labelled, "labels {:?}", subject.labels);
            check_complete(subject)?;
            check(subject, &truth)
        })?;
    }
    agent.stop()?;
    drop((server, reader));
    node.down()
}
