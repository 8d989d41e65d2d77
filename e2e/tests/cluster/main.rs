//! Three nodes, each with its containerd and agent, in networks of their own; a collector on
//! ClickHouse with two shards; an API server that knows the pods and services. The web pod
//! runs on one node and its database on another, reached through a service's address; a
//! deployment of visitors has a replica on two of them. Then what makes the cluster is broken
//! piece by piece, and the totals must be those of the scenario all the same.
//!
//! Prints whom the pods talk to, and a table of what was broken and what was seen.

mod collector;
mod objects;

use anyhow::{Context, Result, ensure};
use collector::{Collector, REPORTS, write_files};
use ethogram_e2e::{
    agent::{Agent, Reporting, Setup, binary},
    api_server::{ApiServer, kubeconfig},
    dvwa::{DATABASE_POD, Dvwa, Scenario, WEB_POD},
    expected::{Count, Expected, check, check_complete},
    node::{ContainerSpec, Node, Pod, PodSpec, SUBNET},
    testbed::{self, run_script},
};
use ethogram_model::{Kind, Protocol};
use ethogram_view::{Document, Subject};
use objects::{put_pod, put_what_is_there_before_pods};
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// The database's service, an address that no machine has.
const CLUSTER_IP: &str = "10.96.44.3";

/// Nodes: name, number, the subnet of its pods.
const NODES: [(&str, u8, &str); 3] = [
    ("cluster-a", 1, SUBNET),
    ("cluster-b", 2, "10.89.8.0/24"),
    ("cluster-c", 3, "10.89.9.0/24"),
];
/// Where the web pod is, where its database, and who else has a visitor.
const WEB: usize = 0;
const DATABASE: usize = 1;
const OTHER: usize = 2;
/// What the nodes' pods are made of, beside busybox.
const IMAGES: [&[&str]; 3] = [&["web"], &["db"], &[]];

/// The replicas of the visitors' deployment: where, name, uid, visits of a round.
const VISITORS: [(usize, &str, &str, u64); 2] = [
    (
        DATABASE,
        "visitor-7d9c5b8f64-x2lkq",
        "5b1f0c9e-1111-4222-8333-e7406ab1c001",
        3,
    ),
    (
        OTHER,
        "visitor-7d9c5b8f64-zr8vd",
        "5b1f0c9e-1111-4222-8333-e7406ab1c002",
        5,
    ),
];
const BUSYBOX: &str = "/bin/busybox";

fn main() -> ExitCode {
    match on_the_testbed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn on_the_testbed() -> Result<()> {
    binary()?;
    let _mine = testbed::lock()?;
    testbed::down().context("cannot clean up after an earlier run")?;
    let outcome = three_nodes();
    testbed::down().context("cannot take the testbed down")?;
    outcome
}

fn three_nodes() -> Result<()> {
    let files = tempfile::tempdir()?;
    let nodes = joined_nodes()?;
    run_script("clickhouse.sh", &["up"])?;
    let api = ApiServer::default();
    let listener =
        testbed::in_network("ethogram-fabric", || Ok(TcpListener::bind("127.0.0.1:0")?))?;
    write_files(files.path(), &kubeconfig(api.serve(listener)?))?;
    put_what_is_there_before_pods(&api);
    let collector = Collector::start(files.path())?;
    let agents = Agents::start(&nodes, files.path())?;
    let application = Application::start(&nodes, &api)?;
    let mut cluster = Cluster {
        application,
        played: Scenario::none(),
        rounds_of_visits: 0,
        collector,
        agents,
    };
    cluster.play_and_visit()?;
    cluster.counted()?;
    cluster.show()?;
    cluster.break_piece_by_piece(files.path())?;
    cluster.agents.stop()
}

fn joined_nodes() -> Result<Vec<Node>> {
    run_script("fabric.sh", &["up"])?;
    let mut nodes = Vec::new();
    for ((name, number, subnet), images) in NODES.iter().zip(IMAGES) {
        let node = Node::up_joined(name, subnet, images)?;
        run_script("fabric.sh", &["join", name, &number.to_string(), subnet])?;
        nodes.push(node);
    }
    for (name, number, _) in &NODES {
        for (_, other, subnet) in NODES.iter().filter(|(_, other, _)| other != number) {
            let via = format!("10.90.0.{other}");
            run_script("fabric.sh", &["route", name, subnet, &via])?;
        }
    }
    Ok(nodes)
}

/// An agent on each node.
struct Agents<'node> {
    nodes: &'node [Node],
    files: PathBuf,
    running: Vec<Agent>,
}

impl<'node> Agents<'node> {
    fn start(nodes: &'node [Node], files: &Path) -> Result<Self> {
        let mut agents = Self {
            nodes,
            files: files.into(),
            running: Vec::new(),
        };
        for at in 0..nodes.len() {
            let agent = agents.agent(at)?;
            agents.running.push(agent);
        }
        Ok(agents)
    }

    fn agent(&self, at: usize) -> Result<Agent> {
        let (node, name) = (&self.nodes[at], NODES[at].0);
        let dir = self.files.join(name);
        fs::create_dir_all(&dir)?;
        let reporting = Reporting {
            collector: REPORTS,
            token_file: &self.files.join("agent"),
            node: name,
        };
        Agent::start(
            &dir,
            Setup {
                node: Some(node),
                cri: Some(&node.cri_socket()),
                collector: Some(&reporting),
                ..Setup::default()
            },
        )
    }

    /// Ends one as a crash would, and starts it again with what it kept.
    fn kill_and_start(&mut self, at: usize) -> Result<()> {
        self.running.remove(at).kill()?;
        let again = self.agent(at)?;
        self.running.insert(at, again);
        Ok(())
    }

    fn stop(self) -> Result<()> {
        self.running.into_iter().try_for_each(Agent::stop)
    }
}

/// What runs on the nodes.
struct Application<'node> {
    dvwa: Dvwa<'node>,
    visitors: Vec<Pod<'node>>,
}

impl<'node> Application<'node> {
    fn start(nodes: &'node [Node], api: &ApiServer) -> Result<Self> {
        let dvwa = Dvwa::start_apart(&nodes[DATABASE], &nodes[WEB], |database| {
            run_script(
                "fabric.sh",
                &["service", NODES[WEB].0, CLUSTER_IP, "3306", &database.ip],
            )?;
            Ok(CLUSTER_IP.into())
        })?;
        let visitors = VISITORS
            .iter()
            .map(|(at, name, uid, _)| nodes[*at].run(&visitor(name, uid)))
            .collect::<Result<Vec<_>>>()?;
        put_pod(api, NODES[WEB].0, &dvwa.web);
        put_pod(api, NODES[DATABASE].0, &dvwa.database);
        for ((at, ..), pod) in VISITORS.iter().zip(&visitors) {
            put_pod(api, NODES[*at].0, pod);
        }
        Ok(Self { dvwa, visitors })
    }

    /// One round of visits.
    fn visit(&self) -> Result<()> {
        // There is no such page, so that what pages do is counted as without visitors.
        let page = format!("http://{}/ping.txt", self.dvwa.web.ip);
        for ((.., visits), pod) in VISITORS.iter().zip(&self.visitors) {
            for _ in 0..*visits {
                pod.exec(&["wget", "-q", "-O", "-", &page])?;
            }
        }
        Ok(())
    }
}

fn visitor(name: &str, uid: &str) -> PodSpec {
    PodSpec {
        name: name.into(),
        uid: uid.into(),
        labels: [("app", "visitor"), ("pod-template-hash", "7d9c5b8f64")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        container: ContainerSpec {
            name: "box".into(),
            image: "localhost/busybox:1".into(),
            command: ["sleep", "1000"].map(str::to_owned).into(),
            env: Vec::new(),
            memory_mebibytes: 64,
        },
        ..PodSpec::default()
    }
}

/// Everything, and what it has done.
struct Cluster<'node> {
    application: Application<'node>,
    played: Scenario,
    rounds_of_visits: u64,
    collector: Collector,
    agents: Agents<'node>,
}

impl Cluster<'_> {
    /// Plays the scenario once more.
    fn play(&mut self, scenario: Scenario) -> Result<()> {
        self.application.dvwa.play(scenario)?;
        self.played = self.played + scenario;
        Ok(())
    }

    /// The same, with visitors from other nodes.
    fn play_and_visit(&mut self) -> Result<()> {
        self.play(Scenario::default())?;
        self.application.visit()?;
        self.rounds_of_visits += 1;
        Ok(())
    }

    /// Waits until the collector's totals are those of all that was played.
    fn counted(&self) -> Result<()> {
        self.collector
            .settled(&[], |document| self.check(document))?;
        let workload = ["-w", "deployment/visitor", "--by", "workload"];
        let all = VISITORS.iter().map(|(.., visits)| visits).sum();
        self.collector.settled(&workload, |document| {
            let subject = ethogram_e2e::agent::only(document)?;
            ensure!(subject.instances == 2, "{} replicas", subject.instances);
            check(subject, &self.visits(all))
        })
    }

    /// One subject for each pod, with all that it did.
    fn check(&self, document: &Document) -> Result<()> {
        let count = document.subjects.len();
        ensure!(count == 2 + VISITORS.len(), "{count} subjects");
        let dvwa = &self.application.dvwa;
        let web = pod(document, WEB, WEB_POD)?;
        check(web, &dvwa.truth(self.played))?;
        named(
            web,
            Kind::Egress,
            CLUSTER_IP,
            "svc/dvwa-mysql-service",
            self.played.visits,
        )?;
        let database = pod(document, DATABASE, DATABASE_POD)?;
        let web_name = format!("pod/{WEB_POD}");
        named(
            database,
            Kind::Ingress,
            &dvwa.web.ip,
            &web_name,
            self.played.visits,
        )?;
        for ((at, name, _, visits), pod_of_visitor) in
            VISITORS.iter().zip(&self.application.visitors)
        {
            let visitor = pod(document, *at, name)?;
            check(visitor, &self.visits(*visits))?;
            let visits = visits * self.rounds_of_visits;
            named(visitor, Kind::Egress, &dvwa.web.ip, &web_name, visits)?;
            named(
                web,
                Kind::Ingress,
                &pod_of_visitor.ip,
                &format!("pod/{name}"),
                visits,
            )?;
        }
        Ok(())
    }

    /// What visitors do who together make so many visits in a round.
    fn visits(&self, of_a_round: u64) -> Vec<Expected> {
        let visits = Count::Exactly(of_a_round * self.rounds_of_visits);
        let web = &self.application.dvwa.web.ip;
        vec![Expected::network(
            Kind::Egress,
            BUSYBOX,
            web,
            80,
            Protocol::Tcp,
            visits,
        )]
    }

    /// Prints whom pods talk to, and keeps the whole.
    fn show(&self) -> Result<()> {
        self.collector.settled(&[], |document| {
            document.subjects.iter().try_for_each(check_complete)
        })?;
        let whole = self.collector.summary(&[])?;
        fs::write(testbed::state_dir().join("dvwa-cluster.txt"), &whole)?;
        println!("{}", self.collector.summary(&["-t", "ingress,egress"])?);
        Ok(())
    }

    fn break_piece_by_piece(&mut self, files: &Path) -> Result<()> {
        println!("| what is broken while the scenario is played | every total equals the truth |");
        println!("| --- | --- |");
        self.say("a shard is killed, and comes back", |cluster| {
            run_script("clickhouse.sh", &["stop", "2"])?;
            cluster.play_and_visit()?;
            run_script("clickhouse.sh", &["start", "2"]).map(drop)
        })?;
        self.say(
            "the web pod's node is cut off, and joined again",
            |cluster| {
                run_script("fabric.sh", &["cut", NODES[WEB].0])?;
                // Without its network the page cannot ask the database, and nobody can visit.
                cluster.play(Scenario {
                    visits: 0,
                    ..Scenario::default()
                })?;
                run_script("fabric.sh", &["mend", NODES[WEB].0]).map(drop)
            },
        )?;
        self.say(
            "the database's agent is killed, and started again",
            |cluster| {
                cluster.agents.kill_and_start(DATABASE)?;
                cluster.play_and_visit()
            },
        )?;
        self.say("the collector is killed, and started again", |cluster| {
            cluster.collector.kill()?;
            cluster.play_and_visit()?;
            cluster.collector = Collector::start(files)?;
            Ok(())
        })?;
        // Whoever's agent was killed is said to have been unwatched, nobody else.
        self.collector.settled(&[], |document| {
            check_complete(pod(document, WEB, WEB_POD)?)?;
            let database = &pod(document, DATABASE, DATABASE_POD)?.completeness;
            ensure!(
                !database.complete,
                "a killed agent's watch broke off: {database:?}"
            );
            Ok(())
        })
    }

    /// Breaks something, and says whether the totals are right in the end.
    fn say(&mut self, what: &str, fault: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let seen = fault(self).and_then(|()| self.counted());
        println!("| {what} | {} |", if seen.is_ok() { "yes" } else { "NO" });
        seen.with_context(|| what.to_owned())
    }
}

/// A pod's subject, which must be from its own node.
fn pod<'a>(document: &'a Document, node: usize, name: &str) -> Result<&'a Subject> {
    let is_it = |s: &&Subject| s.pods.len() == 1 && s.pods[0].as_str() == name;
    let subject = document.subjects.iter().find(is_it);
    let subject = subject.with_context(|| format!("no summary of {name}"))?;
    let nodes: Vec<_> = subject
        .nodes
        .iter()
        .map(ethogram_view::Printable::as_str)
        .collect();
    ensure!(nodes == [NODES[node].0], "{name} is on {nodes:?}");
    Ok(subject)
}

/// All connections with an address must be told under one name, and be that many.
fn named(subject: &Subject, kind: Kind, address: &str, name: &str, count: u64) -> Result<()> {
    let rows = subject.table(kind).iter();
    let rows: Vec<_> = rows
        .filter(|row| row.target.as_str() == address && row.protocol.as_str().starts_with("TCP"))
        .collect();
    let others = rows.iter().find(|row| row.peer.as_str() != name);
    ensure!(
        others.is_none(),
        "{address} is not called {name}: {others:?}"
    );
    let counted: u64 = rows.iter().map(|row| row.count).sum();
    ensure!(
        counted == count,
        "{counted} times {name} instead of {count}: {rows:?}"
    );
    Ok(())
}
