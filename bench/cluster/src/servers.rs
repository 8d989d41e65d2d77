//! The processes that are measured: the real collector, and a ClickHouse server.

use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a server may take to answer.
const START_WITHIN: Duration = Duration::from_secs(120);

/// Where a process runs.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// Here.
    Here,
    /// In a network namespace.
    Network(&'static str),
    /// Where a directory is a small file system that nobody else sees.
    SmallDisk(PathBuf),
}

/// The size of a small file system: a store with room for some 100,000 rows.
const SMALL_DISK: &str = "48m";

/// A process that is killed when this goes.
pub(crate) struct Server {
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a process used until now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Processor time in seconds.
    pub(crate) cpu_s: f64,
    /// Resident memory in bytes.
    pub(crate) resident: u64,
}

impl Server {
    pub(crate) fn start(command: &mut Command, place: &Place, log: &Path) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        // It does not outlive a run that is killed.
        let mut guarded = Command::new("setpriv");
        guarded.args(["--pdeathsig", "KILL", "--"]);
        match place {
            Place::Here => {}
            Place::Network(name) => {
                guarded
                    .arg("nsenter")
                    .arg(format!("--net=/run/netns/{name}"));
            }
            Place::SmallDisk(directory) => {
                let mount = format!(
                    "mount -t tmpfs -o size={SMALL_DISK} none \"$1\" && shift && exec \"$@\""
                );
                guarded.args(["unshare", "--mount", "--propagation", "private", "sh", "-c"]);
                guarded.args([&mount, "sh"]).arg(directory);
            }
        }
        guarded
            .arg(command.get_program())
            .args(command.get_args())
            .envs(
                command
                    .get_envs()
                    .filter_map(|(key, value)| Some((key, value?))),
            );
        guarded
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = guarded
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child })
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        // Fails only where it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// A path as the process sees it.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        let below_root = path.strip_prefix("/").unwrap_or(path);
        Path::new(&format!("/proc/{}/root", self.child.id())).join(below_root)
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // After the name, which may hold anything: fields 14 and 15 of proc(5).
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let number = |at: usize| {
            fields
                .get(at)
                .and_then(|field| field.parse::<u64>().ok())
                .unwrap_or(0)
        };
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        Ok(Usage {
            cpu_s: (number(11) + number(12)) as f64 / ticks,
            resident: number(21) * rustix::param::page_size() as u64,
        })
    }
}

/// A port that nobody listens on.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

fn wait_until(what: &str, log: &Path, is_ready: impl Fn() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !is_ready() {
        if begun.elapsed() > START_WITHIN {
            bail!(
                "{what} does not answer; it says:\n{}",
                fs::read_to_string(log).unwrap_or_default()
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A running collector.
pub(crate) struct Collector {
    pub(crate) process: Server,
    pub(crate) reports: SocketAddr,
    api: SocketAddr,
    place: Place,
    ethogram: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
}

impl Collector {
    pub(crate) fn start(ethogram: &Path, store: &str, directory: &Path) -> Result<Self> {
        Self::start_in(ethogram, store, directory, Place::Here)
    }

    pub(crate) fn start_in(
        ethogram: &Path,
        store: &str,
        directory: &Path,
        place: Place,
    ) -> Result<Self> {
        let reports = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let api = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let (listen, api_listen) = (reports.to_string(), api.to_string());
        let arguments = [
            "collector",
            "--listen",
            &listen,
            "--api-listen",
            &api_listen,
            "--store",
            store,
            "--retention-size",
            "1000GiB",
            // The agents' times are made up.
            "--retention-age",
            "36500d",
        ];
        let arguments = arguments.map(str::to_owned).to_vec();
        let log = directory.join("collector.log");
        let process = Server::start(Command::new(ethogram).args(&arguments), &place, &log)?;
        let collector = Self {
            process,
            reports,
            api,
            place,
            ethogram: ethogram.to_owned(),
            arguments,
            log,
        };
        collector.wait_ready()?;
        Ok(collector)
    }

    fn wait_ready(&self) -> Result<()> {
        wait_until("the collector", &self.log, || {
            self.get("/v1/health").is_ok()
        })
    }

    /// Kills it and starts it again with what it kept.
    pub(crate) fn kill_and_start(mut self) -> Result<Self> {
        self.process.kill();
        let mut command = Command::new(&self.ethogram);
        self.process = Server::start(command.args(&self.arguments), &self.place, &self.log)?;
        self.wait_ready()?;
        Ok(self)
    }

    /// Asks its API.
    pub(crate) fn get(&self, path_and_query: &str) -> Result<Vec<u8>> {
        let Place::Network(name) = self.place else {
            return http(
                self.api,
                &format!("GET {path_and_query} HTTP/1.0\r\nHost: localhost\r\n\r\n"),
            );
        };
        let output = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{name}"))
            .args([
                "curl",
                "-sSf",
                &format!("http://{}{path_and_query}", self.api),
            ])
            .output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output.stdout)
    }
}

/// The body of an answer that says 200.
fn http(server: SocketAddr, request: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end_of_head = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("no answer")?;
    let body = answer.split_off(end_of_head + 4);
    let head = String::from_utf8_lossy(&answer);
    if head.split(' ').nth(1) != Some("200") {
        bail!(
            "{}: {}",
            head.lines().next().unwrap_or_default(),
            String::from_utf8_lossy(&body)
        );
    }
    Ok(body)
}

/// A running ClickHouse server.
pub(crate) struct ClickHouse {
    pub(crate) process: Server,
    port: u16,
    directory: PathBuf,
}

impl ClickHouse {
    /// Starts Debian's server on loopback with its data below a directory.
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        let (port, tcp, between) = (free_port()?, free_port()?, free_port()?);
        let at = directory.display();
        fs::create_dir_all(directory)?;
        let config = format!(
            "<yandex><logger><level>warning</level><log>{at}/log</log><errorlog>{at}/errors</errorlog></logger>
             <listen_host>127.0.0.1</listen_host><http_port>{port}</http_port><tcp_port>{tcp}</tcp_port>
             <interserver_http_port>{between}</interserver_http_port><interserver_http_host>127.0.0.1</interserver_http_host>
             <path>{at}/data/</path><tmp_path>{at}/tmp/</tmp_path><users_config>{at}/users.xml</users_config>
             <mark_cache_size>268435456</mark_cache_size>
             <default_profile>default</default_profile><default_database>default</default_database></yandex>"
        );
        let users =
            "<yandex><profiles><default></default></profiles><quotas><default></default></quotas>
             <users><default><password></password><networks><ip>127.0.0.1</ip></networks>
             <profile>default</profile><quota>default</quota></default></users></yandex>";
        fs::write(directory.join("config.xml"), config)?;
        fs::write(directory.join("users.xml"), users)?;
        let server = Self {
            process: Self::spawn(directory)?,
            port,
            directory: directory.to_owned(),
        };
        server.wait_ready()?;
        Ok(server)
    }

    fn spawn(directory: &Path) -> Result<Server> {
        let mut command = Command::new("clickhouse-server");
        command.arg(format!("--config-file={}/config.xml", directory.display()));
        Server::start(&mut command, &Place::Here, &directory.join("output"))
    }

    fn wait_ready(&self) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        wait_until(
            "clickhouse-server (Debian's package of that name)",
            &self.directory.join("output"),
            || http(address, "GET /?query=SELECT%201 HTTP/1.0\r\n\r\n").is_ok(),
        )
    }

    /// Kills it and starts it again with what it kept.
    pub(crate) fn kill_and_start(mut self) -> Result<Self> {
        self.process.kill();
        // Its lock says which process had the data.
        fs::remove_file(self.directory.join("data/status")).ok();
        self.process = Self::spawn(&self.directory)?;
        self.wait_ready()?;
        Ok(self)
    }

    pub(crate) fn store(&self) -> String {
        format!("clickhouse://127.0.0.1:{}/ethogram", self.port)
    }
}

/// What a directory takes on disk, in bytes.
pub(crate) fn disk(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut pending: Vec<PathBuf> = vec![directory.to_owned()];
    let mut bytes = 0;
    while let Some(directory) = pending.pop() {
        // A server removes what it merged while this is read.
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                pending.push(entry.path());
            } else {
                bytes += metadata.blocks() * 512;
            }
        }
    }
    bytes
}
