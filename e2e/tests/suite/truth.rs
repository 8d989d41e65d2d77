//! A workload that states its own truth, against what the summary says of it.

use anyhow::{Context, Result, ensure};
use ethogram_e2e::{
    agent::{binary, only, summary_json, summary_of},
    expected::{Count, Expected, check_complete},
    truth::{Comparison, Document, Scope, Verdict, read_truth},
};
use ethogram_model::Kind;
use std::{fs, process::Command};

/// What the actor is to do.
struct Play {
    seed: u64,
    operations: u64,
    threads: u32,
    processes: u32,
}

/// What it did, and what was seen of it.
struct Outcome {
    comparison: Comparison,
    document: Document,
}

pub(super) fn a_million_operations_equal_the_truth() -> Result<()> {
    let play = Play {
        seed: 20_261_124,
        operations: 1_000_000,
        threads: 3,
        processes: 2,
    };
    let outcome = watch(&play, &[])?;
    println!("{}", outcome.comparison);
    is_equal(&outcome)
}

pub(super) fn other_crowds_equal_the_truth() -> Result<()> {
    for (seed, threads, processes) in [(1, 1, 1), (2, 8, 1), (3, 1, 6), (4, 4, 4)] {
        let outcome = watch(
            &Play {
                seed,
                operations: 30_000,
                threads,
                processes,
            },
            &[],
        )?;
        is_equal(&outcome)
            .with_context(|| format!("seed {seed}, {threads} threads, {processes} processes"))?;
    }
    Ok(())
}

/// With room for 64 behaviours and 64 KiB of names nearly every event takes the slow way,
/// and many are lost: all of them are known to be.
pub(super) fn what_a_tiny_map_loses_is_reported() -> Result<()> {
    let play = Play {
        seed: 5,
        operations: 100_000,
        threads: 3,
        processes: 2,
    };
    let whole = watch(&play, &[])?;
    is_equal(&whole)?;
    let tiny = watch(&play, &["--behaviours-max", "64", "--ring-kib", "64"])?;
    println!("{}", tiny.comparison);
    ensure!(
        tiny.document.lost() > 0,
        "nothing was lost, so this shows nothing"
    );
    ensure!(
        tiny.document.events() == whole.document.events(),
        "{} events counted or reported lost, {} counted without loss",
        tiny.document.events(),
        whole.document.events()
    );
    Ok(())
}

/// The names of what was done lie on a page that is being copied, now and then.
pub(super) fn names_on_pages_in_motion_are_read() -> Result<()> {
    const TIMES: u64 = 5_000;
    let dir = tempfile::tempdir()?;
    let recording = dir.path().join("recording.db");
    let made = dir.path().join("made");
    let program = env!("CARGO_BIN_EXE_copied");
    let output = Command::new(binary()?)
        .args(["record", "--quiet", "-o"])
        .arg(&recording)
        .args(["--", program])
        .arg(&made)
        .arg(TIMES.to_string())
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let document = summary_of(&recording, &[])?;
    let made = made.to_str().context("a temporary path is a text")?;
    let subject = only(&document)?;
    check_complete(subject)?;
    let counted =
        Expected::new(Kind::File, program, made, Count::Exactly(2 * TIMES)).counted(subject);
    ensure!(
        counted == 2 * TIMES,
        "{counted} of {} were counted",
        2 * TIMES
    );
    Ok(())
}

fn is_equal(outcome: &Outcome) -> Result<()> {
    ensure!(
        outcome.comparison.verdict() == Verdict::Equal,
        "{}",
        outcome.comparison
    );
    Ok(())
}

fn watch(play: &Play, limits: &[&str]) -> Result<Outcome> {
    let dir = tempfile::tempdir()?;
    let (recording, truth, stage) = (
        dir.path().join("recording.db"),
        dir.path().join("truth.jsonl"),
        dir.path().join("stage"),
    );
    fs::create_dir(&stage)?;
    let number = |value: &dyn ToString| value.to_string();
    let output = Command::new(binary()?)
        .args(["record", "--quiet", "-o"])
        .arg(&recording)
        // Row by row: nothing is to fold.
        .args(["--rows-per-container-max", "16777216"])
        .args(limits)
        .arg("--")
        .arg(env!("CARGO_BIN_EXE_actor"))
        .args([
            "--seed",
            &number(&play.seed),
            "--ops",
            &number(&play.operations),
        ])
        .args([
            "--threads",
            &number(&play.threads),
            "--processes",
            &number(&play.processes),
        ])
        .arg("--netns")
        .arg("--dir")
        .arg(&stage)
        .arg("--truth")
        .arg(&truth)
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (header, ledger) = read_truth(&truth)?;
    let all = ["--status", "allow,deny,audit,failed"];
    let document = Document::read(&summary_json(&recording, &all)?)?;
    let comparison = Comparison::new(ledger, &document, &Scope::new(&header.dir));
    Ok(Outcome {
        comparison,
        document,
    })
}
