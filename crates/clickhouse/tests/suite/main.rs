//! The ClickHouse store against real servers, of the oldest and of the newest kind.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[macro_use]
#[allow(
    dead_code,
    reason = "one test is only for stores that refuse older runs"
)]
#[path = "../../../store/tests/suite/conformance.rs"]
mod conformance;
mod cluster;
mod current;
mod faults;
mod lab;
mod single;
#[path = "../../../store/tests/suite/support.rs"]
mod support;
