//! Everything a collector refuses, and that whoever is refused is told and counted.

use crate::support::*;
use ethogram_cluster::{Limits, access::Access, proto, proto::from_agent::Message};
use proto::refused::Reason;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tonic::Code;

const AGENT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OTHER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const VIEWER: &str = "cccccccccccccccccccccccccccccccc";

fn tokens(directory: &TempDir) -> Access {
    let file = directory.path().join("tokens.toml");
    let token = |name: &str, secret: &str, rest: &str| {
        format!("[[token]]\nname = {name:?}\nsecret = {secret:?}\n{rest}\n")
    };
    let text = token("a", AGENT, "role = \"agent\"\nnode = \"node-1\"")
        + &token("b", OTHER, "role = \"agent\"\nnode = \"node-2\"")
        + &token("c", VIEWER, "role = \"viewer\"");
    std::fs::write(&file, text).unwrap();
    Access::new(Some(&file), false).unwrap()
}

async fn limited(directory: &TempDir, limits: Limits) -> Collector {
    Collector::with(
        directory.path(),
        Setup {
            limits,
            ..Setup::default()
        },
    )
    .await
}

async fn counted(collector: &Collector, reason: &str) {
    until(&format!("{reason} is counted"), || {
        collector.agents.refused_streams().get(reason) == Some(&1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_report_is_refused() {
    let directory = TempDir::new().unwrap();
    let access = Some(tokens(&directory));
    let reporting = Arc::<Mutex<Vec<_>>>::default();
    let collector = Collector::with(
        directory.path(),
        Setup {
            access,
            reporting: reporting.clone(),
            ..Setup::default()
        },
    )
    .await;
    let unknown = "dddddddddddddddddddddddddddddddd";
    for (token, code, words) in [
        (None, Code::Unauthenticated, "no token"),
        (Some(unknown), Code::Unauthenticated, "unknown token"),
        (Some(VIEWER), Code::PermissionDenied, "role is viewer"),
        (Some(OTHER), Code::PermissionDenied, "another node"),
    ] {
        let status = Raw::greet(collector.address, token, NODE)
            .await
            .err()
            .unwrap();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(words), "{status:?}");
    }
    until("all are counted", || {
        let counts = collector.agents.refused_streams();
        counts.get("unauthenticated") == Some(&2) && counts.get("permission_denied") == Some(&2)
    })
    .await;
    assert!(collector.agents.states().is_empty());
    let (mut raw, _) = Raw::greet(collector.address, Some(AGENT), NODE)
        .await
        .unwrap();
    raw.send(batch(1, 0..3)).await.unwrap();
    drop(raw);
    until("all is written down", || {
        reporting.lock().unwrap().len() == 6
    })
    .await;
    let written: Vec<_> = reporting
        .lock()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one.who.clone(),
                one.role.clone(),
                one.node.clone(),
                one.rows,
            )
        })
        .collect();
    let line = |who: &str, role: &str, node: &str, rows| {
        (who.to_owned(), role.to_owned(), node.to_owned(), rows)
    };
    assert_eq!(
        written,
        [
            line("", "", "", None),
            line("", "", "", None),
            line("c", "viewer", NODE, None),
            line("b", "agent", NODE, None),
            line("a", "agent", NODE, None),
            line("a", "agent", NODE, Some(3)),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_too_fast_is_read_more_slowly_and_loses_nothing() {
    let directory = TempDir::new().unwrap();
    let limits = Limits {
        rows_per_second_max: 200,
        ..Limits::default()
    };
    let collector = limited(&directory, limits).await;
    let (mut raw, _) = Raw::greet(collector.address, None, NODE).await.unwrap();
    for sequence in 1..=5 {
        let from = (sequence - 1) * 100;
        let ack = raw.send(batch(sequence, from..from + 100)).await.unwrap();
        assert!(ack.refused.is_empty());
    }
    let state = &collector.agents.states()[0];
    assert!(state.throttled_ms > 0, "{state:?}");
    assert_eq!((state.rows, state.refused.len()), (500, 0));
    assert_eq!(Content::of(&*collector.store).rows.len(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_says_why_it_was_refused() {
    let (here, there) = two_directories();
    let access = Some(tokens(&there));
    let collector = Collector::with(
        there.path(),
        Setup {
            access,
            ..Setup::default()
        },
    )
    .await;
    let agent = Agent::new(here.path(), NODE);
    let token = here.path().join("token");
    std::fs::write(&token, format!("{OTHER}\n")).unwrap();
    let mut options = agent.options(collector.address);
    options.trust.token = Some(token.clone());
    let sending = Sending::start(agent.store.clone(), options);
    let says = |words: &str| sending.status.borrow().last_error.contains(words);
    until("it says so", || {
        says("the collector refused: \"b\" may not report")
    })
    .await;
    // Once the token is right, it works without a restart.
    std::fs::write(&token, AGENT).unwrap();
    until("it is let in", || sending.status.borrow().connected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_above_the_limits_end_the_stream() {
    let directory = TempDir::new().unwrap();
    let limits = Limits {
        batch_rows_max: 10,
        batch_bytes_max: 10_000,
        strings_max: 5,
        ..Limits::default()
    };
    let collector = limited(&directory, limits).await;
    let many_rows = batch(1, 0..11);
    let many_strings = proto::Batch {
        strings: (0..6).map(|n| n.to_string()).collect(),
        ..batch(1, 0..0)
    };
    let many_bytes = proto::Batch {
        strings: vec!["x".repeat(10_001)],
        ..batch(1, 0..0)
    };
    for (batch, words) in [
        (many_rows, "11 rows"),
        (many_strings, "strings"),
        (many_bytes, "10000 bytes"),
    ] {
        let (mut raw, welcome) = Raw::greet(collector.address, None, NODE).await.unwrap();
        assert_eq!(welcome.limits.unwrap().rows_max, 10);
        let status = raw.send(batch).await.unwrap_err();
        assert!(
            matches!(status.code(), Code::ResourceExhausted | Code::OutOfRange),
            "{status:?}"
        );
        assert!(status.message().contains(words), "{status:?}");
    }
    until("all are counted", || {
        collector.agents.refused_streams().get("too_much") == Some(&3)
    })
    .await;
    assert_eq!(Content::of(&*collector.store).rows.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_keeps_to_the_limits_it_is_told() {
    let (here, there) = two_directories();
    let limits = Limits {
        batch_rows_max: 7,
        batch_bytes_max: 4_000,
        strings_max: 400,
        string_bytes_max: 8_000,
        in_flight_max: 1,
        ..Limits::default()
    };
    let collector = limited(&there, limits).await;
    let mut agent = Agent::new(here.path(), NODE);
    (0..30).for_each(|step| agent.work(step));
    let sending = agent.send_to(collector.address);
    until_told(&agent, &*collector.store).await;
    assert_eq!(sending.status.borrow().connections, 1);
    assert!(collector.agents.refused_streams().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_above_the_quota_are_refused_and_the_rest_is_kept() {
    let directory = TempDir::new().unwrap();
    let limits = Limits {
        containers_per_day_max: 3,
        ..Limits::default()
    };
    let collector = limited(&directory, limits).await;
    let (mut raw, _) = Raw::greet(collector.address, None, NODE).await.unwrap();
    let ack = raw.send(batch(1, 0..5)).await.unwrap();
    let refused: Vec<_> = ack.refused.iter().map(|r| (r.reason(), r.rows)).collect();
    assert_eq!(
        refused,
        [(Reason::TooManyContainers, 4)],
        "two containers with a row each"
    );
    assert_eq!(Content::of(&*collector.store).rows.len(), 3);
    assert_eq!(
        collector.agents.states()[0].refused["too_many_containers"],
        4
    );
    // A new stream is no way around it.
    let (mut raw, _) = Raw::greet(collector.address, None, NODE).await.unwrap();
    assert_eq!(raw.send(batch(1, 9..10)).await.unwrap().refused.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_streams_are_refused() {
    let directory = TempDir::new().unwrap();
    let collector = limited(
        &directory,
        Limits {
            streams_max: 1,
            ..Limits::default()
        },
    )
    .await;
    let first = Raw::greet(collector.address, None, NODE).await.unwrap();
    let status = Raw::greet(collector.address, None, "node-2")
        .await
        .err()
        .unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(
        status.message().contains("1 agents report already"),
        "{status:?}"
    );
    counted(&collector, "too_much").await;
    drop(first);
    until("the first is gone", || {
        collector.agents.states()[0].streams == 0
    })
    .await;
    Raw::greet(collector.address, None, "node-2").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused() {
    let directory = TempDir::new().unwrap();
    let collector = Collector::start(directory.path()).await;
    let broken = |change: fn(&mut proto::Batch)| {
        let mut batch = batch(1, 0..1);
        change(&mut batch);
        Message::Batch(batch)
    };
    let cases: [(Message, &str); 6] = [
        (Message::Hello(hello(NODE)), "second Hello"),
        (
            broken(|b| b.containers[0].observations[0].target_string = 4),
            "never sent",
        ),
        (
            broken(|b| b.containers[0].boot_string = u32::MAX),
            "never sent",
        ),
        (
            broken(|b| b.containers[0].observations[0].port = 65_536),
            "port",
        ),
        (
            broken(|b| b.containers[0].label_strings = vec![1, 2, 3]),
            "label",
        ),
        (
            broken(|b| {
                b.endpoints = vec![proto::Endpoint {
                    ip: vec![1],
                    ..Default::default()
                }];
            }),
            "address",
        ),
    ];
    for (message, words) in cases {
        let (mut raw, _) = Raw::greet(collector.address, None, NODE).await.unwrap();
        raw.say(message).await;
        let status = raw.hear().await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(words), "{status:?}");
    }
    let mut raw = Raw::open(collector.address, None).await.unwrap();
    raw.say(Message::Batch(batch(1, 0..1))).await;
    assert!(
        raw.hear()
            .await
            .unwrap_err()
            .message()
            .contains("begin with Hello")
    );
    for node in ["", "a/b", "a b", "a\nb", &"x".repeat(254)] {
        let status = Raw::greet(collector.address, None, node)
            .await
            .err()
            .unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{node:?}");
    }
    until("all are counted", || {
        collector.agents.refused_streams().get("malformed") == Some(&12)
    })
    .await;
    assert!(
        Content::of(&*collector.store).rows.is_empty(),
        "none of it was kept"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_become_printable() {
    let directory = TempDir::new().unwrap();
    let collector = Collector::start(directory.path()).await;
    let (mut raw, _) = Raw::greet(collector.address, None, NODE).await.unwrap();
    let mut hostile = batch(1, 0..1);
    hostile.strings[2] = "/tmp/\u{1b}[31mred\n".into();
    hostile.containers[0].pod_string = 3;
    hostile.containers[0].label_strings = vec![3, 3];
    raw.send(hostile).await.unwrap();
    let content = Content::of(&*collector.store);
    let shown = "/tmp/\\x1b[31mred\\x0a";
    assert_eq!(content.rows.keys().next().unwrap().1.target.as_str(), shown);
    let container = content.containers.values().next().unwrap();
    assert_eq!((&*container.pod, &*container.labels[shown]), (shown, shown));
}
