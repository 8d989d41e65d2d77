//! Compares a truth that `actor` wrote with what `ethogram summary -o json --fold none`
//! printed, and exits with 1 on any difference.

use anyhow::{Context, Result};
use clap::Parser;
use ethogram_e2e::truth::{Comparison, Document, Scope, Verdict, read_truth};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Holds a summary against the truth, row by row.
#[derive(Parser)]
struct Options {
    /// The truth, as `actor --truth` wrote it.
    #[arg(long)]
    truth: PathBuf,
    /// The summary's JSON document, of all statuses and unfolded.
    #[arg(long)]
    summary: PathBuf,
    /// Accept missing counts up to the number that the summary reports as lost.
    #[arg(long)]
    allow_reported_loss: bool,
    /// But no more than so many.
    #[arg(long, requires = "allow_reported_loss")]
    lost_max: Option<u64>,
    /// The summary of the same run without loss. What it counted in all, this one must have
    /// counted or reported as lost: the truth alone does not know how many events the
    /// programs' loaders and set-up cause, and those can be lost as well.
    #[arg(long, requires = "allow_reported_loss")]
    baseline: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let (header, truth) = read_truth(&options.truth)
        .with_context(|| format!("cannot use {}", options.truth.display()))?;
    let document = read_document(&options.summary)?;

    let comparison = Comparison::new(truth, &document, &Scope::new(&header.dir));
    println!("seed {}, {} operations", header.seed, header.operations);
    print!("{comparison}");
    let verdict = comparison.verdict();
    println!("{}", sentence(verdict));
    if let Some(baseline) = &options.baseline {
        let (whole, accounted) = (read_document(baseline)?.events(), document.events());
        println!("events without loss: {whole}, counted or reported lost: {accounted}");
        if whole != accounted {
            return Ok(ExitCode::FAILURE);
        }
    }
    if let Some(max) = options.lost_max.filter(|&max| document.lost() > max) {
        println!("More than {max} events were lost.");
        return Ok(ExitCode::FAILURE);
    }
    Ok(match verdict {
        Verdict::Equal => ExitCode::SUCCESS,
        Verdict::EqualWithLoss | Verdict::Explained if options.allow_reported_loss => {
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    })
}

fn read_document(path: &Path) -> Result<Document> {
    let context = || format!("cannot use {}", path.display());
    let text = fs::read_to_string(path).with_context(context)?;
    Document::read(&text).with_context(context)
}

fn sentence(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Equal => "The summary equals the truth.",
        Verdict::EqualWithLoss => "All rows are equal, but the summary reports losses.",
        Verdict::Explained => "Counts are missing, no more than the summary reports as lost.",
        Verdict::Wrong => "The summary is wrong.",
    }
}
