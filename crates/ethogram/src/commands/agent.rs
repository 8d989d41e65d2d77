//! `ethogram agent`: watch every container of this machine.

use std::process::ExitCode;

use anyhow::Result;

use crate::{agent, args::AgentArgs, config::Settings, log};

/// Runs the agent until a signal ends it.
pub(crate) fn run(args: AgentArgs, verbose: u8) -> Result<ExitCode> {
    let settings = Settings::new(args.options, args.config.as_deref())?;
    log::start("info", verbose, settings.log_format);
    agent::run(settings)?;
    Ok(ExitCode::SUCCESS)
}
