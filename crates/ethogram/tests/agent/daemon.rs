//! A running agent.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::net::{UnixDatagram, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use ethogram_view::{Document, Subject};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::container::{Container, FILE, shell};

/// How long something may take on a busy machine; it bounds a failing test, and says
/// nothing about how fast it should be.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test.
pub(crate) fn ethogram() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ethogram"))
}

/// What an agent needs to leave the machine's own configuration, data and runtimes alone.
pub(crate) fn isolated(folder: &Path, mut command: Command) -> Command {
    let config = folder.join("empty.toml");
    fs::write(&config, "").unwrap();
    command.arg("agent").arg("--config").arg(config);
    command.arg("--data-dir").arg(folder.join("data"));
    command.env("ETHOGRAM_SOCKET", folder.join("socket"));
    command.arg("--docker-socket").arg(folder.join("no-docker"));
    command.stdin(Stdio::null()).env_remove("ETHOGRAM_LOG");
    command
}

/// What an agent says that cannot start.
pub(crate) fn refusal(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{text}");
    text
}

/// A running agent; killed when dropped.
pub(crate) struct Agent {
    child: Child,
    folder: PathBuf,
    manager: UnixDatagram,
}

/// An answer of its API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Whether it says that something may be missing.
    pub(crate) fn is_stale(&self) -> bool {
        self.head.contains("\r\nethogram-warning:")
    }
}

impl Agent {
    /// Starts one and waits until it is ready.
    pub(crate) fn start(folder: &Path, options: &[&str]) -> Self {
        let mut command = isolated(folder, ethogram());
        command.args(options);
        Self::start_as(folder, command)
    }

    /// Starts one with a command, and waits until it is ready.
    pub(crate) fn start_as(folder: &Path, mut command: Command) -> Self {
        let notify = folder.join("notify");
        fs::remove_file(&notify).ok();
        let manager = UnixDatagram::bind(&notify).unwrap();
        manager
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        if !command.get_envs().any(|(name, _)| name == "NOTIFY_SOCKET") {
            command.env("NOTIFY_SOCKET", &notify);
        }
        let log = folder.join("log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut agent = Self {
            child,
            folder: folder.to_owned(),
            manager,
        };
        agent.await_notice("READY=1");
        agent
    }

    /// Waits until the service manager hears something.
    pub(crate) fn await_notice(&mut self, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut text = [0; 256];
        loop {
            if let Ok(length) = self.manager.recv(&mut text)
                && text[..length] == *wanted.as_bytes()
            {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "no {wanted}; ended: {ended:?}; its log:\n{}",
                self.log()
            );
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Ends it politely.
    pub(crate) fn stop(self) {
        self.signal(Signal::TERM);
        let folder = self.folder.clone();
        let status = self.wait();
        let log = fs::read_to_string(folder.join("log")).unwrap();
        assert!(status.success(), "{status}:\n{log}");
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Where it answers.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Asks its socket.
    pub(crate) fn get(&self, path: &str) -> Answer {
        let stream = UnixStream::connect(self.socket()).unwrap();
        ask(stream, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    /// Asks until the answer has everything that happened before.
    pub(crate) fn get_fresh(&self, path: &str) -> Answer {
        until("no fresh answer", || {
            let answer = self.get(path);
            assert_eq!(answer.status, 200, "{answer:?}");
            (!answer.is_stale()).then_some(answer)
        })
    }

    /// All that a container did, unfolded.
    pub(crate) fn subject(&self, container: &Container) -> Subject {
        let path = format!("/v1/summary?fold=none&container={}", container.id);
        let answer = self.get_fresh(&path);
        let document = Document::from_json(answer.body.as_bytes()).unwrap();
        only(document, &self.log())
    }

    /// How it lists a container.
    pub(crate) fn listed(&self, container: &Container) -> Value {
        let answer = self.get_fresh(&format!("/v1/containers?container={}", container.id));
        answer.json()["containers"][0].clone()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Sends a request and reads the answer.
pub(crate) fn ask(mut stream: impl Read + Write, request: &str) -> Answer {
    // A server that refuses what it reads may close before it has read all.
    if let Err(error) = stream.write_all(request.as_bytes()) {
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// Tries until there is a result.
pub(crate) fn until<T>(otherwise: &str, attempt: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(Instant::now() < deadline, "{otherwise}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn only(document: Document, log: &str) -> Subject {
    let subjects = document.subjects.len();
    assert_eq!(subjects, 1, "subjects; the log:\n{log}");
    document.subjects.into_iter().next().unwrap()
}

/// How often a shell read [`FILE`] in a container.
pub(crate) fn reads(subject: &Subject) -> u64 {
    let shell = shell();
    let rows = subject.table(ethogram_model::Kind::File).iter();
    let ours =
        rows.filter(|row| row.target.as_str() == FILE && Path::new(row.source.as_str()) == shell);
    ours.map(|row| row.count).sum()
}

/// What a data folder holds of a container, without an agent.
pub(crate) fn stored(folder: &Path, container: &Container) -> Subject {
    let database = folder.join("data/ethogram.db");
    let output = ethogram()
        .args(["summary", "-o", "json", "--fold", "none", "-c"])
        .arg(&container.id)
        .arg("--db")
        .arg(database)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    only(Document::from_json(&output.stdout).unwrap(), "")
}
