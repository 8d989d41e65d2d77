//! The application of the summary's model: an agent watches it from its start while its
//! scenario is played, and its summary must have every row that the scenario makes.

use super::{NODE, Shared, shared};
use anyhow::{Result, ensure};
use ethogram_e2e::{
    agent::{Agent, Setup, binary, only},
    dvwa::{DATABASE_POD, Dvwa, Scenario, WEB_POD},
    expected::{Expected, check, check_complete},
    node::NODE_ADDRESS,
    testbed,
};
use ethogram_model::Kind;
use ethogram_view::Subject;
use std::sync::LazyLock;

/// What the agent said of the application in the end.
struct Played {
    web: Subject,
    database: Subject,
    truth: Vec<Expected>,
    web_ip: String,
    /// The web pod's summary as people read it.
    text: String,
}

static PLAYED: Shared<Played> = LazyLock::new(|| play().map_err(|error| format!("{error:#}")));

const WEB: &[&str] = &["-n", "dvwa", "-p", WEB_POD];
const DATABASE: &[&str] = &["-n", "dvwa", "-p", DATABASE_POD];

fn play() -> Result<Played> {
    binary()?;
    let node = shared(&NODE)?;
    let dir = tempfile::tempdir()?;
    let cri = node.cri_socket();
    let agent = Agent::start(dir.path(), Setup::of_cri(&cri))?;
    let dvwa = Dvwa::start(node)?;
    let scenario = Scenario::default();
    dvwa.play(scenario)?;
    let truth = dvwa.truth(scenario);
    // Wait for all rows to come; which of them are wrong is what the tests say.
    if let Err(error) = agent.settled(WEB, |document| check(only(document)?, &truth)) {
        eprintln!("{error:#}");
    }
    let web = only(&agent.summary(WEB)?)?.clone();
    let database = only(&agent.summary(DATABASE)?)?.clone();
    let text = agent.ask(&[&["summary"], WEB].concat())?;
    agent.stop()?;
    // For whoever wants to see it: the summary of a real application.
    std::fs::write(testbed::state_dir().join("dvwa-web.txt"), &text)?;
    let web_ip = dvwa.web.ip.clone();
    Ok(Played {
        web,
        database,
        truth,
        web_ip,
        text,
    })
}

fn check_table(kind: Kind) -> Result<()> {
    let played = shared(&PLAYED)?;
    let rows: Vec<_> = played
        .truth
        .iter()
        .filter(|row| row.kind == kind)
        .cloned()
        .collect();
    ensure!(!rows.is_empty(), "the scenario has no {kind} rows");
    check(&played.web, &rows)
}

pub(super) fn the_header_names_the_pod() -> Result<()> {
    let web = &shared(&PLAYED)?.web;
    let text = |texts: &[ethogram_view::Printable]| {
        texts
            .iter()
            .map(|t| t.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    ensure!(text(&web.pods) == [WEB_POD], "pods {:?}", web.pods);
    ensure!(
        web.namespace.as_str() == "dvwa",
        "namespace {:?}",
        web.namespace
    );
    ensure!(
        text(&web.containers) == ["dvwa"],
        "containers {:?}",
        web.containers
    );
    ensure!(
        text(&web.images) == ["localhost/dvwa-web:1"],
        "images {:?}",
        web.images
    );
    ensure!(
        text(&web.runtimes) == ["containerd"],
        "runtimes {:?}",
        web.runtimes
    );
    ensure!(
        web.workload.kind.as_str() == "deployment" && web.workload.name.as_str() == "dvwa-web",
        "workload {:?}",
        web.workload
    );
    for (key, value) in [("app", "dvwa-web"), ("tier", "frontend")] {
        let found = web
            .labels
            .iter()
            .any(|(k, v)| k.as_str() == key && v.as_str() == value);
        ensure!(found, "no label {key}={value} in {:?}", web.labels);
    }
    Ok(())
}

pub(super) fn processes() -> Result<()> {
    check_table(Kind::Process)
}

pub(super) fn files() -> Result<()> {
    check_table(Kind::File)
}

pub(super) fn ingress() -> Result<()> {
    check_table(Kind::Ingress)
}

pub(super) fn egress() -> Result<()> {
    check_table(Kind::Egress)
}

pub(super) fn bind_points() -> Result<()> {
    check_table(Kind::Bind)
}

pub(super) fn system_calls() -> Result<()> {
    check_table(Kind::Syscall)
}

pub(super) fn capabilities() -> Result<()> {
    check_table(Kind::Capability)
}

pub(super) fn shells_come_from_the_runtime() -> Result<()> {
    let scenario = Scenario::default();
    let rows = shared(&PLAYED)?.web.table(Kind::Process);
    // What runc calls itself when it starts a container's process depends on its version:
    // a path, a memfd, a bind-mounted copy.
    let shells = rows
        .iter()
        .filter(|r| r.target.as_str() == "/usr/bin/bash" && r.source.as_str().contains("runc"));
    let count: u64 = shells.map(|row| row.count).sum();
    let expected = scenario.shells + scenario.local_visits;
    ensure!(
        count == expected,
        "runc started bash {expected} times, and the summary says {count}: {rows:?}"
    );
    Ok(())
}

pub(super) fn peers_are_named() -> Result<()> {
    let played = shared(&PLAYED)?;
    let egress = played.web.table(Kind::Egress).iter();
    let to_database: Vec<_> = egress.filter(|row| row.port == Some(3306)).collect();
    ensure!(!to_database.is_empty(), "no connection to the database");
    for row in to_database {
        ensure!(
            row.peer.as_str() == format!("pod/{DATABASE_POD}"),
            "the database's name: {row:?}"
        );
        ensure!(
            row.peer_namespace.as_str() == "dvwa",
            "the database's namespace: {row:?}"
        );
    }
    // The other end of the same connections.
    let ingress = played.database.table(Kind::Ingress).iter();
    let from_web =
        ingress.filter(|row| row.target.as_str() == played.web_ip && row.port == Some(3306));
    let visits: u64 = from_web.clone().map(|row| row.count).sum();
    ensure!(
        visits == Scenario::default().visits,
        "the database was asked {visits} times"
    );
    for row in from_web {
        ensure!(
            row.peer.as_str() == format!("pod/{WEB_POD}"),
            "the web pod's name: {row:?}"
        );
    }
    Ok(())
}

pub(super) fn nothing_is_lost() -> Result<()> {
    let played = shared(&PLAYED)?;
    check_complete(&played.web)?;
    check_complete(&played.database)?;
    for subject in [&played.web, &played.database] {
        ensure!(
            !subject.completeness.already_running,
            "watched from the start: {:?}",
            subject.completeness
        );
        ensure!(subject.instances == 1, "{} instances", subject.instances);
    }
    Ok(())
}

pub(super) fn the_text_is_as_the_model_shows_it() -> Result<()> {
    let text = &shared(&PLAYED)?.text;
    println!("\n{text}");
    for title in [
        "Pod Name",
        "Namespace Name",
        "Container Name",
        "Labels",
        "Process Data",
        "File Data",
        "Ingress connections",
        "Egress connections",
        "Bind Points",
        "SRC PROCESS",
        "DESTINATION PROCESS PATH",
        "DESTINATION FILE PATH",
        "POD/SVC/IP",
        "BIND PORT",
        "LAST UPDATED TIME",
        "STATUS",
    ] {
        ensure!(text.contains(title), "no {title} in:\n{text}");
    }
    // One row of each table, as somebody would look for it: all of these on one line.
    for row in [
        &["/usr/bin/bash", "/usr/bin/ls", "Allow"][..],
        &["/usr/bin/dash", "/usr/bin/tail", "Deny"],
        &["/usr/sbin/apache2", "/var/www/html/", "Allow"],
        &["/usr/sbin/apache2", "/etc/shadow", "Deny"],
        &["TCPv6", "/usr/sbin/apache2", NODE_ADDRESS, "80"],
        &["TCP", "/usr/sbin/apache2", DATABASE_POD, "3306", "dvwa"],
        &["AF_NETLINK", "/usr/bin/ping"],
    ] {
        let found = text
            .lines()
            .any(|line| row.iter().all(|word| line.contains(word)));
        ensure!(found, "no row with {row:?} in:\n{text}");
    }
    Ok(())
}
