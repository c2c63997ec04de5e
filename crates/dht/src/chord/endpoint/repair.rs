//! Replicas: what is kept moves when the ring changes.
//!
//! An item belongs on its owner and the owner's next successors. Whoever finds itself the owner
//! sees to it that they have it; whoever hears of a new predecessor hands it what is not its own
//! any more. Whoever is handed what is not its own either, as happens when two rings become one,
//! looks the owner up and hands it on. Lifetimes travel along, so that copying never makes an item
//! live longer.

use super::super::message::Contact;
use super::super::place::{Place, position};
use super::super::wire::{Ask, Reply};
use super::ops::Work;
use super::{Endpoint, Purpose};
use crate::{Id, Output};
use shoal_base::Time;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// How long to wait after a change for others that come with it.
const PAUSE: Duration = Duration::from_secs(2);
/// How soon what a node did not take is offered again.
const AGAIN: Duration = Duration::from_secs(20);
/// Transfers under way at once.
const AT_ONCE: usize = 16;
/// Owners looked up at once.
const LOOKED_UP: usize = 16;
/// Transfers that wait; more are found again by the next look.
const MAX_WAITING: usize = 65_536;
/// How often each of the nodes that hold copies of ours is asked for one of them: who was started again has
/// none, and may have been missed by nobody.
const CHECK: Duration = Duration::from_secs(20);
/// How many items that are others' are brought to their owners again at each such check.
const FOREIGN: usize = 8;
/// Positions of one process at most.
const MAX_POSITIONS: u8 = 64;
/// How often all is looked through though nothing is known to have changed.
const REGULARLY: Duration = Duration::from_secs(600);

/// Items on their way to other nodes.
#[derive(Default)]
pub(super) struct Transfers {
    look: Time,
    check: Time,
    waiting: VecDeque<(Place, Id)>,
    known: BTreeSet<(Id, Id)>,
    under_way: usize,
    /// Items whose owners are being looked up.
    homeless: BTreeSet<Id>,
    /// The last predecessor known of each position.
    before: Vec<Option<Contact<Id, Place>>>,
}

impl Endpoint {
    /// Successors or items have changed: looks soon who lacks what.
    pub(super) fn ring_changed(&mut self, now: Time) {
        let soon = self.later(now, PAUSE);
        self.transfers.look = self.transfers.look.min(soon);
    }

    /// A position has another predecessor: the keys up to it are the predecessor's now.
    pub(super) fn predecessor_changed(
        &mut self,
        now: Time,
        index: usize,
        predecessor: Option<Contact<Id, Place>>,
    ) {
        self.ring_changed(now);
        let count = self.nodes.len();
        self.transfers.before.resize(count, None);
        let (Some(new), Some(me)) = (predecessor, self.nodes.get(index).map(|n| n.me().id)) else {
            return;
        };
        let Some(slot) = self.transfers.before.get_mut(index) else {
            return;
        };
        // Alone before: all of the circle was ours.
        let old = slot.replace(new).map_or(me, |old| old.id);
        if new.id == old || self.own(new.id).is_some() {
            return;
        }
        // Whoever came between takes the arc up to itself; if the old one was lost instead, the
        // arc from the new one on is ours, and there is nothing to hand over.
        use super::super::RingId;
        if new.id.strictly_between(old, me) {
            let items = self.store.items.keys();
            let theirs: Vec<Id> = items.filter(|t| t.between(old, new.id)).copied().collect();
            for target in theirs {
                self.transfer(new.addr, target);
            }
        }
    }

    /// Somebody has a new session with us, as who was started again has: it may have lost what it held.
    pub(super) fn began_anew(&mut self, now: Time, key: &[u8; 32]) {
        let ids: Vec<Id> = (0..MAX_POSITIONS).map(|at| position(key, at)).collect();
        // Guests, who come all the time, hold nothing.
        let (mut before, mut after) = (false, false);
        for node in &self.nodes {
            let lost: Vec<_> = node.lost().collect();
            let mut all = node.successors().iter().chain(&lost);
            after |= all.any(|s| ids.contains(&s.id));
            before |= node.predecessor().is_some_and(|p| ids.contains(&p.id));
        }
        if !before && !after {
            return;
        }
        for held in self.store.items.values_mut() {
            held.holders.retain(|h| !ids.contains(h));
            // What was its own lies with us: where that belongs is looked up again.
            held.placed &= !before;
        }
        self.ring_changed(now);
    }

    fn transfer(&mut self, to: Place, target: Id) {
        let transfers = &mut self.transfers;
        if transfers.waiting.len() < MAX_WAITING && transfers.known.insert((to.id, target)) {
            transfers.waiting.push_back((to, target));
        }
    }

    pub(super) fn repair_deadline(&self) -> Option<Time> {
        let transfers = &self.transfers;
        let more = !transfers.waiting.is_empty() && transfers.under_way < AT_ONCE;
        let next = match self.store.items.is_empty() {
            true => transfers.look,
            false => transfers.look.min(transfers.check),
        };
        Some(if more { Time::ZERO } else { next })
    }

    pub(super) fn tick_repair(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.transfers.look <= now {
            self.transfers.look = self.later(now, REGULARLY);
            self.look_for_gaps();
            self.look_for_owners(now, out);
        }
        if self.transfers.check <= now && !self.store.items.is_empty() {
            self.transfers.check = self.later(now, CHECK);
            self.check_holders(now, out);
        }
        while self.transfers.under_way < AT_ONCE {
            let Some((to, target)) = self.transfers.waiting.pop_front() else {
                break;
            };
            if !self.replicate(now, to, target, out) {
                self.transfers.known.remove(&(to.id, target));
            }
        }
    }

    fn replicate(&mut self, now: Time, to: Place, target: Id, out: &mut Vec<Output>) -> bool {
        let Some(held) = self.store.items.get(&target) else {
            return false;
        };
        let left = held.expires.since(now).as_secs();
        if left == 0 || self.own(to.id).is_some() {
            return false;
        }
        let ask = Ask::Replicate {
            item: held.item.clone(),
            left: u32::try_from(left).unwrap_or(u32::MAX),
            publisher: held.publisher,
            owned: self.owns(target),
        };
        self.transfers.under_way += 1;
        self.ask(now, to, false, ask, Purpose::Transfer(target), out);
        true
    }

    /// Each item that a position of ours owns, and each of its successors that lacks it.
    fn look_for_gaps(&mut self) {
        let others = usize::from(self.settings.replicas.max(1)) - 1;
        let mut gaps = Vec::new();
        for node in &self.nodes {
            // Replicas on positions of one process are no replicas.
            let mut sockets = Vec::new();
            let successors = node.successors().iter().filter(|s| {
                let new = self.own(s.id).is_none() && !sockets.contains(&s.addr.socket);
                sockets.push(s.addr.socket);
                new
            });
            let replicas: Vec<Place> = successors.map(|s| s.addr).take(others).collect();
            for (target, held) in &mut self.store.items {
                if !node.owns(*target) {
                    continue;
                }
                held.holders.retain(|h| replicas.iter().any(|r| r.id == *h));
                let lacking = replicas.iter().filter(|r| !held.holders.contains(&r.id));
                gaps.extend(lacking.map(|r| (*r, *target)));
            }
        }
        for (to, target) in gaps {
            self.transfer(to, target);
        }
    }

    /// Asks each node that holds copies of what is ours for one of them.
    fn check_holders(&mut self, now: Time, out: &mut Vec<Output>) {
        let others = usize::from(self.settings.replicas.max(1)) - 1;
        let mut asked: Vec<(Place, Id)> = Vec::new();
        for node in &self.nodes {
            for holder in node.successors().iter().take(2 * others) {
                let mut items = self.store.items.iter();
                let held = items.find(|(t, h)| h.holders.contains(&holder.id) && node.owns(**t));
                asked.extend(held.map(|(target, _)| (holder.addr, *target)));
            }
        }
        for (holder, target) in asked {
            let ask = Ask::Get { target };
            self.ask(now, holder, false, ask, Purpose::Check, out);
        }
        // And the other way round: an owner that was started again does not know what it should have.
        let foreign = self.store.items.keys().filter(|t| !self.owns(**t));
        let foreign: Vec<Id> = foreign.copied().collect();
        let first = self.rng.below(foreign.len().max(1));
        for target in foreign
            .iter()
            .cycle()
            .skip(first)
            .take(FOREIGN.min(foreign.len()))
        {
            if let Some(held) = self.store.items.get_mut(target) {
                held.placed = false;
            }
        }
        if !foreign.is_empty() {
            self.ring_changed(now);
        }
    }

    /// A node that should hold a copy was asked for it.
    pub(super) fn checked(&mut self, now: Time, holder: Id, reply: Option<&Reply>) {
        if matches!(reply, Some(Reply::Value(None))) {
            for held in self.store.items.values_mut() {
                held.holders.retain(|h| *h != holder);
            }
            self.ring_changed(now);
        }
    }

    fn owns(&self, target: Id) -> bool {
        self.nodes.iter().any(|n| n.owns(target))
    }

    /// Somebody handed an item over.
    pub(super) fn received(&mut self, now: Time, target: Id, owned: bool, new: bool) {
        if self.owns(target) {
            if new {
                self.ring_changed(now);
            }
        } else if !owned && let Some(held) = self.store.items.get_mut(&target) {
            held.placed = false;
            self.ring_changed(now);
        }
    }

    /// Looks up the owners of what was handed here and is not ours.
    fn look_for_owners(&mut self, now: Time, out: &mut Vec<Output>) {
        let homeless = self.store.items.iter().filter(|(t, held)| {
            !held.placed && !self.owns(**t) && !self.transfers.homeless.contains(*t)
        });
        let room = LOOKED_UP.saturating_sub(self.transfers.homeless.len());
        let homeless: Vec<Id> = homeless.map(|(t, _)| *t).take(room + 1).collect();
        if homeless.len() > room {
            self.ring_changed(now);
        }
        for target in homeless.into_iter().take(room) {
            self.transfers.homeless.insert(target);
            let op = self.add_op(Work::Hand { target });
            self.start(now, op, out);
        }
    }

    /// An item's owner was looked up, or was not found.
    pub(super) fn owner_found(&mut self, now: Time, target: Id, owner: Option<Place>) {
        self.transfers.homeless.remove(&target);
        match owner {
            // Ours after all: the next look finds who lacks it.
            Some(owner) if self.own(owner.id).is_some() => {}
            Some(owner) => return self.transfer(owner, target),
            None => {}
        }
        self.ring_changed(now);
    }

    /// A transfer has ended.
    pub(super) fn transferred(&mut self, now: Time, target: Id, holder: Id, reply: Option<&Reply>) {
        self.transfers.under_way = self.transfers.under_way.saturating_sub(1);
        self.transfers.known.remove(&(holder, target));
        let ours = self.owns(target);
        let Some(held) = self.store.items.get_mut(&target) else {
            return;
        };
        let has = matches!(reply, Some(Reply::Stored | Reply::Older(_)));
        if has && !held.holders.contains(&holder) {
            held.holders.push(holder);
        }
        if ours && !has {
            // It may not be a member yet, or is about to be missed.
            let again = self.later(now, AGAIN);
            self.transfers.look = self.transfers.look.min(again);
        }
        let Some(held) = self.store.items.get_mut(&target) else {
            return;
        };
        if !ours {
            // Whoever took it sees to the rest.
            held.placed = has;
            if !has {
                self.ring_changed(now);
            }
        }
    }

    /// Leaving: the next node gets all that we own and it lacks.
    pub(super) fn hand_over_all(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut gaps = Vec::new();
        for node in &self.nodes {
            let heir = node.successors().iter().find(|s| self.own(s.id).is_none());
            let Some(heir) = heir else { continue };
            let owned = self
                .store
                .items
                .iter()
                .filter(|(t, held)| node.owns(**t) && !held.holders.contains(&heir.id));
            gaps.extend(owned.map(|(t, _)| (heir.addr, *t)));
        }
        for (to, target) in gaps {
            self.replicate(now, to, target, out);
        }
    }
}
