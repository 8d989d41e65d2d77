//! Who is behind a cgroup id.
//!
//! The kernel counts by cgroup id; people know containers, pods, services and units. This
//! crate leads from one to the other, in parts that pass data one way:
//!
//! ```text
//! cgroups (scan)  ─┐                              ┌─▶ containers, tracking
//! sensor's events ─┴▶ role (what is this path?) ─▶ directory (who has this id?)
//! runtimes (CRI, Docker, Podman) ─▶ facts (names) ─┴▶ endpoints (who has this address?)
//! ```
//!
//! [`Identity`] drives them; everything between its edges is pure and takes time as a
//! parameter.
//!
//! A pod's sandbox, the container that only holds the pod's namespaces, is a container
//! like any other, named [`SANDBOX_NAME`]; views may hide it by that name.

#![forbid(unsafe_code)]

pub mod cgroups;
pub mod directory;
mod endpoints;
pub mod facts;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod identity;
mod role;
pub mod runtimes;

pub use directory::{Bounds, Scope, Tracking};
pub use facts::SANDBOX_NAME;
pub use identity::{CgroupEvent, Identity, IdentityError, Options, RESCAN_S, Updates};
pub use role::{ContainerCgroup, Role, classify};
pub use runtimes::{RuntimeEndpoint, RuntimeState, RuntimeStatus, well_known};
