//! Agents report, collectors keep.
//!
//! A [`Sender`] tells a collector what changed in an agent's store, which is its spool;
//! a [`Receiver`] takes that into the collector's store. Counts are totals that join by
//! maximum, so nothing in between has to be exact: whatever is cut, sent again, doubled
//! or reordered, both stores say the same in the end. The protocol is
//! `proto/ethogram/v1/report.proto`.
//!
//! **Architecture invariant:** nothing here knows how a store keeps or a view shows; the
//! receiver needs a [`Store`](ethogram_store::Store), the sender a
//! [`Spool`](ethogram_store::Spool).

#![forbid(unsafe_code)]

pub mod access;
mod agents;
mod batch;
pub mod certs;
mod clock;
mod described;
pub mod dial;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod limits;
pub mod listen;
mod receiver;
mod reload;
mod sender;
mod strings;
mod wire;

pub use agents::{AgentState, Agents};
pub use limits::Limits;
pub use receiver::{Receiver, Reporting, serve};
pub use sender::{REPORT_EVERY, Sender, SenderOptions, SenderStatus, Trust, back_off};
pub use wire::proto;

/// The versions of the protocol that this program speaks.
pub const VERSIONS: &[u32] = &[1];
