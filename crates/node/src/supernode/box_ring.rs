//! The ring of names for those with a link to boxes who cannot ask it themselves, as they have no UDP: what
//! they want of it is asked by the supernode that the boxes are at.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Weak;

use shoal_call::mailbox::office::LinkId;
use shoal_call::mailbox::wire::{Found, Told, Unkept};
use shoal_call::record::Record;
use shoal_dht::{Answer, Failure};
use shoal_supernode::token::Key;

use super::name_ring;
use crate::dht::{DhtNode, Ticket};

/// Questions that wait for the ring at most.
const MAX_ASKED: usize = 1000;

#[derive(Debug)]
enum Asked {
    Publish,
    Look(String, Option<Box<Record<SocketAddr>>>),
}

/// A supernode's place in the ring, as its boxes use it.
#[derive(Debug)]
pub(super) struct BoxRing {
    node: Weak<DhtNode>,
    server: Key,
    asked: BTreeMap<Ticket, (LinkId, Asked)>,
    ticket: Ticket,
}

impl BoxRing {
    /// By this node, of the ring of those who trust `server`.
    pub(super) fn new(node: Weak<DhtNode>, server: Key) -> Self {
        Self {
            node,
            server,
            asked: BTreeMap::new(),
            ticket: 0,
        }
    }

    fn ask(&mut self, link: LinkId, asked: Asked, request: shoal_dht::Request) -> bool {
        let Some(node) = self.node.upgrade().filter(|_| self.asked.len() < MAX_ASKED) else {
            return false;
        };
        self.ticket += 1;
        self.asked.insert(self.ticket, (link, asked));
        node.request(self.ticket, request);
        true
    }

    /// Puts the record of a name into the ring; what is to be said at once.
    pub(super) fn publish(&mut self, link: LinkId, name: &str, bytes: &[u8]) -> Option<Told> {
        let checked = Record::<SocketAddr>::check(&self.server, name, bytes, super::unix());
        let told = match checked {
            Ok(record) => {
                let request = name_ring::put(self.server, &record);
                (!self.ask(link, Asked::Publish, request)).then_some(Unkept::NoAnswer)
            }
            Err(_) => Some(Unkept::Unfit),
        };
        told.map(|why| Told::Published(Err(why)))
    }

    /// Looks for the record of a name; what is to be said at once.
    pub(super) fn look(&mut self, link: LinkId, name: String) -> Option<Told> {
        let request = name_ring::get(self.server, &name);
        let asked = self.ask(link, Asked::Look(name.clone(), None), request);
        (!asked).then_some(Told::Looked(name, Found::NoAnswer))
    }

    /// The ring answered; who is to be told what, if that was all.
    pub(super) fn answered(&mut self, ticket: Ticket, answer: Answer) -> Option<(LinkId, Told)> {
        match answer {
            Answer::Value(item) => {
                if let Some((_, Asked::Look(name, found))) = self.asked.get_mut(&ticket)
                    && let Some(record) = name_ring::read(&self.server, name, &item)
                    && found.as_ref().is_none_or(|f| record.rank() > f.rank())
                {
                    *found = Some(Box::new(record));
                }
                None
            }
            Answer::Done(done) => {
                let (link, asked) = self.asked.remove(&ticket)?;
                let told = match (asked, done) {
                    (Asked::Publish, Ok(outcome)) => Told::Published(Ok(outcome.stored)),
                    (Asked::Publish, Err(Failure::OlderThan(rank))) => {
                        Told::Published(Err(Unkept::Older(rank)))
                    }
                    (Asked::Publish, Err(_)) => Told::Published(Err(Unkept::NoAnswer)),
                    (Asked::Look(name, Some(record)), _) => {
                        Told::Looked(name, Found::Record(record.to_bytes()))
                    }
                    (Asked::Look(name, None), Ok(_) | Err(Failure::NotFound(_))) => {
                        Told::Looked(name, Found::Nothing)
                    }
                    (Asked::Look(name, None), Err(_)) => Told::Looked(name, Found::NoAnswer),
                };
                Some((link, told))
            }
            _ => None,
        }
    }
}
