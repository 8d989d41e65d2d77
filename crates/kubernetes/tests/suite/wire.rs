//! The same over real connections: HTTP on the loopback.

use crate::{
    fake_api::FakeApi,
    fake_http::{kubeconfig, serve},
    naming::pod,
    reader::START,
};
use ethogram_kubernetes::{Event, Kind, Names, Scope, Watch, connect};
use std::time::Duration;
use tokio::time::timeout;

/// Longer than any of this can take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Takes events until an address has that name.
async fn until(names: &mut Names, watch: &mut Watch, name: &str) {
    let named = async {
        loop {
            names.apply(watch.next().await, START);
            let updates = names.changed(START);
            if updates
                .endpoints
                .iter()
                .any(|e| e.name == name && e.until.is_none())
            {
                return;
            }
        }
    };
    timeout(PATIENCE, named)
        .await
        .unwrap_or_else(|_| panic!("{name} never came"));
}

#[tokio::test]
async fn a_kubeconfig_and_a_real_connection() {
    let fake = FakeApi::recorded();
    let (address, serving) = serve(&fake).await;
    let client = connect(Some(kubeconfig(address).path())).await.unwrap();
    let mut watch = Watch::start(&client, &Scope::Cluster);
    let mut names = Names::new(Scope::Cluster.kinds(), Vec::new());
    until(&mut names, &mut watch, "svc/dvwa-mysql-service").await;
    fake.put(pod("a", "a", "10.9.0.1", "2026-01-01T12:00:00Z"));
    until(&mut names, &mut watch, "pod/a").await;
    fake.break_watches();
    fake.put(pod("b", "b", "10.9.0.2", "2026-01-01T12:00:00Z"));
    until(&mut names, &mut watch, "pod/b").await;
    fake.delete(Kind::Pod, "a");
    serving.abort();
}

#[tokio::test]
async fn nobody_at_the_address_is_said_as_it_is() {
    let fake = FakeApi::recorded();
    let (address, serving) = serve(&fake).await;
    serving.abort();
    assert!(serving.await.unwrap_err().is_cancelled());
    let client = connect(Some(kubeconfig(address).path())).await.unwrap();
    let mut watch = Watch::start(&client, &Scope::Node("n1".into()));
    let away = async {
        loop {
            if let Event::Away(Kind::Pod, why) = watch.next().await {
                return why;
            }
        }
    };
    let why = timeout(PATIENCE, away).await.unwrap();
    assert!(
        why.starts_with("pods: ") && why.contains("refused"),
        "{why}"
    );
}

#[tokio::test]
async fn a_kubeconfig_that_is_wrong_is_named() {
    let missing = connect(Some("/nowhere/config".as_ref())).await;
    let text = missing.err().unwrap().to_string();
    assert!(text.contains("/nowhere/config"), "{text}");
}
