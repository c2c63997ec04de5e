//! `shoal torrent`: .torrent files without a network.

use std::io::{self, Write};
use std::path::Path;

use crate::cli::{CreateArgs, TorrentCommand};
use crate::failure::{Exit, Failure, Outcome};
use crate::report::Report;
use crate::signals::Interrupt;
use crate::ui::Ui;
use crate::{make, show, verify};

/// Runs the command.
pub(crate) fn torrent(command: &TorrentCommand, ui: &Ui) -> Outcome<Exit> {
    match command {
        TorrentCommand::Show(args) => show::show(args, ui),
        TorrentCommand::Create(args) => create(args, ui),
        TorrentCommand::Verify(args) => verify::verify(args, ui),
    }
}

fn create(args: &CreateArgs, ui: &Ui) -> Outcome<Exit> {
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    if to_stdout && ui.is_json() {
        return Err(Failure::usage("--output - and --json both want stdout"));
    }
    let plan = make::plan(&args.path, &args.make, ui)?;
    let output = match &args.output {
        Some(path) => path.clone(),
        None => Path::new(&format!("{}.torrent", plan.name())).to_owned(),
    };
    // Before the hashing, which may take long.
    if !to_stdout && !args.force && output.exists() {
        return Err(Failure::failed(format!("{} exists", output.display()))
            .hint("--force writes over it, --output takes another name"));
    }
    let made = plan.make(None, &Interrupt::install()?, ui)?;
    let bytes = made.metainfo.to_bytes();
    if to_stdout {
        // A closed pipe is success.
        let _ = io::stdout().lock().write_all(&bytes);
        return Ok(Exit::Ok);
    }
    make::write(&output, &bytes)?;
    let path = output.to_string_lossy();
    ui.report(&Report::Written { path: &path });
    make::magnet_event(&made, &made.metainfo.magnet(), ui);
    ui.result(&path);
    Ok(Exit::Ok)
}
