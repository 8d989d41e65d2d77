//! A service of the cluster is reached through the API server.

use crate::{
    fake_forward::{FakeCluster, POD, POD_PORT, pod},
    fake_http::kubeconfig,
};
use ethogram_kubernetes::{Client, ServicePort, connect_as_user, forward, secret};
use serde_json::json;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

fn api() -> ServicePort {
    ServicePort {
        namespace: "ethogram".into(),
        service: "ethogram-collector".into(),
        port: "api".into(),
    }
}

/// Answers every connection with what it was told, until it is told no more.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
            });
        }
    });
    address
}

async fn client(fake: &FakeCluster) -> Client {
    let file = kubeconfig(fake.serve().await);
    connect_as_user(Some(file.path()), Some("t")).await.unwrap()
}

async fn error(fake: &FakeCluster, client: &Client, to: &ServicePort) -> String {
    let forwarded = forward(client, to).await;
    fake.requests();
    forwarded.err().unwrap().to_string()
}

#[tokio::test]
async fn bytes_go_to_the_pod_and_come_back() {
    let fake = FakeCluster::new(echo().await);
    let client = client(&fake).await;
    for port in ["api", "number", "same"] {
        let to = ServicePort {
            port: port.into(),
            ..api()
        };
        let mut stream = forward(&client, &to).await.unwrap();
        // More than a message or a buffer holds.
        let told: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut heard = vec![0; told.len()];
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        let (wrote, read) = tokio::join!(writer.write_all(&told), reader.read_exact(&mut heard));
        wrote.unwrap();
        read.unwrap();
        assert!(heard == told);
    }
    let requests = fake.requests();
    let path = format!("/api/v1/namespaces/ethogram/pods/{POD}/portforward?");
    let forwards = requests.iter().filter(|uri| uri.starts_with(&path));
    let port = format!("ports={POD_PORT}");
    assert_eq!(forwards.filter(|uri| uri.ends_with(&port)).count(), 3);
}

#[tokio::test]
async fn a_pod_that_is_ready_is_taken() {
    let fake = FakeCluster::new(echo().await);
    let client = client(&fake).await;
    let mut leaving = pod("a-leaving", true);
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
    let unready = pod("b-starting", false);
    fake.set_pods(&[
        pod("d", true),
        pod("c", true),
        unready.clone(),
        leaving.clone(),
    ]);
    forward(&client, &api()).await.unwrap();
    let requests = fake.requests();
    assert!(
        requests.last().unwrap().contains("/pods/c/"),
        "{requests:?}"
    );
    fake.set_pods(&[unready, leaving]);
    let none = error(&fake, &client, &api()).await;
    assert!(
        none.contains("a-leaving (being deleted), b-starting (Running)"),
        "{none}"
    );
    fake.set_pods(&[]);
    let none = error(&fake, &client, &api()).await;
    assert!(none.contains("there are none"), "{none}");
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let fake = FakeCluster::new(echo().await);
    let client = client(&fake).await;
    for (to, words) in [
        (
            ServicePort {
                service: "other".into(),
                ..api()
            },
            "no service other in the namespace ethogram",
        ),
        (
            ServicePort {
                port: "x".into(),
                ..api()
            },
            "no port named \"x\": it has ingest, api",
        ),
        (
            ServicePort {
                port: "nowhere".into(),
                ..api()
            },
            "no port named \"nowhere\"",
        ),
    ] {
        let why = error(&fake, &client, &to).await;
        assert!(why.contains(words), "{why}");
    }
    for (part, words) in [
        ("/services/", "must allow to get services"),
        ("/pods", "must allow to list pods"),
        (
            "/portforward",
            "must allow to get and create pods/portforward",
        ),
    ] {
        fake.forbid(part);
        let why = error(&fake, &client, &api()).await;
        assert!(
            why.contains(words) && why.contains("\"ada\" cannot"),
            "{why}"
        );
        fake.allow_all();
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_said_by_the_pods_node() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let fake = FakeCluster::new(address);
    let client = client(&fake).await;
    let mut stream = forward(&client, &api()).await.unwrap();
    let why = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    let why = why.to_string();
    assert!(
        why.contains("error forwarding port 8687") && why.contains("refused"),
        "{why}"
    );
}

#[tokio::test]
async fn a_secret_that_may_not_be_read_is_none() {
    let fake = FakeCluster::new(echo().await);
    let client = client(&fake).await;
    let kept = || async { secret(&client, "ethogram", "s").await.unwrap() };
    assert!(kept().await.is_empty());
    fake.keep_secret("s", &json!({"token": "c2VjcmV0"}));
    assert_eq!(kept().await["token"], b"secret");
    fake.forbid("/secrets/");
    assert!(kept().await.is_empty());
}

#[tokio::test]
async fn a_context_that_is_not_there_is_named() {
    let file = kubeconfig("127.0.0.1:1".parse().unwrap());
    let made = connect_as_user(Some(file.path()), Some("production")).await;
    let why = made.err().unwrap().to_string();
    assert!(why.contains("production"), "{why}");
}
