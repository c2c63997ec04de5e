//! Which supernodes are known, and which of them a node keeps a link with: an ordinary peer one,
//! a supernode several.

use std::time::Duration;

use shoal_base::Time;

use super::links::Stage;
use super::{Effect, Event, LinkId, Node, Role};
use crate::Address;
use crate::list::Entry;
use crate::wire::{MAX_BATCH, MAX_LIST, Message, Purpose};

/// Other supernodes told with a welcome or a refusal.
const SPARES: usize = 20;

/// Supernodes remembered at most.
pub(super) const MAX_CANDIDATES: usize = MAX_LIST;
/// Dials at once of who has no supernode.
const DIALS: usize = 3;
/// After how long an address that failed is tried again, twice as long each time.
const AGAIN: Duration = Duration::from_secs(2);
const MOST: Duration = Duration::from_secs(120);
/// How often the list is asked at most, by who has no link, and by who wants more.
const ASK: Duration = Duration::from_secs(2);
const ASK_MORE: Duration = Duration::from_secs(30);

/// A supernode that was heard of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Candidate {
    load: u8,
    failures: u32,
    not_before: Time,
}

impl Candidate {
    pub(super) fn set_load(&mut self, load: u8) {
        self.load = load;
    }
}

impl<A: Address> Node<A> {
    /// Remembers supernodes that somebody told of.
    pub(super) fn learn(&mut self, entries: &[Entry<A>]) {
        for entry in entries.iter().take(MAX_LIST) {
            if entry.addr == self.presence.links {
                continue;
            }
            if self.candidates.len() >= MAX_CANDIDATES && !self.candidates.contains_key(&entry.addr)
            {
                // Who failed most goes; nobody can push out those that work.
                let worst = self.candidates.iter().max_by_key(|(_, c)| c.failures);
                let Some((worst, _)) = worst.filter(|(_, c)| c.failures > 0) else {
                    return;
                };
                let worst = *worst;
                self.candidates.remove(&worst);
            }
            self.candidates.entry(entry.addr).or_default().load = entry.load;
        }
    }

    /// Other supernodes for somebody to remember: those linked first, for they live.
    pub(super) fn spares(&self, but: Option<A>) -> Vec<Entry<A>> {
        let linked = self
            .links
            .values()
            .filter(|l| matches!(l.stage, Stage::Neighbour | Stage::Parent));
        let mut addrs: Vec<A> = linked.filter_map(super::Link::addr).collect();
        let good = self.candidates.iter().filter(|(_, c)| c.failures == 0);
        for (addr, _) in good {
            if !addrs.contains(addr) {
                addrs.push(*addr);
            }
        }
        addrs.retain(|a| Some(*a) != but);
        let entry = |addr: A| Entry {
            addr,
            load: self.candidates.get(&addr).map_or(0, |c| c.load),
            age: 0,
        };
        addrs.into_iter().take(SPARES).map(entry).collect()
    }

    pub(super) fn failed(&mut self, addr: A) {
        let now = self.now;
        if let Some(c) = self.candidates.get_mut(&addr) {
            let wait = AGAIN * 2u32.saturating_pow(c.failures.min(6));
            c.failures += 1;
            c.not_before = now + wait.min(MOST);
        }
    }

    /// Forgets what failed: that neighbours refused a supernode says nothing of what they say to a peer.
    pub(super) fn forgive(&mut self) {
        for candidate in self.candidates.values_mut() {
            candidate.failures = 0;
            candidate.not_before = self.now;
        }
    }

    pub(super) fn works(&mut self, addr: A) {
        if let Some(c) = self.candidates.get_mut(&addr) {
            c.failures = 0;
        }
    }

    /// Dials what is missing: a supernode for a peer, neighbours for a supernode.
    pub(super) fn find_links(&mut self) {
        let (purpose, wanted) = match self.role {
            Role::Peer if self.parent.is_some() => return,
            Role::Peer => (Purpose::Child, DIALS),
            Role::Supernode => {
                let has = self.count(Stage::Neighbour);
                (
                    Purpose::Neighbour,
                    self.config.neighbours.saturating_sub(has),
                )
            }
        };
        let begun = self.links.values().filter(|l| {
            l.dialled.is_some()
                && l.purpose == purpose
                && matches!(l.stage, Stage::Hello | Stage::Proof | Stage::Asking)
        });
        let dialled = self.dialling.values().filter(|(p, _)| *p == purpose);
        let under_way = begun.count() + dialled.count();
        let linked: Vec<A> = self
            .links
            .values()
            .filter(|l| {
                let dialled = l.dialled.is_some() && l.purpose != Purpose::Letters;
                l.stage == Stage::Neighbour || dialled
            })
            .filter_map(|l| l.addr().or(l.dialled))
            .collect();
        let now = self.now;
        let mut free: Vec<(A, Candidate)> = self
            .candidates
            .iter()
            .filter(|(a, c)| {
                c.not_before <= now && !linked.contains(a) && !self.dialling.contains_key(a)
            })
            .map(|(a, c)| (*a, *c))
            .collect();
        // The least loaded first, in steps of a quarter, and by chance among equals.
        self.rng.shuffle(&mut free);
        free.sort_by_key(|(_, c)| (c.failures.min(3), c.load / 25));
        let known = free.len();
        for (addr, _) in free.into_iter().take(wanted.saturating_sub(under_way)) {
            self.dialling.insert(addr, (purpose, now));
            self.out.push(Effect::Dial(addr));
        }
        if known + under_way < wanted && now >= self.next_ask {
            let alone = under_way == 0 && self.parent.is_none() && linked.is_empty();
            self.next_ask = now + if alone { ASK } else { ASK_MORE };
            self.out.push(Effect::AskList);
        }
    }

    /// A supernode lets us in as its child: it is told what we share.
    pub(super) fn come_home(&mut self, id: LinkId) {
        self.set_stage(id, Stage::Parent);
        self.parent = Some(id);
        for batch in self
            .files
            .chunks(MAX_BATCH)
            .map(<[_]>::to_vec)
            .collect::<Vec<_>>()
        {
            self.send(id, Message::Share(batch));
        }
        self.tell_standing();
        let home = self.home();
        self.tell(Event::Home(home));
        // The others that were dialled are not needed.
        let begun: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(other, l)| {
                **other != id && l.dialled.is_some() && l.purpose == Purpose::Child
            })
            .map(|(id, _)| *id)
            .collect();
        for other in begun {
            let addr = self.links.get(&other).and_then(|l| l.dialled);
            self.close(other);
            addr.into_iter().for_each(|a| self.works(a));
        }
    }
}
