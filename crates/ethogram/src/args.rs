//! The command line, as typed. What it means is decided in the commands.

mod about;
mod collector;
mod read;

pub(crate) use about::{CompletionArgs, DoctorArgs, ManArgs, SelfTestArgs};
pub(crate) use collector::{CertsArgs, CollectorArgs, StoreAddress};
pub(crate) use read::{ContainersArgs, ListFormat, SourceArgs, SummaryArgs};

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ethogram_model::Budget;

/// Shows what every container, pod and service on this machine really does.
#[derive(Debug, Parser)]
#[command(
    name = "ethogram",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(after_help = "Examples:
  ethogram record -- make test            what does this command do?
  ethogram agent                          watch every container of this machine
  ethogram summary -n shop                what the pods of a namespace did
  ethogram doctor                         what can be seen here, and what cannot")]
pub(crate) struct Cli {
    /// Say more about what is going on (-v debug, -vv trace)
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command and show what it did
    Record(RecordArgs),
    /// Watch every container of this machine
    Agent(AgentArgs),
    /// Keep what the agents of a cluster report
    Collector(CollectorArgs),
    /// Make certificates for a cluster
    Certs(CertsArgs),
    /// Show what containers, pods and services did
    Summary(SummaryArgs),
    /// List what is watched
    Containers(ContainersArgs),
    /// Say what can be seen here, and what cannot
    Doctor(DoctorArgs),
    /// Print completions for a shell
    Completion(CompletionArgs),
    /// Write the man pages
    #[command(hide = true)]
    Man(ManArgs),
    /// Do what the self-test of `doctor` expects to see
    #[command(hide = true)]
    SelfTest(SelfTestArgs),
    /// Set its cgroup and identity, then become the command
    #[command(hide = true)]
    RunIn(RunInArgs),
}

/// Runs a command in a cgroup of its own, watches only that, and prints its summary at the
/// end. Exits with the command's status.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ethogram record -- curl -s http://localhost/
  ethogram record --user nobody -- ./server --port 8080
  ethogram record --timeout 30s -o server.db -- ./server
  ethogram summary --db server.db -t file --fold none")]
pub(crate) struct RecordArgs {
    /// Keep the recording in this file, to be read with `ethogram summary --db FILE`
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Run the command as this user (name or number)
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// End the command after this time (30s, 5m, 1h)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Print no summary at the end
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) look: LookArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub(crate) command: Vec<OsString>,
}

/// Watches every container of this machine, keeps what they do, and answers on a unix socket.
/// Every option can also be set in the environment or in a file; see docs/configuration.md.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ethogram agent
  ethogram agent --host --listen 127.0.0.1:8686
  ethogram agent --config agent.toml --log-format json")]
pub(crate) struct AgentArgs {
    /// Read options from this file [default: /etc/ethogram/agent.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "ETHOGRAM_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: crate::config::Options,
}

/// Hidden: what `record` starts inside the new cgroup.
#[derive(Debug, Args)]
pub(crate) struct RunInArgs {
    #[arg(long)]
    pub(crate) procs: PathBuf,
    #[arg(long)]
    pub(crate) uid: Option<u32>,
    #[arg(long)]
    pub(crate) gid: Option<u32>,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

/// How a summary looks.
#[derive(Clone, Debug, Args)]
pub(crate) struct LookArgs {
    /// Format of the summary
    #[arg(long, value_name = "FORMAT", value_parser = clap::value_parser!(ethogram_view::Format), default_value = "text")]
    pub(crate) format: ethogram_view::Format,
    /// Fold sibling files into their directory: none, auto (more than 3 files, or more than 15 entries), or how many entries a directory may have unfolded
    #[arg(long, value_name = "none|auto|N", default_value = "auto")]
    pub(crate) fold: ethogram_model::Fold,
    #[command(flatten)]
    pub(crate) style: StyleArgs,
}

/// How a summary looks for people.
#[derive(Clone, Debug, Args)]
pub(crate) struct StyleArgs {
    /// Also show first seen, arguments, marks and whole ids
    #[arg(long)]
    pub(crate) wide: bool,
    /// Show times in the local zone instead of UTC
    #[arg(long)]
    pub(crate) local_time: bool,
    /// When to use colours
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    pub(crate) color: When,
}

/// When to do something that depends on the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// If the output is a terminal and NO_COLOR is not set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Bounds of the kernel half.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct LimitArgs {
    /// Behaviours counted in the kernel at a time (about 160 bytes each); more take a slower way
    #[arg(long, value_name = "N", default_value_t = ethogram_sensor::Limits::default().behaviours_max, value_parser = parse_behaviours)]
    pub(crate) behaviours_max: u32,
    /// Size of the ring buffer for new names, in KiB; a power of two
    #[arg(long, value_name = "KIB", default_value_t = ethogram_sensor::Limits::default().ring_bytes / 1024, value_parser = parse_ring_kib)]
    pub(crate) ring_kib: u32,
    /// Rows of one kind and outcome; where there are more, directories and addresses fold
    #[arg(long, value_name = "N", default_value_t = Budget::DEFAULT.rows_max(), value_parser = parse_rows)]
    pub(crate) rows_per_container_max: u32,
    /// By which hooks to watch; trampolines take longer to attach and cost less (auto: where they load)
    #[arg(
        long,
        value_name = "auto|tracepoint|trampoline",
        default_value = "tracepoint"
    )]
    pub(crate) hooks: ethogram_sensor::HookChoice,
}

impl LimitArgs {
    /// As the sensor wants them.
    pub(crate) fn limits(self) -> ethogram_sensor::Limits {
        ethogram_sensor::Limits {
            behaviours_max: self.behaviours_max,
            behaviours_per_cgroup_max: self.behaviours_max, // nobody else is watched
            ring_bytes: self.ring_kib * 1024,
            budget: Budget::new(self.rows_per_container_max),
            ..ethogram_sensor::Limits::default()
        }
    }
}

/// A number of behaviours that the kernel's maps can hold.
pub(crate) fn parse_behaviours(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(count) if (1..=1 << 24).contains(&count) => Ok(count),
        _ => Err("a number from 1 to 16777216 is needed".to_owned()),
    }
}

/// A number of rows that can be divided into shares.
pub(crate) fn parse_rows(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(count) if (Budget::ROWS_MIN..=1 << 24).contains(&count) => Ok(count),
        _ => Err(format!(
            "a number from {} to 16777216 is needed",
            Budget::ROWS_MIN
        )),
    }
}

/// A size that a ring buffer can have.
pub(crate) fn parse_ring_kib(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(kib) if kib.is_power_of_two() && (4..=1 << 20).contains(&kib) => Ok(kib),
        _ => Err("a power of two from 4 to 1048576 is needed, e.g. 16384".to_owned()),
    }
}

/// `90`, `90s`, `5m`, `1h`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_s = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        unit => return Err(format!("unknown unit {unit:?}: use s, m, h or d")),
    };
    let count: u64 = digits
        .parse()
        .map_err(|_| "a number is needed, e.g. 30s, 5m, 1h".to_owned())?;
    count
        .checked_mul(unit_s)
        .map(Duration::from_secs)
        .ok_or_else(|| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("5m", 300),
            ("2h", 7_200),
            ("7d", 604_800),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "s", "5w", "-1s", "99999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
