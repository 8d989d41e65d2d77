//! Pods that share the node's namespaces are told from it, and from one another, by their
//! cgroups.

use super::{BUSYBOX, NODE, busybox_pod, reads, shared};
use anyhow::{Context, Result, ensure};
use ethogram_e2e::{
    agent::{Agent, Setup, only},
    expected::{Count, Expected, check, check_complete},
    node::{NODE_ADDRESS, PodSpec},
};
use ethogram_model::{Kind, Protocol};

const TIMES: u64 = 5;
const PORT: u16 = 80;

/// A server in the node's network, and clients in its pid namespace and in both.
pub(super) fn pods_in_them_are_told_apart_from_the_node() -> Result<()> {
    let node = shared(&NODE)?;
    let dir = tempfile::tempdir()?;
    let cri = node.cri_socket();
    let setup = Setup::of_cri(&cri);
    let agent = Agent::start(dir.path(), setup)?;
    let server = node.run(&PodSpec {
        host_network: true,
        ..busybox_pod(
            "host-network",
            0x60,
            &["httpd", "-f", "-p", "80", "-h", "/www"],
        )
    })?;
    let sleeper = |name, number| busybox_pod(name, number, &["sleep", "1000"]);
    let in_pids = node.run(&PodSpec {
        host_pid: true,
        ..sleeper("host-pid", 0x61)
    })?;
    let in_both = node.run(&PodSpec {
        host_network: true,
        host_pid: true,
        ..sleeper("host-both", 0x62)
    })?;
    server.wait_listening(PORT)?;
    for client in [&in_pids, &in_both] {
        // Process 1 is not one of the container's.
        let first = client.exec(&["/bin/cat", "/proc/1/comm"])?.stdout;
        ensure!(first.trim() != "sleep", "it has pids of its own");
        for _ in 0..TIMES {
            // Its input ends at once, and with it the connection.
            let ended = client.exec(&["/bin/nc", NODE_ADDRESS, "80"])?;
            ensure!(ended.code == 0, "nc said {}", ended.stderr);
            client.exec(&["/bin/sh", "-c", "/bin/cat /etc/hostname; true"])?;
        }
    }
    for _ in 0..TIMES {
        server.get("/")?;
    }
    let served = |peer: &str, times| {
        let count = Count::Exactly(times);
        Expected::network(Kind::Ingress, BUSYBOX, peer, PORT, Protocol::Tcp6, count)
    };
    let asked = |times| {
        let count = Count::Exactly(times);
        let kind = Kind::Egress;
        Expected::network(kind, BUSYBOX, NODE_ADDRESS, PORT, Protocol::Tcp, count)
    };
    let bound = |times| {
        let count = Count::Exactly(times);
        Expected::network(Kind::Bind, BUSYBOX, "::", PORT, Protocol::Tcp6, count)
    };
    let forked = |times| Expected::new(Kind::Process, BUSYBOX, BUSYBOX, Count::Exactly(times));
    let client = vec![
        asked(TIMES),
        bound(0),
        forked(TIMES),
        reads("/etc/hostname", TIMES),
        reads("/www/index.html", 0),
    ];
    let truth = [
        (
            "host-network",
            vec![
                // From the node itself, and from the client in its network.
                served(NODE_ADDRESS, 2 * TIMES),
                served(&in_pids.ip, TIMES),
                asked(0),
                reads("/etc/hostname", 0),
                reads("/www/index.html", TIMES),
            ],
        ),
        ("host-pid", client.clone()),
        ("host-both", client),
    ];
    for (pod, truth) in truth {
        agent.settled(&["-n", "dvwa", "-p", pod], |document| {
            let subject = only(document)?;
            check_complete(subject)?;
            check(subject, &truth).context(pod)
        })?;
    }
    agent.stop()
}
