//! The real agent, as root, against the real kernel. What it watches are processes in
//! cgroups that are named as a runtime names those of containers.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod api;
mod container;
mod crashes;
mod daemon;
mod disk;
mod docker;
mod lifetime;
mod losses;
mod mistakes;
mod neighbours;
mod requests;
mod rights;
mod traces;
