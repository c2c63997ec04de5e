//! Hosts known from pongs, refusals and caches: bounded, the best first, kept over restarts.

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use shoal_base::{Rng, Time};

use crate::message::{read_addresses, write_address};

/// How long a host that could not be reached is left alone, times the failures.
const PAUSE: Duration = Duration::from_secs(30);
/// Failures in a row after which a host is forgotten.
const MOST_FAILURES: u8 = 4;
/// The first bytes of what is kept, with a version.
const MAGIC: &[u8] = b"shoal gnutella hosts 1\n";

#[derive(Debug, Clone, Copy)]
struct Host {
    seen: Time,
    ultrapeer: bool,
    worked: bool,
    failures: u8,
    next: Time,
}

/// A bounded set of hosts, by their addresses of one kind.
#[derive(Debug)]
pub struct Hosts<A = SocketAddrV4> {
    known: BTreeMap<A, Host>,
    most: usize,
}

impl<A: Ord + Copy + Into<SocketAddr>> Hosts<A> {
    /// Keeps `most` hosts.
    pub fn new(most: usize) -> Self {
        Self {
            known: BTreeMap::new(),
            most,
        }
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Hears of a host.
    pub fn add(&mut self, now: Time, addr: A, ultrapeer: bool) {
        let place: SocketAddr = addr.into();
        if place.port() == 0 || place.ip().is_unspecified() || place.ip().is_multicast() {
            return;
        }
        if let Some(host) = self.known.get_mut(&addr) {
            host.seen = host.seen.max(now);
            host.ultrapeer |= ultrapeer;
            return;
        }
        if self.known.len() >= self.most {
            // Whoever failed, never worked, or was not heard of for longest.
            let rank = |h: &Host| (h.failures == 0, h.worked, h.seen);
            let worst = self.known.iter().min_by_key(|(_, h)| rank(h));
            let Some(worst) = worst.map(|(addr, _)| *addr) else {
                return;
            };
            self.known.remove(&worst);
        }
        let host = Host {
            seen: now,
            ultrapeer,
            worked: false,
            failures: 0,
            next: Time::ZERO,
        };
        self.known.insert(addr, host);
    }

    /// A connection came about.
    pub fn worked(&mut self, now: Time, addr: A) {
        if let Some(host) = self.known.get_mut(&addr) {
            (host.worked, host.failures, host.seen) = (true, 0, now);
        }
    }

    /// None came about.
    pub fn failed(&mut self, now: Time, addr: A) {
        if let Some(host) = self.known.get_mut(&addr) {
            host.failures += 1;
            host.next = now + PAUSE * u32::from(host.failures);
            if host.failures >= MOST_FAILURES && !host.worked || host.failures >= 3 * MOST_FAILURES
            {
                self.known.remove(&addr);
            }
        }
    }

    /// Up to `most` hosts to dial: those that worked first, then ultrapeers, at random among equals.
    /// They are not handed out again for a while.
    pub fn to_dial(
        &mut self,
        now: Time,
        most: usize,
        rng: &mut Rng,
        not: impl Fn(&A) -> bool,
    ) -> Vec<A> {
        let ready = self.known.iter().filter(|(a, h)| h.next <= now && !not(a));
        let mut ready: Vec<_> = ready
            .map(|(addr, h)| ((!h.worked, !h.ultrapeer, rng.next_u32()), *addr))
            .collect();
        ready.sort_unstable();
        ready.truncate(most);
        for (_, addr) in &ready {
            if let Some(host) = self.known.get_mut(addr) {
                host.next = now + PAUSE;
            }
        }
        ready.into_iter().map(|(_, addr)| addr).collect()
    }

    /// Up to `most` hosts to tell others: those heard of last, ultrapeers first.
    pub fn to_tell(&self, most: usize) -> Vec<A> {
        let good = self.known.iter().filter(|(_, h)| h.failures == 0);
        let mut good: Vec<_> = good.map(|(a, h)| (!h.ultrapeer, h.seen, *a)).collect();
        good.sort_unstable_by_key(|(not, seen, addr)| (*not, std::cmp::Reverse(*seen), *addr));
        good.into_iter()
            .take(most)
            .map(|(_, _, addr)| addr)
            .collect()
    }
}

impl Hosts {
    /// All that is to be kept over a restart.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for addr in self.to_tell(self.most) {
            write_address(addr, &mut out);
        }
        out
    }

    /// Takes back what [`Hosts::to_bytes`] gave; other bytes are left aside. Says how many there were.
    pub fn restore(&mut self, now: Time, bytes: &[u8]) -> usize {
        let Some(list) = bytes.strip_prefix(MAGIC) else {
            return 0;
        };
        let before = self.len();
        for addr in read_addresses(list).take(self.most) {
            self.add(now, addr, true);
        }
        self.len() - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, proptest};

    fn host(n: u16) -> SocketAddrV4 {
        SocketAddrV4::new([44, 20, 1, 1].into(), n)
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_who_worked() {
        let mut hosts = Hosts::new(10);
        let mut now = Time::from_secs(1);
        hosts.add(now, host(1), true);
        hosts.worked(now, host(1));
        for n in 2..100 {
            now += Duration::from_secs(1);
            hosts.add(now, host(n), n % 2 == 0);
        }
        assert_eq!(hosts.len(), 10);
        let mut rng = Rng::from_seed(1);
        let first = hosts.to_dial(now, 3, &mut rng, |_| false);
        assert_eq!(first[0], host(1));
        assert!(
            !hosts
                .to_dial(now, 10, &mut rng, |_| false)
                .contains(&host(1))
        );
        hosts.add(now, host(0), true);
        assert_eq!(hosts.len(), 10);
    }

    #[test]
    fn who_fails_is_left_alone_and_then_forgotten() {
        let mut hosts = Hosts::new(10);
        let mut rng = Rng::from_seed(1);
        let mut now = Time::from_secs(1);
        hosts.add(now, host(1), true);
        for _ in 0..MOST_FAILURES {
            assert_eq!(hosts.to_dial(now, 1, &mut rng, |_| false), [host(1)]);
            hosts.failed(now, host(1));
            assert!(hosts.to_dial(now, 1, &mut rng, |_| false).is_empty());
            now += Duration::from_secs(600);
        }
        assert!(hosts.is_empty());
    }

    #[test]
    fn what_is_kept_comes_back() {
        let mut hosts = Hosts::new(10);
        (1..6).for_each(|n| hosts.add(Time::ZERO, host(n), true));
        let mut again = Hosts::new(10);
        assert_eq!(again.restore(Time::ZERO, &hosts.to_bytes()), 5);
        assert_eq!(again.to_tell(9), hosts.to_tell(9));
        assert_eq!(again.restore(Time::ZERO, b"something else"), 0);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_bring_no_more_than_there_is_room(bytes: Vec<u8>) {
            let mut hosts = Hosts::new(5);
            hosts.restore(Time::ZERO, &[MAGIC, &bytes].concat());
            prop_assert!(hosts.len() <= 5);
        }
    }
}
