//! The generated protocol.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    clippy::wildcard_imports,
    clippy::uninlined_format_args,
    clippy::semicolon_if_nothing_returned,
    clippy::redundant_closure_for_method_calls,
    reason = "generated"
)]

/// Messages, client and server of `proto/ethogram/v1/report.proto`; that file documents them.
pub mod proto {
    tonic::include_proto!("ethogram.v1");
}
