//! A workload without bounds: `flood files|peers|ports|programs N` does N different things,
//! and says on its last line how many events that were, by kind.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// Ports of one address that a scan goes through before it goes on to the next.
const PORTS: u32 = 60_000;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let kind = args
        .next()
        .context("which flood: files, peers, ports or programs")?;
    let count = args.next().context("how many")?.parse()?;
    match kind.as_str() {
        "files" => files(count),
        "peers" => peers(count),
        "ports" => ports(count),
        "programs" => programs(count),
        other => bail!("there is no flood of {other}: use files, peers, ports or programs"),
    }
}

/// Makes and removes temporary files, each with a name of its own.
fn files(count: u32) -> Result<()> {
    let folder: PathBuf = std::env::temp_dir().join(format!("flood-{}", std::process::id()));
    fs::create_dir(&folder)?;
    for number in 0..count {
        let path = folder.join(number.to_string());
        File::create(&path)?;
        fs::remove_file(&path)?;
    }
    fs::remove_dir(&folder)?;
    // The folder is made and removed as well.
    println!("file {}", 2 * count + 2);
    Ok(())
}

/// A server that hears from many addresses; every client is on the loopback interface.
fn peers(count: u32) -> Result<()> {
    // A server has a port it asked for: one that was free a moment ago.
    let free = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?
        .local_addr()?
        .port();
    let server = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, free))?;
    let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free);
    for number in 0..count {
        let from = Ipv4Addr::from_bits((127 << 24) + 1 + number * 13);
        let client = UdpSocket::bind((from, 0))?;
        client.send_to(b"x", to)?;
        server.recv_from(&mut [0])?;
    }
    println!("ingress {count} egress {count} bind {}", count + 2);
    Ok(())
}

/// Sends a datagram to every port of one address after the other.
fn ports(count: u32) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    for number in 0..count {
        let address = Ipv4Addr::from_bits((127 << 24) + 1 + number / PORTS);
        let port = u16::try_from(1 + number % PORTS).expect("PORTS is below 2^16");
        match socket.send_to(b"x", (address, port)) {
            Ok(_) => {}
            // The answer to an earlier one.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error.into()),
        }
    }
    println!("egress {count} bind 1");
    Ok(())
}

/// Runs executables, each of which has a name of its own and is gone afterwards.
fn programs(count: u32) -> Result<()> {
    let folder: PathBuf = std::env::temp_dir().join(format!("flood-{}", std::process::id()));
    fs::create_dir(&folder)?;
    // A copy, for links do not cross file systems.
    let original = folder.join("original");
    fs::copy("/bin/true", &original)?;
    for number in 0..count {
        let path = folder.join(number.to_string());
        fs::hard_link(&original, &path)?;
        ensure!(Command::new(&path).status()?.success(), "it does nothing");
        fs::remove_file(&path)?;
    }
    fs::remove_dir_all(&folder)?;
    println!("process {count}");
    Ok(())
}
