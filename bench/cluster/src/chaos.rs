//! Faults: agents, collectors, lines, stores and clocks that fail while agents report. At
//! the end every total must be what the agents did, or the summary must say what is missing.
//!
//! The agents are processes of this program: each does the same steps in every run, through
//! a real store and the real sender, and goes on where it was when it is killed. What they
//! did is therefore known without asking them.

mod agent;
mod scenarios;

pub(crate) use agent::{Walk, walk};

use crate::servers::Collector;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How long totals that are not right may stay as they are. It bounds a failing run; one that
/// gets on takes the time it needs.
const STALLED_AFTER: Duration = Duration::from_secs(120);

/// What is done how often.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) ethogram: PathBuf,
    pub(crate) scratch: PathBuf,
    /// Faults of each scenario.
    pub(crate) faults: u64,
    /// Names of scenarios; none: all.
    pub(crate) only: Vec<String>,
}

/// How one scenario ended.
struct Outcome {
    name: &'static str,
    expected: u64,
    seen: u64,
    wrong: String,
}

/// Runs the scenarios and prints a table; an error if one of them ended badly.
pub(crate) fn run(options: &Options) -> Result<()> {
    println!("| scenario | events done | counted and lost | verdict |\n| --- | --- | --- | --- |");
    let mut failed = Vec::new();
    for (name, scenario) in scenarios::ALL {
        if !options.only.is_empty() && !options.only.iter().any(|only| name.contains(only.as_str()))
        {
            continue;
        }
        let scratch = tempfile::Builder::new()
            .prefix("ethogram-chaos-")
            .tempdir_in(&options.scratch)?;
        let outcome =
            scenario(name, options, scratch.path()).with_context(|| (*name).to_owned())?;
        let verdict = if outcome.wrong.is_empty() {
            "equal"
        } else {
            &outcome.wrong
        };
        println!(
            "| {} | {} | {} | {verdict} |",
            outcome.name, outcome.expected, outcome.seen
        );
        if !outcome.wrong.is_empty() {
            failed.push(outcome.name);
        }
    }
    if !failed.is_empty() {
        bail!("totals are wrong after: {}", failed.join(", "));
    }
    Ok(())
}

/// Counts by container and file.
type Totals = BTreeMap<(String, String), u64>;

/// Asks until the collector's totals are those of the walks, or get on no more.
fn settle(name: &'static str, collector: &Collector, walks: &[Walk]) -> Outcome {
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        let outcome = compare(name, collector, walks);
        if let Ok(Outcome { seen: now, .. }) = outcome
            && now != seen
        {
            (seen, since) = (now, Instant::now());
        }
        match outcome {
            Ok(outcome) if outcome.wrong.is_empty() || since.elapsed() > STALLED_AFTER => {
                return outcome;
            }
            Err(error) if since.elapsed() > STALLED_AFTER => {
                return Outcome {
                    name,
                    expected: 0,
                    seen: 0,
                    wrong: format!("{error:#}"),
                };
            }
            _ => thread::sleep(Duration::from_millis(300)),
        }
    }
}

fn compare(name: &'static str, collector: &Collector, walks: &[Walk]) -> Result<Outcome> {
    let mut outcome = Outcome {
        name,
        expected: 0,
        seen: 0,
        wrong: String::new(),
    };
    for walk in walks {
        let truth = walk.totals();
        let (seen, lost) = totals(collector, &walk.node)?;
        let sum = |totals: &Totals| totals.values().sum::<u64>();
        outcome.expected += sum(&truth);
        outcome.seen += sum(&seen) + lost;
        let differing = truth
            .iter()
            .filter(|(key, count)| seen.get(key) != Some(count))
            .count();
        // What is in the summary and never happened is wrong whatever was lost.
        let invented = seen
            .iter()
            .filter(|(key, count)| truth.get(key).is_none_or(|truth| truth < count))
            .count();
        if invented > 0 || (differing > 0 && sum(&seen) + lost != sum(&truth)) {
            outcome.wrong += &format!(
                "{}: {differing} of {} rows differ, {invented} too high; ",
                walk.node,
                truth.len()
            );
        }
    }
    Ok(outcome)
}

/// What the collector has counted of a node, and how much it says is lost.
fn totals(collector: &Collector, node: &str) -> Result<(Totals, u64)> {
    let json = collector.get(&format!(
        "/v1/summary?namespace={node}&fold=none&format=json"
    ))?;
    let document: Value = serde_json::from_slice(&json)?;
    let mut totals = Totals::new();
    let mut lost = 0;
    for subject in document["subjects"].as_array().into_iter().flatten() {
        let pod = subject["pods"][0].as_str().unwrap_or_default();
        lost += subject["completeness"]["losses"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|loss| loss["count"].as_u64())
            .sum::<u64>();
        for row in subject["tables"]["file"].as_array().into_iter().flatten() {
            let target = row["target"].as_str().unwrap_or_default();
            let count = row["count"].as_u64().context("a row without a count")?;
            *totals
                .entry((pod.to_owned(), target.to_owned()))
                .or_default() += count;
        }
    }
    Ok((totals, lost))
}

/// A number that is different every time, and the same in every run.
#[derive(Default)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, max: u64) -> u64 {
        self.0 += 1;
        crate::fleet::scattered(self.0) % max
    }

    fn pause(&mut self, most_ms: u64) {
        thread::sleep(Duration::from_millis(50 + self.below(most_ms)));
    }
}

/// This program, for processes of its own.
fn own_program() -> Result<PathBuf> {
    std::env::current_exe().context("cannot find this program")
}

fn directory(scratch: &Path, name: &str) -> Result<PathBuf> {
    let directory = scratch.join(name);
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}
