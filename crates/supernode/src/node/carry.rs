//! Letters carried straight to the supernode of who they are for: its place is found in the ring, once for
//! all letters of two minutes, and a link is made to it for letters alone, which ends when none goes by it for
//! a minute.
//!
//! A place that does not hold any more is told by the supernode that it names, or by silence there; then it is
//! looked for anew, once for each letter. A letter is flooded when nobody has such a place, or no door of it
//! opens, and not when the owner of the key has left.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use shoal_base::Time;

use super::links::Stage;
use super::queries::Allowance;
use super::{Effect, LinkId, Node};
use crate::Address;
use crate::place::{Place, Prefix, prefix};
use crate::token::Key;
use crate::wire::{Course, Letter, Purpose, QueryId};

/// Letters kept until they are on their way, and until it is clear that they were not in vain.
const MAX_WAITING: usize = 512;
/// How long they are.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long the ring has to answer, which may mend itself for seconds, before a letter is flooded.
const FIND: Duration = Duration::from_millis(1500);
/// How long a home has to say that a letter's recipient is not there.
const REPLY: Duration = Duration::from_secs(5);
/// Places remembered, and how long those found and those that nobody has are believed.
const MAX_PLACES: usize = 4096;
const FOUND: Duration = Duration::from_secs(120);
const UNFOUND: Duration = Duration::from_secs(10);
/// Links for letters, and those of them that are being made.
pub(super) const MAX_CARRIERS: usize = 256;
const MAX_DIALS: usize = 32;
/// After how long without a letter who dialled ends such a link, and at the latest the other.
const IDLE: Duration = Duration::from_secs(60);
/// Letters of children, and of one's own, flooded in a minute by who stands in the ring.
const FLOODS: u32 = 120;

/// What a letter waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For<A> {
    /// The ring.
    Place,
    /// A link with this supernode.
    Door(A),
    /// That nobody says there that the recipient is not.
    Reply(LinkId),
}

#[derive(Debug)]
struct Waiting<A> {
    letter: Letter<A>,
    from: Option<LinkId>,
    since: Time,
    wants: For<A>,
    /// Doors that did not open.
    tried: Vec<A>,
    /// The place was looked for after the letter had come.
    anew: bool,
}

/// Letters that wait, and places.
#[derive(Debug)]
pub(super) struct Carriage<A> {
    waiting: VecDeque<Waiting<A>>,
    /// None: nobody has such a place.
    places: BTreeMap<Prefix, (Option<Place<A>>, Time)>,
    floods: Allowance,
}

impl<A> Default for Carriage<A> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            places: BTreeMap::new(),
            floods: Allowance::new(FLOODS),
        }
    }
}

impl<A: Address> Carriage<A> {
    fn wait(&mut self, letter: Waiting<A>) {
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(letter);
    }

    /// Those letters that wait for this, or something else that is over.
    fn take(&mut self, is: impl Fn(&Waiting<A>) -> bool) -> Vec<Waiting<A>> {
        let (taken, rest) = self.waiting.drain(..).partition(is);
        self.waiting = rest;
        let taken: VecDeque<_> = taken;
        taken.into()
    }

    fn remember(&mut self, now: Time, of: Prefix, place: Option<Place<A>>) {
        if self.places.len() >= MAX_PLACES && !self.places.contains_key(&of) {
            self.places.retain(|_, (_, until)| now < *until);
            if self.places.len() >= MAX_PLACES {
                // They are in the ring.
                self.places.clear();
            }
        }
        let until = now + if place.is_some() { FOUND } else { UNFOUND };
        self.places.insert(of, (place, until));
    }

    fn known(&self, now: Time, of: &Prefix) -> Option<Option<&Place<A>>> {
        let (place, until) = self.places.get(of)?;
        (now < *until).then_some(place.as_ref())
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.waiting.len() <= MAX_WAITING && self.places.len() <= MAX_PLACES);
    }
}

impl<A: Address> Node<A> {
    /// Carries a letter to its recipient, whoever has it by now; false if there is no way to go.
    pub(super) fn carry(&mut self, from: Option<LinkId>, letter: Letter<A>) -> bool {
        self.go_on(Waiting {
            letter,
            from,
            since: self.now,
            wants: For::Place,
            tried: Vec::new(),
            anew: false,
        })
    }

    /// The next step of a letter.
    fn go_on(&mut self, mut waiting: Waiting<A>) -> bool {
        let letter = &waiting.letter;
        if let Some(link) = self.here(&letter.to).filter(|id| Some(*id) != waiting.from) {
            self.hand_to(link, letter.to, waiting.letter);
            return true;
        }
        let of = prefix(&letter.to);
        match self.carriage.known(self.now, &of) {
            Some(Some(place)) => {
                let place = place.clone();
                self.go_to(&place, waiting)
            }
            Some(None) => self.give_up(&waiting),
            None if self.way(&letter.to).is_some() => self.give_up(&waiting),
            None if self.finds => {
                let mut others = self.carriage.waiting.iter();
                let asked = others.any(|w| w.wants == For::Place && prefix(&w.letter.to) == of);
                if !asked {
                    self.stats.sought += 1;
                    self.out.push(Effect::Find(of));
                }
                waiting.wants = For::Place;
                self.carriage.wait(waiting);
                true
            }
            None => match self.finder(waiting.from) {
                Some(neighbour) => {
                    self.hand(neighbour, waiting.letter);
                    true
                }
                None => self.give_up(&waiting),
            },
        }
    }

    /// Hands a letter to its recipient.
    fn hand_to(&mut self, link: LinkId, to: Key, letter: Letter<A>) {
        let course = Course::To(to);
        self.hand(link, Letter { course, ..letter });
    }

    /// A neighbour that stands in the ring, for who does not; none for letters of such a one.
    fn finder(&self, from: Option<LinkId>) -> Option<LinkId> {
        let came = from.and_then(|id| self.links.get(&id)).map(|l| l.stage);
        let mut finders = self.finders().filter(|_| came != Some(Stage::Neighbour));
        finders.next()
    }

    /// Carries a letter to where its recipient was found.
    fn go_to(&mut self, place: &Place<A>, mut waiting: Waiting<A>) -> bool {
        if place.home == self.presence.token.key {
            return self.stale(waiting, false);
        }
        let usable = self.links.iter().filter(|(id, l)| {
            matches!(l.stage, Stage::Neighbour | Stage::Carrier) && Some(**id) != waiting.from
        });
        let rank = |theirs: &crate::token::Presence<A>| {
            let home = theirs.token.key == place.home;
            let door =
                place.doors.contains(&theirs.links) && !waiting.tried.contains(&theirs.links);
            (home || door).then_some(!home)
        };
        let best = usable.filter_map(|(id, l)| Some((rank(l.theirs.as_ref()?)?, *id)));
        if let Some((_, link)) = best.min() {
            waiting.letter.course = Course::To(place.home);
            self.hand(link, waiting.letter.clone());
            (waiting.wants, waiting.since) = (For::Reply(link), self.now);
            self.carriage.wait(waiting);
            return true;
        }
        let own = self.presence.links;
        let mut doors = place.doors.iter();
        let closed = |door: &A| *door == own || !own.may_go(door) || waiting.tried.contains(door);
        match doors.find(|door| !closed(door)).copied() {
            Some(door) => {
                self.open_door(door);
                waiting.wants = For::Door(door);
                self.carriage.wait(waiting);
                true
            }
            None => self.stale(waiting, true),
        }
    }

    /// Where a letter's recipient was known to be it is not, or (`shut`) nobody answers there.
    fn stale(&mut self, mut waiting: Waiting<A>, shut: bool) -> bool {
        if waiting.anew {
            return shut && self.give_up(&waiting);
        }
        let of = prefix(&waiting.letter.to);
        self.carriage.places.remove(&of);
        waiting.tried.clear();
        waiting.anew = true;
        self.go_on(waiting)
    }

    /// Nobody knows where a letter's recipient is.
    fn give_up(&mut self, waiting: &Waiting<A>) -> bool {
        let flooded = self.way(&waiting.letter.to).is_none();
        if flooded && self.finds && !self.carriage.floods.take(self.now) {
            self.stats.limited += 1;
            return false;
        }
        self.stats.floods += u64::from(flooded);
        self.flood(waiting.from, &waiting.letter, self.config.ttl)
    }

    /// Makes a link for letters, if none is being made.
    fn open_door(&mut self, door: A) {
        let handshake = |stage| matches!(stage, Stage::Hello | Stage::Proof | Stage::Asking);
        let mut begun = self.links.values().filter(|l| handshake(l.stage));
        let under_way = self.dialling.contains_key(&door) || begun.any(|l| l.dialled == Some(door));
        let dials = self
            .dialling
            .values()
            .filter(|(p, _)| *p == Purpose::Letters);
        if under_way || dials.count() >= MAX_DIALS {
            return;
        }
        self.make_room_for_carrier();
        self.dialling.insert(door, (Purpose::Letters, self.now));
        self.out.push(Effect::Dial(door));
    }

    /// Of too many links for letters that which was not used for longest goes.
    pub(super) fn make_room_for_carrier(&mut self) {
        let carriers = self.links.iter().filter(|(_, l)| l.stage == Stage::Carrier);
        let oldest = carriers.clone().min_by_key(|(id, l)| (l.used, **id));
        if let Some(oldest) = oldest.map(|(id, _)| *id)
            && carriers.count() >= MAX_CARRIERS
        {
            self.close(oldest);
        }
    }

    /// Dialling a supernode came to something: letters that wait for it go on, or (`shut`) elsewhere.
    pub(super) fn at_door(&mut self, door: A, shut: bool) {
        for mut waiting in self.carriage.take(|w| w.wants == For::Door(door)) {
            if shut {
                waiting.tried.push(door);
            }
            self.go_on(waiting);
        }
    }

    /// The other side of a link does not know the recipient of a letter.
    pub(super) fn not_here(&mut self, link: LinkId, id: QueryId) {
        let is_it = |w: &Waiting<A>| w.wants == For::Reply(link) && w.letter.id == id;
        for waiting in self.carriage.take(is_it) {
            self.stale(waiting, false);
        }
    }

    /// The ring was asked ([`Effect::Find`]) and has this place; none: nobody has one.
    pub fn on_place(
        &mut self,
        now: Time,
        of: Prefix,
        place: Option<Place<A>>,
        out: &mut Vec<Effect<A>>,
    ) {
        self.now = now;
        let place = place.filter(|p| p.prefix() == of && self.place_holds(p));
        let older = |p: &Place<A>| {
            let known = self.carriage.known(now, &of).flatten();
            known.is_some_and(|k| k.rank() >= p.rank())
        };
        if !place.as_ref().is_some_and(older) {
            self.carriage.remember(now, of, place);
        }
        let is_it = |w: &Waiting<A>| w.wants == For::Place && prefix(&w.letter.to) == of;
        for mut waiting in self.carriage.take(is_it) {
            waiting.anew = true;
            self.go_on(waiting);
        }
        self.flush(out);
    }

    fn place_holds(&self, place: &Place<A>) -> bool {
        place.check(&self.config.trusted, self.unix()).is_ok()
    }

    /// A letter's sender tells where it is: its answer goes there.
    pub(super) fn learn_place(&mut self, from: Key, place: Option<&Place<A>>) {
        let Some(place) = place.filter(|p| p.token.key == from) else {
            return;
        };
        let (of, now) = (place.prefix(), self.now);
        let known = self.carriage.known(now, &of).flatten();
        let newer = known.is_none_or(|k| k.rank() < place.rank());
        if newer && self.place_holds(place) {
            self.carriage.remember(now, of, Some(place.clone()));
        }
    }

    /// What waited too long, links that nobody uses.
    pub(super) fn tend_carriage(&mut self) {
        let now = self.now;
        let late = |w: &Waiting<A>| {
            let patience = match w.wants {
                For::Reply(_) => REPLY,
                For::Place => FIND,
                For::Door(_) => PATIENCE,
            };
            now.since(w.since) >= patience
        };
        for waiting in self.carriage.take(late) {
            if waiting.wants == For::Place {
                self.give_up(&waiting);
            }
        }
        // Those for which no link could be made yet.
        let doors = self.carriage.waiting.iter().filter_map(|w| match w.wants {
            For::Door(door) => Some(door),
            _ => None,
        });
        for door in doors.collect::<std::collections::BTreeSet<_>>() {
            self.open_door(door);
        }
        let mut idle = Vec::new();
        for (id, link) in &self.links {
            let most = if link.dialled.is_some() {
                IDLE
            } else {
                IDLE * 2
            };
            if link.stage == Stage::Carrier && now.since(link.used) >= most {
                idle.push(*id);
            }
        }
        idle.into_iter().for_each(|id| self.close(id));
    }

    /// A link ended: what was given to it is not missed by anybody there.
    pub(super) fn carrier_ended(&mut self, link: LinkId) {
        for waiting in self.carriage.take(|w| w.wants == For::Reply(link)) {
            self.stale(waiting, true);
        }
    }
}
