//! A cgroup of one's own, for a recorded command.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result, bail};
use ethogram_identity::cgroups::Hierarchies;

/// A cgroup that is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct OwnCgroup {
    directory: PathBuf,
    /// Below the hierarchy's root.
    path: Vec<u8>,
    /// Where processes go that outlive the recording.
    parent: PathBuf,
}

impl OwnCgroup {
    /// Makes one below the root of the best hierarchy there is: v2, else v1 memory or pids.
    pub(crate) fn create(hierarchies: &Hierarchies) -> Result<Self> {
        let Some(mount) = hierarchies.mounts.first() else {
            bail!(
                "no cgroup hierarchy is mounted; mount one, e.g. mount -t cgroup2 none /sys/fs/cgroup"
            );
        };
        let name = format!("ethogram-record-{}", process::id());
        let directory = mount.at.join(&name);
        fs::create_dir(&directory).with_context(|| {
            format!(
                "cannot make the cgroup {}: recording needs root",
                directory.display()
            )
        })?;
        Ok(Self {
            directory,
            path: format!("/{name}").into_bytes(),
            parent: mount.at.clone(),
        })
    }

    /// Its path below the hierarchy's root.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The file that takes the pids of its members.
    pub(crate) fn procs(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }

    /// The processes in it, nested cgroups included.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        visit(&self.directory, &mut |directory| {
            let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        });
        found
    }
}

/// Calls `act` for a cgroup and all below it, the deepest first.
fn visit(directory: &Path, act: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path(), act);
        }
    }
    act(directory);
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        for pid in self.processes() {
            // It may have ended in the meantime.
            let _ = fs::write(self.parent.join("cgroup.procs"), pid.to_string());
        }
        visit(&self.directory, &mut |directory| {
            if let Err(error) = fs::remove_dir(directory) {
                tracing::warn!("the cgroup {} is left behind: {error}", directory.display());
            }
        });
    }
}
