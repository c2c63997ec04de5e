//! Finding a ring that was lost, and becoming one with it.
//!
//! Stabilising only ever talks to whom it knows to live. When a partition outlasts the detection of
//! failures, each side forgets the other, and two rings stand side by side (Shafaat, Ghodsi and
//! Haridi, "Dealing with network partitions in structured overlay networks", 2009). As there, who
//! was lost is kept in mind and tried now and then; unlike there, no message walks both rings. A
//! node looks its own next key up *through the one it lost*:
//!
//! - The owner it hears of is its successor: one ring, the lost one is forgotten.
//! - The owner is nearer than its successor: it is tried as any successor's predecessor is when
//!   stabilising, and adopted when it answers.
//! - The owner is farther: it is notified, since a nearer predecessor than its own exists.
//!
//! Whoever finds a difference tells a few others where to look, and each looks for itself; so the
//! news spreads like gossip and stops where no difference is left. A node's true successor among
//! both rings is the nearer of the two it has in each, so when all have looked, all successors are
//! right, and stabilising does the rest. No step adopts who has not answered.

use super::lookup::Purpose;
use super::message::{Address, Contact, Found, Lookup, LookupError, Message, Output};
use super::node::{Node, Standing, Why};
use super::ring::RingId;
use shoal_base::Time;
use std::time::Duration;

/// Most lost nodes kept in mind. Which one gives way to a new one is drawn, so that ordinary deaths
/// during a long partition do not push the whole other side out.
const MAX_LOST: usize = 24;
/// A lost node that did not answer so many times is dead.
const MAX_TRIES: u8 = 100;
/// Waits between two tries double up to this many times the first.
const LONGEST: u32 = 16;

/// Whom a node has lost, and how it goes about finding them.
#[derive(Clone, Debug)]
pub(super) struct Lost<I, A> {
    nodes: Vec<(Contact<I, A>, u8)>,
    /// When the next one is tried, and the wait after it in multiples of the configured one.
    at: Time,
    wait: u32,
    /// Until when others' hints where to look are not followed.
    deaf: Time,
}

impl<I: RingId, A: Address> Node<I, A> {
    /// Looks through the member at `via` whether it is in the same ring, and joins both if not.
    /// Hosts call this with members they know by other ways; the node itself does so with whom it
    /// lost. Nothing happens unless this node is a member and [`super::Config::merge`] is set.
    pub fn merge(&mut self, now: Time, via: A, out: &mut Vec<Output<I, A>>) {
        let busy = self.looks_for(|purpose| matches!(purpose, Purpose::Merge));
        if self.standing != Standing::Member
            || self.config.merge.is_none()
            || via == self.tables.me.addr
            || busy
        {
            return;
        }
        let key = self.tables.me.id.plus_power(0);
        let lookup = Lookup::default();
        self.start_lookup(now, key, lookup, Purpose::Merge, Some(via), out);
    }

    /// Keeps a node in mind that does not answer any more.
    pub(super) fn remember(&mut self, now: Time, lost: Contact<I, A>) {
        let Some(pause) = self.config.merge else {
            return;
        };
        let at = self.jittered(now, Some(pause));
        let drawn = self.draw() as usize % MAX_LOST;
        let all = self.lost.get_or_insert_with(|| {
            Box::new(Lost {
                nodes: Vec::new(),
                at,
                wait: 1,
                deaf: Time::ZERO,
            })
        });
        all.wait = 1;
        all.at = all.at.min(at);
        if let Some(known) = all.nodes.iter_mut().find(|(c, _)| c.id == lost.id) {
            *known = (lost, 0);
        } else if all.nodes.len() < MAX_LOST {
            all.nodes.push((lost, 0));
        } else if let Some(slot) = all.nodes.get_mut(drawn) {
            *slot = (lost, 0);
        }
    }

    /// Members that do not answer any more and may be in another ring by now.
    pub fn lost(&self) -> impl Iterator<Item = Contact<I, A>> {
        let all = self.lost.iter().flat_map(|lost| &lost.nodes);
        all.map(|(contact, _)| *contact)
    }

    fn forget(&mut self, addr: A) {
        if let Some(lost) = &mut self.lost {
            lost.nodes.retain(|(c, _)| c.addr != addr);
            if lost.nodes.is_empty() {
                self.lost = None;
            }
        }
    }

    pub(super) fn merge_due(&self) -> Time {
        let due = self.lost.as_ref().map_or(Time::FAR, |lost| lost.at);
        // Only members look; who joins is told of by others.
        if self.standing == Standing::Member {
            due
        } else {
            Time::FAR
        }
    }

    /// Tries one of those lost.
    pub(super) fn tick_merge(&mut self, now: Time, out: &mut Vec<Output<I, A>>) {
        if self.merge_due() > now {
            return;
        }
        let drawn = self.draw() as usize;
        let pause = self.config.merge.unwrap_or(Duration::MAX);
        let Some(lost) = &mut self.lost else { return };
        let wait = lost.wait;
        lost.wait = (wait * 2).min(LONGEST);
        let at = drawn % lost.nodes.len().max(1);
        let Some((contact, tries)) = lost.nodes.get_mut(at) else {
            return;
        };
        *tries += 1;
        let (contact, dead) = (*contact, *tries > MAX_TRIES);
        let next = self.jittered(now, Some(pause * wait));
        if let Some(lost) = &mut self.lost {
            lost.at = next;
        }
        if dead {
            self.forget(contact.addr);
        } else {
            self.merge(now, contact.addr, out);
        }
    }

    /// Our next key was looked up through one who may be in another ring.
    pub(super) fn on_other_ring(
        &mut self,
        now: Time,
        via: A,
        result: Result<Box<Found<I, A>>, LookupError>,
        out: &mut Vec<Output<I, A>>,
    ) {
        let Ok(found) = result else { return };
        let (me, owner) = (self.tables.me.id, found.owner);
        let head = self.tables.successors.first().copied();
        if self.standing != Standing::Member || owner.id == me {
            return;
        }
        if head == Some(owner) {
            self.forget(via);
            return;
        }
        if head.is_none_or(|head| owner.id.strictly_between(me, head.id)) {
            let busy = self.waits_for(|why| matches!(why, Why::TryPredecessor(_)));
            if !busy {
                // Nobody else in the other ring may know of the one that gives way.
                if let Some(head) = head {
                    self.remember(now, head);
                }
                self.ask_neighbours(now, owner.addr, Why::TryPredecessor(owner), out);
            }
        } else {
            let message = Message::Notify { id: me };
            let to = owner.addr;
            out.push(Output::Send { to, message });
        }
        self.spread(now, owner, out);
        // There is a difference: it is looked at again soon.
        self.remember(now, owner);
        let soon = self.jittered(now, self.config.stabilise);
        if let Some(lost) = &mut self.lost {
            lost.at = lost.at.min(soon);
        }
    }

    /// Tells neighbours, and some farther away, where to look.
    fn spread(&mut self, now: Time, via: Contact<I, A>, out: &mut Vec<Output<I, A>>) {
        let patience = self.config.timeout * 2;
        match &mut self.lost {
            Some(lost) if lost.deaf > now => return,
            Some(lost) => lost.deaf = now + patience,
            None => {}
        }
        let drawn = (self.draw() as usize, self.draw() as usize);
        let tables = &self.tables;
        let pick = |n: usize| tables.fingers.get(n % tables.fingers.len().max(1));
        let first = tables.successors.first();
        let all = [
            first,
            tables.predecessor.as_ref(),
            pick(drawn.0),
            pick(drawn.1),
        ];
        let mut told = vec![via.addr];
        for contact in all.into_iter().flatten() {
            if !told.contains(&contact.addr) {
                told.push(contact.addr);
                let to = contact.addr;
                let message = Message::Merge { via };
                out.push(Output::Send { to, message });
            }
        }
    }

    /// Somebody says where another ring may be.
    pub(super) fn on_merge(&mut self, now: Time, via: Contact<I, A>, out: &mut Vec<Output<I, A>>) {
        let head = self.tables.successors.first();
        if head.is_some_and(|head| head.id == via.id)
            || self.lost.as_ref().is_some_and(|lost| lost.deaf > now)
        {
            return;
        }
        self.merge(now, via.addr, out);
    }
}
