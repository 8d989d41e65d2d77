//! The current engine, as `chdb` packs it for Python, behind a small HTTP server: the same
//! client, the same statements, the same suite.
//!
//! Needs `pip install chdb lz4`; `CHDB_PYTHON` names the interpreter that has them.

use crate::{
    lab::{Databases, Guarded, chdb_directory, free_port, wait_for_server},
    support::*,
};
use std::{env, process::Command, sync::OnceLock};

conformance!(conformance: crate::current::fresh);

struct Current {
    _process: Guarded,
    databases: Databases,
}

fn current() -> &'static Current {
    static CURRENT: OnceLock<Current> = OnceLock::new();
    CURRENT.get_or_init(|| {
        let python = env::var_os("CHDB_PYTHON").unwrap_or_else(|| "python3".into());
        let directory = chdb_directory();
        let port = free_port();
        let mut command = Command::new(python);
        command
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/suite/chdb_server.py"
            ))
            .arg(port.to_string())
            .arg(directory.join("data"));
        let log = directory.join("output");
        let process = Guarded::start(&mut command, &log);
        wait_for_server(
            "chdb (pip install chdb lz4; CHDB_PYTHON names the interpreter)",
            port,
            &log,
        );
        Current {
            _process: process,
            databases: Databases::new(port, vec![port], "", ""),
        }
    })
}

fn fresh() -> Fresh {
    current().databases.fresh()
}
