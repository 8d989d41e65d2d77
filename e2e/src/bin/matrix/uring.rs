//! A ring of io_uring, one request at a time, by the bare system calls.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

/// `struct io_uring_params` of `linux/io_uring.h`.
#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    sq: Offsets,
    cq: Offsets,
}

/// `struct io_sqring_offsets` and `struct io_cqring_offsets`, which agree in what is used.
#[repr(C)]
#[derive(Default)]
struct Offsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    /// Completions: overflow.
    flags: u32,
    /// Completions: `cqes`.
    dropped: u32,
    /// Completions: flags.
    array: u32,
    reserved: u32,
    user_addr: u64,
}

/// `struct io_uring_sqe`.
#[repr(C)]
#[derive(Default)]
struct Request {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    /// Also `addr2`.
    offset: u64,
    address: u64,
    length: u32,
    call_flags: u32,
    user_data: u64,
    rest: [u64; 3],
}

/// `struct io_uring_cqe`.
#[repr(C)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

/// `struct open_how` of `linux/openat2.h`.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

const ENTRIES: u32 = 4;
const OFFSET_SQ_RING: i64 = 0;
const OFFSET_CQ_RING: i64 = 0x0800_0000;
const OFFSET_REQUESTS: i64 = 0x1000_0000;
const ENTER_GETEVENTS: u32 = 1;

/// `enum io_uring_op`.
mod op {
    pub(super) const SENDMSG: u8 = 9;
    pub(super) const RECVMSG: u8 = 10;
    pub(super) const ACCEPT: u8 = 13;
    pub(super) const CONNECT: u8 = 16;
    pub(super) const OPENAT: u8 = 18;
    pub(super) const OPENAT2: u8 = 28;
    pub(super) const RENAMEAT: u8 = 35;
    pub(super) const UNLINKAT: u8 = 36;
}

/// Let a worker thread of the kernel do it, instead of trying at once.
const ALWAYS_ASYNC: u8 = 1 << 4;

/// Where a ring's parts are mapped; they stay so until the process ends.
pub(crate) struct Ring {
    fd: OwnedFd,
    params: Params,
    sq: *mut u8,
    cq: *mut u8,
    requests: *mut Request,
    by_worker: bool,
}

impl Ring {
    pub(crate) fn new() -> io::Result<Self> {
        let mut params = Params::default();
        // SAFETY: the kernel fills in the structure, which is laid out as it expects.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, &raw mut params) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has just opened this descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).expect("it is a descriptor")) };
        let sq_bytes = params.sq.array as usize + params.sq_entries as usize * size_of::<u32>();
        let cq_bytes =
            params.cq.dropped as usize + params.cq_entries as usize * size_of::<Completion>();
        let requests_bytes = params.sq_entries as usize * size_of::<Request>();
        Ok(Self {
            sq: map(&fd, sq_bytes, OFFSET_SQ_RING)?,
            cq: map(&fd, cq_bytes, OFFSET_CQ_RING)?,
            requests: map(&fd, requests_bytes, OFFSET_REQUESTS)?.cast(),
            fd,
            params,
            by_worker: false,
        })
    }

    /// Has requests done by a worker thread of the kernel.
    pub(crate) fn with_workers(self) -> Self {
        Self {
            by_worker: true,
            ..self
        }
    }

    fn word(&self, ring: *mut u8, offset: u32) -> &AtomicU32 {
        // SAFETY: the offset is one that the kernel gave for this mapping, which stays, and
        // what stands there is a 32-bit word that both sides access atomically.
        unsafe { &*ring.add(offset as usize).cast::<AtomicU32>() }
    }

    /// Submits one request and waits for its result.
    fn submit(&mut self, mut request: Request) -> io::Result<i32> {
        if self.by_worker {
            request.flags |= ALWAYS_ASYNC;
        }
        let tail = self
            .word(self.sq, self.params.sq.tail)
            .load(Ordering::Acquire);
        let index = tail
            & self
                .word(self.sq, self.params.sq.ring_mask)
                .load(Ordering::Relaxed);
        // SAFETY: the index is masked to the entries of the mapping, and nothing is under way.
        unsafe { self.requests.add(index as usize).write(request) };
        self.word(self.sq, self.params.sq.array + index * 4)
            .store(index, Ordering::Relaxed);
        self.word(self.sq, self.params.sq.tail)
            .store(tail.wrapping_add(1), Ordering::Release);
        // SAFETY: only numbers are passed; what the request points to outlives this call,
        // because it returns when the request is done.
        let entered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd.as_raw_fd(),
                1,
                1,
                ENTER_GETEVENTS,
                0,
                0,
            )
        };
        if entered < 0 {
            return Err(io::Error::last_os_error());
        }
        let head = self
            .word(self.cq, self.params.cq.head)
            .load(Ordering::Acquire);
        let index = head
            & self
                .word(self.cq, self.params.cq.ring_mask)
                .load(Ordering::Relaxed);
        // SAFETY: there is a completion, for it was waited for, and the index is masked.
        let result = unsafe {
            let completions = self
                .cq
                .add(self.params.cq.dropped as usize)
                .cast::<Completion>();
            (*completions.add(index as usize)).result
        };
        self.word(self.cq, self.params.cq.head)
            .store(head.wrapping_add(1), Ordering::Release);
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        Ok(result)
    }

    fn opened(&mut self, request: Request) -> io::Result<OwnedFd> {
        let fd = self.submit(request)?;
        // SAFETY: the request has just opened this descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    pub(crate) fn openat(&mut self, path: &CStr, flags: i32) -> io::Result<OwnedFd> {
        self.opened(Request {
            opcode: op::OPENAT,
            fd: libc::AT_FDCWD,
            address: path.as_ptr() as u64,
            call_flags: flags.cast_unsigned(),
            ..Default::default()
        })
    }

    pub(crate) fn openat2(&mut self, path: &CStr, flags: i32) -> io::Result<OwnedFd> {
        let how = OpenHow {
            flags: u64::from(flags.cast_unsigned()),
            mode: 0,
            resolve: 0,
        };
        self.opened(Request {
            opcode: op::OPENAT2,
            fd: libc::AT_FDCWD,
            address: path.as_ptr() as u64,
            offset: &raw const how as u64,
            length: u32::try_from(size_of::<OpenHow>()).expect("it is small"),
            ..Default::default()
        })
    }

    pub(crate) fn unlinkat(&mut self, path: &CStr) -> io::Result<()> {
        self.submit(Request {
            opcode: op::UNLINKAT,
            fd: libc::AT_FDCWD,
            address: path.as_ptr() as u64,
            ..Default::default()
        })
        .map(drop)
    }

    pub(crate) fn renameat(&mut self, old: &CStr, new: &CStr) -> io::Result<()> {
        self.submit(Request {
            opcode: op::RENAMEAT,
            fd: libc::AT_FDCWD,
            address: old.as_ptr() as u64,
            offset: new.as_ptr() as u64,
            length: libc::AT_FDCWD.cast_unsigned(),
            ..Default::default()
        })
        .map(drop)
    }

    /// `bytes`: of the address.
    pub(crate) fn connect(
        &mut self,
        socket: RawFd,
        address: *const libc::sockaddr,
        bytes: u32,
    ) -> io::Result<()> {
        self.submit(Request {
            opcode: op::CONNECT,
            fd: socket,
            address: address as u64,
            offset: bytes.into(),
            ..Default::default()
        })
        .map(drop)
    }

    pub(crate) fn accept(&mut self, socket: RawFd) -> io::Result<OwnedFd> {
        self.opened(Request {
            opcode: op::ACCEPT,
            fd: socket,
            ..Default::default()
        })
    }

    pub(crate) fn sendmsg(&mut self, socket: RawFd, message: &libc::msghdr) -> io::Result<i32> {
        self.submit(Request {
            opcode: op::SENDMSG,
            fd: socket,
            address: ptr::from_ref(message) as u64,
            length: 1,
            ..Default::default()
        })
    }

    pub(crate) fn recvmsg(&mut self, socket: RawFd, message: &mut libc::msghdr) -> io::Result<i32> {
        self.submit(Request {
            opcode: op::RECVMSG,
            fd: socket,
            address: ptr::from_mut(message) as u64,
            length: 1,
            ..Default::default()
        })
    }
}

fn map(fd: &OwnedFd, bytes: usize, offset: i64) -> io::Result<*mut u8> {
    // SAFETY: a new shared mapping of the ring at an address of the kernel's choice.
    let mapped = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            fd.as_raw_fd(),
            offset,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(mapped.cast())
}
