//! Generates both sides of the neighbours' protocols from `proto/`, without protoc.

use prost::Message;
use std::{env, error::Error, fs, path::PathBuf};

const PROTO: &str = "../../proto";
const FILES: &[&str] = &[
    "kubearmor/feeder.proto",
    "discovery/observability.proto",
    "discovery/publisher.proto",
    "opentelemetry/collector/logs/v1/logs_service.proto",
    "opentelemetry/collector/metrics/v1/metrics_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let descriptors = protox::compile(FILES, [PROTO])?;
    // For reflection, so that grpcurl can ask without the files.
    let set = PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(set, descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
