//! When somebody watched, and when nobody did.

use crate::{BootId, Timestamp};

/// One life of an agent (or one recording): the time in which it watched. Between the
/// runs of a node nothing was seen, and a summary says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Unique for ever, chosen at start.
    pub id: String,
    /// The boot it ran in.
    pub boot: BootId,
    /// The machine's name.
    pub node: String,
    /// The set of hooks it used, as `doctor` names it.
    pub hooks: String,
    /// When its hooks were attached.
    pub started: Timestamp,
    /// When it last reported; the watch may have lasted a little longer.
    pub last_alive: Timestamp,
    /// Whether it ended by itself, with everything flushed.
    pub ended_cleanly: bool,
}
