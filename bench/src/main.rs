//! What watching costs.
//!
//! `price` runs the same small loop with nothing attached and under each watcher, in turn,
//! round after round, and prints medians of the ratios within each round: machines drift,
//! and only figures of the same round compare. The loop times itself, so a watcher's own
//! start does not count.

#![forbid(unsafe_code)]

mod report;
mod watchers;
mod work;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures what watching costs.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare watchers on each kind of operation
    Price {
        /// The `ethogram` to measure
        #[arg(long, default_value = "target/release/ethogram")]
        ethogram: PathBuf,
        /// Rounds; each runs every watcher once
        #[arg(long, default_value_t = 7)]
        rounds: usize,
        /// Operations to measure
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = work::Operation::ALL)]
        operations: Vec<work::Operation>,
        /// Leave out the slow peers
        #[arg(long)]
        quick: bool,
        /// Write a Markdown table to this file as well
        #[arg(long)]
        markdown: Option<PathBuf>,
    },
    /// The loop that is measured: prints nanoseconds per operation
    #[command(hide = true)]
    Work {
        /// What to do
        operation: work::Operation,
        /// How often
        count: u32,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Price {
            ethogram,
            rounds,
            operations,
            quick,
            markdown,
        } => {
            let watchers = watchers::available(&ethogram, quick)?;
            let table = report::measure(&watchers, &operations, rounds)?;
            print!("{table}");
            if let Some(file) = markdown {
                std::fs::write(file, &table)?;
            }
            Ok(())
        }
        Command::Work { operation, count } => {
            let cost = work::run(operation, count)?;
            println!("cost {} {}", cost.wall, cost.cpu);
            Ok(())
        }
    }
}
