//! End-to-end tests and the workloads they run.

pub mod cri;
pub mod dvwa;
pub mod node;
pub mod testbed;
pub mod truth;
