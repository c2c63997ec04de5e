//! The protocol without a node behind it: for tests, fuzzers and probes that say what no honest
//! node would.

use super::links::{Event, Links, Waiting};
use super::message::Message;
use super::place::{Place, position};
use super::wire::{self, Ask, Body, Ends, Reply};
use crate::{Id, Item, Output};
use ed25519_dalek::SigningKey;
use shoal_base::{Rng, Time};
use std::net::SocketAddr;

/// Sessions with the nodes of a ring, and whatever bodies their holder likes.
pub struct Line {
    links: Links,
}

impl Line {
    /// One with a key of its own in the ring of this name and secret.
    pub fn new(secret: SigningKey, ring: &str, ring_secret: &[u8], rng: Rng) -> Self {
        let links = Links::new(secret, ring, ring_secret, rng);
        Self { links }
    }

    /// Its public key.
    pub fn key(&self) -> [u8; 32] {
        self.links.public
    }

    /// The place that it has on the ring, seen at `socket`.
    pub fn place(&self, socket: SocketAddr) -> Place {
        let (id, index) = (position(&self.links.public, 0), 0);
        Place { id, index, socket }
    }

    /// Sends a body, after the handshake if there was none yet.
    pub fn say(&mut self, now: Time, to: SocketAddr, body: Vec<u8>, out: &mut Vec<Output>) {
        let token = None;
        self.links.send(now, to, Waiting { body, token }, out);
    }

    /// Takes a datagram; gives the body, if it brings one. What it has to send is appended.
    pub fn hear(
        &mut self,
        now: Time,
        from: SocketAddr,
        bytes: &[u8],
        out: &mut Vec<Output>,
    ) -> Option<Vec<u8>> {
        let mut events = Vec::new();
        let arrived = self.links.on_datagram(now, from, bytes, &mut events, out);
        for event in events {
            if let Event::Ready(to, _, waiting) = event {
                for waiting in waiting {
                    self.links.send(now, to, waiting, out);
                }
            }
        }
        arrived.map(|a| a.body)
    }
}

/// A body between two ring positions.
pub fn ring(to: u8, from: u8, message: Message<Id, Place>) -> Vec<u8> {
    wire::encode(&Body::Ring { to, from, message }, &|_| None)
}

/// A request to store.
pub fn put(number: u32, item: Item, cas: Option<i64>) -> Vec<u8> {
    let ask = Ask::Put { item, cas };
    wire::encode(&Body::Ask { number, ask }, &|_| None)
}

/// A request for a value.
pub fn get(number: u32, target: Id) -> Vec<u8> {
    let ask = Ask::Get { target };
    wire::encode(&Body::Ask { number, ask }, &|_| None)
}

/// The message to one of the receiver's positions that a body of the holder of `key` at `from` is.
pub fn read_ring(body: &[u8], from: SocketAddr, key: &[u8; 32]) -> Option<Message<Id, Place>> {
    let ends = Ends { socket: from, key };
    match wire::decode(body, &ends).ok()? {
        Body::Ring { message, .. } => Some(message),
        _ => None,
    }
}

/// The number of an answer, and whether it says that something was stored.
pub fn stored(body: &[u8], from: SocketAddr, key: &[u8; 32]) -> Option<(u32, bool)> {
    let ends = Ends { socket: from, key };
    match wire::decode(body, &ends).ok()? {
        Body::Reply { number, reply } => Some((number, matches!(reply, Reply::Stored))),
        _ => None,
    }
}

/// Reads a body and writes it again; none if it is no body. What is written reads as the same.
///
/// # Panics
/// If it does not: then reading and writing disagree.
pub fn reread(body: &[u8]) -> Option<Vec<u8>> {
    let (key, socket) = ([7; 32], SocketAddr::from(([10, 0, 0, 1], 7000)));
    let ends = Ends { socket, key: &key };
    let own = |id: Id| (0..=255).find(|index| position(&key, *index) == id);
    let read = wire::decode(body, &ends).ok()?;
    let written = wire::encode(&read, &own);
    let again = wire::decode(&written, &ends);
    assert!(again.is_ok_and(|again| again == read), "{read:?}");
    Some(written)
}
