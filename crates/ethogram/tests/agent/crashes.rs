//! Agents that are killed while a container works at full speed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::Duration,
};

use ethogram_model::Kind;
use ethogram_view::Subject;

use crate::{
    container::Container,
    daemon::{Agent, until},
};

const CRASHES: usize = 5;
/// Shells that work at the same time.
const SHELLS: usize = 2;
/// Files of a phase, so that names and counts are on their way when the agent is killed.
const FILES: usize = 50;
/// How long a phase lasts: some ten thousand reads.
const PHASE: Duration = Duration::from_millis(400);

/// Reads the files of the phase that is on, and writes down how many reads a phase had when
/// the next one begins.
const SCRIPT: &str = r#"p=none; n=0
while :; do
  read -r q < phase
  if [ "$q" != "$p" ]; then echo "$p $n" >> truth-$$; p=$q; n=0; fi
  if [ "$p" = end ]; then exit 0; fi
  : < $p.$((n%FILES)); n=$((n+1))
done"#;

/// Shells at work.
struct Load {
    folder: PathBuf,
    shells: Vec<Child>,
}

impl Load {
    fn start(folder: &Path, container: &Container) -> Self {
        let mut load = Self {
            folder: folder.to_owned(),
            shells: Vec::new(),
        };
        load.announce("begin");
        let script = SCRIPT.replace("FILES", &FILES.to_string());
        let script = format!("cd {} && {script}", folder.display());
        let shells = (0..SHELLS).map(|_| container.shell(&script).spawn().unwrap());
        load.shells.extend(shells);
        load
    }

    fn announce(&self, phase: &str) {
        for file in 0..FILES {
            fs::write(self.folder.join(format!("{phase}.{file}")), "").unwrap();
        }
        fs::write(self.folder.join("next"), format!("{phase}\n")).unwrap();
        fs::rename(self.folder.join("next"), self.folder.join("phase")).unwrap();
    }

    /// Begins a phase; the one before is over for every shell when this returns.
    fn begin(&self, phase: &str) {
        let phases = self.truth().len();
        self.announce(phase);
        until("the shells do not go on", || {
            (self.truth().len() == phases + SHELLS).then_some(())
        });
    }

    /// All that is written down: a line for each shell and phase.
    fn truth(&self) -> Vec<(String, u64)> {
        let mut lines = Vec::new();
        for entry in fs::read_dir(&self.folder).unwrap() {
            let path = entry.unwrap().path();
            if !path
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("truth-")
            {
                continue;
            }
            let text = fs::read_to_string(path).unwrap();
            let pairs = text.lines().map(|line| line.split_once(' ').unwrap());
            let counts = pairs.map(|(phase, count)| (phase.to_owned(), count.parse().unwrap()));
            lines.extend(counts);
        }
        lines
    }

    fn end(mut self) -> BTreeMap<String, u64> {
        self.announce("end");
        for shell in &mut self.shells {
            assert!(shell.wait().unwrap().success());
        }
        let mut totals = BTreeMap::new();
        for (phase, count) in self.truth() {
            *totals.entry(phase).or_default() += count;
        }
        totals
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for shell in &mut self.shells {
            shell.kill().ok();
            shell.wait().ok();
        }
    }
}

/// Reads by phase, as a summary has them.
fn counted(subject: &Subject, folder: &Path) -> BTreeMap<String, u64> {
    let mut totals = BTreeMap::new();
    for row in subject.table(Kind::File) {
        let path = Path::new(row.target.as_str());
        // The shells write none of these.
        let is_ours = path.parent() == Some(folder) && path.extension().is_some();
        if let Some(phase) = path.file_stem().filter(|_| is_ours) {
            *totals
                .entry(phase.to_str().unwrap().to_owned())
                .or_default() += row.count;
        }
    }
    totals
}

#[test]
fn killed_under_load_an_agent_counts_what_it_watched_exactly_and_states_its_gaps() {
    let place = tempfile::tempdir().unwrap();
    let work = tempfile::tempdir().unwrap();
    let folder = work.path().canonicalize().unwrap();
    let container = Container::new();
    let load = Load::start(&folder, &container);
    for crash in 0..CRASHES {
        let agent = Agent::start(place.path(), &[]);
        load.begin(&format!("watched-{crash}"));
        thread::sleep(PHASE);
        load.begin(&format!("cut-{crash}"));
        // Writes what the phase before had.
        agent.subject(&container);
        // At another moment between two flushes each time.
        thread::sleep(PHASE / 3 * crash as u32);
        agent.kill();
    }
    let agent = Agent::start(place.path(), &[]);
    let truth = load.end();
    let subject = agent.subject(&container);
    let counted = counted(&subject, &folder);
    for crash in 0..CRASHES {
        let watched = format!("watched-{crash}");
        assert!(truth[&watched] > 1_000, "{truth:?}");
        assert_eq!(counted[&watched], truth[&watched], "{watched}: {truth:?}");
        let cut = format!("cut-{crash}");
        let most = truth[&cut];
        let seen = counted.get(&cut).copied().unwrap_or(0);
        assert!(seen <= most, "{cut}: {seen} of {most}");
    }
    let completeness = &subject.completeness;
    assert_eq!(completeness.gaps.len(), CRASHES, "{completeness:?}");
    assert_eq!(completeness.broken_off.len(), CRASHES, "{completeness:?}");
    assert!(!completeness.complete);
    agent.stop();
}
