//! Throughput of applications with and without an agent beside them.

use std::{
    fmt::Write,
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    agent::Agent,
    containers::{Container, Containers},
    figures::Spread,
    page::Section,
    plot,
};

/// How long a client drives a server in each round, in seconds.
const CLIENT_S: &str = "3";
/// C files in the compile.
const SOURCES: usize = 60;
/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// An application in a container, and how its throughput is measured.
struct Application {
    name: &'static str,
    /// What a round does, in the unit that `value` finds.
    unit: &'static str,
    client: Vec<String>,
    /// The number before or after this text in what the client prints; none: sources per second.
    value: Option<&'static str>,
    /// Whether the client works in the container, too.
    is_inside: bool,
    _server: Option<Server>,
}

/// A server; ended by its process number when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).ok();
        for _ in 0..200 {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Measures all, in rounds of: alone, alone again, watched.
pub(crate) fn measure(ethogram: &Path, rounds: usize) -> Result<Section> {
    let place = tempfile::tempdir()?;
    // The database's own user has to reach its folder.
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755))?;
    let containers = Containers::make()?;
    let container = containers.add(0)?;
    let mut text = String::from(
        "Throughput with the agent beside it, as a share of that without, of the same round; `noise` is a second run without.\n\n\
         | application | without | noise | with the agent |\n| --- | --- | --- | --- |\n",
    );
    let mut bars = Vec::new();
    for prepare in [nginx, redis, compile, postgres] {
        let application = prepare(place.path(), &container)?;
        let (mut alone, mut noise, mut watched) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            eprint!("\r\x1b[K{} {}/{rounds}", application.name, round + 1);
            let base = application.run(&container)?;
            noise.push(application.run(&container)? / base);
            let agent = Agent::start(ethogram, &place.path().join(format!("agent-{round}")))?;
            watched.push(application.run(&container)? / base);
            agent.stop()?;
            fs::remove_dir_all(place.path().join(format!("agent-{round}")))?;
            alone.push(base);
        }
        let spread = |values: &[f64]| Spread::of(values.iter().copied()).context("no rounds");
        let with = spread(&watched)?;
        writeln!(
            text,
            "| {} | {} {} | {} | {} |",
            application.name,
            spread(&alone)?.text(0),
            application.unit,
            spread(&noise)?.text(3),
            with.text(3)
        )?;
        bars.push((
            format!("{}: ethogram agent", application.name),
            with.median * 100.0,
        ));
        bars.push((
            format!("{}: alone again", application.name),
            spread(&noise)?.median * 100.0,
        ));
    }
    eprint!("\r\x1b[K");
    let picture = plot::bars(
        "Throughput, as a share of that without a watcher",
        "%",
        &bars,
    );
    Ok(Section {
        text,
        pictures: vec![("applications.svg".to_owned(), picture)],
    })
}

impl Application {
    fn run(&self, container: &Container) -> Result<f64> {
        let (program, arguments) = self.client.split_first().context("a client has a name")?;
        let mut command = if self.is_inside {
            container.command(program)
        } else {
            Command::new(program)
        };
        let start = Instant::now();
        let output = command
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {program}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "{} failed: {said}{}",
            self.client.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        match self.value {
            None => Ok(SOURCES as f64 / start.elapsed().as_secs_f64()),
            Some(mark) => {
                value(&said, mark).with_context(|| format!("{program} printed no {mark:?}: {said}"))
            }
        }
    }
}

/// The number beside a mark: after it, or else before it.
fn value(text: &str, mark: &str) -> Option<f64> {
    let (before, after) = text.rsplit_once(mark)?;
    let number = |word: Option<&str>| word?.trim_matches(',').parse::<f64>().ok();
    number(after.split_whitespace().next()).or_else(|| number(before.split_whitespace().last()))
}

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(ToString::to_string).collect()
}

/// A port that is free at the moment.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Starts a server in the container, and waits until it listens.
fn serve(mut command: Command, port: u16) -> Result<Server> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut server = Server(command.spawn().with_context(|| format!("{command:?}"))?);
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if let Some(status) = server.0.try_wait()? {
            bail!("{command:?} ended with {status}");
        }
        ensure!(Instant::now() < deadline, "{command:?} does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(server)
}

fn nginx(place: &Path, container: &Container) -> Result<Application> {
    let folder = place.join("nginx");
    fs::create_dir(&folder)?;
    fs::write(folder.join("page"), "x".repeat(1024))?;
    let port = free_port()?;
    let at = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
        .collect();
    let config = format!(
        "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/log; user root;\n\
         events {{}}\nhttp {{ access_log off; {temporary} server {{ listen 127.0.0.1:{port}; root {at}; }} }}\n"
    );
    fs::write(folder.join("config"), config)?;
    let mut command = container.command("/usr/sbin/nginx");
    command.args(["-p", &at.to_string(), "-c", &format!("{at}/config")]);
    Ok(Application {
        name: "nginx, 1 KiB file (wrk)",
        unit: "requests/s",
        client: words(&[
            "wrk",
            "-t1",
            "-c16",
            "-d",
            CLIENT_S,
            &format!("http://127.0.0.1:{port}/page"),
        ]),
        value: Some("Requests/sec:"),
        is_inside: false,
        _server: Some(serve(command, port)?),
    })
}

fn redis(place: &Path, container: &Container) -> Result<Application> {
    let port = free_port()?;
    let mut command = container.command("redis-server");
    command.args([
        "--port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
    ]);
    command.arg(place);
    Ok(Application {
        name: "redis, GET (redis-benchmark)",
        unit: "requests/s",
        client: words(&[
            "redis-benchmark",
            "-p",
            &port.to_string(),
            "-t",
            "get",
            "-n",
            "150000",
            "-c",
            "16",
            "-q",
        ]),
        value: Some(" requests per second"),
        is_inside: false,
        _server: Some(serve(command, port)?),
    })
}

fn compile(place: &Path, _: &Container) -> Result<Application> {
    let folder = place.join("compile");
    fs::create_dir(&folder)?;
    for number in 0..SOURCES {
        let source = format!(
            "#include <stdio.h>\n#include <stdlib.h>\nint f{number}(int x) {{ printf(\"%d\", x); return abs(x); }}\n"
        );
        fs::write(folder.join(format!("f{number}.c")), source)?;
    }
    let script = format!(
        "cd {} && for file in *.c; do cc -O0 -c $file -o ${{file%.c}}.o || exit 1; done",
        folder.display()
    );
    Ok(Application {
        name: "compile of small C files",
        unit: "files/s",
        client: words(&["/bin/sh", "-c", &script]),
        value: None,
        is_inside: true,
        _server: None,
    })
}

fn postgres(place: &Path, container: &Container) -> Result<Application> {
    let binaries = newest_postgres()?;
    let folder = place.join("postgres");
    fs::create_dir(&folder)?;
    let user = user_id("postgres")?;
    chown(&folder, Some(user), Some(user))?;
    let data = folder.join("data").display().to_string();
    let port = free_port()?.to_string();
    let as_user = |mut command: Command, program: &str| {
        let user = user.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]);
        command.arg(binaries.join(program)).current_dir("/");
        command
    };
    let plain = |program| as_user(Command::new("setpriv"), program);
    succeed(plain("initdb").args(["--no-sync", "--auth=trust", "--pgdata", &data]))?;
    let mut command = as_user(container.command("setpriv"), "postgres");
    command.args(["-D", &data, "-p", &port, "-h", "127.0.0.1", "-F", "-k"]);
    command.arg(&folder);
    let server = serve(command, port.parse()?)?;
    let connect = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
    succeed(
        plain("pgbench")
            .args(["-i", "-q", "-s", "1"])
            .args(connect)
            .arg("postgres"),
    )?;
    let user = user.to_string();
    let program = binaries.join("pgbench").display().to_string();
    let mut client = words(&[
        "setpriv",
        "--reuid",
        &user,
        "--regid",
        &user,
        "--clear-groups",
        &program,
        "-S",
        "-c",
        "4",
        "-T",
        CLIENT_S,
    ]);
    client.extend(words(&connect));
    client.push("postgres".to_owned());
    Ok(Application {
        name: "PostgreSQL, select (pgbench)",
        unit: "transactions/s",
        client,
        value: Some("tps = "),
        is_inside: false,
        _server: Some(server),
    })
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn newest_postgres() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is not installed")?;
    let mut folders: Vec<_> = versions
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    folders.sort();
    Ok(folders.pop().context("no version is there")?.join("bin"))
}

fn user_id(name: &str) -> Result<u32> {
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users
        .lines()
        .find(|line| line.starts_with(&format!("{name}:")));
    let number = line.and_then(|line| line.split(':').nth(2)?.parse().ok());
    number.with_context(|| format!("there is no user {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_what_clients_print() {
        for (text, mark, number) in [
            (
                "Requests/sec:  38211.55\nTransfer",
                "Requests/sec:",
                38_211.55,
            ),
            (
                "GET: 91324.20 requests per second, p50=0.1",
                " requests per second",
                91_324.2,
            ),
            ("tps = 20214.1 (without initial", "tps = ", 20_214.1),
        ] {
            assert_eq!(value(text, mark), Some(number), "{text}");
        }
        assert_eq!(value("nothing", "tps"), None);
    }
}
