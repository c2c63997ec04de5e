//! Who is at the other end of a link, and whether it stays.

use super::{Link, PROOF, Stage};
use crate::Address;
use crate::node::{LinkId, Node, Role};
use crate::token::{Key, Presence, Sealed};
use crate::wire::{Message, Purpose, VERSION, Why};

/// Links that measure, at most.
const MAX_PROBES: usize = 16;

impl<A: Address> Node<A> {
    pub(super) fn on_hello(
        &mut self,
        id: LinkId,
        version: u8,
        purpose: Purpose,
        presence: Presence<A>,
        nonce: [u8; 32],
    ) {
        if version != VERSION {
            return self.refuse(id, Why::Version);
        }
        let (trusted, unix) = (&self.config.trusted, self.unix());
        if let Err(invalid) = self.config.verified.check(&presence, trusted, unix) {
            return self.refuse(id, Why::Invalid(invalid));
        }
        let theirs = presence.token.key;
        if theirs == self.presence.token.key {
            // Ourselves, told of as somebody else.
            if let Some(addr) = self.links.get(&id).and_then(|l| l.dialled) {
                self.candidates.remove(&addr);
            }
            return self.close(id);
        }
        if self
            .banned
            .get(&theirs)
            .is_some_and(|until| self.now < *until)
        {
            return self.refuse(id, Why::Banned);
        }
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if link.dialled.is_none() {
            link.purpose = purpose;
        }
        link.theirs = Some(presence);
        link.nonce = nonce;
        link.stage = Stage::Proof;
        let (ours, purpose, dialled) = (link.ours, link.purpose, link.dialled);
        if dialled.is_none() {
            self.say_hello(id, purpose, ours);
        }
        let seal = Sealed::new(&self.key, PROOF, &(nonce, ours, theirs));
        self.send(id, Message::Proof(seal));
    }

    pub(super) fn on_proof(&mut self, id: LinkId, seal: &Sealed) {
        let own = self.presence.token.key;
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let Some(key) = link.theirs.as_ref().map(|p| p.token.key) else {
            return;
        };
        if !seal.is_by(&key, PROOF, &(link.ours, link.nonce, own)) {
            return self.refuse(id, Why::Unproven);
        }
        let (purpose, dialled) = (link.purpose, link.dialled.is_some());
        if dialled {
            link.stage = Stage::Asking;
            return;
        }
        // Whoever fetches connects to what a child tells: that shall be the child's own host, or
        // its hits would send everybody to somebody else's.
        let files = link.theirs.as_ref().and_then(|p| p.files);
        if purpose == Purpose::Child && files.is_some_and(|f| f.host() != link.host) {
            return self.refuse(id, Why::Elsewhere);
        }
        if purpose == Purpose::Neighbour && self.role == Role::Supernode && !self.is_to_stay(id) {
            return;
        }
        let full = match purpose {
            Purpose::Probe => self.count(Stage::Probe) >= MAX_PROBES,
            _ if self.role == Role::Peer => return self.refuse(id, Why::Ordinary),
            Purpose::Child => {
                // The same key again: its old link is dead, whatever we know.
                let old = self.links.iter().find(|(other, l)| {
                    **other != id
                        && l.stage == Stage::Child
                        && l.theirs.as_ref().is_some_and(|p| p.token.key == key)
                });
                if let Some(old) = old.map(|(id, _)| *id) {
                    self.close(old);
                }
                self.count(Stage::Child) >= self.config.max_children
            }
            Purpose::Neighbour => self.count(Stage::Neighbour) >= self.config.max_neighbours,
            Purpose::Letters => {
                self.make_room_for_carrier();
                false
            }
        };
        if full {
            return self.refuse(id, Why::Full);
        }
        let spares = self.spares(self.links.get(&id).and_then(Link::addr));
        self.send(id, Message::Welcome(spares));
        let stage = match purpose {
            Purpose::Child => Stage::Child,
            Purpose::Neighbour => Stage::Neighbour,
            Purpose::Probe => Stage::Probe,
            Purpose::Letters => Stage::Carrier,
        };
        self.set_stage(id, stage);
    }

    /// The link that there is with a neighbour besides this one, and whether we dialled it.
    pub(super) fn twin(&self, id: LinkId, key: Key) -> Option<(LinkId, bool)> {
        let is = |l: &Link<A>| {
            let theirs = l.theirs.as_ref().map(|p| p.token.key);
            l.stage == Stage::Neighbour && theirs == Some(key)
        };
        let mut twins = self
            .links
            .iter()
            .filter(|(other, l)| **other != id && is(l));
        twins.next().map(|(id, l)| (*id, l.dialled.is_some()))
    }

    /// Two supernodes that call each other at once would keep two links: that which the smaller key dialled
    /// stays, as both ends see it. Of two that one end dialled the older is dead, whatever we know. Closes
    /// what goes; whether this one stays.
    pub(super) fn is_to_stay(&mut self, id: LinkId) -> bool {
        let Some(link) = self.links.get(&id) else {
            return false;
        };
        let Some(key) = link.theirs.as_ref().map(|p| p.token.key) else {
            return true;
        };
        let dialled = link.dialled.is_some();
        let Some((twin, other)) = self.twin(id, key) else {
            return true;
        };
        let ours_stays = self.presence.token.key < key;
        let stays = dialled == other || dialled == ours_stays;
        self.close(if stays { twin } else { id });
        stays
    }

    /// The other side lets us in.
    pub(super) fn welcomed(&mut self, id: LinkId) {
        let purpose = self.links.get(&id).map(|l| l.purpose);
        if purpose == Some(Purpose::Neighbour) && !self.is_to_stay(id) {
            return;
        }
        let Some(link) = self.links.get(&id) else {
            return;
        };
        match (link.purpose, self.role) {
            (Purpose::Child, Role::Peer) if self.parent.is_none() => self.come_home(id),
            (Purpose::Child, Role::Peer) if self.is_moving_to(link.dialled) => self.move_home(id),
            (Purpose::Neighbour, Role::Supernode)
                if self.count(Stage::Neighbour) < self.config.max_neighbours =>
            {
                self.set_stage(id, Stage::Neighbour);
            }
            (Purpose::Letters, Role::Supernode) => self.set_stage(id, Stage::Carrier),
            (Purpose::Probe, _) => {
                self.set_stage(id, Stage::Probe);
                self.begin_measuring(id);
            }
            _ => self.close(id),
        }
    }

    /// The other side has a new token.
    pub(super) fn renewed(&mut self, id: LinkId, presence: Presence<A>) {
        let holds = self.holds(&presence);
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let same = link.theirs.as_ref().is_some_and(|old| {
            let places = (old.links, old.files) == (presence.links, presence.files);
            old.token.key == presence.token.key && places
        });
        if same && holds {
            link.theirs = Some(presence);
        } else {
            self.strike(id);
        }
    }
}
