//! What answers mean for the operation they belong to.

use super::super::krpc::{Reply, code};
use super::super::node::{Node, may_contact};
use super::super::rpc::Pending;
use super::super::{Mainline, family_of};
use super::{MAX_TOLD, Op, Phase, Purpose, Work};
use crate::{Answer, Failure, Id, Item, Mutable, Output};
use shoal_base::Time;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// Nodes remembered as asked for samples.
const MAX_SAMPLED: usize = 4096;

impl Mainline {
    /// An answer came.
    pub(in crate::mainline) fn on_reply(
        &mut self,
        now: Time,
        pending: &Pending,
        node: Node,
        reply: &Reply<'_>,
        out: &mut Vec<Output>,
    ) {
        let (Purpose::Lookup(id) | Purpose::After(id)) = pending.purpose else {
            for told in reply.nodes.iter().take(16) {
                if may_contact(&told.addr, &node.addr) {
                    self.upkeep_consider(now, told);
                }
            }
            return;
        };
        let Some(mut op) = self.take_op(id) else {
            return;
        };
        if self.take_results(now, id, &mut op, &node, reply, out) {
            let outcome = op.outcome;
            return self.finish(now, id, op, Ok(outcome), out);
        }
        match (pending.purpose, op.phase) {
            (Purpose::Lookup(_), Phase::Looking) => {
                let family = family_of(&node.addr);
                if let Some(Some(lookup)) = op.lookups.get_mut(family) {
                    lookup.answered(node.id, &node.addr, reply.token);
                }
                let (nodes4, nodes6): (Vec<_>, Vec<_>) =
                    reply.nodes.iter().partition(|n| n.addr.is_ipv4());
                for (lookup, nodes) in op.lookups.iter_mut().zip([nodes4, nodes6]) {
                    if let Some(lookup) = lookup {
                        lookup.told(&node.addr, &nodes);
                    }
                }
                self.advance(now, id, op, out);
            }
            (Purpose::After(_), Phase::After) => {
                if matches!(op.work, Work::Announce { .. } | Work::Put { .. }) {
                    op.outcome.stored += 1;
                }
                self.one_less(now, id, op, out);
            }
            _ => self.keep_op(id, op),
        }
    }

    /// A refusal came.
    pub(in crate::mainline) fn on_refusal(
        &mut self,
        now: Time,
        pending: &Pending,
        error: i64,
        text: &str,
        out: &mut Vec<Output>,
    ) {
        // It is there all the same.
        if let Some(node) = pending.node()
            && let Some(Some(family)) = self.families.get_mut(family_of(&node.addr))
        {
            family.table.heard(now, &node);
        }
        let (Purpose::Lookup(id) | Purpose::After(id)) = pending.purpose else {
            return;
        };
        let Some(mut op) = self.take_op(id) else {
            return;
        };
        match (pending.purpose, op.phase) {
            (Purpose::Lookup(_), Phase::Looking) => {
                for lookup in op.lookups.iter_mut().flatten() {
                    lookup.failed(&pending.to);
                }
                self.advance(now, id, op, out);
            }
            (Purpose::After(_), Phase::After) => {
                op.mismatches += u32::from(error == code::CAS_MISMATCH);
                op.refusal.get_or_insert(match (error, &op.work) {
                    (code::CAS_MISMATCH, _) => Failure::CasMismatch,
                    (code::OLD_SEQ, Work::Put { item, newest, .. }) => {
                        Failure::OlderThan(newest.or(item.seq()).unwrap_or_default())
                    }
                    _ => Failure::Refused(format!("error {error}, {text}")),
                });
                self.one_less(now, id, op, out);
            }
            _ => self.keep_op(id, op),
        }
    }

    /// Takes peers, values, counts and samples out of an answer. True if the operation needs
    /// nothing more.
    fn take_results(
        &mut self,
        now: Time,
        id: u32,
        op: &mut Op,
        node: &Node,
        reply: &Reply<'_>,
        out: &mut Vec<Output>,
    ) -> bool {
        let (mut peers, mut value, mut sampled) = (Vec::new(), None, None);
        match &mut op.work {
            Work::Peers {
                told,
                holders,
                filters,
                ..
            } => {
                peers = fresh(told, &reply.values, &node.addr);
                if (!reply.values.is_empty() || reply.filters.is_some())
                    && !holders.contains(node)
                    && holders.len() < 64
                {
                    holders.push(*node);
                }
                if let Some((seeds, others)) = &reply.filters {
                    let all = filters.get_or_insert_with(Default::default);
                    all.0.merge(seeds);
                    all.1.merge(others);
                }
            }
            Work::Announce { told, .. } => peers = fresh(told, &reply.values, &node.addr),
            Work::GetImmutable { target } => {
                value = immutable(target, reply);
            }
            Work::GetMutable {
                key,
                salt,
                newest,
                found,
            } => {
                value = mutable(key, salt, *newest, reply);
                if let Some(item) = &value {
                    *newest = item.seq();
                    *found = true;
                }
            }
            Work::Put {
                item: Item::Mutable(item),
                newest,
                ..
            } => {
                // A number alone proves nothing: whoever says there is a newer value must show it.
                if let Some(newer) = mutable(&item.key, &item.salt, *newest, reply) {
                    *newest = newer.seq();
                }
            }
            Work::Sample { .. } => sampled = reply.samples.clone(),
            Work::Subscribe { .. } => {
                self.subscription_answered(id, op, node, reply, out);
            }
            Work::Join | Work::Far { .. } | Work::Put { .. } => {}
        }
        if !peers.is_empty() {
            self.tell(id, op, Answer::Peers(peers), out);
        }
        if let Some(samples) = sampled {
            if self.sampled.len() < MAX_SAMPLED {
                let until = now + Duration::from_secs(samples.interval.into());
                self.sampled.insert(node.addr, until);
            }
            let answer = Answer::Samples {
                keys: samples.keys,
                held: samples.num,
            };
            self.tell(id, op, answer, out);
        }
        let Some(value) = value else { return false };
        let enough = matches!(value, Item::Immutable(_));
        self.tell(id, op, Answer::Value(value), out);
        if enough {
            for lookup in op.lookups.iter_mut().filter_map(Option::take) {
                op.outcome.answered += lookup.answered;
                op.outcome.hops = op.outcome.hops.max(lookup.hops);
            }
            op.outcome.answered += 1;
        }
        enough
    }

    /// What this node holds itself is found without asking. True if nothing more is needed, and
    /// the operation has ended.
    pub(super) fn tell_own(&mut self, id: u32, op: &mut Op, out: &mut Vec<Output>) -> bool {
        let target = op.work.target(Id::default());
        let stored = self.items.get(&target);
        match &mut op.work {
            Work::Peers { told, .. } | Work::Announce { told, .. } => {
                let mut own = Vec::new();
                for v6 in [false, true] {
                    own.extend(self.peers.get(&target, v6, false, 100, &mut self.rng));
                }
                told.extend(own.iter());
                if !own.is_empty() {
                    self.tell(id, op, Answer::Peers(own), out);
                }
            }
            Work::GetImmutable { .. } => {
                if let Some(item) = stored {
                    self.tell(id, op, Answer::Value(item.clone()), out);
                    self.tell(id, op, Answer::Done(Ok(op.outcome)), out);
                    return true;
                }
            }
            Work::GetMutable { newest, found, .. } => {
                if let Some(item) = stored.filter(|item| item.seq() > *newest) {
                    *newest = item.seq();
                    *found = true;
                    self.tell(id, op, Answer::Value(item.clone()), out);
                }
            }
            Work::Put { newest, .. } => *newest = stored.and_then(Item::seq),
            Work::Subscribe { newest, .. } => {
                if let Some(item) = stored.filter(|item| item.seq() > *newest).cloned() {
                    *newest = item.seq();
                    self.tell(id, op, Answer::Value(item), out);
                }
            }
            Work::Join | Work::Far { .. } | Work::Sample { .. } => {}
        }
        false
    }
}

/// The peers among `values` not told before.
fn fresh(
    told: &mut BTreeSet<SocketAddr>,
    values: &[SocketAddr],
    teller: &SocketAddr,
) -> Vec<SocketAddr> {
    values
        .iter()
        .filter(|peer| may_contact(peer, teller))
        .filter(|peer| told.len() < MAX_TOLD && told.insert(**peer))
        .copied()
        .collect()
}

fn immutable(target: &Id, reply: &Reply<'_>) -> Option<Item> {
    let value = reply.value.as_ref()?;
    if reply.key.is_some() || Id::hash(value) != *target {
        return None;
    }
    Item::immutable(value.clone()).ok()
}

/// The value in `reply`, if it is one of `key` and `salt` newer than `newest`.
pub(super) fn mutable(
    key: &[u8; 32],
    salt: &[u8],
    newest: Option<i64>,
    reply: &Reply<'_>,
) -> Option<Item> {
    let seq = reply.seq?;
    if newest.is_some_and(|newest| seq <= newest) || reply.key != Some(*key) {
        return None;
    }
    let item = Mutable {
        key: *key,
        salt: salt.to_vec(),
        seq,
        value: reply.value.clone()?,
        signature: reply.signature?,
    };
    item.verify().ok()?;
    Some(Item::Mutable(Box::new(item)))
}
