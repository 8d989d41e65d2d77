//! Telling systemd how it goes, as sd_notify(3) describes.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::{Duration, Instant},
};

/// The line to the service manager; without one, it leads nowhere.
pub(crate) struct Notifier {
    line: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that all is well, and when it heard last.
    watchdog: Option<(Duration, Instant)>,
}

impl Notifier {
    /// From what the service manager left in the environment.
    pub(crate) fn from_environment() -> Self {
        let line = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            connect(&name)
                .inspect_err(|error| {
                    tracing::warn!("cannot reach NOTIFY_SOCKET {}: {error}", name.display());
                })
                .ok()
        });
        let wanted = env::var("WATCHDOG_USEC").ok().and_then(|t| t.parse().ok());
        let watchdog = wanted.map(|us: u64| (Duration::from_micros(us) / 2, Instant::now()));
        Self { line, watchdog }
    }

    /// The agent watches, and answers.
    pub(crate) fn ready(&self) {
        self.send("READY=1");
    }

    /// The agent is about to end.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// All is well. Call it often: it speaks when it is time to.
    pub(crate) fn alive(&mut self) {
        if let Some((every, last)) = &mut self.watchdog
            && last.elapsed() >= *every
        {
            *last = Instant::now();
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, state: &str) {
        if let Some((line, manager)) = &self.line
            && let Err(error) = line.send_to_addr(state.as_bytes(), manager)
        {
            tracing::warn!("cannot tell the service manager {state}: {error}");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let manager = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    Ok((UnixDatagram::unbound()?, manager))
}
