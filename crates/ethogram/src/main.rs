//! Ethogram: what every container, pod and service on a Linux machine really does.
//!
//! One binary in several sizes: `record` watches one command, `agent` a machine. What they
//! share is the [`watch`], which joins the sensor's counts with the identity of containers.

#![forbid(unsafe_code)]

mod args;
mod cgroup;
mod clock;
mod commands;
mod host;
mod present;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.verbose);
    let result = match cli.command {
        Command::Record(args) => commands::record::run(&args),
        Command::RunIn(args) => commands::record::become_command(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ethogram: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Logs to stderr; `ETHOGRAM_LOG` overrides with a filter such as `debug` or `ethogram_sensor=trace`.
fn start_log(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = match verbose {
        0 => "warn",
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("ETHOGRAM_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
