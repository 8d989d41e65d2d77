//! What the agent uses at which rate, what peers lose at the highest, and what many containers
//! and many rows cost.

use std::{
    fmt::Write,
    fs,
    net::UdpSocket,
    path::Path,
    process::{Child, Command},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    agent::Agent,
    containers::{Container, Containers},
    figures::{grouped, mib},
    load::{self, Done, Load},
    page::Section,
    plot::{self, Line},
    watchers::{OPEN_PRINTERS, Peer},
};

/// Opens each second, in all; 0 stands for as many as two processes can do.
const RATES: [u64; 6] = [0, 1_000, 10_000, 50_000, 200_000, u64::MAX];
/// Loads that run at the same time.
const AT_ONCE: u64 = 2;
/// How long each rate lasts.
const TIME: Duration = Duration::from_secs(4);
/// How many containers, each with [`PEERS`] rows.
const CONTAINERS: [usize; 4] = [1, 10, 100, 1_000];
const PEERS: u32 = 1_000;
/// Sends that are measured for each number of containers, at least.
const SENDS: u32 = 400_000;

/// What one rate did to the agent.
struct Step {
    rate: u64,
    done: u64,
    counted: u64,
    lost: u64,
    cpu_share: f64,
    resident: u64,
}

/// Measures rates and peers.
pub(crate) fn rates(ethogram: &Path) -> Result<Section> {
    let place = tempfile::tempdir()?;
    let files = place.path().join("files");
    load::make_files(&files)?;
    let mut steps = Vec::new();
    let agent = Agent::start(ethogram, &place.path().join("agent"))?;
    let containers = Containers::make()?;
    let container = containers.add(0)?;
    let own = std::env::current_exe()?;
    for rate in RATES {
        eprint!("\r\x1b[Krate {rate}");
        let before = agent.sample()?;
        let loads = start_loads(|| container.command(&own), &files, rate)?;
        let begin = agent.sample_quietly()?;
        thread::sleep(TIME);
        let end = agent.sample_quietly()?;
        let done: u64 = finish(loads)?.iter().map(|done| done.events).sum();
        let after = agent.sample()?;
        steps.push(Step {
            rate: (done as f64 / TIME.as_secs_f64()) as u64,
            done,
            counted: after.events - before.events,
            lost: after.lost - before.lost,
            cpu_share: (end.cpu_s - begin.cpu_s) / TIME.as_secs_f64(),
            resident: after.resident,
        });
    }
    agent.stop()?;
    let mut text = String::from(
        "`counted` has a few events more than `done`: a load's own start. CPU is of one core.\n\n\
         | opens each second | done | counted | lost | agent's CPU | resident MiB |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for step in &steps {
        writeln!(
            text,
            "| {} | {} | {} | {} | {:.2} % | {:.1} |",
            grouped(step.rate),
            grouped(step.done),
            grouped(step.counted),
            step.lost,
            step.cpu_share * 100.0,
            mib(step.resident)
        )?;
    }
    text += "\nThe same load under others, who print each event into a file:\n\n\
        | watcher | opens each second | done | printed | missing |\n| --- | --- | --- | --- | --- |\n";
    for peer in OPEN_PRINTERS {
        eprint!("\r\x1b[K{}", peer.name);
        match under(&peer, &files) {
            Ok((done, printed)) => {
                let rate = (done as f64 / TIME.as_secs_f64()) as u64;
                let missing = done.saturating_sub(printed) as f64 * 100.0 / done.max(1) as f64;
                writeln!(
                    text,
                    "| {} | {} | {} | {} | {missing:.1} % |",
                    peer.name,
                    grouped(rate),
                    grouped(done),
                    grouped(printed)
                )?;
            }
            Err(error) => writeln!(
                text,
                "| {} | does not run here: {error:#} | | | |",
                peer.name
            )?,
        }
    }
    eprint!("\r\x1b[K");
    let cpu = Line {
        name: "agent's CPU, % of a core".to_owned(),
        points: steps
            .iter()
            .map(|s| (s.rate as f64, s.cpu_share * 100.0))
            .collect(),
    };
    let memory = Line {
        name: "resident MiB".to_owned(),
        points: steps
            .iter()
            .map(|s| (s.rate as f64, mib(s.resident)))
            .collect(),
    };
    let picture = plot::lines("The agent by rate", "opens each second", "", &[cpu, memory]);
    Ok(Section {
        text,
        pictures: vec![("rates.svg".to_owned(), picture)],
    })
}

/// Starts the loads of a rate; [`u64::MAX`] is as many as possible, 0 none.
fn start_loads(command: impl Fn() -> Command, files: &Path, rate: u64) -> Result<Vec<Child>> {
    if rate == 0 {
        return Ok(Vec::new());
    }
    let load = Load::Opens {
        folder: files.to_owned(),
        ms: TIME.as_millis() as u64,
        rate: if rate == u64::MAX { 0 } else { rate / AT_ONCE },
        new: 0,
    };
    (0..AT_ONCE)
        .map(|_| {
            let mut command = command();
            command.args(load.arguments());
            load::start(command)
        })
        .collect()
}

fn finish(loads: Vec<Child>) -> Result<Vec<Done>> {
    loads.into_iter().map(load::finish).collect()
}

/// What was done, and how many lines the peer printed of it.
fn under(peer: &Peer, files: &Path) -> Result<(u64, u64)> {
    let output = tempfile::NamedTempFile::new()?;
    let watcher = peer.start(output.path())?;
    let own = std::env::current_exe()?;
    let loads = start_loads(|| Command::new(&own), files, u64::MAX);
    let done = loads.and_then(finish);
    // Gives it the time to print what it has.
    thread::sleep(Duration::from_secs(2));
    watcher.end()?;
    let done: u64 = done?.iter().map(|done| done.events).sum();
    let wanted = files.to_string_lossy().into_owned();
    let text = fs::read(output.path())?;
    let printed = text
        .split(|byte| *byte == b'\n')
        .filter(|line| {
            line.windows(wanted.len())
                .any(|part| part == wanted.as_bytes())
        })
        .count() as u64;
    Ok((done, printed))
}

/// One number of containers.
struct Size {
    containers: usize,
    alone_ns: f64,
    watched_ns: f64,
    events: u64,
    counted: u64,
    lost: u64,
    rows: u64,
    agent_cpu_s: f64,
    resident: u64,
    maps: u64,
}

/// Measures many containers with many rows each.
pub(crate) fn sizes(ethogram: &Path) -> Result<Section> {
    // It reads nothing: what finds no room there was sent all the same.
    let sink = UdpSocket::bind("0.0.0.0:0")?;
    let port = sink.local_addr()?.port();
    let mut sizes = Vec::new();
    for count in CONTAINERS {
        eprint!("\r\x1b[K{count} containers");
        let alone = send_from(count, port)?.done;
        let place = tempfile::tempdir()?;
        let agent = Agent::start(ethogram, &place.path().join("agent"))?;
        let before = agent.sample()?;
        let sent = send_from(count, port)?;
        let after = agent.sample()?;
        let watched = sent.done;
        drop(sent);
        agent.stop()?;
        sizes.push(Size {
            containers: count,
            alone_ns: alone.cpu_ns as f64 / alone.measured as f64,
            watched_ns: watched.cpu_ns as f64 / watched.measured as f64,
            events: watched.events,
            counted: after.events - before.events,
            lost: after.lost - before.lost,
            rows: after.rows,
            agent_cpu_s: after.cpu_s - before.cpu_s,
            resident: after.resident,
            maps: after.maps,
        });
    }
    eprint!("\r\x1b[K");
    let mut text = format!(
        "Each container sends datagrams to {} addresses, so each has as many rows. Added is what a send to a known address costs more.\n\n\
         | containers | rows in the agent | added ns | ratio | sent | counted | lost | agent's CPU s | resident MiB | map MiB |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        grouped(PEERS.into())
    );
    for size in &sizes {
        writeln!(
            text,
            "| {} | {} | {:.0} | {:.2} | {} | {} | {} | {:.2} | {:.1} | {:.1} |",
            grouped(size.containers as u64),
            grouped(size.rows),
            size.watched_ns - size.alone_ns,
            size.watched_ns / size.alone_ns,
            grouped(size.events),
            grouped(size.counted),
            grouped(size.lost),
            size.agent_cpu_s,
            mib(size.resident),
            mib(size.maps)
        )?;
    }
    Ok(Section {
        text,
        pictures: Vec::new(),
    })
}

/// What containers sent, and the containers. Fields are dropped in this order, and a
/// container's cgroup lies in that of all.
struct Sent {
    done: Done,
    _each: Vec<Container>,
    _all: Containers,
}

/// Lets containers send one after the other.
fn send_from(count: usize, port: u16) -> Result<Sent> {
    let all = Containers::make()?;
    let passes = SENDS / PEERS / u32::try_from(count)?;
    let load = Load::Peers {
        peers: PEERS,
        passes: passes.max(1),
        port,
    };
    let (mut done, mut each) = (Done::default(), Vec::new());
    let own = std::env::current_exe().context("cannot find this program")?;
    for number in 0..count {
        let container = all.add(number)?;
        let mut command = container.command(&own);
        command.args(load.arguments());
        let sent = load::finish(load::start(command)?)?;
        done.events += sent.events;
        done.measured += sent.measured;
        done.cpu_ns += sent.cpu_ns;
        each.push(container);
    }
    Ok(Sent {
        done,
        _each: each,
        _all: all,
    })
}
