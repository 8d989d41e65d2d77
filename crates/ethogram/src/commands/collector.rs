//! `ethogram collector`: keep what agents report.

use std::process::ExitCode;

use anyhow::Result;

use crate::{args::CollectorArgs, collector};

/// Runs the collector until a signal ends it.
pub(crate) fn run(args: CollectorArgs) -> Result<ExitCode> {
    collector::run(args)?;
    Ok(ExitCode::SUCCESS)
}
