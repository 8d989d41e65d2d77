//! Waiting for servers and clients without being seen: the kernel's table of sockets says
//! what a trial connection would find out, and a trial connection would be a behaviour of
//! what is watched.

use anyhow::{Result, bail};
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// How long a server may take to listen, or a client to connect.
const WAIT: Duration = Duration::from_secs(60);

/// States of a TCP socket, as the kernel's table has them.
const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// Waits until something in a process's network namespace listens on a TCP port.
///
/// # Errors
/// When nothing does in time, or the process ends.
pub fn wait_listening(pid: u32, port: u16) -> Result<()> {
    if wait(pid, |socket| {
        socket.local_port == port && socket.state == LISTEN
    }) {
        return Ok(());
    }
    bail!("nothing listens on port {port}")
}

/// Waits until something in a process's network namespace is connected to a TCP port.
///
/// # Errors
/// When nothing is in time, or the process ends.
pub fn wait_connected(pid: u32, port: u16) -> Result<()> {
    if wait(pid, |socket| {
        socket.remote_port == port && socket.state == ESTABLISHED
    }) {
        return Ok(());
    }
    bail!("nothing is connected to a port {port}")
}

fn wait(pid: u32, is: impl Fn(&TcpSocket) -> bool) -> bool {
    let deadline = Instant::now() + WAIT;
    while Instant::now() < deadline && Path::new(&format!("/proc/{pid}")).exists() {
        if tcp_sockets(pid).iter().any(&is) {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

/// A line of the kernel's table of TCP sockets.
struct TcpSocket {
    local_port: u16,
    remote_port: u16,
    state: String,
}

/// The TCP sockets of a process's network namespace.
fn tcp_sockets(pid: u32) -> Vec<TcpSocket> {
    ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).ok())
        .flat_map(|text| text.lines().filter_map(tcp_socket).collect::<Vec<_>>())
        .collect()
}

/// Columns: number, local ADDRESS:PORT, remote ADDRESS:PORT, state, ...; the numbers are
/// hexadecimal.
fn tcp_socket(line: &str) -> Option<TcpSocket> {
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    let mut columns = line.split_whitespace().skip(1);
    Some(TcpSocket {
        local_port: port(columns.next()?)?,
        remote_port: port(columns.next()?)?,
        state: columns.next()?.to_owned(),
    })
}
