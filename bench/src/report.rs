//! Interleaved rounds, and what they say.

use std::{fmt::Write, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    watchers::Watcher,
    work::{Cost, Operation},
};

/// What one watcher cost, by round; empty where it has nothing to say.
type Rounds = Vec<Cost>;

/// Measures everything and returns a Markdown table.
pub(crate) fn measure(
    watchers: &[Watcher],
    operations: &[Operation],
    rounds: usize,
) -> Result<String> {
    let mut table = head(rounds)?;
    for &operation in operations {
        let mut results: Vec<Rounds> = vec![Vec::new(); watchers.len()];
        for round in 0..rounds {
            for (watcher, result) in watchers.iter().zip(&mut results) {
                eprint!(
                    "\r\x1b[K{} {}/{rounds} {}",
                    operation.word(),
                    round + 1,
                    watcher.name
                );
                if let Some(cost) = run(watcher, operation)? {
                    result.push(cost);
                }
            }
        }
        eprint!("\r\x1b[K");
        for (watcher, result) in watchers.iter().zip(&results) {
            row(&mut table, operation, watcher, &results[0], result)?;
        }
    }
    Ok(table)
}

fn head(rounds: usize) -> Result<String> {
    let mut head = String::new();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cores = std::thread::available_parallelism()?;
    writeln!(
        head,
        "Kernel {}, {cores} cores, {rounds} interleaved rounds; median (min-max).\n",
        kernel.trim()
    )?;
    writeln!(
        head,
        "| operation | watcher | wall ns | wall ratio | cpu ns | cpu ratio | added cpu ns |"
    )?;
    writeln!(head, "| --- | --- | --- | --- | --- | --- | --- |")?;
    Ok(head)
}

fn row(
    table: &mut String,
    operation: Operation,
    watcher: &Watcher,
    base: &Rounds,
    result: &Rounds,
) -> Result<()> {
    if result.is_empty() {
        return Ok(());
    }
    let pairs = || result.iter().zip(base);
    let ratio = |of: fn(&Cost) -> u64| {
        pairs()
            .map(|(cost, base)| of(cost) as f64 / of(base).max(1) as f64)
            .collect()
    };
    let wall = |cost: &Cost| cost.wall;
    let cpu = |cost: &Cost| cost.cpu;
    writeln!(
        table,
        "| {} | {} | {} | {} | {} | {} | {} |",
        operation.word(),
        watcher.name,
        spread(result.iter().map(|cost| cost.wall as f64).collect(), 0),
        spread(ratio(wall), 2),
        spread(result.iter().map(|cost| cost.cpu as f64).collect(), 0),
        spread(ratio(cpu), 2),
        spread(
            pairs()
                .map(|(cost, base)| cost.cpu as f64 - base.cpu as f64)
                .collect(),
            0
        ),
    )?;
    Ok(())
}

/// `median (min-max)`.
fn spread(mut values: Vec<f64>, decimals: usize) -> String {
    values.sort_by(f64::total_cmp);
    let (median, min, max) = (
        values[values.len() / 2],
        values[0],
        values[values.len() - 1],
    );
    format!("{median:.decimals$} ({min:.decimals$}-{max:.decimals$})")
}

fn run(watcher: &Watcher, operation: Operation) -> Result<Option<Cost>> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let count = if watcher.slow {
        operation.count_slow()
    } else {
        operation.count()
    };
    let word =
        clap::ValueEnum::to_possible_value(&operation).context("every operation has a word")?;
    let work = [
        own.to_string_lossy().into_owned(),
        "work".to_owned(),
        word.get_name().to_owned(),
        count.to_string(),
    ];
    let Some(command) = watcher.command(operation, &work) else {
        return Ok(None);
    };
    let output = Command::new(&command[0])
        .args(&command[1..])
        .output()
        .with_context(|| format!("cannot run {}", command[0]))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let figures = said.lines().rev().find_map(|line| {
        let (wall, cpu) = line.trim().strip_prefix("cost ")?.split_once(' ')?;
        Some(Cost {
            wall: wall.parse().ok()?,
            cpu: cpu.parse().ok()?,
        })
    });
    match figures {
        Some(cost) => Ok(Some(cost)),
        None => bail!(
            "{} printed no figure: {}",
            command.join(" "),
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}
