//! End-to-end tests and the workloads they run.

pub mod agent;
pub mod api_server;
pub mod coverage;
pub mod cri;
pub mod dvwa;
pub mod engine;
pub mod expected;
pub mod node;
pub mod sockets;
pub mod testbed;
pub mod truth;
