//! The generated protocols. The files in `proto/` document them.

/// KubeArmor's, of `proto/kubearmor/feeder.proto`.
#[allow(
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
pub mod feeder {
    tonic::include_proto!("feeder");
}

/// Discovery-engine's, of `proto/discovery/observability.proto`.
#[allow(
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
pub mod discovery {
    tonic::include_proto!("v1.observability");
}

/// All of them, for reflection.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
