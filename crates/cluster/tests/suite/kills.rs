//! Senders and collectors that are killed at the worst moments, as processes of their own.

use crate::{faults::Line, support::*};
use ethogram_cluster::SenderOptions;
use ethogram_store::{Spool, SqliteStore};
use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

const ROLE: &str = "ETHOGRAM_TEST_ROLE";
const DIRECTORY: &str = "ETHOGRAM_TEST_DIRECTORY";
const ADDRESS: &str = "ETHOGRAM_TEST_ADDRESS";

/// Not a test of its own: what a child process of the tests below does until it is killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_to_be_killed() {
    let Ok(role) = env::var(ROLE) else {
        return;
    };
    let directory = PathBuf::from(env::var(DIRECTORY).unwrap());
    let address: SocketAddr = env::var(ADDRESS).unwrap().parse().unwrap();
    if role == "collector" {
        let setup = Setup {
            address: Some(address),
            ..Setup::default()
        };
        let _collector = Collector::with(&directory, setup).await;
        std::future::pending::<()>().await;
    }
    let store = Arc::new(SqliteStore::open(&directory.join("agent.db")).unwrap());
    let options = SenderOptions {
        collector: format!("http://{address}"),
        trust: ethogram_cluster::Trust::default(),
        node: NODE.into(),
        boot: BOOT.into(),
        run: "run".into(),
        report_every: Duration::from_millis(10),
    };
    let _sending = Sending::start(store, options);
    std::future::pending::<()>().await;
}

/// A child process that is killed when it goes out of scope.
struct Process(Child);

impl Process {
    fn start(role: &str, directory: &Path, address: SocketAddr) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "kills::a_process_to_be_killed", "--nocapture"])
            .env(ROLE, role)
            .env(DIRECTORY, directory)
            .env(ADDRESS, address.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_killed_between_commit_and_acknowledgement_loses_nothing() {
    let (here, there) = two_directories();
    let mut agent = Agent::new(here.path(), NODE);
    (0..40).for_each(|step| agent.work(step));
    let collector = Collector::start(there.path()).await;
    let (line, address) = Line::to(collector.address).await;
    line.is_good.store(true, Relaxed);
    // The process needs the file for itself.
    let expected = Content::expected(&agent);
    drop(agent);
    let sender = Process::start("sender", here.path(), address);
    until("it is connected", || !collector.agents.states().is_empty()).await;
    line.is_mute.store(true, Relaxed);
    until("a batch is committed", || collector.batches_taken() > 0).await;
    drop(sender);
    line.is_mute.store(false, Relaxed);

    let _sender = Process::start("sender", here.path(), address);
    until("the stores agree", || {
        Content::of(&*collector.store) == expected
    })
    .await;
    let streams = || collector.agents.states()[0].caught_up.is_some();
    until("all is acknowledged", streams).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_killed_again_and_again_ends_up_with_everything() {
    let (here, there) = two_directories();
    let mut agent = Agent::new(here.path(), NODE);
    let address = free_address();
    let mut sending = agent.send_to(address);
    let mut step = 0;
    for kill in 0..6 {
        let collector = Process::start("collector", there.path(), address);
        let before = sending.status.borrow().batches;
        // Killed with batches on their way, which come ever faster.
        until("some batches are acknowledged", || {
            agent.work(step);
            step += 1;
            sending.status.borrow().batches > before + kill || {
                if !sending.status.borrow().connected {
                    std::thread::sleep(Duration::from_millis(5));
                }
                false
            }
        })
        .await;
        drop(collector);
        sending.abort().await;
        sending = agent.send_to(address);
    }
    let _collector = Process::start("collector", there.path(), address);
    let before = sending.status.borrow().caught_up;
    until("all is told", || sending.status.borrow().caught_up > before).await;
    let file = there.path().join("collector.db");
    let store = SqliteStore::open_read_only(&file).unwrap();
    until_told(&agent, &store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_that_was_not_written_down_is_asked_for_again() {
    let (here, there) = two_directories();
    let mut agent = Agent::new(here.path(), NODE);
    (0..20).for_each(|step| agent.work(step));
    let collector = Collector::start(there.path()).await;
    let sending = agent.send_to(collector.address);
    until_told(&agent, &*collector.store).await;
    sending.stop().await;
    // As a sender that was killed before it wrote: an old position, an old stamp.
    let identity = collector.store.identity().unwrap();
    agent
        .store
        .acknowledge(&identity, &ethogram_store::Position::START, 1)
        .unwrap();
    let before = collector.rows_taken();
    let _sending = agent.send_to(collector.address);
    until("it is told again", || collector.rows_taken() > before).await;
    (20..40).for_each(|step| agent.work(step));
    until_told(&agent, &*collector.store).await;
}
