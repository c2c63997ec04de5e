//! Places in the ring of names, as a supernode's core asks for them and has them kept.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Weak;

use shoal_dht::{Answer, Failure};
use shoal_supernode::place::{Place, Prefix};
use shoal_supernode::token::Key;

use super::name_ring;
use crate::dht::{DhtNode, Ticket};

/// Tickets of places, of one node of the ring that others ask as well, begin here.
const FIRST: Ticket = 1 << 63;
/// Questions that wait for the ring at most.
const MAX_ASKED: usize = 4096;

#[derive(Debug)]
enum Asked {
    Find(Prefix, Option<Box<Place<SocketAddr>>>),
    Keep(Box<Place<SocketAddr>>),
}

/// What came of a question.
#[derive(Debug)]
pub(super) enum Came {
    /// The place of whoever has a key that begins so, or nobody has one.
    Place(Prefix, Option<Box<Place<SocketAddr>>>),
    /// The ring did not keep this.
    Unkept(Box<Place<SocketAddr>>),
}

/// Whether an answer with this ticket is about places.
pub fn is_of_places(ticket: Ticket) -> bool {
    ticket >= FIRST
}

/// A supernode's place in the ring, as its core uses it.
#[derive(Debug)]
pub(super) struct PlaceRing {
    node: Weak<DhtNode>,
    server: Key,
    asked: BTreeMap<Ticket, Asked>,
    next: Ticket,
}

impl PlaceRing {
    /// By this node, of the ring of those who trust `server`.
    pub(super) fn new(node: Weak<DhtNode>, server: Key) -> Self {
        Self {
            node,
            server,
            asked: BTreeMap::new(),
            next: FIRST,
        }
    }

    /// False: it cannot be asked.
    fn ask(&mut self, asked: Asked, request: shoal_dht::Request) -> bool {
        let Some(node) = self.node.upgrade() else {
            return false;
        };
        if self.asked.len() >= MAX_ASKED {
            // Answers that were lost: what still waits is asked again, or given up, by who asked.
            self.asked.clear();
        }
        self.next = self.next.wrapping_add(1).max(FIRST);
        self.asked.insert(self.next, asked);
        node.request(self.next, request);
        true
    }

    /// Looks for a place; what is clear at once.
    pub(super) fn find(&mut self, of: Prefix) -> Option<Came> {
        let request = name_ring::get_place(self.server, &of);
        let asked = self.ask(Asked::Find(of, None), request);
        (!asked).then_some(Came::Place(of, None))
    }

    /// Has a place kept; what is clear at once.
    pub(super) fn keep(&mut self, place: Box<Place<SocketAddr>>) -> Option<Came> {
        let request = name_ring::put_place(self.server, &place);
        let asked = self.ask(Asked::Keep(place.clone()), request);
        (!asked).then_some(Came::Unkept(place))
    }

    /// The ring answered; what came of it, if that was all.
    pub(super) fn answered(&mut self, ticket: Ticket, answer: Answer) -> Option<Came> {
        match answer {
            Answer::Value(item) => {
                if let Some(Asked::Find(of, found)) = self.asked.get_mut(&ticket)
                    && let Some(place) = name_ring::read_place(&self.server, of, &item)
                    && found.as_ref().is_none_or(|f| place.rank() > f.rank())
                {
                    *found = Some(Box::new(place));
                }
                None
            }
            Answer::Done(done) => match (self.asked.remove(&ticket)?, done) {
                (Asked::Find(of, found), _) => Some(Came::Place(of, found)),
                // A newer one is known: its owner has moved on.
                (Asked::Keep(_), Ok(_) | Err(Failure::OlderThan(_))) => None,
                (Asked::Keep(place), Err(why)) => {
                    tracing::debug!(%why, "a place is not kept");
                    Some(Came::Unkept(place))
                }
            },
            _ => None,
        }
    }
}
