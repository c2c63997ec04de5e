//! `shoal dht`: a DHT alone, for people and for tests.

mod client;
mod index;

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use shoal_base::InfoHash;
use shoal_base::bencode::{self, Encoder, Value};
use shoal_base::id::{from_hex, to_hex};
use shoal_content::Magnet;
use shoal_dht::{Answer, Failure as DhtFailure, Health, Id, Item, Mutable, Request};
use shoal_node::dht::{DhtConfig, PUBLIC_ROUTERS, Ring};
use shoal_node::reach::overlay_of;

use crate::cli::{
    DhtAnnounceArgs, DhtCommand, DhtGetArgs, DhtNodeArgs, DhtPeersArgs, DhtPutArgs,
    DhtSubscribeArgs, Via, WhichRing,
};
use crate::failure::{Exit, Failure, Outcome};
use crate::key;
use crate::report::Report;
use crate::ui::Ui;
use crate::units::count;
pub(super) use client::Client;

/// Between two tries while no node to start from has answered.
pub(crate) const AGAIN: Duration = Duration::from_millis(250);
/// How often a waiting command looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);
/// Most bytes read for a value.
const MAX_INPUT: u64 = 64 * 1024;

/// Runs the command.
pub(crate) fn dht(command: &DhtCommand, ui: &Ui) -> Outcome<Exit> {
    match command {
        DhtCommand::Node(args) => node(args, ui),
        DhtCommand::Put(args) => put(args, ui),
        DhtCommand::Get(args) => get(args, ui),
        DhtCommand::Announce(args) => announce(args, ui),
        DhtCommand::Peers(args) => peers(args, ui),
        DhtCommand::Subscribe(args) => subscribe(args, ui),
        DhtCommand::Publish(args) => index::publish(args, ui),
        DhtCommand::Find(args) => index::find(args, ui),
    }
}

/// The nodes to start from: those given, else the public ones where they can be reached.
pub(crate) fn bootstrap(given: &[String], listen: SocketAddr) -> Vec<String> {
    if given.is_empty() && !listen.ip().is_loopback() {
        return PUBLIC_ROUTERS.iter().map(|r| (*r).to_owned()).collect();
    }
    given.to_vec()
}

/// Whether a ring with such members is on the overlay: then it is there as a whole.
pub(crate) fn on_overlay(members: &[String]) -> bool {
    let mut addrs = members.iter().filter_map(|m| m.parse().ok());
    addrs.any(|addr| overlay_of(addr).is_some())
}

/// The ring that the flags name.
pub(crate) fn ring(flags: &WhichRing) -> Outcome<Ring> {
    let mut secret = Vec::new();
    if let Some(path) = &flags.ring_secret {
        let file = File::open(path).map_err(|e| Failure::io("open", path, &e))?;
        file.take(MAX_INPUT)
            .read_to_end(&mut secret)
            .map_err(|e| Failure::io("read", path, &e))?;
        // An editor's newline is nobody's secret.
        secret.truncate(secret.trim_ascii_end().len());
        if secret.is_empty() {
            return Err(Failure::failed(format!("{} is empty", path.display()))
                .hint("it shall hold the ring's secret, the same for all its nodes"));
        }
    }
    Ok(Ring {
        name: flags.ring_name.clone(),
        secret,
        ..Ring::default()
    })
}

/// A failed operation as the user sees it.
pub(crate) fn failed(what: &str, why: &DhtFailure) -> Failure {
    let (exit, hint) = match why {
        DhtFailure::NoContacts => (
            Exit::Unreachable,
            Some("name a node with --bootstrap ADDRESS:PORT"),
        ),
        DhtFailure::Offline(_) => (
            Exit::Unreachable,
            Some("does it run, and not behind a firewall?"),
        ),
        DhtFailure::NotFound(_) => (Exit::NotFound, None),
        DhtFailure::Refused(_) | DhtFailure::OlderThan(_) | DhtFailure::CasMismatch => {
            (Exit::Refused, None)
        }
        DhtFailure::Invalid(_) => (Exit::Usage, None),
        DhtFailure::Unsupported(_) => (Exit::Usage, Some("--via chord does")),
    };
    let failure = Failure::new(exit, what).because(why);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn node(args: &DhtNodeArgs, ui: &Ui) -> Outcome<Exit> {
    if args.dht.via == Via::Mainline && (args.identity.is_some() || args.positions > 1) {
        return Err(
            Failure::usage("--identity and --positions are for --via chord")
                .reason("a node of Mainline has a number that follows from its address"),
        );
    }
    let identity = args.identity.as_deref().map(key::load_or_make);
    let config = DhtConfig {
        contacts: args.contacts.clone(),
        ring: Some(Ring {
            key: identity.transpose()?.map(|key| key.to_bytes()),
            positions: args.positions,
            ..Ring::default()
        }),
        ..DhtConfig::default()
    };
    let client = Client::start(&args.dht, args.ring_overlay, config, ui)?;
    for addr in client.node.local_addrs() {
        ui.result(&addr.to_string());
    }
    ui.status("Serving", "a node of the DHT until ctrl-C");
    let every = Duration::from_secs(args.stats_interval.max(1));
    while !client.interrupt.asked() && !ui.stdout_closed() {
        match client.interrupt.woken().recv_timeout(every) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => break,
        }
        let Some(status) = client.node.status() else {
            return Err(Failure::failed("the node has stopped"));
        };
        let health = match status.health {
            Health::Starting => "starting",
            Health::Online => "online",
            Health::Offline => "offline",
            Health::Empty => "empty",
        };
        ui.report(&Report::DhtStatus {
            health,
            contacts: status.contacts,
            keys: status.keys,
            peers: status.peers,
            items: status.items,
            records: status.records,
            memory: status.memory,
            datagrams_sent: status.sent.0,
            bytes_sent: status.sent.1,
            datagrams_received: status.received.0,
            bytes_received: status.received.1,
        });
        ui.line(
            "Serving",
            &format!(
                "{health}, {}, {}, {}",
                count(status.contacts as u64, "contact"),
                count(status.peers as u64, "peer"),
                count(status.items as u64, "item"),
            ),
        );
    }
    ui.finish_step();
    Ok(client.stay(ui))
}

fn put(args: &DhtPutArgs, ui: &Ui) -> Outcome<Exit> {
    let value = value(args)?;
    let signer = args.key.as_deref().map(key::load_or_make).transpose()?;
    let salt = args.salt.clone().unwrap_or_default().into_bytes();
    let mut client = Client::brief(&args.dht, ui)?;
    let refused = |e: shoal_dht::ItemError| Failure::usage("this cannot be stored").because(&e);
    let item = match &signer {
        None => Item::immutable(value).map_err(refused)?,
        Some(signer) => {
            let seq = match args.seq {
                Some(seq) => seq,
                None => next_seq(&mut client, signer.verifying_key().to_bytes(), &salt, args)?,
            };
            let item = Mutable::sign(signer, &salt, seq, value).map_err(refused)?;
            Item::Mutable(Box::new(item))
        }
    };
    let request = Request::Put {
        item: item.clone(),
        cas: args.cas,
        keep: args.keep,
    };
    let done = client.run(&request, args.tries.timeout, |_| {})?;
    let stored = done.map_err(|e| failed("cannot store it", &e))?;
    let target = item.target().to_string();
    let public = signer.map(|s| to_hex(&s.verifying_key().to_bytes()));
    ui.report(&Report::Stored {
        target: &target,
        key: public.as_deref(),
        salt: args.salt.as_deref(),
        seq: item.seq(),
        nodes: stored.stored,
    });
    ui.result(public.as_deref().unwrap_or(&target));
    ui.status(
        "Stored",
        &format!("on {}", count(stored.stored.into(), "node")),
    );
    if args.keep {
        return Ok(client.stay(ui));
    }
    client.stop();
    Ok(Exit::Ok)
}

/// The value to store, bencoded.
fn value(args: &DhtPutArgs) -> Outcome<Vec<u8>> {
    let raw = if args.value == "-" {
        let mut raw = Vec::new();
        std::io::stdin()
            .lock()
            .take(MAX_INPUT)
            .read_to_end(&mut raw)
            .map_err(|e| Failure::failed("cannot read stdin").because(&e))?;
        raw
    } else {
        args.value.clone().into_bytes()
    };
    if args.bencode {
        return Ok(raw);
    }
    let mut encoder = Encoder::new();
    encoder.bytes(raw);
    Ok(encoder.into_bytes())
}

/// One more than the sequence number that is stored; the first is 1.
fn next_seq(client: &mut Client, key: [u8; 32], salt: &[u8], args: &DhtPutArgs) -> Outcome<i64> {
    let request = Request::GetMutable {
        key,
        salt: salt.to_vec(),
        newer_than: None,
    };
    let mut newest = 0;
    let done = client.run(&request, args.tries.timeout, |answer| {
        if let Answer::Value(item) = answer {
            newest = newest.max(item.seq().unwrap_or_default());
        }
    })?;
    match done {
        Ok(_) | Err(DhtFailure::NotFound(_)) => newest
            .checked_add(1)
            .ok_or_else(|| Failure::new(Exit::Refused, "no sequence number is left for this key")),
        Err(e) => Err(failed("cannot look up the stored value", &e)),
    }
}

/// A name that `get` takes.
fn name(text: &str, salt: Option<&str>) -> Outcome<Request> {
    if let Ok(key) = from_hex::<32>(text) {
        return Ok(Request::GetMutable {
            key,
            salt: salt.unwrap_or_default().into(),
            newer_than: None,
        });
    }
    match (text.parse::<Id>(), salt) {
        (Ok(target), None) => Ok(Request::GetImmutable { target }),
        (Ok(_), Some(_)) => Err(Failure::usage("an immutable value has no salt")),
        (Err(_), _) => Err(Failure::usage(format!("{text:?} is no name of a value"))
            .hint("40 hexadecimal digits of a hash, or 64 of a public key")),
    }
}

fn get(args: &DhtGetArgs, ui: &Ui) -> Outcome<Exit> {
    let request = name(&args.name, args.salt.as_deref())?;
    let mut client = Client::brief(&args.dht, ui)?;
    let mut found: Option<Item> = None;
    let done = client.run(&request, args.tries.timeout, |answer| {
        if let Answer::Value(item) = answer
            && found.as_ref().is_none_or(|old| old.seq() <= item.seq())
        {
            found = Some(item);
        }
    })?;
    client.stop();
    match (found, done) {
        (Some(item), _) => tell_value(&item, ui),
        (None, Err(e)) => return Err(failed("cannot get it", &e)),
        (None, Ok(o)) => return Err(failed("cannot get it", &DhtFailure::NotFound(o.answered))),
    }
    Ok(Exit::Ok)
}

/// Text as it is, anything else as bencode.
fn tell_value(item: &Item, ui: &Ui) {
    let text = match bencode::decode(item.value()) {
        Ok(Value::Bytes(bytes)) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        _ => None,
    };
    let (key, salt) = match item {
        Item::Immutable(_) | Item::Certified(_) => (None, None),
        Item::Mutable(m) => (
            Some(to_hex(&m.key)),
            (!m.salt.is_empty()).then(|| String::from_utf8_lossy(&m.salt).into_owned()),
        ),
    };
    let target = item.target().to_string();
    ui.report(&Report::Value {
        target: &target,
        key: key.as_deref(),
        salt: salt.as_deref(),
        seq: item.seq(),
        text: text.as_deref(),
        bencode: &to_hex(item.value()),
    });
    let shown = text.unwrap_or_else(|| item.value().escape_ascii().to_string());
    ui.result(&shown);
}

/// A key that peers are announced under.
fn hash(text: &str) -> Outcome<Id> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let magnet = text.parse::<Magnet>().ok().and_then(|m| m.info_hash);
    match magnet {
        Some(InfoHash(hash)) => Ok(Id(hash)),
        None => Err(Failure::usage(format!("{text:?} is no info-hash"))
            .hint("40 hexadecimal digits, or a magnet link with btih")),
    }
}

fn announce(args: &DhtAnnounceArgs, ui: &Ui) -> Outcome<Exit> {
    let key = hash(&args.key)?;
    let mut client = Client::brief(&args.dht, ui)?;
    let request = Request::Announce {
        key,
        port: Some(args.port),
        seed: args.seed,
        keep: args.keep,
    };
    let done = client.run(&request, args.tries.timeout, |_| {})?;
    let stored = done.map_err(|e| failed("cannot announce it", &e))?;
    ui.report(&Report::Announced {
        key: &key.to_string(),
        nodes: stored.stored,
    });
    ui.status(
        "Announced",
        &format!("to {}", count(stored.stored.into(), "node")),
    );
    if args.keep {
        return Ok(client.stay(ui));
    }
    client.stop();
    Ok(Exit::Ok)
}

fn peers(args: &DhtPeersArgs, ui: &Ui) -> Outcome<Exit> {
    let key = hash(&args.key)?;
    let mut client = Client::brief(&args.dht, ui)?;
    let mut found = 0;
    let mut estimate = None;
    let key_text = key.to_string();
    let done = client.run(
        &Request::Peers { key },
        args.tries.timeout,
        |answer| match answer {
            Answer::Peers(peers) => {
                found += peers.len();
                ui.report(&Report::Peers {
                    key: &key_text,
                    peers: &peers,
                });
                for peer in peers {
                    ui.result(&peer.to_string());
                }
            }
            Answer::Scrape { seeds, leechers } => estimate = Some((seeds, leechers)),
            _ => {}
        },
    )?;
    client.stop();
    if let Some((seeds, leechers)) = estimate {
        ui.report(&Report::Scraped {
            key: &key_text,
            seeds,
            leechers,
        });
        ui.status(
            "Estimated",
            &format!("{seeds} with all of it, {leechers} without"),
        );
    }
    match done {
        _ if found > 0 => Ok(Exit::Ok),
        Err(e) => Err(failed("no peers", &e)),
        Ok(o) => Err(failed("no peers", &DhtFailure::NotFound(o.answered))),
    }
}

fn subscribe(args: &DhtSubscribeArgs, ui: &Ui) -> Outcome<Exit> {
    let Ok(Request::GetMutable { key, salt, .. }) = name(&args.name, args.salt.as_deref()) else {
        return Err(Failure::usage(format!("{:?} is no public key", args.name))
            .hint("64 hexadecimal digits"));
    };
    let client = Client::brief(&args.dht, ui)?;
    client.node.request(0, Request::Subscribe { key, salt });
    let (mut heard, mut warned) = (0, false);
    while !client.interrupt.asked() && !ui.stdout_closed() {
        match client.hear(Instant::now() + LOOK) {
            Ok(Some((_, Answer::Value(item)))) => {
                tell_value(&item, ui);
                heard += 1;
                if Some(heard) == args.count {
                    client.stop();
                    return Ok(Exit::Ok);
                }
            }
            // It goes on by itself when somebody answers.
            Ok(Some((_, Answer::Done(Err(e))))) if !std::mem::replace(&mut warned, true) => {
                ui.warn(&format!("{e}; trying on"));
            }
            Ok(_) => {}
            Err(failure) if failure.exit == Exit::Interrupted => break,
            Err(failure) => return Err(failure),
        }
    }
    client.stop();
    Ok(Exit::Interrupted)
}
