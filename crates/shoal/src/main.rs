//! The `shoal` command: reads the command line, runs one command, shows how it goes.
//!
//! Knows no protocol; what moves bytes is in the node.
#![allow(
    rustdoc::invalid_html_tags,
    reason = "what is said of flags is their help, in which <TAB> is a key"
)]

mod call;
mod chat;
mod cli;
mod cluster;
mod dht;
mod failure;
mod fetch;
mod find;
mod gnutella;
mod hadoop;
mod hashing;
mod key;
mod known_pieces;
mod library;
mod make;
mod mp3;
mod name;
mod napster;
mod overlay;
mod patience;
mod pipe;
mod reach;
#[cfg(test)]
mod reference;
mod relay;
mod report;
mod run;
mod scan;
mod selection;
mod serve;
mod share;
mod show;
mod signals;
mod sim;
mod sound;
mod source;
mod state;
mod station;
mod supernode;
mod task;
mod torrent;
mod transfer;
mod ui;
mod units;
mod updates;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command};
use crate::failure::{Exit, Outcome};
use crate::ui::Ui;

fn main() -> ExitCode {
    if hadoop::is_name(std::env::args_os().next().as_ref()) {
        log_to_stderr(0);
        return ExitCode::from(hadoop::run(std::env::args_os().skip(1).collect()));
    }
    let cli = Cli::parse();
    if let Command::Hadoop(args) = cli.command {
        log_to_stderr(cli.globals.verbose);
        return ExitCode::from(hadoop::run(args.words));
    }
    let ui = Ui::new(&cli.globals);
    log_to_stderr(cli.globals.verbose);
    let exit = match run(cli.command, &ui) {
        Ok(exit) => exit,
        // Whoever read the output has what they wanted.
        Err(_) if ui.stdout_closed() => Exit::Ok,
        Err(failure) => {
            ui.failure(&failure);
            failure.exit
        }
    };
    ExitCode::from(exit as u8)
}

fn run(command: Command, ui: &Ui) -> Outcome<Exit> {
    match command {
        Command::Torrent(command) => torrent::torrent(&command, ui),
        Command::Share(args) => share::share(&args, ui),
        Command::Fetch(args) => fetch::fetch(&args, ui),
        Command::Dht(command) => dht::dht(&command, ui),
        // Its exit codes are Hadoop's: it never comes here.
        Command::Hadoop(_) => Ok(Exit::Ok),
        Command::Library(command) => library::library(&command, ui),
        Command::Find(args) => find::find(&args, ui),
        Command::Napster(command) => napster::napster(&command, ui),
        Command::Gnutella(command) => gnutella::gnutella(&command, ui),
        Command::Supernode(command) => supernode::supernode(&command, ui),
        Command::Chat(args) => chat::chat(&args, ui),
        Command::Name(command) => name::name(&command, ui),
        Command::Pipe(args) => pipe::pipe(&args, ui),
        Command::Reach(args) => reach::reach(&args, ui),
        Command::Run(args) => run::run(&args, ui),
        Command::Task(command) => task::task(&command),
        Command::Worker(args) => cluster::worker(&args, ui),
        Command::Job(command) => cluster::job(&command, ui),
        Command::Call(args) => call::place(&args, ui),
        Command::Answer(args) => call::wait(&args, ui),
        Command::Phone(args) => call::phone(&args, ui),
        Command::Sound(args) => sound::sound(&args, ui),
        Command::Serve(command) => serve::serve(&command, ui),
        Command::Sim(command) => sim::sim(command, ui),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "shoal", &mut script);
            // A closed pipe is success.
            let _ = io::stdout().lock().write_all(&script);
            Ok(Exit::Ok)
        }
    }
}

/// Sends `tracing` to stderr: from `-vv` on, or as `SHOAL_LOG` says.
fn log_to_stderr(verbose: u8) {
    let filter = match (std::env::var("SHOAL_LOG"), verbose) {
        (Ok(filter), _) if !filter.is_empty() => filter,
        (_, 0 | 1) => return,
        (_, 2) => "info,shoal_node=debug,shoal_bittorrent=debug,shoal_store=debug,shoal_dht=debug,shoal_jobs=debug"
            .to_owned(),
        (_, _) => "info,shoal_node=trace,shoal_bittorrent=trace,shoal_store=trace,shoal_dht=trace,shoal_jobs=trace"
            .to_owned(),
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(io::stderr)
        .init();
}
