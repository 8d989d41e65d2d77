//! The neighbours' protocols, spoken by clients made from the same protos over real
//! connections, with real stores.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod consume;
mod lines;
mod log_service;
mod observability;
mod otlp;
mod publisher;
mod support;
