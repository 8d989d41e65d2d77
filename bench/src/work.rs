//! The loops that are measured.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::Result;
use clap::ValueEnum;

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Operation {
    /// Open and close one file, five directories deep.
    Open,
    /// Ask for a file's attributes: no behaviour, so it should cost nothing.
    Stat,
    /// The cheapest system call: likewise.
    Getpid,
    /// Start /bin/true and wait for it.
    Exec,
    /// Connect to a loopback server and accept.
    Tcp,
    /// Send a datagram to an address.
    Udp,
    /// Connect to a unix socket and accept.
    Unix,
}

impl Operation {
    pub(crate) const ALL: [Self; 7] = [
        Self::Open,
        Self::Stat,
        Self::Getpid,
        Self::Exec,
        Self::Tcp,
        Self::Udp,
        Self::Unix,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Open => "open+close",
            Self::Stat => "stat",
            Self::Getpid => "getpid",
            Self::Exec => "fork+exec",
            Self::Tcp => "tcp connect+accept",
            Self::Udp => "udp sendto",
            Self::Unix => "unix connect+accept",
        }
    }

    /// Enough to take a good part of a second with nothing attached.
    pub(crate) fn count(self) -> u32 {
        match self {
            Self::Open => 200_000,
            Self::Stat => 300_000,
            Self::Getpid => 1_000_000,
            Self::Exec => 400,
            Self::Tcp => 5_000,
            Self::Udp => 100_000,
            Self::Unix => 20_000,
        }
    }

    /// Peers that stop the process for each event do with fewer.
    pub(crate) fn count_slow(self) -> u32 {
        (self.count() / 10).max(50)
    }
}

/// Nanoseconds per operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// On the wall clock.
    pub(crate) wall: u64,
    /// Of this process on a processor: what other load of the machine does not disturb.
    pub(crate) cpu: u64,
}

/// Runs the loop.
pub(crate) fn run(operation: Operation, count: u32) -> Result<Cost> {
    let folder = Folder::make()?;
    let mut once = prepare(operation, &folder)?;
    for _ in 0..(count / 20).clamp(1, 1_000) {
        once()?; // warm up: caches, and the watcher's first sights
    }
    let (start, start_cpu) = (Instant::now(), cpu_ns()?);
    for _ in 0..count {
        once()?;
    }
    let (wall, cpu) = (
        u64::try_from(start.elapsed().as_nanos())?,
        cpu_ns()? - start_cpu,
    );
    Ok(Cost {
        wall: wall / u64::from(count),
        cpu: cpu / u64::from(count),
    })
}

/// Processor time of this process and of the children it has waited for.
fn cpu_ns() -> Result<u64> {
    use rustix::time::{ClockId, clock_gettime};
    let own = clock_gettime(ClockId::ProcessCPUTime);
    let own_ns = u64::try_from(own.tv_sec)? * 1_000_000_000 + u64::try_from(own.tv_nsec)?;
    Ok(own_ns + children_ns()?)
}

/// From /proc/self/stat: fields 16 and 17, in ticks of 10 ms.
fn children_ns() -> Result<u64> {
    const TICK_NS: u64 = 10_000_000;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(13).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    Ok(ticks * TICK_NS)
}

type Once = Box<dyn FnMut() -> io::Result<()>>;

fn prepare(operation: Operation, folder: &Folder) -> Result<Once> {
    let file = folder.file.clone();
    Ok(match operation {
        Operation::Open => Box::new(move || File::open(&file).map(drop)),
        Operation::Stat => Box::new(move || std::fs::metadata(&file).map(drop)),
        Operation::Getpid => Box::new(|| {
            std::hint::black_box(rustix::process::getppid());
            Ok(())
        }),
        Operation::Exec => Box::new(|| {
            Command::new("/bin/true")
                .stdin(Stdio::null())
                .status()
                .map(drop)
        }),
        Operation::Tcp => {
            let server = TcpListener::bind("127.0.0.1:0")?;
            let address = server.local_addr()?;
            Box::new(move || {
                let client = TcpStream::connect(address)?;
                let (peer, _) = server.accept()?;
                talk(client, peer)
            })
        }
        Operation::Udp => {
            let server = UdpSocket::bind("127.0.0.1:0")?;
            server.set_nonblocking(true)?;
            let address = server.local_addr()?;
            let client = UdpSocket::bind("127.0.0.1:0")?;
            let mut room = [0; 8];
            Box::new(move || {
                client.send_to(b"x", address)?;
                server.recv(&mut room).map(drop)
            })
        }
        Operation::Unix => {
            let path = folder.root.join("socket");
            let server = UnixListener::bind(&path)?;
            Box::new(move || {
                let client = UnixStream::connect(&path)?;
                let (peer, _) = server.accept()?;
                talk(client, peer)
            })
        }
    })
}

/// One byte, so that the connection is real.
fn talk(mut client: impl Write, mut peer: impl Read) -> io::Result<()> {
    client.write_all(b"x")?;
    peer.read_exact(&mut [0])
}

/// A folder of this loop's own, removed at the end.
struct Folder {
    root: PathBuf,
    file: PathBuf,
}

impl Folder {
    fn make() -> Result<Self> {
        let root = std::env::temp_dir().join(format!("ethogram-bench-{}", std::process::id()));
        let deep = root.join("a/b/c");
        std::fs::create_dir_all(&deep)?;
        let file = deep.join("file");
        std::fs::write(&file, "x")?;
        Ok(Self { root, file })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.root) {
            eprintln!("{} is left behind: {error}", self.root.display());
        }
    }
}
