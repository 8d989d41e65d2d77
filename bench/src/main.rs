//! What watching costs.
//!
//! Everything runs with nothing attached and under each watcher, in turn, round after round,
//! and what is shown are medians of the ratios within each round: machines drift, and only
//! figures of the same round compare. Loops time themselves, so a watcher's own start does not
//! count.

#![forbid(unsafe_code)]

mod agent;
mod applications;
mod containers;
mod figures;
mod load;
mod page;
mod plot;
mod price;
mod saturation;
mod soak;
mod watchers;
mod work;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::page::{Page, Section};

/// Measures what watching costs.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What is measured, and where the result goes.
#[derive(Debug, Args)]
struct Target {
    /// The `ethogram` to measure
    #[arg(long, default_value = "target/release/ethogram")]
    ethogram: PathBuf,
    /// Put the result into its place on this page, too
    #[arg(long)]
    page: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct PriceArgs {
    #[command(flatten)]
    target: Target,
    /// Rounds; each runs every watcher once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Operations to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = work::Operation::ALL)]
    operations: Vec<work::Operation>,
    /// The sets of hooks to measure
    #[arg(long, value_delimiter = ',', default_value = "tracepoint")]
    hooks: Vec<String>,
    /// How many operations, in relation to the usual number
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Leave out the peers
    #[arg(long)]
    quick: bool,
    /// The place on the page
    #[arg(long, default_value = "price")]
    place: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare watchers on each kind of operation
    Price(PriceArgs),
    /// Compare applications with and without an agent
    Applications {
        #[command(flatten)]
        target: Target,
        /// Rounds; each runs every application three times
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// Raise the rate of events, and see what the agent uses and what peers lose
    Rates {
        #[command(flatten)]
        target: Target,
    },
    /// Raise the number of containers and rows
    Sizes {
        #[command(flatten)]
        target: Target,
    },
    /// Work at full rate in short-lived containers, and check counts and memory
    Soak {
        #[command(flatten)]
        target: Target,
        /// For how long
        #[arg(long, default_value_t = 1_200)]
        seconds: u64,
    },
    /// Put what is read from standard input into its place on a page, and print it
    Place {
        /// The place
        name: String,
        /// The page
        #[arg(long)]
        page: PathBuf,
    },
    /// The loop that is measured: prints nanoseconds per operation
    #[command(hide = true)]
    Work {
        /// What to do
        operation: work::Operation,
        /// How often
        count: u32,
    },
    /// What watched processes do: prints how much it was
    #[command(hide = true, subcommand)]
    Load(load::Load),
}

impl Target {
    fn show(&self, place: &str, section: &Section) -> Result<()> {
        println!("{}", section.text);
        match &self.page {
            Some(page) => Page::new(page.clone()).write(place, section),
            None => Ok(()),
        }
    }
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Price(args) => {
            let watchers = watchers::available(&args.target.ethogram, &args.hooks, args.quick)?;
            let section = price::measure(&watchers, &args.operations, args.rounds, args.scale)?;
            args.target.show(&args.place, &section)
        }
        Command::Applications { target, rounds } => {
            let section = applications::measure(&target.ethogram, rounds)?;
            target.show("applications", &section)
        }
        Command::Rates { target } => target.show("rates", &saturation::rates(&target.ethogram)?),
        Command::Sizes { target } => target.show("sizes", &saturation::sizes(&target.ethogram)?),
        Command::Soak { target, seconds } => {
            let (section, verdict) = soak::run(&target.ethogram, Duration::from_secs(seconds))?;
            target.show("soak", &section)?;
            verdict
        }
        Command::Place { name, page } => {
            let text = std::io::read_to_string(std::io::stdin())?;
            print!("{text}");
            let section = Section {
                text,
                ..Section::default()
            };
            Page::new(page).write(&name, &section)
        }
        Command::Work { operation, count } => {
            let cost = work::run(operation, count)?;
            println!("cost {} {}", cost.wall, cost.cpu);
            Ok(())
        }
        Command::Load(load) => load.run(),
    }
}
