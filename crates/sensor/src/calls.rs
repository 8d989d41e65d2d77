//! How each system call is handled, by number and architecture.

use std::collections::BTreeSet;

use ethogram_model::Access;

use crate::{bpf::types::call_rule, hooks::SeenBelow};

/// `enum call_op` of `bpf/abi.h`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Op {
    Open = 1,
    Path,
    TwoPaths,
    FdAttr,
    Exec,
    Connect,
    Accept,
    Bind,
    Listen,
    SendTo,
    SendMsg,
    SendMmsg,
    RecvFrom,
    RecvMsg,
    RecvMmsg,
    Read,
    Sensitive,
}

/// `enum path_style` of `bpf/abi.h`: which argument holds the path.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Style {
    Path0 = 0,
    Dir0 = 1,
    Path1 = 2,
    Dir1 = 3,
    None = 4,
}

/// No such call on this architecture.
const NONE: i16 = -1;

/// A system call with its numbers (`arch/x86/entry/syscalls/*.tbl`, `asm-generic/unistd.h`)
/// and its rule. A call with several 32-bit x86 numbers stands in several rows.
struct Call {
    name: &'static str,
    x86_64: i16,
    i386: i16,
    aarch64: i16,
    rule: call_rule,
}

const fn rule(op: Op, style: Style, access: Access) -> call_rule {
    call_rule {
        op: op as u8,
        style: style as u8,
        access: access.bits(),
        access2: 0,
        empty_path_arg: 0,
        flags_arg: 0,
        refusals_only: 0,
        unused: 0,
    }
}

/// An open whose flags are in argument `flags_arg`.
const fn open(style: Style, flags_arg: u8) -> call_rule {
    call_rule {
        flags_arg,
        ..rule(Op::Open, style, Access::empty())
    }
}

const fn path(style: Style, access: Access) -> call_rule {
    rule(Op::Path, style, access)
}

/// With AT_EMPTY_PATH in argument `flags` the descriptor itself is meant.
const fn path_or_fd(access: Access, flags: u8) -> call_rule {
    call_rule {
        empty_path_arg: flags,
        ..rule(Op::Path, Style::Dir0, access)
    }
}

const fn two_paths(style: Style, first: Access, second: Access, flags_arg: u8) -> call_rule {
    call_rule {
        access2: second.bits(),
        flags_arg,
        ..rule(Op::TwoPaths, style, first)
    }
}

const fn socket(op: Op) -> call_rule {
    rule(op, Style::None, Access::empty())
}

const RENAMED: Access = Access::RENAME;
const NEW_NAME: Access = Access::from_bits(Access::RENAME.bits() | Access::CREATE.bits());
const CREATED: Access = Access::from_bits(Access::WRITE.bits() | Access::CREATE.bits());

macro_rules! calls {
    ($($name:literal $x86_64:tt $i386:tt $aarch64:tt => $rule:expr;)*) => {
        &[$(Call { name: $name, x86_64: $x86_64, i386: $i386, aarch64: $aarch64, rule: $rule }),*]
    };
}

/// Calls that act on files, programs and sockets.
#[rustfmt::skip]
const CALLS: &[Call] = calls! {
    "open"              2   5   NONE => open(Style::Path0, 1);
    "openat"            257 295 56   => open(Style::Dir0, 2);
    "openat2"           437 437 437  => call_rule { empty_path_arg: 2, ..open(Style::Dir0, 2) };
    "creat"             85  8   NONE => rule(Op::Open, Style::Path0, CREATED);
    "open_by_handle_at" 304 342 265  => open(Style::None, 2);
    "unlink"            87  10  NONE => path(Style::Path0, Access::DELETE);
    "unlinkat"          263 301 35   => path(Style::Dir0, Access::DELETE);
    "rmdir"             84  40  NONE => path(Style::Path0, Access::DELETE);
    "mkdir"             83  39  NONE => path(Style::Path0, Access::CREATE);
    "mkdirat"           258 296 34   => path(Style::Dir0, Access::CREATE);
    "mknod"             133 14  NONE => path(Style::Path0, Access::CREATE);
    "mknodat"           259 297 33   => path(Style::Dir0, Access::CREATE);
    "symlink"           88  83  NONE => path(Style::Path1, Access::CREATE);
    "symlinkat"         266 304 36   => path(Style::Dir1, Access::CREATE);
    "truncate"          76  92  45   => path(Style::Path0, Access::WRITE);
    "truncate64"        NONE 193 NONE => path(Style::Path0, Access::WRITE);
    "chmod"             90  15  NONE => path(Style::Path0, Access::ATTR);
    "fchmodat"          268 306 53   => path(Style::Dir0, Access::ATTR);
    "fchmodat2"         452 452 452  => path_or_fd(Access::ATTR, 3);
    "chown"             92  182 NONE => path(Style::Path0, Access::ATTR);
    "chown32"           NONE 212 NONE => path(Style::Path0, Access::ATTR);
    "lchown"            94  16  NONE => path(Style::Path0, Access::ATTR);
    "lchown32"          NONE 198 NONE => path(Style::Path0, Access::ATTR);
    "fchownat"          260 298 54   => path_or_fd(Access::ATTR, 4);
    "fchmod"            91  94  52   => rule(Op::FdAttr, Style::None, Access::ATTR);
    "fchown"            93  95  55   => rule(Op::FdAttr, Style::None, Access::ATTR);
    "fchown32"          NONE 207 NONE => rule(Op::FdAttr, Style::None, Access::ATTR);
    "rename"            82  38  NONE => two_paths(Style::Path0, RENAMED, NEW_NAME, 0);
    "renameat"          264 302 38   => two_paths(Style::Dir0, RENAMED, NEW_NAME, 0);
    "renameat2"         316 353 276  => two_paths(Style::Dir0, RENAMED, NEW_NAME, 4);
    "link"              86  9   NONE => two_paths(Style::Path0, Access::ATTR, Access::CREATE, 0);
    "linkat"            265 303 37   => two_paths(Style::Dir0, Access::ATTR, Access::CREATE, 0);
    "execve"            59  11  221  => rule(Op::Exec, Style::Path0, Access::empty());
    "execveat"          322 358 281  => rule(Op::Exec, Style::Dir0, Access::empty());
    "connect"           42  362 203  => socket(Op::Connect);
    "accept"            43  NONE 202 => socket(Op::Accept);
    "accept4"           288 364 242  => socket(Op::Accept);
    "bind"              49  361 200  => socket(Op::Bind);
    "listen"            50  363 201  => rule(Op::Listen, Style::None, Access::LISTEN);
    "sendto"            44  369 206  => socket(Op::SendTo);
    "recvfrom"          45  371 207  => socket(Op::RecvFrom);
    "sendmsg"           46  NONE 211 => socket(Op::SendMsg);
    "recvmsg"           47  NONE 212 => socket(Op::RecvMsg);
    "sendmmsg"          307 NONE 269 => socket(Op::SendMmsg);
    "recvmmsg"          299 NONE 243 => socket(Op::RecvMmsg);
    "read"              0   3   63   => socket(Op::Read);
};

/// Name, and numbers on x86_64, i386 and aarch64.
type Sensitive = (&'static str, i16, i16, i16);

macro_rules! sensitive {
    ($($name:literal $x86_64:tt $i386:tt $aarch64:tt;)*) => {
        &[$(($name, $x86_64, $i386, $aarch64)),*]
    };
}

/// Calls that are counted by name: those that change who one is, what one sees, or the
/// machine itself.
#[rustfmt::skip]
const SENSITIVE: &[Sensitive] = sensitive! {
    "setuid" 105 213 146;            "setgid" 106 214 144;           "setreuid" 113 203 145;
    "setregid" 114 204 143;          "setresuid" 117 208 147;        "setresgid" 119 210 149;
    "setgroups" 116 206 159;         "setfsuid" 122 215 151;         "setfsgid" 123 216 152;
    "capset" 126 185 91;             "ptrace" 101 26 117;            "process_vm_readv" 310 347 270;
    "process_vm_writev" 311 348 271; "kcmp" 312 349 272;             "pidfd_getfd" 438 438 438;
    "mount" 165 21 40;               "umount2" 166 52 39;            "pivot_root" 155 217 41;
    "chroot" 161 61 51;              "unshare" 272 310 97;           "setns" 308 346 268;
    "open_tree" 428 428 428;         "move_mount" 429 429 429;       "fsopen" 430 430 430;
    "fsmount" 432 432 432;           "mount_setattr" 442 442 442;    "bpf" 321 357 280;
    "perf_event_open" 298 336 241;   "init_module" 175 128 105;      "finit_module" 313 350 273;
    "delete_module" 176 129 106;     "kexec_load" 246 283 104;       "kexec_file_load" 320 NONE 294;
    "keyctl" 250 288 219;            "add_key" 248 286 217;          "request_key" 249 287 218;
    "reboot" 169 88 142;             "swapon" 167 87 224;            "swapoff" 168 115 225;
    "iopl" 172 110 NONE;             "ioperm" 173 101 NONE;          "modify_ldt" 154 123 NONE;
    "syslog" 103 103 116;            "acct" 163 51 89;               "quotactl" 179 131 60;
    "sethostname" 170 74 161;        "setdomainname" 171 121 162;    "settimeofday" 164 79 170;
    "clock_settime" 227 264 112;     "adjtimex" 159 124 171;         "clock_adjtime" 305 343 266;
    "userfaultfd" 323 374 282;       "memfd_create" 319 356 279;     "memfd_secret" 447 447 447;
    "personality" 135 136 92;        "io_uring_setup" 425 425 425;   "seccomp" 317 354 277;
    "fanotify_init" 300 338 262;     "process_madvise" 440 440 440;  "vhangup" 153 111 58;
};

/// 32-bit x86 numbers of the 16-bit uid calls, which count as the calls they became.
#[rustfmt::skip]
const SENSITIVE_OLD_I386: &[(&str, i16)] = &[
    ("setuid", 23), ("setgid", 46), ("setreuid", 70), ("setregid", 71), ("setresuid", 164),
    ("setresgid", 170), ("setgroups", 81), ("setfsuid", 138), ("setfsgid", 139), ("umount2", 22),
];

/// Native calls during which the kernel asks for CAP_SYS_ADMIN without meaning it: to
/// account memory (`cap_vm_enough_memory` in `security/commoncap.c`).
#[rustfmt::skip]
const MEMORY_PROBES: &[(&str, i16, i16)] = &[
    ("mmap", 9, 222), ("mprotect", 10, 226), ("munmap", 11, 215), ("brk", 12, 214),
    ("mremap", 25, 216), ("madvise", 28, 233), ("shmget", 29, 194), ("shmat", 30, 196),
    ("clone", 56, 220), ("clone3", 435, 435), ("fork", 57, NONE), ("vfork", 58, NONE),
    ("execve", 59, 221), ("execveat", 322, 281), ("remap_file_pages", 216, 234),
    // Writing to tmpfs accounts memory too.
    ("write", 1, 64), ("pwrite64", 18, 68), ("writev", 20, 66), ("pwritev", 296, 70),
    ("sendfile", 40, 71), ("fallocate", 285, 47), ("ftruncate", 77, 46), ("splice", 275, 76),
    ("copy_file_range", 326, 285), ("io_uring_enter", 426, 426), ("read", 0, 63),
];

/// Entries of the kernel half's tables: `SYSCALLS_MAX` of `bpf/abi.h`.
const CALLS_MAX: usize = 512;

/// The tables the kernel half reads.
pub(crate) struct Tables {
    pub(crate) native: [call_rule; CALLS_MAX],
    /// 32-bit programs.
    pub(crate) compat: [call_rule; CALLS_MAX],
    pub(crate) probes_memory: [u8; CALLS_MAX],
}

const NATIVE_IS_X86_64: bool = cfg!(target_arch = "x86_64");

impl Call {
    /// Whether the call's own function has nothing to add to what is seen below it.
    fn is_seen_below(&self, seen: SeenBelow) -> bool {
        let op = self.rule.op;
        (seen.opens && op == Op::Open as u8 && self.rule.style != Style::None as u8)
            || (seen.names && op == Op::FdAttr as u8)
            || (seen.accepts && op == Op::Accept as u8)
    }

    /// Its rule, where that much is seen below it.
    fn rule_above(&self, seen: SeenBelow) -> call_rule {
        let by_name = [Op::Path as u8, Op::TwoPaths as u8].contains(&self.rule.op);
        let refusals_only = seen.names && by_name && !self.name.starts_with("mknod");
        call_rule {
            refusals_only: refusals_only.into(),
            ..self.rule
        }
    }
}

/// The kernel's functions behind the calls, for those `exists` knows: native ones, and for
/// 32-bit programs all variants that a number may stand for.
pub(crate) fn targets(seen: SeenBelow, exists: impl Fn(&str) -> bool) -> Vec<String> {
    // Of read() only sockets matter, which have a function of their own.
    let behind = |call: &&Call| !call.is_seen_below(seen) && call.rule.op != Op::Read as u8;
    let calls = CALLS.iter().filter(behind);
    let names: BTreeSet<_> = calls
        .map(|call| call.name)
        .chain(SENSITIVE.iter().map(|call| call.0))
        .map(|name| if name == "umount2" { "umount" } else { name })
        .collect();
    let mut targets = BTreeSet::new();
    for name in names {
        if !NATIVE_IS_X86_64 {
            targets.insert(format!("__arm64_sys_{name}"));
            continue;
        }
        targets.insert(format!("__x64_sys_{name}"));
        let compat = format!("__ia32_compat_sys_{name}");
        targets.insert(if exists(&compat) {
            compat
        } else {
            format!("__ia32_sys_{name}")
        });
        for variant in [
            "sys_NAME16",
            "sys_NAME32",
            "sys_NAME_time32",
            "sys_oldNAME",
            "sys_ia32_NAME64",
            "compat_sys_NAME_time32",
            "compat_sys_NAME_time64",
        ] {
            targets.insert(format!("__ia32_{}", variant.replace("NAME", name)));
        }
    }
    targets.retain(|target| exists(target));
    targets.into_iter().collect()
}

/// Builds the tables for this architecture. What is seen below the system calls has its rule
/// as well: a call that a seccomp filter answers never gets there.
pub(crate) fn tables(seen: SeenBelow) -> Tables {
    let mut tables = Tables {
        native: [call_rule::default(); CALLS_MAX],
        compat: [call_rule::default(); CALLS_MAX],
        probes_memory: [0; CALLS_MAX],
    };
    let native = |x86_64, aarch64| if NATIVE_IS_X86_64 { x86_64 } else { aarch64 };
    let compat = |i386| if NATIVE_IS_X86_64 { i386 } else { NONE };
    for call in CALLS {
        let rule = call.rule_above(seen);
        set(&mut tables.native, native(call.x86_64, call.aarch64), rule);
        set(&mut tables.compat, compat(call.i386), rule);
    }
    for (index, &(name, x86_64, i386, aarch64)) in SENSITIVE.iter().enumerate() {
        let counted = rule(Op::Sensitive, Style::None, Access::from_bits(index as u16));
        set(&mut tables.native, native(x86_64, aarch64), counted);
        set(&mut tables.compat, compat(i386), counted);
        for &(_, old) in SENSITIVE_OLD_I386
            .iter()
            .filter(|(old_name, _)| *old_name == name)
        {
            set(&mut tables.compat, compat(old), counted);
        }
    }
    for &(_, x86_64, aarch64) in MEMORY_PROBES {
        set(&mut tables.probes_memory, native(x86_64, aarch64), 1);
    }
    tables
}

fn set<T>(table: &mut [T], number: i16, value: T) {
    if let Some(entry) = usize::try_from(number).ok().and_then(|n| table.get_mut(n)) {
        *entry = value;
    }
}

/// The name behind the index that the kernel half counts a sensitive call by.
pub(crate) fn sensitive_name(index: u64) -> &'static str {
    usize::try_from(index)
        .ok()
        .and_then(|i| SENSITIVE.get(i))
        .map_or("unknown", |call| call.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_given_twice() {
        let numbers = |of_call: fn(&Call) -> i16, of_sensitive: fn(&Sensitive) -> i16| {
            let sensitive = SENSITIVE.iter().map(of_sensitive);
            CALLS
                .iter()
                .map(of_call)
                .chain(sensitive)
                .collect::<Vec<_>>()
        };
        for column in [
            numbers(|call| call.x86_64, |call| call.1),
            numbers(|call| call.i386, |call| call.2),
            numbers(|call| call.aarch64, |call| call.3),
        ] {
            let mut seen = std::collections::HashSet::new();
            for number in column.into_iter().filter(|&number| number != NONE) {
                assert!(seen.insert(number), "number {number} twice");
                assert!((number as usize) < CALLS_MAX);
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn numbers_are_those_of_the_c_library() {
        let number = |name: &str| {
            let call = CALLS.iter().find(|c| c.name == name).map(|c| c.x86_64);
            let sensitive = SENSITIVE.iter().find(|c| c.0 == name).map(|c| c.1);
            i64::from(call.or(sensitive).expect(name))
        };
        macro_rules! check {
            ($($name:ident => $constant:ident),* $(,)?) => {
                $(assert_eq!(number(stringify!($name)), libc::$constant, stringify!($name));)*
            };
        }
        check!(open => SYS_open, openat => SYS_openat, openat2 => SYS_openat2, creat => SYS_creat,
            open_by_handle_at => SYS_open_by_handle_at, unlink => SYS_unlink, unlinkat => SYS_unlinkat,
            rmdir => SYS_rmdir, mkdir => SYS_mkdir, mkdirat => SYS_mkdirat, mknod => SYS_mknod,
            mknodat => SYS_mknodat, symlink => SYS_symlink, symlinkat => SYS_symlinkat,
            truncate => SYS_truncate, chmod => SYS_chmod, fchmodat => SYS_fchmodat,
            fchmodat2 => SYS_fchmodat2, chown => SYS_chown, lchown => SYS_lchown,
            fchownat => SYS_fchownat, fchmod => SYS_fchmod, fchown => SYS_fchown,
            rename => SYS_rename, renameat => SYS_renameat, renameat2 => SYS_renameat2,
            link => SYS_link, linkat => SYS_linkat, execve => SYS_execve, execveat => SYS_execveat,
            connect => SYS_connect, accept => SYS_accept, accept4 => SYS_accept4, bind => SYS_bind,
            listen => SYS_listen, sendto => SYS_sendto, recvfrom => SYS_recvfrom,
            sendmsg => SYS_sendmsg, recvmsg => SYS_recvmsg, sendmmsg => SYS_sendmmsg,
            recvmmsg => SYS_recvmmsg, read => SYS_read, setuid => SYS_setuid, setgid => SYS_setgid,
            setresuid => SYS_setresuid, capset => SYS_capset, ptrace => SYS_ptrace,
            mount => SYS_mount, umount2 => SYS_umount2, pivot_root => SYS_pivot_root,
            chroot => SYS_chroot, unshare => SYS_unshare, setns => SYS_setns, bpf => SYS_bpf,
            perf_event_open => SYS_perf_event_open, init_module => SYS_init_module,
            finit_module => SYS_finit_module, delete_module => SYS_delete_module,
            kexec_load => SYS_kexec_load, kexec_file_load => SYS_kexec_file_load,
            keyctl => SYS_keyctl, add_key => SYS_add_key, request_key => SYS_request_key,
            reboot => SYS_reboot, swapon => SYS_swapon, swapoff => SYS_swapoff, iopl => SYS_iopl,
            ioperm => SYS_ioperm, modify_ldt => SYS_modify_ldt, syslog => SYS_syslog,
            acct => SYS_acct, quotactl => SYS_quotactl, sethostname => SYS_sethostname,
            setdomainname => SYS_setdomainname, settimeofday => SYS_settimeofday,
            clock_settime => SYS_clock_settime, adjtimex => SYS_adjtimex,
            clock_adjtime => SYS_clock_adjtime, userfaultfd => SYS_userfaultfd,
            memfd_create => SYS_memfd_create, personality => SYS_personality,
            io_uring_setup => SYS_io_uring_setup, seccomp => SYS_seccomp,
            fanotify_init => SYS_fanotify_init, process_vm_readv => SYS_process_vm_readv,
            process_vm_writev => SYS_process_vm_writev, vhangup => SYS_vhangup, kcmp => SYS_kcmp,
            pidfd_getfd => SYS_pidfd_getfd, process_madvise => SYS_process_madvise,
            memfd_secret => SYS_memfd_secret, mount_setattr => SYS_mount_setattr,
            fsopen => SYS_fsopen, fsmount => SYS_fsmount, move_mount => SYS_move_mount,
            open_tree => SYS_open_tree, setgroups => SYS_setgroups, setfsuid => SYS_setfsuid,
            setfsgid => SYS_setfsgid, setreuid => SYS_setreuid, setregid => SYS_setregid,
            setresgid => SYS_setresgid);
    }
}
