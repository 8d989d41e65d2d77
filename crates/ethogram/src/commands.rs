//! What each subcommand does.

pub(crate) mod agent;
pub(crate) mod certs;
pub(crate) mod collector;
pub(crate) mod completion;
pub(crate) mod containers;
pub(crate) mod doctor;
pub(crate) mod record;
pub(crate) mod summary;
