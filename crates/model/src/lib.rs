//! What a workload does, as data.
//!
//! A [`Behaviour`] is one thing an executable does (which file it opens, whom it
//! connects to); a [`Tally`] says how often and when; a [`Container`] says who. The
//! crate decides and computes, and nothing else: no I/O, no clock, no threads, no
//! logging. Time is a parameter everywhere.
//!
//! **Architecture invariant:** the core types do not derive `Serialize`. The wire and
//! file formats belong to the crates at the edges, which own twins of these types.

#![forbid(unsafe_code)]

mod behaviour;
mod budget;
mod container;
mod fold;
mod loss;
mod name;
mod observation;
mod place;
mod run;
mod selection;
mod summary;
mod tally;
mod time;

pub use behaviour::{Access, Behaviour, Kind, Protocol, Status};
pub use budget::{Budget, Folding, Grain, NewFold};
pub use container::{BootId, Container, ContainerKey, Labels, Runtime, Workload};
pub use fold::{Fold, Folder, ParseFoldError};
pub use loss::{Loss, LossReason};
pub use name::Name;
pub use observation::{Endpoint, Observation, Resolution};
pub use place::Place;
pub use run::Run;
pub use selection::Selection;
pub use summary::{
    Completeness, Facts, Gap, Group, Peer, Peers, Row, Subject, Summary, SummaryOptions, summarize,
};
pub use tally::Tally;
pub use time::Timestamp;
