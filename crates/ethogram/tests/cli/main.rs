//! The real binary, reading stores whose content is known.

mod collector;
mod containers;
mod doctor;
mod summary;
mod support;
mod terminal;
