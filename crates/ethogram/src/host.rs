//! This machine's names.

use anyhow::{Context, Result};
use ethogram_model::BootId;

/// The boot that is running.
pub(crate) fn boot() -> Result<BootId> {
    read("/proc/sys/kernel/random/boot_id").map(|text| BootId::new(&text))
}

/// The kernel's host name.
pub(crate) fn node() -> Result<String> {
    read("/proc/sys/kernel/hostname").map(|text| text.trim().to_owned())
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {path}; is /proc mounted?"))
}
