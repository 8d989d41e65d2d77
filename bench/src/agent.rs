//! An agent of one's own: its own data, socket and configuration, and what it uses.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::{UnixDatagram, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long it may take to attach its hooks, or to write the rest, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running agent; ended when dropped.
pub(crate) struct Agent {
    child: Child,
    folder: PathBuf,
}

/// What an agent uses and has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Since the agent began, in seconds.
    pub(crate) cpu_s: f64,
    /// Resident memory, in bytes.
    pub(crate) resident: u64,
    /// Memory of its maps in the kernel, in bytes.
    pub(crate) maps: u64,
    /// Behaviours counted at the moment.
    pub(crate) rows: u64,
    /// Bytes of its store.
    pub(crate) store: u64,
    /// Events counted so far.
    pub(crate) events: u64,
    /// Events it says it lost.
    pub(crate) lost: u64,
}

impl Agent {
    /// Starts one that keeps everything in a folder, and waits until it watches.
    pub(crate) fn start(binary: &Path, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (config, notify) = (folder.join("agent.toml"), folder.join("notify"));
        fs::write(&config, "")?;
        fs::remove_file(&notify).ok();
        let manager = UnixDatagram::bind(&notify)?;
        manager.set_read_timeout(Some(PATIENCE))?;
        let child = Command::new(binary)
            .arg("agent")
            .arg("--config")
            .arg(&config)
            .arg("--data-dir")
            .arg(folder.join("data"))
            .arg("--socket")
            .arg(folder.join("socket"))
            .arg("--docker-socket")
            .arg(folder.join("none"))
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("log"))?)
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let agent = Self {
            child,
            folder: folder.to_owned(),
        };
        let mut text = [0; 64];
        match manager.recv(&mut text) {
            Ok(length) if text[..length] == *b"READY=1" => Ok(agent),
            _ => bail!("the agent does not start: {}", agent.log()),
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The body of an answer.
    pub(crate) fn get(&self, path: &str) -> Result<String> {
        let mut stream = UnixStream::connect(self.folder.join("socket"))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
        if !head.starts_with("HTTP/1.1 200") {
            bail!("{path}: {head}\n{body}");
        }
        Ok(body.to_owned())
    }

    /// An answer that holds all that happened before.
    pub(crate) fn get_json(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.get(path)?)?)
    }

    /// What it uses now.
    pub(crate) fn sample(&self) -> Result<Sample> {
        let mut sample = self.sample_quietly()?;
        let status = self.get_json("/v1/status")?;
        sample.rows = status["kernel"]["rows"].as_u64().unwrap_or(0);
        sample.store = status["store"]["bytes"].as_u64().unwrap_or(0);
        let metrics = self.get("/metrics")?;
        sample.events = sum(&metrics, "ethogram_events_total{");
        sample.lost = sum(&metrics, "ethogram_events_lost_total{");
        Ok(sample)
    }

    /// The same without asking it anything.
    pub(crate) fn sample_quietly(&self) -> Result<Sample> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(process.join("status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
        let mut sample = Sample {
            resident: kib.unwrap_or(0) << 10,
            ..Sample::default()
        };
        for thread in fs::read_dir(process.join("task"))? {
            // Nanoseconds on a processor come first.
            let times = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
            let ns = times
                .split(' ')
                .next()
                .and_then(|ns| ns.parse::<f64>().ok());
            sample.cpu_s += ns.unwrap_or(0.0) / 1e9;
        }
        for descriptor in fs::read_dir(process.join("fdinfo"))? {
            let text = fs::read_to_string(descriptor?.path()).unwrap_or_default();
            if text.contains("map_id:") {
                let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
                sample.maps += bytes.map_or(0, |bytes| bytes.trim().parse().unwrap_or(0));
            }
        }
        Ok(sample)
    }

    /// Ends it; an error if it does not end well.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    bail!("the agent ended with {status}: {}", self.log());
                }
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("the agent does not end: {}", self.log())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It has ended already where all went well.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The sum of a metric over its labels.
fn sum(metrics: &str, name: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}
