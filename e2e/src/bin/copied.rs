//! Makes and removes a directory, again and again, while another thread of it forks and writes
//! to the page that holds the directory's name. The kernel copies that page each time, and for
//! a moment no page table leads to it: a watcher that reads the name then must not give up.
//!
//! usage: copied DIRECTORY TIMES

use anyhow::{Context, Result, ensure};
use std::{
    env,
    ffi::CString,
    io,
    os::unix::ffi::OsStrExt,
    sync::atomic::{AtomicBool, AtomicU8, Ordering},
    thread,
};

/// As much as one page holds, aligned to it: the name comes first, the rest is written to.
#[repr(align(4096))]
struct Page([AtomicU8; 4096]);

static PAGE: Page = Page([const { AtomicU8::new(0) }; 4096]);
static DONE: AtomicBool = AtomicBool::new(false);

fn main() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    let directory = arguments.next().context("usage: copied DIRECTORY TIMES")?;
    let times: u64 = arguments
        .next()
        .and_then(|times| times.to_str()?.parse().ok())
        .context("usage: copied DIRECTORY TIMES")?;
    let name = CString::new(directory.as_bytes())?;
    ensure!(
        name.count_bytes() < 2048,
        "the name leaves no room beside it"
    );
    for (cell, byte) in PAGE.0.iter().zip(name.as_bytes_with_nul()) {
        cell.store(*byte, Ordering::Relaxed);
    }
    let forking = thread::spawn(fork_and_write);
    let outcome = (0..times).try_for_each(|_| make_and_remove());
    DONE.store(true, Ordering::Relaxed);
    forking.join().expect("the forking thread does not panic")?;
    outcome
}

fn make_and_remove() -> Result<()> {
    let name = PAGE.0.as_ptr().cast();
    // SAFETY: the page lives as long as the program and holds a name that ends with NUL,
    // which nobody writes to any more.
    let (made, removed) = unsafe { (libc::mkdir(name, 0o755), libc::rmdir(name)) };
    ensure!(made == 0 && removed == 0, "{}", io::Error::last_os_error());
    Ok(())
}

/// After each fork the page is shared, and the first write copies it.
fn fork_and_write() -> Result<()> {
    while !DONE.load(Ordering::Relaxed) {
        // SAFETY: the child does nothing but end.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: always is.
            unsafe { libc::_exit(0) };
        }
        ensure!(child > 0, "fork: {}", io::Error::last_os_error());
        PAGE.0[4095].fetch_add(1, Ordering::Relaxed);
        // SAFETY: no status is asked for.
        let ended = unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        ensure!(ended == child, "waitpid: {}", io::Error::last_os_error());
    }
    Ok(())
}
