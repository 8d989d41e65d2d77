//! The system calls, each by the very number that is meant.
//!
//! A library may turn `open` into `openat`, or call setuid in every thread; the truth needs
//! to know which call is made, by whom. All unsafe code of the actor is here.

use std::{
    ffi::CStr,
    io,
    net::SocketAddrV4,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        raw::{c_char, c_int, c_long},
    },
    ptr,
};

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_long(result: c_long) -> io::Result<c_int> {
    check(c_int::try_from(result).unwrap_or(c_int::MAX))
}

fn descriptor(result: io::Result<c_int>) -> io::Result<OwnedFd> {
    // SAFETY: the callers pass the result of a call that has just opened this descriptor.
    result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Defines a function for a call that takes numbers and C strings and returns a number.
macro_rules! calls {
    ($($name:ident($($arg:ident: $type:ty),*) = $call:expr;)*) => {$(
        pub(crate) fn $name($($arg: $type),*) -> io::Result<()> {
            // SAFETY: the only pointers are of C strings that outlive the call, and the
            // kernel only reads them.
            check(unsafe { $call }).map(drop)
        }
    )*};
}

calls! {
    unlink(path: &CStr) = libc::unlink(path.as_ptr());
    unlinkat(dir: RawFd, path: &CStr, flags: c_int) = libc::unlinkat(dir, path.as_ptr(), flags);
    rmdir(path: &CStr) = libc::rmdir(path.as_ptr());
    rename(old: &CStr, new: &CStr) = libc::rename(old.as_ptr(), new.as_ptr());
    renameat(old_dir: RawFd, old: &CStr, new_dir: RawFd, new: &CStr)
        = libc::renameat(old_dir, old.as_ptr(), new_dir, new.as_ptr());
    renameat2(old_dir: RawFd, old: &CStr, new_dir: RawFd, new: &CStr, flags: u32)
        = libc::renameat2(old_dir, old.as_ptr(), new_dir, new.as_ptr(), flags);
    mkdir(path: &CStr, mode: u32) = libc::mkdir(path.as_ptr(), mode);
    mkdirat(dir: RawFd, path: &CStr, mode: u32) = libc::mkdirat(dir, path.as_ptr(), mode);
    mknod(path: &CStr, mode: u32) = libc::mknod(path.as_ptr(), mode, 0);
    mknodat(dir: RawFd, path: &CStr, mode: u32) = libc::mknodat(dir, path.as_ptr(), mode, 0);
    symlink(target: &CStr, path: &CStr) = libc::symlink(target.as_ptr(), path.as_ptr());
    symlinkat(target: &CStr, dir: RawFd, path: &CStr) = libc::symlinkat(target.as_ptr(), dir, path.as_ptr());
    link(old: &CStr, new: &CStr) = libc::link(old.as_ptr(), new.as_ptr());
    linkat(old_dir: RawFd, old: &CStr, new_dir: RawFd, new: &CStr)
        = libc::linkat(old_dir, old.as_ptr(), new_dir, new.as_ptr(), 0);
    truncate(path: &CStr, length: i64) = libc::truncate(path.as_ptr(), length);
    chmod(path: &CStr, mode: u32) = libc::chmod(path.as_ptr(), mode);
    fchmod(fd: RawFd, mode: u32) = libc::fchmod(fd, mode);
    fchmodat(dir: RawFd, path: &CStr, mode: u32) = libc::fchmodat(dir, path.as_ptr(), mode, 0);
    chown(path: &CStr, uid: u32, gid: u32) = libc::chown(path.as_ptr(), uid, gid);
    lchown(path: &CStr, uid: u32, gid: u32) = libc::lchown(path.as_ptr(), uid, gid);
    fchown(fd: RawFd, uid: u32, gid: u32) = libc::fchown(fd, uid, gid);
    fchownat(dir: RawFd, path: &CStr, uid: u32, gid: u32) = libc::fchownat(dir, path.as_ptr(), uid, gid, 0);
    access(path: &CStr) = libc::access(path.as_ptr(), libc::R_OK);
    unshare(flags: c_int) = libc::unshare(flags);
    setns(fd: RawFd, kind: c_int) = libc::setns(fd, kind);
    umount2(path: &CStr) = libc::umount2(path.as_ptr(), 0);
    mount(from: &CStr, to: &CStr, flags: libc::c_ulong)
        = libc::mount(from.as_ptr(), to.as_ptr(), ptr::null(), flags, ptr::null());
}

/// Defines a function for a call that takes numbers only, past libc: libc would make the
/// credential calls in every thread of the process.
macro_rules! plain_calls {
    ($($name:ident($($arg:ident: $type:ty),*) = $number:expr, $($value:expr),*;)*) => {$(
        pub(crate) fn $name($($arg: $type),*) -> io::Result<()> {
            // SAFETY: no argument is a pointer.
            check_long(unsafe { libc::syscall($number, $($value),*) }).map(drop)
        }
    )*};
}

/// Leaves an id as it is, in the calls that take several.
pub(crate) const KEEP: u32 = u32::MAX;

plain_calls! {
    setuid(id: u32) = libc::SYS_setuid, id;
    setgid(id: u32) = libc::SYS_setgid, id;
    setreuid(real: u32, effective: u32) = libc::SYS_setreuid, real, effective;
    setregid(real: u32, effective: u32) = libc::SYS_setregid, real, effective;
    setresuid(real: u32, effective: u32, saved: u32) = libc::SYS_setresuid, real, effective, saved;
    setresgid(real: u32, effective: u32, saved: u32) = libc::SYS_setresgid, real, effective, saved;
    ptrace_attach(pid: i32) = libc::SYS_ptrace, libc::PTRACE_ATTACH, pid, 0, 0;
    ptrace_trace_me() = libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0;
    // KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING, not created if it is not there.
    keyctl_session_keyring() = libc::SYS_keyctl, 0, -3, 0;
}

/// open(2) itself where the architecture has it, else openat.
pub(crate) fn open(path: &CStr, flags: c_int, mode: u32) -> io::Result<OwnedFd> {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the path outlives the call, and the kernel only reads it.
    let result = unsafe { libc::syscall(libc::SYS_open, path.as_ptr(), flags, mode) };
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: as above.
    let result =
        unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, mode) };
    descriptor(check_long(result))
}

pub(crate) fn openat(dir: RawFd, path: &CStr, flags: c_int, mode: u32) -> io::Result<OwnedFd> {
    // SAFETY: the path outlives the call, and the kernel only reads it.
    let result = unsafe { libc::syscall(libc::SYS_openat, dir, path.as_ptr(), flags, mode) };
    descriptor(check_long(result))
}

pub(crate) fn openat2(
    dir: RawFd,
    path: &CStr,
    flags: c_int,
    mode: u32,
    resolve: u64,
) -> io::Result<OwnedFd> {
    // struct open_how is three 64-bit words: flags, mode, resolve.
    let how = [u64::from(flags.cast_unsigned()), u64::from(mode), resolve];
    // SAFETY: path and structure outlive the call, the kernel only reads them, and the
    // size is the structure's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            dir,
            path.as_ptr(),
            how.as_ptr(),
            size_of_val(&how),
        )
    };
    descriptor(check_long(result))
}

pub(crate) fn creat(path: &CStr, mode: u32) -> io::Result<OwnedFd> {
    // SAFETY: the path outlives the call, and the kernel only reads it.
    descriptor(check(unsafe { libc::creat(path.as_ptr(), mode) }))
}

/// Reads eight bytes of the process's own memory the long way.
pub(crate) fn process_vm_readv_self() -> io::Result<()> {
    let (from, mut to) = ([7u8; 8], [0u8; 8]);
    let local = libc::iovec {
        iov_base: to.as_mut_ptr().cast(),
        iov_len: to.len(),
    };
    let remote = libc::iovec {
        iov_base: from.as_ptr().cast_mut().cast(),
        iov_len: from.len(),
    };
    // SAFETY: both vectors describe arrays that live through the call; the kernel writes
    // only to the local one, which is mutable.
    let read = unsafe {
        libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
    };
    check(c_int::try_from(read).unwrap_or(c_int::MAX)).map(drop)
}

/// Opens a software event that counts nothing, for this thread.
pub(crate) fn perf_event_open_dummy() -> io::Result<()> {
    /// The first published size of struct perf_event_attr, in bytes.
    const ATTR_SIZE: u32 = 64;
    /// PERF_TYPE_SOFTWARE, in the low half of the first word; the size is in the high half.
    const SOFTWARE: u64 = 1;
    /// PERF_COUNT_SW_DUMMY.
    const DUMMY: u64 = 9;
    /// disabled, exclude_kernel, exclude_hv.
    const FLAGS: u64 = 1 | 1 << 5 | 1 << 6;
    let mut attr = [0u64; ATTR_SIZE as usize / 8];
    (attr[0], attr[1], attr[5]) = (SOFTWARE | u64::from(ATTR_SIZE) << 32, DUMMY, FLAGS);
    // SAFETY: the attribute is as large as it says and outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), 0, -1, -1, 0) };
    descriptor(check_long(result)).map(drop)
}

/// How a forked child goes on after it has opened what it was told to.
pub(crate) enum After<'a> {
    /// It ends.
    Exit,
    /// It becomes another program, by execve.
    Exec(&'a CStr),
    /// It becomes another program, by execveat with these flags.
    ExecAt(RawFd, &'a CStr, c_int),
}

/// Forks; the child opens a path for reading and goes on as told; waits for its end.
///
/// # Errors
/// The fork's, or that the child did not end with status 0.
pub(crate) fn fork(open: &CStr, after: &After<'_>, arguments: &[&CStr]) -> io::Result<()> {
    let mut argv: Vec<*const c_char> = arguments.iter().map(|a| a.as_ptr()).collect();
    argv.push(ptr::null());
    let environment = [ptr::null()];
    // SAFETY: the process has other threads, so the child only makes system calls, with
    // memory prepared before the fork, and never returns from this block.
    let pid = check(unsafe {
        let pid = libc::fork();
        if pid == 0 {
            if libc::syscall(
                libc::SYS_openat,
                libc::AT_FDCWD,
                open.as_ptr(),
                libc::O_RDONLY,
            ) < 0
            {
                libc::_exit(126);
            }
            match after {
                After::Exit => libc::_exit(0),
                After::Exec(path) => {
                    libc::execve(path.as_ptr(), argv.as_ptr(), environment.as_ptr());
                }
                After::ExecAt(dir, path, flags) => {
                    libc::syscall(
                        libc::SYS_execveat,
                        *dir,
                        path.as_ptr(),
                        argv.as_ptr(),
                        environment.as_ptr(),
                        *flags,
                    );
                }
            }
            libc::_exit(127);
        }
        pid
    })?;
    let mut status = 0;
    // SAFETY: the status is a live integer, and the child is ours to wait for.
    check(unsafe { libc::waitpid(pid, &raw mut status, 0) })?;
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "the child ended with wait status {status:#x}"
        )))
    }
}

/// Calls execve in this process and returns only the error: for a path that must be refused.
pub(crate) fn execve(path: &CStr) -> io::Error {
    let argv = [path.as_ptr(), ptr::null()];
    let environment = [ptr::null()];
    // SAFETY: both lists end with a null pointer and outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Sends `count` messages of one byte to an address with one call.
pub(crate) fn sendmmsg(socket: &impl AsRawFd, to: SocketAddrV4, count: usize) -> io::Result<()> {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(to.ip().octets()),
        },
        sin_zero: [0; 8],
    };
    many_messages(count, |messages| {
        for message in &mut *messages {
            message.msg_hdr.msg_name = (&raw const address).cast_mut().cast();
            message.msg_hdr.msg_namelen = size_of_val(&address) as libc::socklen_t;
        }
        // SAFETY: the headers point to an address and buffers that outlive the call.
        unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count as u32, 0) }
    })
}

/// Receives `count` messages, asking for each sender's address, with one call.
pub(crate) fn recvmmsg(socket: &impl AsRawFd, count: usize) -> io::Result<()> {
    // SAFETY: all bits zero is an address like any other; the kernel overwrites it.
    let mut addresses: Vec<libc::sockaddr_storage> = vec![unsafe { std::mem::zeroed() }; count];
    many_messages(count, |messages| {
        for (message, address) in messages.iter_mut().zip(&mut addresses) {
            message.msg_hdr.msg_name = (&raw mut *address).cast();
            message.msg_hdr.msg_namelen = size_of_val(address) as libc::socklen_t;
        }
        // SAFETY: the headers point to addresses and buffers that outlive the call; no
        // timeout is given.
        unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                count as u32,
                0,
                ptr::null_mut(),
            )
        }
    })
}

/// Makes headers of one-byte messages, and fails unless the call deals with all of them.
fn many_messages(count: usize, call: impl FnOnce(&mut [libc::mmsghdr]) -> c_int) -> io::Result<()> {
    let mut payload = vec![0u8; count];
    let mut buffers: Vec<libc::iovec> = payload
        .iter_mut()
        .map(|byte| libc::iovec {
            iov_base: (&raw mut *byte).cast(),
            iov_len: 1,
        })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = buffers
        .iter_mut()
        .map(|buffer| {
            // SAFETY: all bits zero is a header without address, buffers and control data.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = buffer;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let done = check(call(&mut messages))?;
    if usize::try_from(done) == Ok(count) {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "{done} of {count} messages went through"
        )))
    }
}

/// Brings the loopback interface of this network namespace up.
pub(crate) fn loopback_up(socket: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: all bits zero is a valid request; name and flags are set below.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
    // SAFETY: the request is of the type that this ioctl reads, and outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
        .map(drop)
}
