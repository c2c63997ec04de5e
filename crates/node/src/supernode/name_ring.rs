//! The ring of supernodes that keeps people's records, and the places of nodes: a member's node, or a guest's.

use std::net::SocketAddr;

use ed25519_dalek::SigningKey;
use shoal_base::Time;
use shoal_base::id::to_hex;
use shoal_call::record::Record;
use shoal_dht::{Certified, Item, Judge, Request};
use shoal_supernode::names::fold::fold;
use shoal_supernode::place::{self, Place, Prefix};
use shoal_supernode::token::Key;

use crate::dht::{DhtConfig, DhtError, DhtNode, Ring, Sink, listen_addrs};

/// Judges records of people and places of nodes: those whose certificates and tokens are by `server`, and which
/// hold at the moment.
/// `epoch` is the Unix time, in seconds, of [`Time::ZERO`].
pub(crate) fn judge(server: Key, epoch: u64) -> Judge {
    Judge::new(move |now: Time, item: &Certified| {
        let unix = epoch + now.as_micros() / 1_000_000;
        if item.authority != server {
            return None;
        }
        let (rank, expires) = match place::read_name(&item.name) {
            Some(of) => {
                let place = Place::<SocketAddr>::read(&server, &of, &item.value, unix).ok()?;
                (place.rank(), place.expires)
            }
            None => {
                let name = std::str::from_utf8(&item.name).ok()?;
                let record = Record::<SocketAddr>::check(&server, name, &item.value, unix).ok()?;
                (record.rank(), record.expires)
            }
        };
        let left = std::time::Duration::from_secs(expires.saturating_sub(unix));
        (rank == item.seq).then(|| now + left)
    })
}

/// A node of the ring of the overlay that trusts `server`. A member stands at `listen`, whose place
/// follows from its key, and begins the ring if there is nobody to join at; a guest asks only.
///
/// # Errors
/// Why not.
pub fn name_ring(
    server: Key,
    listen: SocketAddr,
    member: Option<&SigningKey>,
    doors: &[SocketAddr],
    seed: u64,
    sink: Sink,
) -> Result<DhtNode, DhtError> {
    let config = DhtConfig {
        listen: listen_addrs(listen),
        bootstrap: doors.iter().map(ToString::to_string).collect(),
        read_only: member.is_none(),
        seed,
        ring: Some(Ring {
            name: format!("shoal names {}", to_hex(&server)),
            key: member.map(SigningKey::to_bytes),
            names_of: Some(server),
            ..Ring::default()
        }),
        ..DhtConfig::default()
    };
    DhtNode::start(config, sink)
}

/// Keeps a record in the ring.
pub(super) fn put(server: Key, record: &Record<SocketAddr>) -> Request {
    keep(Certified {
        authority: server,
        name: record.name().into_bytes(),
        seq: record.rank(),
        value: record.to_bytes(),
    })
}

/// Keeps a place in the ring.
pub(super) fn put_place(server: Key, place: &Place<SocketAddr>) -> Request {
    keep(Certified {
        authority: server,
        name: place::name(&place.prefix()),
        seq: place.rank(),
        value: place.to_bytes(),
    })
}

fn keep(item: Certified) -> Request {
    Request::Put {
        item: Item::Certified(Box::new(item)),
        cas: None,
        keep: false,
    }
}

/// Looks for the place of whoever has a key that begins so.
pub(super) fn get_place(server: Key, of: &Prefix) -> Request {
    Request::GetCertified {
        authority: server,
        name: place::name(of),
    }
}

/// The place that the ring gave, checked again.
pub(super) fn read_place(server: &Key, of: &Prefix, item: &Item) -> Option<Place<SocketAddr>> {
    let Item::Certified(item) = item else {
        return None;
    };
    Place::read(server, of, &item.value, super::unix()).ok()
}

/// Looks for the record of a name.
pub fn get(server: Key, name: &str) -> Request {
    Request::GetCertified {
        authority: server,
        name: fold(name).into_bytes(),
    }
}

/// The record of a name that the ring gave, checked again.
pub fn read(server: &Key, name: &str, item: &Item) -> Option<Record<SocketAddr>> {
    let Item::Certified(item) = item else {
        return None;
    };
    Record::check(server, &fold(name), &item.value, super::unix()).ok()
}
