//! What a workload really did, row by row, and how to hold a summary against it.
//!
//! The `actor` program performs a seeded mix of operations and writes its truth; the
//! `truth-compare` program reads it beside `ethogram summary -o json --fold none` and
//! reports every difference.
//!
//! # Which rows are compared
//!
//! A program cannot know all that its loader, libc and language runtime do, so the actor
//! arranges that what it *does* know can be told apart by name. Below one directory
//! (`dir`) it keeps `bin`, with executables of its own that nobody else runs, and `data`,
//! with files that nothing but the mix touches. [`Scope::covers`] is the rule:
//!
//! | kind | compared when |
//! | --- | --- |
//! | process | the target lies below `dir` |
//! | file | the source lies below `dir/bin` and the target below `dir/data` |
//! | ingress, egress, bind, syscall | the source lies below `dir/bin` |
//! | capability | never |
//!
//! Set-up is done by an executable outside `dir/bin`, so it is not compared. `Failed` rows
//! are compared for network kinds and system calls only.
//!
//! # What counts as one
//!
//! - **process**: one per successful exec, caller's executable → new executable, whichever
//!   thread called it and whatever symbolic links led there. A script is the target of its
//!   own exec and the source of its interpreter's; what it does then has the interpreter as
//!   its source. A refused exec (EACCES,
//!   EPERM) is `Deny` with the path asked for. The kernel's own opens of the executable,
//!   of a script and of an interpreter are no file rows.
//! - **file**: one per successful call and path, named by the resolved absolute path. Reads
//!   and writes are those the open asked for (`O_TRUNC` is a write); `create` is there only
//!   if this open made the file; `O_PATH` has no access. A rename is two rows: the old
//!   name `rename`, the new name `rename,create`; an exchange is `rename` on both. A hard
//!   link is `create` on the new name and `attr` on the old. A refused call is `Deny` with
//!   what was asked for (`O_CREAT` asks for `create`). Other failures are no rows. A
//!   unix socket's file is part of its bind row, not a file row.
//! - **egress**: one per connection that was established, refused (`Failed`, when the
//!   refusal is known) or forbidden; one per `connect` of a datagram socket, and then none
//!   for what it sends; one per message sent to an address otherwise.
//! - **ingress**: one per accepted connection; one per message that a datagram socket
//!   received from an address given by the kernel, if that socket is not connected and the
//!   program itself bound it (to a port, path or name). The target is the peer, for unix
//!   sockets the receiving socket's own path or name.
//! - **bind**: one per `bind`, port 0 where the program asked for none; one per `listen`,
//!   with access `listen`.
//! - **syscall**: one per call, by the name in the kernel's table; EPERM and EACCES are
//!   `Deny`, other errors `Failed`.
//!
//! EAGAIN, EINPROGRESS and EINTR are no outcome, so no row. The marks `as-requested`,
//! `cut`, `at-start` and `upper-layer` depend on who watches and from where; they are
//! ignored, and rows that differ in nothing else are one row.

mod compare;
mod document;
mod ledger;

pub use compare::{Comparison, Difference, Verdict};
pub use document::{Document, DocumentError};
pub(crate) use ledger::Row;
pub use ledger::{Header, Ledger, LedgerError, Scope, read_truth};
