//! Every store against one suite, and the SQLite store against crashes, full disks and
//! damaged files.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[macro_use]
mod conformance;
mod spool;
mod sqlite;
mod support;
