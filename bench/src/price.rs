//! What each kind of operation costs under each watcher, in interleaved rounds.

use std::{fmt::Write, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    figures::Spread,
    page::Section,
    plot,
    watchers::Watcher,
    work::{Cost, Operation},
};

/// What one watcher cost, by round; empty where it has nothing to say.
type Rounds = Vec<Cost>;

/// Measures everything.
pub(crate) fn measure(
    watchers: &[Watcher],
    operations: &[Operation],
    rounds: usize,
    scale: f64,
) -> Result<Section> {
    let mut table = head(rounds)?;
    let mut pictures = Vec::new();
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
                if let Some(cost) = run(watcher, operation, scale)? {
                    result.push(cost);
                }
            }
        }
        eprint!("\r\x1b[K");
        let mut bars = Vec::new();
        for (watcher, result) in watchers.iter().zip(&results) {
            row(&mut table, operation, watcher, &results[0], result)?;
            let ratios = result.iter().zip(&results[0]);
            let wall = Spread::of(ratios.map(|(cost, base)| cost.wall as f64 / base.wall as f64));
            bars.extend(wall.map(|wall| (watcher.name.clone(), wall.median)));
        }
        if operation == Operation::Open {
            let picture = plot::bars(
                "open+close: time on the wall clock, ratio to nothing",
                "",
                &bars,
            );
            pictures.push(("price-open.svg".to_owned(), picture));
        }
    }
    Ok(Section {
        text: table,
        pictures,
    })
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
fn spread(values: Vec<f64>, decimals: usize) -> String {
    Spread::of(values).map_or_else(String::new, |spread| spread.text(decimals))
}

fn run(watcher: &Watcher, operation: Operation, scale: f64) -> Result<Option<Cost>> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let count = if watcher.slow {
        operation.count_slow()
    } else {
        operation.count()
    };
    let word =
        clap::ValueEnum::to_possible_value(&operation).context("every operation has a word")?;
    let count = ((f64::from(count) * scale) as u32).max(20);
    let work = [
        own.to_string_lossy().into_owned(),
        "work".to_owned(),
        word.get_name().to_owned(),
        count.to_string(),
    ];
    let Some(command) = watcher.command(operation, &work) else {
        return Ok(None);
    };
    let printed = tempfile::NamedTempFile::new()?;
    let beside = watcher.peer().map(|peer| peer.start(printed.path()));
    let beside = beside.transpose().with_context(|| watcher.name.clone())?;
    let output = Command::new(&command[0])
        .args(&command[1..])
        .output()
        .with_context(|| format!("cannot run {}", command[0]))?;
    if let Some(running) = beside {
        running.end()?;
    }
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
