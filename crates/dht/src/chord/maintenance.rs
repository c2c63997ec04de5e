//! What keeps the ring: join, stabilise, rectify, leave, and the upkeep of fingers.
//!
//! After Zave, "Reasoning about Identifier Spaces: How to Make Chord Correct" (IEEE TSE 2017), not
//! the pseudocode of 2001, which is wrong in each published version. The differences that matter:
//! whoever joins takes over the whole successor list of the member before it; stabilise replaces
//! the list by the successor's own and drops dead heads; a successor's predecessor is adopted only
//! when it answers, with its list; who notifies is adopted as predecessor also when the present one
//! is dead; and each step asks one node one question.

use super::lookup::Purpose;
use super::message::{
    Address, Contact, Found, JoinError, Lookup, LookupError, Message, Output, Want,
};
use super::node::{Node, Standing, Why};
use super::ring::RingId;
use shoal_base::Time;

impl<I: RingId, A: Address> Node<I, A> {
    /// Begins a ring with this node alone in it.
    ///
    /// Zave's proof needs a base of r + 1 members before anybody may fail; a ring that is still
    /// smaller works, and heals what two or three nodes can heal.
    pub fn create(&mut self, now: Time, out: &mut Vec<Output<I, A>>) {
        *self = Self::new(self.tables.me, self.config.clone(), self.draw());
        self.become_member(now, out);
    }

    /// Joins the ring of the member at `via`. Ends with an [`Output::Joined`] before the deadline
    /// of the configuration.
    pub fn join(&mut self, now: Time, via: A, out: &mut Vec<Output<I, A>>) {
        self.standing = Standing::Joining;
        let until = now + self.config.deadline;
        self.busy().join = Some((via, until));
        self.find_place(now, via, out);
    }

    /// Leaves the ring and nudges the neighbours to find that out. To them leaving is failing, so
    /// that it cannot do harm that failing could not; whoever can, goes on delivering messages for
    /// a second, because the node answers that it is gone.
    pub fn leave(&mut self, out: &mut Vec<Output<I, A>>) {
        if self.standing == Standing::Member {
            let tables = &self.tables;
            let before = tables.predecessor;
            let after = tables.successors.first().filter(|s| Some(**s) != before);
            for contact in before.iter().chain(after) {
                let message = Message::Leaving { id: tables.me.id };
                let to = contact.addr;
                out.push(Output::Send { to, message });
            }
        }
        self.abandon_lookups(out);
        *self = Self::new(self.tables.me, self.config.clone(), self.draw());
    }

    /// One step of stabilisation: asks the first successor for its neighbours. Timers do this;
    /// the driver may do it at any time besides.
    pub fn stabilise(&mut self, now: Time, out: &mut Vec<Output<I, A>>) {
        let under_way = |why: &Why<I, A>| matches!(why, Why::Stabilise | Why::TryPredecessor(_));
        if self.standing != Standing::Member || self.waits_for(under_way) {
            return;
        }
        if let Some(head) = self.tables.successors.first() {
            self.ask_neighbours(now, head.addr, Why::Stabilise, out);
        } else if let Some(p) = self.tables.predecessor {
            // Who has no successor is its own, and asks itself: its predecessor lies between.
            self.ask_neighbours(now, p.addr, Why::TryPredecessor(p), out);
        }
    }

    /// Asks the predecessor whether it lives.
    pub fn check_predecessor(&mut self, now: Time, out: &mut Vec<Output<I, A>>) {
        let under_way = |why: &Why<I, A>| matches!(why, Why::CheckPredecessor | Why::Rectify(_));
        if let Some(p) = self.tables.predecessor
            && self.standing == Standing::Member
            && !self.waits_for(under_way)
        {
            let ping = |nonce, _: &Why<I, A>| Message::Ping { nonce };
            self.request(now, p.addr, Why::CheckPredecessor, ping, out);
        }
    }

    /// Looks the next finger up.
    pub fn fix_finger(&mut self, now: Time, out: &mut Vec<Output<I, A>>) {
        let under_way = |purpose| matches!(purpose, Purpose::Finger(_));
        let tables = &self.tables;
        if self.standing != Standing::Member || tables.alone() || self.looks_for(under_way) {
            return;
        }
        // What the successor list tells need not be looked up.
        let power = u32::from(self.next_power).max(tables.first_power());
        if power >= I::BITS {
            self.next_power = 0;
            self.eager = false;
            return;
        }
        let key = tables.me.id.plus_power(power);
        let lookup = Lookup::default();
        self.start_lookup(now, key, lookup, Purpose::Finger(power), None, out);
    }

    /// A finger was looked up.
    pub(super) fn on_finger(
        &mut self,
        now: Time,
        power: u32,
        result: Result<Box<Found<I, A>>, LookupError>,
        out: &mut Vec<Output<I, A>>,
    ) {
        let next = match result {
            Ok(found) => self.tables.put_finger(power, found.owner),
            // The next one may be found; this one's turn comes again.
            Err(_) => Some(power + 1).filter(|next| *next < I::BITS),
        };
        self.next_power = next.and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
        if next.is_none() {
            self.eager = false;
        } else if self.eager {
            self.fix_finger(now, out);
        }
    }

    pub(super) fn start_timers(&mut self, now: Time) {
        let config = self.config.clone();
        self.timers.stabilise = self.jittered(now, config.stabilise);
        self.timers.fingers = self.jittered(now, config.fix_fingers);
        self.timers.predecessor = self.jittered(now, config.check_predecessor);
    }

    pub(super) fn run_timers(&mut self, now: Time, out: &mut Vec<Output<I, A>>) {
        if self.timers.stabilise <= now {
            self.timers.stabilise = self.jittered(now, self.config.stabilise);
            self.stabilise(now, out);
        }
        if self.timers.fingers <= now {
            self.timers.fingers = self.jittered(now, self.config.fix_fingers);
            self.fix_finger(now, out);
        }
        if self.timers.predecessor <= now {
            self.timers.predecessor = self.jittered(now, self.config.check_predecessor);
            self.check_predecessor(now, out);
        }
        if self.timers.nudge <= now {
            self.timers.nudge = Time::FAR;
            let id = self.tables.me.id;
            if let Some(p) = self.tables.predecessor {
                let (to, message) = (p.addr, Message::Changed { id });
                out.push(Output::Send { to, message });
            }
        }
    }

    fn become_member(&mut self, now: Time, out: &mut Vec<Output<I, A>>) {
        self.standing = Standing::Member;
        self.next_power = 0;
        self.eager = self.config.fix_fingers.is_some();
        self.start_timers(now);
        if let Some(busy) = &mut self.busy {
            busy.join = None;
        }
        out.push(Output::Joined(Ok(())));
        self.rest();
    }

    /// Looks for the member after which this node stands.
    fn find_place(&mut self, now: Time, via: A, out: &mut Vec<Output<I, A>>) {
        let lookup = Lookup {
            want: Want::Predecessor,
            ..Lookup::default()
        };
        let key = self.tables.me.id;
        self.start_lookup(now, key, lookup, Purpose::Join, Some(via), out);
    }

    /// Our place was looked up.
    pub(super) fn on_place(
        &mut self,
        now: Time,
        result: Result<Box<Found<I, A>>, LookupError>,
        out: &mut Vec<Output<I, A>>,
    ) {
        let me = self.tables.me;
        match result {
            Ok(found) if found.owner.id == me.id && found.owner.addr != me.addr => {
                self.join_failed(JoinError::Taken, out);
            }
            Ok(found) => {
                self.ask_neighbours(now, found.by.addr, Why::JoinAt(found.by), out);
            }
            Err(_) => self.join_failed(JoinError::NoAnswer, out),
        }
    }

    fn join_failed(&mut self, error: JoinError, out: &mut Vec<Output<I, A>>) {
        if self.standing == Standing::Joining {
            let lost = self.lost.take();
            *self = Self::new(self.tables.me, self.config.clone(), self.draw());
            self.lost = lost;
            out.push(Output::Joined(Err(error)));
        }
    }

    pub(super) fn tick_join(&mut self, now: Time, out: &mut Vec<Output<I, A>>) {
        if self
            .busy
            .as_ref()
            .and_then(|b| b.join)
            .is_some_and(|(_, until)| until <= now)
        {
            self.join_failed(JoinError::NoAnswer, out);
        }
    }

    pub(super) fn ask_neighbours(
        &mut self,
        now: Time,
        to: A,
        why: Why<I, A>,
        out: &mut Vec<Output<I, A>>,
    ) {
        let message = |nonce, _: &Why<I, A>| Message::GetNeighbours { nonce };
        self.request(now, to, why, message, out);
    }

    pub(super) fn on_get_neighbours(&self, from: A, nonce: u32, out: &mut Vec<Output<I, A>>) {
        let message = match self.standing {
            Standing::Member => Message::Neighbours {
                nonce,
                predecessor: self.tables.predecessor,
                successors: self.tables.successors.as_slice().into(),
            },
            _ => Message::Gone { nonce },
        };
        out.push(Output::Send { to: from, message });
    }

    /// A member told its neighbours.
    pub(super) fn on_neighbours(
        &mut self,
        now: Time,
        from: A,
        nonce: u32,
        predecessor: Option<Contact<I, A>>,
        successors: &[Contact<I, A>],
        out: &mut Vec<Output<I, A>>,
    ) {
        let asked = |why: &Why<I, A>| {
            matches!(
                why,
                Why::Stabilise | Why::TryPredecessor(_) | Why::JoinAt(_)
            )
        };
        match self.take_request(from, nonce, asked) {
            Some(Why::Stabilise) => self.on_successor(now, from, predecessor, successors, out),
            Some(Why::TryPredecessor(nearer)) => {
                let me = self.tables.me.id;
                let head = self.tables.successors.first();
                if head.is_none_or(|head| nearer.id.strictly_between(me, head.id)) {
                    self.take_successors(now, nearer, successors, out);
                    // Many may have joined in between: stabilising goes on at once.
                    self.try_predecessor(now, nearer, predecessor, out);
                } else {
                    self.notify(out);
                }
            }
            Some(Why::JoinAt(by)) => self.on_join_at(now, by, successors, out),
            _ => {}
        }
    }

    /// Stabilise: the first successor answered.
    fn on_successor(
        &mut self,
        now: Time,
        from: A,
        predecessor: Option<Contact<I, A>>,
        successors: &[Contact<I, A>],
        out: &mut Vec<Output<I, A>>,
    ) {
        let Some(head) = self.tables.successors.first().copied() else {
            return;
        };
        if head.addr != from {
            return;
        }
        self.take_successors(now, head, successors, out);
        self.try_predecessor(now, head, predecessor, out);
    }

    /// Stabilise: asks the first successor's predecessor, if it lies between; else notifies.
    fn try_predecessor(
        &mut self,
        now: Time,
        head: Contact<I, A>,
        predecessor: Option<Contact<I, A>>,
        out: &mut Vec<Output<I, A>>,
    ) {
        let me = self.tables.me.id;
        match predecessor {
            Some(p) if p.id.strictly_between(me, head.id) && !self.suspected(p.addr, true) => {
                self.ask_neighbours(now, p.addr, Why::TryPredecessor(p), out);
            }
            _ => self.notify(out),
        }
    }

    fn take_successors(
        &mut self,
        now: Time,
        head: Contact<I, A>,
        rest: &[Contact<I, A>],
        out: &mut Vec<Output<I, A>>,
    ) {
        if self.tables.adopt(head, rest, self.config.successors.max(1)) {
            self.successors_changed(now, out);
        }
    }

    fn successors_changed(&mut self, now: Time, out: &mut Vec<Output<I, A>>) {
        out.push(Output::Successors);
        if let Some(nudge) = self.config.nudge {
            self.timers.nudge = self.timers.nudge.min(now + nudge);
        }
    }

    /// Who stands right after us, or takes itself for that, has news.
    pub(super) fn on_changed(&mut self, now: Time, id: I, out: &mut Vec<Output<I, A>>) {
        let (me, head) = (self.tables.me.id, self.tables.successors.first());
        if head.is_none_or(|head| id == head.id || id.strictly_between(me, head.id)) {
            self.stabilise(now, out);
        }
    }

    fn notify(&self, out: &mut Vec<Output<I, A>>) {
        if let Some(head) = self.tables.successors.first() {
            let message = Message::Notify {
                id: self.tables.me.id,
            };
            let to = head.addr;
            out.push(Output::Send { to, message });
        }
    }

    /// Joining: the member before our place told its successors.
    fn on_join_at(
        &mut self,
        now: Time,
        by: Contact<I, A>,
        successors: &[Contact<I, A>],
        out: &mut Vec<Output<I, A>>,
    ) {
        if self.standing != Standing::Joining {
            return;
        }
        let me = self.tables.me;
        // Whoever was here before under our name was us.
        let list: Vec<_> = successors
            .iter()
            .copied()
            .filter(|s| s.id != me.id)
            .collect();
        let head = list.first().copied().unwrap_or(by);
        if by.id == me.id || !me.id.strictly_between(by.id, head.id) {
            // Somebody has come between since.
            self.find_place(now, by.addr, out);
            return;
        }
        self.tables.successors.clear();
        self.tables.fingers.clear();
        self.take_successors(now, head, list.get(1..).unwrap_or_default(), out);
        self.set_predecessor(Some(by), out);
        self.become_member(now, out);
        self.stabilise(now, out);
        if self.eager {
            self.fix_finger(now, out);
        }
    }

    /// Rectify: a node takes itself for our predecessor.
    pub(super) fn on_notify(
        &mut self,
        now: Time,
        notifier: Contact<I, A>,
        out: &mut Vec<Output<I, A>>,
    ) {
        let me = self.tables.me;
        if self.standing != Standing::Member || notifier.id == me.id {
            return;
        }
        match self.tables.predecessor {
            // It may have moved to another address.
            Some(p) if p.id == notifier.id => self.tables.predecessor = Some(notifier),
            Some(p) if !notifier.id.strictly_between(p.id, me.id) => {
                // Farther than the present one, which may be dead.
                if !self.waits_for(|why| matches!(why, Why::Rectify(_))) {
                    let ping = |nonce, _: &Why<I, A>| Message::Ping { nonce };
                    self.request(now, p.addr, Why::Rectify(notifier), ping, out);
                }
            }
            _ => self.set_predecessor(Some(notifier), out),
        }
        if self.tables.successors.is_empty() {
            self.stabilise(now, out);
        }
    }

    fn set_predecessor(&mut self, predecessor: Option<Contact<I, A>>, out: &mut Vec<Output<I, A>>) {
        if self.tables.predecessor != predecessor {
            self.tables.predecessor = predecessor;
            out.push(Output::Predecessor(predecessor));
        }
    }

    /// A neighbour does not answer.
    pub(super) fn on_neighbour_lost(
        &mut self,
        now: Time,
        lost: A,
        why: &Why<I, A>,
        out: &mut Vec<Output<I, A>>,
    ) {
        let predecessor_lost = self.tables.predecessor.is_some_and(|p| p.addr == lost);
        if let Some(p) = self.tables.predecessor.filter(|_| predecessor_lost) {
            self.remember(now, p);
        }
        match why {
            Why::Stabilise => {
                let head = self.tables.successors.first().copied();
                if let Some(head) = head.filter(|s| s.addr == lost) {
                    self.remember(now, head);
                    self.tables.successors.remove(0);
                    self.successors_changed(now, out);
                }
                self.after_loss(now, out);
            }
            Why::TryPredecessor(_) if self.tables.successors.is_empty() => {
                if predecessor_lost {
                    self.set_predecessor(None, out);
                }
                self.after_loss(now, out);
            }
            Why::TryPredecessor(_) => self.notify(out),
            Why::CheckPredecessor if predecessor_lost => self.set_predecessor(None, out),
            Why::Rectify(notifier) if predecessor_lost => {
                self.set_predecessor(Some(*notifier), out);
            }
            Why::JoinAt(_) => {
                if let Some((via, _)) = self.busy.as_ref().and_then(|b| b.join) {
                    self.find_place(now, via, out);
                }
            }
            _ => {}
        }
    }

    /// Goes on after a successor was lost: with the next one, with the predecessor when there is
    /// none, through a finger when there is not even that: as a ring of its own that looks for the
    /// other there, or, where rings are not merged, by joining again.
    fn after_loss(&mut self, now: Time, out: &mut Vec<Output<I, A>>) {
        if !self.tables.alone() {
            return self.stabilise(now, out);
        }
        let links = self.tables.fingers.iter().chain(&self.tables.shortcuts);
        let known = links.map(|c| c.addr).find(|a| !self.suspected(*a, true));
        match known {
            Some(via) if self.config.merge.is_none() => self.join(now, via, out),
            known => {
                out.push(Output::Alone);
                if let Some(via) = known {
                    self.merge(now, via, out);
                }
            }
        }
    }

    /// A neighbour says that it leaves: asks it, to be sure. A message delayed until after the
    /// neighbour has come back must not cut it off.
    pub(super) fn on_leaving(
        &mut self,
        now: Time,
        who: Contact<I, A>,
        out: &mut Vec<Output<I, A>>,
    ) {
        if self.tables.successors.first() == Some(&who) {
            self.stabilise(now, out);
        }
        if self.tables.predecessor == Some(who) {
            self.check_predecessor(now, out);
        }
    }
}
