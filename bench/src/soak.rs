//! Full rate and short-lived containers for a long time: does memory stay flat, and do the
//! counts stay true?

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::{
    agent::{Agent, Sample},
    containers::{Container, Containers},
    figures::{Spread, grouped, mib},
    load::{self, Load},
    page::Section,
    plot::{self, Line},
};

/// Containers that work at the same time: one for each processor of a small machine.
const AT_ONCE: usize = 2;
/// How long a container lives.
const LIFE: Duration = Duration::from_millis(1_500);
/// Files that each container makes under new names, and removes.
const NEW_FILES: u64 = 300;
/// Resident memory may be this much larger in the last quarter than in the second. (What is
/// remembered of ended containers for ten minutes, and what the allocator keeps, may grow it.)
const GROWTH_MAX: f64 = 1.10;
/// The same for short runs, in which the allocator's steps weigh more, in bytes.
const GROWTH_MIN: f64 = 8.0 * 1024.0 * 1024.0;

/// A container that works, and where.
struct Worker {
    container: Container,
    folder: PathBuf,
    child: Child,
}

/// What an ended container did.
struct Ended {
    id: String,
    folder: PathBuf,
    events: u64,
}

/// Runs it. The verdict is an error if memory grew, or if counted and lost are not what was
/// done.
pub(crate) fn run(ethogram: &Path, time: Duration) -> Result<(Section, Result<()>)> {
    let place = tempfile::tempdir()?;
    let agent = Agent::start(ethogram, &place.path().join("agent"))?;
    let containers = Containers::make()?;
    let mut workers = Vec::new();
    let mut ended = Vec::new();
    let mut samples: Vec<(f64, Sample)> = Vec::new();
    let start = Instant::now();
    let sample_every = (time / 120).max(Duration::from_millis(500));
    while start.elapsed() < time {
        while workers.len() < AT_ONCE {
            workers.push(begin(
                &containers,
                place.path(),
                ended.len() + workers.len(),
            )?);
        }
        if samples.len() as u32
            <= start.elapsed().as_millis() as u32 / sample_every.as_millis() as u32
        {
            let sample = agent.sample()?;
            eprint!(
                "\r\x1b[K{:.0} s: {} containers, {} events, {:.1} MiB resident",
                start.elapsed().as_secs_f64(),
                ended.len(),
                grouped(sample.events),
                mib(sample.resident)
            );
            samples.push((start.elapsed().as_secs_f64(), sample));
        }
        std::thread::sleep(Duration::from_millis(50));
        for worker in std::mem::take(&mut workers) {
            match end(worker)? {
                Ok(done) => ended.push(done),
                Err(worker) => workers.push(worker),
            }
        }
    }
    for worker in workers {
        ended.push(finish(worker)?);
    }
    eprintln!();
    let sums = compare(&agent, &ended)?;
    agent.stop()?;
    let section = report(&samples, &sums, time);
    let verdict = sums.check().and_then(|()| check_flat(&samples));
    Ok((section, verdict))
}

fn begin(containers: &Containers, place: &Path, number: usize) -> Result<Worker> {
    let container = containers.add(number)?;
    let folder = place.join(format!("c{number}"));
    load::make_files(&folder)?;
    let load = Load::Opens {
        folder: folder.clone(),
        ms: LIFE.as_millis() as u64,
        rate: 0,
        new: NEW_FILES,
    };
    let mut command = container.command(std::env::current_exe()?);
    command.args(load.arguments());
    Ok(Worker {
        child: load::start(command)?,
        container,
        folder,
    })
}

/// What a worker did if it has ended; the worker if not.
fn end(mut worker: Worker) -> Result<Result<Ended, Worker>> {
    match worker.child.try_wait()? {
        Some(_) => Ok(Ok(finish(worker)?)),
        None => Ok(Err(worker)),
    }
}

fn finish(worker: Worker) -> Result<Ended> {
    let done = load::finish(worker.child)?;
    std::fs::remove_dir_all(&worker.folder)?;
    Ok(Ended {
        id: worker.container.id.clone(),
        folder: worker.folder,
        events: done.events,
    })
}

/// What was done, and what the summaries say of it.
#[derive(Debug, Default)]
struct Sums {
    containers: usize,
    done: u64,
    counted: u64,
    lost: u64,
    /// Containers whose counted and lost events are not what they did, with both numbers.
    wrong: Vec<String>,
}

impl Sums {
    fn check(&self) -> Result<()> {
        ensure!(
            self.wrong.is_empty(),
            "{} containers have other counts than they did: {}",
            self.wrong.len(),
            self.wrong.join("; ")
        );
        Ok(())
    }
}

/// Asks for every container by itself.
fn compare(agent: &Agent, ended: &[Ended]) -> Result<Sums> {
    let mut sums = Sums {
        containers: ended.len(),
        ..Sums::default()
    };
    for container in ended {
        let query = format!("/v1/summary?fold=none&container={}", container.id);
        let summary = agent.get_json(&query)?;
        let listed = agent.get_json(&format!("/v1/containers?container={}", container.id))?;
        let counted = counted(&summary, &container.folder);
        let losses = list(&listed["containers"][0]["losses"]);
        let lost: u64 = losses.filter_map(|loss| loss["count"].as_u64()).sum();
        sums.done += container.events;
        sums.counted += counted;
        sums.lost += lost;
        // Losses are of all kinds, and only files are counted here.
        let is_right = counted == container.events
            || (counted < container.events && counted + lost >= container.events);
        if !is_right {
            sums.wrong.push(format!(
                "{}: did {}, counted {counted}, lost {lost}",
                &container.id[52..],
                container.events
            ));
        }
    }
    Ok(sums)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// File events of a container's folder.
fn counted(summary: &Value, folder: &Path) -> u64 {
    let folder = folder.to_string_lossy();
    let mut total = 0;
    for subject in list(&summary["subjects"]) {
        let rows = list(&subject["tables"]["file"]);
        let is_ours = |row: &&Value| {
            let target = row["target"].as_str().unwrap_or_default();
            target
                .strip_prefix(&*folder)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        total += rows
            .filter(is_ours)
            .filter_map(|row| row["count"].as_u64())
            .sum::<u64>();
    }
    total
}

/// The samples of one quarter of the run.
fn quarter(samples: &[(f64, Sample)], number: usize) -> &[(f64, Sample)] {
    let length = samples.len() / 4;
    &samples[number * length..(number + 1) * length]
}

fn resident(samples: &[(f64, Sample)]) -> f64 {
    let values = samples.iter().map(|(_, sample)| sample.resident as f64);
    Spread::of(values).map_or(0.0, |spread| spread.median)
}

fn check_flat(samples: &[(f64, Sample)]) -> Result<()> {
    ensure!(
        samples.len() >= 8,
        "too short to say anything: {} samples",
        samples.len()
    );
    let (second, last) = (resident(quarter(samples, 1)), resident(quarter(samples, 3)));
    ensure!(
        last <= (second * GROWTH_MAX).max(second + GROWTH_MIN),
        "memory grew from {:.1} MiB in the second quarter to {:.1} MiB in the last",
        mib(second as u64),
        mib(last as u64)
    );
    Ok(())
}

fn report(samples: &[(f64, Sample)], sums: &Sums, time: Duration) -> Section {
    let mut text = String::new();
    let rate = sums.done as f64 / time.as_secs_f64();
    let mut line = |what: std::fmt::Arguments<'_>| {
        writeln!(text, "{what}").expect("a String takes all");
    };
    line(format_args!(
        "{:.0} s, {AT_ONCE} containers at a time, {} in all; {:.0} events each second, each container with {NEW_FILES} files of its own.\n",
        time.as_secs_f64(),
        sums.containers,
        rate
    ));
    line(format_args!(
        "| file events done | counted | lost | containers with other sums |"
    ));
    line(format_args!("| --- | --- | --- | --- |"));
    line(format_args!(
        "| {} | {} | {} | {} |\n",
        grouped(sums.done),
        grouped(sums.counted),
        grouped(sums.lost),
        sums.wrong.len()
    ));
    line(format_args!(
        "| quarter | resident MiB (median) | map MiB | rows in the kernel | store MiB |"
    ));
    line(format_args!("| --- | --- | --- | --- | --- |"));
    for (number, name) in ["first", "second", "third", "last"].iter().enumerate() {
        let part = quarter(samples, number);
        let last = part
            .last()
            .map_or_else(Sample::default, |(_, sample)| *sample);
        line(format_args!(
            "| {name} | {:.1} | {:.1} | {} | {:.1} |",
            mib(resident(part) as u64),
            mib(last.maps),
            grouped(last.rows),
            mib(last.store)
        ));
    }
    let series = |name: &str, of: fn(&Sample) -> f64| Line {
        name: name.to_owned(),
        points: samples
            .iter()
            .map(|(at, sample)| (*at, of(sample)))
            .collect(),
    };
    let memory = plot::lines(
        "Soak: memory",
        "seconds",
        "MiB",
        &[
            series("resident", |sample| mib(sample.resident)),
            series("maps in the kernel", |sample| mib(sample.maps)),
            series("store on disk", |sample| mib(sample.store)),
        ],
    );
    let events = plot::lines(
        "Soak: events",
        "seconds",
        "since the start",
        &[
            series("counted", |sample| sample.events as f64),
            series("lost", |sample| sample.lost as f64),
        ],
    );
    Section {
        text,
        pictures: vec![
            ("soak-memory.svg".to_owned(), memory),
            ("soak-events.svg".to_owned(), events),
        ],
    }
}
