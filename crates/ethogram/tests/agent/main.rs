//! The real agent, as root, against the real kernel. What it watches are processes in
//! cgroups that are named as a runtime names those of containers.

mod api;
mod container;
mod daemon;
mod disk;
mod lifetime;
mod losses;
mod mistakes;
