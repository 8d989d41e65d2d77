//! The options of commands about the tool itself.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ethogram_sensor::HookChoice;

use super::ListFormat;

/// Says what can be seen on this machine, what cannot, and what to do about it. The exit
/// status is 1 if something makes watching impossible.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo ethogram doctor
  sudo ethogram doctor -o json | jq '.blind_spots[].id'")]
pub(crate) struct DoctorArgs {
    /// Format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = ListFormat::Text)]
    pub(crate) output: ListFormat,
    /// Which hooks to try: auto, tracepoint or trampoline, as for the agent
    #[arg(long, value_name = "HOOKS", default_value = "auto")]
    pub(crate) hooks: HookChoice,
}

/// Prints completions for a shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ethogram completion bash > /etc/bash_completion.d/ethogram
  ethogram completion zsh > /usr/share/zsh/vendor-completions/_ethogram
  ethogram completion fish > ~/.config/fish/completions/ethogram.fish")]
pub(crate) struct CompletionArgs {
    /// Which shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// A shell that can be helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    /// What writes its completions.
    pub(crate) fn generator(self) -> clap_complete::Shell {
        match self {
            Self::Bash => clap_complete::Shell::Bash,
            Self::Zsh => clap_complete::Shell::Zsh,
            Self::Fish => clap_complete::Shell::Fish,
        }
    }
}

/// Hidden: for packages.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Where the pages go
    pub(crate) folder: PathBuf,
}

/// Hidden: what `doctor` runs in a control group of its own.
#[derive(Debug, Args)]
pub(crate) struct SelfTestArgs {
    pub(crate) folder: PathBuf,
}
