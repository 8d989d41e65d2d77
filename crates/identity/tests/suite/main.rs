//! The crate as the agent uses it: a host's cgroups in a folder, and runtimes that are
//! played by servers of our own on real sockets.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod agent;
mod cgroups;
mod cri;
mod docker;
mod fake_cri;
mod fake_docker;
mod podman;
