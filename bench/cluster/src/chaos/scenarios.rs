//! The faults.

use super::{Dice, Options, Outcome, Walk, directory, own_program, settle};
use crate::servers::{ClickHouse, Collector, Place, Server};
use anyhow::{Context, Result, ensure};
use std::{fs, path::Path, process::Command, thread, time::Duration};

type Scenario = fn(&'static str, &Options, &Path) -> Result<Outcome>;

/// Every scenario by its name.
pub(super) const ALL: &[(&str, Scenario)] = &[
    ("agents are killed at random", agents_killed),
    ("the collector is killed at random", collector_killed),
    ("agents and collector are killed at random", both_killed),
    ("agents are cut off from the collector", cut_off),
    ("ClickHouse is killed and started", clickhouse_killed),
    ("the collector's disk is full for a while", disk_full),
    ("agents' clocks jump by a day and back", clocks_jump),
    ("one agent floods the collector", flood),
];

const AGENTS: u64 = 3;
/// Steps of an agent for each fault, so that faults come while it reports.
const STEPS_PER_FAULT: u64 = 40;

/// Agents as processes, each of which can be killed and started again.
struct Agents {
    walks: Vec<Walk>,
    running: Vec<Server>,
    place: Place,
}

impl Agents {
    fn start(walks: Vec<Walk>, place: Place) -> Result<Self> {
        let mut agents = Self {
            walks,
            running: Vec::new(),
            place,
        };
        for at in 0..agents.walks.len() {
            let server = agents.spawn(at, &[])?;
            agents.running.push(server);
        }
        Ok(agents)
    }

    fn spawn(&self, at: usize, environment: &[(&str, &str)]) -> Result<Server> {
        let walk = &self.walks[at];
        let mut command = walk.command(&own_program()?);
        command.envs(environment.iter().copied());
        Server::start(&mut command, &self.place, &walk.directory.join("log"))
    }

    /// Kills one of them, and starts it again.
    fn kill(&mut self, at: usize, environment: &[(&str, &str)]) -> Result<()> {
        self.running[at].kill();
        self.running[at] = self.spawn(at, environment)?;
        Ok(())
    }
}

fn walks(options: &Options, scratch: &Path, collector: &Collector) -> Result<Vec<Walk>> {
    (0..AGENTS)
        .map(|number| {
            let node = format!("node-{number}");
            Ok(Walk {
                directory: directory(scratch, &node)?,
                node,
                collector: format!("http://{}", collector.reports),
                steps: options.faults * STEPS_PER_FAULT,
                rows: 20,
                pause_ms: 10,
            })
        })
        .collect()
}

fn sqlite(scratch: &Path) -> String {
    format!("sqlite:{}", scratch.join("data/collector.db").display())
}

fn agents_killed(name: &'static str, options: &Options, scratch: &Path) -> Result<Outcome> {
    let collector = Collector::start(&options.ethogram, &sqlite(scratch), scratch)?;
    let mut agents = Agents::start(walks(options, scratch, &collector)?, Place::Here)?;
    let mut dice = Dice::default();
    for _ in 0..options.faults * 2 {
        dice.pause(300);
        agents.kill(dice.below(AGENTS) as usize, &[])?;
    }
    Ok(settle(name, &collector, &agents.walks))
}

fn collector_killed(name: &'static str, options: &Options, scratch: &Path) -> Result<Outcome> {
    let mut collector = Collector::start(&options.ethogram, &sqlite(scratch), scratch)?;
    let agents = Agents::start(walks(options, scratch, &collector)?, Place::Here)?;
    let mut dice = Dice::default();
    for _ in 0..options.faults {
        dice.pause(500);
        collector = collector.kill_and_start()?;
    }
    Ok(settle(name, &collector, &agents.walks))
}

fn both_killed(name: &'static str, options: &Options, scratch: &Path) -> Result<Outcome> {
    let mut collector = Collector::start(&options.ethogram, &sqlite(scratch), scratch)?;
    let mut agents = Agents::start(walks(options, scratch, &collector)?, Place::Here)?;
    let mut dice = Dice::default();
    for _ in 0..options.faults {
        dice.pause(300);
        agents.kill(dice.below(AGENTS) as usize, &[])?;
        dice.pause(300);
        collector = collector.kill_and_start()?;
    }
    Ok(settle(name, &collector, &agents.walks))
}

/// A network namespace whose only line can be cut; gone when dropped.
struct Network;

const NETWORK: &str = "ethogram-chaos";

impl Network {
    fn lay() -> Result<Self> {
        drop(Self); // what a run that was killed left
        ip(&["netns", "add", NETWORK])?;
        let network = Self;
        Self::set("up")?;
        Ok(network)
    }

    fn set(state: &str) -> Result<()> {
        ip(&["-n", NETWORK, "link", "set", "lo", state])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if Path::new("/run/netns").join(NETWORK).exists() {
            ip(&["netns", "del", NETWORK]).ok();
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.context("cannot run ip (iproute2)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "ip {}: {said}",
        arguments.join(" ")
    );
    Ok(())
}

fn cut_off(name: &'static str, options: &Options, scratch: &Path) -> Result<Outcome> {
    let _network = Network::lay()?;
    let place = Place::Network(NETWORK);
    let store = sqlite(scratch);
    let collector = Collector::start_in(&options.ethogram, &store, scratch, place.clone())?;
    let agents = Agents::start(walks(options, scratch, &collector)?, place)?;
    let mut dice = Dice::default();
    for _ in 0..options.faults {
        dice.pause(300);
        Network::set("down")?;
        dice.pause(1_500);
        Network::set("up")?;
    }
    Ok(settle(name, &collector, &agents.walks))
}

fn clickhouse_killed(name: &'static str, options: &Options, scratch: &Path) -> Result<Outcome> {
    let mut server = ClickHouse::start(&directory(scratch, "data")?)?;
    let collector = Collector::start(&options.ethogram, &server.store(), scratch)?;
    let agents = Agents::start(walks(options, scratch, &collector)?, Place::Here)?;
    let mut dice = Dice::default();
    for _ in 0..options.faults {
        dice.pause(500);
        server = server.kill_and_start()?;
    }
    Ok(settle(name, &collector, &agents.walks))
}

/// The collector's store is on a file system of its own that somebody else fills.
fn disk_full(name: &'static str, options: &Options, scratch: &Path) -> Result<Outcome> {
    let data = directory(scratch, "data")?;
    let collector = Collector::start_in(
        &options.ethogram,
        &sqlite(scratch),
        scratch,
        Place::SmallDisk(data.clone()),
    )?;
    let ballast = collector.process.path(&data.join("ballast"));
    let agents = Agents::start(walks(options, scratch, &collector)?, Place::Here)?;
    let mut dice = Dice::default();
    for _ in 0..options.faults {
        dice.pause(300);
        // As much as there is room for: the write must fail.
        ensure!(
            fs::write(&ballast, vec![0; 64 << 20]).is_err(),
            "the small disk is not small"
        );
        dice.pause(1_000);
        fs::remove_file(&ballast)?;
    }
    Ok(settle(name, &collector, &agents.walks))
}

/// Time namespaces cannot move the time of day; a library before libc can.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

fn clocks_jump(name: &'static str, options: &Options, scratch: &Path) -> Result<Outcome> {
    ensure!(
        Path::new(FAKETIME).exists(),
        "{FAKETIME} is missing: apt-get install faketime"
    );
    let collector = Collector::start(&options.ethogram, &sqlite(scratch), scratch)?;
    let mut agents = Agents::start(walks(options, scratch, &collector)?, Place::Here)?;
    let mut dice = Dice::default();
    for fault in 0..options.faults * 2 {
        dice.pause(400);
        let offset = ["+1d", "-1d", "+3h", "+0"][fault as usize % 4];
        let environment = [
            ("LD_PRELOAD", FAKETIME),
            ("FAKETIME", offset),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        agents.kill(dice.below(AGENTS) as usize, &environment)?;
    }
    Ok(settle(name, &collector, &agents.walks))
}

/// A flood of 200,000 rows, each of which is new: ten seconds of what one agent may report.
const FLOOD_STEPS_MAX: u64 = 50;

fn flood(name: &'static str, options: &Options, scratch: &Path) -> Result<Outcome> {
    let collector = Collector::start(&options.ethogram, &sqlite(scratch), scratch)?;
    let mut walks = walks(options, scratch, &collector)?;
    walks[0].rows = 4_000;
    walks[0].steps = FLOOD_STEPS_MAX.min(options.faults * 10);
    walks[0].pause_ms = 0;
    let agents = Agents::start(walks, Place::Here)?;
    thread::sleep(Duration::from_millis(200));
    Ok(settle(name, &collector, &agents.walks))
}
