//! Starting, ending, crashing.

use std::{
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    container::Container,
    daemon::{Agent, ethogram, isolated, reads, stored, until},
};

#[test]
fn what_a_container_did_is_in_the_next_answer() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path(), &[]);
    let container = Container::new();
    for round in 1..=3 {
        container.read(7);
        let subject = agent.subject(&container);
        assert_eq!(reads(&subject), 7 * round);
        assert!(subject.completeness.complete, "{:?}", subject.completeness);
    }
    let listed = agent.listed(&container);
    assert_eq!(listed["id"], container.id);
    assert_eq!(listed["runtime"], "docker");
    assert_eq!(listed["state"], "watched");
    assert_eq!(listed["losses"], serde_json::json!([]));
    drop(container);
    agent.stop();
}

#[test]
fn the_service_manager_hears_how_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = isolated(folder.path(), ethogram());
    command.env("WATCHDOG_USEC", "200000");
    let mut agent = Agent::start_as(folder.path(), command);
    agent.await_notice("WATCHDOG=1");
    agent.signal(Signal::HUP);
    agent.await_notice("WATCHDOG=1");
    until("SIGHUP is not answered", || {
        agent.log().contains("SIGHUP changes nothing").then_some(())
    });
    agent.signal(Signal::INT);
    agent.await_notice("STOPPING=1");
    assert!(agent.wait().success());
    assert!(!folder.path().join("socket").exists());
    assert!(!folder.path().join("data/ethogram.db.lock").exists());
}

#[test]
fn an_abstract_notify_socket_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("ethogram-test-{}", std::process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut command = isolated(folder.path(), ethogram());
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let mut text = [0; 64];
    let heard = manager.recv(&mut text);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(&text[..heard.unwrap()], b"READY=1");
}

#[test]
fn a_polite_end_writes_everything() {
    let folder = tempfile::tempdir().unwrap();
    let container = Container::new();
    let agent = Agent::start(folder.path(), &[]);
    container.read(1_000);
    agent.stop();
    let subject = stored(folder.path(), &container);
    assert_eq!(reads(&subject), 1_000);
    assert!(subject.completeness.broken_off.is_empty());
}

#[test]
fn after_a_crash_the_totals_go_on_and_the_gap_is_stated() {
    let folder = tempfile::tempdir().unwrap();
    let container = Container::new();
    let mut expected = 0;
    for crashes in 0..3 {
        let agent = Agent::start(folder.path(), &[]);
        container.read(10);
        expected += 10;
        let subject = agent.subject(&container);
        assert_eq!(reads(&subject), expected, "after {crashes} crashes");
        assert_eq!(subject.instances, 1);
        let completeness = subject.completeness;
        assert_eq!(completeness.gaps.len(), crashes, "{completeness:?}");
        assert_eq!(completeness.broken_off.len(), crashes, "{completeness:?}");
        assert_eq!(completeness.complete, crashes == 0);
        agent.kill();
        // Nobody watches this.
        container.read(100);
    }
}
