//! Certificates: who is believed, who is not, and what a renewal takes.

use crate::support::*;
use ethogram_cluster::{
    SenderOptions, Trust,
    access::Access,
    certs,
    listen::{ServerTls, ServerTlsFiles},
};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use tempfile::TempDir;

fn make(directory: &Path, nodes: &[&str]) {
    let nodes: Vec<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    certs::make(directory, &names, &nodes).unwrap();
}

fn tls(directory: &Path) -> ServerTls {
    let files = ServerTlsFiles {
        certificate: directory.join("collector.crt"),
        key: directory.join("collector.key"),
        client_ca: Some(directory.join("ca.crt")),
        client_required: true,
    };
    ServerTls::new(files, &["h2"]).unwrap()
}

async fn collector(store: &TempDir, certificates: &Path) -> Collector {
    let setup = Setup {
        access: Some(Access::new(None, true).unwrap()),
        tls: Some(tls(certificates)),
        ..Setup::default()
    };
    Collector::with(store.path(), setup).await
}

/// The agent with the certificate of a node, believing an authority.
fn options(
    agent: &Agent,
    collector: &Collector,
    ca: &Path,
    identity: Option<(&Path, &str)>,
) -> SenderOptions {
    SenderOptions {
        collector: format!("https://localhost:{}", collector.address.port()),
        trust: Trust {
            ca: Some(ca.join("ca.crt")),
            identity: identity.map(|(folder, node)| {
                (
                    folder.join(format!("{node}.crt")),
                    folder.join(format!("{node}.key")),
                )
            }),
            token: None,
        },
        ..agent.options(collector.address)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_reports_for_the_node_of_its_certificate_only() {
    let (here, there) = two_directories();
    let (certs, foreign) = two_directories();
    make(certs.path(), &[NODE, "node-2"]);
    make(foreign.path(), &[NODE]);
    let collector = collector(&there, certs.path()).await;
    let mut agent = Agent::new(here.path(), NODE);
    agent.work(1);
    let own = certs.path();
    for (ca, identity, words) in [
        // Of another node, of another authority, none at all, a collector's.
        (own, Some((own, "node-2")), "may not report for node"),
        (own, Some((foreign.path(), NODE)), "the connection broke"),
        (own, None, "the connection broke"),
        (own, Some((own, "collector")), "the connection broke"),
        // A collector of another authority.
        (foreign.path(), Some((own, NODE)), "no connection to"),
    ] {
        let sending = Sending::start(
            agent.store.clone(),
            options(&agent, &collector, ca, identity),
        );
        until("it is refused", || {
            !sending.status.borrow().last_error.is_empty()
        })
        .await;
        let error = sending.status.borrow().last_error.clone();
        assert!(
            error.contains(words)
                || (words == "the connection broke" && error.contains("no connection to")),
            "{error}"
        );
        assert_eq!(sending.status.borrow().batches, 0);
        sending.stop().await;
    }
    assert!(Content::of(&*collector.store).rows.is_empty());
    let _sending = Sending::start(
        agent.store.clone(),
        options(&agent, &collector, own, Some((own, NODE))),
    );
    until_told(&agent, &*collector.store).await;
}

/// A certificate like that of `ethogram certs`, which ends in so many days.
fn make_until(days: i64, directory: &Path, stem: &str, names: &[&str]) {
    let named = |common_name: &str| {
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, common_name);
        name
    };
    let key = fs::read_to_string(directory.join("ca.key")).unwrap();
    let mut authority = CertificateParams::default();
    authority.distinguished_name = named("Ethogram CA");
    let authority = Issuer::new(authority, KeyPair::from_pem(&key).unwrap());
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = named(stem);
    params.extended_key_usages = vec![match stem {
        "collector" => ExtendedKeyUsagePurpose::ServerAuth,
        _ => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    let now = time::OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (
        now - time::Duration::days(10),
        now + time::Duration::days(days),
    );
    let key = KeyPair::generate().unwrap();
    let signed = params.signed_by(&key, &authority).unwrap();
    fs::write(directory.join(format!("{stem}.key")), key.serialize_pem()).unwrap();
    fs::write(directory.join(format!("{stem}.crt")), signed.pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_not_believed() {
    let (here, there) = two_directories();
    let (certs, old) = two_directories();
    make(certs.path(), &[NODE]);
    for file in ["ca.crt", "ca.key", "collector.crt", "collector.key"] {
        fs::copy(certs.path().join(file), old.path().join(file)).unwrap();
    }
    make_until(-1, old.path(), NODE, &[NODE]);
    let mut agent = Agent::new(here.path(), NODE);
    agent.work(1);
    let refused = async |collector: &Collector, identity: &Path, words: &[&str]| {
        let options = options(&agent, collector, certs.path(), Some((identity, NODE)));
        let sending = Sending::start(agent.store.clone(), options);
        let says = || sending.status.borrow().last_error.clone();
        until("it is refused", || !says().is_empty()).await;
        let error = says();
        assert!(words.iter().any(|words| error.contains(words)), "{error}");
        assert_eq!(sending.status.borrow().batches, 0);
        sending.stop().await;
        assert!(Content::of(&*collector.store).rows.is_empty());
    };
    // An agent's.
    let young = collector(&there, certs.path()).await;
    refused(
        &young,
        old.path(),
        &["the connection broke", "no connection to"],
    )
    .await;
    // A collector's.
    make_until(-1, old.path(), "collector", &["localhost"]);
    let (elsewhere, _) = two_directories();
    let aged = collector(&elsewhere, old.path()).await;
    refused(&aged, certs.path(), &["Expired", "expired"]).await;
    // It was the date: those made in the same way that hold still are believed.
    make_until(1, old.path(), "collector", &["localhost"]);
    make_until(1, old.path(), NODE, &[NODE]);
    let (elsewhere, _) = two_directories();
    let renewed = collector(&elsewhere, old.path()).await;
    let options = options(&agent, &renewed, old.path(), Some((old.path(), NODE)));
    let _sending = Sending::start(agent.store.clone(), options);
    until_told(&agent, &*renewed.store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_read_again_when_they_change() {
    let (here, there) = two_directories();
    let (certs, renewed) = two_directories();
    make(certs.path(), &[NODE]);
    make(renewed.path(), &[NODE]);
    let collector = collector(&there, certs.path()).await;
    let mut agent = Agent::new(here.path(), NODE);
    agent.work(1);
    let with = |folder: &Path| options(&agent, &collector, folder, Some((folder, NODE)));
    let old = Sending::start(agent.store.clone(), with(certs.path()));
    until("the first is let in", || {
        old.status.borrow().caught_up.is_some()
    })
    .await;
    for file in ["ca.crt", "collector.crt", "collector.key"] {
        fs::copy(renewed.path().join(file), certs.path().join(file)).unwrap();
    }
    let new = Sending::start(agent.store.clone(), with(renewed.path()));
    until("the new authority is believed", || {
        new.status.borrow().caught_up.is_some()
    })
    .await;
}

#[test]
fn an_authority_signs_again_later() {
    let directory = TempDir::new().unwrap();
    make(directory.path(), &[NODE]);
    let read = |file: &str| fs::read_to_string(directory.path().join(file)).unwrap();
    let (ca, node) = (read("ca.crt"), read("node-1.crt"));
    make(directory.path(), &[NODE, "node-2"]);
    assert_eq!(read("ca.crt"), ca);
    assert_ne!(read("node-1.crt"), node, "renewed");
    tls(directory.path());
    for key in ["ca.key", "collector.key", "node-1.key", "node-2.key"] {
        let mode = fs::metadata(directory.path().join(key))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    fs::remove_file(directory.path().join("ca.key")).unwrap();
    let half = certs::make(directory.path(), &[], &[])
        .unwrap_err()
        .to_string();
    assert!(half.contains("ca.key is missing"), "{half}");
    for node in ["../x", "", ".x", "ca", "a b"] {
        let error = certs::make(directory.path(), &[], &[node.to_owned()]).unwrap_err();
        assert!(error.to_string().contains("no node's name"), "{error}");
    }
}
