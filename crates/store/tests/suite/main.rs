//! Every store against one suite, and the SQLite store against crashes, full disks and
//! damaged files.

mod conformance;
mod sqlite;
mod support;
