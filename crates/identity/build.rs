//! Generates the CRI client from `proto/cri.proto`, without protoc, and the server that
//! the tests put in a runtime's place.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(["cri.proto"], ["proto"])?;
    for (folder, server) in [("client", false), ("server", true)] {
        let folder = out.join(folder);
        fs::create_dir_all(&folder)?;
        tonic_prost_build::configure()
            .build_client(!server)
            .build_server(server)
            .out_dir(folder)
            .compile_fds(descriptors.clone())?;
    }
    Ok(())
}
