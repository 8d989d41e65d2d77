//! Counts behaviours in the kernel and reads them out.
//!
//! The BPF programs (folder `bpf/`) keep one map: behaviour → counter. A behaviour's name
//! (path, address) crosses to user space once, with its first event; later events cost a
//! map look-up and an increment. This crate loads the programs, reads names and counters,
//! and turns them into the model's [`Behaviour`](ethogram_model::Behaviour)s with
//! cumulative [`Tally`](ethogram_model::Tally)s.
//!
//! Data flows one way: ring and counters ([`bpf`]) → decoded [`record`]s → rows with names
//! ([`table`]) → [`Update`].
//!
//! **Architecture invariants:** nothing here knows what a container is, only cgroup ids;
//! `unsafe` stands only in the `bpf` module; every event that is not counted is in a loss.

mod bpf;
mod calls;
mod clock;
mod dns;
mod error;
mod executables;
mod folds;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod hooks;
mod names;
mod record;
mod sensor;
mod sockets;
mod table;

pub use error::SensorError;
pub use hooks::{HookChoice, HookSet};
pub use sensor::{
    CgroupChange, CgroupEvent, Change, HookStatus, Limits, Options, Resolved, Sensor, Update,
    V1Controller,
};
