//! The routing table of one address family (Kademlia 2.4, BEP 5): contacts by how many leading
//! bits of their identifier they share with ours.
//!
//! A contact enters only by having answered us. One that stops answering gives its place to the
//! best spare. Where BEP 5 splits a bucket when it is full and covers our own identifier, there is
//! one bucket for each length of shared prefix from the start, which holds the same contacts; the
//! first three are larger, which makes most lookups a hop shorter for a few kilobytes.

use super::bep42;
use super::node::{Exempt, Node, Subnet};
use crate::Id;
use shoal_base::Time;
use std::time::Duration;

/// Nodes in a bucket, and in an answer (BEP 5).
pub(super) const K: usize = 8;
/// Contacts kept aside for each bucket.
const SPARES: usize = 8;
/// A contact that failed is asked again after this time.
const RETRY: Duration = Duration::from_secs(8);
/// Contacts of one /24 or /48 in one bucket.
const SUBNET_PER_BUCKET: usize = 2;
/// Contacts of one /24 or /48 in the table.
const SUBNET_PER_TABLE: usize = 10;
/// A node that answered us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contact {
    /// Id and address.
    pub node: Node,
    /// Its identifier is bound to its address, or need not be (BEP 42).
    pub bound: bool,
    /// When it last answered or asked.
    pub seen: Time,
    /// When we last asked it something.
    pub asked: Time,
    /// Queries in a row that it left unanswered while others answered.
    pub failures: u8,
}

#[derive(Debug, Default)]
struct Bucket {
    live: Vec<Contact>,
    spare: Vec<Contact>,
}

/// The contacts of one family.
#[derive(Debug)]
pub(super) struct Table {
    own: Id,
    exempt: Exempt,
    buckets: Vec<Bucket>,
}

/// How many contacts share exactly `prefix` bits with us.
fn capacity(prefix: usize) -> usize {
    match prefix {
        0 => K * 8,
        1 => K * 4,
        2 => K * 2,
        _ => K,
    }
}

impl Table {
    /// An empty table around `own`.
    pub(super) fn new(own: Id, exempt: Exempt) -> Self {
        Self {
            own,
            exempt,
            buckets: Vec::new(),
        }
    }

    /// The identifier it is built around.
    pub(super) fn own(&self) -> Id {
        self.own
    }

    fn index(&self, id: &Id) -> usize {
        self.own.common_prefix(id) as usize
    }

    fn bucket_mut(&mut self, index: usize) -> Option<&mut Bucket> {
        if index >= Id::BITS as usize {
            return None;
        }
        while self.buckets.len() <= index {
            self.buckets.push(Bucket::default());
        }
        self.buckets.get_mut(index)
    }

    /// How many contacts there are, spares not counted.
    pub(super) fn len(&self) -> usize {
        self.buckets.iter().map(|b| b.live.len()).sum()
    }

    /// All contacts, the farthest bucket first.
    pub(super) fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.buckets.iter().flat_map(|b| &b.live)
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        let contacts: usize = self
            .buckets
            .iter()
            .map(|b| b.live.capacity() + b.spare.capacity())
            .sum();
        contacts * size_of::<Contact>() + self.buckets.capacity() * size_of::<Bucket>()
    }

    /// Whether there are as many contacts like `node` as there may be in the bucket of `index` or
    /// in all: of its subnet, or with identifiers not bound to their address.
    fn crowded(&self, index: usize, node: &Node) -> bool {
        let ip = node.addr.ip();
        let bucket = self.buckets.get(index).map_or(&[][..], |b| &b.live);
        let unbound = || bucket.iter().filter(|c| !c.bound).count();
        if !bep42::is_valid(&node.id, ip) && unbound() >= capacity(index) / 2 {
            return true;
        }
        if self.exempt.contains(ip) {
            return false;
        }
        let subnet = Subnet::of(ip);
        let within = |contacts: &[Contact]| {
            let same = |c: &&Contact| Subnet::of(c.node.addr.ip()) == subnet;
            contacts.iter().filter(same).count()
        };
        let all = self.buckets.iter().map(|b| within(&b.live));
        within(bucket) >= SUBNET_PER_BUCKET || all.sum::<usize>() >= SUBNET_PER_TABLE
    }

    /// Whether the table would take `node` if it answered: it is new, and there is room or a
    /// contact that failed.
    pub(super) fn wants(&self, node: &Node) -> bool {
        let index = self.index(&node.id);
        if index >= Id::BITS as usize || self.crowded(index, node) {
            return false;
        }
        let Some(bucket) = self.buckets.get(index) else {
            return true;
        };
        let known = bucket
            .live
            .iter()
            .any(|c| c.node.id == node.id || c.node.addr == node.addr);
        !known
            && (bucket.live.len() < capacity(index) || bucket.live.iter().any(|c| c.failures > 0))
    }

    /// `node` answered us. True if it entered or was there.
    pub(super) fn answered(&mut self, now: Time, node: Node) -> bool {
        let index = self.index(&node.id);
        if index >= Id::BITS as usize {
            return false;
        }
        let contact = Contact {
            node,
            bound: bep42::is_valid(&node.id, node.addr.ip()),
            seen: now,
            asked: now,
            failures: 0,
        };
        if let Some(bucket) = self.buckets.get_mut(index) {
            if let Some(known) = bucket.live.iter_mut().find(|c| c.node.id == node.id) {
                if known.node.addr == node.addr {
                    *known = contact;
                    return true;
                }
                // An id is taken over by another address only from one that does not answer.
                if known.failures == 0 {
                    return false;
                }
                bucket.live.retain(|c| c.node.id != node.id);
            }
            bucket.spare.retain(|c| c.node.id != node.id);
        }
        self.forget_address(&node);
        let crowded = self.crowded(index, &node);
        let Some(bucket) = self.bucket_mut(index) else {
            return false;
        };
        if crowded {
            return false;
        }
        if bucket.live.len() < capacity(index) {
            bucket.live.push(contact);
            return true;
        }
        if let Some(failed) = bucket.live.iter_mut().max_by_key(|c| c.failures)
            && failed.failures > 0
        {
            *failed = contact;
            return true;
        }
        if bucket.spare.len() >= SPARES {
            bucket.spare.remove(0);
        }
        bucket.spare.push(contact);
        false
    }

    /// Takes out whoever else was at the address of `node`: it has a new identifier.
    fn forget_address(&mut self, node: &Node) {
        for bucket in &mut self.buckets {
            let other = |c: &Contact| c.node.addr != node.addr || c.node.id == node.id;
            bucket.live.retain(other);
            bucket.spare.retain(other);
        }
    }

    /// A contact asked us something.
    pub(super) fn heard(&mut self, now: Time, node: &Node) {
        let index = self.index(&node.id);
        if let Some(bucket) = self.buckets.get_mut(index)
            && let Some(contact) = bucket.live.iter_mut().find(|c| c.node == *node)
        {
            contact.seen = now;
        }
    }

    /// A contact is being asked something.
    pub(super) fn asked(&mut self, now: Time, id: &Id) {
        let index = self.index(id);
        if let Some(bucket) = self.buckets.get_mut(index)
            && let Some(contact) = bucket.live.iter_mut().find(|c| c.node.id == *id)
        {
            contact.asked = now;
        }
    }

    /// A contact left a query unanswered while others answered. The second time, or if there is a
    /// spare, it goes.
    pub(super) fn failed(&mut self, node: &Node) {
        let index = self.index(&node.id);
        let Some(bucket) = self.buckets.get_mut(index) else {
            return;
        };
        bucket.spare.retain(|c| c.node != *node);
        let Some(at) = bucket.live.iter().position(|c| c.node == *node) else {
            return;
        };
        let gone = bucket.live.get_mut(at).is_some_and(|contact| {
            contact.failures = contact.failures.saturating_add(1);
            contact.failures >= 2
        });
        let spare = bucket.spare.iter().rposition(|_| true);
        if gone || spare.is_some() {
            bucket.live.swap_remove(at);
        }
        if let Some(spare) = spare {
            let spare = bucket.spare.remove(spare);
            if !self.crowded(index, &spare.node)
                && let Some(bucket) = self.buckets.get_mut(index)
            {
                bucket.live.push(spare);
            }
        }
    }

    /// The `n` contacts nearest to `target`, nearest first; those that failed are left out, and
    /// only half are ones whose identifier is not bound to their address, if there are others.
    pub(super) fn closest(&self, target: &Id, n: usize) -> Vec<Node> {
        // Everything in the target's own bucket is nearer than all else, then come the buckets
        // beyond it, mixed, then those before it, one after another.
        let own = self.index(target);
        let of = |range: &mut dyn Iterator<Item = &Bucket>, found: &mut Vec<Contact>| {
            let good = range.flat_map(|b| &b.live).filter(|c| c.failures == 0);
            found.extend(good);
            found.iter().filter(|c| c.bound).count()
        };
        let mut found = Vec::with_capacity(n * 2);
        let mut bound = of(&mut self.buckets.get(own).into_iter(), &mut found);
        if bound < n {
            bound = of(&mut self.buckets.iter().skip(own + 1), &mut found);
        }
        for bucket in self.buckets.iter().take(own).rev() {
            if bound >= n {
                break;
            }
            bound = of(&mut std::iter::once(bucket), &mut found);
        }
        found.sort_unstable_by_key(|c| c.node.id.xor(target));
        let others = n - bound.min(n);
        let mut unbound = 0;
        found.retain(|c| {
            unbound += usize::from(!c.bound);
            c.bound || unbound <= others.max(n / 2)
        });
        found.truncate(n);
        found.into_iter().map(|c| c.node).collect()
    }

    /// The contact not heard of nor asked for longest; if `failed`, one that left a query
    /// unanswered and is not being asked, should there be one.
    pub(super) fn stalest(&self, now: Time, failed: bool) -> Option<Contact> {
        let waiting = |c: &&Contact| c.failures > 0 && now.since(c.asked) > RETRY;
        let failing = self.contacts().filter(|c| failed && waiting(c));
        failing
            .min_by_key(|c| c.asked)
            .or_else(|| self.contacts().min_by_key(|c| c.seen.max(c.asked)))
            .copied()
    }

    /// The contact heard of last and not asked since.
    pub(super) fn freshest(&self) -> Option<Contact> {
        let answering = self.contacts().filter(|c| c.seen >= c.asked);
        answering.max_by_key(|c| c.seen).copied()
    }

    /// Rebuilds the table around another identifier of ours. Where a bucket gets too full those
    /// that failed stay out.
    pub(super) fn rekey(&mut self, own: Id) {
        let old = std::mem::replace(self, Self::new(own, self.exempt.clone()));
        let mut contacts: Vec<_> = old.contacts().copied().collect();
        contacts.sort_by_key(|c| c.failures);
        for contact in contacts {
            let index = self.index(&contact.node.id);
            if !self.crowded(index, &contact.node)
                && let Some(bucket) = self.bucket_mut(index)
                && bucket.live.len() < capacity(index)
            {
                bucket.live.push(contact);
            }
        }
    }
}

#[cfg(test)]
mod tests;
