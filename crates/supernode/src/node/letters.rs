//! Letters: sealed messages to a key, wherever in the overlay its owner is; and the relays that
//! supernodes tell of.
//!
//! A supernode that has the recipient as a child hands the letter over; else it floods it, and
//! remembers which way its sender is, so that the answer goes straight back. A letter may also be
//! for whoever has a key that begins as its name does: that asks who has an overlay address
//! ([`shoal_reach::overlay`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use shoal_base::{Time, id::to_hex};
use shoal_reach::overlay::is_for;
use shoal_reach::turn::credential::Credential;

use super::links::Stage;
use super::queries::Allowance;
use super::{Effect, Event, LinkId, Node, Role};
use crate::Address;
use crate::token::Key;
use crate::wire::{Letter, MAX_LETTER, MAX_RELAYS, Message, QueryId, Relay};

/// Letters remembered, and senders whose ways are.
const MAX_SEEN: usize = 8192;
const MAX_WAYS: usize = 4096;
/// How long the way to a sender is believed.
const WAY: Duration = Duration::from_secs(300);
/// How long a credential for a relay holds, in seconds.
const CREDENTIAL: u64 = 3600;

/// What passed here.
#[derive(Debug, Default)]
pub(super) struct Post {
    seen: BTreeSet<QueryId>,
    order: VecDeque<QueryId>,
    ways: BTreeMap<Key, (LinkId, Time)>,
}

impl Post {
    /// Whether it is new.
    fn note(&mut self, id: QueryId) -> bool {
        if !self.seen.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > MAX_SEEN
            && let Some(old) = self.order.pop_front()
        {
            self.seen.remove(&old);
        }
        true
    }

    fn learn(&mut self, now: Time, sender: Key, by: LinkId) {
        if self.ways.len() >= MAX_WAYS && !self.ways.contains_key(&sender) {
            self.ways.retain(|_, (_, at)| now.since(*at) < WAY);
            if self.ways.len() >= MAX_WAYS {
                // A flood: forgetting the ways costs a few letters a longer way.
                self.ways.clear();
            }
        }
        self.ways.insert(sender, (by, now));
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.seen.len() <= MAX_SEEN + 1 && self.seen.len() == self.order.len());
        assert!(self.ways.len() <= MAX_WAYS);
    }
}

impl<A: Address> Node<A> {
    pub(super) fn letter_allowance(&self, stage: Stage) -> Allowance {
        Allowance::new(match stage {
            Stage::Child => self.config.letters_per_minute,
            _ => self.config.flood_per_minute,
        })
    }

    /// Sends a sealed letter to whoever has this key. False if there is no way out.
    pub fn write(&mut self, now: Time, to: Key, sealed: Vec<u8>, out: &mut Vec<Effect<A>>) -> bool {
        self.now = now;
        let mut id = [0; 16];
        self.rng.fill(&mut id);
        let letter = Letter {
            id,
            from: self.presence.token.key,
            to,
            ttl: self.config.ttl,
            sealed,
        };
        self.post.note(id);
        let goes = match (self.role, self.parent) {
            (Role::Peer, Some(parent)) => {
                self.send(parent, Message::Letter(Box::new(letter)));
                true
            }
            (Role::Peer, None) => false,
            (Role::Supernode, _) => self.pass_on(None, letter),
        };
        self.flush(out);
        goes
    }

    /// A letter came: it is for us, or goes on.
    pub(super) fn letter_from(&mut self, link: LinkId, stage: Stage, letter: Letter) {
        let now = self.now;
        let Some(of) = self.links.get_mut(&link) else {
            return;
        };
        let theirs = of.theirs.as_ref().map(|p| p.token.key);
        let honest = stage != Stage::Child || theirs == Some(letter.from);
        let fits = letter.sealed.len() <= MAX_LETTER && letter.ttl <= self.config.ttl.max(7);
        if !honest || !fits {
            return self.strike(link);
        }
        // What a supernode hands to its child was counted before.
        if stage != Stage::Parent && !of.letters.take(now) {
            self.stats.limited += 1;
            return;
        }
        if !self.post.note(letter.id) {
            return;
        }
        if is_for(&letter.to, &self.presence.token.key) {
            self.tell(Event::Letter(letter.from, letter.sealed));
            return;
        }
        if self.role == Role::Peer {
            return self.strike(link);
        }
        self.post.learn(now, letter.from, link);
        self.pass_on(Some(link), letter);
    }

    fn pass_on(&mut self, from: Option<LinkId>, mut letter: Letter) -> bool {
        let is_up = |stage| matches!(stage, Stage::Child | Stage::Neighbour);
        let child = self.links.iter().find(|(_, l)| {
            let theirs = l.theirs.as_ref().map(|p| &p.token.key);
            l.stage == Stage::Child && theirs.is_some_and(|key| is_for(&letter.to, key))
        });
        let way = self.post.ways.get(&letter.to).filter(|(id, at)| {
            let up = self.links.get(id).is_some_and(|l| is_up(l.stage));
            up && self.now.since(*at) < WAY && Some(*id) != from
        });
        let to: Vec<LinkId> = match (child, way) {
            (Some((id, _)), _) => vec![*id],
            _ if letter.ttl == 0 => Vec::new(),
            (None, Some((id, _))) => vec![*id],
            (None, None) => self.of_stage(Stage::Neighbour),
        };
        letter.ttl = letter.ttl.saturating_sub(1);
        let mut goes = false;
        for id in to.into_iter().filter(|id| Some(*id) != from) {
            self.stats.letters += 1;
            self.send(id, Message::Letter(Box::new(letter.clone())));
            goes = true;
        }
        goes
    }

    /// Tells a child which relays it may use, and a neighbour of ours.
    pub(super) fn tell_relays(&mut self, id: LinkId) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let mut relays = Vec::new();
        if let (Some(offer), Some(theirs)) = (&self.config.relay, &link.theirs) {
            let mut user = to_hex(&theirs.token.key);
            user.truncate(16);
            let expires = self.unix() + CREDENTIAL;
            let Credential { name, password } =
                Credential::short_lived(&offer.secret, &user, expires);
            let at = offer.at.clone();
            relays.push(Relay { at, name, password });
        }
        if link.stage == Stage::Child {
            relays.extend(self.relays_of_neighbours());
            relays.truncate(MAX_RELAYS);
        }
        if !relays.is_empty() {
            self.send(id, Message::Relays(relays));
        }
    }

    fn relays_of_neighbours(&self) -> impl Iterator<Item = Relay> {
        let neighbours = self.links.values().filter(|l| l.stage == Stage::Neighbour);
        neighbours.flat_map(|l| l.relays.iter().take(1).cloned())
    }

    /// The other side told of relays.
    pub(super) fn relays_of(&mut self, id: LinkId, stage: Stage, mut relays: Vec<Relay>) {
        relays.truncate(MAX_RELAYS);
        relays.iter_mut().for_each(|r| r.at.truncate(MAX_RELAYS));
        relays.retain(|r| r.name.len() <= 128 && r.password.len() <= 128 && !r.at.is_empty());
        if stage == Stage::Parent {
            self.tell(Event::Relays(relays));
            return;
        }
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let new = link.relays.is_empty() && !relays.is_empty();
        link.relays = relays;
        let mut all: Vec<_> = self.relays_of_neighbours().collect();
        all.truncate(MAX_RELAYS);
        self.tell(Event::Relays(all));
        if new {
            for child in self.of_stage(Stage::Child) {
                self.tell_relays(child);
            }
        }
    }
}
