//! What `karmor summary` is answered.

use crate::support::{AGENT, VIEWER, World, with_token};
use ethogram_neighbours::discovery::{Request, Response, SysNwSummaryData, SysProcFileSummaryData};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const DATE: &str = "Wed Jan  4 12:35:38 UTC 2023";

fn ask(namespace: &str, pod: &str) -> Request {
    Request {
        name_space: namespace.into(),
        pod_name: pod.into(),
        ..Request::default()
    }
}

async fn summary(world: &World, request: Request) -> Response {
    let answer = world.observability().await.summary(request).await;
    answer.unwrap().into_inner()
}

fn files(rows: &[SysProcFileSummaryData]) -> Vec<String> {
    let rows = rows.iter();
    rows.map(|row| {
        assert_eq!(row.updated_time, DATE);
        format!(
            "{} > {} {} {}",
            row.source, row.destination, row.count, row.status
        )
    })
    .collect()
}

fn connections(rows: &[SysNwSummaryData]) -> Vec<String> {
    let rows = rows.iter();
    rows.map(|row| {
        assert_eq!(row.updated_time, DATE);
        let parts = [
            &row.protocol,
            &row.command,
            &row.ip,
            &row.port,
            &row.labels,
            &row.namespace,
            &row.bind_port,
            &row.bind_address,
            &row.count,
        ];
        let said: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        format!("{said:?}").replace('"', "")
    })
    .collect()
}

#[tokio::test]
async fn a_pod_is_summed_over_its_containers() {
    let world = World::open().await;
    let answer = summary(&world, ask("shop", "web-0")).await;
    assert_eq!(answer.pod_name, "web-0");
    assert_eq!(answer.namespace, "shop");
    assert_eq!(answer.cluster_name, "c1");
    assert_eq!(answer.label, "app=web");
    assert_eq!(answer.container_name, "side,web");
    assert_eq!(
        files(&answer.process_data),
        ["/bin/dash > /bin/my ping 5 Allow"]
    );
    assert_eq!(
        files(&answer.file_data),
        [
            "/bin/cat > /etc/audited 8 Audit",
            "/bin/cat > /etc/shadow 9 Deny",
            "/usr/sbin/apache2 > /etc/a 1 Allow",
            "/usr/sbin/apache2 > /etc/b 1 Allow",
            "/usr/sbin/apache2 > /etc/c 1 Allow",
            "/usr/sbin/apache2 > /etc/d 1 Allow",
            "/usr/sbin/apache2 > /srv/a file with spaces 11 Allow",
        ]
    );
    // What failed is no behaviour that is allowed, and is not shown.
    assert_eq!(
        connections(&answer.egress_connection),
        [
            "[AF_UNIX, /usr/sbin/apache2, @bus, 2]",
            "[TCP, /usr/sbin/apache2, svc/db, 3306, app=db, data, 5]",
            "[UDP (Deny), /usr/sbin/apache2, 192.0.2.8, 53, 1]",
        ]
    );
    assert_eq!(
        connections(&answer.ingress_connection),
        ["[TCPv6, /usr/sbin/apache2, 10.0.0.9, 80, 6]"]
    );
    // Bound once, and listening.
    assert_eq!(
        connections(&answer.bind_connection),
        ["[TCP, /usr/sbin/apache2, 80, 0.0.0.0, 1]"]
    );
}

#[tokio::test]
async fn aggregated_means_directories_but_never_what_was_refused() {
    let world = World::open().await;
    let request = Request {
        aggregate: true,
        r#type: "file".into(),
        ..ask("shop", "web-0")
    };
    let answer = summary(&world, request).await;
    assert_eq!(
        files(&answer.file_data),
        [
            "/bin/cat > /etc/audited 8 Audit",
            "/bin/cat > /etc/shadow 9 Deny",
            "/usr/sbin/apache2 > /etc/ 4 Allow",
            "/usr/sbin/apache2 > /srv/a file with spaces 11 Allow",
        ]
    );
    assert!(answer.process_data.is_empty() && answer.egress_connection.is_empty());

    // Nothing to fold leaves rows as they are.
    let request = Request {
        aggregate: true,
        ..ask("bank", "vault-0")
    };
    let answer = summary(&world, request).await;
    assert_eq!(
        files(&answer.process_data),
        ["/bin/sh > /bin/vault 1 Allow"]
    );
}

#[tokio::test]
async fn a_pod_that_only_binds_has_its_binds() {
    let world = World::open().await;
    let answer = summary(&world, ask("shop", "dns-0")).await;
    assert_eq!(
        connections(&answer.bind_connection),
        ["[AF_UNIX, /bin/resolver, /run/my socket, 2]"]
    );
}

#[tokio::test]
async fn what_has_no_pod_has_discovery_engines_names() {
    let world = World::open().await;
    for (namespace, pod, row) in [
        (
            "container_namespace",
            "cache",
            "/bin/sh > /bin/redis 1 Allow",
        ),
        (
            "accuknox-vm-namespace",
            "accuknox-vm-podname",
            "/bin/sh > /bin/login 1 Allow",
        ),
    ] {
        let answer = summary(&world, ask(namespace, pod)).await;
        assert_eq!(files(&answer.process_data), [row]);
        assert_eq!(
            (answer.namespace.as_str(), answer.pod_name.as_str()),
            (namespace, pod)
        );
    }
}

#[tokio::test]
async fn pods_and_workloads_are_listed() {
    let world = World::open().await;
    let mut client = world.observability().await;
    let mut pods = async |request| {
        let answer = client.get_pod_names(request).await;
        answer.unwrap().into_inner().pod_name
    };
    assert_eq!(
        pods(ask("", "")).await,
        ["accuknox-vm-podname", "cache", "dns-0", "vault-0", "web-0"]
    );
    assert_eq!(pods(ask("shop", "")).await, ["dns-0", "web-0"]);
    assert_eq!(pods(ask("nowhere", "")).await, Vec::<String>::new());
    let labelled = Request {
        label: "app=web,app=web".into(),
        container_name: "side".into(),
        ..ask("", "")
    };
    assert_eq!(pods(labelled).await, ["web-0"]);
    let elsewhere = Request {
        cluster_name: "other".into(),
        ..ask("", "")
    };
    assert_eq!(pods(elsewhere).await, Vec::<String>::new());

    let workloads = client.get_deploy_names(ask("shop", "")).await.unwrap();
    assert_eq!(workloads.into_inner().deploy_name, ["web"]);
    let request = Request {
        deploy_name: "web".into(),
        ..ask("shop", "")
    };
    let answer = client.summary_per_deploy(request).await.unwrap();
    let answer = answer.into_inner();
    assert_eq!(answer.deployment_name, "web");
    assert_eq!(answer.bind_connection.len(), 2);
}

#[tokio::test]
async fn mistakes_are_named() {
    let world = World::open().await;
    let mut client = world.observability().await;
    for (request, words) in [
        (
            Request {
                r#type: "files".into(),
                ..Request::default()
            },
            "use process, file, network",
        ),
        (
            Request {
                label: "app".into(),
                ..Request::default()
            },
            "key=value",
        ),
    ] {
        let refused = client.summary(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(words), "{refused}");
    }
}

#[tokio::test]
async fn a_token_shows_its_namespaces_only() {
    let world = World::with_tokens().await;
    let mut client = world.observability().await;
    let refused = client.summary(ask("shop", "web-0")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let refused = client
        .summary(with_token(ask("shop", "web-0"), AGENT))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = client
        .get_pod_names(with_token(ask("bank", ""), VIEWER))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    let pods = client
        .get_pod_names(with_token(ask("", ""), VIEWER))
        .await
        .unwrap();
    assert_eq!(pods.into_inner().pod_name, ["dns-0", "web-0"]);
    let hidden = client
        .summary(with_token(ask("", "vault-0"), VIEWER))
        .await
        .unwrap();
    assert_eq!(hidden.into_inner(), Response::default());

    let questions = world.questions.lock().unwrap();
    let written: Vec<_> = questions
        .iter()
        .map(|q| format!("{} {} {:?}", q.who, q.what, q.outcome))
        .collect();
    assert_eq!(
        written,
        [
            " Summary namespace=\"shop\" Unauthenticated",
            "node-1 Summary namespace=\"shop\" PermissionDenied",
            "vera GetPodNames namespace=\"bank\" PermissionDenied",
            "vera GetPodNames namespace=\"\" Ok",
            "vera Summary namespace=\"\" Ok",
        ]
    );
}

#[tokio::test]
async fn it_says_that_it_is_well() {
    let world = World::open().await;
    let mut client = HealthClient::new(world.channel().await);
    let service = "v1.observability.Observability".into();
    let answer = client.check(HealthCheckRequest { service }).await.unwrap();
    assert_eq!(answer.into_inner().status, 1);
}
