//! Container engines without Kubernetes: Docker and Podman, each with data of its own.

use crate::testbed::{self, run, run_script};
use anyhow::Result;
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

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

/// Podman's service, which speaks Docker's language. It is killed when dropped.
#[derive(Debug)]
pub struct PodmanService(Child);

impl Drop for PodmanService {
    fn drop(&mut self) {
        // Fails only where it has ended, which is what is wanted.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

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

    /// Starts the service, and returns it with its socket. Nobody needs it to run
    /// containers; it is where labels can be asked for.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn serve(&self) -> Result<(PodmanService, PathBuf)> {
        let socket = testbed::state_dir().join("podman/podman.sock");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(testbed::script("podman.sh"))
            .args(["run", "system", "service", "--time=0"])
            .arg(format!("unix://{}", socket.display()))
            .stdin(Stdio::null())
            .spawn()?;
        Ok((PodmanService(child), socket))
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
