//! `shoal name show`: the record of a name, from the ring of supernodes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use shoal_base::id::to_hex;
use shoal_call::record::Record;
use shoal_dht::{Answer, Failure as DhtFailure};
use shoal_node::reach::overlay_of;
use shoal_node::supernode::{NamesDesk, get_record, name_ring, read_record, supernodes};
use shoal_supernode::names::certificate::Certificate;
use shoal_supernode::names::log::includes;
use shoal_supernode::token::Key;

use super::checked;
use super::forks::tell_kept;
use super::keep::{folder, known};
use super::log::owner;
use crate::cli::NameShowArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::gnutella;
use crate::report::PeopleReport;
use crate::supernode::{refused, servers};
use crate::ui::Ui;

/// How soon the ring is asked again when nobody answers.
const AGAIN: Duration = Duration::from_millis(500);

/// Runs the command.
pub(super) fn show(args: &NameShowArgs, ui: &Ui) -> Outcome<Exit> {
    let name = checked(&args.name)?;
    let (login, list) = servers(&args.flags.join)?;
    let dir = args.flags.state_dir.as_deref();
    let server = known(&folder(args.flags.state_dir.as_deref()), &args.flags.join)?;
    let record = match look_up(name, &server, list, args.listen, args.timeout) {
        Ok(record) => record,
        Err(failure) if matches!(failure.exit, Exit::NotFound | Exit::Unreachable) => {
            let told = without_record(name, &server, login, &failure, ui);
            let forks = tell_kept(dir, &server, ui);
            return told.and_then(|exit| forks.map(|()| exit));
        }
        Err(failure) => return Err(failure),
    };
    let certificate = &record.certificate;
    let in_log = in_log(login, &server, certificate);
    let key = to_hex(&certificate.key);
    ui.report(&PeopleReport::Record {
        name: &certificate.name,
        key: &key,
        generation: certificate.generation,
        seq: record.seq,
        expires: record.expires,
        homes: record.homes.iter().map(|h| h.addr).collect(),
        in_log,
    });
    ui.result(&format!("{} {key}", certificate.name));
    for home in &record.homes {
        ui.result(&format!("  letters at {}", home.addr));
    }
    let forks = tell_kept(dir, &server, ui);
    match in_log {
        Some(false) => Err(Failure::new(
            Exit::Refused,
            "the public log does not have this certificate",
        )
        .hint("somebody else may have the login server's key: shoal name log")),
        Some(true) => {
            ui.status("Checked", "the public log says so too");
            forks.map(|()| Exit::Ok)
        }
        None => forks.map(|()| Exit::Ok),
    }
}

/// Tells whose a name is of which there is no record, by the log alone.
fn without_record(
    name: &str,
    server: &Key,
    login: SocketAddr,
    why: &Failure,
    ui: &Ui,
) -> Outcome<Exit> {
    let (at, entry) = owner(name, server, login).map_err(|f| f.reason(why.what.clone()))?;
    ui.warn(&why.what);
    let key = to_hex(&entry.key);
    ui.report(&PeopleReport::Owner {
        name: &entry.name,
        key: &key,
        generation: entry.generation,
        entry: at,
        unix: entry.unix,
        why: &why.what,
    });
    ui.result(&format!("{} {key}", entry.name));
    ui.status("Checked", &format!("entry {at} of the public log says so"));
    Ok(Exit::Ok)
}

/// The record of a name, from the ring of the supernodes on `list`, asked from `listen` for so many
/// seconds at most.
pub(crate) fn look_up(
    name: &str,
    server: &Key,
    list: SocketAddr,
    listen: SocketAddr,
    timeout: u64,
) -> Outcome<Record<SocketAddr>> {
    let until = Instant::now() + Duration::from_secs(timeout);
    let doors: Vec<SocketAddr> = supernodes(list)
        .map_err(|e| refused(format!("no list of supernodes from {list}"), &e))?
        .iter()
        .map(|e| e.addr)
        .filter(|a| overlay_of(*a).is_none())
        .collect();
    if doors.is_empty() {
        return Err(
            Failure::new(Exit::Unreachable, "no supernode is on the list")
                .hint("shoal supernode node --supernode runs one"),
        );
    }
    let (send, answers) = crossbeam_channel::unbounded();
    let seed = gnutella::rng().next_u64();
    let sink = Box::new(move |ticket, answer| {
        // Fails when the command is over.
        let _ = send.send((ticket, answer));
    });
    let node = name_ring(*server, listen, None, &doors, seed, sink)
        .map_err(|e| Failure::failed("cannot ask the ring").because(&e))?;
    let mut found: Option<Record<SocketAddr>> = None;
    node.request(1, get_record(*server, name));
    let result = loop {
        match answers.recv_deadline(until) {
            Ok((_, Answer::Value(item))) => found = read_record(server, name, &item),
            Ok((_, Answer::Done(done))) => match (found.take(), done) {
                (Some(record), _) => break Ok(record),
                (None, Err(DhtFailure::NotFound(_)) | Ok(_)) => {
                    break Err(Failure::not_found(format!(
                        "nobody told where letters to {name} are kept"
                    ))
                    .hint("shoal chat --as NAME tells it"));
                }
                (None, Err(why)) if Instant::now() + AGAIN >= until => {
                    break Err(
                        Failure::new(Exit::Unreachable, "the ring does not answer").because(&why)
                    );
                }
                (None, Err(_)) => {
                    // A pause before the next try, or else a closed port is asked without end.
                    std::thread::sleep(AGAIN);
                    node.request(1, get_record(*server, name));
                }
            },
            Ok(_) => {}
            Err(_) => {
                break Err(Failure::new(
                    Exit::Unreachable,
                    "the ring does not answer in time",
                ));
            }
        }
    };
    node.stop();
    result
}

/// Whether the public log has what a certificate says; none if it cannot be asked.
fn in_log(login: SocketAddr, server: &Key, certificate: &Certificate) -> Option<bool> {
    let mut desk = NamesDesk::open(login).ok()?;
    let head = desk.head().ok()?;
    let entry = desk.entries(certificate.entry).ok()?.into_iter().next()?;
    let proof = desk.inclusion(certificate.entry, head.size).ok()?;
    let shown = includes(
        &entry.leaf(),
        certificate.entry,
        head.size,
        &head.root,
        &proof,
    );
    let same = entry.key == certificate.key && entry.generation == certificate.generation;
    Some(head.is_by(server) && shown && same)
}
