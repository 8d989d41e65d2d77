//! Collectors that come and go, are emptied or put back, and nodes that look alike.

use crate::support::*;
use ethogram_store::{Limits, Spool, SqliteStore, Store};
use std::{fs, time::Duration};
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_told_and_kept_up_to_date() {
    let (here, there) = two_directories();
    let mut agent = Agent::new(here.path(), NODE);
    let collector = Collector::start(there.path()).await;
    (0..30).for_each(|step| agent.work(step));
    let sending = agent.send_to(collector.address);
    until_told(&agent, &*collector.store).await;
    for step in 30..60 {
        agent.work(step);
        if step == 45 {
            agent.restart();
        }
    }
    until_told(&agent, &*collector.store).await;
    let state = &collector.agents.states()[0];
    assert_eq!((&*state.node, state.protocol, state.streams), (NODE, 1, 1));
    assert!(state.caught_up.is_some() && state.refused.is_empty());
    assert!(sending.status.borrow().connected);
    sending.stop().await;
    until("the stream is gone", || {
        collector.agents.states()[0].streams == 0
    })
    .await;
    assert_eq!(collector.agents.states()[0].last_end, "the agent ended it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_was_away_is_told_what_it_missed_and_no_more() {
    let (here, there) = two_directories();
    let mut agent = Agent::new(here.path(), NODE);
    let many = (0..20_000)
        .map(|n| observation(9, &format!("/many/{n}"), 1, 1))
        .collect();
    agent.apply(many);
    let collector = Collector::start(there.path()).await;
    let address = collector.address;
    let sending = agent.send_to(address);
    until_told(&agent, &*collector.store).await;
    let identity = collector.store.identity().unwrap();
    collector.stop().await;
    (0..10).for_each(|step| agent.work(step));
    let collector = Collector::with(
        there.path(),
        Setup {
            address: Some(address),
            ..Setup::default()
        },
    )
    .await;
    until_told(&agent, &*collector.store).await;
    assert_eq!(collector.store.identity().unwrap(), identity);
    let taken = collector.rows_taken();
    assert!(taken < 1_000, "{taken} rows were told again");
    until("it is counted", || sending.status.borrow().connections == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_collector_is_told_everything_again() {
    let (here, there) = two_directories();
    let mut agent = Agent::new(here.path(), NODE);
    (0..30).for_each(|step| agent.work(step));
    let collector = Collector::start(there.path()).await;
    let address = collector.address;
    let _sending = agent.send_to(address);
    until_told(&agent, &*collector.store).await;
    collector.stop().await;
    let emptied = TempDir::new().unwrap();
    let collector = Collector::with(
        emptied.path(),
        Setup {
            address: Some(address),
            ..Setup::default()
        },
    )
    .await;
    until_told(&agent, &*collector.store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_put_back_to_an_earlier_state_is_told_what_it_forgot() {
    let (here, there) = two_directories();
    let mut agent = Agent::new(here.path(), NODE);
    (0..10).for_each(|step| agent.work(step));
    let collector = Collector::start(there.path()).await;
    let address = collector.address;
    let _sending = agent.send_to(address);
    until_told(&agent, &*collector.store).await;
    collector.stop().await;
    let file = there.path().join("collector.db");
    let saved = there.path().join("saved");
    fs::copy(&file, &saved).unwrap();

    let again = |address| Setup {
        address: Some(address),
        ..Setup::default()
    };
    let collector = Collector::with(there.path(), again(address)).await;
    (10..40).for_each(|step| agent.work(step));
    until_told(&agent, &*collector.store).await;
    collector.stop().await;
    fs::rename(&saved, &file).unwrap();
    let collector = Collector::with(there.path(), again(address)).await;
    until_told(&agent, &*collector.store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_of_an_agent_whose_store_began_anew_add_up() {
    let there = TempDir::new().unwrap();
    let collector = Collector::start(there.path()).await;
    for count in [5, 3] {
        let here = TempDir::new().unwrap();
        let agent = Agent::new(here.path(), NODE);
        agent.apply(vec![observation(1, "/etc/passwd", count, 7)]);
        let sending = agent.send_to(collector.address);
        let wanted = if count == 5 { 5 } else { 8 };
        until("the counts are there", || {
            Content::of(&*collector.store)
                .rows
                .values()
                .map(|(tally, _)| tally.count)
                .sum::<u64>()
                == wanted
        })
        .await;
        sending.stop().await;
    }
    // The old store is brought back: its counts are in the sum already.
    let here = TempDir::new().unwrap();
    let old = Agent::new(here.path(), NODE);
    old.apply(vec![observation(1, "/etc/passwd", 1, 7)]);
    let sending = old.send_to(collector.address);
    until("the third store is told", || {
        sending.status.borrow().caught_up.is_some()
    })
    .await;
    sending.stop().await;
    let sum = Content::of(&*collector.store)
        .rows
        .values()
        .map(|(t, _)| t.count)
        .sum::<u64>();
    assert_eq!(sum, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_superseded_is_refused_and_told_so() {
    let (first, second) = two_directories();
    let there = TempDir::new().unwrap();
    let collector = Collector::start(there.path()).await;
    let mut agents = [
        Agent::new(first.path(), NODE),
        Agent::new(second.path(), NODE),
    ];
    for agent in &mut agents {
        agent.apply(vec![observation(1, "/etc/passwd", 5, 7)]);
        let sending = agent.send_to(collector.address);
        until("it is told", || sending.status.borrow().caught_up.is_some()).await;
        sending.stop().await;
    }
    agents[0].apply(vec![
        observation(1, "/etc/passwd", 6, 8),
        observation(2, "/own", 1, 8),
    ]);
    let sending = agents[0].send_to(collector.address);
    until("it is told", || sending.status.borrow().caught_up.is_some()).await;
    assert!(sending.status.borrow().refused["superseded"] >= 1);
    assert!(collector.agents.states()[0].refused["superseded"] >= 1);
    let rows = Content::of(&*collector.store).rows;
    let counts: Vec<u64> = rows.values().map(|(tally, _)| tally.count).collect();
    assert_eq!(counts, [10, 1], "the rest of the batch is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_one_boot_id_stay_apart() {
    let (first, second) = two_directories();
    let there = TempDir::new().unwrap();
    let collector = Collector::start(there.path()).await;
    let mut sendings = Vec::new();
    for (directory, node, count) in [(&first, "node-1", 5), (&second, "node-2", 3)] {
        let agent = Agent::new(directory.path(), node);
        agent.apply(vec![observation(1, "/etc/passwd", count, 7)]);
        sendings.push(agent.send_to(collector.address));
    }
    until("both are told", || {
        let content = Content::of(&*collector.store);
        let mut nodes: Vec<_> = content
            .containers
            .values()
            .map(|c| c.node.clone())
            .collect();
        nodes.sort();
        let mut counts: Vec<_> = content
            .rows
            .values()
            .map(|(tally, _)| tally.count)
            .collect();
        counts.sort_unstable();
        nodes == ["node-1", "node-2"] && counts == [3, 5]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_removed_unsent_is_told() {
    let (here, there) = two_directories();
    let agent = Agent::new(here.path(), NODE);
    agent.apply(vec![observation(1, "/stays", 1, 1)]);
    let collector = Collector::start(there.path()).await;
    let address = collector.address;
    let sending = agent.send_to(address);
    until_told(&agent, &*collector.store).await;
    collector.stop().await;
    until("the line is down", || !sending.status.borrow().connected).await;
    agent.apply(vec![
        observation(1, "/gone", 7, 1),
        observation(1, "/stays", 2, 100_000_000_000),
    ]);
    let limits = Limits {
        age_max: Some(Duration::from_secs(50)),
        bytes_max: None,
    };
    let removed = agent
        .store
        .retain(&limits, ethogram_model::Timestamp(100_000_000_000))
        .unwrap();
    assert_eq!(removed.rows, 1);
    let collector = Collector::with(
        there.path(),
        Setup {
            address: Some(address),
            ..Setup::default()
        },
    )
    .await;
    agent.apply(vec![]);
    until("the loss is told", || {
        let losses = Content::of(&*collector.store).losses;
        losses.values().copied().eq([7])
            && collector
                .agents
                .states()
                .first()
                .is_some_and(|state| state.removed_unsent == 1)
    })
    .await;
    until("the agent says so too", || {
        sending.status.borrow().removed_unsent == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_is_stopped_tells_what_is_left() {
    let (here, there) = two_directories();
    let mut agent = Agent::new(here.path(), NODE);
    let collector = Collector::start(there.path()).await;
    agent.work(0);
    let sending = Sending::start(
        agent.store.clone(),
        ethogram_cluster::SenderOptions {
            report_every: Duration::from_secs(3_600),
            ..agent.options(collector.address)
        },
    );
    until_told(&agent, &*collector.store).await;
    (1..40).for_each(|step| agent.work(step));
    sending.stop().await;
    assert_told(&agent, &*collector.store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_one_collector() {
    let there = TempDir::new().unwrap();
    let _collector = Collector::start(there.path()).await;
    let second = SqliteStore::open(&there.path().join("collector.db"));
    let error = second.err().unwrap().to_string();
    assert!(error.contains("in use by another writer"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_is_noticed() {
    let there = TempDir::new().unwrap();
    let collector = Collector::start(there.path()).await;
    let hour_ns = 3_600_000_000_000;
    let (mut raw, _) = Raw::greet(collector.address, None, NODE).await.unwrap();
    for sequence in 1..=16 {
        let behind = ethogram_cluster::proto::Batch {
            clock_ns: now_ns() - hour_ns,
            ..batch(sequence, 0..1)
        };
        raw.send(behind).await.unwrap();
    }
    let behind = collector.agents.states()[0].clock_behind_ns.unwrap();
    assert!((behind - hour_ns).abs() < hour_ns / 60, "{behind}");
    // Times stay those of the node, which are right relative to each other.
    let (tally, _) = Content::of(&*collector.store)
        .rows
        .into_values()
        .next()
        .unwrap();
    assert!((tally.last.0 + hour_ns - now_ns()).abs() < hour_ns / 60);
}
