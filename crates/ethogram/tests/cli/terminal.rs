//! Pipes that close early, terminals, pagers, colours.

use crate::support::*;
use ethogram_model::Kind;
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::unix::ffi::OsStrExt,
    process::{Command, Stdio},
};

fn many_rows() -> Known {
    let row = |n| {
        seen(
            1,
            Kind::File,
            "/bin/a",
            &format!("/srv/{n:05}/a rather long name"),
            1,
        )
    };
    one((0..5_000).map(row).collect())
}

#[test]
fn a_reader_who_has_enough_is_no_error() {
    let known = many_rows();
    for options in [
        &["-o", "text"][..],
        &["-o", "json"],
        &["-o", "yaml"],
        &["-o", "csv"],
        &["-o", "html"],
    ] {
        let mut child = ethogram()
            .args(["summary", "--fold", "none", "--db"])
            .arg(known.file())
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("a first line");
        assert!(!line.is_empty());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{options:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{options:?}");
    }
}

/// Runs a command with a terminal of so many columns at its standard output.
fn on_a_terminal(columns: u16, command: &mut Command) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).expect("ours");
    unlockpt(&master).expect("unlocked");
    let size = Winsize {
        ws_row: 20,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&master, size).expect("a size");
    let name = ptsname(&master, Vec::new()).expect("a name");
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
    let terminal = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("its other end");
    let mut child = command
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(terminal)
        .spawn()
        .expect("the binary runs");
    // The command holds the last copy of the other end, so that reading ends with it.
    command.stdout(Stdio::null());
    let mut seen = Vec::new();
    let mut master = File::from(master);
    let mut part = [0; 4096];
    // A terminal whose other end is closed reads as an error (EIO).
    while let Ok(count @ 1..) = master.read(&mut part) {
        seen.extend_from_slice(&part[..count]);
    }
    assert!(child.wait().expect("it ends").success());
    String::from_utf8(seen)
        .expect("valid UTF-8")
        .replace("\r\n", "\n")
}

fn summary(known: &Known) -> Command {
    let mut command = ethogram();
    command.args(["summary", "--db"]).arg(known.file());
    command
}

#[test]
fn tables_fit_the_terminal_and_are_coloured() {
    let known = Known::world();
    let shown = on_a_terminal(100, summary(&known).args(["-n", "tools", "--no-pager"]));
    assert!(shown.contains("\x1b[32mAllow"), "{shown}");
    let plain = on_a_terminal(
        100,
        summary(&known)
            .args(["-n", "tools", "--no-pager"])
            .env("NO_COLOR", "1"),
    );
    assert!(!plain.contains('\x1b'), "{plain}");
    let narrow = on_a_terminal(
        80,
        summary(&known).args(["-p", "web-1", "--no-pager", "--color", "never"]),
    );
    assert!(
        narrow.contains("01-04 12:05") && narrow.contains("DESTINATION"),
        "{narrow}"
    );
    let tables = narrow.lines().filter(|line| line.starts_with(['|', '+']));
    assert!(tables.clone().count() > 10);
    assert!(
        tables
            .map(|line| line.chars().count())
            .all(|width| width <= 80),
        "{narrow}"
    );
    let long = many_rows();
    let table = on_a_terminal(
        100,
        summary(&long).args(["--no-pager", "--color", "never", "--fold", "none"]),
    );
    let widest = table
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.chars().count())
        .max();
    assert!(widest <= Some(100), "{widest:?}");
    assert!(table.contains('…'));
}

#[test]
fn a_pager_is_for_terminals() {
    let known = Known::world();
    let mark = |command: &mut Command| {
        command.env("ETHOGRAM_PAGER", "sed 's/^/PAGED /'");
    };
    let mut command = summary(&known);
    mark(&mut command);
    let paged = on_a_terminal(100, &mut command);
    assert!(paged.lines().count() > 10);
    assert!(
        paged.lines().all(|line| line.starts_with("PAGED ")),
        "{paged}"
    );

    let mut command = summary(&known);
    mark(command.arg("--no-pager"));
    assert!(!on_a_terminal(100, &mut command).contains("PAGED"));

    let mut command = summary(&known);
    mark(&mut command);
    let piped = said(&mut command).ok();
    assert!(!piped.out.contains("PAGED") && piped.out.contains("/bin/dash"));
}

#[test]
fn without_a_pager_the_text_is_plain() {
    let known = Known::world();
    for pager in ["/nonexistent/pager -x", "", "cat"] {
        let shown = on_a_terminal(
            100,
            summary(&known).env("PAGER", pager).args(["-n", "tools"]),
        );
        assert_eq!(
            shown.matches("Bind Points").count(),
            1,
            "{pager:?}: {shown}"
        );
    }
}
