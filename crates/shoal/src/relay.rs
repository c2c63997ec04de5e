//! `shoal serve turn`: a relay.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use shoal_node::relay::{
    Config, Credentials, Policy, RelayAddress, RelayError, RelayServer, RelaySettings, Stats,
    outward_address,
};

use crate::cli::RelayArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::napster::{first_line, read};
use crate::report::{RelayReport, Report};
use crate::signals::Interrupt;
use crate::transfer;
use crate::ui::Ui;
use crate::units::{Size, count};

/// How often the statistics of a relay are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Runs `serve turn`.
pub(crate) fn serve(args: &RelayArgs, ui: &Ui) -> Outcome<Exit> {
    let interrupt = Interrupt::install()?;
    let settings = settings(args)?;
    let relayed = [settings.turn.relay_v4, settings.turn.relay_v6];
    let server = RelayServer::start(settings).map_err(|e| not_started(&e))?;
    for &addr in server.addresses() {
        ui.report(&Report::Listening {
            addr,
            proto: "turn",
        });
        ui.result(&format!("turn:{addr}"));
    }
    for relay in relayed.into_iter().flatten() {
        ui.status("Relaying", &format!("at {}", relay.public));
    }
    ui.status("Serving", "a relay until ctrl-C");
    let every = Duration::from_secs(args.stats_interval.max(1));
    let mut told: Option<Instant> = None;
    let mut last = server.stats();
    while !interrupt.asked() && !ui.stdout_closed() {
        match interrupt.woken().recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => break,
        }
        let stats = server.stats();
        ui.line("Serving", &line(&stats, &last));
        last = stats;
        if told.is_none_or(|at| at.elapsed() >= every) {
            told = Some(Instant::now());
            ui.report(&RelayReport::from(stats));
        }
    }
    ui.finish_step();
    let stats = server.stop();
    ui.report(&RelayReport::from(stats));
    let relayed = stats.bytes_up + stats.bytes_down;
    ui.status(
        "Stopped",
        &format!(
            "after {}, {} relayed",
            count(stats.allocated, "allocation"),
            Size(relayed)
        ),
    );
    Ok(if interrupt.asked() {
        Exit::Interrupted
    } else {
        Exit::Ok
    })
}

fn settings(args: &RelayArgs) -> Outcome<RelaySettings> {
    let mut credentials = Credentials::default();
    for path in &args.secrets {
        credentials.secrets.push(first_line(path)?);
    }
    if let Some(path) = &args.users_file {
        let text = read(path)?;
        credentials.users = users(&text).ok_or_else(|| {
            Failure::failed(format!("{} is not a list of users", path.display()))
                .hint("one NAME:PASSWORD a line")
        })?;
    }
    let relay_v4 = relay_address(args, false)?;
    let relay_v6 = relay_address(args, true)?;
    if relay_v4.is_none() && relay_v6.is_none() {
        return Err(Failure::failed("there is no address to relay at").hint("name one: --relay-ip"));
    }
    Ok(RelaySettings {
        listen: args.listen.clone(),
        turn: Config {
            realm: args.realm.clone(),
            credentials,
            relay_v4,
            relay_v6,
            ports: args.ports.clone(),
            policy: Policy {
                allow_private: args.allow_private,
                allow: args.allow_peers.clone(),
                deny: args.deny_peers.clone(),
            },
            max_allocations: args.max_allocations,
            max_allocations_per_user: args.max_allocations_per_user,
            max_rate: args.max_rate,
            max_rate_per_user: args.max_rate_per_user,
            alternate: args.alternate,
            ..Config::default()
        },
        certificate: args.tls.files(),
        max_connections: args.max_connections,
        seed: None,
    })
}

/// Lines of a name, a colon and a password; empty lines and those that begin with `#` do not count.
fn users(text: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    text.split(|b| *b == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
        .map(|line| {
            let colon = line.iter().position(|b| *b == b':')?;
            let (name, password) = line.split_at(colon);
            let password = password.get(1..)?;
            (!name.is_empty() && !password.is_empty()).then(|| (name.to_vec(), password.to_vec()))
        })
        .collect()
}

/// Where relayed addresses of a family are.
fn relay_address(args: &RelayArgs, ipv6: bool) -> Outcome<Option<RelayAddress>> {
    let one = |ips: &[IpAddr], flag: &str| {
        let mut of = ips.iter().copied().filter(|ip| ip.is_ipv6() == ipv6);
        match (of.next(), of.next()) {
            (first, None) => Ok(first),
            _ => Err(Failure::failed(format!(
                "{flag} names two addresses of one family"
            ))),
        }
    };
    let named = one(&args.relay_ips, "--relay-ip")?;
    let external = one(&args.external_ips, "--external-ip")?;
    let listens = |a: &&SocketAddr| a.is_ipv6() == ipv6;
    let own = args.listen.iter().find(listens);
    let found = match (named, own) {
        (Some(ip), _) => Some(ip),
        // Whoever names addresses names all of them.
        (None, _) if !args.relay_ips.is_empty() => None,
        (None, Some(at)) if !at.ip().is_unspecified() => Some(at.ip()),
        (None, Some(_)) => outward_address(ipv6),
        (None, None) => None,
    };
    Ok(found.map(|bind| RelayAddress {
        bind,
        public: external.unwrap_or(bind),
    }))
}

pub(crate) fn not_started(error: &RelayError) -> Failure {
    let failure = Failure::failed("cannot start the relay").because(error);
    match error {
        RelayError::Bind { source, .. } => transfer::bind_hint(failure, source),
        RelayError::Nobody => failure.hint("say who may use it: --secret-file or --users-file"),
        _ => failure,
    }
}

fn line(now: &Stats, last: &Stats) -> String {
    let passed = |s: &Stats| s.bytes_up + s.bytes_down;
    format!(
        "{} of {}, {}/s, {} unwanted, {} over the rate",
        count(now.allocations, "allocation"),
        count(now.users, "user"),
        Size(passed(now) - passed(last)),
        now.unwanted,
        now.over_rate
    )
}

#[cfg(test)]
mod tests {
    use super::users;

    #[test]
    fn users_are_names_and_passwords() {
        let read = users(b"# ours\nalice:a:b\n\n bob:x \n").unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[&b"alice"[..]], b"a:b");
        assert_eq!(read[&b"bob"[..]], b"x");
        for bad in ["alice", ":x", "alice:"] {
            assert!(users(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
