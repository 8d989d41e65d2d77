//! End-to-end tests and the workloads they run.
