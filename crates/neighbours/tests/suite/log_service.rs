//! What `karmor logs` and `karmor profile` are told.

use crate::support::{AGENT, TIME, VIEWER, World, ended, pod, run, seen, soon, until, with_token};
use ethogram_model::{Kind, Loss, LossReason, Status};
use ethogram_neighbours::feeder::{Alert, Log, Message, NonceMessage, RequestMessage};
use ethogram_store::{Report, Store};
use tonic::{Code, Streaming};

fn filter(filter: &str) -> RequestMessage {
    RequestMessage {
        filter: filter.into(),
    }
}

fn report() -> Report {
    Report::empty(run("run-1", TIME, TIME + 1_000_000_000))
}

async fn next<T>(stream: &mut Streaming<T>) -> T {
    soon(stream.message()).await.unwrap().expect("one more")
}

#[tokio::test]
async fn what_changes_is_told_with_its_total() {
    let world = World::open().await;
    let mut client = world.log_service().await;
    let mut logs = client
        .watch_logs(filter("system"))
        .await
        .unwrap()
        .into_inner();
    let mut alerts = client
        .watch_alerts(filter("all"))
        .await
        .unwrap()
        .into_inner();
    let refused = ended(
        seen(1, Kind::File, "/bin/cat", "/etc/shadow", 12),
        Status::Deny,
    );
    let mut started = seen(1, Kind::Process, "/bin/dash", "/bin/my ping", 4);
    started.example = "ping -c1 db".into();
    let on_host = seen(6, Kind::Syscall, "/bin/login", "setuid", 1);
    world
        .store
        .apply(&Report {
            observations: vec![started, refused, on_host],
            ..report()
        })
        .unwrap();

    let Log { event_data, .. } = &next(&mut logs).await;
    assert_eq!(event_data["ethogram_count"], "4");
    let denied = next(&mut logs).await;
    assert_eq!(denied.result, "Permission denied");
    assert_eq!(denied.event_data["ethogram_count"], "12");
    let host = next(&mut logs).await;
    assert_eq!(
        (host.r#type.as_str(), host.data.as_str()),
        ("HostLog", "syscall=SYS_SETUID")
    );
    assert_eq!((host.pod_name, host.container_id), Default::default());

    let alert: Alert = next(&mut alerts).await;
    assert_eq!(
        (alert.action.as_str(), alert.resource.as_str()),
        ("Block", "/etc/shadow")
    );
    assert_eq!(alert.r#type, "MatchedPolicy");
}

#[tokio::test]
async fn a_log_has_kubearmors_words() {
    let world = World::open().await;
    let mut client = world.log_service().await;
    let mut logs = client.watch_logs(filter("all")).await.unwrap().into_inner();
    let mut started = seen(1, Kind::Process, "/bin/dash", "/bin/my ping", 4);
    started.example = "ping -c1 db".into();
    world
        .store
        .apply(&Report {
            observations: vec![started],
            ..report()
        })
        .unwrap();
    let log = next(&mut logs).await;
    let expected = Log {
        timestamp: TIME / 1_000_000_000,
        updated_time: "2023-01-04T12:35:38.000000Z".into(),
        cluster_name: "c1".into(),
        host_name: "node-1".into(),
        namespace_name: "shop".into(),
        pod_name: "web-0".into(),
        container_id: format!("{:064x}", 1),
        container_name: "web".into(),
        r#type: "ContainerLog".into(),
        source: "/bin/dash".into(),
        operation: "Process".into(),
        resource: "/bin/my ping -c1 db".into(),
        data: "syscall=SYS_EXECVE".into(),
        result: "Passed".into(),
        container_image: "example.org/web:1".into(),
        parent_process_name: "/bin/dash".into(),
        process_name: "/bin/my ping".into(),
        labels: "app=web".into(),
        owner: log.owner.clone(),
        event_data: log.event_data.clone(),
        ..Log::default()
    };
    assert_eq!(log, expected);
    let owner = log.owner.unwrap();
    assert_eq!(
        (owner.r#ref.as_str(), owner.name.as_str()),
        ("deployment", "web")
    );
    assert_eq!(log.event_data["first_seen"], "2023-01-04T12:35:37.000000Z");
}

#[tokio::test]
async fn an_unknown_filter_ends_at_once() {
    let world = World::open().await;
    let mut client = world.log_service().await;
    let mut logs = client
        .watch_logs(filter("policy"))
        .await
        .unwrap()
        .into_inner();
    assert!(soon(logs.message()).await.unwrap().is_none());
    let mut alerts = client.watch_alerts(filter("")).await.unwrap().into_inner();
    assert!(soon(alerts.message()).await.unwrap().is_none());
    let reply = client.health_check(NonceMessage { nonce: 42 }).await;
    assert_eq!(reply.unwrap().into_inner().retval, 42);
}

#[tokio::test]
async fn losses_and_gaps_are_messages() {
    let world = World::open().await;
    let mut client = world.log_service().await;
    let mut messages = client
        .watch_messages(filter(""))
        .await
        .unwrap()
        .into_inner();
    let loss = Loss {
        reason: LossReason::RingFull,
        count: 7,
    };
    let mut again = Report::empty(run("run-2", TIME + 60_000_000_000, TIME + 61_000_000_000));
    again.containers = vec![pod(1, "shop", "web-0", "web")];
    again.losses = vec![(again.containers[0].key.clone(), loss)];
    world.store.apply(&again).unwrap();
    let loss: Message = next(&mut messages).await;
    assert_eq!(
        loss.message,
        "shop/web-0 (web): 7 events were not counted so far (ring_full)"
    );
    let gap = next(&mut messages).await;
    assert_eq!(
        gap.message,
        "not watched from 2023-01-04T12:35:38.000000Z to 2023-01-04T12:36:38.000000Z"
    );
    assert_eq!(
        (gap.host_name.as_str(), gap.level.as_str()),
        ("node-1", "WARN")
    );
}

/// Reads a stream until that many rows are told or counted as missed; how many were missed.
async fn read_all(logs: &mut Streaming<Log>, told: u64) -> u64 {
    let (mut read, mut missed) = (0, 0);
    while read + missed < told {
        let log = next(logs).await;
        match log.event_data.get("dropped") {
            Some(rows) => missed += rows.parse::<u64>().unwrap(),
            None => read += 1,
        }
    }
    assert_eq!(read + missed, told);
    missed
}

#[tokio::test]
async fn a_slow_reader_learns_how_much_it_missed() {
    let world = World::open().await;
    let (mut slow, mut quick) = (world.log_service().await, world.log_service().await);
    let mut slow = slow.watch_logs(filter("all")).await.unwrap().into_inner();
    let mut quick = quick.watch_logs(filter("all")).await.unwrap().into_inner();
    // Far more than a connection's windows and the ring of pages hold.
    let (steps, rows_each) = (10, 6_000);
    let told = steps * rows_each;
    let reading = tokio::spawn(async move { read_all(&mut quick, told).await });
    for step in 0..steps {
        let rows = (0..rows_each).map(|n| {
            let path = format!("/{step}/{n}");
            seen(1, Kind::File, "/bin/touch", &path, 1)
        });
        let mut some = report();
        some.observations = rows.collect();
        world.store.apply(&some).unwrap();
    }
    reading.await.unwrap();
    let missed = read_all(&mut slow, told).await;
    assert!(missed > 0, "it has read everything after all");
}

#[tokio::test]
async fn a_token_streams_its_namespaces_only() {
    let world = World::with_tokens().await;
    let mut client = world.log_service().await;
    let refused = client.watch_logs(filter("all")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let refused = client.watch_logs(with_token(filter("all"), AGENT)).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    let asked = with_token(filter("all"), VIEWER);
    let mut logs = client.watch_logs(asked).await.unwrap().into_inner();
    let all = [4, 6, 1].map(|cgroup| seen(cgroup, Kind::File, "/bin/a", "/b", 1));
    let observations = all.into();
    world
        .store
        .apply(&Report {
            observations,
            ..report()
        })
        .unwrap();
    assert_eq!(next(&mut logs).await.namespace_name, "shop");
    let vault = seen(4, Kind::File, "/bin/a", "/c", 1);
    let shop = seen(1, Kind::File, "/bin/a", "/c", 1);
    let observations = vec![vault, shop];
    world
        .store
        .apply(&Report {
            observations,
            ..report()
        })
        .unwrap();
    assert_eq!(next(&mut logs).await.resource, "/c");
    until("it was written down", || {
        world.questions.lock().unwrap().len() == 3
    })
    .await;
}
