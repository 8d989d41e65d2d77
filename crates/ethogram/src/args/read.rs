//! The options of commands that read what was seen.

use std::path::PathBuf;

use clap::{Args, ValueEnum, builder::PossibleValuesParser};
use ethogram_model::{Fold, Timestamp};

use super::StyleArgs;
use crate::{
    client::ServiceName,
    clock::{now, parse_moment},
    question::{GROUPS, TABLES, parse_label},
};

/// Shows what containers, pods and services did: which executables they ran, which files
/// they used, whom they talked to, what they were refused.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ethogram summary -n dvwa                          all pods of a namespace
  ethogram summary -n dvwa -p 'web-*' -t network    whom the web pods talk to
  ethogram summary --status deny --since 1d         what was refused since yesterday
  ethogram summary -c db --source /usr/sbin/mysqld -t file --fold none
  ethogram summary --by workload -o html > summary.html
  ethogram summary -n dvwa --server https://collector.example:8687 --ca ca.crt --token-file token
  ethogram summary -n dvwa --context production
  ethogram summary --db server.db -o json | jq '.subjects[].tables.egress[]'")]
pub(crate) struct SummaryArgs {
    /// Only this Kubernetes namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Only pods or containers with all these labels
    #[arg(short, long, value_name = "KEY=VALUE,...", value_delimiter = ',', value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Only this pod; a * at the end stands for any ending
    #[arg(short, long)]
    pub(crate) pod: Option<String>,
    /// Only this container, by name or id; a * at the end stands for any ending
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Only this workload, as NAME or KIND/NAME; a * at the end stands for any ending
    #[arg(short, long)]
    pub(crate) workload: Option<String>,
    /// Only this machine
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// Only these tables; network stands for ingress, egress and bind
    #[arg(short, long = "type", value_name = "TYPE,...", value_delimiter = ',', ignore_case = true,
        value_parser = PossibleValuesParser::new(TABLES.iter().map(|(word, _)| *word)))]
    pub(crate) types: Vec<String>,
    /// Only rows with these outcomes [default: all but failed]
    #[arg(long, value_name = "STATUS,...", value_delimiter = ',', ignore_case = true,
        value_parser = PossibleValuesParser::new(["allow", "deny", "audit", "failed"]))]
    pub(crate) status: Vec<String>,
    /// Only rows of this executable; a * at the end stands for any ending
    #[arg(long, value_name = "EXE")]
    pub(crate) source: Option<String>,
    /// Only rows last seen since then: 30m, 2h, 7d ago, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<Timestamp>,
    /// Only rows first seen before then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) until: Option<Timestamp>,
    /// Fold sibling files into their directory: none, auto (more than 3 files, or more than 15 entries), or how many entries a directory may have unfolded
    #[arg(long, value_name = "none|auto|N", default_value = "auto")]
    pub(crate) fold: Fold,
    /// Fold as KubeArmor does: the same as --fold 3
    #[arg(long, conflicts_with = "fold")]
    pub(crate) agg: bool,
    /// What belongs together: the restarts of one pod's container, or all replicas of a workload
    #[arg(long, value_name = "GROUP", default_value = GROUPS[0].0,
        value_parser = PossibleValuesParser::new(GROUPS.iter().map(|(word, _)| *word)))]
    pub(crate) by: String,
    /// Show the names that DNS has for addresses which are nobody's here
    #[arg(long)]
    pub(crate) rev_dns_lookup: bool,
    /// Also show containers that did nothing, and those that only hold a pod's namespaces
    #[arg(long)]
    pub(crate) all: bool,
    /// Format
    #[arg(short, long, value_name = "FORMAT", default_value = "text", ignore_case = true,
        value_parser = PossibleValuesParser::new(ethogram_view::Format::WORDS.iter().map(|(_, word)| *word)))]
    pub(crate) output: String,
    #[command(flatten)]
    pub(crate) style: StyleArgs,
    /// Never use a pager
    #[arg(long)]
    pub(crate) no_pager: bool,
    #[command(flatten)]
    pub(crate) from: SourceArgs,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    parse_moment(text, now())
}

/// Where to read from.
#[derive(Clone, Debug, Args)]
pub(crate) struct SourceArgs {
    /// Ask the agent at this socket [default: /run/ethogram/ethogram.sock]
    #[arg(
        long,
        value_name = "PATH",
        env = "ETHOGRAM_SOCKET",
        hide_env_values = true
    )]
    pub(crate) socket: Option<PathBuf>,
    /// Ask the collector at this address, such as https://collector.example:8687
    #[arg(long, value_name = "URL", env = "ETHOGRAM_SERVER")]
    pub(crate) server: Option<String>,
    /// Ask the collector of the cluster that this kubeconfig leads to, through its API server
    /// [default: the one that kubectl uses, where no agent answers]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Likewise, by this context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Likewise, by this service [default: ethogram/ethogram-collector]
    #[arg(long, value_name = "NAMESPACE/NAME", env = "ETHOGRAM_SERVICE")]
    pub(crate) service: Option<ServiceName>,
    /// Believe collectors whose certificate this authority signed
    #[arg(long, value_name = "FILE", env = "ETHOGRAM_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// Show the collector the token in this file
    #[arg(long, value_name = "FILE", env = "ETHOGRAM_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Read this file, of an agent or of `ethogram record -o FILE`, instead of asking an agent
    #[arg(long, value_name = "FILE")]
    pub(crate) db: Option<PathBuf>,
}

/// Lists what is watched: since when, how much was seen of it, and what was lost.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ethogram containers
  ethogram containers -n dvwa -o json
  ethogram containers --all                also those that ended")]
pub(crate) struct ContainersArgs {
    /// Only this Kubernetes namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Also list containers that ended, and those that only hold a pod's namespaces
    #[arg(long)]
    pub(crate) all: bool,
    /// Format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = ListFormat::Text)]
    pub(crate) output: ListFormat,
    #[command(flatten)]
    pub(crate) from: SourceArgs,
}

/// How to write a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// A table for people.
    Text,
    /// JSON for programs.
    Json,
}
