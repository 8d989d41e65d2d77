//! The system calls, each by the very number that is meant.

use anyhow::{Context, Result};
use std::{
    ffi::{CStr, CString},
    fs, io,
    io::Write,
    net::{Ipv4Addr, UdpSocket},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        raw::{c_char, c_int, c_long},
        unix::fs::PermissionsExt,
    },
    path::Path,
    ptr,
};

use crate::places::c_path;

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn descriptor(result: c_long) -> io::Result<OwnedFd> {
    let fd = c_int::try_from(check(result)?).expect("it is a descriptor");
    // SAFETY: the callers pass the result of a call that has just opened this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

// ---- files ----

pub(crate) fn open(path: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    // SAFETY: the path is a C string, which the kernel only reads; so in all that follow.
    descriptor(unsafe { libc::syscall(libc::SYS_open, path.as_ptr(), flags, 0) })
}

pub(crate) fn openat(path: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    // SAFETY: as above.
    descriptor(unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) })
}

pub(crate) fn openat2(path: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    /// Flags, mode, resolve: `struct open_how`.
    type OpenHow = [u64; 3];
    let how: OpenHow = [u64::from(flags.cast_unsigned()), 0, 0];
    // SAFETY: as above, and the structure is as long as is said.
    descriptor(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            libc::AT_FDCWD,
            path.as_ptr(),
            how.as_ptr(),
            size_of::<OpenHow>(),
        )
    })
}

pub(crate) fn creat(path: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: as above.
    descriptor(unsafe { libc::syscall(libc::SYS_creat, path.as_ptr(), 0o600) })
}

/// Opens a file in the working directory by its handle.
pub(crate) fn open_by_handle(path: &CStr) -> io::Result<OwnedFd> {
    const HANDLE_BYTES_MAX: u32 = 128;
    /// `struct file_handle`.
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        data: [u8; HANDLE_BYTES_MAX as usize],
    }
    let mut handle = Handle {
        bytes: HANDLE_BYTES_MAX,
        kind: 0,
        data: [0; HANDLE_BYTES_MAX as usize],
    };
    let mut mount: c_int = 0;
    // SAFETY: as above; the handle has the room that it says.
    check(unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            0,
        )
    })?;
    // SAFETY: the handle is the one just filled in.
    descriptor(unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            libc::AT_FDCWD,
            &raw const handle,
            libc::O_RDONLY,
        )
    })
}

/// Maps the beginning of a file for execution.
pub(crate) fn map_as_code(file: &OwnedFd) -> io::Result<()> {
    const BYTES: usize = 4096;
    // SAFETY: a new private mapping at an address of the kernel's choice, which nobody uses.
    let mapped = unsafe {
        libc::mmap(
            ptr::null_mut(),
            BYTES,
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_PRIVATE,
            file.as_raw_fd(),
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A library that every Rust program has loaded already, so that a copy of it needs no other.
pub(crate) fn a_library() -> Result<Vec<u8>> {
    const LIBRARY: &str = "libgcc_s.so.1";
    let maps = fs::read_to_string("/proc/self/maps")?;
    let path = maps
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().last())
        .find(|path| path.ends_with(LIBRARY))
        .with_context(|| format!("{LIBRARY} is not loaded"))?;
    Ok(fs::read(path)?)
}

pub(crate) fn dlopen(path: &CStr) -> Result<()> {
    // SAFETY: the library is a copy of one that is loaded, whose initialization does no harm.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    anyhow::ensure!(
        !handle.is_null(),
        "{} cannot be loaded",
        path.to_string_lossy()
    );
    Ok(())
}

pub(crate) fn memfd(name: &CStr, content: &[u8]) -> io::Result<fs::File> {
    // SAFETY: as above.
    let fd = descriptor(unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), 0) })?;
    let mut file = fs::File::from(fd);
    file.write_all(content)?;
    Ok(file)
}

/// Takes all rights to a file from everybody but root.
pub(crate) fn forbid(path: &Path) -> Result<()> {
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o000),
    )?)
}

/// Acts on files as this user, without root's rights to all of them.
pub(crate) fn set_fs_user(user: u32) {
    // SAFETY: only a number is passed. The call returns the user before it.
    unsafe { libc::syscall(libc::SYS_setfsuid, user) };
}

/// From now on this call is answered with EPERM.
pub(crate) fn refuse_by_seccomp(number: c_long) -> io::Result<()> {
    let number = u32::try_from(number).expect("numbers of calls are small");
    let instruction = |code: u32, k: u32, jf: u8| libc::sock_filter {
        code: u16::try_from(code).expect("codes have 16 bits"),
        jt: 0,
        jf,
        k,
    };
    // The call's number stands first in `struct seccomp_data`.
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 1),
        instruction(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned(),
            0,
        ),
        instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the filter outlives the call, and has as many instructions as is said.
    check(unsafe {
        c_long::from(libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        ))
    })
    .map(drop)
}

/// Copies bytes to where 32-bit calls reach; they stay there.
pub(crate) fn low_memory(bytes: &[u8]) -> io::Result<u32> {
    // SAFETY: a new private mapping below 4 GiB that is large enough for what is copied.
    unsafe {
        let mapped = libc::mmap(
            ptr::null_mut(),
            bytes.len(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
            -1,
            0,
        );
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        ptr::copy_nonoverlapping(bytes.as_ptr(), mapped.cast(), bytes.len());
        Ok(u32::try_from(mapped as usize).expect("it was asked for below 4 GiB"))
    }
}

// ---- namespaces and mounts ----

/// Mounts and network of its own, with the loopback interface up.
pub(crate) fn own_namespaces() -> Result<()> {
    unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET)?;
    private_mounts()?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: zeroes are a valid request, whose name is then filled in with a NUL behind it;
    // the kernel reads it only.
    let outcome = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP)?;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    };
    check(outcome.into()).context("cannot bring up lo")?;
    Ok(())
}

pub(crate) fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: only a number is passed.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64, data: &CStr) -> io::Result<()> {
    // SAFETY: all are C strings, which the kernel only reads.
    let outcome = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    };
    check(outcome.into()).map(drop)
}

/// Keeps mounts made here to this namespace.
pub(crate) fn private_mounts() -> io::Result<()> {
    mount(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, c"")
}

pub(crate) fn bind_mount(from: &Path, to: &Path) -> io::Result<()> {
    mount(&c_path(from), &c_path(to), c"", libc::MS_BIND, c"")
}

pub(crate) fn mount_tmpfs(on: &Path) -> io::Result<()> {
    mount(c"none", &c_path(on), c"tmpfs", 0, c"")
}

pub(crate) fn unmount(path: &CStr) -> io::Result<()> {
    // SAFETY: the path is a C string, which the kernel only reads.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }.into()).map(drop)
}

/// Lets two paths change places.
pub(crate) fn exchange(one: &CStr, other: &CStr) -> io::Result<()> {
    // SAFETY: both are C strings, which the kernel only reads.
    let outcome = unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    check(outcome.into()).map(drop)
}

/// Mounts the folder's layers on its `merged`.
pub(crate) fn overlay(folder: &Path) -> io::Result<()> {
    let at = |name: &str| folder.join(name).display().to_string();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        at("lower"),
        at("upper"),
        at("work")
    );
    let options = CString::new(options)?;
    mount(
        c"none",
        &c_path(&folder.join("merged")),
        c"overlay",
        0,
        &options,
    )
}

/// Makes the working directory, which is a mount, the root, and takes the old one away.
pub(crate) fn pivot_here() -> io::Result<()> {
    // SAFETY: both are C strings, which the kernel only reads.
    unsafe {
        check(libc::syscall(
            libc::SYS_pivot_root,
            c".".as_ptr(),
            c".".as_ptr(),
        ))?;
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into()).map(drop)
    }
}

// ---- programs ----

/// Pointers to the arguments, ending with none.
fn pointers(arguments: &[&CStr]) -> Vec<*const c_char> {
    let mut pointers: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(ptr::null());
    pointers
}

/// Becomes another program; returns if it cannot.
pub(crate) fn execve(path: &CStr, arguments: &[&CStr]) {
    let (arguments, environment) = (pointers(arguments), pointers(&[]));
    // SAFETY: all are C strings, and both lists end with a null pointer.
    unsafe {
        libc::syscall(
            libc::SYS_execve,
            path.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    };
}

/// Likewise, by a path from an open folder.
pub(crate) fn execveat(folder: RawFd, path: &CStr, arguments: &[&CStr], flags: c_int) {
    let (arguments, environment) = (pointers(arguments), pointers(&[]));
    // SAFETY: as above.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            folder,
            path.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            flags,
        )
    };
}

/// Does something in a child, which should become another program, and returns its status.
pub(crate) fn fork_and_wait(child: impl FnOnce()) -> io::Result<c_int> {
    const DID_NOT_EXEC: c_int = 127;
    // SAFETY: the process has one thread, so the child may do what its parent may.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        child();
        // SAFETY: ends the child without running what its parent registered.
        unsafe { libc::_exit(DID_NOT_EXEC) };
    }
    check(pid.into())?;
    let mut status = 0;
    // SAFETY: the status is written to a local.
    check(unsafe { libc::waitpid(pid, &raw mut status, 0) }.into())?;
    Ok(status)
}

const FORMATS: &str = "/proc/sys/fs/binfmt_misc";
const FORMAT: &str = "matrix";

/// Tells the kernel what to run files with, that begin like this.
pub(crate) fn register_format(magic: &str, interpreter: &Path) -> Result<()> {
    let register = Path::new(FORMATS).join("register");
    if !register.exists() {
        mount(c"none", &c_path(Path::new(FORMATS)), c"binfmt_misc", 0, c"")
            .context("cannot mount binfmt_misc")?;
    }
    let line = format!(":{FORMAT}:M::{magic}::{}:", interpreter.display());
    fs::write(register, line).context("cannot register a format")
}

/// Takes that back.
pub(crate) fn unregister_format() -> Result<()> {
    fs::write(Path::new(FORMATS).join(FORMAT), "-1").context("cannot take the format back")
}
