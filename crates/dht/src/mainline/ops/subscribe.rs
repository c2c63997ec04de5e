//! Subscriptions: Mainline tells nobody of anything, so the nodes that hold a value are read in
//! turn, one at a time; the answer is small unless there is something new.

use super::super::Mainline;
use super::super::krpc::{Call, Reply};
use super::super::lookup::Found;
use super::super::node::Node;
use super::super::table::K;
use super::{Op, Phase, Purpose, Work};
use crate::{Answer, Id, Item, OpId, Output};
use shoal_base::Time;
use std::time::Duration;

/// After this time the nodes near the target are looked up again; others may have joined.
const RENEW: Duration = Duration::from_secs(15 * 60);
/// With fewer holders they are looked up at once.
const MIN_HOLDERS: usize = 3;

impl Mainline {
    /// An item was stored here: subscriptions in this node need not wait for their next read.
    pub(in crate::mainline) fn tell_subscribers(&mut self, target: &Id, out: &mut Vec<Output>) {
        if let Some(item) = self.items.get(target).cloned() {
            self.tell_subscribers_of(&item, out);
        }
    }

    /// The same for an item that this node stored elsewhere.
    pub(super) fn tell_subscribers_of(&mut self, item: &Item, out: &mut Vec<Output>) {
        let Item::Mutable(value) = item else { return };
        for (id, op) in &mut self.ops {
            if let Work::Subscribe {
                key, salt, newest, ..
            } = &mut op.work
                && *key == value.key
                && *salt == value.salt
                && newest.is_none_or(|newest| newest < value.seq)
            {
                *newest = Some(value.seq);
                out.push(Output::Answer {
                    op: OpId(*id),
                    answer: Answer::Value(item.clone()),
                });
            }
        }
    }

    /// An answer to a subscription's lookup or read.
    pub(super) fn subscription_answered(
        &self,
        id: u32,
        op: &mut Op,
        node: &Node,
        reply: &Reply<'_>,
        out: &mut Vec<Output>,
    ) {
        let bounds = self.config.subscribe_interval;
        let Work::Subscribe {
            key,
            salt,
            newest,
            holders,
            interval,
            ..
        } = &mut op.work
        else {
            return;
        };
        let value = super::replies::mutable(key, salt, *newest, reply);
        let Some(item) = value else {
            if op.phase == Phase::Resting {
                *interval = interval.mul_f64(1.2).min(bounds.1);
            }
            return;
        };
        *newest = item.seq();
        *interval = bounds.0;
        // Who had it first may have the next one first.
        if let Some(at) = holders.iter().position(|h| *h == node.addr)
            && let Some(holder) = holders.remove(at)
        {
            holders.push_front(holder);
        }
        self.tell(id, op, Answer::Value(item), out);
    }

    /// The nodes near a subscription's target are found.
    pub(super) fn subscribed(
        &mut self,
        now: Time,
        id: u32,
        mut op: Op,
        near: &[Found],
        out: &mut Vec<Output>,
    ) {
        let Work::Subscribe {
            holders,
            interval,
            renew,
            ..
        } = &mut op.work
        else {
            return;
        };
        *holders = near.iter().take(2 * K).map(|f| f.node.addr).collect();
        // Subscribers of one value do not begin with the same node.
        let first = self.rng.below(holders.len());
        holders.rotate_left(first);
        *renew = now + RENEW.mul_f64(0.8 + self.rng.unit() * 0.4);
        let wait = *interval;
        let outcome = op.outcome;
        self.finish(now, id, op, Ok(outcome), out);
        self.rest(now, id, wait);
    }

    /// Sets when a subscription reads next.
    fn rest(&mut self, now: Time, id: u32, wait: Duration) {
        if let Some(mut op) = self.take_op(id) {
            op.phase = Phase::Resting;
            op.wake = now + wait.mul_f64(0.75 + self.rng.unit() / 2.0);
            self.keep_op(id, op);
        }
    }

    /// Reads the next holder, or looks for holders.
    pub(super) fn read_again(&mut self, now: Time, id: u32, mut op: Op, out: &mut Vec<Output>) {
        let target = op.work.target(Id::default());
        let Work::Subscribe {
            newest,
            holders,
            interval,
            renew,
            ..
        } = &mut op.work
        else {
            return;
        };
        let few = holders.len() < MIN_HOLDERS.min(self.contacts());
        let holder = holders.pop_front();
        let (Some(holder), true) = (holder, now < *renew && !few) else {
            return self.begin_round(now, id, op, out);
        };
        holders.push_back(holder);
        let call = Call::Get {
            target,
            seq: *newest,
        };
        let wait = *interval;
        self.ask(now, (None, holder), Purpose::After(id), call, out);
        self.keep_op(id, op);
        self.rest(now, id, wait);
    }
}
