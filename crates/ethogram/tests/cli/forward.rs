//! A collector in a cluster, asked through the cluster's API server: ours.

use std::{fs, path::Path};

use ethogram_cluster::Trust;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    collector::{ADMIN, AGENT, Collector, NODE, VIEWER, tell, tokens},
    fake_forward::{FakeCluster, pod},
    fake_http::kubeconfig,
    support::{Known, Said, ethogram, said},
};

const SERVER_NAME: &str = "ethogram-collector.ethogram.svc";

/// An API server in front of a collector that knows a small world.
struct Cluster {
    fake: FakeCluster,
    kubeconfig: tempfile::NamedTempFile,
    folder: TempDir,
    _collector: Collector,
    _runtime: Runtime,
}

impl Cluster {
    /// With a collector that lets everybody in.
    fn open() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let collector = Collector::start(folder.path(), &[]);
        let reports = format!("http://{}", collector.reports);
        Self::of(folder, collector, reports, Trust::default())
    }

    /// With a collector as `deploy/kubernetes` has it: a certificate, tokens.
    fn guarded() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        certificates(folder.path(), &[SERVER_NAME, "localhost"]);
        let file = |name: &str| folder.path().join(name).display().to_string();
        fs::write(file("agent"), AGENT).expect("a token");
        let trust = Trust {
            ca: Some(file("ca.crt").into()),
            token: Some(file("agent").into()),
            ..Trust::default()
        };
        let (cert, key) = (file("collector.crt"), file("collector.key"));
        let tokens = tokens(folder.path());
        let options = ["--tls-cert", &cert, "--tls-key", &key, "--tokens", &tokens];
        let collector = Collector::start(folder.path(), &options);
        let reports = format!("https://localhost:{}", collector.reports.port());
        Self::of(folder, collector, reports, trust)
    }

    fn of(folder: TempDir, collector: Collector, reports: String, trust: Trust) -> Self {
        tell(&Known::world().file(), reports, trust);
        let runtime = Runtime::new().expect("a runtime");
        let fake = FakeCluster::new(collector.api);
        let address = runtime.block_on(fake.serve());
        Self {
            fake,
            kubeconfig: kubeconfig(address),
            folder,
            _collector: collector,
            _runtime: runtime,
        }
    }

    /// Keeps in the cluster what a reader needs: the authority, and a token.
    fn keep_for_readers(&self, token: &str) {
        let ca = fs::read(self.folder.path().join("ca.crt")).expect("the authority");
        let data = json!({"ca.crt": base64(&ca), "token": base64(token.as_bytes())});
        self.fake.keep_secret("ethogram-reader", &data);
    }

    fn ask(&self, options: &[&str]) -> Said {
        let mut command = ethogram();
        command.arg("summary").args(options);
        command.arg("--kubeconfig").arg(self.kubeconfig.path());
        said(&mut command)
    }
}

fn certificates(folder: &Path, names: &[&str]) {
    let mut command = ethogram();
    command.arg("certs").arg("--out").arg(folder);
    command.args(names.iter().flat_map(|name| ["--server", name]));
    said(command.args(["--node", NODE])).ok();
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = (0..3).fold(0u32, |n, at| {
            n << 8 | u32::from(*three.get(at).unwrap_or(&0))
        });
        for digit in 0..4 {
            let value = (number >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit > three.len() {
                '='
            } else {
                DIGITS[value] as char
            });
        }
    }
    text
}

#[test]
fn a_summary_comes_through_the_api_server() {
    let cluster = Cluster::open();
    let told = cluster.ask(&["-n", "dvwa"]).ok();
    assert!(told.out.contains("/etc/shadow"), "{told:?}");
    let listed = said(
        ethogram()
            .args(["containers", "--all", "--kubeconfig"])
            .arg(cluster.kubeconfig.path()),
    );
    assert!(listed.ok().out.contains("web-1"));
}

#[test]
fn the_users_own_kubeconfig_is_asked_where_no_agent_is() {
    let cluster = Cluster::open();
    let home = tempfile::tempdir().expect("a folder");
    fs::create_dir(home.path().join(".kube")).expect("a folder");
    fs::copy(cluster.kubeconfig.path(), home.path().join(".kube/config")).expect("a copy");
    for (name, value) in [
        ("HOME", home.path()),
        ("KUBECONFIG", cluster.kubeconfig.path()),
    ] {
        // The context is named, so that an agent of this machine is not asked instead.
        let mut command = ethogram();
        command.args(["summary", "-n", "dvwa", "--context", "t"]);
        let told = said(command.env(name, value)).ok();
        assert!(told.out.contains("/etc/shadow"), "{told:?}");
    }
}

#[test]
fn what_a_reader_needs_comes_from_the_cluster() {
    let cluster = Cluster::guarded();
    cluster.keep_for_readers(VIEWER);
    let told = cluster.ask(&["-n", "dvwa"]).ok();
    assert!(told.out.contains("/etc/shadow"), "{told:?}");
    let refused = cluster.ask(&[]);
    assert!(refused.err.contains("dvwa only"), "{refused:?}");
    // What is given goes before.
    let file = |name: &str| cluster.folder.path().join(name).display().to_string();
    fs::write(file("admin"), ADMIN).expect("a token");
    let told = cluster.ask(&["--token-file", &file("admin")]).ok();
    assert!(told.out.contains("/etc/shadow"), "{told:?}");
    // Who may not read the secret brings both.
    cluster.fake.forbid("/secrets/");
    let both = ["--token-file", &file("admin"), "--ca", &file("ca.crt")];
    cluster.ask(&both).ok();
}

#[test]
fn who_is_not_let_in_is_told_why() {
    let cluster = Cluster::guarded();
    let file = |name: &str| cluster.folder.path().join(name).display().to_string();
    let ca = file("ca.crt");
    let expect = |options: &[&str], words: &str| {
        let refused = cluster.ask(options);
        assert_eq!(refused.code, Some(1), "{options:?}: {refused:?}");
        assert!(refused.err.contains(words), "{options:?}: {refused:?}");
    };
    expect(&[], "give --ca");
    expect(&["--ca", &ca], "no token");
    cluster.keep_for_readers(AGENT);
    expect(&[], "read nothing");
    expect(&["--ca", "/nowhere/ca.crt"], "/nowhere/ca.crt");
    let other = tempfile::tempdir().expect("a folder");
    certificates(other.path(), &[SERVER_NAME]);
    let stranger = other.path().join("ca.crt").display().to_string();
    expect(&["--ca", &stranger], "invalid peer certificate");
    expect(&["--service", "ethogram/other"], "no service other");
    expect(&["--context", "production"], "production");
    cluster.fake.forbid("/portforward");
    expect(&[], "get and create pods/portforward");
    cluster.fake.allow_all();
    cluster.fake.set_pods(&[pod("ethogram-collector-0", false)]);
    expect(&[], "ethogram-collector-0 (Running)");
    let nowhere = kubeconfig("127.0.0.1:1".parse().expect("an address"));
    let mut command = ethogram();
    command
        .args(["summary", "--kubeconfig"])
        .arg(nowhere.path());
    let refused = said(&mut command);
    assert!(refused.err.contains("refused"), "{refused:?}");
}
