//! containerd and CRI-O, well and badly behaved.

use crate::{
    agent::{Agent, Host, ID, OTHER},
    fake_cri::{FakeCri, proto},
    fake_docker::FakeDocker,
};
use ethogram_identity::{RuntimeState, SANDBOX_NAME, facts::Source, runtimes::ANSWER_BYTES_MAX};
use ethogram_model::Runtime;
use std::{io::Write, os::unix::net::UnixListener};

const SOCKET: &str = "cri.sock";

fn host_with_agent() -> (Host, FakeCri, Agent) {
    let host = Host::new();
    let cri = FakeCri::start(&host.path(SOCKET));
    let agent = host.agent(&[(Source::Cri, SOCKET)]);
    (host, cri, agent)
}

fn path(id: &str) -> String {
    format!("/kubepods/pod0d7a1c52-3f7e-4c1b-9a55-6f1e2d3c4b5a/{id}")
}

#[test]
fn a_name_comes_later_than_the_first_event() {
    let (_host, cri, mut agent) = host_with_agent();
    agent.until_answers();
    agent.appeared(7, &path(ID));
    agent.appeared(8, &path(OTHER));
    agent.poll();
    assert_eq!(agent.container(7).unwrap().name, "", "nobody told it");
    assert_eq!(
        agent.container(7).unwrap().pod_uid,
        "0d7a1c52-3f7e-4c1b-9a55-6f1e2d3c4b5a"
    );
    cri.state()
        .add_pod("web-abc-x1", OTHER, Some(ID), "10.0.0.5");
    agent.until_named(7, "main");
    agent.until_named(8, SANDBOX_NAME);
    let container = agent.container(7).unwrap();
    assert_eq!(
        (container.namespace.as_str(), container.pod.as_str()),
        ("shop", "web-abc-x1")
    );
    assert_eq!(container.runtime, Runtime::Containerd);
    assert_eq!(container.workload.to_string(), "deployment/web");
    assert_eq!(container.image, "localhost/web:1");
    assert_eq!(
        container.labels.iter().collect::<Vec<_>>(),
        [(&"app".to_owned(), &"web".to_owned())]
    );
    assert_eq!(
        agent.addresses(),
        [("10.0.0.5".to_owned(), "pod/web-abc-x1", false)]
    );
}

#[test]
fn a_container_that_lived_50_ms_is_named() {
    let (_host, cri, mut agent) = host_with_agent();
    agent.until_answers();
    agent.appeared(7, &path(ID));
    agent.gone(7);
    // The runtime keeps what exited.
    cri.state().add_pod("job-x1", OTHER, Some(ID), "10.0.0.5");
    agent.until_named(7, "main");
    assert!(agent.container(7).unwrap().ended.is_some());
}

#[test]
fn a_runtime_that_starts_later_or_again_is_found() {
    let host = Host::new();
    let mut agent = host.agent(&[(Source::Cri, SOCKET)]);
    agent.appeared(7, &path(ID));
    agent.until("its absence", |agent| {
        agent.states.values().any(|s| *s == RuntimeState::Absent)
    });
    let cri = FakeCri::start(&host.path(SOCKET));
    cri.state().add_pod("web-1", OTHER, Some(ID), "10.0.0.5");
    agent.until_named(7, "main");
    drop(cri);
    agent.appeared(9, &path(&ID.replace('0', "f")));
    agent.until_fails("");
    let cri = FakeCri::start(&host.path(SOCKET));
    cri.state()
        .add_pod("web-2", "another", Some(&ID.replace('0', "f")), "10.0.0.6");
    agent.until_named(9, "main");
    assert_eq!(
        agent.container(7).unwrap().pod,
        "web-1",
        "what was known stays"
    );
}

#[test]
fn a_runtime_that_hangs_delays_nobody_else() {
    let host = Host::new();
    let cri = FakeCri::start(&host.path(SOCKET));
    cri.state().hangs = true;
    let docker = FakeDocker::start(&host.path("docker.sock"));
    docker.list(r#"[{"Id":"ID","Names":["/other"],"State":"running"}]"#);
    let mut agent = host.agent(&[(Source::Cri, SOCKET), (Source::Docker, "docker.sock")]);
    agent.appeared(7, &path(OTHER));
    agent.appeared(8, &format!("/docker/{ID}"));
    agent.until_named(8, "other");
    agent.until_fails("hangs");
    cri.state()
        .add_pod("web-1", "sandbox", Some(OTHER), "10.0.0.5");
    cri.state().hangs = false;
    agent.until_named(7, "main");
}

#[test]
fn an_answer_that_is_too_large_is_a_failure_and_not_an_end() {
    let (_host, cri, mut agent) = host_with_agent();
    agent.until_answers();
    cri.state().add_pod("web-1", OTHER, Some(ID), "10.0.0.5");
    cri.state().sandboxes[0]
        .labels
        .insert("huge".into(), "x".repeat(ANSWER_BYTES_MAX));
    agent.appeared(7, &path(ID));
    agent.until_fails("ListPodSandbox is larger than");
    cri.state().sandboxes[0].labels.remove("huge");
    agent.until_named(7, "main");
}

#[test]
fn garbage_is_a_failure() {
    let host = Host::new();
    let listener = UnixListener::bind(host.path(SOCKET)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // The other side may hang up before all is written.
            let _ = stream.unwrap().write_all(&[0xff; 4096]);
        }
    });
    let mut agent = host.agent(&[(Source::Cri, SOCKET)]);
    agent.until_fails("answer to Version cannot be understood");
}

#[test]
fn an_address_names_the_pod_that_has_it_now() {
    let (_host, cri, mut agent) = host_with_agent();
    cri.state().add_pod("web-1", OTHER, Some(ID), "10.0.0.5");
    agent.until("the first", |agent| agent.endpoints.len() == 1);
    {
        let mut state = cri.state();
        state.sandboxes.clear();
        state.containers.clear();
        state.add_pod("db-1", "another", None, "10.0.0.5");
        state.sandboxes[0].created_at = 9;
        state
            .network
            .get_mut("another")
            .unwrap()
            .0
            .push("fd00::5".into());
        // One on the node's network, which the runtime tells the node's address of.
        state.add_pod("proxy-1", "proxy", None, "192.168.0.1");
        state.network.get_mut("proxy").unwrap().1 = true;
    }
    agent.appeared(7, &path("nobody"));
    agent.appeared(8, &path(OTHER));
    agent.until("all", |agent| agent.endpoints.len() >= 4);
    let expected = [
        ("10.0.0.5", "pod/web-1", false),
        ("10.0.0.5", "pod/web-1", true),
        ("10.0.0.5", "pod/db-1", false),
        ("fd00::5", "pod/db-1", false),
    ];
    assert_eq!(
        agent.addresses(),
        expected.map(|(ip, name, ended)| (ip.to_owned(), name, ended))
    );
}

#[test]
fn the_end_of_a_sandbox_ends_its_address() {
    let (_host, cri, mut agent) = host_with_agent();
    agent.appeared(8, &path(OTHER));
    cri.state().add_pod("web-1", OTHER, None, "10.0.0.5");
    agent.until("the address", |agent| agent.endpoints.len() == 1);
    agent.gone(8);
    agent.poll();
    assert_eq!(agent.endpoints[1].until, agent.container(8).unwrap().ended);
}

#[test]
fn an_image_that_is_listed_by_digest_is_asked_for() {
    let (_host, cri, mut agent) = host_with_agent();
    {
        let mut state = cri.state();
        state.add_pod("web-1", OTHER, Some(ID), "10.0.0.5");
        let image = format!("sha256:{ID}");
        state.containers[0].image = Some(proto::ImageSpec {
            image,
            ..Default::default()
        });
        state.images.insert(ID.into(), "localhost/web:2".into());
    }
    agent.appeared(7, &path(ID));
    agent.until_named(7, "main");
    assert_eq!(agent.container(7).unwrap().image, "localhost/web:2");
}

#[test]
fn announcements_are_heard_where_there_are_any() {
    let host = Host::new();
    let cri = FakeCri::start(&host.path(SOCKET));
    cri.state().announces = true;
    let mut agent = host.agent(&[(Source::Cri, SOCKET)]);
    agent.until("a listener", |_| cri.state().has_listener());
    let heard = |s: &RuntimeState| {
        matches!(
            s,
            RuntimeState::Answers {
                announces: true,
                ..
            }
        )
    };
    cri.state().announce();
    agent.until("an announcement", |agent| agent.states.values().any(heard));
}

#[test]
fn hostile_names_are_escaped() {
    let (_host, cri, mut agent) = host_with_agent();
    {
        let mut state = cri.state();
        state.add_pod("web-1\x1b[31m", OTHER, Some(ID), "no address\n");
        state.sandboxes[0]
            .labels
            .insert("a\nb".into(), "\u{202e}".into());
        state.containers[0].metadata = Some(proto::ContainerMetadata {
            name: "m\x07".into(),
        });
    }
    agent.appeared(7, &path(ID));
    agent.until_named(7, r"m\x07");
    let container = agent.container(7).unwrap();
    assert_eq!(container.pod, r"web-1\x1b[31m");
    assert_eq!(container.labels[r"a\x0ab"], r"\xe2\x80\xae");
    assert!(agent.endpoints.is_empty());
}
