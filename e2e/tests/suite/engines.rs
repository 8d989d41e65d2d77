//! Containers of engines without Kubernetes have their name, image, labels and owner.

use super::{BUSYBOX, reads};
use anyhow::{Result, ensure};
use ethogram_e2e::{
    agent::{Agent, Setup, of_id},
    engine::{Docker, Podman},
    expected::{Count, Expected, check, check_complete},
    sockets::wait_listening,
};
use ethogram_model::{Kind, Protocol};
use ethogram_view::{Printable, Subject};

const TIMES: u64 = 5;
const IMAGE: &str = "localhost/busybox:1";

pub(super) fn docker_containers_are_named() -> Result<()> {
    let engine = Docker::up()?;
    let dir = tempfile::tempdir()?;
    let socket = engine.socket();
    let agent = Agent::start(
        dir.path(),
        Setup {
            docker: Some(&socket),
            ..Setup::default()
        },
    )?;
    let web = engine.docker(&[
        "run",
        "-d",
        "--name",
        "shop-web-1",
        "--label",
        "com.docker.compose.project=shop",
        "--label",
        "com.docker.compose.service=web",
        "--label",
        "tier=front",
        IMAGE,
        "httpd",
        "-f",
        "-p",
        "80",
        "-h",
        "/www",
    ])?;
    let client = engine.docker(&["run", "-d", "--name", "client", IMAGE, "sleep", "1000"])?;
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let web_ip = engine.docker(&["inspect", "-f", format, &web])?;
    let client_ip = engine.docker(&["inspect", "-f", format, &client])?;
    let pid = engine.docker(&["inspect", "-f", "{{.State.Pid}}", &web])?;
    wait_listening(pid.parse()?, 80)?;
    for _ in 0..TIMES {
        let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc {web_ip} 80");
        let said = engine.docker(&["exec", &client, "/bin/sh", "-c", &ask])?;
        ensure!(said.contains("hello"), "the web container said {said}");
    }
    let asked = |kind, ip: &str| {
        Expected::network(kind, BUSYBOX, ip, 80, Protocol::Tcp, Count::Exactly(TIMES))
    };
    let served = Expected {
        protocol: Protocol::Tcp6,
        ..asked(Kind::Ingress, &client_ip)
    };
    agent.settled(&[], |document| {
        let subject = of_id(document, &web)?;
        named(subject, "shop-web-1", "docker", "compose", "shop/web")?;
        has_label(subject, "tier", "front")?;
        check(subject, std::slice::from_ref(&served))?;
        let subject = of_id(document, &client)?;
        named(subject, "client", "docker", "container", "client")?;
        check(subject, &[asked(Kind::Egress, &web_ip)])
    })?;
    agent.stop()?;
    engine.docker(&["rm", "-f", &web, &client])?;
    Ok(())
}

pub(super) fn hostile_names_are_escaped() -> Result<()> {
    let engine = Docker::up()?;
    let dir = tempfile::tempdir()?;
    let socket = engine.socket();
    let setup = Setup {
        docker: Some(&socket),
        ..Setup::default()
    };
    let agent = Agent::start(dir.path(), setup)?;
    let label = "evil=red\x1b[31m\nPod Name  forged";
    let id = engine.docker(&[
        "run", "-d", "--name", "hostile", "--label", label, IMAGE, "sleep", "1000",
    ])?;
    // A name that clears the screen, breaks the line and is no UTF-8.
    let write = r#"echo > "$(printf '/tmp/a\033[2J\nb\377')""#;
    engine.docker(&["exec", &id, "/bin/sh", "-c", write])?;
    let row = Expected::new(
        Kind::File,
        BUSYBOX,
        r"/tmp/a\x1b[2J\x0ab\xff",
        Count::Exactly(1),
    );
    agent.settled(&[], |document| {
        check(of_id(document, &id)?, std::slice::from_ref(&row))
    })?;
    for format in ["text", "csv", "html"] {
        let said = agent.ask(&["summary", "-o", format, "-c", "hostile"])?;
        ensure!(
            said.contains("hostile"),
            "the container is not in {format}: {said:?}"
        );
        ensure!(
            !said.contains('\x1b'),
            "an escape character is in {format}: {said:?}"
        );
        let forged = said
            .lines()
            .any(|line| line.starts_with("Pod Name  forged"));
        ensure!(!forged, "a label breaks the line in {format}: {said:?}");
    }
    agent.stop()?;
    engine.docker(&["rm", "-f", &id])?;
    Ok(())
}

pub(super) fn podman_containers_are_named_from_its_files() -> Result<()> {
    let engine = Podman::up()?;
    let storage = engine.storage();
    let setup = Setup {
        podman: Some(&storage),
        ..Setup::default()
    };
    // Its files do not tell labels.
    podman_container_is_named(&engine, setup, &[])
}

pub(super) fn podman_containers_are_named_by_its_service() -> Result<()> {
    let engine = Podman::up()?;
    let (_service, socket) = engine.serve()?;
    let setup = Setup {
        docker: Some(&socket),
        ..Setup::default()
    };
    podman_container_is_named(&engine, setup, &[("tier", "back")])
}

fn podman_container_is_named(engine: &Podman, setup: Setup, labels: &[(&str, &str)]) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let agent = Agent::start(dir.path(), setup)?;
    let id = engine.podman(&[
        "run",
        "-d",
        "--name",
        "reader",
        "--label",
        "tier=back",
        IMAGE,
        "sleep",
        "1000",
    ])?;
    for _ in 0..TIMES {
        engine.podman(&["exec", &id, "/bin/cat", "/www/index.html"])?;
    }
    agent.settled(&[], |document| {
        let subject = of_id(document, &id)?;
        named(subject, "reader", "podman", "container", "reader")?;
        for (key, value) in labels {
            has_label(subject, key, value)?;
        }
        check(subject, &[reads("/www/index.html", TIMES)])?;
        check_complete(subject)
    })?;
    agent.stop()?;
    engine.podman(&["rm", "-f", "-t", "0", &id])?;
    Ok(())
}

fn named(subject: &Subject, name: &str, runtime: &str, kind: &str, owner: &str) -> Result<()> {
    let texts = |texts: &[Printable]| {
        texts
            .iter()
            .map(|t| t.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    ensure!(
        texts(&subject.containers) == [name],
        "names {:?}",
        subject.containers
    );
    ensure!(
        texts(&subject.images) == [IMAGE],
        "images {:?}",
        subject.images
    );
    ensure!(
        texts(&subject.runtimes) == [runtime],
        "runtimes {:?}",
        subject.runtimes
    );
    let workload = &subject.workload;
    ensure!(
        workload.kind.as_str() == kind && workload.name.as_str() == owner,
        "owner {workload:?}"
    );
    Ok(())
}

fn has_label(subject: &Subject, key: &str, value: &str) -> Result<()> {
    let has = subject
        .labels
        .iter()
        .any(|(k, v)| k.as_str() == key && v.as_str() == value);
    ensure!(has, "no label {key}={value} in {:?}", subject.labels);
    Ok(())
}
