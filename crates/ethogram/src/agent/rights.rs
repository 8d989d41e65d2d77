//! Giving up, once the programs are loaded and attached, every right that watching goes on
//! without: capabilities, the way to new ones, and system calls.
//!
//! What is open stays usable: since kernel 5.19 maps, links and iterators want no capability
//! of who holds their descriptors.

mod calls;

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    fs::{Access, access},
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
        set_no_new_privs,
    },
};

use crate::config::Settings;

/// What watching needs for as long as it lasts: Podman's files and runtimes' sockets lie in
/// folders that may be closed to all but their owners.
pub(crate) const KEPT: &[(CapabilitySet, &str)] =
    &[(CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH")];

/// Linux has fewer capabilities than this; the set has a bit for each.
const CAPABILITIES_MAX: u32 = 64;

/// What is left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights {
    /// Capabilities of every thread.
    capabilities: CapabilitySet,
    /// Whether the kernel refuses system calls that are not needed.
    pub(super) is_filtered: bool,
}

impl Rights {
    /// The kept capabilities' names.
    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        let held =
            move |(capability, _): &&(CapabilitySet, _)| self.capabilities.contains(*capability);
        KEPT.iter().filter(held).map(|(_, name)| *name)
    }
}

/// Gives up what is not needed any more. Call it before there are other threads: capabilities
/// belong to a thread, and those that start later have no more than the one that starts them.
pub(super) fn give_up(settings: &Settings) -> Result<Rights> {
    let threads = fs::read_dir("/proc/self/task").context("cannot count this process's threads")?;
    ensure!(threads.count() == 1, "other threads would keep all rights");
    let capabilities = reduce_capabilities().context("cannot give capabilities up")?;
    set_no_new_privs(true).context("cannot give up the way to new rights")?;
    let is_filtered = match calls::refuse_the_rest() {
        Ok(()) => true,
        // Watching without is better than not watching; `status` says so too.
        Err(error) => {
            tracing::warn!("this kernel filters no system calls, so all stay possible: {error:#}");
            false
        }
    };
    check_folder(&settings.data_dir)?;
    Ok(Rights {
        capabilities,
        is_filtered,
    })
}

fn reduce_capabilities() -> Result<CapabilitySet> {
    let wanted = KEPT
        .iter()
        .fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
    let held = capabilities(None)?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        shrink_bounding_set(wanted)?;
    }
    clear_ambient_capability_set()?;
    let kept = held.permitted & wanted;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)?;
    Ok(kept)
}

/// Without CAP_SETPCAP, as in our systemd unit, the bounding set stays what it was: it matters
/// only to who may execute a program, and nobody may.
fn shrink_bounding_set(wanted: CapabilitySet) -> Result<()> {
    for number in 0..CAPABILITIES_MAX {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(one) {
            Ok(true) if !wanted.contains(one) => remove_capability_from_bounding_set(one)?,
            Ok(_) => {}
            // The kernel's last one was the one before.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The store's folder was made or opened with more rights than there are now.
fn check_folder(folder: &Path) -> Result<()> {
    match access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Ok(()),
        Err(error) => bail!(
            "{} cannot be written without CAP_DAC_OVERRIDE, which the agent does not keep ({error}): \
             give the folder to the agent's user (chown), or choose another --data-dir",
            folder.display()
        ),
    }
}
