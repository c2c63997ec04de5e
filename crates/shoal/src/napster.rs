//! `shoal serve napster`: a hub; `shoal find` and `shoal napster`: its clients.

mod chat;
pub(crate) mod client;
mod people;
mod share;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use shoal_napster::hub::{Config, Stats};
use shoal_node::napster::{HubError, HubServer, HubSettings};

use crate::cli::{HubArgs, NapsterCommand};
use crate::failure::{Exit, Failure, Outcome};
use crate::report::{HubReport, Report};
use crate::signals::Interrupt;
use crate::transfer;
use crate::ui::Ui;
use crate::units::count;

/// How often the statistics of a hub are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of a file of settings that are read at most.
const MAX_FILE: u64 = 64 << 10;

/// Runs `napster`.
pub(crate) fn napster(command: &NapsterCommand, ui: &Ui) -> Outcome<Exit> {
    match command {
        NapsterCommand::Fetch(args) => client::fetch(args, ui),
        NapsterCommand::Share(args) => share::share(args, ui),
        NapsterCommand::Browse(args) => people::browse_user(args, ui),
        NapsterCommand::Whois(args) => people::whois(args, ui),
        NapsterCommand::Rooms(args) => people::rooms(args, ui),
        NapsterCommand::Chat(args) => chat::chat(args, ui),
    }
}

/// Runs `serve napster`.
pub(crate) fn hub(args: &HubArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let server = HubServer::start(settings(args)?).map_err(|e| not_started(&e))?;
    let addr = server.addr();
    ui.report(&Report::Listening {
        addr,
        proto: "napster",
    });
    ui.result(&addr.to_string());
    ui.status("Serving", "a Napster hub until ctrl-C");
    let every = Duration::from_secs(args.stats_interval.max(1));
    let mut told: Option<Instant> = None;
    let mut last = server.stats();
    while !interrupt.asked() && !ui.stdout_closed() {
        match interrupt.woken().recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => break,
        }
        let stats = server.stats();
        ui.line("Serving", &line(&stats, stats.searches - last.searches));
        last = stats;
        if told.is_none_or(|at| at.elapsed() >= every) {
            told = Some(Instant::now());
            report(&stats, ui);
        }
    }
    ui.finish_step();
    let stats = server.stats();
    server.stop();
    report(&stats, ui);
    ui.status(
        "Stopped",
        &format!("after {}", count(stats.searches, "search")),
    );
    Ok(if interrupt.asked() {
        Exit::Interrupted
    } else {
        Exit::Ok
    })
}

fn settings(args: &HubArgs) -> Outcome<HubSettings> {
    let motd = match &args.motd {
        Some(path) => read(path)?
            .split(|b| *b == b'\n')
            .map(<[u8]>::to_vec)
            .collect(),
        None => Vec::new(),
    };
    let admin = match (&args.admin, &args.admin_password_file) {
        (Some(nick), Some(path)) => Some((nick.clone().into_bytes(), first_line(path)?)),
        _ => None,
    };
    let link_secret = args
        .link_secret_file
        .as_deref()
        .map(first_line)
        .transpose()?;
    let links = args
        .links
        .iter()
        .map(|to| resolve(to))
        .collect::<Outcome<_>>()?;
    let name = args.name.clone().unwrap_or_else(|| args.listen.to_string());
    Ok(HubSettings {
        listen: args.listen,
        dir: args.dir.clone(),
        admin,
        links,
        hub: Config {
            name: name.into_bytes(),
            motd,
            max_connections: args.max_connections,
            max_clones: args.max_clones,
            limit_local: args.limit_local,
            max_shared: args.max_shared,
            max_results: args.max_results,
            searches_per_minute: args.searches_per_minute,
            lines_per_minute: args.lines_per_minute,
            registered_only: args.registered_only,
            open_registration: !args.no_registration,
            link_secret,
            ..Config::default()
        },
        seed: None,
    })
}

pub(crate) fn read(path: &Path) -> Outcome<Vec<u8>> {
    let loaded = shoal_store::snapshot::load(path, MAX_FILE);
    match loaded.map_err(|e| Failure::io("read", path, &e))? {
        Some(bytes) => Ok(bytes),
        None if path.exists() => Err(Failure::failed(format!(
            "{} is longer than 64 KiB",
            path.display()
        ))),
        None => Err(Failure::not_found(format!(
            "there is no file {}",
            path.display()
        ))),
    }
}

pub(crate) fn first_line(path: &Path) -> Outcome<Vec<u8>> {
    let bytes = read(path)?;
    let line = bytes
        .split(|b| *b == b'\n')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    if line.is_empty() {
        return Err(Failure::failed(format!(
            "the first line of {} is empty",
            path.display()
        )));
    }
    Ok(line.to_vec())
}

/// Whether a text is `HOST:PORT`: another is a mistake of the user's, not a host that cannot be reached.
pub(crate) fn is_place(text: &str) -> Outcome {
    let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(()),
        _ => Err(Failure::usage(format!("{text} names no port"))
            .hint("write HOST:PORT, such as hub.example.org:8888")),
    }
}

/// The IPv4 address of `HOST:PORT`: the protocol knows no other.
pub(crate) fn resolve(text: &str) -> Outcome<SocketAddr> {
    is_place(text)?;
    let found = text.to_socket_addrs().map_err(|e| {
        Failure::new(Exit::Unreachable, format!("cannot look up {text}"))
            .because(&e)
            .hint("write HOST:PORT, such as hub.example.org:8888")
    })?;
    found
        .into_iter()
        .find(SocketAddr::is_ipv4)
        .ok_or_else(|| Failure::new(Exit::Unreachable, format!("{text} has no IPv4 address")))
}

fn not_started(error: &HubError) -> Failure {
    let failure = Failure::failed("cannot start the hub").because(error);
    match error {
        HubError::Bind { source, .. } => transfer::bind_hint(failure, source),
        _ => failure,
    }
}

fn line(stats: &Stats, searches: u64) -> String {
    format!(
        "{}, {}, {searches} searches/s, {} refused or limited",
        count(stats.users, "user"),
        count(stats.files, "file"),
        stats.refused + stats.limited
    )
}

fn report(s: &Stats, ui: &Ui) {
    ui.report(&HubReport::NapsterStats {
        users: s.users,
        remote_users: s.remote_users,
        links: s.links,
        files: s.files,
        bytes: s.bytes,
        rooms: s.rooms,
        accounts: s.accounts,
        messages: s.messages,
        searches: s.searches,
        hits: s.hits,
        brokered: s.brokered,
        refused: s.refused,
        limited: s.limited,
        malformed: s.malformed,
        cut_off: s.cut_off,
    });
}
