//! Cgroups that are containers by their names, without a runtime.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

/// A container; its cgroup is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    folder: PathBuf,
}

/// Where containers are, until dropped.
#[derive(Debug)]
pub(crate) struct Containers {
    top: PathBuf,
}

impl Containers {
    pub(crate) fn make() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ethogram-bench-{}-{number}", std::process::id());
        let top = hierarchy()?.join(name);
        fs::create_dir_all(top.join("docker"))
            .with_context(|| format!("cannot make {}; run as root", top.display()))?;
        Ok(Self { top })
    }

    pub(crate) fn add(&self, number: usize) -> Result<Container> {
        let id = format!("{:032x}{number:032x}", std::process::id());
        let folder = self.top.join("docker").join(&id);
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(Container { id, folder })
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for folder in [self.top.join("docker"), self.top.clone()] {
            if let Err(error) = fs::remove_dir(&folder) {
                eprintln!("{} is left behind: {error}", folder.display());
            }
        }
    }
}

impl Container {
    /// A command that will run in it.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
        command.arg(self.folder.join("cgroup.procs"));
        command.arg(program.as_ref());
        command
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The kernel takes a moment to see that the last process is gone.
        for _ in 0..200 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        eprintln!("{} is left behind", self.folder.display());
    }
}

/// Where the v2 hierarchy is mounted.
fn hierarchy() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let v2 = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let at = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(at))
    });
    v2.context("no cgroup v2 hierarchy is mounted")
}
