//! A pager between a long text and a terminal, chosen as git chooses one.

use std::{
    env,
    io::{self, IsTerminal, Write},
    process::{Command, Stdio},
    sync::{Arc, atomic::AtomicBool},
};

/// What is run where nobody chose a pager: leaves at once if all fits on one screen (F),
/// passes colours on (R), and leaves the text on the screen (X).
const DEFAULT_PAGER: &str = "less -FRX";

/// What `less` gets to know where nobody told it anything (`LESS`), as git does.
const LESS_OPTIONS: &str = "FRX";

/// How a shell says that a command cannot be run, or is not there.
const NOT_RUN: [i32; 2] = [126, 127];

/// The pager to use for standard output; `None` for none.
pub(crate) fn choose() -> Option<String> {
    let terminal = io::stdout().is_terminal() && !is_dumb();
    let chosen = |name| env::var(name).ok();
    terminal
        .then(|| command(chosen("ETHOGRAM_PAGER"), chosen("PAGER")))
        .flatten()
}

/// Whether the terminal can do nothing but print.
pub(crate) fn is_dumb() -> bool {
    env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

fn command(own: Option<String>, common: Option<String>) -> Option<String> {
    let chosen = own.or(common).unwrap_or_else(|| DEFAULT_PAGER.to_owned());
    let is_none = matches!(chosen.trim(), "" | "cat");
    (!is_none).then_some(chosen)
}

/// Shows a text through a pager; as it is if the pager cannot be run.
///
/// # Errors
/// If the text cannot be written, but for a reader who has seen enough.
pub(crate) fn show(text: &[u8], pager: &str) -> io::Result<()> {
    if through(text, pager)? {
        Ok(())
    } else {
        io::stdout().lock().write_all(text)
    }
}

/// Whether the pager ran.
fn through(text: &[u8], pager: &str) -> io::Result<bool> {
    // Ctrl-C is for the pager: leaving before it would leave the terminal in its hands.
    let interrupted = Arc::new(AtomicBool::new(false));
    let handler = signal_hook::flag::register(signal_hook::consts::SIGINT, interrupted)?;
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", pager])
        .stdin(Stdio::piped())
        .stderr(Stdio::null());
    if env::var_os("LESS").is_none() {
        shell.env("LESS", LESS_OPTIONS);
    }
    let Ok(mut running) = shell.spawn() else {
        return Ok(false);
    };
    let written = running
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(text));
    let status = running.wait()?;
    signal_hook::low_level::unregister(handler);
    if status.code().is_some_and(|code| NOT_RUN.contains(&code)) {
        return Ok(false);
    }
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_choice_wins() {
        let some = |text: &str| Some(text.to_owned());
        for (own, common, expected) in [
            (None, None, some(DEFAULT_PAGER)),
            (None, some("more"), some("more")),
            (some("most -s"), some("more"), some("most -s")),
            (some(""), some("more"), None),
            (None, some("cat"), None),
        ] {
            assert_eq!(command(own, common), expected);
        }
    }

    #[test]
    fn a_pager_that_is_not_there_did_not_run() {
        assert!(!through(b"text", "/nonexistent/pager").unwrap());
        assert!(through(b"text", "exec cat >/dev/null").unwrap());
    }

    #[test]
    fn a_pager_that_stops_reading_is_no_error() {
        let text = vec![b'x'; 1 << 20];
        assert!(through(&text, "exec head -c 1 >/dev/null").unwrap());
    }
}
