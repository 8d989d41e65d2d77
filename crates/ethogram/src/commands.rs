//! What each subcommand does.

pub(crate) mod agent;
pub(crate) mod completion;
pub(crate) mod containers;
pub(crate) mod doctor;
pub(crate) mod record;
pub(crate) mod summary;
