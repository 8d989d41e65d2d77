//! Compiles the BPF programs with clang and generates their Rust skeleton.

use std::{env, path::PathBuf, process::Command};

use libbpf_cargo::SkeletonBuilder;

const SOURCE: &str = "bpf/sensor.bpf.c";

fn main() {
    // Each header is named: a directory's time stamp says nothing about its files.
    println!("cargo:rerun-if-env-changed=CLANG");
    for entry in std::fs::read_dir("bpf")
        .expect("the crate ships its bpf folder")
        .flatten()
    {
        println!("cargo:rerun-if-changed={}", entry.path().display());
    }

    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    if Command::new(&clang).arg("--version").output().is_err() {
        panic!(
            "`{clang}` was not found: the BPF programs are compiled with it.\n\
             On Debian and Ubuntu: apt-get install clang libelf-dev zlib1g-dev pkg-config make gcc\n\
             On Fedora: dnf install clang elfutils-libelf-devel zlib-devel\n\
             Or set CLANG to another clang (14 or later)."
        );
    }

    let arch = match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("x86_64") => "x86",
        Ok("aarch64") => "arm64",
        other => panic!("no system call table for {other:?} yet: x86_64 and aarch64 only"),
    };
    let target = format!("-D__TARGET_ARCH_{arch}");
    let skeleton =
        PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("sensor.skel.rs");
    SkeletonBuilder::new()
        .source(SOURCE)
        .clang(&clang)
        .clang_args([
            target.as_str(),
            "-mcpu=v3", // atomics with a result; kernels since 5.12
            "-O2",
            "-Wall",
            "-Werror",
            "-Wno-incompatible-pointer-types-discards-qualifiers",
        ])
        .build_and_generate(&skeleton)
        .unwrap_or_else(|error| panic!("{SOURCE} does not compile: {error:#}"));
}
