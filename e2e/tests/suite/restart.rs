//! An agent that ends, well or not, and starts again in the same folder.

use super::{NODE, busybox_pod, reads, shared};
use anyhow::{Result, bail, ensure};
use ethogram_e2e::{
    agent::{Agent, Setup, eventually, only},
    expected::check,
    node::Pod,
};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

const READS: u64 = 10;
const CRASHES: usize = 3;

pub(super) fn a_clean_restart_continues_the_counts() -> Result<()> {
    let node = shared(&NODE)?;
    let dir = tempfile::tempdir()?;
    let cri = node.cri_socket();
    let setup = Setup::of_cri(&cri);
    let selection = ["-n", "dvwa", "-p", "again"];

    let agent = Agent::start(dir.path(), setup)?;
    let pod = node.run(&busybox_pod("again", 0x30, &["sleep", "1000"]))?;
    read_hostname(&pod, READS)?;
    // A clean end flushes, so there is nothing to wait for.
    agent.stop()?;
    let stored = Agent::stored(dir.path(), &selection)?;
    check(only(&stored)?, &[reads("/etc/hostname", READS)])?;

    // Nobody watches these.
    read_hostname(&pod, READS)?;
    let agent = Agent::start(dir.path(), setup)?;
    read_hostname(&pod, READS)?;
    agent.settled(&selection, |document| {
        let subject = only(document)?;
        check(subject, &[reads("/etc/hostname", 2 * READS)])?;
        ensure!(
            subject.instances == 1,
            "one container became {}",
            subject.instances
        );
        ensure!(
            subject.completeness.gaps.len() == 1,
            "gaps {:?}",
            subject.completeness.gaps
        );
        ensure!(
            !subject.completeness.complete,
            "a summary with a gap is not complete"
        );
        ensure!(
            subject.completeness.broken_off.is_empty(),
            "{:?}",
            subject.completeness
        );
        Ok(())
    })?;
    agent.stop()
}

pub(super) fn a_crash_loses_nothing_flushed_and_counts_nothing_twice() -> Result<()> {
    let node = shared(&NODE)?;
    let dir = tempfile::tempdir()?;
    let cri = node.cri_socket();
    let setup = Setup::of_cri(&cri);
    let selection = ["-n", "dvwa", "-p", "crash"];
    let hostname = reads("/etc/hostname", 0);

    let stored = || -> Result<u64> {
        let document = Agent::stored(dir.path(), &selection)?;
        Ok(hostname.counted(only(&document)?))
    };

    let mut agent = Agent::start(dir.path(), setup)?;
    let pod = node.run(&busybox_pod("crash", 0x31, &["sleep", "1000"]))?;
    let activity = Activity::default();
    agent = thread::scope(|scope| {
        let active = scope.spawn(|| activity.run(&pod));
        let crashed = (0..CRASHES).try_fold((agent, 0), |(agent, known), _| {
            let flushed = eventually(|| match stored()? {
                count if count > known => Ok(count),
                count => bail!("nothing new is stored beyond {count}"),
            })?;
            agent.kill()?;
            let left = stored()?;
            let most = activity.begun.load(Ordering::SeqCst);
            ensure!(
                left >= flushed,
                "{flushed} were flushed, and {left} are left"
            );
            ensure!(
                left <= most,
                "{left} are counted, and {most} were done at most"
            );
            Ok((Agent::start(dir.path(), setup)?, left))
        });
        activity.over.store(true, Ordering::SeqCst);
        active.join().expect("the activity does not panic")?;
        crashed.map(|(agent, _)| agent)
    })?;
    agent.stop()?;
    let before = stored()?;
    let begun = activity.begun.load(Ordering::SeqCst);
    ensure!(
        before <= begun,
        "{before} are counted, and {begun} were done"
    );

    // In quiet, each further read counts once.
    let agent = Agent::start(dir.path(), setup)?;
    read_hostname(&pod, READS)?;
    agent.settled(&selection, |document| {
        let subject = only(document)?;
        check(subject, &[reads("/etc/hostname", before + READS)])?;
        let broken_off = subject.completeness.broken_off.len();
        ensure!(
            broken_off == CRASHES,
            "{CRASHES} crashes, and the summary says {broken_off}"
        );
        ensure!(
            !subject.completeness.complete,
            "a summary with crashes is not complete"
        );
        Ok(())
    })?;
    agent.stop()
}

/// Somebody who reads all the time.
#[derive(Default)]
struct Activity {
    /// Reads begun so far.
    begun: AtomicU64,
    over: AtomicBool,
}

impl Activity {
    fn run(&self, pod: &Pod) -> Result<()> {
        while !self.over.load(Ordering::SeqCst) {
            self.begun.fetch_add(1, Ordering::SeqCst);
            read_hostname(pod, 1)?;
        }
        Ok(())
    }
}

fn read_hostname(pod: &Pod, times: u64) -> Result<()> {
    for _ in 0..times {
        let ended = pod.exec(&["/bin/cat", "/etc/hostname"])?;
        ensure!(ended.code == 0, "cat failed: {}", ended.stderr);
    }
    Ok(())
}
