//! Docker, well and badly behaved.

use crate::{
    agent::{Agent, Host, ID},
    fake_docker::FakeDocker,
};
use ethogram_identity::{RuntimeState, facts::Source, runtimes::ANSWER_BYTES_MAX};
use ethogram_model::Runtime;

const SOCKET: &str = "docker.sock";

fn host_with_agent() -> (Host, FakeDocker, Agent) {
    let host = Host::new();
    let docker = FakeDocker::start(&host.path(SOCKET));
    let agent = host.agent(&[(Source::Docker, SOCKET)]);
    (host, docker, agent)
}

fn path() -> String {
    format!("/system.slice/docker-{ID}.scope")
}

const WEB: &str = r#"[{"Id":"ID","Names":["/web"],"Image":"nginx:1","State":"running","Created":5,
    "Labels":{"com.docker.compose.project":"shop","com.docker.compose.service":"web"},
    "NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2"}}}}]"#;

#[test]
fn a_listed_container_is_named() {
    let (_host, docker, mut agent) = host_with_agent();
    agent.until_answers();
    agent.appeared(7, &path());
    agent.poll();
    docker.list(WEB);
    agent.until_named(7, "web");
    let container = agent.container(7).unwrap();
    assert_eq!(container.workload.to_string(), "compose/shop/web");
    assert_eq!(
        (container.runtime, container.image.as_str()),
        (Runtime::Docker, "nginx:1")
    );
    assert_eq!(
        agent.addresses(),
        [("172.17.0.2".to_owned(), "container/web", false)]
    );
    assert_eq!(agent.endpoints[0].from, container.watched_since);
    docker.list("[]");
    agent.gone(7);
    agent.poll();
    assert!(agent.endpoints[1].until.is_some());
}

#[test]
fn a_container_that_is_in_no_list_is_named_by_its_events() {
    let (_host, docker, mut agent) = host_with_agent();
    agent.until_answers();
    // In two parts, with an event that says nothing before it.
    docker.event("{\"Type\":\"container\",\"Action\":\"exec_die\",\"Actor\":{}}\n\n{\"Action\":\"create\",\"Act");
    docker.event("or\":{\"ID\":\"ID\",\"Attributes\":{\"name\":\"quick\",\"image\":\"busybox:1\",\"app\":\"x\"}}}\n");
    agent.appeared(7, &path());
    agent.gone(7);
    agent.until_named(7, "quick");
    let container = agent.container(7).unwrap();
    assert_eq!(
        (container.image.as_str(), container.labels["app"].as_str()),
        ("busybox:1", "x")
    );
    assert!(container.ended.is_some());
}

#[test]
fn a_daemon_that_restarts_is_found_again() {
    let (host, docker, mut agent) = host_with_agent();
    agent.until_answers();
    drop(docker);
    agent.appeared(7, &path());
    agent.until_fails("");
    let docker = FakeDocker::start(&host.path(SOCKET));
    docker.list(WEB);
    agent.until_named(7, "web");
}

#[test]
fn nonsense_is_a_failure_and_not_an_end() {
    for (nonsense, why) in [
        ("<html>", "cannot be understood"),
        (r#"[{"Names":["/no-id"]}]"#, "cannot be understood"),
        ("", "cannot be understood"),
    ] {
        let (_host, docker, mut agent) = host_with_agent();
        docker.list(nonsense);
        agent.appeared(7, &path());
        agent.until_fails(why);
        docker.list(WEB);
        agent.until_named(7, "web");
    }
}

#[test]
fn an_event_that_is_nonsense_is_a_failure_and_not_an_end() {
    let (_host, docker, mut agent) = host_with_agent();
    agent.until_answers();
    docker.event("nonsense\n");
    agent.until_fails("/events");
    docker.list(WEB);
    agent.appeared(7, &path());
    agent.until_named(7, "web");
}

#[test]
fn an_answer_that_is_too_large_is_a_failure() {
    let (_host, docker, mut agent) = host_with_agent();
    docker.list(&format!("[{}]", " ".repeat(ANSWER_BYTES_MAX)));
    agent.until_fails("/containers/json?all=1 is larger than");
}

#[test]
fn a_daemon_that_hangs_is_a_failure_and_not_an_end() {
    let (_host, docker, mut agent) = host_with_agent();
    docker.hangs(true);
    docker.list(WEB);
    agent.appeared(7, &path());
    agent.until_fails("hangs");
    docker.hangs(false);
    agent.until_named(7, "web");
}

#[test]
fn podmans_service_is_podman() {
    let host = Host::new();
    let docker = FakeDocker::start(&host.path(SOCKET));
    docker.version(r#"{"Version":"4.3.1","Components":[{"Name":"Podman Engine"}]}"#);
    docker.list(WEB);
    let mut agent = host.agent(&[(Source::Docker, SOCKET)]);
    agent.until_answers();
    let is_podman = |s: &RuntimeState| matches!(s, RuntimeState::Answers { version, .. } if version == "podman 4.3.1");
    assert!(agent.states.values().any(is_podman));
    agent.appeared(7, &path());
    agent.until_named(7, "web");
    assert_eq!(agent.container(7).unwrap().runtime, Runtime::Podman);
}
