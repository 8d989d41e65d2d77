//! A cgroup that is a container by its name, and shells in it that do what is known.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use ethogram_identity::cgroups::Hierarchies;

/// What shells read.
pub(crate) const FILE: &str = "/etc/passwd";

/// A container without a runtime; removed when dropped.
pub(crate) struct Container {
    pub(crate) id: String,
    folders: Vec<PathBuf>,
}

impl Container {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let hierarchies = Hierarchies::of_this_host().unwrap();
        let top = hierarchies.mounts[0]
            .at
            .join(format!("ethogram-test-{}-{number}", process::id()));
        let id = format!("{:032x}{number:032x}", process::id());
        let folders = vec![
            top.clone(),
            top.join("docker"),
            top.join("docker").join(&id),
        ];
        for folder in &folders {
            fs::create_dir(folder)
                .unwrap_or_else(|error| panic!("{}: {error}; run as root", folder.display()));
        }
        Self { id, folders }
    }

    /// A shell that runs a script in the container, and waits for it.
    pub(crate) fn run(&self, script: &str) {
        let status = self.shell(script).status().unwrap();
        assert!(status.success(), "{script}: {status}");
    }

    /// A shell that will run a script in the container.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let procs = self.folders[2].join("cgroup.procs");
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(format!("echo $$ > {} && {script}", procs.display()))
            .stdin(Stdio::null());
        command
    }

    /// Reads [`FILE`] so many times.
    pub(crate) fn read(&self, times: u64) {
        self.run(&format!(
            "i=0; while [ $i -lt {times} ]; do : < {FILE}; i=$((i+1)); done"
        ));
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        for folder in self.folders.iter().rev() {
            fs::remove_dir(folder).ok();
        }
    }
}

/// The shell, as the kernel resolves it.
pub(crate) fn shell() -> PathBuf {
    fs::canonicalize(Path::new("/bin/sh")).unwrap()
}
