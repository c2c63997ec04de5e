//! The login server: binds names to keys, first come, first served, and signs tokens that say so.
//!
//! No password crosses the wire and none is kept: who claims a name signs a challenge with the key.

use std::collections::BTreeMap;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use shoal_base::{Rng, Time};

use crate::token::{Key, Sealed, Token, is_name};
use crate::wire::Refusal;

/// Challenges that wait for their answer at most.
const MAX_PENDING: usize = 4096;
/// How long one may.
const PENDING: Duration = Duration::from_secs(30);
/// Addresses whose requests are remembered at most.
const MAX_HOSTS: usize = 65_536;
/// Over which time requests of an address are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Over which time new names of an address are counted.
const DAY: Duration = Duration::from_secs(86_400);
const PROOF: &str = "login";

/// Limits of a login server.
#[derive(Debug, Clone)]
pub struct LoginConfig {
    /// Unix time, in seconds, of [`Time::ZERO`].
    pub epoch: u64,
    /// How long a token holds.
    pub lifetime: Duration,
    /// Names at most.
    pub max_names: usize,
    /// New names of one address in a day; zero for no limit.
    pub names_per_host: u32,
    /// Requests of one address in a minute; zero for no limit.
    pub requests_per_minute: u32,
    /// Hosts that neither limit holds for.
    pub unlimited: Vec<u128>,
}

impl Default for LoginConfig {
    fn default() -> Self {
        Self {
            epoch: 0,
            lifetime: DAY,
            max_names: 1_000_000,
            names_per_host: 20,
            requests_per_minute: 60,
            unlimited: Vec::new(),
        }
    }
}

#[derive(Debug)]
struct Pending {
    name: String,
    key: Key,
    nonce: [u8; 32],
    since: Time,
}

#[derive(Debug, Default)]
struct Host {
    window: Time,
    requests: u32,
    day: Time,
    names: u32,
}

/// The server. See the module's text.
#[derive(Debug)]
pub struct LoginServer {
    config: LoginConfig,
    key: SigningKey,
    rng: Rng,
    names: BTreeMap<String, (String, Key)>,
    pending: BTreeMap<u64, Pending>,
    hosts: BTreeMap<u128, Host>,
}

/// Signs a login server's challenge.
pub fn prove(key: &SigningKey, nonce: &[u8; 32], server: &Key, name: &str) -> Sealed {
    Sealed::new(key, PROOF, &(nonce, server, name))
}

impl LoginServer {
    /// One that signs with `key`; `rng` makes the challenges.
    pub fn new(config: LoginConfig, key: SigningKey, rng: Rng) -> Self {
        Self {
            config,
            key,
            rng,
            names: BTreeMap::new(),
            pending: BTreeMap::new(),
            hosts: BTreeMap::new(),
        }
    }

    /// Its public key: what everybody in the overlay trusts.
    pub fn key(&self) -> Key {
        self.key.verifying_key().to_bytes()
    }

    /// Takes in a name that was kept by an earlier run.
    pub fn restore(&mut self, name: &str, key: Key) {
        self.names
            .insert(name.to_ascii_lowercase(), (name.to_owned(), key));
    }

    /// Forgets a name that could not be kept.
    pub fn forget(&mut self, name: &str) {
        self.names.remove(&name.to_ascii_lowercase());
    }

    /// Every name and its key, by name.
    pub fn names(&self) -> impl Iterator<Item = (&str, &Key)> {
        self.names.values().map(|(name, key)| (name.as_str(), key))
    }

    /// How many names are somebody's.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    fn host(&mut self, now: Time, host: u128) -> &mut Host {
        if self.hosts.len() >= MAX_HOSTS && !self.hosts.contains_key(&host) {
            self.hosts
                .retain(|_, h| now.since(h.window) < WINDOW || now.since(h.day) < DAY);
            if self.hosts.len() >= MAX_HOSTS {
                // A flood from everywhere: forgetting them all is better than growing.
                self.hosts.clear();
            }
        }
        let entry = self.hosts.entry(host).or_insert(Host {
            window: now,
            day: now,
            ..Host::default()
        });
        if now.since(entry.window) >= WINDOW {
            (entry.window, entry.requests) = (now, 0);
        }
        if now.since(entry.day) >= DAY {
            (entry.day, entry.names) = (now, 0);
        }
        entry
    }

    /// Somebody at `host` claims a name on a connection: the challenge to sign.
    ///
    /// # Errors
    /// Why not.
    pub fn claim(
        &mut self,
        now: Time,
        conn: u64,
        host: u128,
        name: &str,
        key: Key,
    ) -> Result<[u8; 32], Refusal> {
        let most = self.config.requests_per_minute;
        let limited = most > 0 && !self.config.unlimited.contains(&host);
        let entry = self.host(now, host);
        entry.requests = entry.requests.saturating_add(1);
        if limited && entry.requests > most {
            return Err(Refusal::Often);
        }
        if !is_name(name) {
            return Err(Refusal::Name);
        }
        self.may_have(now, host, name, &key)?;
        self.pending.retain(|_, p| now.since(p.since) < PENDING);
        if self.pending.len() >= MAX_PENDING {
            return Err(Refusal::Full);
        }
        let mut nonce = [0; 32];
        self.rng.fill(&mut nonce);
        let pending = Pending {
            name: name.to_owned(),
            key,
            nonce,
            since: now,
        };
        self.pending.insert(conn, pending);
        Ok(nonce)
    }

    fn may_have(&mut self, now: Time, host: u128, name: &str, key: &Key) -> Result<(), Refusal> {
        match self.names.get(&name.to_ascii_lowercase()) {
            Some((_, owner)) if owner == key => return Ok(()),
            Some(_) => return Err(Refusal::Taken),
            None => {}
        }
        if self.names.len() >= self.config.max_names {
            return Err(Refusal::Full);
        }
        let most = self.config.names_per_host;
        let limited = most > 0 && !self.config.unlimited.contains(&host);
        if limited && self.host(now, host).names >= most {
            return Err(Refusal::Often);
        }
        Ok(())
    }

    /// The challenge of this connection was signed: the token, and whether the name is new (the
    /// driver keeps it before it answers).
    ///
    /// # Errors
    /// Why not.
    pub fn prove(
        &mut self,
        now: Time,
        conn: u64,
        host: u128,
        seal: &Sealed,
    ) -> Result<(Token, bool), Refusal> {
        let pending = self.pending.remove(&conn).ok_or(Refusal::Unproven)?;
        let what = (&pending.nonce, &self.key(), pending.name.as_str());
        let late = now.since(pending.since) >= PENDING;
        if late || !seal.is_by(&pending.key, PROOF, &what) {
            return Err(Refusal::Unproven);
        }
        // Somebody else may have been faster.
        self.may_have(now, host, &pending.name, &pending.key)?;
        let folded = pending.name.to_ascii_lowercase();
        let fresh = !self.names.contains_key(&folded);
        if fresh {
            self.host(now, host).names += 1;
            self.restore(&pending.name, pending.key);
        }
        let name = self
            .names
            .get(&folded)
            .map_or(pending.name, |n| n.0.clone());
        let unix = self.config.epoch + now.as_micros() / 1_000_000;
        let expires = unix + self.config.lifetime.as_secs();
        Ok((Token::issue(&self.key, &name, pending.key, expires), fresh))
    }

    /// A connection ended.
    pub fn closed(&mut self, conn: u64) {
        self.pending.remove(&conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn server(change: impl FnOnce(&mut LoginConfig)) -> LoginServer {
        let mut config = LoginConfig {
            epoch: 1_000_000,
            ..LoginConfig::default()
        };
        change(&mut config);
        LoginServer::new(config, key(1), Rng::from_seed(1))
    }

    fn login(s: &mut LoginServer, at: u64, name: &str, n: u8) -> Result<(Token, bool), Refusal> {
        let now = Time::from_secs(at);
        let public = key(n).verifying_key().to_bytes();
        let nonce = s.claim(now, 5, 9, name, public)?;
        let seal = prove(&key(n), &nonce, &s.key(), name);
        s.prove(now, 5, 9, &seal)
    }

    #[test]
    fn a_name_is_its_first_owners() {
        let mut s = server(|_| {});
        let (token, fresh) = login(&mut s, 0, "Alice", 2).expect("hers");
        assert!(fresh);
        assert_eq!(token.check(&s.key(), 1_000_000 + 86_399), Ok(()));
        assert!(token.check(&s.key(), 1_000_000 + 86_400).is_err());
        assert_eq!(login(&mut s, 1, "alice", 3), Err(Refusal::Taken));
        let (again, fresh) = login(&mut s, 2, "ALICE", 2).expect("hers");
        assert_eq!((again.name.as_str(), fresh), ("Alice", false));
        let names: Vec<_> = s.names().map(|(n, k)| (n.to_owned(), *k)).collect();
        let mut later = server(|_| {});
        names.iter().for_each(|(n, k)| later.restore(n, *k));
        assert_eq!(login(&mut later, 0, "alice", 3), Err(Refusal::Taken));
    }

    #[test]
    fn a_challenge_serves_once_for_who_got_it() {
        let mut s = server(|_| {});
        let now = Time::ZERO;
        let public = key(2).verifying_key().to_bytes();
        let nonce = s.claim(now, 5, 9, "alice", public).expect("asked");
        let stolen = prove(&key(3), &nonce, &s.key(), "alice");
        assert_eq!(s.prove(now, 5, 9, &stolen), Err(Refusal::Unproven));
        let right = prove(&key(2), &nonce, &s.key(), "alice");
        assert_eq!(
            s.prove(now, 5, 9, &right),
            Err(Refusal::Unproven),
            "used up"
        );
        let nonce = s.claim(now, 5, 9, "alice", public).expect("asked");
        let other = prove(&key(2), &nonce, &[7; 32], "alice");
        assert_eq!(
            s.prove(now, 5, 9, &other),
            Err(Refusal::Unproven),
            "for another server"
        );
        let nonce = s.claim(now, 5, 9, "alice", public).expect("asked");
        let right = prove(&key(2), &nonce, &s.key(), "alice");
        let late = Time::from_secs(30);
        assert_eq!(s.prove(late, 5, 9, &right), Err(Refusal::Unproven), "late");
    }

    #[test]
    fn one_address_gets_few_names_and_few_tries() {
        let mut s = server(|c| c.names_per_host = 2);
        assert!(login(&mut s, 0, "a", 2).is_ok() && login(&mut s, 0, "b", 2).is_ok());
        assert_eq!(login(&mut s, 0, "c", 2), Err(Refusal::Often));
        assert!(login(&mut s, 0, "a", 2).is_ok(), "its own it may have");
        assert!(login(&mut s, 86_400, "c", 2).is_ok(), "the next day");
        let mut s = server(|c| c.requests_per_minute = 3);
        let tries =
            |s: &mut LoginServer, at| (0..9).filter(|_| login(s, at, "a", 2).is_ok()).count();
        assert_eq!(tries(&mut s, 0), 3);
        assert_eq!(tries(&mut s, 60), 3);
    }
}
