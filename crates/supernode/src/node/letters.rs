//! Letters: sealed messages to a key, wherever in the overlay its owner is.
//!
//! A supernode that has the recipient as a child, or a link with it, hands the letter over; else it finds the
//! recipient's supernode in the ring and gives it the letter ([`super::carry`]). Who is in no ring asks a
//! neighbour that is. What nobody knows a way for is flooded, and each remembers which way its sender is, so
//! that the answer goes straight back. A letter may also be for whoever has a key that begins as its name does:
//! that asks who has an overlay address ([`shoal_reach::overlay`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use shoal_base::Time;
use shoal_reach::overlay::is_for;

use super::links::{Link, Stage};
use super::queries::Allowance;
use super::{Effect, Event, LinkId, Node, Role};
use crate::Address;
use crate::token::Key;
use crate::wire::{Course, Letter, MAX_LETTER, Message, QueryId};

/// Letters remembered, and senders whose ways are.
const MAX_SEEN: usize = 8192;
const MAX_WAYS: usize = 4096;
/// How long the way to a sender is believed.
const WAY: Duration = Duration::from_secs(300);
/// How far a letter may say that it is to be flooded.
const MAX_FLOOD: u8 = 7;
/// Letters that another supernode, which is no neighbour, may bring in a minute.
const CARRIED: u32 = 1200;

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
            Stage::Carrier => CARRIED,
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
            course: Course::Find,
            place: self.own_place(),
            sealed,
        };
        self.post.note(id);
        let goes = match (self.role, self.parent) {
            (Role::Peer, Some(parent)) => {
                self.hand(parent, letter);
                true
            }
            (Role::Peer, None) => false,
            (Role::Supernode, _) => self.carry(None, letter),
        };
        self.flush(out);
        goes
    }

    /// Gives a letter to the other side of a link.
    pub(super) fn hand(&mut self, link: LinkId, letter: Letter<A>) {
        self.stats.letters += 1;
        if let Some(of) = self.links.get_mut(&link) {
            of.used = self.now;
        }
        self.send(link, Message::Letter(Box::new(letter)));
    }

    /// A letter came: it is for us, or goes on.
    pub(super) fn letter_from(&mut self, link: LinkId, stage: Stage, mut letter: Letter<A>) {
        let now = self.now;
        let Some(of) = self.links.get_mut(&link) else {
            return;
        };
        let theirs = of.theirs.as_ref().map(|p| p.token.key);
        let may = match (stage, letter.course) {
            (Stage::Child, Course::Find) => theirs == Some(letter.from),
            (Stage::Parent, _) | (Stage::Neighbour, Course::Find | Course::To(_)) => true,
            (Stage::Carrier, Course::To(_)) => true,
            (Stage::Neighbour, Course::Flood(ttl)) => ttl <= MAX_FLOOD,
            _ => false,
        };
        if !may || letter.sealed.len() > MAX_LETTER {
            return self.strike(link);
        }
        // What a supernode hands to its child was counted before.
        if stage != Stage::Parent && !of.letters.take(now) {
            self.stats.limited += 1;
            return;
        }
        of.used = now;
        if stage == Stage::Child {
            letter.place = of.place.clone();
        }
        if !self.post.note(letter.id) {
            return;
        }
        if self.role == Role::Supernode && stage != Stage::Child {
            self.learn_place(letter.from, letter.place.as_deref());
        }
        if is_for(&letter.to, &self.presence.token.key) {
            self.tell(Event::Letter(letter.from, letter.sealed));
            return;
        }
        if self.role == Role::Peer {
            return self.strike(link);
        }
        match letter.course {
            Course::Find => drop(self.carry(Some(link), letter)),
            Course::To(home) => self.bring(link, home, letter),
            Course::Flood(ttl) => {
                self.post.learn(now, letter.from, link);
                self.flood(Some(link), &letter, ttl);
            }
        }
    }

    /// The link with whoever a letter is for.
    pub(super) fn here(&self, to: &Key) -> Option<LinkId> {
        let is_theirs = |l: &Link<A>| l.theirs.as_ref().is_some_and(|p| is_for(to, &p.token.key));
        let mut here = self.links.iter().filter(|(_, l)| {
            matches!(l.stage, Stage::Child | Stage::Neighbour | Stage::Carrier) && is_theirs(l)
        });
        here.next().map(|(id, _)| *id)
    }

    /// A letter for a child of ours, or of the neighbour that has this key.
    fn bring(&mut self, from: LinkId, home: Key, letter: Letter<A>) {
        let ours = home == self.presence.token.key;
        let wanted = if ours { letter.to } else { home };
        let stage = if ours { Stage::Child } else { Stage::Neighbour };
        let is_theirs = |l: &Link<A>| {
            let theirs = l.theirs.as_ref();
            l.stage == stage && theirs.is_some_and(|p| is_for(&wanted, &p.token.key))
        };
        let to = self.links.iter().find(|(_, l)| is_theirs(l));
        match to.map(|(id, _)| *id).filter(|id| *id != from) {
            Some(to) => self.hand(to, letter),
            None => self.send(from, Message::NotHere(letter.id)),
        }
    }

    /// Which way the sender of a flooded letter is.
    pub(super) fn way(&self, to: &Key) -> Option<LinkId> {
        let (id, at) = self.post.ways.get(to)?;
        let up = |l: &Link<A>| matches!(l.stage, Stage::Child | Stage::Neighbour);
        let holds = self.now.since(*at) < WAY && self.links.get(id).is_some_and(up);
        holds.then_some(*id)
    }

    /// Sends a letter to its recipient if there is a link, else the way where that wrote from, else to all
    /// neighbours. False if there is nobody to send it to.
    pub(super) fn flood(&mut self, from: Option<LinkId>, letter: &Letter<A>, ttl: u8) -> bool {
        let to: Vec<LinkId> = match (self.here(&letter.to), ttl, self.way(&letter.to)) {
            (Some(id), _, _) => vec![id],
            (None, 0, _) => Vec::new(),
            (None, _, Some(id)) if Some(id) != from => vec![id],
            _ => self.of_stage(Stage::Neighbour),
        };
        let course = Course::Flood(ttl.saturating_sub(1));
        let mut goes = false;
        for id in to.into_iter().filter(|id| Some(*id) != from) {
            let letter = letter.clone();
            self.hand(id, Letter { course, ..letter });
            goes = true;
        }
        goes
    }
}
