//! The sensor against a kernel: needs root, BPF and a cgroup v2 hierarchy.

mod bounded;
