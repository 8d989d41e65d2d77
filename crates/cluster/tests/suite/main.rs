//! Senders and receivers with real stores, over real connections that fail in every way
//! the tests can think of.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod catching_up;
mod faults;
mod kills;
mod refusals;
mod support;
mod trust;
mod versions;
