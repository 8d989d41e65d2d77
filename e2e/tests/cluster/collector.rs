//! The collector in the fabric, and how it is asked.

use anyhow::{Context, Result, bail};
use ethogram_e2e::{
    agent::{binary, eventually},
    testbed::{self, run},
};
use ethogram_view::Document;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Where agents find it.
pub(crate) const REPORTS: &str = "http://10.90.0.254:8688";
/// The addresses it listens on.
const LISTEN: [&str; 4] = [
    "--listen",
    "10.90.0.254:8688",
    "--api-listen",
    "127.0.0.1:8687",
];
const API: &str = "http://127.0.0.1:8687";
const SHARDS: &str = "clickhouse://127.0.0.1:8123/ethogram?cluster=two";
const SECRET: &str = "a-secret-of-the-testbed-that-is-long-enough";
/// How long totals may take to be right after a fault: whoever was refused comes again
/// within half a minute. It bounds a failing run.
const SETTLE_WITHIN: Duration = Duration::from_secs(120);

/// A collector, killed when dropped.
pub(crate) struct Collector {
    child: Child,
    files: PathBuf,
}

/// Runs a command in the fabric.
fn in_fabric() -> Command {
    let mut command = Command::new(testbed::script("fabric.sh"));
    command.arg("enter");
    command
}

/// Writes what the collector and those who talk to it need to know.
pub(crate) fn write_files(files: &Path, kubeconfig: &str) -> Result<()> {
    fs::write(files.join("kubeconfig"), kubeconfig)?;
    let mut tokens = String::new();
    for (name, rights) in [
        ("agent", "role = \"agent\"\nnode = \"*\""),
        ("reader", "role = \"viewer\"\nnamespaces = [\"dvwa\"]"),
    ] {
        let secret = format!("{SECRET}-{name}");
        tokens += &format!("[[token]]\nname = \"{name}\"\nsecret = \"{secret}\"\n{rights}\n");
        fs::write(files.join(name), secret)?;
    }
    fs::write(files.join("tokens.toml"), tokens)?;
    Ok(())
}

impl Collector {
    /// Starts one with the files of a folder.
    pub(crate) fn start(files: &Path) -> Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(files.join("log"))?;
        // It does not outlive a run that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        command.arg(testbed::script("fabric.sh")).arg("enter");
        command.arg(binary()?).arg("collector").args(LISTEN);
        command.args(["--store", SHARDS, "--cluster", "testbed"]);
        command.arg("--tokens").arg(files.join("tokens.toml"));
        command.arg("--kubernetes").arg(files.join("kubeconfig"));
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let collector = Self {
            child: command.spawn()?,
            files: files.into(),
        };
        let healthy = || run(in_fabric().args(["curl", "-sSf", &format!("{API}/v1/health")]));
        eventually(healthy).with_context(|| collector.log_end())?;
        Ok(collector)
    }

    /// What `ethogram summary -n dvwa ARGS...` prints when it asks the collector.
    pub(crate) fn summary(&self, args: &[&str]) -> Result<String> {
        let token = self.files.join("reader");
        run(in_fabric()
            .arg(binary()?)
            .args(["summary", "-n", "dvwa", "--server", API, "--token-file"])
            .arg(token)
            .args(args))
    }

    /// The same, unfolded and for programs.
    pub(crate) fn document(&self, args: &[&str]) -> Result<Document> {
        let args = [&["-o", "json", "--fold", "none"], args].concat();
        Ok(Document::from_json(self.summary(&args)?.as_bytes())?)
    }

    /// Waits until a summary is as it should be.
    pub(crate) fn settled(
        &self,
        args: &[&str],
        check: impl Fn(&Document) -> Result<()>,
    ) -> Result<()> {
        let deadline = Instant::now() + SETTLE_WITHIN;
        loop {
            match self.document(args).and_then(|document| check(&document)) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    bail!("{error:#}\nthe collector's log ends:\n{}", self.log_end())
                }
                Err(_) => thread::sleep(Duration::from_millis(300)),
            }
        }
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.files.join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
