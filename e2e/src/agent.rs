//! The real `ethogram` binary, run as a user would.

use crate::{node::Node, testbed::run};
use anyhow::{Context, Result, bail, ensure};
use ethogram_view::{Document, Subject};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    io::Read,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long an agent may take to attach its hooks on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to flush and end.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long what was done may take to be in a summary, names included. It bounds a failing
/// test and says nothing about how fast it should be.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The binary to test: `ETHOGRAM_BIN`, or the one that was built beside this program.
///
/// # Errors
/// When there is none.
pub fn binary() -> Result<PathBuf> {
    let path = match std::env::var_os("ETHOGRAM_BIN") {
        Some(path) => path.into(),
        None => {
            let me = std::env::current_exe()?;
            // target/PROFILE/deps/main-HASH
            let profile = me
                .ancestors()
                .nth(2)
                .context("the test program has no folder")?;
            profile.join("ethogram")
        }
    };
    ensure!(
        path.is_file(),
        "there is no {}: run `cargo build -p ethogram` first, as `make test` does",
        path.display()
    );
    Ok(path)
}

/// Where an agent finds runtimes, and what it sees.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup<'a> {
    /// The view it runs in; none: the machine's.
    pub node: Option<&'a Node>,
    /// A CRI socket.
    pub cri: Option<&'a Path>,
    /// A Docker socket.
    pub docker: Option<&'a Path>,
    /// Podman's storage folder.
    pub podman: Option<&'a Path>,
    /// The collector it reports to, from the node's network.
    pub collector: Option<&'a Reporting<'a>>,
}

/// Whom an agent reports to, and as whom.
#[derive(Clone, Copy, Debug)]
pub struct Reporting<'a> {
    /// `http://HOST:PORT`.
    pub collector: &'a str,
    /// The file with its token.
    pub token_file: &'a Path,
    /// The node's name.
    pub node: &'a str,
}

impl<'a> Setup<'a> {
    /// On the machine as it is, with the containers of a CRI socket.
    #[must_use]
    pub fn of_cri(socket: &'a Path) -> Self {
        Self {
            cri: Some(socket),
            ..Self::default()
        }
    }

    /// What comes before the agent's own command line.
    fn command(&self) -> Result<Command> {
        // An agent does not outlive a test run that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(node) = self.node {
            let namespace = node.mount_namespace()?;
            command
                .arg("nsenter")
                .arg(format!("--mount={}", namespace.display()));
            if self.collector.is_some() {
                command.arg(format!("--net=/run/netns/{}", node.network()));
            }
        }
        Ok(command)
    }
}

/// A running `ethogram agent`. It is killed when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    dir: PathBuf,
}

impl Agent {
    /// Starts an agent that keeps everything in a folder, and waits until it watches.
    ///
    /// # Errors
    /// When it does not start; the text has the end of its log.
    pub fn start(dir: &Path, setup: Setup) -> Result<Self> {
        let notify = dir.join("notify");
        // One of an earlier start in the same folder.
        fs::remove_file(&notify).ok();
        let ready = UnixDatagram::bind(&notify)?;
        ready.set_read_timeout(Some(Duration::from_millis(100)))?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(dir.join("log"))?;
        let mut command = setup.command()?;
        command
            .arg(binary()?)
            .arg("agent")
            .arg("--data-dir")
            .arg(dir.join("data"));
        command.arg("--socket").arg(dir.join("socket"));
        for (option, path) in [
            ("--cri-socket", setup.cri),
            ("--docker-socket", setup.docker),
            ("--podman-storage", setup.podman),
        ] {
            if let Some(path) = path {
                command.arg(option).arg(path);
            }
        }
        if let Some(node) = setup.node.filter(|node| !node.cgroup_root().is_empty()) {
            command.args(["--cgroup-root", node.cgroup_root()]);
        }
        if let Some(reporting) = setup.collector {
            command.args(["--collector", reporting.collector, "--node", reporting.node]);
            command.arg("--token-file").arg(reporting.token_file);
        }
        command.env("NOTIFY_SOCKET", &notify).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        let mut agent = Self {
            child,
            dir: dir.into(),
        };
        agent.wait_ready(&ready)?;
        Ok(agent)
    }

    fn wait_ready(&mut self, ready: &UnixDatagram) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        let mut message = [0; 4096];
        while Instant::now() < deadline {
            if let Ok(length) = ready.recv(&mut message)
                && String::from_utf8_lossy(&message[..length]).contains("READY=1")
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "the agent ended with {status} before it watched: {}",
                    self.log_end()
                );
            }
        }
        bail!("the agent never said READY=1: {}", self.log_end())
    }

    /// The last of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// What `ethogram ARGS...` prints when it asks this agent.
    ///
    /// # Errors
    /// When it fails; the text has what it said.
    pub fn ask(&self, args: &[&str]) -> Result<String> {
        run(Command::new(binary()?)
            .args(args)
            .arg("--socket")
            .arg(self.dir.join("socket")))
    }

    /// The unfolded summary of a selection.
    ///
    /// # Errors
    /// When the command fails or prints something else.
    pub fn summary(&self, selection: &[&str]) -> Result<Document> {
        let args = [&["summary", "-o", "json", "--fold", "none"], selection].concat();
        Ok(Document::from_json(self.ask(&args)?.as_bytes())?)
    }

    /// Asks for a summary until it is as it should be, and returns what `check` made of it.
    ///
    /// # Errors
    /// What was wrong with it in the end.
    pub fn settled<T>(
        &self,
        selection: &[&str],
        check: impl Fn(&Document) -> Result<T>,
    ) -> Result<T> {
        // A command that fails is not a summary that is not ready: there is nothing to wait for.
        self.summary(selection)?;
        eventually(|| check(&self.summary(selection)?))
            .with_context(|| format!("the agent's log ends:\n{}", self.log_end()))
    }

    /// What the agent of a folder has stored, without asking it.
    ///
    /// # Errors
    /// When there is no database, or the command fails.
    pub fn stored(dir: &Path, selection: &[&str]) -> Result<Document> {
        summary_of(&database(&dir.join("data"))?, selection)
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub fn stop(mut self) -> Result<()> {
        kill_process(self.pid(), Signal::TERM)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                ensure!(
                    status.success(),
                    "the agent ended with {status}: {}",
                    self.log_end()
                );
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("the agent does not end: {}", self.log_end())
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn kill(mut self) -> Result<()> {
        ensure!(
            self.child.try_wait()?.is_none(),
            "the agent ended by itself: {}",
            self.log_end()
        );
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Fails only where it has ended, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The unfolded summary of a selection of a database.
///
/// # Errors
/// When the command fails or prints something else.
pub fn summary_of(database: &Path, selection: &[&str]) -> Result<Document> {
    Ok(Document::from_json(
        summary_json(database, selection)?.as_bytes(),
    )?)
}

/// The same as the JSON that is printed.
///
/// # Errors
/// When the command fails.
pub fn summary_json(database: &Path, selection: &[&str]) -> Result<String> {
    let mut command = Command::new(binary()?);
    command
        .args(["summary", "-o", "json", "--fold", "none"])
        .args(selection);
    run(command.arg("--db").arg(database))
}

/// Tries until it succeeds, as long as what was done may take to be seen.
///
/// # Errors
/// Those of the last try.
pub fn eventually<T>(attempt: impl Fn() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(200)),
            outcome => return outcome,
        }
    }
}

/// The only subject of a document.
///
/// # Errors
/// When there is none, or more than one.
pub fn only(document: &Document) -> Result<&Subject> {
    match document.subjects.as_slice() {
        [subject] => Ok(subject),
        subjects => bail!(
            "{} subjects instead of one: {:?}",
            subjects.len(),
            names(subjects)
        ),
    }
}

/// The subject of a runtime's container id.
///
/// # Errors
/// When there is none.
pub fn of_id<'a>(document: &'a Document, id: &str) -> Result<&'a Subject> {
    let has = |s: &&Subject| s.container_ids.iter().any(|i| i.as_str() == id);
    document.subjects.iter().find(has).with_context(|| {
        format!(
            "no subject has container {id}: {:?}",
            names(&document.subjects)
        )
    })
}

fn names(subjects: &[Subject]) -> Vec<String> {
    let name = |s: &Subject| format!("{:?}/{:?}/{:?}", s.namespace, s.pods, s.containers);
    subjects.iter().map(name).collect()
}

/// The database file in a data folder: the one that begins as SQLite's do.
fn database(dir: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let mut magic = [0; 15];
        if path.is_file()
            && File::open(&path)?.read_exact(&mut magic).is_ok()
            && &magic == b"SQLite format 3"
        {
            return Ok(path);
        }
    }
    bail!("{} has no database", dir.display())
}
