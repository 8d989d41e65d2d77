//! One command, watched without a daemon.

use anyhow::{Context, Result, ensure};
use ethogram_e2e::{
    agent::{binary, only, summary_of},
    expected::{Count, Expected, check, check_complete},
};
use ethogram_model::Kind;
use ethogram_view::Printable;
use std::{collections::BTreeMap, fs, process::Command};

const READS: u64 = 3;
const STATUS: i32 = 7;

pub(super) fn ends_as_the_command_does_and_keeps_what_it_did() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let recording = dir.path().join("recording.db");
    let script = format!("for i in $(seq {READS}); do /bin/cat /etc/passwd; done; exit {STATUS}");
    let output = Command::new(binary()?)
        .args(["record", "--quiet", "-o"])
        .arg(&recording)
        .args(["--", "/bin/sh", "-c", &script])
        .output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(STATUS),
        "it ended with {}: {complaint}",
        output.status
    );
    let passwd = fs::read("/etc/passwd")?.repeat(usize::try_from(READS)?);
    ensure!(
        output.stdout == passwd,
        "the command's output is not passed on as it is"
    );

    let document = summary_of(&recording, &[])?;
    let (shell, cat) = (resolved("/bin/sh")?, resolved("/bin/cat")?);
    let times = Count::Exactly(READS);
    check_complete(only(&document)?)?;
    check(
        only(&document)?,
        &[
            Expected::new(Kind::Process, &shell, &cat, times),
            Expected::new(Kind::File, &cat, "/etc/passwd", times),
        ],
    )
}

/// The path of a program as the kernel resolves it on this machine.
fn resolved(program: &str) -> Result<String> {
    let path = fs::canonicalize(program).with_context(|| program.to_owned())?;
    path.into_os_string()
        .into_string()
        .ok()
        .context("a program's path is no text")
}

/// A program in memory, one whose file is gone, and one that a container's writable layer
/// holds: each is marked. perl is on every Debian machine; 319 is memfd_create on x86-64.
const UNUSUAL_PROGRAMS: &str = r#"
mount -t overlay none -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" "$1/merged" || exit 1
cp /bin/true "$1/merged/new"
"$1/merged/new"; "$1/merged/old"
perl -e '$fd = syscall(319, my $name = "hidden", 0); open(O, ">&=", $fd); open(I, "<", "/bin/true");
    print O $_ while <I>; O->flush; exec {"/proc/$$/fd/$fd"} "hidden"; die "memfd: $!"' || exit 1
cp /bin/true "$1/gone"
perl -e 'open(G, "<", $ARGV[0]); unlink $ARGV[0]; exec {"/proc/$$/fd/" . fileno(G)} "gone"; die "gone: $!"' "$1/gone"
"#;

pub(super) fn programs_that_no_image_holds_are_marked() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let recording = dir.path().join("recording.db");
    for folder in ["lower", "upper", "work", "merged"] {
        fs::create_dir(dir.path().join(folder))?;
    }
    fs::copy("/bin/true", dir.path().join("lower/old"))?;
    let output = Command::new(binary()?)
        .args(["record", "--quiet", "-o"])
        .arg(&recording)
        .args([
            "--",
            "unshare",
            "--mount",
            "sh",
            "-c",
            UNUSUAL_PROGRAMS,
            "sh",
        ])
        .arg(dir.path())
        .output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "it ended with {}: {complaint}",
        output.status
    );
    let document = summary_of(&recording, &["-t", "process"])?;
    let place = dir.path().display();
    for (program, marks) in [
        ("/memfd:hidden".to_owned(), &["memfd"][..]),
        (format!("{place}/gone"), &["deleted"]),
        (format!("{place}/merged/new"), &["upper-layer"]),
        (format!("{place}/merged/old"), &[]),
    ] {
        let rows = only(&document)?.table(Kind::Process);
        let row = rows
            .iter()
            .find(|row| row.target.as_str() == program)
            .with_context(|| format!("{program} did not run"))?;
        let shown: Vec<&str> = row.marks.iter().map(Printable::as_str).collect();
        ensure!(shown == marks, "{program} is marked {shown:?}");
    }
    Ok(())
}

/// Every way in which resolvers receive answers leads to the name beside the address, and an
/// answer from elsewhere to none.
pub(super) fn addresses_have_the_names_that_were_asked_for() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let recording = dir.path().join("recording.db");
    let output = Command::new(binary()?)
        .args(["record", "--quiet", "-o"])
        .arg(&recording)
        .arg("--")
        .arg(env!("CARGO_BIN_EXE_resolver"))
        .output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the workload failed: {complaint}");
    let truth = String::from_utf8(output.stdout)?;
    let truth: BTreeMap<_, _> = truth
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();

    let document = summary_of(&recording, &[])?;
    check_complete(only(&document)?)?;
    let rows = only(&document)?.table(Kind::Egress).iter();
    let rows: Vec<_> = rows
        .filter(|row| truth.contains_key(row.target.as_str()))
        .collect();
    let found: BTreeMap<_, _> = rows
        .iter()
        .map(|row| {
            let mut names: Vec<_> = row.dns_names.iter().map(Printable::as_str).collect();
            names.sort_unstable();
            (row.target.as_str(), names.join(","))
        })
        .collect();
    let truth: BTreeMap<_, _> = truth
        .into_iter()
        .map(|(address, names)| (address, names.to_owned()))
        .collect();
    ensure!(found == truth, "found {found:#?}\nthe truth is {truth:#?}");
    Ok(())
}
