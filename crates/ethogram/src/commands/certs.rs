//! `ethogram certs`: certificates for a cluster that has none.

use std::process::ExitCode;

use anyhow::Result;

use crate::args::CertsArgs;

/// Makes them and says which.
pub(crate) fn run(args: &CertsArgs) -> Result<ExitCode> {
    let written = ethogram_cluster::certs::make(&args.out, &args.server, &args.node)?;
    for file in written {
        println!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}
