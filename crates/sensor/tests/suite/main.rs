//! The sensor against a kernel: needs root, BPF and a cgroup v2 hierarchy.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bounded;
mod pressure;
mod recycling;
mod support;
