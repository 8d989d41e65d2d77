//! Generates both sides of the protocol from `proto/`, without protoc.

use std::error::Error;

const PROTO: &str = "../../proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let descriptors = protox::compile(["ethogram/v1/report.proto"], [PROTO])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
