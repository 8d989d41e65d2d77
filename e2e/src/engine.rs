//! Container engines without Kubernetes: Docker and Podman, each with data of its own.

use crate::testbed::{self, run, run_script};
use anyhow::Result;
use std::{path::PathBuf, process::Command};

/// A Docker engine.
#[derive(Debug)]
pub struct Docker(());

impl Docker {
    /// Starts it, or takes it over where it runs already.
    ///
    /// # Errors
    /// When the machine lacks what it takes; the text says what.
    pub fn up() -> Result<Self> {
        testbed::install_packages()?;
        run_script("docker.sh", &["up"])?;
        Ok(Self(()))
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        testbed::state_dir().join("docker/docker.sock")
    }

    /// Runs `docker ARGS...`.
    ///
    /// # Errors
    /// When it fails; the text has what it said.
    pub fn docker(&self, args: &[&str]) -> Result<String> {
        let host = format!("unix://{}", self.socket().display());
        let said = run(Command::new("/usr/bin/docker")
            .env("DOCKER_HOST", host)
            .args(args))?;
        Ok(said.trim().to_owned())
    }
}

/// Podman, as root.
#[derive(Debug)]
pub struct Podman(());

impl Podman {
    /// Makes its storage ready.
    ///
    /// # Errors
    /// When the machine lacks what it takes; the text says what.
    pub fn up() -> Result<Self> {
        testbed::install_packages()?;
        run_script("podman.sh", &["up"])?;
        Ok(Self(()))
    }

    /// The folder where it keeps its containers.
    #[must_use]
    pub fn storage(&self) -> PathBuf {
        testbed::state_dir().join("podman/storage")
    }

    /// Runs `podman ARGS...`.
    ///
    /// # Errors
    /// When it fails; the text has what it said.
    pub fn podman(&self, args: &[&str]) -> Result<String> {
        let said = run_script("podman.sh", &[&["run"], args].concat())?;
        Ok(said.trim().to_owned())
    }
}
