//! `ethogram completion` and `ethogram man`: what the command line says of itself.

use std::{fs, io, path::Path, process::ExitCode};

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::{
    args::{Cli, CompletionArgs, ManArgs},
    present,
};

/// Writes a shell's completions to standard output.
pub(crate) fn run(args: &CompletionArgs) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell.generator(),
        &mut Cli::command(),
        "ethogram",
        &mut script,
    );
    present::write(|out| Ok(out.write_all(&script)?))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a man page for the tool and for each subcommand into a folder.
pub(crate) fn write_manual(args: &ManArgs) -> Result<ExitCode> {
    fs::create_dir_all(&args.folder)
        .with_context(|| format!("cannot make the folder {}", args.folder.display()))?;
    let mut command = Cli::command();
    command.build();
    write_page(&args.folder, "ethogram", command.clone())?;
    let is_ours = |sub: &&clap::Command| !sub.is_hide_set() && sub.get_name() != "help";
    for subcommand in command.get_subcommands().filter(is_ours) {
        let name = format!("ethogram-{}", subcommand.get_name());
        write_page(&args.folder, &name, subcommand.clone())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_page(folder: &Path, name: &str, command: clap::Command) -> Result<()> {
    let path = folder.join(format!("{name}.1"));
    let render = || -> io::Result<()> {
        let mut page = Vec::new();
        clap_mangen::Man::new(command.display_name(name))
            .title(name)
            .render(&mut page)?;
        fs::write(&path, page)
    };
    render().with_context(|| format!("cannot write {}", path.display()))
}
