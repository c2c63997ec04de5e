//! Letters straight from one end to the other, over a connection that the driver makes, while both are
//! there: no supernode sees that there are any. Boxes are for who is away, and for what has no receipt
//! after a moment.
//!
//! The letters are the same, sealed and numbered alike, so that it does no harm when one comes by both
//! ways.

use std::time::Duration;

use shoal_base::Time;
use shoal_supernode::Address;
use shoal_supernode::token::Key;

use super::buddies::Status;
use super::{Chat, Effect};
use crate::mailbox::Envelope;

/// How long texts wait for a connection that is being made.
const WAIT: Duration = Duration::from_secs(2);
/// After how long without a receipt a text goes into boxes, too.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// How soon an attempt that failed is made again; each time twice as long, up to the longest.
const AGAIN: Duration = Duration::from_secs(30);
const MAX_AGAIN: Duration = Duration::from_secs(600);
/// Connections at once at most.
const MAX_LINKS: usize = 64;

/// A connection that ended sooner was of no use.
const USEFUL: Duration = Duration::from_secs(60);

/// A connection to somebody.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    since: Time,
    /// A text had no receipt in time: nobody may be there any more.
    doubtful: bool,
}

/// What was tried to reach somebody.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// An attempt is under way since.
    since: Option<Time>,
    /// The next is made then at the earliest, and how many failed.
    next: Time,
    failed: u32,
}

/// Which way letters go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Boxes,
    Straight,
    /// A connection is being made.
    Wait,
}

impl<A: Address> Chat<A> {
    /// The driver can reach others from now on: [`Effect::Reach`] is meant for it.
    pub fn can_reach(&mut self) {
        self.reaches = true;
    }

    /// Somebody is written with: a connection is made even when nothing waits.
    pub fn want(&mut self, now: Time, name: &str, out: &mut Vec<Effect<A>>) {
        if let Some(person) = self.person(name) {
            person.wanted = true;
        }
        self.work(now, &shoal_supernode::names::fold::fold(name));
        self.flush(out);
    }

    /// A connection to who has this key is there, or is there no more, or cannot be made. Of several to
    /// one end the driver tells when the first comes and the last goes.
    pub fn on_link(&mut self, now: Time, key: Key, up: bool, out: &mut Vec<Effect<A>>) {
        let mut useful = false;
        if !up {
            let link = self.links.remove(&key);
            useful = link.is_some_and(|l| now.since(l.since) >= USEFUL);
        } else if self.links.len() < MAX_LINKS {
            let (since, doubtful) = (now, false);
            self.links.insert(key, Link { since, doubtful });
        }
        let of = |p: &super::Person<A>| p.key.is_some_and(|(k, _)| k == key);
        let person = self.people.iter_mut().find(|(_, p)| of(p));
        if let Some((name, person)) = person {
            let tries = &mut person.tries_straight;
            tries.since = None;
            if useful {
                *tries = Tries::default();
            } else if !up {
                let wait = AGAIN * 2_u32.saturating_pow(tries.failed.min(8));
                tries.failed = tries.failed.saturating_add(1);
                tries.next = now + wait.min(MAX_AGAIN);
            }
            person.out.link_changed();
            let name = name.clone();
            self.work(now, &name);
        }
        self.flush(out);
    }

    /// A letter came over the connection to who has this key.
    pub fn on_straight(
        &mut self,
        now: Time,
        key: Key,
        envelope: &Envelope,
        out: &mut Vec<Effect<A>>,
    ) {
        if let Some(link) = self.links.get_mut(&key) {
            link.doubtful = false;
        }
        let id = envelope.id();
        if !self.seen.contains(&id) && self.read(now, None, envelope) {
            self.note(id);
        }
        self.flush(out);
    }

    /// Somebody is there: a letter came, or presence. An attempt that is due later is due now.
    pub(super) fn is_there(&mut self, name: &str) {
        let person = self.people.get_mut(name);
        if let Some(person) = person.filter(|p| p.tries_straight.failed <= 1) {
            person.tries_straight.next = Time::ZERO;
        }
    }

    /// The way to somebody; asks the driver for a connection if that is worth it.
    pub(super) fn way_to(&mut self, now: Time, name: &str) -> Way {
        let Some(person) = self.people.get_mut(name) else {
            return Way::Boxes;
        };
        let Some((key, _)) = person.key else {
            return Way::Boxes;
        };
        match self.links.get(&key) {
            Some(link) if !link.doubtful => return Way::Straight,
            Some(_) => return Way::Boxes,
            None if !self.reaches => return Way::Boxes,
            None => {}
        }
        let tries = &mut person.tries_straight;
        match tries.since {
            Some(since) if now.since(since) < WAIT => Way::Wait,
            Some(_) => Way::Boxes,
            // For what nobody waits for nobody is reached who may not be there.
            None if tries.next > now
                || !person.wanted
                    && !person.out.has_texts()
                    && person.presence.status() == Status::Offline =>
            {
                Way::Boxes
            }
            None => {
                tries.since = Some(now);
                self.out.push(Effect::Reach(key));
                Way::Wait
            }
        }
    }

    /// A text over this connection had no receipt.
    pub(super) fn doubt(&mut self, key: &Key) {
        if let Some(link) = self.links.get_mut(key) {
            link.doubtful = true;
        }
    }
}
