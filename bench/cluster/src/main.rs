//! What a cluster's collector costs.
//!
//! Thousands of simulated agents speak the real protocol to a real `ethogram collector` on
//! this machine's loopback. They tell all they know, then report what changes at their
//! pace, then as fast as they are acknowledged; in between somebody asks for summaries.
//! Processor time is what compares: the agents run on the same machine.

#![forbid(unsafe_code)]

mod chaos;
mod fleet;
mod measure;
mod report;
mod servers;
mod stream;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use measure::{Plan, StoreKind};
use std::{path::PathBuf, time::Duration};

/// A collector and thousands of simulated agents.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What it costs
    Scale(ScaleArgs),
    /// What it survives
    Chaos {
        /// The `ethogram` to try
        #[arg(long, default_value = "target/debug/ethogram")]
        ethogram: PathBuf,
        /// Faults of each scenario
        #[arg(long, default_value_t = 3)]
        faults: u64,
        /// Only scenarios whose names contain one of these
        only: Vec<String>,
        /// Keep the stores below this folder meanwhile
        #[arg(long, default_value = "/var/tmp")]
        scratch: PathBuf,
    },
    /// An agent whose work is known, for `chaos`
    #[command(hide = true)]
    Walk(chaos::Walk),
}

#[derive(Debug, Args)]
struct ScaleArgs {
    /// The `ethogram` to measure
    #[arg(long, default_value = "target/release/ethogram")]
    ethogram: PathBuf,
    /// Numbers of nodes, growing; a node has 9,000 rows
    #[arg(long, value_delimiter = ',', default_values_t = [112, 1112])]
    nodes: Vec<u64>,
    /// Measure SQLite with no more nodes than this: thousands are for ClickHouse
    #[arg(long, default_value_t = 1112)]
    sqlite_nodes_max: u64,
    /// Stores to measure, one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [StoreKind::Sqlite, StoreKind::Clickhouse])]
    stores: Vec<StoreKind>,
    /// Containers of a node that are told of at first, of 30; fewer let thousands of agents come
    /// without telling 9,000 rows each
    #[arg(long, default_value_t = fleet::CONTAINERS, value_parser = clap::value_parser!(u32).range(1..=i64::from(fleet::CONTAINERS)))]
    told_containers: u32,
    /// How long agents report at their pace, in seconds
    #[arg(long, default_value_t = 15)]
    steady_s: u64,
    /// How long they report without a pause, in seconds
    #[arg(long, default_value_t = 10)]
    rush_s: u64,
    /// Keep the stores below this folder while measuring; 45 M rows take some gigabytes
    #[arg(long, default_value = "/var/tmp")]
    scratch: PathBuf,
    /// Write tables into this page, after its marker, and plots beside it
    #[arg(long)]
    page: Option<PathBuf>,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Scale(args) => scale(args),
        Command::Chaos {
            ethogram,
            faults,
            only,
            scratch,
        } => chaos::run(&chaos::Options {
            ethogram,
            scratch,
            faults,
            only,
        }),
        Command::Walk(walk) => runtime()?.block_on(chaos::walk(walk)),
    }
}

/// One thread: the other processor is the collector's.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}

fn scale(cli: ScaleArgs) -> Result<()> {
    raise_file_limit();
    let runtime = runtime()?;
    let mut results = Vec::new();
    for kind in cli.stores {
        let mut scratch = tempfile::Builder::new();
        let scratch = scratch.prefix("ethogram-scale-").tempdir_in(&cli.scratch);
        let scratch = scratch.with_context(|| format!("cannot use {}", cli.scratch.display()))?;
        let nodes_max = match kind {
            StoreKind::Sqlite => cli.sqlite_nodes_max,
            StoreKind::Clickhouse => u64::MAX,
        };
        let plan = Plan {
            nodes: cli
                .nodes
                .iter()
                .copied()
                .filter(|&nodes| nodes <= nodes_max)
                .collect(),
            told_containers: cli.told_containers,
            steady: Duration::from_secs(cli.steady_s),
            rush: Duration::from_secs(cli.rush_s),
        };
        let steps =
            runtime.block_on(measure::measure(&cli.ethogram, kind, &plan, scratch.path()))?;
        results.push((kind, steps));
    }
    match &cli.page {
        Some(page) => report::write(page, &results),
        None => Ok(()),
    }
}

/// A connection is a file, and thousands are more than a shell's usual limit.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Where it is refused, connecting will say so.
    setrlimit(Resource::Nofile, raised).ok();
}
