//! A container that is seen before its runtime can be asked gets its name later, with all
//! that it did until then.

use super::{NODE, busybox_pod, reads, shared};
use anyhow::{Result, ensure};
use ethogram_e2e::{
    agent::{Agent, Setup, of_id, only},
    expected::{check, check_complete},
};

const READS: u64 = 5;

pub(super) fn events_before_the_name_get_it_later() -> Result<()> {
    let node = shared(&NODE)?;
    let dir = tempfile::tempdir()?;
    let cri = dir.path().join("late.sock");
    let agent = Agent::start(dir.path(), Setup::of_cri(&cri))?;
    let pod = node.run(&busybox_pod("late", 0x20, &["sleep", "1000"]))?;
    for _ in 0..READS {
        pod.exec(&["/bin/cat", "/etc/hostname"])?;
    }
    let truth = [reads("/etc/hostname", READS)];
    agent.settled(&[], |document| {
        let unnamed = of_id(document, &pod.container)?;
        // The cgroup's path alone tells the id, and nothing but it.
        ensure!(
            unnamed.pods.iter().all(ethogram_view::Printable::is_empty),
            "who told? {:?}",
            unnamed.pods
        );
        check(unnamed, &truth)
    })?;
    std::os::unix::fs::symlink(node.cri_socket(), &cri)?;
    agent.settled(&["-n", "dvwa", "-p", "late"], |document| {
        let named = only(document)?;
        ensure!(
            named
                .container_ids
                .iter()
                .any(|id| id.as_str() == pod.container),
            "{:?}",
            named.container_ids
        );
        check_complete(named)?;
        check(named, &truth)
    })?;
    agent.stop()
}
