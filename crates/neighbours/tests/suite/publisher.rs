//! What discovery-engine published to those who subscribed.

use crate::support::{
    AGENT, TIME, VIEWER, World, channel, ended, listener, network, pod, run, seen, soon, with_token,
};
use ethogram_cluster::listen::incoming;
use ethogram_model::{Access, Kind, Observation, Protocol, Status};
use ethogram_neighbours::{
    Served,
    guard::Guard,
    publishing::{SummaryRequest, SummaryResponse, Workload, publisher_client::PublisherClient},
    serve_observability,
};
use ethogram_store::{Report, Store};
use std::collections::BTreeMap;
use tokio::sync::watch;
use tonic::{Code, Streaming};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

async fn next(stream: &mut Streaming<SummaryResponse>) -> SummaryResponse {
    soon(stream.message()).await.unwrap().expect("one more")
}

async fn subscribe(world: &World, request: SummaryRequest) -> Streaming<SummaryResponse> {
    let mut client = world.publisher().await;
    client.get_summary(request).await.unwrap().into_inner()
}

fn of(namespace: &str) -> SummaryRequest {
    SummaryRequest {
        namespace: namespace.into(),
        ..SummaryRequest::default()
    }
}

fn apply(world: &World, observations: Vec<Observation>) {
    let report = Report {
        observations,
        ..Report::empty(run("run-1", TIME, TIME + 1_000_000_000))
    };
    world.store.apply(&report).unwrap();
}

/// What a row says, on one line; of no use for what it leaves out.
fn short(told: &SummaryResponse) -> String {
    let parts = [
        &told.pod_name,
        &told.operation,
        &told.source,
        &told.destination,
        &told.nw_type,
        &told.ip,
        &told.protocol,
        &told.action,
    ];
    let said: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    format!("{said:?} +{}", told.count).replace('"', "")
}

#[tokio::test]
async fn what_is_told_adds_up_to_what_happens_from_now_on() {
    let world = World::open().await;
    let mut all = subscribe(&world, SummaryRequest::default()).await;
    // 9 of these happened before, in the small world.
    let shadow = |count| {
        ended(
            seen(1, Kind::File, "/bin/cat", "/etc/shadow", count),
            Status::Deny,
        )
    };
    apply(&world, vec![shadow(12)]);
    let told = next(&mut all).await;
    assert_eq!(
        short(&told),
        "[web-0, File, /bin/cat, /etc/shadow, Deny] +3"
    );
    // The same report again changes nothing; the one after it is told.
    apply(&world, vec![shadow(12)]);
    apply(
        &world,
        vec![shadow(20), seen(4, Kind::Process, "/bin/sh", "/bin/x", 1)],
    );
    let mut told = [next(&mut all).await, next(&mut all).await].map(|one| short(&one));
    told.sort();
    assert_eq!(
        told,
        [
            "[vault-0, Process, /bin/sh, /bin/x, Allow] +1",
            "[web-0, File, /bin/cat, /etc/shadow, Deny] +8",
        ]
    );
}

#[tokio::test]
async fn a_summary_has_discovery_engines_words() {
    let world = World::open().await;
    let mut all = subscribe(&world, of("shop")).await;
    let apache = "/usr/sbin/apache2";
    let web = SummaryResponse {
        cluster_name: "c1".into(),
        namespace_name: "shop".into(),
        container_name: "web".into(),
        container_image: "example.org/web:1".into(),
        container_id: format!("{:064x}", 1),
        pod_name: "web-0".into(),
        labels: "app=web".into(),
        deployment_name: "web".into(),
        source: apache.into(),
        action: "Allow".into(),
        updated_time: TIME / 1_000_000_000,
        workload: Some(Workload {
            r#type: "deployment".into(),
            name: "web".into(),
        }),
        ..SummaryResponse::default()
    };
    let mut listens = network(seen(1, Kind::Bind, apache, "::", 1), Protocol::Tcp6, 81);
    listens.behaviour.access = Access::LISTEN;
    let failed = ended(
        network(
            seen(1, Kind::Egress, apache, "10.9.9.9", 1),
            Protocol::Tcp,
            1,
        ),
        Status::Failed,
    );
    for (observation, expected) in [
        (
            network(
                seen(1, Kind::Egress, apache, "10.0.0.2", 7),
                Protocol::Tcp,
                3306,
            ),
            SummaryResponse {
                operation: "Network".into(),
                nw_type: "egress".into(),
                ip: "svc/db".into(),
                port: 3306,
                protocol: "TCP".into(),
                dest_namespace: "data".into(),
                dest_labels: "app=db".into(),
                count: 2,
                ..web.clone()
            },
        ),
        (
            network(seen(1, Kind::Bind, apache, "0.0.0.0", 3), Protocol::Tcp, 80),
            SummaryResponse {
                operation: "Network".into(),
                nw_type: "bind".into(),
                bind_address: "0.0.0.0".into(),
                bind_port: "80".into(),
                protocol: "TCP".into(),
                count: 2,
                ..web.clone()
            },
        ),
        (
            seen(1, Kind::Process, apache, "/bin/a b", 4_294_967_294),
            SummaryResponse {
                operation: "Process".into(),
                destination: "/bin/a b".into(),
                count: i32::MAX,
                ..web.clone()
            },
        ),
    ] {
        // What has no place in the protocol comes before, and is not told.
        let others = vec![
            listens.clone(),
            failed.clone(),
            seen(1, Kind::Capability, apache, "CAP_NET_RAW", 9),
            seen(1, Kind::Syscall, apache, "setuid", 9),
        ];
        apply(&world, others);
        apply(&world, vec![observation]);
        assert_eq!(next(&mut all).await, expected);
    }
    let rest = next(&mut all).await;
    assert_eq!(
        (rest.destination.as_str(), rest.count),
        ("/bin/a b", i32::MAX)
    );
}

#[tokio::test]
async fn only_what_was_asked_for_is_told() {
    let world = World::open().await;
    for (request, expected) in [
        (of("bank"), "[vault-0, File, /bin/a, /new, Allow] +1"),
        (
            SummaryRequest {
                pod_name: "dns-0".into(),
                ..of("")
            },
            "[dns-0, File, /bin/a, /new, Allow] +1",
        ),
        (
            SummaryRequest {
                operation: "Process".into(),
                cluster_name: "c1".into(),
                labels: "app=web".into(),
                deployment_name: "web".into(),
                ..of("shop")
            },
            "[web-0, Process, /bin/a, /new, Allow] +1",
        ),
        (
            of("container_namespace"),
            "[cache, File, /bin/a, /new, Allow] +1",
        ),
    ] {
        let world = World::open().await;
        let mut some = subscribe(&world, request).await;
        let mut changed: Vec<_> = (1..=6)
            .map(|cgroup| seen(cgroup, Kind::File, "/bin/a", "/new", 1))
            .collect();
        changed.push(seen(1, Kind::Process, "/bin/a", "/new", 1));
        apply(&world, changed);
        assert_eq!(short(&next(&mut some).await), expected);
    }
    let mut client = world.publisher().await;
    let request = SummaryRequest {
        operation: "Syscall".into(),
        ..of("")
    };
    let refused = client.get_summary(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_slow_reader_misses_nothing() {
    let world = World::open().await;
    let mut slow = subscribe(&world, of("shop")).await;
    // The feed goes on for this one, and leaves the other behind.
    let mut logs = world.log_service().await;
    let filter = ethogram_neighbours::feeder::RequestMessage {
        filter: "all".into(),
    };
    let mut quick = logs.watch_logs(filter).await.unwrap().into_inner();
    // More than a connection's windows and the ring of pages hold.
    let long = "x".repeat(250);
    let (steps, rows_each) = (8, 6_000);
    let reading = tokio::spawn(async move {
        while soon(quick.message()).await.unwrap().unwrap().resource != "/end" {}
    });
    for step in 1..=steps {
        let rows = (0..rows_each).map(|n| {
            // A tenth of the rows is counted on in every step.
            let path = match n % 10 {
                0 => format!("/same/{n}/{long}"),
                _ => format!("/{step}/{n}/{long}"),
            };
            let count = if n % 10 == 0 { step } else { 1 };
            seen(1, Kind::File, "/bin/touch", &path, count)
        });
        apply(&world, rows.collect());
    }
    apply(&world, vec![seen(1, Kind::File, "/bin/touch", "/end", 1)]);
    reading.await.unwrap();
    let mut sums = BTreeMap::<String, u64>::new();
    let mut left = steps * rows_each + 1;
    while left > 0 {
        let told = next(&mut slow).await;
        let count = u64::try_from(told.count).unwrap();
        *sums.entry(told.destination).or_default() += count;
        left -= count;
    }
    for n in (0..rows_each).step_by(10) {
        assert_eq!(sums[&format!("/same/{n}/{long}")], steps, "{n}");
    }
    assert_eq!(
        sums.len() as u64,
        rows_each / 10 + steps * rows_each * 9 / 10 + 1
    );
}

#[tokio::test]
async fn a_token_subscribes_to_its_namespaces_only() {
    let world = World::with_tokens().await;
    let mut client = world.publisher().await;
    let refused = client.get_summary(of("shop")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    for (namespace, token) in [("shop", AGENT), ("bank", VIEWER)] {
        let asked = with_token(of(namespace), token);
        let refused = client.get_summary(asked).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    let asked = with_token(of(""), VIEWER);
    let mut own = client.get_summary(asked).await.unwrap().into_inner();
    apply(
        &world,
        [4, 5, 6, 1]
            .map(|one| seen(one, Kind::File, "/bin/a", "/b", 1))
            .into(),
    );
    assert_eq!(next(&mut own).await.namespace_name, "shop");
    apply(
        &world,
        [4, 1]
            .map(|one| seen(one, Kind::File, "/bin/a", "/c", 1))
            .into(),
    );
    assert_eq!(next(&mut own).await.destination, "/c");
    let questions = world.questions.lock().unwrap();
    assert_eq!(questions.len(), 4);
    assert_eq!(questions[3].what, "GetSummary namespace=\"\"");
}

#[tokio::test]
async fn a_pod_that_comes_later_is_told() {
    let world = World::open().await;
    let mut all = subscribe(&world, of("shop")).await;
    let mut report = Report::empty(run("run-1", TIME, TIME + 1_000_000_000));
    report.containers = vec![pod(7, "shop", "web-9", "web")];
    report.observations = vec![seen(7, Kind::File, "/bin/a", "/b", 2)];
    world.store.apply(&report).unwrap();
    assert_eq!(
        short(&next(&mut all).await),
        "[web-9, File, /bin/a, /b, Allow] +2"
    );
}

const BOTH: [&str; 2] = ["v1.observability.Observability", "v1.publisher.Publisher"];

/// The services that reflection lists.
async fn listed(channel: tonic::transport::Channel) -> Vec<String> {
    let mut client = ServerReflectionClient::new(channel);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await;
    let answer = soon(answers.unwrap().into_inner().message()).await.unwrap();
    match answer.unwrap().message_response.unwrap() {
        MessageResponse::ListServicesResponse(list) => {
            let names = list.service.into_iter().map(|service| service.name);
            let mut names: Vec<_> = names.filter(|name| !name.starts_with("grpc.")).collect();
            names.sort();
            names
        }
        other => panic!("no list: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_served_is_listed_and_well() {
    let world = World::open().await;
    let mut client = HealthClient::new(world.channel().await);
    for service in BOTH {
        let service = service.into();
        let answer = client.check(HealthCheckRequest { service }).await.unwrap();
        assert_eq!(answer.into_inner().status, 1);
    }
    assert_eq!(listed(world.channel().await).await, BOTH);
    let logs = channel(world.log_service_address()).await;
    assert_eq!(listed(logs).await, ["feeder.LogService"]);
}

#[tokio::test]
async fn without_a_store_that_knows_what_changed_nothing_is_published() {
    let world = World::open().await;
    let served = Served::new(world.store.clone(), "c1".into(), Guard::open());
    let summaries = listener().await;
    let address = summaries.local_addr().unwrap();
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(serve_observability(
        served,
        None,
        incoming(summaries, None),
        stopped,
    ));
    let channel = channel(address).await;
    let mut client = PublisherClient::new(channel.clone());
    let refused = client.get_summary(of("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert_eq!(listed(channel).await, BOTH[..1]);
}
