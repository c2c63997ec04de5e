//! Places: each node says, signed, by which supernode letters to it are taken; supernodes have the ring keep
//! that for their children, for themselves, and for neighbours that stand in no ring.
//!
//! The doors of a supernode in the ring are its own address. Others, which are behind NATs, name neighbours that
//! are in it: those have a link with them.

use std::collections::VecDeque;
use std::time::Duration;

use shoal_base::Time;

use super::links::{Link, Stage};
use super::{Effect, LinkId, Node, Role};
use crate::Address;
use crate::place::{LIFE, MAX_DOORS, Place};
use crate::wire::Message;

/// How often a place is signed anew, each time from half of that on.
const RENEW: Duration = Duration::from_secs(LIFE / 2);
/// How soon a place that the ring did not keep is given to it again.
const AGAIN: Duration = Duration::from_secs(5);
/// Places that wait for that.
const MAX_UNKEPT: usize = 1024;

/// What is told of places.
#[derive(Debug)]
pub(super) struct Doors<A> {
    /// What our children were told.
    told: Vec<A>,
    /// What our supernode told us.
    home: Vec<A>,
    own: Option<Box<Place<A>>>,
    next: Time,
    seq: u64,
    unkept: VecDeque<(Time, Box<Place<A>>)>,
}

impl<A> Default for Doors<A> {
    fn default() -> Self {
        Self {
            told: Vec::new(),
            home: Vec::new(),
            own: None,
            next: Time::ZERO,
            seq: 0,
            unkept: VecDeque::new(),
        }
    }
}

impl<A: Address> Node<A> {
    /// Whether it stands in the ring of supernodes: then it is asked by [`Effect::Find`] where others are, and has it
    /// keep places by [`Effect::Keep`].
    pub fn set_finds(&mut self, now: Time, finds: bool, out: &mut Vec<Effect<A>>) {
        self.now = now;
        if self.finds != finds {
            self.finds = finds;
            for id in self.of_stage(Stage::Neighbour) {
                self.tell_state_to(id);
            }
            self.renew_place();
        }
        self.flush(out);
    }

    /// Our place, as it was last signed.
    pub(super) fn own_place(&self) -> Option<Box<Place<A>>> {
        self.doors.own.clone()
    }

    /// Neighbours that stand in the ring.
    pub(super) fn finders(&self) -> impl Iterator<Item = LinkId> + '_ {
        let finds = |l: &Link<A>| l.stage == Stage::Neighbour && l.state.is_some_and(|s| s.finds);
        let all = self.links.iter().filter(move |(_, l)| finds(l));
        all.map(|(id, _)| *id)
    }

    fn doors(&self) -> Vec<A> {
        if self.finds {
            return vec![self.presence.links];
        }
        let addrs = self.finders().filter_map(|id| self.links.get(&id)?.addr());
        addrs.take(MAX_DOORS).collect()
    }

    /// A place is due: there is a new token, role or home.
    pub(super) fn renew_place(&mut self) {
        self.doors.next = self.now;
        self.tend_places();
    }

    /// Children hear of doors that changed; our own place is renewed when that is due.
    pub(super) fn tend_places(&mut self) {
        if self.role == Role::Supernode {
            self.tell_doors();
            self.keep_again();
        }
        if self.now < self.doors.next {
            return;
        }
        let home = match (self.role, self.parent) {
            (Role::Supernode, _) => Some((self.presence.token.key, self.doors.told.clone())),
            (Role::Peer, Some(parent)) => {
                let theirs = self.links.get(&parent).and_then(|l| l.theirs.as_ref());
                theirs.map(|p| (p.token.key, self.doors.home.clone()))
            }
            (Role::Peer, None) => None,
        };
        let Some((home, doors)) = home.filter(|(_, doors)| !doors.is_empty()) else {
            self.doors.own = None;
            return;
        };
        self.doors.next = self.now + RENEW.mul_f64(0.5 + 0.5 * self.rng.unit());
        let millis = self.config.epoch * 1000 + self.now.as_micros() / 1000;
        self.doors.seq = millis.max(self.doors.seq + 1);
        let (token, seq) = (self.presence.token.clone(), self.doors.seq);
        let place = Box::new(Place::new(&self.key, token, seq, home, doors));
        self.doors.own = Some(place.clone());
        match (self.role, self.parent) {
            (Role::Peer, Some(parent)) => self.send(parent, Message::Place(place)),
            _ => self.keep(place),
        }
    }

    fn tell_doors(&mut self) {
        let doors = self.doors();
        if doors == self.doors.told {
            return;
        }
        self.doors.told.clone_from(&doors);
        self.doors.next = self.now;
        for child in self.of_stage(Stage::Child) {
            self.send(child, Message::Doors(doors.clone()));
        }
    }

    /// A child that is new here hears where letters for it are taken.
    pub(super) fn tell_doors_to(&mut self, child: LinkId) {
        if !self.doors.told.is_empty() {
            let doors = self.doors.told.clone();
            self.send(child, Message::Doors(doors));
        }
    }

    /// Our supernode tells where letters for us are taken.
    pub(super) fn doors_of(&mut self, id: LinkId, mut doors: Vec<A>) {
        if self.parent == Some(id) {
            doors.truncate(MAX_DOORS);
            self.doors.home = doors;
            self.renew_place();
        }
    }

    /// The link with our supernode ended.
    pub(super) fn forget_doors(&mut self) {
        self.doors.home.clear();
        self.doors.own = None;
    }

    /// The place of a child, or of a neighbour that stands in no ring, or of a child of that.
    pub(super) fn place_of(&mut self, id: LinkId, stage: Stage, place: Box<Place<A>>) {
        let (now, own) = (self.now, self.presence.token.key);
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if !link.places.take(now) {
            self.stats.limited += 1;
            return;
        }
        let theirs = link.theirs.as_ref().map(|p| p.token.key);
        let may = match stage {
            Stage::Child => theirs == Some(place.token.key) && place.home == own,
            _ => theirs == Some(place.home),
        };
        if !may || place.check(&self.config.trusted, self.unix()).is_err() {
            return self.strike(id);
        }
        if stage == Stage::Child {
            if place.doors != self.doors.told {
                // Our doors have changed meanwhile, which it was told.
                return;
            }
            if let Some(link) = self.links.get_mut(&id) {
                link.place = Some(place.clone());
            }
        }
        self.keep(place);
    }

    fn keep(&mut self, place: Box<Place<A>>) {
        if self.finds {
            self.out.push(Effect::Keep(place));
            return;
        }
        let finder = self.finders().next();
        if let Some(finder) = finder {
            self.send(finder, Message::Place(place));
        }
    }

    /// The ring did not keep a place ([`Effect::Keep`]): it is given to it again as long as it is of use.
    pub fn on_unkept(&mut self, now: Time, place: Box<Place<A>>) {
        if self.doors.unkept.len() < MAX_UNKEPT {
            self.doors.unkept.push_back((now + AGAIN, place));
        }
    }

    fn keep_again(&mut self) {
        while let Some((at, _)) = self.doors.unkept.front()
            && *at <= self.now
            && let Some((_, place)) = self.doors.unkept.pop_front()
        {
            let own = self.doors.own.as_ref() == Some(&place);
            let of = |l: &Link<A>| l.place.as_ref() == Some(&place);
            let of_neighbour = |l: &Link<A>| {
                let theirs = l.theirs.as_ref().map(|p| p.token.key);
                l.stage == Stage::Neighbour && theirs == Some(place.home)
            };
            if self.finds && (own || self.links.values().any(|l| of(l) || of_neighbour(l))) {
                self.out.push(Effect::Keep(place));
            }
        }
    }

    pub(super) fn check_doors(&self) {
        assert!(self.doors.unkept.len() <= MAX_UNKEPT);
        assert!(self.doors.home.len() <= MAX_DOORS && self.doors.told.len() <= MAX_DOORS);
    }
}
