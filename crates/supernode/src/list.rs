//! The list of supernodes: up to 200, with their load and age, for who knows none.

use std::collections::BTreeMap;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use shoal_base::{Rng, Time};

use crate::Address;
use crate::token::{Key, Presence, Sealed};
use crate::wire::{MAX_LIST, Refusal};

/// How old a registration may be when it comes, and how far ahead a clock, in seconds.
const SKEW: u64 = 120;
const REGISTRATION: &str = "registration";

/// A supernode as others are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "A: Address")]
pub struct Entry<A> {
    /// Where.
    pub addr: A,
    /// Percent of its places taken, 0 to 100.
    pub load: u8,
    /// Seconds since it was heard of.
    pub age: u32,
}

/// A supernode's own words, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "A: Address")]
pub struct Registration<A> {
    /// Who, and where.
    pub presence: Presence<A>,
    /// Percent of its places taken; over 100: it leaves the list.
    pub load: u8,
    /// When it said so, in Unix seconds.
    pub unix: u64,
    seal: Sealed,
}

impl<A: Address> Registration<A> {
    /// Signs one.
    pub fn new(key: &SigningKey, presence: Presence<A>, load: u8, unix: u64) -> Self {
        let seal = Sealed::new(key, REGISTRATION, &(&presence, load, unix));
        Self {
            presence,
            load,
            unix,
            seal,
        }
    }
}

/// Limits of a list.
#[derive(Debug, Clone)]
pub struct ListConfig {
    /// Unix time, in seconds, of [`Time::ZERO`].
    pub epoch: u64,
    /// Supernodes of one address at most, so that nobody fills the list alone; zero for no limit.
    pub per_host: usize,
    /// Hosts that this limit does not hold for.
    pub unlimited: Vec<u128>,
    /// After how long a supernode that is not heard of is dropped.
    pub lifetime: Duration,
}

impl Default for ListConfig {
    fn default() -> Self {
        Self {
            epoch: 0,
            per_host: 2,
            unlimited: Vec::new(),
            lifetime: Duration::from_secs(90),
        }
    }
}

#[derive(Debug)]
struct Held {
    key: Key,
    /// From where it registered.
    host: u128,
    load: u8,
    unix: u64,
    heard: Time,
}

/// The list. See the module's text.
#[derive(Debug)]
pub struct SupernodeList<A> {
    config: ListConfig,
    trusted: Key,
    rng: Rng,
    held: BTreeMap<A, Held>,
}

impl<A: Address> SupernodeList<A> {
    /// An empty one; `trusted` is the key of the login server whose tokens count.
    pub fn new(config: ListConfig, trusted: Key, rng: Rng) -> Self {
        Self {
            config,
            trusted,
            rng,
            held: BTreeMap::new(),
        }
    }

    /// Supernodes on it.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn expire(&mut self, now: Time) {
        let lifetime = self.config.lifetime;
        self.held.retain(|_, h| now.since(h.heard) < lifetime);
    }

    /// A supernode registers from `host`, or says that it leaves.
    ///
    /// # Errors
    /// Why not.
    pub fn register(
        &mut self,
        now: Time,
        host: u128,
        said: &Registration<A>,
    ) -> Result<(), Refusal> {
        let unix = self.config.epoch + now.as_micros() / 1_000_000;
        let what = (&said.presence, said.load, said.unix);
        let key = said.presence.token.key;
        said.presence
            .check(&self.trusted, unix)
            .map_err(Refusal::Invalid)?;
        if !said.seal.is_by(&key, REGISTRATION, &what) {
            return Err(Refusal::Invalid(crate::token::Invalid::Forged));
        }
        if said.unix.abs_diff(unix) > SKEW {
            return Err(Refusal::Stale);
        }
        let addr = said.presence.links;
        if !addr.is_of(host, &key) {
            return Err(Refusal::Elsewhere);
        }
        self.expire(now);
        // One key, one place: who registers a second address gives up the first.
        let mut known = self.held.iter().filter(|(_, h)| h.key == key);
        if let Some((old, held)) = known.next() {
            if held.unix > said.unix {
                return Err(Refusal::Stale);
            }
            let old = *old;
            if old != addr || said.load > 100 {
                self.held.remove(&old);
            }
        }
        if said.load > 100 {
            return Ok(());
        }
        if !self.held.contains_key(&addr) {
            let of_host = self.held.values().filter(|h| h.host == host).count();
            let limited = self.config.per_host > 0 && !self.config.unlimited.contains(&host);
            if limited && of_host >= self.config.per_host {
                return Err(Refusal::Full);
            }
            if self.held.len() >= MAX_LIST {
                self.evict();
            }
        }
        let held = Held {
            key,
            host,
            load: said.load,
            unix: said.unix,
            heard: now,
        };
        self.held.insert(addr, held);
        Ok(())
    }

    /// Makes room: whom nobody can join goes first, then who was not heard of for longest.
    fn evict(&mut self) {
        let last = self
            .held
            .iter()
            .min_by_key(|(addr, h)| (h.load < 100, h.heard, **addr))
            .map(|(addr, _)| *addr);
        if let Some(addr) = last {
            self.held.remove(&addr);
        }
    }

    /// The supernodes, in an order that differs each time, so that newcomers spread.
    pub fn entries(&mut self, now: Time) -> Vec<Entry<A>> {
        self.expire(now);
        let mut all: Vec<_> = self
            .held
            .iter()
            .map(|(addr, h)| Entry {
                addr: *addr,
                load: h.load,
                age: u32::try_from(now.since(h.heard).as_secs()).unwrap_or(u32::MAX),
            })
            .collect();
        self.rng.shuffle(&mut all);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Invalid, Token};

    const EPOCH: u64 = 1_000_000;

    fn server() -> SigningKey {
        SigningKey::from_bytes(&[1; 32])
    }

    /// One with the usual limits, of addresses of sockets.
    fn of_sockets() -> SupernodeList<std::net::SocketAddr> {
        let config = ListConfig {
            epoch: EPOCH,
            ..ListConfig::default()
        };
        let trusted = server().verifying_key().to_bytes();
        SupernodeList::new(config, trusted, Rng::from_seed(1))
    }

    fn list(per_host: usize) -> SupernodeList<u32> {
        let config = ListConfig {
            epoch: EPOCH,
            per_host,
            ..ListConfig::default()
        };
        let trusted = server().verifying_key().to_bytes();
        SupernodeList::new(config, trusted, Rng::from_seed(1))
    }

    fn own_key(n: u32) -> SigningKey {
        let mut secret = [9; 32];
        secret[..4].copy_from_slice(&n.to_le_bytes());
        SigningKey::from_bytes(&secret)
    }

    fn said(by: &SigningKey, n: u32, addr: u32, load: u8, at: u64) -> Registration<u32> {
        let key = own_key(n);
        let public = key.verifying_key().to_bytes();
        let token = Token::issue(by, &format!("n{n}"), public, EPOCH + 10_000);
        let presence = Presence::new(&key, token, addr, None);
        Registration::new(&key, presence, load, EPOCH + at)
    }

    #[test]
    fn the_list_holds_two_hundred_and_drops_the_full_and_the_silent() {
        let mut list = list(1);
        for n in 0..200 {
            let load = if n == 150 { 100 } else { 50 };
            let at = Time::from_secs(u64::from(n) / 10);
            assert_eq!(
                list.register(at, n.into(), &said(&server(), n, n, load, 0)),
                Ok(())
            );
        }
        let now = Time::from_secs(30);
        let addrs = |list: &mut SupernodeList<u32>, now| {
            let mut all: Vec<u32> = list.entries(now).iter().map(|e| e.addr).collect();
            all.sort_unstable();
            all
        };
        assert_eq!(addrs(&mut list, now).len(), 200);
        for n in 200..202 {
            assert_eq!(
                list.register(now, n.into(), &said(&server(), n, n, 0, 30)),
                Ok(())
            );
        }
        let held = addrs(&mut list, now);
        assert_eq!(held.len(), 200);
        assert!(!held.contains(&150), "the full one went first");
        assert!(
            !held.contains(&0) && held.contains(&1),
            "then who was silent for longest"
        );
        assert_eq!(addrs(&mut list, Time::from_secs(119)), [200, 201]);
        let (one, two) = (list.entries(now), list.entries(now));
        assert_eq!(one.len(), two.len());
    }

    #[test]
    fn an_address_gets_few_places_and_a_key_one() {
        let mut list = of_sockets();
        let at = |n: u32, port: u16, unix| {
            let key = own_key(n);
            let public = key.verifying_key().to_bytes();
            let token = Token::issue(&server(), "x", public, EPOCH + 100);
            let presence = Presence::new(&key, token, ([10, 0, 0, 1], port).into(), None);
            Registration::new(&key, presence, 1, EPOCH + unix)
        };
        let host = std::net::SocketAddr::from(([10, 0, 0, 1], 9)).host();
        let now = Time::ZERO;
        assert_eq!(list.register(now, host, &at(1, 1, 0)), Ok(()));
        assert_eq!(list.register(now, host, &at(2, 2, 0)), Ok(()));
        assert_eq!(list.register(now, host, &at(3, 3, 0)), Err(Refusal::Full));
        assert_eq!(list.register(now, host, &at(2, 4, 1)), Ok(()), "it moved");
        assert_eq!(list.len(), 2);
        assert_eq!(
            list.register(now, host, &at(2, 4, 0)),
            Err(Refusal::Stale),
            "replayed"
        );
        assert_eq!(
            list.register(now, host + 1, &at(2, 4, 2)),
            Err(Refusal::Elsewhere)
        );
    }

    #[test]
    fn an_overlay_address_is_its_keys_wherever_that_is() {
        let mut list = of_sockets();
        let says = |n: u32, of: u32| {
            let (key, other) = (own_key(n), own_key(of).verifying_key().to_bytes());
            let at = shoal_reach::overlay::address(&shoal_reach::identity::NodeId(other));
            let token = Token::issue(&server(), "x", key.verifying_key().to_bytes(), EPOCH + 100);
            let presence = Presence::new(&key, token, (at, 6347).into(), None);
            Registration::new(&key, presence, 1, EPOCH)
        };
        let now = Time::ZERO;
        assert_eq!(list.register(now, 7, &says(1, 1)), Ok(()));
        assert_eq!(
            list.register(now, 7, &says(2, 1)),
            Err(Refusal::Elsewhere),
            "another's"
        );
        // They are no way around what one host may have.
        assert_eq!(list.register(now, 7, &says(3, 3)), Ok(()));
        assert_eq!(list.register(now, 7, &says(4, 4)), Err(Refusal::Full));
        assert_eq!(list.register(now, 8, &says(4, 4)), Ok(()));
    }

    #[test]
    fn only_signed_fresh_words_of_our_login_servers_users_count() {
        let mut list = list(0);
        let foreign = said(&own_key(8), 1, 1, 5, 0);
        let register = |list: &mut SupernodeList<u32>, at, s: &Registration<u32>| {
            list.register(Time::from_secs(at), 1, s)
        };
        assert_eq!(
            register(&mut list, 0, &foreign),
            Err(Refusal::Invalid(Invalid::Foreign))
        );
        let good = said(&server(), 1, 1, 5, 0);
        assert_eq!(
            register(&mut list, 10_000, &good),
            Err(Refusal::Invalid(Invalid::Expired))
        );
        assert_eq!(register(&mut list, 121, &good), Err(Refusal::Stale));
        let mut changed = good.clone();
        changed.load = 0;
        assert_eq!(
            register(&mut list, 0, &changed),
            Err(Refusal::Invalid(Invalid::Forged))
        );
        assert_eq!(register(&mut list, 0, &good), Ok(()));
        assert_eq!(
            list.entries(Time::from_secs(7))[0],
            Entry {
                addr: 1,
                load: 5,
                age: 7
            }
        );
        assert_eq!(
            register(&mut list, 8, &said(&server(), 1, 1, 101, 8)),
            Ok(())
        );
        assert!(list.is_empty(), "it said that it leaves");
    }
}
