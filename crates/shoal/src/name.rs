//! `shoal name`: names that people keep, their keys and certificates, and the public log.

mod forks;
mod keep;
mod log;
mod show;

pub(crate) use forks::tell_fork;
pub(crate) use keep::Own;

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;
use shoal_base::id::to_hex;
use shoal_node::supernode::{AskError, NamesDesk};
use shoal_supernode::names::Act;
use shoal_supernode::names::certificate::Certificate;
use shoal_supernode::token::{Key, is_name};
use shoal_supernode::wire::Refusal;

use crate::cli::{NameChangeArgs, NameClaimArgs, NameCommand, NameFlags};
use crate::failure::{Exit, Failure, Outcome};
use crate::key;
use crate::report::PeopleReport;
use crate::supernode::{refused, servers, unix};
use crate::ui::Ui;

/// Runs `name`.
pub(crate) fn name(command: &NameCommand, ui: &Ui) -> Outcome<Exit> {
    match command {
        NameCommand::Claim(args) => claim(args, ui),
        NameCommand::Show(args) => show::show(args, ui),
        NameCommand::Change(args) => change(args, ui),
        NameCommand::Log(args) => log::log(args, ui),
    }
}

/// How long the ring is asked for a name, in seconds: it may take seven while it mends itself because a
/// supernode has gone.
const RING: u64 = 8;
/// After how long without an answer of the ring the login server is asked.
const PATIENCE: Duration = Duration::from_secs(1);

/// The key of whoever has a name: as the ring of supernodes on `list` tells, asked from `listen`; if it has no
/// record of it, or has not answered for a while, as the login server proves by its log.
pub(crate) fn key_of(
    name: &str,
    server: &Key,
    (login, list): (SocketAddr, SocketAddr),
    listen: SocketAddr,
) -> Outcome<Key> {
    let checked = checked(name)?.to_owned();
    let (send, found) = bounded(1);
    let trusted = *server;
    thread::spawn(move || {
        // Fails when the key was found otherwise.
        let _ = send.send(show::look_up(&checked, &trusted, list, listen, RING));
    });
    let owner = || log::owner(name, server, login).map(|(_, entry)| entry.key);
    match found.recv_timeout(PATIENCE) {
        Ok(Ok(record)) => Ok(record.certificate.key),
        Ok(Err(failure)) => match failure.exit {
            Exit::Unreachable | Exit::NotFound => owner().map_err(|f| f.reason(failure.what)),
            _ => Err(failure),
        },
        // Where no UDP gets out, the ring never answers.
        Err(_) => owner().or_else(|failure| match failure.exit {
            Exit::NotFound => Err(failure),
            _ => match found.recv() {
                Ok(Ok(record)) => Ok(record.certificate.key),
                _ => Err(failure),
            },
        }),
    }
}

pub(crate) fn checked(name: &str) -> Outcome<&str> {
    match is_name(name) {
        true => Ok(name),
        false => Err(Failure::usage(format!("the name {name:?}"))
            .reason("a name has 1 to 32 letters, digits, -, _ and .")),
    }
}

fn claim(args: &NameClaimArgs, ui: &Ui) -> Outcome<Exit> {
    let name = checked(&args.name)?;
    let own = Own::of(name, args.flags.state_dir.as_deref())?;
    let recovery = match (args.no_recovery, &args.recovery) {
        (true, _) => None,
        (false, Some(path)) => Some(path.clone()),
        (false, None) => Some(own.recovery_path()),
    };
    let public = recovery
        .as_deref()
        .map(|path| key::load_or_make(path).map(|k| k.verifying_key().to_bytes()));
    let certificate = certify(&own, &args.flags.join, public.transpose()?)?;
    tell(&certificate, ui);
    if let Some(path) = recovery {
        ui.hint(&format!(
            "move the recovery key {} off this machine: it takes the name back",
            path.display()
        ));
    }
    Ok(Exit::Ok)
}

/// Claims or renews a name; the certificate is kept.
pub(crate) fn certify(
    own: &Own,
    join: &crate::cli::JoinFlags,
    recovery: Option<[u8; 32]>,
) -> Outcome<Certificate> {
    let (login, _) = servers(join)?;
    let name = own.name();
    let asked = NamesDesk::open(login).and_then(|mut desk| {
        let keys = (own.key(), own.key());
        desk.certify(Act::Claim, name, keys, recovery)
    });
    let (certificate, by) =
        asked.map_err(|e| refused(format!("cannot claim {name} at {login}"), &e))?;
    own.trust(join, login, by)?;
    holds(&certificate, &by)?;
    own.keep(&certificate)?;
    Ok(certificate)
}

/// Our certificate, renewed if the login server answers, and that server's key.
pub(crate) fn log_in(own: &Own, flags: &NameFlags, ui: &Ui) -> Outcome<(Certificate, Key)> {
    match certify(own, &flags.join, None) {
        Ok(certificate) => {
            let server = own.known(&flags.join)?;
            Ok((certificate, server))
        }
        Err(failure) if matches!(failure.exit, Exit::Unreachable | Exit::NotFound) => {
            let server = own.known(&flags.join)?;
            let kept = own
                .certificate()
                .filter(|c| c.check(&server, unix()).is_ok());
            let Some(certificate) = kept else {
                return Err(failure);
            };
            ui.warn("the login server does not answer; the last certificate still holds");
            Ok((certificate, server))
        }
        Err(failure) => Err(failure),
    }
}

fn holds(certificate: &Certificate, by: &[u8; 32]) -> Outcome {
    certificate.check(by, unix()).map_err(|e| {
        Failure::new(
            Exit::Refused,
            "the login server gave a certificate of no use",
        )
        .because(&e)
        .hint("the clocks of both machines should agree")
    })
}

fn change(args: &NameChangeArgs, ui: &Ui) -> Outcome<Exit> {
    let name = checked(&args.name)?;
    let join = &args.flags.join;
    let (login, _) = servers(join)?;
    let own = Own::of(name, args.flags.state_dir.as_deref())?;
    let next = own.next_key()?;
    let recovery = args.recovery.as_deref().map(key::load_or_make);
    let recovery = recovery.transpose()?.map(|k| k.verifying_key().to_bytes());
    let by = match &args.by {
        Some(path) if !path.exists() => {
            return Err(Failure::not_found(format!("no key at {}", path.display())));
        }
        Some(path) => key::load_or_make(path)?,
        None => own.key().clone(),
    };
    let asked = NamesDesk::open(login)
        .and_then(|mut desk| desk.certify(Act::Change, name, (&by, &next), recovery));
    // The last time may have ended between the server's change and ours.
    let asked = match asked {
        Err(AskError::Refused(Refusal::Unproven)) => NamesDesk::open(login)
            .and_then(|mut desk| desk.certify(Act::Claim, name, (&next, &next), None))
            .or(asked),
        asked => asked,
    };
    let (certificate, server) =
        asked.map_err(|e| refused(format!("cannot change the key of {name} at {login}"), &e))?;
    own.trust(join, login, server)?;
    holds(&certificate, &server)?;
    own.take_next(&certificate)?;
    tell(&certificate, ui);
    Ok(Exit::Ok)
}

fn tell(certificate: &Certificate, ui: &Ui) {
    let key = to_hex(&certificate.key);
    ui.report(&PeopleReport::Certified {
        name: &certificate.name,
        key: &key,
        generation: certificate.generation,
        entry: certificate.entry,
        expires: certificate.expires,
    });
    ui.result(&format!("{} {key}", certificate.name));
}
