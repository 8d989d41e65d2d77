//! Performs a seeded random mix of operations of every kind, in several threads of several
//! processes, and writes down exactly what it did, as the rows that a summary must show.
//! What counts, and which rows may be compared, is stated in `ethogram_e2e::truth`.
//!
//! The mix is the same for the same options. It needs root: it takes rights away from
//! threads and gives them back, mounts in namespaces of its own, and opens raw sockets.
//! Everything happens below one directory and on the loopback interface.
//!
//! This process makes the files, starts the workers (copies of its own executable, below
//! that directory), adds up what they report and writes the truth. To add an operation,
//! write a function in the file of its kind and enter it in that file's list.

mod exec;
mod file;
mod layout;
mod net;
mod ops;
mod place;
mod rng;
mod sys;
mod syscalls;
mod tool;
mod unix;
mod worker;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ethogram_e2e::truth::{Header, Ledger};
use ethogram_model::{Behaviour, Kind};
use layout::{Layout, Plan, shown};
use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// The first argument of a worker process.
const WORKER_ROLE: &str = "worker";

/// Performs a random mix of operations and writes down what it did.
#[derive(Parser)]
struct Options {
    /// Chooses the mix: the same seed does the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many operations to perform; one may be several counted events, or none.
    #[arg(long, default_value_t = 1_000_000)]
    ops: u64,
    /// Threads of each worker process.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Worker processes.
    #[arg(long, default_value_t = 2)]
    processes: usize,
    /// An empty directory to work in (made if it is not there); its path must be short.
    #[arg(long)]
    dir: PathBuf,
    /// Where to write the truth, as JSON lines.
    #[arg(long)]
    truth: PathBuf,
    /// Perform only these operations or classes of them (an unknown one lists them all).
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Leave these operations or classes out.
    #[arg(long, value_delimiter = ',')]
    except: Vec<String>,
    /// Work in a network namespace of its own, so that no port is taken.
    #[arg(long)]
    netns: bool,
}

fn main() -> Result<()> {
    let arguments: Vec<OsString> = env::args_os().collect();
    match arguments.get(1).and_then(|role| role.to_str()) {
        Some(tool::ROLE_TEXT) => tool::run(&arguments[2..]),
        // Between the role and the rest is the script's own path.
        Some(tool::SCRIPT_ROLE) => tool::run(&arguments[3..]),
        Some(WORKER_ROLE) => match &arguments[2..] {
            [plan, number] => worker::run(&plan.to_string_lossy(), &number.to_string_lossy()),
            _ => anyhow::bail!("a worker needs a plan and a number"),
        },
        _ => coordinate(&Options::parse()),
    }
}

fn coordinate(options: &Options) -> Result<()> {
    ensure!(
        options.threads > 0 && options.processes > 0,
        "there must be a thread and a process"
    );
    fs::create_dir_all(&options.dir)
        .with_context(|| format!("cannot make {}", options.dir.display()))?;
    let plan = Plan {
        seed: options.seed,
        operations: options.ops,
        threads: options.threads,
        processes: options.processes,
        only: options.only.clone(),
        except: options.except.clone(),
        own_network: options.netns,
        layout: Layout::new(options.dir.canonicalize()?)?,
    };
    // Says what is wrong with the choice before anything is made.
    ops::Mix::new(&plan)?;
    let actor = env::current_exe()?;
    worker::build(&plan, &actor).context("cannot make the files to work with")?;
    if plan.own_network {
        own_network().context("cannot make a network namespace")?;
    }
    let workers: Vec<Child> = (0..plan.processes)
        .map(|number| start(&plan, number))
        .collect::<Result<_>>()?;
    let mut truth = Ledger::default();
    for (number, worker) in workers.into_iter().enumerate() {
        truth.merge(finish(worker).with_context(|| format!("worker {number}"))?);
        let target = shown(&plan.layout.worker(number));
        truth.add(Behaviour::new(Kind::Process, shown(&actor), target), 1);
    }
    write(&options.truth, &plan, &truth)
        .with_context(|| format!("cannot write {}", options.truth.display()))?;
    eprintln!(
        "{} operations, {} events in {} rows",
        plan.operations,
        truth.total(),
        truth.rows().len()
    );
    Ok(())
}

/// Moves to a network namespace where only the loopback interface is, and where everyone
/// may open ping sockets.
fn own_network() -> Result<()> {
    sys::unshare(libc::CLONE_NEWNET)?;
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    sys::loopback_up(&socket)?;
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
    Ok(())
}

fn start(plan: &Plan, number: usize) -> Result<Child> {
    let executable = plan.layout.worker(number);
    Command::new(&executable)
        .args([
            WORKER_ROLE,
            &serde_json::to_string(plan)?,
            &number.to_string(),
        ])
        .current_dir(plan.layout.worker_dir(number))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", executable.display()))
}

fn finish(mut worker: Child) -> Result<Ledger> {
    let output = worker.stdout.take().expect("the output is piped");
    let ledger = Ledger::read(BufReader::new(output))?;
    let status = worker.wait()?;
    ensure!(status.success(), "it ended with {status}");
    Ok(ledger)
}

fn write(path: &Path, plan: &Plan, truth: &Ledger) -> Result<()> {
    let header = Header {
        dir: shown(plan.layout.dir()).as_str().into(),
        seed: plan.seed,
        operations: plan.operations,
        events: truth.total(),
    };
    let mut file = BufWriter::new(fs::File::create(path)?);
    serde_json::to_writer(&mut file, &header)?;
    file.write_all(b"\n")?;
    truth.write(&mut file)?;
    Ok(file.flush()?)
}
