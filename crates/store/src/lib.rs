//! Where observations are kept: the [`Store`] trait, with what every store promises, and
//! [`SqliteStore`], the one that lives in a file.
//!
//! **Architecture invariant:** a store blocks, has no clock and no threads of its own.
//! Callers bring the time and, in async code, a thread that may block.

#![forbid(unsafe_code)]

mod error;
mod spool;
mod sqlite;
mod store;

pub use error::StoreError;
pub use spool::{Changes, ContainerChanges, PageLimits, Peer, Position, Spool};
pub use sqlite::{SCHEMA_VERSION, SqliteStore, move_aside};
pub use store::{KeptContainer, Limits, Overview, Removed, Report, Stats, Store};
