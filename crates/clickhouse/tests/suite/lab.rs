//! Servers for the tests: ClickHouse and ZooKeeper on loopback, in a directory of their own,
//! gone with the test process whatever ends it.
//!
//! `CLICKHOUSE_SERVER` names another server binary than `clickhouse-server`.

use crate::support::Fresh;
use ethogram_clickhouse::{Address, ClickHouseStore};
use std::{
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// A process that ends when this value goes, or when the test process does: a shell holds
/// it and waits for the end of its input.
pub(crate) struct Guarded {
    shell: Child,
    /// The process's own id.
    pub(crate) pid: u32,
}

impl Guarded {
    /// Starts a program, its output going to `log`.
    pub(crate) fn start(program: &mut Command, log: &Path) -> Self {
        const HOLD: &str =
            r#"log=$1; shift; "$@" >"$log" 2>&1 & echo $!; cat >/dev/null; kill -9 $!"#;
        let mut shell = Command::new("sh")
            .args(["-c", HOLD, "sh"])
            .arg(log)
            .arg(program.get_program())
            .args(program.get_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = Vec::new();
        let out = shell.stdout.as_mut().unwrap();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            out.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        let pid = String::from_utf8(line).unwrap().trim().parse().unwrap();
        Self { shell, pid }
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid.to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().unwrap();
    }
}

/// A directory below the temporary one; a static has no destructor, so the shell that
/// holds the last process would have to remove it. It is removed by the next run instead.
fn directory(name: &str) -> PathBuf {
    static OLD_ONES: OnceLock<()> = OnceLock::new();
    let root = env::temp_dir().join("ethogram-clickhouse-tests");
    OLD_ONES.get_or_init(|| remove_directories_of_ended_processes(&root));
    let directory = root.join(process::id().to_string()).join(name);
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn remove_directories_of_ended_processes(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !Path::new("/proc").join(&name).exists() {
            // Another test process may be doing the same.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A port that nobody listens on, below those that the kernel gives to outgoing
/// connections: one of these could take it before the server does.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    loop {
        let offset = process::id() * 97 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + offset % COUNT).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn wait_until(what: &str, log: &Path, is_ready: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_ready() {
        if begun.elapsed() > Duration::from_secs(120) {
            let log = fs::read_to_string(log).unwrap_or_default();
            panic!("{what} did not start; it says:\n{log}");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// What a server answers to a query; its error as `Err`.
pub(crate) fn ask(port: u16, query: &str) -> Result<String, String> {
    let request = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        let length = query.len();
        write!(
            stream,
            "POST / HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{query}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = request().map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(&*answer)?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.into()),
        _ => Err(body.into()),
    }
}

/// Waits until a server answers queries.
pub(crate) fn wait_for_server(what: &str, port: u16, log: &Path) {
    wait_until(what, log, || ask(port, "SELECT 1").is_ok());
}

/// Where the engine in Python keeps its data.
pub(crate) fn chdb_directory() -> PathBuf {
    directory("chdb")
}

/// Where a server is in the cluster.
#[derive(Clone, Copy)]
struct Ports {
    http: u16,
    tcp: u16,
    between: u16,
}

impl Ports {
    fn new() -> Self {
        Self {
            http: free_port(),
            tcp: free_port(),
            between: free_port(),
        }
    }
}

/// A running server.
pub(crate) struct ServerProcess {
    process: Guarded,
    /// Its HTTP port.
    pub(crate) port: u16,
    directory: PathBuf,
}

impl ServerProcess {
    /// A server on its own.
    pub(crate) fn alone(name: &str) -> Self {
        Self::start(name, Ports::new(), "")
    }

    fn start(name: &str, ports: Ports, cluster_xml: &str) -> Self {
        let directory = directory(name);
        let at = directory.display();
        let Ports { http, tcp, between } = ports;
        let config = format!(
            "<yandex>
                <logger><level>warning</level><log>{at}/log</log><errorlog>{at}/errors</errorlog></logger>
                <listen_host>127.0.0.1</listen_host>
                <http_port>{http}</http_port><tcp_port>{tcp}</tcp_port>
                <interserver_http_port>{between}</interserver_http_port>
                <interserver_http_host>127.0.0.1</interserver_http_host>
                <path>{at}/data/</path><tmp_path>{at}/tmp/</tmp_path><users_config>{at}/users.xml</users_config>
                <mark_cache_size>67108864</mark_cache_size>
                <default_profile>default</default_profile><default_database>default</default_database>
                {cluster_xml}
            </yandex>"
        );
        let user = |name: &str, password: &str| {
            format!(
                "<{name}><password>{password}</password><networks><ip>127.0.0.1</ip></networks>
                 <profile>default</profile><quota>default</quota></{name}>"
            )
        };
        let users = format!(
            "<yandex><profiles><default></default></profiles><quotas><default></default></quotas>
             <users>{}{}</users></yandex>",
            user("default", ""),
            user("guarded", "s3cret/@")
        );
        fs::write(directory.join("config.xml"), config).unwrap();
        fs::write(directory.join("users.xml"), users).unwrap();
        Self::run(directory, http)
    }

    fn run(directory: PathBuf, port: u16) -> Self {
        let binary = env::var_os("CLICKHOUSE_SERVER").unwrap_or_else(|| "clickhouse-server".into());
        let mut command = Command::new(binary);
        command.arg(format!("--config-file={}/config.xml", directory.display()));
        let log = directory.join("output");
        let process = Guarded::start(&mut command, &log);
        wait_for_server(
            "clickhouse-server (Debian's package of that name)",
            port,
            &log,
        );
        Self {
            process,
            port,
            directory,
        }
    }

    /// Kills the server, as a crash would.
    pub(crate) fn stop(self) -> StoppedServer {
        StoppedServer {
            port: self.port,
            directory: self.directory,
        }
    }

    /// Lets it hang: it holds its connections and answers nothing.
    pub(crate) fn freeze(&self) {
        self.process.signal("-STOP");
    }

    pub(crate) fn thaw(&self) {
        self.process.signal("-CONT");
    }
}

/// A server that was killed.
pub(crate) struct StoppedServer {
    port: u16,
    directory: PathBuf,
}

impl StoppedServer {
    pub(crate) fn start_again(self) -> ServerProcess {
        // Its lock says which process had the data.
        let _ = fs::remove_file(self.directory.join("data/status"));
        ServerProcess::run(self.directory, self.port)
    }
}

/// ZooKeeper and three servers: cluster `two` is a shard on `first` and one on `second`; in
/// cluster `copied` the first shard has a second replica, `copy`.
pub(crate) struct Cluster {
    _zookeeper: Guarded,
    pub(crate) first: ServerProcess,
    pub(crate) second: ServerProcess,
    pub(crate) copy: ServerProcess,
}

impl Cluster {
    /// `name` tells this cluster's directories from others'.
    pub(crate) fn start(name: &str) -> Self {
        let zookeeper_port = free_port();
        let zookeeper = start_zookeeper(&format!("{name}-zookeeper"), zookeeper_port);
        let ports = [Ports::new(), Ports::new(), Ports::new()];
        let replica = |at: usize| {
            let port = ports[at].tcp;
            format!("<replica><host>127.0.0.1</host><port>{port}</port></replica>")
        };
        let shard = |replicas: &[usize]| {
            let replicas: String = replicas.iter().map(|&at| replica(at)).collect();
            format!("<shard><internal_replication>true</internal_replication>{replicas}</shard>")
        };
        let start = |name: String, at: usize, shard_number: u32| {
            let xml = format!(
                "<zookeeper><node><host>127.0.0.1</host><port>{zookeeper_port}</port></node></zookeeper>
                 <macros><shard>{shard_number}</shard><replica>r{at}</replica></macros>
                 <distributed_ddl><path>/clickhouse/task_queue/ddl</path></distributed_ddl>
                 <remote_servers><two>{}{}</two><copied>{}{}</copied></remote_servers>",
                shard(&[0]),
                shard(&[1]),
                shard(&[0, 2]),
                shard(&[1])
            );
            ServerProcess::start(&name, ports[at], &xml)
        };
        Self {
            _zookeeper: zookeeper,
            first: start(format!("{name}-first"), 0, 1),
            second: start(format!("{name}-second"), 1, 2),
            copy: start(format!("{name}-copy"), 2, 1),
        }
    }
}

fn start_zookeeper(name: &str, port: u16) -> Guarded {
    let directory = directory(name);
    let config = directory.join("zoo.cfg");
    let text = format!(
        "tickTime=2000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n",
        directory.display()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new("java");
    command
        .args([
            "-Xmx192m",
            "-cp",
            "/etc/zookeeper/conf:/usr/share/java/zookeeper.jar",
        ])
        .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
        .arg(config);
    let log = directory.join("output");
    let process = Guarded::start(&mut command, &log);
    wait_until("zookeeper (Debian's package of that name)", &log, || {
        serves_sessions(port).unwrap_or(false)
    });
    process
}

/// ClickHouse 18.16 crashes on a ZooKeeper that accepts connections and no sessions yet.
fn serves_sessions(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"srvr")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.contains("Mode: standalone"))
}

/// Tables that hold what was reported.
const DATA: [&str; 7] = [
    "observation",
    "loss",
    "container",
    "run",
    "endpoint",
    "resolution",
    "history",
];

/// Databases that are made once and emptied for the next test that wants one.
pub(crate) struct Databases {
    free: Mutex<Vec<String>>,
    made: AtomicU32,
    /// The server that tests talk to.
    port: u16,
    /// Where there are rows: HTTP ports.
    ports: Vec<u16>,
    /// What follows the database in an address.
    parameters: &'static str,
    /// What follows the name of a table that holds rows.
    suffix: &'static str,
}

/// A database that is given back when the test is over.
struct Lease {
    of: &'static Databases,
    name: String,
}

impl Databases {
    pub(crate) fn new(
        port: u16,
        ports: Vec<u16>,
        parameters: &'static str,
        suffix: &'static str,
    ) -> Self {
        Self {
            free: Mutex::default(),
            made: AtomicU32::new(0),
            port,
            ports,
            parameters,
            suffix,
        }
    }

    /// A store without any row.
    pub(crate) fn fresh(&'static self) -> Fresh {
        let name = self.free.lock().unwrap().pop();
        let name =
            name.unwrap_or_else(|| format!("t{}", self.made.fetch_add(1, Ordering::Relaxed)));
        let store = self.open(&name);
        for port in &self.ports {
            for table in DATA {
                ask(
                    *port,
                    &format!("TRUNCATE TABLE {name}.{table}{}", self.suffix),
                )
                .unwrap();
            }
        }
        Fresh {
            store: Box::new(store),
            _place: Box::new(Lease { of: self, name }),
        }
    }

    pub(crate) fn open(&self, database: &str) -> ClickHouseStore {
        ClickHouseStore::open(&address(self.port, database, self.parameters)).unwrap()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.of.free.lock().unwrap().push(self.name.clone());
    }
}

/// An address on this machine; batches do not wait, tests have few writers.
pub(crate) fn address(port: u16, database: &str, parameters: &str) -> Address {
    format!("clickhouse://127.0.0.1:{port}/{database}?batch_ms=0{parameters}")
        .parse()
        .unwrap()
}
