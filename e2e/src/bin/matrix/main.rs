//! Does things in every way there is, each by an executable of its own, and writes down what
//! must be seen of it. What the cells are is in the files of their kinds; how they are held
//! against a summary is stated in `ethogram_e2e::coverage`.
//!
//! It needs root. Everything happens below one directory and, in namespaces of its own, on
//! the loopback interface; only `--machine-wide` touches more than that.

mod compat;
mod deeds;
mod exec;
mod file;
mod names;
mod net;
mod places;
mod socket;
mod sys;
mod uring;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use deeds::{Cell, Lacking, Record};
use ethogram_e2e::{
    coverage::{self, Deeds, Outcome},
    truth::Document,
};
use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

/// The first argument of a process that performs a cell.
const CELL_ROLE: &str = "cell";
/// The last argument of a program that has nothing to do.
const EXIT_ROLE: &str = "exit";

/// Does things in every way there is and writes down what must be seen.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Performs the cells
    Run {
        /// An empty directory to work in (made if it is not there); its path must be short
        #[arg(long)]
        dir: PathBuf,
        /// Where to write what was done, as JSON
        #[arg(long)]
        truth: PathBuf,
        /// Also what changes the machine for everybody for a moment (`binfmt_misc`)
        #[arg(long)]
        machine_wide: bool,
        /// Only cells whose name contains this
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Holds what was done against a summary; fails if anything is wrong
    Check {
        /// What was done
        #[arg(long)]
        truth: PathBuf,
        /// The summary's JSON document, of all statuses and unfolded
        #[arg(long)]
        summary: PathBuf,
        /// What `ethogram doctor -o json` says of the same hooks
        #[arg(long)]
        doctor: PathBuf,
        /// Which hooks those are
        #[arg(long)]
        hooks: String,
        /// What this kernel may lack
        #[arg(long, value_delimiter = ',')]
        may_lack: Vec<String>,
    },
    /// Prints a table of what checks have printed into these files
    Table {
        /// Their output
        outputs: Vec<PathBuf>,
    },
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().collect();
    if arguments.last().is_some_and(|last| last == EXIT_ROLE) {
        return Ok(ExitCode::SUCCESS);
    }
    if let [_, role, index, dir] = &arguments[..]
        && role == CELL_ROLE
    {
        return perform(index.parse()?, Path::new(dir)).map(|()| ExitCode::SUCCESS);
    }
    match Options::parse().command {
        Task::Run {
            dir,
            truth,
            machine_wide,
            only,
        } => run(&dir, &truth, machine_wide, &only).map(|()| ExitCode::SUCCESS),
        Task::Check {
            truth,
            summary,
            doctor,
            hooks,
            may_lack,
        } => check(&truth, &summary, &doctor, &hooks, &may_lack),
        Task::Table { outputs } => {
            let texts: Result<Vec<_>, _> = outputs.iter().map(fs::read_to_string).collect();
            print!("{}", coverage::table(&texts?));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// All cells, in an order that is always the same.
fn cells() -> Vec<Cell> {
    let mut cells = file::cells();
    cells.extend(exec::cells());
    cells.extend(compat::cells());
    cells.extend(net::cells());
    cells.extend(names::cells());
    cells
}

/// Where a cell's executable and its folder are.
fn homes(dir: &Path, index: usize) -> (PathBuf, PathBuf) {
    (
        dir.join(format!("bin/{index:03}")),
        dir.join(format!("data/{index:03}")),
    )
}

fn run(dir: &Path, truth: &Path, machine_wide: bool, only: &str) -> Result<()> {
    fs::create_dir_all(dir.join("bin"))?;
    fs::create_dir_all(dir.join("data"))?;
    let dir = dir.canonicalize()?;
    // A copy, for links do not cross file systems.
    let program = dir.join("bin/program");
    fs::copy(env::current_exe()?, &program)?;
    sys::own_namespaces().context("cannot make namespaces of its own")?;
    let mut done = Vec::new();
    for (index, cell) in cells().iter().enumerate() {
        if (cell.machine_wide && !machine_wide) || !cell.name().contains(only) {
            continue;
        }
        let deeds = start(cell, index, &dir, &program).with_context(|| cell.name())?;
        done.push(deeds);
    }
    if machine_wide {
        sys::unregister_format()?;
    }
    fs::write(truth, serde_json::to_vec(&done)?)
        .with_context(|| format!("cannot write {}", truth.display()))?;
    eprintln!("{} cells done", done.len());
    Ok(())
}

/// Sets a cell up and lets its own executable perform it.
fn start(cell: &Cell, index: usize, dir: &Path, program: &Path) -> Result<Deeds> {
    let (executable, folder) = homes(dir, index);
    fs::create_dir(&folder)?;
    fs::hard_link(program, &executable)?;
    let lacking = match (cell.set_up)(&folder) {
        Ok(()) => None,
        Err(why) => Some(why.downcast::<Lacking>()?.0),
    };
    let rows = if lacking.is_some() {
        Vec::new()
    } else {
        let output = Command::new(&executable)
            .args([CELL_ROLE, &index.to_string()])
            .arg(&folder)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "it ended with {}", output.status);
        serde_json::from_slice(&output.stdout).context("it did not say what it did")?
    };
    Ok(Deeds {
        what: cell.what.clone(),
        place: cell.place.clone(),
        lacking,
        program: coverage::shown(&executable),
        folder: coverage::shown(&folder),
        rows,
    })
}

/// Performs a cell and says what must be seen of it.
fn perform(index: usize, folder: &Path) -> Result<()> {
    let mut cells = cells();
    ensure!(index < cells.len(), "there is no cell {index}");
    let cell = cells.swap_remove(index);
    let mut record = Record::new(index, &env::current_exe()?, folder);
    (cell.act)(&mut record)?;
    serde_json::to_writer(std::io::stdout(), &record.into_rows())?;
    Ok(())
}

fn check(
    truth: &Path,
    summary: &Path,
    doctor: &Path,
    hooks: &str,
    may_lack: &[String],
) -> Result<ExitCode> {
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let done: Vec<Deeds> = serde_json::from_str(&read(truth)?)?;
    let document = Document::read(&read(summary)?)?;
    ensure!(document.lost() == 0, "{} events were lost", document.lost());
    let verdicts = coverage::judge(&done, &document, &listed(&read(doctor)?)?);
    print!("{}", coverage::lines(&verdicts, hooks));
    let mut wrong = 0;
    for verdict in &verdicts {
        wrong += usize::from(match &verdict.outcome {
            Outcome::Wrong(_) => true,
            Outcome::Lacking(_) => !may_lack.contains(&verdict.what),
            _ => false,
        });
    }
    println!("{} cells by {hooks} hooks, {wrong} wrong", verdicts.len());
    Ok(if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The blind spots in doctor's answer.
fn listed(doctor: &str) -> Result<BTreeSet<String>> {
    let answer: serde_json::Value = serde_json::from_str(doctor)?;
    let Some(spots) = answer["blind_spots"].as_array() else {
        bail!("doctor lists no blind spots");
    };
    let id = |spot: &serde_json::Value| spot["id"].as_str().map(str::to_owned);
    spots
        .iter()
        .map(|spot| id(spot).context("a blind spot without an id"))
        .collect()
}
