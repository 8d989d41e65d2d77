//! Tests against an API server of ours, and of the manifests.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fake_api;
mod fake_forward;
#[allow(dead_code, reason = "others' tests use more of it")]
mod fake_http;
mod forwarding;
mod manifests;
mod naming;
mod reader;
mod watching;
mod wire;
