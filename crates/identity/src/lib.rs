//! Who is behind a cgroup id.
#![forbid(unsafe_code)]
pub mod cgroups;
pub mod directory;
pub mod endpoints;
pub mod facts;
pub mod role;
