//! What signals ask for.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

/// The exit status after a second signal: what was not written yet is lost.
const IMPATIENT: i32 = 130;

/// Signals that came.
pub(crate) struct Signals {
    end: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    /// From now on, SIGTERM and SIGINT ask for an orderly end, the second one for an
    /// immediate one.
    pub(crate) fn catch() -> Result<Self> {
        let signals = Self {
            end: Arc::default(),
            reload: Arc::default(),
        };
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag down and raises it.
            flag::register_conditional_shutdown(signal, IMPATIENT, Arc::clone(&signals.end))
                .and_then(|_| flag::register(signal, Arc::clone(&signals.end)))
                .context("cannot catch signals")?;
        }
        flag::register(SIGHUP, Arc::clone(&signals.reload)).context("cannot catch signals")?;
        Ok(signals)
    }

    /// Whether the agent is to end.
    pub(crate) fn end(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    /// Whether SIGHUP came since the last time.
    pub(crate) fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }
}
