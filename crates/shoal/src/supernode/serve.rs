//! `shoal serve login` and `shoal serve supernodes`.

use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use shoal_base::id::to_hex;
use shoal_node::supernode::{Desk, DeskError, DeskSettings, DeskStats, Logins, this_machine};
use shoal_supernode::list::ListConfig;
use shoal_supernode::login::LoginConfig;

use crate::cli::{ListFlags, LoginArgs, SupernodesArgs};
use crate::failure::{Exit, Failure, Outcome};
use crate::report::{OverlayReport, Report};
use crate::signals::Interrupt;
use crate::ui::Ui;
use crate::units::count;
use crate::{key, state, transfer};

/// How often the figures are looked at.
const LOOK: Duration = Duration::from_secs(1);

fn unlimited(flags: &ListFlags) -> Vec<u128> {
    match flags.limit_local {
        true => Vec::new(),
        false => this_machine(),
    }
}

fn list(flags: &ListFlags) -> ListConfig {
    ListConfig {
        per_host: usize::from(flags.supernodes_per_host),
        unlimited: unlimited(flags),
        ..ListConfig::default()
    }
}

fn seed() -> Outcome<u64> {
    let mut seed = [0; 8];
    key::random(&mut seed)?;
    Ok(u64::from_le_bytes(seed))
}

/// Runs `serve login`.
pub(crate) fn login(args: &LoginArgs, ui: &Ui) -> Outcome<Exit> {
    let dir = args.dir.clone();
    let dir = dir.unwrap_or_else(|| state::base(None, Path::new(".")).join("login"));
    std::fs::create_dir_all(&dir).map_err(|e| Failure::io("create the folder", &dir, &e))?;
    let settings = DeskSettings {
        listen: args.listen,
        logins: Logins::Here {
            key: Box::new(key::load_or_make(&dir.join("key"))?),
            names: Some(dir.join("names")),
            config: LoginConfig {
                lifetime: Duration::from_secs(args.lifetime.max(1)),
                certificate: Duration::from_secs(args.certificate_lifetime.max(1)),
                names_per_host: args.names_per_host,
                requests_per_minute: args.requests_per_minute,
                unlimited: unlimited(&args.list),
                ..LoginConfig::default()
            },
        },
        list: args.with_list.then(|| list(&args.list)),
        seed: seed()?,
    };
    let what = match args.with_list {
        true => "logins and the list of supernodes",
        false => "logins",
    };
    serve(settings, "login", what, &args.list, ui)
}

/// Runs `serve supernodes`.
pub(crate) fn supernodes(args: &SupernodesArgs, ui: &Ui) -> Outcome<Exit> {
    let settings = DeskSettings {
        listen: args.listen,
        logins: Logins::By(args.trust),
        list: Some(list(&args.list)),
        seed: seed()?,
    };
    serve(
        settings,
        "supernodes",
        "the list of supernodes",
        &args.list,
        ui,
    )
}

fn not_started(error: &DeskError) -> Failure {
    let failure = Failure::failed("cannot start the server").because(error);
    match error {
        DeskError::Io(io) if io.kind() == std::io::ErrorKind::WouldBlock => {
            failure.hint("another login server keeps its names in this folder")
        }
        DeskError::Io(io) => transfer::bind_hint(failure, io),
        DeskError::Names(_) => failure.hint("the file names in the folder is damaged"),
    }
}

fn serve(
    settings: DeskSettings,
    proto: &'static str,
    what: &str,
    flags: &ListFlags,
    ui: &Ui,
) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let desk = Desk::start(settings).map_err(|e| not_started(&e))?;
    let (addr, key) = (desk.addr(), to_hex(&desk.key()));
    if proto == "login" {
        ui.report(&OverlayReport::LoginKey { key: &key });
    }
    ui.report(&Report::Listening { addr, proto });
    ui.result(&addr.to_string());
    ui.status("Serving", &format!("{what} until ctrl-C; the key is {key}"));
    let every = Duration::from_secs(flags.stats_interval.max(1));
    let mut told = Instant::now();
    while !interrupt.asked() && !ui.stdout_closed() {
        match interrupt.woken().recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => break,
        }
        let stats = desk.stats();
        ui.line("Serving", &line(&stats));
        if told.elapsed() >= every {
            told = Instant::now();
            report(&stats, ui);
        }
    }
    ui.finish_step();
    let stats = desk.stats();
    report(&stats, ui);
    ui.status("Stopped", &line(&stats));
    Ok(if interrupt.asked() {
        Exit::Interrupted
    } else {
        Exit::Ok
    })
}

fn line(stats: &DeskStats) -> String {
    format!(
        "{}, {}, {} given, {} refused",
        count(stats.names, "name"),
        count(stats.supernodes, "supernode"),
        count(stats.tokens, "token"),
        stats.refused
    )
}

fn report(stats: &DeskStats, ui: &Ui) {
    ui.report(&OverlayReport::LoginStats {
        names: stats.names,
        supernodes: stats.supernodes,
        tokens: stats.tokens,
        asked: stats.asked,
        registered: stats.registered,
        refused: stats.refused,
    });
}
