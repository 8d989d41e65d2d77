//! Agents and collectors of different ages.

use crate::support::*;
use ethogram_cluster::proto::{
    self, FromCollector, from_agent::Message, from_collector, refused::Reason,
};
use tempfile::TempDir;
use tonic::{Code, Request, client::Grpc, transport::Endpoint};
use tonic_prost::ProstCodec;

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_version_in_common_is_spoken() {
    let directory = TempDir::new().unwrap();
    let collector = Collector::start(directory.path()).await;
    for (versions, outcome) in [
        (vec![1], Ok(1)),
        (vec![1, 2, 77], Ok(1)),
        (vec![2, 3], Err("upgrade the collector")),
        (vec![], Err("upgrade the agent")),
        (vec![0], Err("upgrade the agent")),
    ] {
        let mut raw = Raw::open(collector.address, None).await.unwrap();
        raw.say(Message::Hello(proto::Hello {
            versions,
            ..hello(NODE)
        }))
        .await;
        match (raw.hear().await, outcome) {
            (Ok(from_collector::Message::Welcome(welcome)), Ok(version)) => {
                assert_eq!(welcome.version, version);
            }
            (Err(status), Err(words)) => {
                assert_eq!(status.code(), Code::FailedPrecondition);
                assert!(status.message().contains(words), "{status:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    until("it is counted", || {
        collector.agents.refused_streams().get("no_common_version") == Some(&3)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_newer_kind_are_refused_alone() {
    let directory = TempDir::new().unwrap();
    let collector = Collector::start(directory.path()).await;
    let (mut raw, _) = Raw::greet(collector.address, None, NODE).await.unwrap();
    let mut newer = batch(1, 0..6);
    let mut change = |at: usize, change: fn(&mut proto::Observation)| {
        change(&mut newer.containers[at].observations[0]);
    };
    change(0, |row| row.kind = 99);
    change(1, |row| row.protocol = 300);
    change(2, |row| row.status = 4);
    change(3, |row| row.access = 1 << 16);
    newer.containers[4].losses = vec![proto::Loss {
        reason: 99,
        count: 5,
    }];
    let ack = raw.send(newer).await.unwrap();
    let refused: Vec<_> = ack.refused.iter().map(|r| (r.reason(), r.rows)).collect();
    assert_eq!(refused, [(Reason::Unknown, 5)]);
    assert_eq!(Content::of(&*collector.store).rows.len(), 2);
    assert_eq!(collector.agents.states()[0].refused["unknown"], 5);
}

/// An agent's message as a later version might have it.
#[derive(Clone, PartialEq, prost::Message)]
struct NewerFromAgent {
    #[prost(message, optional, tag = "1")]
    hello: Option<NewerHello>,
    #[prost(message, optional, tag = "2")]
    batch: Option<NewerBatch>,
    #[prost(message, optional, tag = "3")]
    something_new: Option<NewerHello>,
    #[prost(string, tag = "500")]
    remark: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NewerHello {
    #[prost(uint32, repeated, tag = "1")]
    versions: Vec<u32>,
    #[prost(string, tag = "2")]
    node: String,
    #[prost(string, tag = "4")]
    store: String,
    #[prost(string, tag = "5")]
    boot: String,
    #[prost(string, repeated, tag = "900")]
    abilities: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NewerBatch {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(int64, tag = "2")]
    stamp: i64,
    #[prost(string, repeated, tag = "7")]
    strings: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    containers: Vec<NewerContainer>,
    #[prost(bytes = "vec", tag = "901")]
    signature: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NewerContainer {
    #[prost(uint32, tag = "1")]
    boot_string: u32,
    #[prost(uint64, tag = "2")]
    cgroup: u64,
    #[prost(message, repeated, tag = "18")]
    observations: Vec<proto::Observation>,
    #[prost(double, tag = "902")]
    load: f64,
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_a_newer_agent_are_skipped() {
    let directory = TempDir::new().unwrap();
    let collector = Collector::start(directory.path()).await;
    let newer_hello = NewerHello {
        versions: vec![1, 2],
        node: NODE.into(),
        store: "store".into(),
        boot: BOOT.into(),
        abilities: vec!["flying".into()],
    };
    let row = proto::Observation {
        kind: 2,
        source_string: 2,
        target_string: 3,
        count: 4,
        ..Default::default()
    };
    let messages = vec![
        NewerFromAgent {
            hello: Some(newer_hello.clone()),
            remark: "hi".into(),
            ..Default::default()
        },
        NewerFromAgent {
            something_new: Some(newer_hello),
            ..Default::default()
        },
        NewerFromAgent {
            batch: Some(NewerBatch {
                sequence: 1,
                stamp: now_ns(),
                strings: vec![BOOT.into(), "/bin/cat".into(), "/etc/passwd".into()],
                containers: vec![NewerContainer {
                    boot_string: 1,
                    cgroup: 1,
                    observations: vec![row],
                    load: 0.5,
                }],
                signature: vec![1, 2, 3],
            }),
            ..Default::default()
        },
    ];
    let uri = format!("http://{}", collector.address);
    let channel = Endpoint::from_shared(uri).unwrap().connect().await.unwrap();
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    let mut answers = client
        .streaming(
            Request::new(tokio_stream::iter(messages)),
            "/ethogram.v1.Reports/Report".parse().unwrap(),
            ProstCodec::<NewerFromAgent, FromCollector>::default(),
        )
        .await
        .unwrap()
        .into_inner();
    let mut next = async || answers.message().await.unwrap().unwrap().message.unwrap();
    assert!(matches!(next().await, from_collector::Message::Welcome(_)));
    let from_collector::Message::Ack(ack) = next().await else {
        panic!("no Ack");
    };
    assert_eq!((ack.sequence, ack.refused.len()), (1, 0));
    assert_eq!(Content::of(&*collector.store).rows.len(), 1);
}
