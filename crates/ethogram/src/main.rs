//! Ethogram: what every container, pod and service on a Linux machine really does.
//!
//! One binary in several sizes: `record` watches one command, `agent` a machine. What they
//! share is the [`watch`], which joins the sensor's counts with the identity of containers.

#![forbid(unsafe_code)]

mod agent;
mod args;
mod cgroup;
mod client;
mod clock;
mod collector;
mod columns;
mod commands;
mod config;
mod dns;
mod doctor;
mod host;
mod http;
mod inventory;
mod log;
mod names;
mod neighbours;
mod pager;
mod present;
mod question;
mod source;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The agent's options say how it logs.
    if !matches!(cli.command, Command::Agent(_)) {
        // What goes wrong meanwhile is among the findings of `doctor`.
        let least = match cli.command {
            Command::Doctor(_) => "error",
            Command::Collector(_) => "info",
            _ => "warn",
        };
        log::start(least, cli.verbose, config::LogFormat::Text);
    }
    let result = match cli.command {
        Command::Record(args) => commands::record::run(&args),
        Command::Agent(args) => commands::agent::run(args, cli.verbose),
        Command::Collector(args) => commands::collector::run(args),
        Command::Certs(args) => commands::certs::run(&args),
        Command::Summary(args) => commands::summary::run(&args),
        Command::Containers(args) => commands::containers::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Completion(args) => commands::completion::run(&args),
        Command::Man(args) => commands::completion::write_manual(&args),
        Command::SelfTest(args) => commands::doctor::act(&args),
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
