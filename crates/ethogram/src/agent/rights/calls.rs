//! The system calls of an agent that watches, as data.
//!
//! Two filters, of which the stricter decides:
//! - what is not on the [list](ALLOWED) fails with EPERM, because a library that tries
//!   something new on another machine should go on without it;
//! - what only somebody else's code in this process would [do](FATAL) ends the process: the
//!   kernel's log names the call, the service manager sees SIGSYS, and the summary says that
//!   the run was broken off.

use std::{collections::BTreeMap, env::consts::ARCH};

use anyhow::{Context, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// When a call of a number is meant.
#[derive(Clone, Copy)]
enum When {
    /// Whatever its arguments.
    Always,
    /// An argument, by its position, is one of these.
    OneOf(u8, &'static [u64]),
    /// An argument has all of these bits.
    Has(u8, u64),
}
use When::{Always, Has, OneOf};

type Calls = &'static [(i64, When)];

/// What may be done, by purpose.
const ALLOWED: &[Calls] = &[FILES, MEMORY, THREADS, WAITING, NETWORK, SENSOR, LEGACY];

/// The store, its folder, certificates, runtimes' files, /proc and the cgroup hierarchies.
const FILES: Calls = &[
    (libc::SYS_close, Always),
    (libc::SYS_close_range, Always),
    (libc::SYS_copy_file_range, Always),
    (libc::SYS_dup, Always),
    (libc::SYS_dup3, Always),
    (libc::SYS_faccessat, Always),
    (libc::SYS_faccessat2, Always),
    (libc::SYS_fadvise64, Always),
    (libc::SYS_fallocate, Always),
    (libc::SYS_fchmod, Always),
    (libc::SYS_fchmodat, Always),
    (libc::SYS_fchown, Always),
    (libc::SYS_fcntl, Always),
    (libc::SYS_fdatasync, Always),
    (libc::SYS_flock, Always),
    (libc::SYS_fstat, Always),
    (libc::SYS_fstatfs, Always),
    (libc::SYS_fsync, Always),
    (libc::SYS_ftruncate, Always),
    (libc::SYS_getcwd, Always),
    (libc::SYS_getdents64, Always),
    (libc::SYS_inotify_add_watch, Always),
    (libc::SYS_inotify_init1, Always),
    (libc::SYS_inotify_rm_watch, Always),
    (
        libc::SYS_ioctl,
        OneOf(1, &[libc::FIONBIO, libc::FIONREAD, libc::TCGETS]),
    ),
    (libc::SYS_lseek, Always),
    (libc::SYS_mkdirat, Always),
    (libc::SYS_newfstatat, Always),
    (libc::SYS_openat, Always),
    (libc::SYS_openat2, Always),
    (libc::SYS_pread64, Always),
    (libc::SYS_pwrite64, Always),
    (libc::SYS_pwritev, Always),
    (libc::SYS_read, Always),
    (libc::SYS_readahead, Always),
    (libc::SYS_readlinkat, Always),
    (libc::SYS_readv, Always),
    (libc::SYS_renameat2, Always),
    (libc::SYS_statfs, Always),
    (libc::SYS_statx, Always),
    (libc::SYS_unlinkat, Always),
    (libc::SYS_utimensat, Always),
    (libc::SYS_write, Always),
    (libc::SYS_writev, Always),
];

const MEMORY: Calls = &[
    (libc::SYS_brk, Always),
    (libc::SYS_madvise, Always),
    (libc::SYS_membarrier, Always),
    (libc::SYS_mincore, Always),
    (libc::SYS_mmap, Always),
    (libc::SYS_mprotect, Always),
    (libc::SYS_mremap, Always),
    (libc::SYS_msync, Always),
    (libc::SYS_munmap, Always),
];

/// Threads, and what a process asks about itself. `clone` and `clone3` cannot be told from
/// a fork where the flags lie in memory; a fork without execve gains nothing.
const THREADS: Calls = &[
    (libc::SYS_capget, Always),
    (libc::SYS_clone, Always),
    (libc::SYS_clone3, Always),
    (libc::SYS_exit, Always),
    (libc::SYS_exit_group, Always),
    (libc::SYS_get_robust_list, Always),
    (libc::SYS_getcpu, Always),
    (libc::SYS_getegid, Always),
    (libc::SYS_geteuid, Always),
    (libc::SYS_getgid, Always),
    (libc::SYS_getpid, Always),
    (libc::SYS_getppid, Always),
    (libc::SYS_getpriority, Always),
    (libc::SYS_getrandom, Always),
    (libc::SYS_getresgid, Always),
    (libc::SYS_getresuid, Always),
    (libc::SYS_getrusage, Always),
    (libc::SYS_gettid, Always),
    (libc::SYS_getuid, Always),
    (libc::SYS_kill, Always),
    (libc::SYS_prctl, Always),
    (libc::SYS_prlimit64, Always),
    (libc::SYS_rseq, Always),
    (libc::SYS_rt_sigaction, Always),
    (libc::SYS_rt_sigprocmask, Always),
    (libc::SYS_rt_sigreturn, Always),
    (libc::SYS_sched_getaffinity, Always),
    (libc::SYS_sched_yield, Always),
    (libc::SYS_set_robust_list, Always),
    (libc::SYS_set_tid_address, Always),
    (libc::SYS_sigaltstack, Always),
    (libc::SYS_sysinfo, Always),
    (libc::SYS_tgkill, Always),
    (libc::SYS_umask, Always),
    (libc::SYS_uname, Always),
];

const WAITING: Calls = &[
    (libc::SYS_clock_getres, Always),
    (libc::SYS_clock_gettime, Always),
    (libc::SYS_clock_nanosleep, Always),
    (libc::SYS_epoll_create1, Always),
    (libc::SYS_epoll_ctl, Always),
    (libc::SYS_epoll_pwait, Always),
    (libc::SYS_epoll_pwait2, Always),
    (libc::SYS_eventfd2, Always),
    (libc::SYS_futex, Always),
    (libc::SYS_gettimeofday, Always),
    (libc::SYS_nanosleep, Always),
    (libc::SYS_pipe2, Always),
    (libc::SYS_ppoll, Always),
    (libc::SYS_pselect6, Always),
    (libc::SYS_restart_syscall, Always),
    (libc::SYS_rt_sigtimedwait, Always),
    (libc::SYS_timerfd_create, Always),
    (libc::SYS_timerfd_gettime, Always),
    (libc::SYS_timerfd_settime, Always),
];

/// The API, runtimes, the collector, resolvers.
const NETWORK: Calls = &[
    (libc::SYS_accept, Always),
    (libc::SYS_accept4, Always),
    (libc::SYS_bind, Always),
    (libc::SYS_connect, Always),
    (libc::SYS_getpeername, Always),
    (libc::SYS_getsockname, Always),
    (libc::SYS_getsockopt, Always),
    (libc::SYS_listen, Always),
    (libc::SYS_recvfrom, Always),
    (libc::SYS_recvmmsg, Always),
    (libc::SYS_recvmsg, Always),
    (libc::SYS_sendmmsg, Always),
    (libc::SYS_sendmsg, Always),
    (libc::SYS_sendto, Always),
    (libc::SYS_setsockopt, Always),
    (libc::SYS_shutdown, Always),
    (libc::SYS_socket, OneOf(0, FAMILIES)),
    (libc::SYS_socketpair, OneOf(0, FAMILIES)),
];

const FAMILIES: &[u64] = &[
    libc::AF_UNIX as u64,
    libc::AF_INET as u64,
    libc::AF_INET6 as u64,
];

/// Reading and writing maps, and the look-back's iterators. Nothing can be loaded or attached
/// to the kernel by these: an iterator runs a program that is loaded, when it is read.
const SENSOR: Calls = &[(libc::SYS_bpf, OneOf(0, BPF_COMMANDS))];

/// `enum bpf_cmd` of `linux/bpf.h`.
const BPF_COMMANDS: &[u64] = &[
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    15, // BPF_OBJ_GET_INFO_BY_FD
    21, // BPF_MAP_LOOKUP_AND_DELETE_ELEM
    24, // BPF_MAP_LOOKUP_BATCH
    25, // BPF_MAP_LOOKUP_AND_DELETE_BATCH
    26, // BPF_MAP_UPDATE_BATCH
    27, // BPF_MAP_DELETE_BATCH
    28, // BPF_LINK_CREATE
    33, // BPF_ITER_CREATE
];

/// Calls that newer architectures do without, or have under other names.
#[cfg(target_arch = "x86_64")]
const LEGACY: Calls = &[
    (libc::SYS_getrlimit, Always),
    (libc::SYS_renameat, Always),
    (libc::SYS_sync_file_range, Always),
    (libc::SYS_access, Always),
    (libc::SYS_chmod, Always),
    (libc::SYS_dup2, Always),
    (libc::SYS_epoll_create, Always),
    (libc::SYS_epoll_wait, Always),
    (libc::SYS_getdents, Always),
    (libc::SYS_lstat, Always),
    (libc::SYS_mkdir, Always),
    (libc::SYS_open, Always),
    (libc::SYS_pipe, Always),
    (libc::SYS_poll, Always),
    (libc::SYS_readlink, Always),
    (libc::SYS_rename, Always),
    (libc::SYS_rmdir, Always),
    (libc::SYS_select, Always),
    (libc::SYS_stat, Always),
    (libc::SYS_time, Always),
    (libc::SYS_unlink, Always),
];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY: Calls = &[];

/// What nothing in the agent does, and somebody who took it over would.
const FATAL: Calls = &[
    (libc::SYS_execve, Always),
    (libc::SYS_execveat, Always),
    (libc::SYS_ptrace, Always),
    (libc::SYS_process_vm_readv, Always),
    (libc::SYS_process_vm_writev, Always),
    (libc::SYS_pidfd_getfd, Always),
    (libc::SYS_init_module, Always),
    (libc::SYS_finit_module, Always),
    (libc::SYS_kexec_load, Always),
    (libc::SYS_mount, Always),
    (libc::SYS_pivot_root, Always),
    (libc::SYS_chroot, Always),
    (libc::SYS_setns, Always),
    (libc::SYS_unshare, Always),
    (libc::SYS_bpf, OneOf(0, BPF_LOADING)),
    (
        libc::SYS_mmap,
        Has(2, (libc::PROT_WRITE | libc::PROT_EXEC) as u64),
    ),
    (
        libc::SYS_mprotect,
        Has(2, (libc::PROT_WRITE | libc::PROT_EXEC) as u64),
    ),
];

const BPF_LOADING: &[u64] = &[
    5, // BPF_PROG_LOAD
    8, // BPF_PROG_ATTACH
];

/// From now on, this thread and those it starts are held to the list.
pub(super) fn refuse_the_rest() -> Result<()> {
    let allowed = program(
        ALLOWED.iter().copied().flatten(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
    )?;
    let fatal = program(FATAL, SeccompAction::KillProcess, SeccompAction::Allow)?;
    // In this order: `seccomp` itself is on no list.
    apply_filter(&fatal)?;
    apply_filter(&allowed)?;
    Ok(())
}

fn program<'a>(
    calls: impl IntoIterator<Item = &'a (i64, When)>,
    on_list: SeccompAction,
    otherwise: SeccompAction,
) -> Result<BpfProgram> {
    let mut rules = BTreeMap::<i64, Vec<SeccompRule>>::new();
    for &(number, when) in calls {
        rules.entry(number).or_default().extend(when.rules()?);
    }
    let arch = ARCH
        .try_into()
        .context("no filters for this architecture")?;
    let filter = SeccompFilter::new(rules, otherwise, on_list, arch)?;
    Ok(filter.try_into()?)
}

impl When {
    /// The rules of which one must hold; none means always.
    fn rules(self) -> Result<Vec<SeccompRule>> {
        // The kernel itself looks at the lower half of these arguments alone.
        let rule = |argument, how, value| {
            let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value)?;
            Ok(SeccompRule::new(vec![condition])?)
        };
        match self {
            Always => Ok(Vec::new()),
            OneOf(argument, values) => values
                .iter()
                .map(|&value| rule(argument, SeccompCmpOp::Eq, value))
                .collect(),
            Has(argument, bits) => Ok(vec![rule(argument, SeccompCmpOp::MaskedEq(bits), bits)?]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_make_programs_and_name_no_call_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for (number, _) in ALLOWED.iter().copied().flatten() {
            assert!(seen.insert(number), "{number} is listed twice");
        }
        for (number, when) in FATAL {
            let is_partly = matches!(when, OneOf(..) | Has(..));
            assert!(is_partly || !seen.contains(number), "{number} is both");
        }
        let program = program(
            ALLOWED.iter().copied().flatten(),
            SeccompAction::Allow,
            SeccompAction::Errno(1),
        );
        assert!(program.unwrap().len() > seen.len());
    }
    /// What a thread that is held to the lists gets.
    fn confined<T: Send + 'static>(attempt: fn() -> T) -> T {
        let thread = std::thread::spawn(move || {
            refuse_the_rest().unwrap();
            attempt()
        });
        thread.join().unwrap()
    }

    #[test]
    fn what_is_not_listed_fails_and_the_thread_goes_on() {
        use rustix::{io::Errno, net};
        let netlink = || net::socket(net::AddressFamily::NETLINK, net::SocketType::RAW, None);
        assert!(netlink().is_ok());
        assert_eq!(confined(netlink).unwrap_err(), Errno::PERM);
        let priority = || rustix::process::setpriority_process(None, 0);
        assert_eq!(confined(priority).unwrap_err(), Errno::PERM);
        let listening = || std::net::TcpListener::bind("127.0.0.1:0").map(drop);
        assert!(confined(listening).is_ok());
    }

    #[test]
    fn to_execute_a_program_is_fatal() {
        use std::{os::unix::process::ExitStatusExt, process::Command};
        // The new process is ended before it becomes anything.
        let mut child = confined(|| Command::new("/bin/true").spawn()).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGSYS));
    }
}
