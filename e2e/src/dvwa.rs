//! The application that the summary's model shows: a web pod (apache with php) that asks a
//! database pod (mariadb), visited, attacked through its page, and visited by a shell. The
//! scenario states what the web pod must have done.

use crate::{
    expected::{Count, Expected},
    node::{ContainerSpec, NODE_ADDRESS, Node, Pod, PodSpec},
};
use anyhow::{Result, ensure};
use ethogram_model::{Kind, Protocol};

/// The web pod's name.
pub const WEB_POD: &str = "dvwa-web-59b677c755-qmpkd";
/// The database pod's name.
pub const DATABASE_POD: &str = "dvwa-mysql-68cbf8f98b-t7wkx";
/// The images that the two pods need.
pub const IMAGES: &[&str] = &["web", "db"];

const APACHE: &str = "/usr/sbin/apache2";
const DASH: &str = "/usr/bin/dash";
const BASH: &str = "/usr/bin/bash";
const PING: &str = "/usr/bin/ping";

/// The two pods.
#[derive(Debug)]
pub struct Dvwa<'node> {
    /// The database.
    pub database: Pod<'node>,
    /// The web server.
    pub web: Pod<'node>,
    /// The address at which the web server finds the database.
    pub database_address: String,
}

/// How often each part of the scenario happens.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Visits of the start page, each of which asks the database.
    pub visits: u64,
    /// Uses of the ping page as it was meant.
    pub pings: u64,
    /// Uses of the reading page on a file that the server's user may not read.
    pub denied_reads: u64,
    /// Uses of the ping page with commands of the visitor's own.
    pub injections: u64,
    /// Shells in the container (`kubectl exec`).
    pub shells: u64,
    /// Visits from inside the web pod.
    pub local_visits: u64,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            visits: 20,
            pings: 3,
            denied_reads: 2,
            injections: 2,
            shells: 2,
            local_visits: 6,
        }
    }
}

impl Scenario {
    /// Nothing at all.
    #[must_use]
    pub fn none() -> Self {
        Self {
            visits: 0,
            pings: 0,
            denied_reads: 0,
            injections: 0,
            shells: 0,
            local_visits: 0,
        }
    }
}

impl std::ops::Add for Scenario {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            visits: self.visits + other.visits,
            pings: self.pings + other.pings,
            denied_reads: self.denied_reads + other.denied_reads,
            injections: self.injections + other.injections,
            shells: self.shells + other.shells,
            local_visits: self.local_visits + other.local_visits,
        }
    }
}

impl<'node> Dvwa<'node> {
    /// Starts both pods and waits until they serve. Nobody has visited them yet.
    ///
    /// # Errors
    /// As the runtime says, or when a server does not start.
    pub fn start(node: &'node Node) -> Result<Self> {
        Self::start_apart(node, node, |database| Ok(database.ip.clone()))
    }

    /// The same on two nodes; `address` makes the database reachable and says where.
    ///
    /// # Errors
    /// As the runtimes or `address` say, or when a server does not start.
    pub fn start_apart(
        node_of_database: &'node Node,
        node_of_web: &'node Node,
        address: impl FnOnce(&Pod) -> Result<String>,
    ) -> Result<Self> {
        let database = node_of_database.run(&PodSpec {
            name: DATABASE_POD.into(),
            uid: "2f6d1c1e-55a8-4b7e-9d0a-e7406ab1d001".into(),
            labels: labels("dvwa-mysql", "backend", "68cbf8f98b"),
            container: ContainerSpec {
                name: "mysql".into(),
                image: "localhost/dvwa-mysql:1".into(),
                memory_mebibytes: 512,
                ..ContainerSpec::default()
            },
            ..PodSpec::default()
        })?;
        database.wait_listening(3306)?;
        let database_address = address(&database)?;
        let web = node_of_web.run(&PodSpec {
            name: WEB_POD.into(),
            uid: "8a0b3c54-7e21-4d5f-8c66-e7406ab1d002".into(),
            labels: labels("dvwa-web", "frontend", "59b677c755"),
            hosts: format!("{database_address} dvwa-mysql-service\n"),
            container: ContainerSpec {
                name: "dvwa".into(),
                image: "localhost/dvwa-web:1".into(),
                env: vec![("DB_HOST".into(), "dvwa-mysql-service".into())],
                memory_mebibytes: 256,
                ..ContainerSpec::default()
            },
            ..PodSpec::default()
        })?;
        web.wait_listening(80)?;
        Ok(Self {
            database,
            web,
            database_address,
        })
    }

    /// Leaves both pods running: somebody else ends them.
    pub fn leave(self) {
        self.web.leave();
        self.database.leave();
    }

    /// Plays the scenario and checks that each step had the effect it is there for.
    ///
    /// # Errors
    /// When a step fails or has another effect.
    pub fn play(&self, scenario: Scenario) -> Result<()> {
        for _ in 0..scenario.visits {
            self.page("/", "admin")?;
        }
        for _ in 0..scenario.pings {
            self.page("/ping.php?ip=127.0.0.1", "1 received")?;
        }
        for _ in 0..scenario.denied_reads {
            self.page("/read.php?file=/etc/shadow", "refused")?;
        }
        for _ in 0..scenario.injections {
            // Words separated by +, which is a space in a query.
            let commands =
                "127.0.0.1;head+-n+1+/etc/passwd;cat+/etc/shadow;/usr/bin/tail+/etc/passwd;true";
            let said = self.page(&format!("/ping.php?ip={commands}"), "root:x:0:0")?;
            ensure!(
                !said.contains("root:*"),
                "the web server's user can read /etc/shadow: {said}"
            );
        }
        for _ in 0..scenario.shells {
            let said = self.shell(
                "ls / > /tmp/listing; ls /var/www/html; cat /etc/hostname; head -n 1 /etc/passwd; \
                 ping -c 1 -W 1 localhost; rm /tmp/listing",
            )?;
            for effect in ["index.php", WEB_POD, "root:x:0:0", "1 received"] {
                ensure!(
                    said.contains(effect),
                    "the shell did not say {effect}: {said}"
                );
            }
        }
        for _ in 0..scenario.local_visits {
            let said = self.shell(
                "exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET /ping.txt HTTP/1.0\\r\\n\\r\\n' >&3; \
                 while read -r -u 3 line; do echo \"$line\"; done",
            )?;
            ensure!(
                said.contains("404"),
                "a visit from inside was answered {said}"
            );
        }
        Ok(())
    }

    fn page(&self, path: &str, effect: &str) -> Result<String> {
        let said = self.web.get(path)?;
        ensure!(
            said.contains(effect),
            "{path} did not say {effect:?}: {said:?}"
        );
        Ok(said)
    }

    fn shell(&self, commands: &str) -> Result<String> {
        let ended = self.web.exec(&["/bin/bash", "-c", commands])?;
        ensure!(
            ended.code == 0,
            "bash in the web pod failed with {}: {}",
            ended.code,
            ended.stderr
        );
        Ok(ended.stdout)
    }

    /// The rows that the web pod's summary must have after [`Dvwa::play`].
    #[must_use]
    pub fn truth(&self, scenario: Scenario) -> Vec<Expected> {
        let Scenario {
            visits,
            pings,
            denied_reads,
            injections,
            shells,
            local_visits,
        } = scenario;
        let requests = visits + pings + denied_reads + injections;
        let exactly = Count::Exactly;
        let some = Count::AtLeast(1);
        let mut truth = vec![
            // The server's shells, and what they run.
            process(APACHE, DASH, exactly(pings + injections)),
            process(DASH, PING, exactly(pings + injections)),
            process(DASH, "/usr/bin/head", exactly(injections)),
            process(DASH, "/usr/bin/cat", exactly(injections)),
            process(DASH, "/usr/bin/tail", exactly(injections)).denied(),
            // The visitor's shells, and what they run.
            process(BASH, "/usr/bin/ls", exactly(2 * shells)),
            process(BASH, "/usr/bin/cat", exactly(shells)),
            process(BASH, "/usr/bin/head", exactly(shells)),
            process(BASH, PING, exactly(shells)),
            process(BASH, "/usr/bin/rm", exactly(shells)),
            // Files whose use the pages and the commands determine.
            file(APACHE, "/var/www/html/index.php", exactly(visits)),
            file(
                APACHE,
                "/var/www/html/ping.php",
                exactly(pings + injections),
            ),
            file(APACHE, "/var/www/html/read.php", exactly(denied_reads)),
            file(APACHE, "/tmp/sess_visitor", exactly(visits)),
            file(APACHE, "/etc/hosts", exactly(visits)),
            file(APACHE, "/etc/shadow", exactly(denied_reads)).denied(),
            file("/usr/bin/cat", "/etc/shadow", exactly(injections)).denied(),
            file("/usr/bin/cat", "/etc/hostname", exactly(shells)),
            file("/usr/bin/head", "/etc/passwd", exactly(shells + injections)),
            file(BASH, "/tmp/listing", exactly(shells)),
            file("/usr/bin/rm", "/tmp/listing", exactly(shells)),
            file("/usr/bin/ls", "/var/www/html", exactly(shells)),
            // Who visits, who is visited.
            Expected::network(
                Kind::Ingress,
                APACHE,
                NODE_ADDRESS,
                80,
                Protocol::Tcp6,
                exactly(requests),
            ),
            Expected::network(
                Kind::Ingress,
                APACHE,
                "127.0.0.1",
                80,
                Protocol::Tcp6,
                exactly(local_visits),
            ),
            Expected::network(
                Kind::Egress,
                BASH,
                "127.0.0.1",
                80,
                Protocol::Tcp,
                exactly(local_visits),
            ),
            Expected::network(
                Kind::Egress,
                APACHE,
                &self.database_address,
                3306,
                Protocol::Tcp,
                exactly(visits),
            ),
            Expected::network(
                Kind::Egress,
                PING,
                "127.0.0.1",
                0,
                Protocol::Icmp,
                exactly(pings + injections),
            ),
            Expected::network(
                Kind::Egress,
                PING,
                "::1",
                0,
                Protocol::Icmp6,
                exactly(shells),
            ),
            // The resolver asks for the machine's addresses when a name has several.
            Expected::network(
                Kind::Bind,
                PING,
                "NETLINK_ROUTE",
                0,
                Protocol::Netlink,
                exactly(shells),
            ),
            Expected::new(Kind::Capability, PING, "CAP_NET_RAW", some),
            // A file capability lets ping open its socket; then it drops what it has.
            Expected::new(
                Kind::Syscall,
                PING,
                "setuid",
                exactly(pings + injections + shells),
            ),
        ];
        for program in [
            BASH,
            PING,
            "/usr/bin/ls",
            "/usr/bin/rm",
            DASH,
            "/usr/bin/head",
        ] {
            truth.push(file(program, "/etc/", some));
            truth.push(file(program, "/usr/lib/x86_64-linux-gnu/", some));
        }
        truth
    }
}

fn labels(app: &str, tier: &str, hash: &str) -> std::collections::HashMap<String, String> {
    [("app", app), ("tier", tier), ("pod-template-hash", hash)]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
}

fn process(source: &str, target: &str, count: Count) -> Expected {
    Expected::new(Kind::Process, source, target, count)
}

fn file(source: &str, target: &str, count: Count) -> Expected {
    Expected::new(Kind::File, source, target, count)
}
