//! Announced peers (BEP 5), counted for scrapes (BEP 33) and sampled (BEP 51). Bounded in all, for
//! each key and for each address; who floods it displaces itself.

use super::bloom::Bloom;
use super::krpc::Samples;
use super::node::Source;
use super::shares::Shares;
use crate::Id;
use shoal_base::{Rng, Time};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// A peer that announced nothing for this long is forgotten. Clients announce every 15 to 30
/// minutes.
const EXPIRY: Duration = Duration::from_secs(45 * 60);
/// Ports of one address for one key.
const PORTS_PER_SOURCE: usize = 4;
/// Keys in one sample: they must fit beside the nodes.
const SAMPLES: usize = 20;
/// For how long the same sample is given, in seconds (BEP 51: up to six hours).
const SAMPLE_INTERVAL: u32 = 600;

/// Bounds of a `Peers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Entries in all.
    pub peers: usize,
    /// Entries of one key.
    pub per_key: usize,
}

#[derive(Debug, Clone, Copy)]
struct Peer {
    addr: SocketAddr,
    seed: bool,
    at: Time,
}

/// Who announced which key.
#[derive(Debug)]
pub(super) struct Peers {
    bounds: Bounds,
    keys: BTreeMap<Id, Vec<Peer>>,
    total: usize,
    shares: Shares,
    sample: (Time, Vec<Id>),
}

impl Peers {
    /// An empty store.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            keys: BTreeMap::new(),
            total: 0,
            shares: Shares::default(),
            sample: (Time::ZERO, Vec::new()),
        }
    }

    /// Entries in all.
    pub(super) fn len(&self) -> usize {
        self.total
    }

    /// Keys with peers.
    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Bytes held, as far as they can be counted.
    pub(super) fn memory(&self) -> usize {
        let peers: usize = self.keys.values().map(Vec::capacity).sum();
        peers * size_of::<Peer>()
            + self.keys.len() * (size_of::<(Id, Vec<Peer>)>() + 8)
            + self.shares.len() * 24
            + self.sample.1.capacity() * size_of::<Id>()
    }

    /// Takes a peer. `exempt` addresses may have any number of ports.
    pub(super) fn announce(
        &mut self,
        now: Time,
        key: Id,
        addr: SocketAddr,
        seed: bool,
        exempt: bool,
        rng: &mut Rng,
    ) {
        let source = Source::of(addr.ip());
        let swarm = self.keys.entry(key).or_default();
        let entry = Peer {
            addr,
            seed,
            at: now,
        };
        if let Some(known) = swarm.iter_mut().find(|p| p.addr == addr) {
            *known = entry;
            return;
        }
        let same = |p: &&Peer| Source::of(p.addr.ip()) == source;
        let ports = swarm.iter().filter(same).count();
        if ports >= PORTS_PER_SOURCE && !exempt {
            if let Some(oldest) = swarm
                .iter_mut()
                .filter(|p| Source::of(p.addr.ip()) == source)
                .min_by_key(|p| p.at)
            {
                *oldest = entry;
            }
            return;
        }
        if swarm.len() >= self.bounds.per_key {
            // A random one, so that nobody can be sure to displace another.
            let at = rng.below(swarm.len());
            if let Some(displaced) = swarm.get_mut(at) {
                self.shares.remove(Source::of(displaced.addr.ip()));
                *displaced = entry;
                self.shares.add(source);
            }
            return;
        }
        if swarm.len() < 4 {
            // Most keys have one peer, and a vector's first allocation is for four.
            swarm.reserve_exact(1);
        }
        swarm.push(entry);
        self.shares.add(source);
        self.total += 1;
        if self.total > self.bounds.peers {
            self.evict(rng);
        }
    }

    /// Drops the oldest entry of whoever has most.
    fn evict(&mut self, rng: &mut Rng) {
        let Some(heaviest) = self.shares.heaviest(rng) else {
            return;
        };
        let oldest = self
            .keys
            .iter()
            .flat_map(|(key, swarm)| swarm.iter().map(move |p| (p.at, *key, p.addr)))
            .filter(|(_, _, addr)| Source::of(addr.ip()) == heaviest)
            .min();
        if let Some((_, key, addr)) = oldest {
            self.retain_in(key, |p| p.addr != addr);
        }
    }

    fn retain_in(&mut self, key: Id, keep: impl Fn(&Peer) -> bool) {
        let Some(swarm) = self.keys.get_mut(&key) else {
            return;
        };
        let (shares, total) = (&mut self.shares, &mut self.total);
        swarm.retain(|p| {
            let keep = keep(p);
            if !keep {
                shares.remove(Source::of(p.addr.ip()));
                *total -= 1;
            }
            keep
        });
        if swarm.is_empty() {
            self.keys.remove(&key);
        }
    }

    /// Forgets who announced long ago.
    pub(super) fn expire(&mut self, now: Time) {
        let keys: Vec<_> = self.keys.keys().copied().collect();
        for key in keys {
            self.retain_in(key, |p| now.since(p.at) < EXPIRY);
        }
    }

    /// Up to `n` peers of `key` at random, of one family.
    pub(super) fn get(
        &self,
        key: &Id,
        v6: bool,
        noseed: bool,
        n: usize,
        rng: &mut Rng,
    ) -> Vec<SocketAddr> {
        let swarm = self.keys.get(key).map_or(&[][..], |s| s);
        let mut fit: Vec<_> = swarm
            .iter()
            .filter(|p| p.addr.is_ipv6() == v6 && !(noseed && p.seed))
            .map(|p| p.addr)
            .collect();
        rng.shuffle(&mut fit);
        fit.truncate(n);
        fit
    }

    /// The filters of seeds and of other peers (BEP 33), if anybody announced `key`.
    pub(super) fn filters(&self, key: &Id) -> Option<(Bloom, Bloom)> {
        let swarm = self.keys.get(key)?;
        let (mut seeds, mut others) = (Bloom::default(), Bloom::default());
        for peer in swarm {
            let filter = if peer.seed { &mut seeds } else { &mut others };
            filter.insert(peer.addr.ip());
        }
        Some((seeds, others))
    }

    /// A random part of the keys; the same one for ten minutes (BEP 51).
    pub(super) fn sample(&mut self, now: Time, rng: &mut Rng) -> Samples {
        let age = now.since(self.sample.0).as_secs();
        if self.sample.1.is_empty() || age >= u64::from(SAMPLE_INTERVAL) {
            let mut keys: Vec<_> = self.keys.keys().copied().collect();
            rng.shuffle(&mut keys);
            keys.truncate(SAMPLES);
            self.sample = (now, keys);
        }
        let age = now.since(self.sample.0).as_secs() as u32;
        Samples {
            // Who has got all of them learns nothing by asking again soon; nobody does before
            // the next sample.
            interval: SAMPLE_INTERVAL.saturating_sub(age),
            num: self.keys.len() as u32,
            keys: self.sample.1.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        peers: 100,
        per_key: 20,
    };

    fn addr(ip: [u8; 4], port: u16) -> SocketAddr {
        (ip, port).into()
    }

    #[test]
    fn a_peer_is_kept_once_and_forgotten_in_time() {
        let mut rng = Rng::from_seed(1);
        let mut store = Peers::new(BOUNDS);
        let key = Id([1; 20]);
        let one = addr([1, 1, 1, 1], 1);
        store.announce(Time::ZERO, key, one, false, false, &mut rng);
        store.announce(Time::from_secs(1), key, one, true, false, &mut rng);
        assert_eq!(store.len(), 1);
        assert_eq!(store.get(&key, false, false, 9, &mut rng), [one]);
        assert!(store.get(&key, false, true, 9, &mut rng).is_empty());
        assert!(store.get(&key, true, false, 9, &mut rng).is_empty());
        let (seeds, others) = store.filters(&key).unwrap();
        assert_eq!((seeds.count(), others.count()), (1, 0));
        store.expire(Time::from_secs(46 * 60));
        assert_eq!((store.len(), store.keys()), (0, 0));
        assert!(store.filters(&key).is_none());
        assert_eq!(store.shares.len(), 0);
    }

    #[test]
    fn a_flood_from_one_address_displaces_only_itself() {
        let mut rng = Rng::from_seed(2);
        let mut store = Peers::new(BOUNDS);
        let honest: Vec<_> = (0..50u8)
            .map(|i| (Id::random(&mut rng), addr([2, 2, i, 1], 1)))
            .collect();
        for (key, peer) in &honest {
            store.announce(Time::ZERO, *key, *peer, false, false, &mut rng);
        }
        for i in 0..10_000u32 {
            let key = Id::random(&mut rng);
            let flood = addr([6, 6, 6, 6], 1 + (i % 60_000) as u16);
            store.announce(Time::from_secs(1), key, flood, false, false, &mut rng);
            assert!(store.len() <= BOUNDS.peers);
        }
        for (key, peer) in &honest {
            assert_eq!(store.get(key, false, false, 9, &mut rng), [*peer]);
        }
    }

    #[test]
    fn one_address_has_few_entries_for_a_key_unless_exempt() {
        let mut rng = Rng::from_seed(3);
        let mut store = Peers::new(BOUNDS);
        let key = Id([9; 20]);
        for port in 1..100 {
            store.announce(
                Time::ZERO,
                key,
                addr([3, 3, 3, 3], port),
                false,
                false,
                &mut rng,
            );
        }
        assert_eq!(store.len(), PORTS_PER_SOURCE);
        for port in 1..100 {
            store.announce(
                Time::ZERO,
                key,
                addr([127, 0, 0, 1], port),
                false,
                true,
                &mut rng,
            );
        }
        assert_eq!(store.len(), BOUNDS.per_key);
    }

    #[test]
    fn a_full_store_of_the_default_size_takes_less_than_four_hundred_kilobytes() {
        let mut rng = Rng::from_seed(5);
        let bounds = crate::mainline::Limits::default().peers;
        let mut store = Peers::new(bounds);
        for i in 0..4000u16 {
            let [a, b] = i.to_be_bytes();
            let (key, peer) = (Id::random(&mut rng), addr([7, a, b, 1], 1));
            store.announce(Time::ZERO, key, peer, false, false, &mut rng);
        }
        assert_eq!(store.len(), bounds.peers);
        assert!(store.memory() < 400_000, "{}", store.memory());
    }

    #[test]
    fn a_sample_stays_the_same_for_its_interval() {
        let mut rng = Rng::from_seed(4);
        let mut store = Peers::new(BOUNDS);
        for i in 0..60u8 {
            let key = Id::random(&mut rng);
            store.announce(
                Time::ZERO,
                key,
                addr([4, 4, i, 4], 1),
                false,
                false,
                &mut rng,
            );
        }
        let first = store.sample(Time::from_secs(1000), &mut rng);
        assert_eq!((first.num, first.keys.len(), first.interval), (60, 20, 600));
        let second = store.sample(Time::from_secs(1500), &mut rng);
        assert_eq!((&second.keys, second.interval), (&first.keys, 100));
        assert_ne!(
            store.sample(Time::from_secs(1600), &mut rng).keys,
            first.keys
        );
    }
}
