//! Keeping the tables true: joining the network, verifying nodes before they enter, asking the
//! contact not heard of for longest, noticing when the network is gone and when it returns.

use super::krpc::Call;
use super::node::{Node, is_usable};
use super::ops::{Purpose, Work};
use super::rpc::Pending;
use super::table::K;
use super::{Mainline, bep42, family_of};
use crate::api::Health;
use crate::{Id, Output};
use shoal_base::Time;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Addresses to start from that are remembered.
const MAX_KNOWN: usize = 64;
/// Nodes that wait to be verified.
const MAX_QUEUE: usize = 256;
/// Between two verifications.
const VERIFY_GAP: Duration = Duration::from_millis(250);
/// Between two rounds of forgetting old entries.
const SWEEP: Duration = Duration::from_secs(60);
/// All contacts are asked within this time, ...
const ROUND: Duration = Duration::from_secs(600);
/// ... but no more often and no more rarely than this. Two datagrams each 6 s are a third of one
/// a second (NICE, Jimenez 2011).
const PERIOD: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(30));
/// Attempts to join: the first wait, and the longest without and with a network.
const BACKOFF: Duration = Duration::from_secs(2);
const BACKOFF_OFFLINE: Duration = Duration::from_secs(60);
const BACKOFF_ONLINE: Duration = Duration::from_secs(300);
/// To the next query after one was lost.
const AFTER_LOSS: Duration = Duration::from_millis(1500);
/// Queries lost in a row after which the network is taken for gone.
const SILENT: u32 = 4;
/// Lookups to far targets after joining.
const FAR: u32 = 4;
/// While a family has few contacts, so often are more looked for.
const REJOIN: Duration = Duration::from_secs(300);
/// An identifier changes no more often than this.
const ID_CHANGE: Duration = Duration::from_secs(600);

/// The state of all that.
#[derive(Debug)]
pub(super) struct Upkeep {
    /// When to ask or join next.
    next: Time,
    sweep: Time,
    verify: Time,
    queue: VecDeque<Node>,
    known: Vec<SocketAddr>,
    cached: Vec<Node>,
    backoff: Duration,
    joining: Option<u32>,
    joined: bool,
    far: u32,
    rejoin: Time,
    /// Last answer of anybody.
    heard: Option<Time>,
    /// Queries lost since.
    lost: u32,
    /// Whether a contact that failed was asked last.
    retry: bool,
    /// Whom they went to: fewer than [`SILENT`].
    doubted: Vec<Node>,
}

impl Upkeep {
    /// To begin at once.
    pub(super) fn new(now: Time, bootstrap: &[SocketAddr], mut cached: Vec<Node>) -> Self {
        cached.retain(|n| is_usable(&n.addr));
        cached.truncate(MAX_QUEUE);
        let mut upkeep = Self {
            next: now,
            sweep: now + SWEEP,
            verify: now,
            queue: VecDeque::new(),
            known: Vec::new(),
            cached,
            backoff: BACKOFF,
            joining: None,
            joined: false,
            far: 0,
            rejoin: now + REJOIN,
            heard: None,
            lost: 0,
            retry: false,
            doubted: Vec::new(),
        };
        upkeep.learn(bootstrap);
        upkeep
    }

    fn learn(&mut self, addrs: &[SocketAddr]) {
        for addr in addrs {
            if is_usable(addr) && !self.known.contains(addr) {
                if self.known.len() >= MAX_KNOWN {
                    self.known.remove(0);
                }
                self.known.push(*addr);
            }
        }
    }

    /// When it wants its tick.
    pub(super) fn deadline(&self) -> Time {
        let due = self.next.min(self.sweep);
        if self.queue.is_empty() {
            due
        } else {
            due.min(self.verify)
        }
    }

    /// Whether nobody has answered for so many queries that the network seems gone.
    pub(super) fn is_silent(&self) -> bool {
        self.lost >= SILENT
    }

    /// Nodes to start a lookup from when the table does not suffice.
    pub(super) fn starters(&self, v6: bool) -> impl Iterator<Item = (Option<Id>, SocketAddr)> {
        let cached = self.cached.iter().take(2 * K).map(|n| (Some(n.id), n.addr));
        let known = self.known.iter().map(|addr| (None, *addr));
        cached.chain(known).filter(move |(_, a)| a.is_ipv6() == v6)
    }
}

impl Mainline {
    /// Nodes to start from, such as host names stand for. Does not wait until they are needed.
    pub fn add_contacts(&mut self, now: Time, addrs: &[SocketAddr]) {
        let canonical: Vec<_> = addrs.iter().map(|a| super::node::canonical(*a)).collect();
        self.upkeep.learn(&canonical);
        if self.has_few() && self.upkeep.joining.is_none() {
            self.network_changed(now);
        }
    }

    /// Whether new nodes to start from would help, so that host names are resolved again.
    pub fn wants_contacts(&self) -> bool {
        self.upkeep.is_silent() || self.contacts() == 0
    }

    /// The network has changed: joins again without waiting.
    pub fn network_changed(&mut self, now: Time) {
        self.upkeep.backoff = BACKOFF;
        self.upkeep.joined = false;
        self.upkeep.next = now;
    }

    /// Whether some family has hardly any contacts.
    fn has_few(&self) -> bool {
        self.families.iter().flatten().any(|f| f.table.len() < K)
    }

    /// Contacts in all tables.
    pub(super) fn contacts(&self) -> usize {
        self.families.iter().flatten().map(|f| f.table.len()).sum()
    }

    /// Whether it has a network.
    pub(super) fn health(&self) -> Health {
        let upkeep = &self.upkeep;
        let known = self.contacts() + upkeep.known.len() + upkeep.cached.len();
        if known == 0 {
            Health::Empty
        } else if upkeep.is_silent() {
            Health::Offline
        } else if upkeep.heard.is_some() {
            Health::Online
        } else {
            Health::Starting
        }
    }

    /// A node that was heard or told of enters the table if there is room and it answers us.
    pub(super) fn upkeep_consider(&mut self, now: Time, node: &Node) {
        let Some(Some(family)) = self.families.get(family_of(&node.addr)) else {
            return;
        };
        let upkeep = &mut self.upkeep;
        if upkeep.queue.len() < MAX_QUEUE
            && family.table.wants(node)
            && !upkeep.queue.iter().any(|n| n.addr == node.addr)
        {
            upkeep.verify = upkeep.verify.max(now);
            upkeep.queue.push_back(*node);
        }
    }

    /// Somebody answered: there is a network.
    pub(super) fn upkeep_answered(&mut self, now: Time) {
        let upkeep = &mut self.upkeep;
        upkeep.heard = Some(now);
        if upkeep.is_silent() && upkeep.joining.is_none() {
            // It has returned, perhaps with another address.
            upkeep.joined = false;
            upkeep.backoff = BACKOFF;
            upkeep.next = now;
        }
        upkeep.lost = 0;
        for node in std::mem::take(&mut upkeep.doubted) {
            self.blame(&node);
        }
    }

    /// A query was lost.
    pub(super) fn upkeep_lost(&mut self, now: Time, pending: &Pending) {
        let upkeep = &mut self.upkeep;
        if upkeep.heard.is_some_and(|heard| heard > pending.sent) {
            if let Some(node) = pending.node() {
                self.blame(&node);
                // Where one is gone, others may be; this is no longer idle.
                if self.upkeep.joining.is_none() {
                    self.upkeep.next = self.upkeep.next.min(now + AFTER_LOSS);
                }
            }
            return;
        }
        // Nobody has answered since, so it may be us who have no network, and a table lost for
        // that would be missed. Another contact is asked at once; if it answers, the lost are to
        // blame.
        upkeep.lost = upkeep.lost.saturating_add(1);
        if upkeep.is_silent() {
            upkeep.doubted.clear();
        } else {
            upkeep.doubted.extend(pending.node());
            if upkeep.joining.is_none() {
                upkeep.next = now;
            }
        }
    }

    fn blame(&mut self, node: &Node) {
        if let Some(Some(family)) = self.families.get_mut(family_of(&node.addr)) {
            family.table.failed(node);
        }
    }

    /// A lookup for our own place, or a far one, has ended.
    pub(super) fn upkeep_found(&mut self, now: Time, op: u32, answered: u32) {
        let upkeep = &mut self.upkeep;
        if upkeep.joining != Some(op) {
            return;
        }
        upkeep.joining = None;
        if answered == 0 {
            let longest = if upkeep.heard.is_some() && !upkeep.is_silent() {
                BACKOFF_ONLINE
            } else {
                BACKOFF_OFFLINE
            };
            let wait = upkeep.backoff.mul_f64(0.75 + self.rng.unit() / 2.0);
            upkeep.next = now + wait;
            upkeep.backoff = (upkeep.backoff * 2).min(longest);
            return;
        }
        if !upkeep.joined {
            upkeep.joined = true;
            upkeep.far = FAR;
            // Those known from the last run are verified now that there is a network.
            let cached = std::mem::take(&mut upkeep.cached);
            for node in cached {
                self.upkeep_consider(now, &node);
            }
        }
        self.upkeep.next = now + Duration::from_secs(1);
    }

    /// Others say our address is `ip`.
    pub(super) fn learn_address(&mut self, now: Time, ip: IpAddr) {
        let Some(Some(family)) = self.families.get_mut(usize::from(ip.is_ipv6())) else {
            return;
        };
        let recent = family.changed.is_some_and(|at| now.since(at) < ID_CHANGE);
        if family.external == Some(ip) || recent {
            return;
        }
        family.external = Some(ip);
        if !bep42::is_valid(&family.table.own(), ip) {
            family.changed = Some(now);
            family.table.rekey(bep42::id_for(ip, &mut self.rng));
            self.upkeep.joined = false;
            if self.upkeep.joining.is_none() {
                self.upkeep.next = now;
            }
        }
    }

    /// What is due.
    pub(super) fn upkeep_tick(&mut self, now: Time, out: &mut Vec<Output>) {
        if now >= self.upkeep.sweep {
            self.upkeep.sweep = now + SWEEP;
            self.peers.expire(now);
            self.items.expire(now);
            self.sampled.retain(|_, until| *until > now);
        }
        if now >= self.upkeep.verify {
            self.verify_one(now, out);
        }
        if now < self.upkeep.next || self.upkeep.joining.is_some() {
            if now >= self.upkeep.next {
                self.upkeep.next = now + PERIOD.1;
            }
            return;
        }
        if !self.upkeep.joined || self.upkeep.is_silent() {
            self.find(now, Work::Join, out);
        } else if self.upkeep.far > 0 {
            self.upkeep.far -= 1;
            let bit = self.upkeep.far;
            self.find(now, Work::Far { bit }, out);
        } else {
            self.ask_stalest(now, out);
            let each = ROUND / (self.contacts().max(1) as u32);
            let period = each.clamp(PERIOD.0, PERIOD.1);
            self.upkeep.next = now + period.mul_f64(0.9 + self.rng.unit() / 5.0);
            if self.has_few() && now >= self.upkeep.rejoin {
                self.upkeep.rejoin = now + REJOIN;
                self.upkeep.joined = false;
            }
        }
    }

    fn find(&mut self, now: Time, work: Work, out: &mut Vec<Output>) {
        let op = self.last_op.wrapping_add(1);
        self.upkeep.joining = Some(op);
        let begun = self.begin(now, work, false, out);
        debug_assert_eq!(begun.0, op);
    }

    fn verify_one(&mut self, now: Time, out: &mut Vec<Output>) {
        while let Some(node) = self.upkeep.queue.pop_front() {
            let Some(Some(family)) = self.families.get(family_of(&node.addr)) else {
                continue;
            };
            if family.table.wants(&node) && self.rpc.has_room() {
                self.upkeep.verify = now + VERIFY_GAP;
                let to = (Some(node.id), node.addr);
                self.ask(now, to, Purpose::Verify, Call::Ping, out);
                return;
            }
        }
    }

    /// Asks the contact not heard of for longest for nodes near us, or near itself, where our
    /// knowledge is thin. If it is in doubt whether others are gone or we are cut off, asks whom
    /// we heard last.
    fn ask_stalest(&mut self, now: Time, out: &mut Vec<Output>) {
        let doubt = !self.upkeep.doubted.is_empty();
        // Never twice in a row, or who is gone would be asked without anybody else to compare.
        self.upkeep.retry = !self.upkeep.retry && !doubt;
        let retry = self.upkeep.retry;
        let families = self.families.iter().flatten();
        let fresh = families
            .clone()
            .filter_map(|f| Some((f.table.freshest().filter(|_| doubt)?, f.table.own())))
            .max_by_key(|(c, _)| c.seen);
        let stalest = families
            .filter_map(|f| Some((f.table.stalest(now, retry)?, f.table.own())))
            .min_by_key(|(c, _)| (!retry || c.failures == 0, c.seen.max(c.asked)));
        let stalest = fresh.or(stalest);
        let Some((contact, own)) = stalest else {
            return;
        };
        let target = if self.rng.chance(0.5) {
            own
        } else {
            // Somewhere in the contact's own bucket.
            let mut far = Id::random(&mut self.rng);
            let bits = own.common_prefix(&contact.node.id) as usize + 1;
            for (n, byte) in far.0.iter_mut().enumerate() {
                let fixed = bits.saturating_sub(n * 8).min(8);
                let mask = !(0xffu16 >> fixed) as u8;
                let theirs = contact.node.id.0.get(n).copied().unwrap_or_default();
                *byte = *byte & !mask | theirs & mask;
            }
            far
        };
        let to = (Some(contact.node.id), contact.node.addr);
        self.ask(now, to, Purpose::Verify, Call::FindNode { target }, out);
    }
}
