//! Containers that come and go faster than anybody could ask who they are.

use super::{NODE, busybox_pod, container, reads, shared};
use anyhow::{Context, Result, ensure};
use ethogram_e2e::{
    agent::{Agent, Setup, of_id},
    expected::{check, check_complete},
    testbed::run_script,
};
use ethogram_model::Kind;

/// Containers that only a cgroup names.
const CONTAINERS: usize = 500;
/// Containers that a runtime names.
const NAMED_CONTAINERS: u16 = 20;

pub(super) fn five_hundred_containers_are_told_apart() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let agent = Agent::start(dir.path(), Setup::default())?;
    let list = run_script("churn.sh", &[&CONTAINERS.to_string()])?;
    let list: Vec<_> = list
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    ensure!(list.len() == CONTAINERS, "{} containers ran", list.len());
    agent.settled(&[], |document| {
        for (id, path) in &list {
            let subject = of_id(document, id)?;
            check(subject, &[reads(path, 1)]).with_context(|| format!("container {id}"))?;
            check_complete(subject)?;
            ensure!(
                !subject.completeness.already_running,
                "{id} began under watch"
            );
            // Its own mark, and nobody else's.
            let marks = subject
                .table(Kind::File)
                .iter()
                .filter(|row| row.target.as_str().starts_with("/marks/"));
            ensure!(
                marks.count() == 1,
                "container {id} has others' rows: {:?}",
                subject.table(Kind::File)
            );
        }
        Ok(())
    })?;
    agent.stop()
}

pub(super) fn short_lived_containers_of_a_pod_are_named() -> Result<()> {
    let node = shared(&NODE)?;
    let dir = tempfile::tempdir()?;
    let cri = node.cri_socket();
    let agent = Agent::start(dir.path(), Setup::of_cri(&cri))?;
    let pod = node.run(&busybox_pod("jobs", 0x40, &["sleep", "1000"]))?;
    let mut ids = Vec::new();
    for n in 0..NAMED_CONTAINERS {
        let id = pod.start(&container(
            &format!("job-{n}"),
            &["/bin/cat", "/etc/hostname"],
        ))?;
        ensure!(node.cri().wait_container(&id)? == 0, "job-{n} failed");
        // As a kubelet leaves it: ended, and removed with its pod.
        ids.push(id);
    }
    agent.settled(&["-n", "dvwa", "-p", "jobs"], |document| {
        for (n, id) in ids.iter().enumerate() {
            let subject = of_id(document, id)?;
            let names: Vec<_> = subject
                .containers
                .iter()
                .map(ethogram_view::Printable::as_str)
                .collect();
            ensure!(
                names == [format!("job-{n}")],
                "container {id} is called {names:?}"
            );
            check(subject, &[reads("/etc/hostname", 1)])?;
            check_complete(subject)?;
        }
        Ok(())
    })?;
    agent.stop()
}
