//! An agent that starts after the pods says what is there already, and says that it was.

use super::{BUSYBOX, NODE, busybox_pod, reads, shared};
use anyhow::{Context, Result, ensure};
use ethogram_e2e::{
    agent::{Agent, Setup, only},
    dvwa::{Dvwa, Scenario, WEB_POD},
    expected::{check, is_at_start},
};
use ethogram_model::Kind;
use ethogram_view::{Row, Subject};

pub(super) fn running_pods_are_marked_present_at_start() -> Result<()> {
    let node = shared(&NODE)?;
    let dvwa = Dvwa::start(node)?;
    let dir = tempfile::tempdir()?;
    let cri = node.cri_socket();
    let agent = Agent::start(dir.path(), Setup::of_cri(&cri))?;
    let selection = ["-n", "dvwa", "-p", WEB_POD];
    agent.settled(&selection, |document| {
        let web = only(document)?;
        present(web, Kind::Process, |row| {
            row.target.as_str() == "/usr/sbin/apache2"
        })?;
        let listens = present(web, Kind::Bind, |row| row.port == Some(80))?;
        ensure!(
            listens.source.as_str() == "/usr/sbin/apache2",
            "who listens on 80: {listens:?}"
        );
        ensure!(web.completeness.already_running, "{:?}", web.completeness);
        Ok(())
    })?;
    // What happens from now on is counted, with nothing of what was there.
    let scenario = Scenario::default();
    dvwa.play(scenario)?;
    let truth = dvwa.truth(scenario);
    agent.settled(&selection, |document| check(only(document)?, &truth))?;
    agent.stop()
}

pub(super) fn listening_and_connected_sockets_are_found() -> Result<()> {
    let node = shared(&NODE)?;
    let server = node.run(&busybox_pod(
        "server",
        0x10,
        &["nc", "-ll", "-p", "7000", "-e", "/bin/cat"],
    ))?;
    server.wait_listening(7000)?;
    let keep_open = format!("sleep 1000 | nc {} 7000", server.ip);
    let client = node.run(&busybox_pod("client", 0x11, &["/bin/sh", "-c", &keep_open]))?;
    client.wait_connected(7000)?;
    let dir = tempfile::tempdir()?;
    let cri = node.cri_socket();
    let agent = Agent::start(dir.path(), Setup::of_cri(&cri))?;
    agent.settled(&["-n", "dvwa", "-p", "server"], |document| {
        let bind = present(only(document)?, Kind::Bind, |row| row.port == Some(7000))?;
        ensure!(
            bind.access.iter().any(|word| word.as_str() == "listen"),
            "{bind:?}"
        );
        present(only(document)?, Kind::Ingress, |row| {
            row.target.as_str() == client.ip && row.port == Some(7000)
        })?;
        Ok(())
    })?;
    agent.settled(&["-n", "dvwa", "-p", "client"], |document| {
        let egress = present(only(document)?, Kind::Egress, |row| {
            row.target.as_str() == server.ip && row.port == Some(7000)
        })?;
        ensure!(
            egress.source.as_str() == BUSYBOX && egress.peer.as_str() == "pod/server",
            "{egress:?}"
        );
        check(only(document)?, &[reads("/etc/hostname", 0)])
    })?;
    // The server has waited in accept() since before the agent began.
    let send = format!("echo hello | nc {} 7000; sleep 1000", server.ip);
    let late = node.run(&busybox_pod("late", 0x12, &["/bin/sh", "-c", &send]))?;
    agent.settled(&["-n", "dvwa", "-p", "server"], |document| {
        let rows = only(document)?.table(Kind::Ingress);
        let from_late =
            |row: &&Row| row.target.as_str() == late.ip || row.peer.as_str() == "pod/late";
        let mut of_late = rows.iter().filter(from_late);
        let accepted = of_late.next().context("no row of who came late")?;
        ensure!(
            accepted.count == 1 && !is_at_start(accepted) && of_late.next().is_none(),
            "{rows:?}"
        );
        Ok(())
    })?;
    agent.stop()
}

/// A row of what was there when the watch began.
fn present(subject: &Subject, kind: Kind, is: impl Fn(&Row) -> bool) -> Result<&Row> {
    let rows = subject.table(kind);
    rows.iter()
        .find(|row| is_at_start(row) && is(row))
        .with_context(|| format!("no such {kind} row is marked present at start: {rows:?}"))
}
