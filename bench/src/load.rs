//! What watched processes do, and what they say they did.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

/// Files that are opened again and again.
const FILES: usize = 20;
/// How often a paced load does its share.
const BEAT: Duration = Duration::from_millis(5);
/// Opens between two looks at the clock.
const BATCH: u64 = 64;

/// A load.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Load {
    /// Open and close files
    Opens {
        /// Where the files are
        folder: PathBuf,
        /// For how long, in milliseconds
        ms: u64,
        /// How many each second; 0: as many as possible
        #[arg(long, default_value_t = 0)]
        rate: u64,
        /// How many new files to make and to remove as well
        #[arg(long, default_value_t = 0)]
        new: u64,
    },
    /// Send datagrams to different addresses
    Peers {
        /// How many addresses
        peers: u32,
        /// How often each, after the first time
        passes: u32,
        /// The local port to send to
        port: u16,
    },
}

/// What a load did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    /// Events that a watcher should have counted.
    pub(crate) events: u64,
    /// Events that were measured, and how long they took, in nanoseconds on a processor.
    pub(crate) measured: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) wall_ns: u64,
}

impl Load {
    /// Does it, and prints what it did.
    pub(crate) fn run(&self) -> Result<()> {
        let done = match self {
            Self::Opens {
                folder,
                ms,
                rate,
                new,
            } => opens(folder, Duration::from_millis(*ms), *rate, *new)?,
            Self::Peers {
                peers,
                passes,
                port,
            } => send(*peers, *passes, *port)?,
        };
        let Done {
            events,
            measured,
            cpu_ns,
            wall_ns,
        } = done;
        println!("done {events} {measured} {cpu_ns} {wall_ns}");
        Ok(())
    }

    /// The arguments that lead here.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut words = vec!["load".to_owned()];
        match self {
            Self::Opens {
                folder,
                ms,
                rate,
                new,
            } => words.extend([
                "opens".to_owned(),
                folder.display().to_string(),
                ms.to_string(),
                format!("--rate={rate}"),
                format!("--new={new}"),
            ]),
            Self::Peers {
                peers,
                passes,
                port,
            } => words.extend([
                "peers".to_owned(),
                peers.to_string(),
                passes.to_string(),
                port.to_string(),
            ]),
        }
        words
    }
}

/// Starts a command that runs a load.
pub(crate) fn start(mut command: Command) -> Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().with_context(|| format!("{command:?}"))
}

/// Waits for a load, and reads what it did.
pub(crate) fn finish(child: Child) -> Result<Done> {
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("done "));
    let numbers: Vec<u64> = numbers
        .into_iter()
        .flat_map(|line| line.split(' '))
        .filter_map(|number| number.parse().ok())
        .collect();
    match numbers[..] {
        [events, measured, cpu_ns, wall_ns] if output.status.success() => Ok(Done {
            events,
            measured,
            cpu_ns,
            wall_ns,
        }),
        _ => bail!("a load failed with {}: {text}", output.status),
    }
}

/// Makes the files that [`Load::Opens`] opens.
pub(crate) fn make_files(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for number in 0..FILES {
        fs::write(folder.join(number.to_string()), "x")?;
    }
    Ok(())
}

fn opens(folder: &Path, time: Duration, rate: u64, new: u64) -> Result<Done> {
    let files: Vec<_> = (0..FILES).map(|n| folder.join(n.to_string())).collect();
    let (start, start_cpu) = (Instant::now(), cpu_ns()?);
    let mut done = Done::default();
    for number in 0..new {
        let file = folder.join(format!("new-{}-{number}", std::process::id()));
        File::create(&file)?;
        fs::remove_file(&file)?;
        done.events += 2;
    }
    let mut opened = 0;
    while start.elapsed() < time {
        let due = match rate {
            0 => opened + BATCH,
            rate => rate * start.elapsed().as_micros() as u64 / 1_000_000,
        };
        while opened < due {
            File::open(&files[opened as usize % FILES])?;
            opened += 1;
        }
        if rate > 0 {
            thread::sleep(BEAT);
        }
    }
    done.events += opened;
    done.measured = done.events;
    done.cpu_ns = cpu_ns()? - start_cpu;
    done.wall_ns = start.elapsed().as_nanos() as u64;
    Ok(done)
}

fn send(peers: u32, passes: u32, port: u16) -> Result<Done> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let to = |number: u32| SocketAddrV4::new(Ipv4Addr::from(0x7f01_0000 + number), port);
    let pass = || (0..peers).try_for_each(|n| socket.send_to(b"x", to(n)).map(drop));
    pass().context("cannot send")?;
    let (start, start_cpu) = (Instant::now(), cpu_ns()?);
    for _ in 0..passes {
        pass().context("cannot send")?;
    }
    Ok(Done {
        events: u64::from(peers) * u64::from(passes + 1),
        measured: u64::from(peers) * u64::from(passes),
        cpu_ns: cpu_ns()? - start_cpu,
        wall_ns: start.elapsed().as_nanos() as u64,
    })
}

/// Processor time of this process.
fn cpu_ns() -> Result<u64> {
    use rustix::time::{ClockId, clock_gettime};
    let own = clock_gettime(ClockId::ProcessCPUTime);
    Ok(u64::try_from(own.tv_sec)? * 1_000_000_000 + u64::try_from(own.tv_nsec)?)
}
