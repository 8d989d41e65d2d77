//! What can go wrong with the kernel.

use std::io;

/// Why the sensor cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// The kernel has no BTF, so the programs cannot be fitted to it.
    #[error(
        "this kernel has no BTF (/sys/kernel/btf/vmlinux): a kernel built with CONFIG_DEBUG_INFO_BTF is needed, 6.1 or newer"
    )]
    NoBtf,
    /// The kernel lacks what the programs are made of.
    #[error("the kernel {release} is too old: it lacks {lack}; 6.1 or newer is needed")]
    TooOld {
        /// As `uname -r` says.
        release: String,
        /// What it lacks.
        lack: &'static str,
    },
    /// Not allowed to load programs.
    #[error(
        "the kernel refuses to load BPF programs: run as root, or with CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_SYS_RESOURCE ({0})"
    )]
    NotPermitted(#[source] libbpf_rs::Error),
    /// This kernel takes no programs on its functions, or does not run them.
    #[error("this kernel cannot be watched by trampolines: {0}; use tracepoints")]
    NoTrampolines(String),
    /// A step of loading or attaching failed.
    #[error("cannot {step}: {source}")]
    Bpf {
        /// What was tried.
        step: String,
        /// What libbpf or the kernel said.
        source: libbpf_rs::Error,
    },
    /// Reading what the kernel offers failed.
    #[error("cannot {step}: {source}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl SensorError {
    /// Wraps an error of libbpf with what was tried.
    pub(crate) fn bpf(step: impl Into<String>) -> impl FnOnce(libbpf_rs::Error) -> Self {
        let step = step.into();
        move |source| {
            // EPERM. The verifier refuses programs with EACCES, which is of the same kind.
            let of_rights = matches!(source.kind(), libbpf_rs::ErrorKind::PermissionDenied)
                && !source.to_string().contains("os error 13");
            if of_rights {
                Self::NotPermitted(source)
            } else {
                Self::Bpf { step, source }
            }
        }
    }

    /// Wraps a system error with what was tried.
    pub(crate) fn io<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io {
            step,
            source: source.into(),
        }
    }
}
