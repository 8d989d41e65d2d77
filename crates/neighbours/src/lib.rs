//! Speaks the neighbours' languages.
//!
//! `observability` answers what discovery-engine answered, so that `karmor summary` works
//! against an agent or a collector, and `publisher` publishes what it published;
//! `log_service` streams what changes, as KubeArmor streams events, for `karmor logs` and
//! `karmor profile`; [`consume`] listens to KubeArmor. `docs/neighbours.md` says what is
//! served and what differs. Every text that goes out was made printable where it came in.
//!
//! **Architecture invariant:** a neighbour's protocol is translated here and nowhere else;
//! what a row means is the model's matter, and who may read is the cluster crate's.

#![forbid(unsafe_code)]

mod consume;
mod feed;
mod grammar;
pub mod guard;
mod lines;
mod log_service;
mod observability;
mod otlp;
mod publisher;
mod server;
mod who;
mod wire;
mod words;

#[cfg(any(fuzzing, test))]
pub use consume::fuzz;
pub use consume::{Listening, Source, Taken, consume};
pub use feed::Feed;
pub use lines::{LINES_SCHEMA, LinesError, write_lines};
pub use otlp::{Exported, Receiver, export};
pub use server::{Served, serve_log_service, serve_observability};
pub use wire::{discovery, feeder, otlp as opentelemetry, publisher as publishing};
